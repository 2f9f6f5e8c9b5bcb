"""Edges of a grid of points: where masks end, one pixel wide, on slices and in volumes."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from napari_sam_med import SliceView, Volume, load_predictor
from napari_sam_med.errors import CancelledError, PromptError
from napari_sam_med.segmentation.automatic.edges import (
    EdgeOptions,
    edge_map,
    search_edges,
    sobel_gradient,
    suppress_non_maxima,
)
from napari_sam_med.segmentation.automatic.prompt_area import body_mask
from napari_sam_med.segmentation.automatic.proposals import search_proposals
from napari_sam_med.volume.grid import Grid
from tests.segmentation.automatic.point_model import NoStore, PointModel, picture

SQUARE = {"grey200": (10, 30, 12, 36)}


def ring_of(image, value=200):
    """The outer boundary of a patch: pixels outside it with one of 4 neighbours inside."""
    mask = image[..., 0] == value
    return ndimage.binary_dilation(mask) & ~mask


def test_edges_are_the_outer_boundary_of_what_was_found():
    image = picture(**SQUARE)
    edges = edge_map(image, PointModel(), EdgeOptions(thin=False))
    assert edges.dtype == np.float32
    assert edges.shape == (40, 48)
    assert np.array_equal(edges > 0, ring_of(image))
    assert edges.max() == 1.0
    thinned = edge_map(image, PointModel())
    assert np.array_equal(thinned > 0, ring_of(image))  # one pixel wide already


def test_the_grid_is_that_of_sams_generator():
    model = PointModel()
    edge_map(picture(**SQUARE), model, EdgeOptions(points_per_side=4))
    assert model.asked[:5] == [(6.0, 5.0), (18.0, 5.0), (30.0, 5.0), (42.0, 5.0), (6.0, 15.0)]
    assert len(model.asked) == 16


def test_an_image_without_masks_has_no_edges():
    assert not edge_map(picture(), PointModel()).any()
    assert not edge_map(picture(grey90=(0, 40, 0, 48)), PointModel()).any()  # the mask ends nowhere inside


def test_redundant_masks_go_and_thresholds_leave_out():
    image = picture(grey200=(10, 30, 12, 36), grey120=(2, 8, 2, 10))
    small_is_poor = PointModel(iou_of=lambda mask: 0.9 if mask.sum() > 100 else 0.2)
    both = edge_map(image, small_is_poor, EdgeOptions(thin=False))
    assert both[1, 5] > 0
    large = edge_map(image, small_is_poor, EdgeOptions(thin=False, pred_iou_thresh=0.5))
    assert np.array_equal(large > 0, ring_of(image))
    assert not edge_map(image, small_is_poor, EdgeOptions(stability_score_thresh=0.8)).any()


def test_of_masks_with_much_the_same_box_the_surer_one_makes_edges():
    # nested: the inner box has 396 / 480 = 0.825 of the area of the frame's
    image = picture(grey200=(10, 30, 12, 36), grey120=(11, 29, 13, 35))
    inner_is_surer = PointModel(iou_of=lambda mask: 0.9 if mask.sum() > 100 else 0.2)
    edges = edge_map(image, inner_is_surer, EdgeOptions(points_per_side=24, thin=False))
    assert np.array_equal(edges > 0, ring_of(image, 120))
    both = edge_map(image, inner_is_surer, EdgeOptions(points_per_side=24, thin=False, box_nms_thresh=0.9))
    assert both[9, 20] > 0  # above the frame


def test_points_are_asked_where_it_is_wanted():
    model = PointModel()
    where = np.zeros((40, 48), dtype=bool)
    where[:, 24:] = True
    edge_map(picture(**SQUARE), model, EdgeOptions(points_per_side=4), where=where)
    assert {x for x, _ in model.asked} == {30.0, 42.0}
    assert not edge_map(picture(**SQUARE), model, where=np.zeros_like(where)).any()


@pytest.mark.parametrize("search", [search_edges, search_proposals])
def test_only_the_body_of_a_volume_is_asked_on_request(search):
    data = np.full((3, 40, 48), -1000, dtype=np.int16)
    data[:, 10:30, 24:] = 40
    volume, view = Volume(data, Grid.from_zyx(data.shape, (3.0, 2.0, 2.0))), SliceView("axial", 1)
    model = PointModel()
    list(search(volume, model, [view], window=(-160.0, 240.0), store=NoStore()))
    everywhere, model.asked = model.asked, []
    list(search(volume, model, [view], window=(-160.0, 240.0), store=NoStore(), body_only=True))
    inside = body_mask(volume)[1]
    assert inside[12:28, 27:].all()
    assert not inside[:, :24].any()
    assert model.asked == [(x, y) for x, y in everywhere if inside[min(round(y), 39), min(round(x), 47)]]


def test_thinning_keeps_the_crest_of_a_smooth_edge():
    step = np.zeros((30, 30), dtype=np.float32)
    step[:, 15:] = 1.0
    smooth = ndimage.gaussian_filter(step, 2)
    gradient = sobel_gradient(smooth)
    thinned = suppress_non_maxima(np.hypot(*gradient), gradient)
    assert np.array_equal(np.unique(np.nonzero(thinned)[1]), [14])  # 14 and 15 are equal: the first is kept
    assert (np.count_nonzero(thinned, axis=1) == 1).all()
    turned = suppress_non_maxima(np.hypot(*gradient).T.copy(), gradient[::-1].transpose(0, 2, 1).copy())
    assert np.array_equal(turned, thinned.T)


def test_thinning_a_circle_leaves_one_pixel_on_every_ray():
    y, x = np.indices((64, 64)) - 31.5
    smooth = ndimage.gaussian_filter((np.hypot(y, x) < 20).astype(np.float32), 1.5)
    gradient = sobel_gradient(smooth)
    thinned = suppress_non_maxima(np.hypot(*gradient), gradient)
    distances = np.hypot(y, x)[thinned > 0.1]
    assert distances.min() > 18.5
    assert distances.max() < 21.5
    assert len(distances) < 1.3 * 2 * np.pi * 20


def test_volumes_are_searched_slice_by_slice(volume):
    views = [SliceView("coronal", i) for i in (7, 9)]
    predictor = load_predictor("nano")
    options = EdgeOptions(points_per_side=2)
    steps = search_edges(volume, predictor, views, options)
    first = next(steps)
    steps.close()
    assert first.view == views[0]
    assert first.progress.fraction == 0.5
    assert first.edges.shape == (8, 32)
    assert 0 <= first.edges.min() <= first.edges.max() <= 1
    again = [step.edges for step in search_edges(volume, predictor, views, options)]
    assert np.array_equal(again[0], first.edges)
    assert len(again) == 2


def test_a_search_tells_of_points_and_ends_where_it_is_told_to(volume):
    told = []
    views = [SliceView("axial", i) for i in (2, 3)]
    options = EdgeOptions(points_per_side=9)
    list(search_edges(volume, PointModel(), views, options, store=NoStore(), on_points=told.append))
    shares = [64 / 81, 1, 1 + 64 / 81, 2]  # of 81 points on each of two slices
    assert [one.fraction for one in told] == pytest.approx([share / 2 for share in shares], abs=1e-3)

    def leave(progress):
        raise CancelledError("enough")

    model = PointModel()
    with pytest.raises(CancelledError):
        edge_map(picture(**SQUARE), model, on_progress=leave)
    assert len(model.asked) == 64


def test_models_without_points_and_odd_options_are_refused(volume):
    with pytest.raises(PromptError, match=r"takes no points.*choose another model"):
        edge_map(picture(), PointModel(accepts=("box",)))
    with pytest.raises(PromptError, match="takes no points"):
        next(search_edges(volume, PointModel(accepts=("box",)), [SliceView("axial", 0)]))
    with pytest.raises(PromptError, match="0 points a side"):
        EdgeOptions(points_per_side=0)
    with pytest.raises(PromptError, match=r"overlap by 1\.5"):
        EdgeOptions(box_nms_thresh=1.5)
