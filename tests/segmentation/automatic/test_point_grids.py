"""Grids of points, against SAM's own."""

from __future__ import annotations

import numpy as np
import pytest
from segment_anything.utils.amg import build_all_layer_point_grids, build_point_grid

from napari_sam_med.segmentation.automatic.point_grids import point_grid, point_grids


@pytest.mark.parametrize("per_side", [1, 2, 7, 32])
def test_a_grid_is_sams(per_side):
    np.testing.assert_array_equal(point_grid(per_side), build_point_grid(per_side))


def test_layers_become_coarser_as_sams_do():
    ours, theirs = point_grids(17, 2, 2), build_all_layer_point_grids(17, 2, 2)
    assert [len(grid) for grid in ours] == [17**2, 8**2, 4**2]
    for mine, its in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(mine, its)


def test_a_layer_keeps_at_least_one_point():
    assert [len(grid) for grid in point_grids(3, 2, 4)] == [9, 1, 1]
