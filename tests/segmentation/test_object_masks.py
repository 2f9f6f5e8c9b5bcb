"""Who gets a voxel that several objects claim."""

from __future__ import annotations

import numpy as np
import pytest

from napari_sam_med.progress import Progress
from napari_sam_med.segmentation.object_masks import ObjectMasks
from napari_sam_med.segmentation.propagation import PropagatedSlice, Source
from napari_sam_med.volume.grid import Grid
from napari_sam_med.volume.labels import LabelVolume
from napari_sam_med.volume.slice_view import SliceView

VIEW = SliceView("axial", 1)


def found(object_id: int, columns: slice, quality: float, source: Source = "propagated") -> PropagatedSlice:
    mask = np.zeros((4, 6), bool)
    mask[:, columns] = True
    return PropagatedSlice(Progress(1, 1), object_id, 10 + object_id, VIEW, mask, None, quality, source, None)


@pytest.mark.parametrize(
    ("first", "second", "winner"),
    [
        ((0.9, "propagated"), (0.6, "propagated"), 1),
        ((0.6, "propagated"), (0.9, "propagated"), 2),
        ((0.6, "propagated"), (0.9, "interpolated"), 2),
        ((0.3, "prompt"), (0.9, "propagated"), 1),
        ((0.9, "prompt"), (0.6, "prompt"), 1),
        ((0.7, "propagated"), (0.7, "propagated"), 2),
    ],
)
@pytest.mark.parametrize("turned", [False, True])
def test_the_better_slice_wins(first, second, winner: int, turned: bool) -> None:
    masks = ObjectMasks()
    slices = [found(1, slice(0, 4), *first), found(2, slice(2, 6), *second)]
    for done in reversed(slices) if turned else slices:
        masks.add(done)
    labels = LabelVolume(np.zeros((3, 4, 6), np.uint8), Grid(np.eye(4), (6, 4, 3)))
    assert masks.merge_into(labels) == 8
    image = VIEW.extract(labels.data)
    assert (image[:, 2:4] == 10 + winner).all()
    assert (image[:, :2] == 11).all()
    assert (image[:, 4:] == 12).all()
    assert masks.voxels(winner, labels) == 16


def test_empty_slices_claim_nothing() -> None:
    masks = ObjectMasks()
    masks.add(found(1, slice(0, 6), 0.5))
    masks.add(found(2, slice(0, 0), 0.9, "prompt"))
    labels = LabelVolume(np.zeros((3, 4, 6), np.uint8), Grid(np.eye(4), (6, 4, 3)))
    assert masks.merge_into(labels) == 0
    assert labels.class_ids() == (11,)
