"""What speaks for and against a carried mask: the model's word, its neighbour, and the tissue under it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Appearance", "Findings", "StopLimits", "iou"]

_N_BINS = 32
_WINDOW_PER_LEAST_DEVIATION = 60
"""An even object may still differ by 3 such deviations, a twentieth of the window, from slice to slice."""
_USUAL_STEP_MM = 5.0
_FEW_PIXELS = 150
_WORTHLESS, _SURE = 0.55, 0.91
"""Means of the evidence below and above which masks carried by `nano` had Dice 0.1 and 0.97 on the volumes of
docs/propagation/tuning_cases.csv (273 slices, rank correlation 0.86); between them the Dice rises evenly."""
_WEIGHTS = {"iou_prediction": 0.3, "stability": 0.2, "overlap": 0.3, "likeness": 0.2}


@dataclass(frozen=True, eq=False)
class Appearance:
    """Values of an object on a slice, limited to the window.

    Attributes
    ----------
    mean, deviation : float
        In the volume's own values; the deviation is at least a sixtieth of the window.
    histogram : ndarray (32,) of float64
        Shares of the voxels between the window's limits.
    """

    mean: float
    deviation: float
    histogram: npt.NDArray[np.float64]

    @classmethod
    def of(cls, values: npt.NDArray[Any], window: tuple[float, float]) -> Appearance:
        """Of voxel values (any shape); those without a value are left out."""
        low, high = window
        inside = np.clip(values.ravel().astype(np.float64), low, high)
        inside = inside[np.isfinite(inside)]
        if not len(inside):
            return cls(low, high - low, np.full(_N_BINS, 1 / _N_BINS))
        counts, _ = np.histogram(inside, _N_BINS, window)
        least = (high - low) / _WINDOW_PER_LEAST_DEVIATION
        return cls(float(inside.mean()), max(float(inside.std()), least), counts / len(inside))

    def shift_from(self, key: Appearance) -> float:
        """Difference of the means in standard deviations of the key slice's values."""
        return abs(self.mean - key.mean) / key.deviation

    def divergence_from(self, key: Appearance) -> float:
        """Jensen-Shannon divergence of the histograms in bits, 0 (alike) to 1 (nothing in common)."""
        middle = (self.histogram + key.histogram) / 2
        return float((_bits(self.histogram, middle) + _bits(key.histogram, middle)) / 2)


def _bits(p: npt.NDArray[np.float64], q: npt.NDArray[np.float64]) -> float:
    some = p > 0
    return float((p[some] * np.log2(p[some] / q[some])).sum())


@dataclass(frozen=True)
class Findings:
    """What is known of a mask when it is decided whether to believe it.

    Attributes
    ----------
    area_px, expected_px : int
        Its area, and that of the mask it was expected to resemble.
    overlap : float
        IoU with that mask.
    iou_prediction, stability : float
        The model's own estimate, and how little the mask depends on the threshold; 0..1.
    brightness, key_brightness : float
        Mean value on this slice and on the key slice.
    brightness_shift : float
        Their difference in standard deviations of the key slice's values.
    divergence : float
        Of the histograms, 0..1.
    """

    area_px: int
    expected_px: int
    overlap: float
    iou_prediction: float
    stability: float
    brightness: float
    key_brightness: float
    brightness_shift: float
    divergence: float

    @property
    def quality(self) -> float:
        """The Dice to expect, 0 (worthless) to 1 (sure), from the weighted mean of the evidence."""
        parts = {
            "iou_prediction": self.iou_prediction,
            "stability": self.stability,
            "overlap": self.overlap,
            "likeness": 1 - self.divergence,
        }
        mean = sum(weight * parts[name] for name, weight in _WEIGHTS.items())
        return float(np.clip((mean - _WORTHLESS) / (_SURE - _WORTHLESS), 0, 1))


@dataclass(frozen=True)
class StopLimits:
    """When a carried mask is not believed, and how that is said.

    Attributes
    ----------
    min_overlap : float
        Least IoU with the neighbouring slice's mask, for slices up to 5 mm apart and masks of 150 pixels or
        more; 0.7 times that beyond.
    min_iou_prediction, min_stability : float
        Least IoU that the model predicts for its own mask, and least stability score.
    max_brightness_shift : float
        Standard deviations of the key slice's values.
    max_divergence : float
        Of the values' histogram from the key slice's, 0..1.
    max_growth : float
        Largest ratio of areas for slices up to 5 mm apart; its power of steps of 5 mm beyond.
    """

    min_overlap: float
    min_iou_prediction: float
    min_stability: float
    max_brightness_shift: float
    max_divergence: float
    max_growth: float

    def reason(self, found: Findings, step_mm: float) -> str | None:
        """Why the mask is not believed, in words; None when it is."""
        if not found.area_px:
            return "the mask vanished"
        least_overlap = self.min_overlap
        if step_mm > _USUAL_STEP_MM or found.expected_px < _FEW_PIXELS:
            least_overlap *= 0.7
        if found.overlap < least_overlap:
            return f"overlap with the previous slice fell to {found.overlap:.2f} (limit {least_overlap:.2f})"
        if found.iou_prediction < self.min_iou_prediction:
            limit = self.min_iou_prediction
            return f"the model's predicted IoU fell to {found.iou_prediction:.2f} (limit {limit:.2f})"
        if found.stability < self.min_stability:
            return f"the mask's stability fell to {found.stability:.2f} (limit {self.min_stability:.2f})"
        most_growth = self.max_growth ** max(1.0, step_mm / _USUAL_STEP_MM)
        growth = found.area_px / max(1, found.expected_px)
        if growth > most_growth:
            return f"the area grew {growth:.1f} times (limit {most_growth:.1f}): a leak"
        if found.brightness_shift > self.max_brightness_shift:
            changed = f"from {found.key_brightness:.4g} on the key slice to {found.brightness:.4g}"
            limit = self.max_brightness_shift
            return f"the mean value changed {changed} (limit {limit:g} standard deviations)"
        if found.divergence > self.max_divergence:
            return (
                f"the values differ from the key slice's by {found.divergence:.2f} "
                f"(limit {self.max_divergence:.2f})"
            )
        return None


def iou(a: npt.NDArray[np.bool_], b: npt.NDArray[np.bool_]) -> float:
    """IoU of two masks; 0 when both are empty."""
    union = np.count_nonzero(a | b)
    return np.count_nonzero(a & b) / union if union else 0.0
