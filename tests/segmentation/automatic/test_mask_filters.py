"""Overlap, crop edges and small regions, against SAM's own and torchvision's."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from segment_anything.utils.amg import is_box_near_crop_edge, remove_small_regions
from torchvision.ops.boxes import batched_nms

from napari_sam_med.segmentation.automatic.mask_filters import (
    best_of_overlapping,
    touches_crop_edge,
    without_small_regions,
)
from tests.segmentation.automatic.varied_sam import connected_components_with_stats

BOXES = hnp.arrays(np.int64, st.tuples(st.integers(0, 40), st.just(4)), elements=st.integers(0, 12))


@given(BOXES, st.data(), st.sampled_from([0.0, 0.3, 0.5, 0.7, 1.0]))
def test_overlapping_boxes_are_dropped_as_torchvision_drops_them(corners, data, threshold):
    boxes = np.concatenate([np.minimum(corners[:, :2], corners[:, 2:]), corners[:, 2:]], axis=1)
    scores = np.array(data.draw(st.lists(st.sampled_from([0.1, 0.5, 0.9]), min_size=len(boxes),
                                         max_size=len(boxes))), dtype=np.float32)  # fmt: skip
    expected = batched_nms(
        torch.from_numpy(boxes).float(), torch.from_numpy(scores), torch.zeros(len(boxes)), threshold
    )
    np.testing.assert_array_equal(best_of_overlapping(boxes, scores, threshold), expected.numpy())


CROP, SIZE = (60, 50, 160, 150), (150, 300)


@given(st.integers(0, 99), st.integers(0, 99), st.integers(0, 99), st.integers(0, 99))
def test_masks_that_end_at_the_cut_are_sams(x0, y0, x1, y1):
    box = np.array([min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)])
    expected = is_box_near_crop_edge(torch.from_numpy(box)[None], list(CROP), [0, 0, SIZE[1], SIZE[0]])
    assert touches_crop_edge(box + np.array([60, 50, 60, 50]), CROP, SIZE) == bool(expected[0])


def test_the_edge_of_the_image_is_no_cut():
    assert touches_crop_edge(np.array([100, 80, 130, 149]), CROP, SIZE) is False
    assert touches_crop_edge(np.array([100, 80, 141, 149]), CROP, SIZE) is True


@pytest.fixture
def opencv(monkeypatch):
    """The one function of OpenCV that Meta's filter calls."""
    module = SimpleNamespace(connectedComponentsWithStats=connected_components_with_stats)
    monkeypatch.setitem(sys.modules, "cv2", module)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(hnp.arrays(bool, (9, 11)), st.integers(1, 30))
def test_small_regions_go_as_in_sam(opencv, mask, min_area):
    assume(mask.any())
    filled, some_holes = remove_small_regions(mask, min_area, mode="holes")
    cleaned, some_islands = remove_small_regions(filled, min_area, mode="islands")
    ours = without_small_regions(mask, min_area)
    np.testing.assert_array_equal(ours, cleaned)
    assert (ours is mask) == (not some_holes and not some_islands)


def test_holes_are_filled_and_islands_removed_and_the_largest_stays():
    mask = np.zeros((20, 20), dtype=bool)
    mask[2:12, 2:12] = True
    mask[5:7, 5:7] = False
    mask[15:17, 15:17] = True
    expected = np.zeros_like(mask)
    expected[2:12, 2:12] = True
    np.testing.assert_array_equal(without_small_regions(mask, 5), expected)
    assert without_small_regions(mask, 4) is mask
    np.testing.assert_array_equal(without_small_regions(expected, 200), expected)
