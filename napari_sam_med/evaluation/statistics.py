"""What can be concluded from means: intervals over patients, paired comparisons, calibration.

Slices of one patient resemble each other: a thousand of them are not a thousand patients. Intervals are
therefore drawn over patients, and comparisons are made over patients wherever there are enough.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from scipy import stats

from napari_sam_med.evaluation.slice_scores import SliceScore

__all__ = ["LEAST_PATIENTS", "bootstrap_interval", "calibration", "comparisons", "patient_means"]

LEAST_PATIENTS = 6
"""Patients from which comparisons are made over them: of fewer, no difference can reach p < 0.05."""
_RESAMPLES = 2000
_PERMUTATIONS = 4999
_BINS = 10
_MOST_AT_ONCE = 2_000_000  # numbers of a permutation test in memory

_Key = TypeVar("_Key", bound=Hashable)
_Floats = npt.NDArray[np.float64]


def patient_means(
    rows: Iterable[SliceScore], value: Callable[[SliceScore], float | None]
) -> dict[str, float]:
    """By patient the mean over volumes of the mean over organs of the mean over slices (and seeds).

    Rows without a value are left out. Where a row names no patient, its volume is one.
    """
    nested: dict[str, dict[str, dict[str, list[float]]]] = {}
    for row in rows:
        number = value(row)
        if number is not None and math.isfinite(number):
            volumes = nested.setdefault(row.patient or row.volume, {})
            volumes.setdefault(row.volume, {}).setdefault(row.organ, []).append(number)
    return {
        patient: float(
            np.mean([np.mean([np.mean(own) for own in organs.values()]) for organs in volumes.values()])
        )
        for patient, volumes in nested.items()
    }


def bootstrap_interval(values: Sequence[float], seed: int = 0) -> tuple[float, float] | None:
    """95 % interval of the mean of independent values, such as `patient_means`; None of fewer than two.

    Percentiles of 2000 bootstrap samples (Efron and Tibshirani, An Introduction to the Bootstrap, 1993).
    """
    if len(values) < 2:
        return None
    sample = np.asarray(values, dtype=np.float64)
    with warnings.catch_warnings():
        # equal values: the interval is a point, which is what there is to say
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)
        found = stats.bootstrap(
            (sample,), np.mean, n_resamples=_RESAMPLES, method="percentile", rng=np.random.default_rng(seed)
        ).confidence_interval
    return float(found.low), float(found.high)


def calibration(predicted: Sequence[float], true: Sequence[float]) -> dict[str, Any]:
    """How far a model's own estimate of the IoU can be believed.

    Parameters
    ----------
    predicted, true : sequence of float
        IoU by the model and against the label; predictions outside 0 to 1 fall into the outer bins, those
        that are not finite are left out.

    Returns
    -------
    dict
        ``ece``, the expected calibration error (Naeini et al., AAAI 2015): the mean over answers of the
        distance of mean prediction and mean truth of their bin; and ``bins``, ten of equal width, those that
        hold answers: ``from``, ``to``, ``answers``, ``predicted``, ``true``.
    """
    p, t = np.asarray(predicted, dtype=np.float64), np.asarray(true, dtype=np.float64)
    finite = np.isfinite(p)
    p, t = p[finite], t[finite]
    place = np.clip((p * _BINS).astype(int), 0, _BINS - 1)
    bins = [
        {
            "from": i / _BINS,
            "to": (i + 1) / _BINS,
            "answers": int(np.count_nonzero(place == i)),
            "predicted": float(p[place == i].mean()),
            "true": float(t[place == i].mean()),
        }
        for i in np.unique(place).tolist()
    ]
    apart = [one["answers"] * abs(one["predicted"] - one["true"]) for one in bins]
    return {"ece": float(sum(apart)) / len(p) if len(p) else None, "bins": bins}


def comparisons(scores: Sequence[SliceScore], *, seed: int = 0) -> list[dict[str, Any]]:
    """Paired comparisons of Dice: every two models on each strategy, and the best strategy of each model with
    its others.

    Both are measured on the same slices. Pairs are patients, where at least `LEAST_PATIENTS` are shared; else
    they are slices (of an organ, seeds averaged), which are not independent: such p-values are too small.

    Returns
    -------
    list of dict
        ``between`` (``models`` or ``strategies``), ``within`` (the strategy or model that they share),
        ``a``, ``b``, ``mean_a``, ``mean_b``, ``difference`` (a - b, mean over pairs), ``pairs``, ``over``
        (``patients`` or ``slices``), ``p_wilcoxon`` (signed ranks, two-sided), ``p_permutation`` (of the mean
        difference, signs flipped at random, two-sided), ``p_fdr`` (the latter, adjusted for the number of
        comparisons by Benjamini and Hochberg) and ``note``.
    """
    groups = _grouped(scores, lambda row: (row.model, row.strategy))
    models = list(dict.fromkeys(model for model, _ in groups))
    strategies = list(dict.fromkeys(strategy for _, strategy in groups))
    found = []
    for strategy in strategies:
        for a, b in combinations([model for model in models if (model, strategy) in groups], 2):
            pair = groups[a, strategy], groups[b, strategy]
            found.append({"between": "models", "within": strategy, "a": a, "b": b} | _compared(*pair, seed))
    for model in models:
        own = {strategy: groups[model, strategy] for strategy in strategies if (model, strategy) in groups}
        best = max(own, key=lambda name: float(np.mean([*patient_means(own[name], _dice).values()])))
        for other in own:
            if other != best:
                compared = _compared(own[best], own[other], seed)
                found.append({"between": "strategies", "within": model, "a": best, "b": other} | compared)
    known = [one["p_permutation"] for one in found if one["p_permutation"] is not None]
    adjusted: Iterator[float] = iter(stats.false_discovery_control(known).tolist() if known else [])
    return [one | {"p_fdr": None if one["p_permutation"] is None else next(adjusted)} for one in found]


def _dice(row: SliceScore) -> float:
    return row.dice


def _compared(a: Sequence[SliceScore], b: Sequence[SliceScore], seed: int) -> dict[str, Any]:
    shared = {_place(row) for row in a} & {_place(row) for row in b}
    both = [[row for row in rows if _place(row) in shared] for rows in (a, b)]
    over, note = "patients", ""
    means: list[Mapping[Any, float]] = [patient_means(rows, _dice) for rows in both]
    patients = len(means[0])
    if patients < LEAST_PATIENTS:
        over = "slices"
        of = "one patient" if patients == 1 else f"{patients} patients"
        note = f"slices of {of} are not independent: p is too small; {LEAST_PATIENTS} patients are needed"
        means = [_slice_means(rows) for rows in both]
    x, y = (np.array([one[key] for key in means[0]]) for one in means)
    return {
        "mean_a": _mean(x),
        "mean_b": _mean(y),
        "difference": _mean(x - y),
        "pairs": len(x),
        "over": over,
        **_p_values(x, y, seed),
        "note": note,
    }


def _p_values(x: _Floats, y: _Floats, seed: int) -> dict[str, float | None]:
    if len(x) < 2 or not np.isfinite(x - y).all():
        return {"p_wilcoxon": None, "p_permutation": None}
    if not (x - y).any():
        return {"p_wilcoxon": 1.0, "p_permutation": 1.0}
    permuted = stats.permutation_test(
        (x, y),
        lambda a, b, axis: np.mean(a - b, axis=axis),
        permutation_type="samples",
        n_resamples=_PERMUTATIONS,
        batch=max(1, _MOST_AT_ONCE // len(x)),
        rng=np.random.default_rng(seed),
    )
    return {
        "p_wilcoxon": float(stats.wilcoxon(x, y).pvalue),
        "p_permutation": float(permuted.pvalue),
    }


def _place(row: SliceScore) -> Hashable:
    return row.volume, row.label, row.view


def _slice_means(rows: Iterable[SliceScore]) -> dict[Hashable, float]:
    return {key: float(np.mean([row.dice for row in own])) for key, own in _grouped(rows, _place).items()}


def _mean(values: _Floats) -> float | None:
    return float(values.mean()) if len(values) and np.isfinite(values).all() else None


def _grouped(rows: Iterable[SliceScore], key: Callable[[SliceScore], _Key]) -> dict[_Key, list[SliceScore]]:
    groups: dict[_Key, list[SliceScore]] = {}
    for row in rows:
        groups.setdefault(key(row), []).append(row)
    return groups
