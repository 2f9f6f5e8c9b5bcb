"""How well a segmented volume fits the truth: overlap, surface distances in mm, and slices too many.

The surface metrics are MONAI's, which follow Nikolov et al. 2021 and Maier-Hein et al., Metrics reloaded,
Nature Methods 21, 2024.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from monai.metrics.hausdorff_distance import compute_hausdorff_distance
from monai.metrics.surface_dice import compute_surface_dice
from scipy import ndimage

from napari_sam_med.evaluation.metrics import dice

__all__ = ["VolumeScore", "over_propagation", "score_volume"]

Mask = npt.NDArray[np.bool_]

NSD_TOLERANCE_MM = 2.0


@dataclass(frozen=True)
class VolumeScore:
    """One object's mask against the truth.

    Attributes
    ----------
    dice : float
        Of the voxels, 0 to 1.
    nsd : float
        Normalised surface distance (surface Dice) at the tolerance: the share of both surfaces that lies
        within it of the other, 0 to 1; 0 when one mask is empty.
    hd95_mm : float
        95th percentile of the symmetric Hausdorff distance; infinite when one mask is empty.
    over_propagation : float
        See `over_propagation`.
    """

    dice: float
    nsd: float
    hd95_mm: float
    over_propagation: float


def score_volume(
    found: npt.ArrayLike,
    truth: npt.ArrayLike,
    spacing: tuple[float, float, float],
    *,
    axis: int = 0,
    tolerance_mm: float = NSD_TOLERANCE_MM,
) -> VolumeScore:
    """All scores of a mask (z, y, x) against the truth (z, y, x).

    Parameters
    ----------
    found, truth : array-like (z, y, x) of bool
    spacing : (z, y, x)
        Millimetres.
    axis : int
        Axis that the propagation ran along.
    tolerance_mm : float
        Of the normalised surface distance.

    Raises
    ------
    ValueError
        When the shapes differ.
    """
    a, b = np.asarray(found, dtype=bool), np.asarray(truth, dtype=bool)
    overlap = dice(a, b)
    surface, distance = _surface_scores(a, b, spacing, tolerance_mm)
    return VolumeScore(overlap, surface, distance, over_propagation(a, b, axis=axis))


def over_propagation(found: Mask, truth: Mask, *, axis: int = 0) -> float:
    """Share (0..1) of the filled slices that lie before the first or after the last slice of the truth.

    0 when nothing was found.
    """
    others = tuple(i for i in range(found.ndim) if i != axis)
    filled = np.flatnonzero(found.any(axis=others))
    present = np.flatnonzero(truth.any(axis=others))
    if not len(filled):
        return 0.0
    if not len(present):
        return 1.0
    return float(np.mean((filled < present[0]) | (filled > present[-1])))


def _surface_scores(
    found: Mask, truth: Mask, spacing: tuple[float, float, float], tolerance_mm: float
) -> tuple[float, float]:
    """NSD and HD95 (mm)."""
    if not found.any() or not truth.any():
        same = found.any() == truth.any()
        return (1.0, 0.0) if same else (0.0, float("inf"))
    box = ndimage.find_objects((found | truth).astype(np.uint8))[0]
    # a border of background, or a mask that touches its box has no surface there
    y_pred, y = (torch.from_numpy(np.pad(mask[box], 1)[None, None]) for mask in (found, truth))
    with warnings.catch_warnings():
        # MONAI 1.6 calls a function of its own by an argument that it has itself deprecated
        warnings.filterwarnings("ignore", ".*always_return_as_numpy", FutureWarning)
        surface = compute_surface_dice(
            y_pred, y, class_thresholds=[tolerance_mm], include_background=True, spacing=spacing
        )
        distance = compute_hausdorff_distance(
            y_pred, y, include_background=True, percentile=95, spacing=spacing
        )
    return float(surface), float(distance)
