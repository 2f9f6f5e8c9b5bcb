"""Overlap of two masks. Plain numpy: two lines each need no dependency."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["dice", "dice_and_iou", "iou"]


def dice(predicted: npt.ArrayLike, truth: npt.ArrayLike) -> float:
    """Dice coefficient (F1 of the pixels) of two masks of the same shape, any number of axes; 1 when both
    are empty.

    Raises
    ------
    ValueError
        When the shapes differ.
    """
    return dice_and_iou(predicted, truth)[0]


def iou(predicted: npt.ArrayLike, truth: npt.ArrayLike) -> float:
    """Intersection over union (Jaccard) of two masks of the same shape; 1 when both are empty.

    Raises
    ------
    ValueError
        When the shapes differ.
    """
    return dice_and_iou(predicted, truth)[1]


def dice_and_iou(predicted: npt.ArrayLike, truth: npt.ArrayLike) -> tuple[float, float]:
    """`dice` and `iou`, with the pixels counted once."""
    a, b = np.asarray(predicted, dtype=bool), np.asarray(truth, dtype=bool)
    if a.shape != b.shape:
        raise ValueError(
            f"Masks of shape {a.shape} and {b.shape} cannot be compared; bring them to one grid."
        )
    # numpy counts truth values several times as fast as it adds them up
    shared, both = int(np.count_nonzero(a & b)), int(np.count_nonzero(a)) + int(np.count_nonzero(b))
    return (1.0, 1.0) if both == 0 else (2 * shared / both, shared / (both - shared))
