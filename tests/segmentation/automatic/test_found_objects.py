"""Masks kept as cropped parts, and the objects that they make up."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from napari_sam_med.segmentation.automatic.found_objects import FoundMask, FoundObject
from napari_sam_med.volume.slice_view import SliceView

masks = arrays(bool, (9, 7)).filter(np.any)


@given(masks)
def test_a_mask_comes_back_as_it_was(mask):
    found = FoundMask.of(mask, 0.9, 0.8)
    np.testing.assert_array_equal(found.mask, mask)
    rows, columns = np.nonzero(mask)
    assert found.box_xyxy == (columns.min(), rows.min(), columns.max(), rows.max())
    assert found.area_px == mask.sum()


@given(masks, masks)
def test_overlap_and_iou_are_those_of_the_whole_masks(a, b):
    one, other = FoundMask.of(a, 1, 1), FoundMask.of(b, 1, 1)
    assert one.overlap_px(other) == other.overlap_px(one) == (a & b).sum()
    assert one.iou(other) == pytest.approx((a & b).sum() / (a | b).sum())


def test_an_empty_mask_is_refused():
    with pytest.raises(ValueError, match="empty"):
        FoundMask.of(np.zeros((3, 3), bool), 1, 1)


@given(st.sampled_from(["axial", "coronal", "sagittal"]), st.data())
def test_an_object_is_written_where_its_slices_lie(plane, data):
    shape = (4, 5, 6)
    drawn = {}
    for index in (1, 2):
        view = SliceView(plane, index)
        drawn[view] = data.draw(arrays(bool, view.slice_shape(shape)).filter(np.any))
    item = FoundObject(1, {view: FoundMask.of(mask, 1, 1) for view, mask in drawn.items()}, 0.5)
    written = np.zeros(shape, np.uint8)
    item.written_into(written, 3)
    expected = np.zeros(shape, np.uint8)
    for view, mask in drawn.items():
        view.insert(expected, mask * 3)
    np.testing.assert_array_equal(written, expected)
    assert item.voxels == np.count_nonzero(expected)


def test_objects_are_numbered_by_falling_score():
    mask = FoundMask.of(np.ones((2, 2), bool), 1, 1)
    low, high = (FoundObject(n, {SliceView("axial", 0): mask}, s) for n, s in ((1, 0.2), (2, 0.9)))
    ranked = FoundObject.renumbered([low, high])
    assert [(one.number, one.score) for one in ranked] == [(1, 0.9), (2, 0.2)]
