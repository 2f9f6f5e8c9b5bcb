"""Example and query in one image."""

from __future__ import annotations

import numpy as np
import pytest

from napari_sam_med.segmentation.matching.canvas import Canvas
from napari_sam_med.segmentation.matching.example import ExampleSlice
from tests.segmentation.matching.scenes import disc, rgb


def canvas_of(
    example_spacing: tuple[float, float], query: np.ndarray, query_spacing: tuple[float, float]
) -> Canvas:
    mask = disc(20, 30, 8, (40, 60))
    return Canvas.of(
        ExampleSlice(rgb((mask * 200).astype(np.uint8)), mask, example_spacing), rgb(query), query_spacing
    )


def test_both_have_one_physical_pixel_size() -> None:
    query = (disc(30, 20, 6, (50, 40)) * 150).astype(np.uint8)
    canvas = canvas_of((1.0, 1.0), query, (2.0, 1.0))
    assert canvas.pixel_mm == 1.0
    assert canvas.image.shape == (100, 60 + 40, 3)
    assert canvas.query_size == (100, 40)
    assert not canvas.image[40:, :60].any()  # black below the lower image


def test_an_answer_comes_back_in_the_pixels_of_each() -> None:
    organ = disc(30, 20, 6, (50, 40))
    canvas = canvas_of((1.0, 1.0), (organ * 150).astype(np.uint8), (2.0, 1.0))
    answer = canvas.image[..., 0] > 75
    assert np.array_equal(canvas.example_half(answer), canvas.example_mask)
    assert np.mean(canvas.query_half(answer) == organ) > 0.99


def test_a_point_of_the_query_comes_back() -> None:
    canvas = canvas_of((1.0, 1.0), np.zeros((50, 40), dtype=np.uint8), (2.0, 1.0))
    x, y = canvas.query_xy((60 + 10.0, 60.5))
    assert x == pytest.approx(10.0)
    assert y == pytest.approx(30.0)


def test_a_tiny_organ_is_not_lost() -> None:
    mask = np.zeros((3000, 3000), dtype=bool)
    mask[2001, 1501] = True
    one = ExampleSlice(np.zeros((3000, 3000, 3), dtype=np.uint8), mask)
    canvas = Canvas.of(one, np.zeros((8, 8, 3), dtype=np.uint8), (1.0, 1.0))
    assert max(canvas.image.shape) <= 2050
    assert canvas.example_mask.any()
