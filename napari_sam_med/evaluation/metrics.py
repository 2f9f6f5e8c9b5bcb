"""Overlap of two masks. Plain numpy: two lines each need no dependency."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["dice", "iou"]


def dice(predicted: npt.ArrayLike, truth: npt.ArrayLike) -> float:
    """Dice coefficient (F1 of the pixels) of two masks of the same shape, any number of axes; 1 when both
    are empty.

    Raises
    ------
    ValueError
        When the shapes differ.
    """
    shared, a, b = _counts(predicted, truth)
    return 1.0 if a + b == 0 else 2 * shared / (a + b)


def iou(predicted: npt.ArrayLike, truth: npt.ArrayLike) -> float:
    """Intersection over union (Jaccard) of two masks of the same shape; 1 when both are empty.

    Raises
    ------
    ValueError
        When the shapes differ.
    """
    shared, a, b = _counts(predicted, truth)
    return 1.0 if a + b == 0 else shared / (a + b - shared)


def _counts(predicted: npt.ArrayLike, truth: npt.ArrayLike) -> tuple[int, int, int]:
    a, b = np.asarray(predicted, dtype=bool), np.asarray(truth, dtype=bool)
    if a.shape != b.shape:
        raise ValueError(
            f"Masks of shape {a.shape} and {b.shape} cannot be compared; bring them to one grid."
        )
    return int((a & b).sum()), int(a.sum()), int(b.sum())
