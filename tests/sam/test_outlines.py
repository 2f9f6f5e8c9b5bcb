"""Outlines become pixels, and fewer corners."""

from __future__ import annotations

import numpy as np
import numpy.testing as npt
from hypothesis import given
from hypothesis import strategies as st
from skimage.draw import polygon2mask

from napari_sam_med.sam.outlines import mask_of_outline, simplified_outline

SHAPE = (40, 60)


def circle(x: float, y: float, r: float, turns: int = 1, corners: int = 40) -> np.ndarray:
    angle = np.linspace(0, 2 * np.pi * turns, corners * turns, endpoint=False)
    return np.stack([x + r * np.cos(angle), y + r * np.sin(angle)], axis=1)


@given(st.integers(0, 50), st.integers(0, 30), st.integers(1, 9), st.integers(1, 9))
def test_the_outline_of_a_rectangle_is_that_rectangle(left: int, top: int, width: int, height: int) -> None:
    right, bottom = left + width, top + height
    outline = np.array([(left, top), (right, top), (right, bottom), (left, bottom)], np.float32)
    wanted = np.zeros(SHAPE, bool)
    wanted[top : bottom + 1, left : right + 1] = True
    npt.assert_array_equal(mask_of_outline(outline, SHAPE), wanted)


@given(
    st.floats(-15, 70), st.floats(-15, 50), st.floats(1, 30), st.integers(3, 12), st.integers(0, 2**32 - 1)
)
def test_what_is_filled_lies_in_the_box_and_in_the_slice(
    x: float, y: float, r: float, n: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    outline = (rng.uniform(-r, r, (n, 2)) + np.array((x, y))).astype(np.float32)
    mask = mask_of_outline(outline, SHAPE)
    assert mask.shape == SHAPE
    rows, columns = np.nonzero(mask)
    assert ((columns >= outline[:, 0].min()) & (columns <= outline[:, 0].max())).all()
    assert ((rows >= outline[:, 1].min()) & (rows <= outline[:, 1].max())).all()


def test_a_lasso_that_goes_around_twice_is_filled() -> None:
    once, twice = (mask_of_outline(circle(30, 20, 12, turns), SHAPE) for turns in (1, 2))
    assert once[20, 30]
    npt.assert_array_equal(once, twice)
    overshot = mask_of_outline(circle(30, 20, 12, 2)[:50], SHAPE)
    npt.assert_array_equal(once, overshot)


@given(st.integers(3, 9), st.integers(0, 2**32 - 1))
def test_a_simple_outline_is_filled_as_scikit_image_does(n: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    angle = np.sort(rng.uniform(0, 2 * np.pi, n))
    reach = rng.uniform(2, 25, n)
    star = np.stack([30 + reach * np.cos(angle), 20 + reach * np.sin(angle)], axis=1).astype(np.float32)
    npt.assert_array_equal(mask_of_outline(star, SHAPE), polygon2mask(SHAPE, star[:, ::-1]))


@given(st.integers(3, 60), st.floats(0.3, 15), st.integers(0, 2**32 - 1))
def test_fewer_corners_mark_the_same_pixels_to_half_a_pixel(n: int, r: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    angle = np.linspace(0, 2 * np.pi, n, endpoint=False)
    reach = r * rng.uniform(0.7, 1, n)
    drawn = np.stack([30 + reach * np.cos(angle), 20 + reach * np.sin(angle)], axis=1).round(2)
    fewer = simplified_outline(drawn)
    if fewer is None:
        assert np.ptp(drawn, axis=0).min() < 2
        return
    corners = {tuple(corner) for corner in drawn.tolist()}
    assert {tuple(corner) for corner in fewer.tolist()} <= corners
    npt.assert_array_equal(simplified_outline(fewer), fewer)
    npt.assert_allclose(fewer.min(axis=0), drawn.min(axis=0), atol=0.51)
    npt.assert_allclose(fewer.max(axis=0), drawn.max(axis=0), atol=0.51)


def test_hundreds_of_corners_become_dozens() -> None:
    fewer = simplified_outline(circle(200, 200, 120, turns=1, corners=900))
    assert 15 < len(fewer) < 90
    drawn = mask_of_outline(circle(200, 200, 120), (400, 400))
    again = mask_of_outline(fewer, (400, 400))
    assert np.count_nonzero(drawn ^ again) < 0.02 * np.count_nonzero(drawn)


def test_a_line_there_and_back_is_no_outline() -> None:
    assert simplified_outline(np.array([(5.0, 5.0), (20.0, 12.0), (12.5, 8.6)])) is None
