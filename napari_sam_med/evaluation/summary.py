"""From scores of slices to means that large organs and long scans do not outweigh."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from operator import attrgetter
from typing import Any, TypeVar

import numpy as np
from scipy import stats

from napari_sam_med.evaluation.slice_scores import SliceScore
from napari_sam_med.evaluation.statistics import (
    LEAST_PATIENTS,
    bootstrap_interval,
    calibration,
    patient_means,
)

__all__ = ["summarised"]

_Key = TypeVar("_Key", bound=Hashable)

MEASURES = ("dice", "iou", "nsd", "hd95_mm")
"""What means are made of; the last two are not known of every answer."""


def summarised(scores: Sequence[SliceScore], baselines: Sequence[SliceScore]) -> dict[str, Any]:
    """Means of a run, as plain values for JSON.

    Parameters
    ----------
    scores : sequence of SliceScore
        Of models.
    baselines : sequence of SliceScore
        Of the answers that need no model, on the same slices.

    Returns
    -------
    dict
        ``models`` by model, then strategy, and ``baselines`` by name, each with ``mdice_volumes`` (mean over
        volumes of the mean over organs of the mean over slices), ``mdice_organs`` (mean over organs, by name,
        of the mean over the slices of all volumes), ``mdice_slices`` (mean over all slices), the same of
        IoU, ``slices``, ``organs`` and ``volumes``; the same means of ``nsd`` and ``hd95_mm`` over the
        answers that have one, and ``hd95_missing``, those that have none. ``ci95`` has the 95 % intervals
        over patients of ``mdice_volumes`` and ``miou_volumes``; of one patient it is empty, and ``ci95_note``
        says why, or that patients are too few.
    """
    models: dict[str, dict[str, Any]] = {}
    for (model, strategy), rows in _grouped(scores, lambda row: (row.model, row.strategy)).items():
        models.setdefault(model, {})[strategy] = _means(rows) | {
            "mdice_oracle_slices": _of_all(rows, lambda row: row.dice_oracle),
            "miou_oracle_slices": _of_all(rows, lambda row: row.iou_oracle),
            "mdice_single_slices": _of_all(rows, lambda row: row.dice_single),
            "miou_single_slices": _of_all(rows, lambda row: row.iou_single),
            "seconds": round(_mean([row.seconds for row in rows]) or 0.0, 6),
            "iou_prediction": _agreement(rows),
        }
    return {
        "models": models,
        "baselines": {
            name: _means(rows) for name, rows in _grouped(baselines, lambda row: row.model).items()
        },
    }


def _means(rows: Sequence[SliceScore]) -> dict[str, Any]:
    organs = _by_organ(rows)
    volumes = {}
    for name, own in _grouped(rows, lambda row: row.volume).items():
        own_organs = _by_organ(own)
        volumes[name] = _organ_means(own_organs) | {"slices": len(own), "organs": own_organs}
    measures: dict[str, Any] = {}
    for measure in MEASURES:
        per_volume = _there(volume[f"m{measure}_organs"] for volume in volumes.values())
        measures[f"m{measure}_volumes"] = _mean(per_volume)
        measures[f"m{measure}_organs"] = _organ_means(organs)[f"m{measure}_organs"]
        measures[f"m{measure}_slices"] = _mean(_there(getattr(row, measure) for row in rows))
    return {
        **measures,
        "hd95_missing": sum(row.hd95_mm is None for row in rows),
        **_intervals(rows),
        "slices": len(rows),
        "organs": organs,
        "volumes": volumes,
    }


def _intervals(rows: Sequence[SliceScore]) -> dict[str, Any]:
    patients = len({row.patient or row.volume for row in rows})
    found = {}
    for measure in ("dice", "iou"):
        interval = bootstrap_interval([*patient_means(rows, attrgetter(measure)).values()])
        if interval is not None:
            found[f"m{measure}_volumes"] = list(interval)
    note = "" if found else "one patient says nothing about others: no interval"
    if found and patients < LEAST_PATIENTS:
        note = f"of {patients} patients such an interval is too narrow; {LEAST_PATIENTS} patients are needed"
    return {"patients": patients, "ci95": found, "ci95_note": note}


def _by_organ(rows: Sequence[SliceScore]) -> dict[str, dict[str, Any]]:
    """Means over slices by organ, in the order of their numbers."""
    return {
        organ: {measure: _mean(_there(getattr(row, measure) for row in own)) for measure in MEASURES}
        | {"slices": len(own)}
        for organ, own in _grouped(sorted(rows, key=lambda row: row.label), lambda row: row.organ).items()
    }


def _organ_means(organs: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    return {
        f"m{measure}_organs": _mean(_there(organ[measure] for organ in organs.values()))
        for measure in MEASURES
    }


def _of_all(rows: Sequence[SliceScore], value: Callable[[SliceScore], float | None]) -> float | None:
    """Mean of what several masks say; None unless every answer has several.

    Of a dialogue only those that were right at the first click would count, and be perfect.
    """
    found = _there(value(row) for row in rows)
    return _mean(found) if len(found) == len(rows) else None


def _there(values: Iterable[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def _agreement(rows: Sequence[SliceScore]) -> dict[str, Any]:
    """How the predicted IoU compares with the true one over all slices."""
    known = [row for row in rows if math.isfinite(row.iou_prediction)]
    predicted, true = [row.iou_prediction for row in known], [row.iou for row in known]
    found: dict[str, Any] = {"mean": _mean(predicted), "true_mean": _mean(true)}
    varies = len(set(predicted)) > 1 and len(set(true)) > 1  # without, there is no correlation
    for name, correlation in (("pearson", stats.pearsonr), ("spearman", stats.spearmanr)):
        found[name] = _finite(float(correlation(predicted, true).statistic)) if varies else None
    return found | calibration(predicted, true)


def _grouped(rows: Iterable[SliceScore], key: Callable[[SliceScore], _Key]) -> dict[_Key, list[SliceScore]]:
    groups: dict[_Key, list[SliceScore]] = {}
    for row in rows:
        groups.setdefault(key(row), []).append(row)
    return groups


def _mean(values: Sequence[float]) -> float | None:
    return _finite(float(np.mean(values))) if values else None


def _finite(value: float) -> float | None:
    """JSON has no NaN, which a network that diverged may answer."""
    return value if math.isfinite(value) else None
