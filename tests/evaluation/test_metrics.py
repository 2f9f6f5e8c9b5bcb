"""Overlap of masks, and the answers that need no model."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from napari_sam_med.evaluation.baselines import filled_box, inscribed_ellipse, tight_box
from napari_sam_med.evaluation.metrics import dice, iou

MASKS = npst.arrays(np.bool_, (5, 6))


def test_known_overlaps() -> None:
    a, b = np.zeros((4, 4), bool), np.zeros((4, 4), bool)
    a[:2], b[1:3] = True, True
    assert dice(a, b) == pytest.approx(0.5)
    assert iou(a, b) == pytest.approx(1 / 3)


def test_two_empty_masks_agree() -> None:
    empty = np.zeros((3, 3))
    assert dice(empty, empty) == iou(empty, empty) == 1
    assert dice(empty, np.ones((3, 3))) == 0


def test_other_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="cannot be compared"):
        dice(np.zeros((2, 2)), np.zeros((2, 3)))


@given(MASKS, MASKS)
def test_dice_and_iou_say_the_same(a: np.ndarray, b: np.ndarray) -> None:
    d, j = dice(a, b), iou(a, b)
    assert d == dice(b, a)
    assert d == pytest.approx(2 * j / (1 + j))


@given(st.integers(0, 20), st.integers(0, 20), st.integers(0, 19), st.integers(0, 19))
def test_box_and_ellipse_keep_to_their_box(x: int, y: int, width: int, height: int) -> None:
    box = (x, y, x + width, y + height)
    filled, ellipse = filled_box(box, (50, 50)), inscribed_ellipse(box, (50, 50))
    assert tight_box(filled).tolist() == list(box)
    assert filled.sum() == (width + 1) * (height + 1)
    assert not (ellipse & ~filled).any()
    # a thin ellipse ends in points that no pixel centre lies in, but it always spans its middle lines
    middle_row, middle_column = y + height // 2, x + width // 2
    if height % 2 == 0:
        assert ellipse[middle_row].sum() == width + 1
    if width % 2 == 0:
        assert ellipse[:, middle_column].sum() == height + 1


def test_an_ellipse_has_its_area() -> None:
    assert inscribed_ellipse((10, 20, 89, 59), (100, 100)).sum() == pytest.approx(np.pi * 40 * 20, rel=0.01)


def test_an_empty_mask_has_no_box() -> None:
    with pytest.raises(ValueError, match="no box"):
        tight_box(np.zeros((4, 4)))
