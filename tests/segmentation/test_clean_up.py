"""Clean-up of masks: what stays, what goes, and how much."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_sam_med.errors import LabelError
from napari_sam_med.segmentation.clean_up import fill_holes, largest_component, remove_islands, smooth

SPACING = (2.0, 1.0, 1.0)


def ball(radius_mm: float, shape=(24, 48, 48), spacing=SPACING) -> np.ndarray:
    z, y, x = ((np.arange(n) - (n - 1) / 2) * step for n, step in zip(shape, spacing, strict=True))
    return z[:, None, None] ** 2 + y[:, None] ** 2 + x**2 <= radius_mm**2


@pytest.fixture
def islands() -> np.ndarray:
    """Components of 27, 8 and 1 voxels; the first is hung together by a corner with one more."""
    mask = np.zeros((10, 12, 14), dtype=bool)
    mask[1:4, 1:4, 1:4] = True
    mask[4, 4, 4] = True
    mask[6:8, 7:9, 8:10] = True
    mask[9, 11, 13] = True
    return mask


def test_the_largest_component_hangs_together_by_corners(islands: np.ndarray) -> None:
    kept = largest_component(islands)
    assert np.count_nonzero(kept) == 28
    assert kept[4, 4, 4]


def test_components_that_touch_what_is_given_stay(islands: np.ndarray) -> None:
    touching = np.zeros_like(islands)
    touching[9] = True
    kept = largest_component(islands, touching)
    assert np.count_nonzero(kept) == 29
    assert kept[9, 11, 13]


@pytest.mark.parametrize(
    ("least", "left"), [(0.0, 37), (2.0, 37), (2.1, 36), (16.0, 36), (17.0, 28), (57.0, 0)]
)
def test_islands_are_measured_in_cubic_millimetres(islands: np.ndarray, least: float, left: int) -> None:
    assert np.count_nonzero(remove_islands(islands, least, SPACING)) == left


def test_an_island_of_negative_volume_is_refused(islands: np.ndarray) -> None:
    with pytest.raises(LabelError, match="cannot be -1 mm3"):
        remove_islands(islands, -1.0, SPACING)


def test_a_closed_hole_is_filled_and_an_open_one_is_not() -> None:
    mask = np.zeros((9, 9, 9), dtype=bool)
    mask[1:8, 1:8, 1:8] = True
    mask[3:5, 3:5, 3:5] = False
    solid = fill_holes(mask)
    assert np.count_nonzero(solid) == 343
    mask[:4, 3, 3] = False
    assert np.array_equal(fill_holes(mask), mask)


def test_a_tube_is_filled_in_the_plane_that_cuts_it() -> None:
    mask = np.zeros((6, 12, 12), dtype=bool)
    mask[1:5, 2:10, 2:10] = True
    mask[:, 4:6, 4:6] = False
    assert np.array_equal(fill_holes(mask), mask)
    assert np.array_equal(fill_holes(mask, "coronal"), mask)
    filled = fill_holes(mask, "axial")
    assert np.count_nonzero(filled) == 4 * 64


def test_a_corner_is_no_way_out_of_a_hole() -> None:
    mask = np.ones((3, 3, 3), dtype=bool)
    mask[1, 1, 1] = mask[0, 0, 0] = False
    filled = fill_holes(mask)
    assert filled[1, 1, 1]
    assert not filled[0, 0, 0]


@pytest.mark.parametrize("plane", ["axial", "coronal", "sagittal"])
def test_holes_of_the_outermost_slices_are_filled_too(plane: str) -> None:
    mask = np.ones((3, 3, 3), dtype=bool)
    axis = ("axial", "coronal", "sagittal").index(plane)
    middle: list = [1, 1, 1]
    middle[axis] = 0
    mask[tuple(middle)] = False
    assert fill_holes(mask, plane).all()


@pytest.mark.parametrize("radius_mm", [1.0, 2.0, 3.0])
@pytest.mark.parametrize("plane", [None, "axial"])
def test_smoothing_keeps_a_ball(radius_mm: float, plane: str | None) -> None:
    mask = ball(15.0)
    smoothed = smooth(mask, radius_mm, SPACING, plane)
    volume = np.count_nonzero(mask)
    assert np.count_nonzero(smoothed) == pytest.approx(volume, rel=0.02)
    assert np.count_nonzero(smoothed & mask) > 0.96 * volume


def test_smoothing_takes_bumps_and_dents_away() -> None:
    clean = ball(15.0)
    rng = np.random.default_rng(0)
    ring = ball(17.0) & ~ball(13.0)
    rough = clean ^ (ring & (rng.random(clean.shape) < 0.15))
    smoothed = smooth(rough, 1.5, SPACING)
    assert np.count_nonzero(smoothed ^ clean) < 0.4 * np.count_nonzero(rough ^ clean)


def test_smoothing_does_not_lose_a_sheet_of_one_slice() -> None:
    mask = np.zeros((9, 24, 24), dtype=bool)
    mask[4, 4:20, 4:20] = True
    smoothed = smooth(mask, 2.0, (1.0, 1.0, 1.0), "axial")
    assert np.flatnonzero(smoothed.any(axis=(1, 2))).tolist() == [4]
    assert np.count_nonzero(smoothed) == pytest.approx(256, rel=0.05)


def test_smoothing_does_not_eat_from_the_edge_of_the_volume() -> None:
    mask = np.zeros((8, 20, 20), dtype=bool)
    mask[:5] = True
    assert np.array_equal(smooth(mask, 2.0, (1.0, 1.0, 1.0)), mask)


@pytest.mark.parametrize("radius_mm", [0.0, -1.0, float("nan")])
def test_smoothing_with_no_radius_is_refused(radius_mm: float) -> None:
    with pytest.raises(LabelError, match="is not possible"):
        smooth(ball(5.0), radius_mm, SPACING)


@given(st.integers(0, 2**32 - 1), st.sampled_from([None, "axial", "coronal", "sagittal"]))
@settings(max_examples=40, deadline=None)
def test_what_holds_for_every_mask(seed: int, plane: str | None) -> None:
    rng = np.random.default_rng(seed)
    mask = rng.random((5, 8, 7)) < rng.random()
    before = mask.copy()
    biggest, islands = largest_component(mask), remove_islands(mask, 6.0, SPACING)
    filled, smoothed = fill_holes(mask, plane), smooth(mask, 1.0, SPACING, plane)
    assert np.array_equal(mask, before)
    assert not (biggest & ~mask).any()
    assert not (islands & ~mask).any()
    assert biggest.any() == mask.any()
    assert not (mask & ~filled).any()
    assert np.array_equal(fill_holes(filled, plane), filled)
    assert np.array_equal(largest_component(biggest), biggest)
    assert smoothed.any() == mask.any()
