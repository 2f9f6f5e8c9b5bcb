"""How far a classifier's probabilities can be believed: measured, and put right by one temperature."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize_scalar

from napari_sam_med.segmentation.organ_classifier import log_softmax

__all__ = [
    "Reliability",
    "calibration_error",
    "error_correlation",
    "fitted_temperature",
    "negative_log_likelihood",
    "reliability_of",
    "selective_threshold",
]

Floats = npt.NDArray[np.float64]
Classes = npt.NDArray[np.int64]

_BINS = 15
_TEMPERATURES = (0.2, 10.0)
_DEFAULT_THRESHOLD = 0.6


def fitted_temperature(
    logits: npt.ArrayLike, classes: Classes, weights: npt.ArrayLike | None = None
) -> float:
    """The temperature of least negative log-likelihood, 0.2 to 10.

    Guo et al., On Calibration of Modern Neural Networks, ICML 2017.

    Parameters
    ----------
    logits : array-like (N, C)
    classes : ndarray (N,)
    weights : array-like (N,), optional
        How much each sample counts.
    """

    def loss(log_temperature: float) -> float:
        table = log_softmax(logits, float(np.exp(log_temperature)))
        return negative_log_likelihood(table, classes, weights)

    low, high = np.log(_TEMPERATURES)
    found: Any = minimize_scalar(loss, bounds=(low, high), method="bounded")
    return float(np.exp(found.x))


def negative_log_likelihood(
    log_probabilities: Floats, classes: Classes, weights: npt.ArrayLike | None = None
) -> float:
    """Mean over samples (N, C) of minus the log-probability of the truth (N,)."""
    chosen = log_probabilities[np.arange(len(classes)), classes]
    return float(
        -np.average(chosen, weights=None if weights is None else np.asarray(weights, dtype=np.float64))
    )


@dataclass(frozen=True, eq=False)
class Reliability:
    """Bins of confidence: their ``edges`` (B + 1,), ``counts``, mean ``confidence`` and ``accuracy`` (B,)."""

    edges: Floats
    counts: Floats
    confidence: Floats
    accuracy: Floats


def reliability_of(log_probabilities: Floats, classes: Classes, bins: int = _BINS) -> Reliability:
    """Confidence of the best guess against how often it is right, in bins of equal width."""
    best = log_probabilities.argmax(axis=1)
    confidence = np.exp(log_probabilities.max(axis=1))
    right = best == classes
    edges = np.linspace(0, 1, bins + 1)
    where = np.clip(np.digitize(confidence, edges[1:-1], right=True), 0, bins - 1)
    counts = np.bincount(where, minlength=bins).astype(np.float64)
    filled = np.maximum(counts, 1)
    return Reliability(
        edges,
        counts,
        np.bincount(where, weights=confidence, minlength=bins) / filled,
        np.bincount(where, weights=right, minlength=bins) / filled,
    )


def calibration_error(log_probabilities: Floats, classes: Classes, bins: int = _BINS) -> float:
    """Expected calibration error of the best guess (Naeini et al., AAAI 2015), 15 bins of equal width."""
    found = reliability_of(log_probabilities, classes, bins)
    gaps = np.abs(found.confidence - found.accuracy)
    return float((found.counts * gaps).sum() / max(found.counts.sum(), 1))


def selective_threshold(probabilities: npt.ArrayLike, right: npt.ArrayLike, accuracy: float = 0.95) -> float:
    """Lowest threshold above which best guesses are right that often; 0.6 where none is, or all are.

    Parameters
    ----------
    probabilities : array-like (N,)
        Of the best guesses.
    right : array-like (N,) of bool
    accuracy : float
        Wanted among those at or above the threshold.
    """
    confidence, correct = np.asarray(probabilities, dtype=np.float64), np.asarray(right, dtype=bool)
    order = np.argsort(-confidence, kind="stable")
    share = np.cumsum(correct[order]) / np.arange(1, len(order) + 1)
    enough = np.flatnonzero(share >= accuracy)
    if not len(enough) or correct.mean() >= accuracy:
        return _DEFAULT_THRESHOLD
    return float(np.clip(confidence[order][enough[-1]], 0.3, 0.95))


def error_correlation(right: npt.ArrayLike, objects: npt.ArrayLike) -> float:
    """Correlation of being right between two slices of one object, 0..1 (one-way random intraclass).

    Fleiss, Levin, Paik, Statistical Methods for Rates and Proportions, 3rd ed., chapter 15 (ANOVA estimator);
    0 where every object has one slice, or nothing ever differs.
    """
    values = np.asarray(right, dtype=np.float64)
    _, groups = np.unique(np.asarray(objects), return_inverse=True)
    sizes = np.bincount(groups).astype(np.float64)
    n, k = len(values), len(sizes)
    if n <= k or k < 2:
        return 0.0
    means = np.bincount(groups, weights=values) / sizes
    between = (sizes * (means - values.mean()) ** 2).sum() / (k - 1)
    within = ((values - means[groups]) ** 2).sum() / (n - k)
    typical = (n - (sizes**2).sum() / n) / (k - 1)
    total = between + (typical - 1) * within
    return float(np.clip((between - within) / total, 0.0, 1.0)) if total > 0 else 0.0
