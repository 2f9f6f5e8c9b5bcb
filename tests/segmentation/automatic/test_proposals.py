"""Ranked proposals on slices, and boxes in volumes."""

from __future__ import annotations

import numpy as np
import pytest

from napari_sam_med import SliceView, Volume
from napari_sam_med.errors import PromptError
from napari_sam_med.segmentation.automatic.linking import LinkRules
from napari_sam_med.segmentation.automatic.proposals import (
    ProposalOptions,
    VolumeBox,
    boxes_of_objects,
    propose,
    search_proposals,
)
from napari_sam_med.volume.grid import Grid
from tests.segmentation.automatic.point_model import NoStore, PointModel, picture

TWO = {"grey200": (10, 30, 12, 36), "grey120": (2, 8, 2, 10)}


def by_size(mask):
    return 0.9 if mask.sum() > 100 else 0.5


def test_each_object_is_proposed_once_and_the_surer_first():
    found = propose(picture(**TWO), PointModel(iou_of=by_size))
    assert [one.rank for one in found] == [1, 2]
    assert [one.box_xyxy for one in found] == [(12, 10, 35, 29), (2, 2, 9, 7)]
    assert [one.score for one in found] == pytest.approx([0.8, 0.6])  # of predicted IoU and stability
    assert found[0].found.point_xy is not None


def test_options_bound_and_thin_the_proposals():
    model = PointModel(iou_of=by_size)
    assert len(propose(picture(**TWO), model, ProposalOptions(most=1))) == 1
    assert propose(picture(), model) == []
    model.asked.clear()
    single = propose(picture(**TWO), model, ProposalOptions(points_per_side=8, multimask=False))
    assert len(model.asked) == 64
    assert len(single) == 2


def test_boxes_that_overlap_less_than_asked_all_stay():
    # nested: the inner box has (18 x 22) / (20 x 24) = 0.825 of the outer one's area
    nested = picture(grey200=(10, 30, 12, 36), grey120=(11, 29, 13, 35))
    assert len(propose(nested, PointModel(), ProposalOptions(points_per_side=48))) == 2
    options = ProposalOptions(points_per_side=48, box_nms_thresh=0.8)
    assert len(propose(nested, PointModel(), options)) == 1


def volume_with_rod():
    data = np.zeros((5, 40, 48), dtype=np.uint8)
    data[1:4, 10:30, 12:36] = 200
    return Volume(data, Grid.from_zyx(data.shape))


@pytest.mark.parametrize("plane", ["axial", "coronal", "sagittal"])
def test_slices_make_boxes_of_the_volume(plane):
    volume = volume_with_rod()
    views = [SliceView(plane, i) for i in range(volume.shape[SliceView(plane, 0).axis])]
    steps = list(
        search_proposals(
            volume,
            PointModel(),
            views,
            ProposalOptions(points_per_side=5),
            window=(0.0, 255.0),
            store=NoStore(),
            rules=LinkRules(min_voxels=1),
        )
    )
    assert [step.view for step in steps] == views
    assert steps[-1].progress.fraction == 1.0
    boxes = boxes_of_objects(steps[-1].linker.objects(), volume.shape)
    assert [(box.first_zyx, box.last_zyx) for box in boxes] == [((1, 10, 12), (3, 29, 35))]
    assert 0 < boxes[0].score <= 1


def test_a_search_can_be_left_at_any_slice():
    volume = volume_with_rod()
    views = [SliceView("axial", i) for i in range(5)]
    steps = search_proposals(
        volume, PointModel(), views, ProposalOptions(points_per_side=4), window=(0, 255), store=NoStore()
    )
    next(steps)
    next(steps)
    third = next(steps)
    steps.close()
    assert [(one.found.area_px, third.view.index) for one in third.proposals] == [(480, 2)]
    boxes = boxes_of_objects(third.linker.objects(), volume.shape)
    assert boxes == [VolumeBox((1, 10, 12), (2, 29, 35), boxes[0].score)]


def test_models_without_points_are_refused():
    with pytest.raises(PromptError, match="takes no points"):
        propose(picture(), PointModel(accepts=("box",)))
    with pytest.raises(PromptError, match="takes no points"):
        next(search_proposals(volume_with_rod(), PointModel(accepts=("box",)), []))
