"""From scores of slices to means that large organs and long scans do not outweigh."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
from scipy import stats

from napari_sam_med.evaluation.measuring import SliceScore

__all__ = ["summarised"]

_Key = TypeVar("_Key", bound=Hashable)


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
        IoU, ``slices``, ``organs`` and ``volumes``.
    """
    models: dict[str, dict[str, Any]] = {}
    for (model, strategy), rows in _grouped(scores, lambda row: (row.model, row.strategy)).items():
        models.setdefault(model, {})[strategy] = _means(rows) | {
            "mdice_oracle_slices": _oracle(rows),
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
    return {
        "mdice_volumes": _mean([volume["mdice_organs"] for volume in volumes.values()]),
        "miou_volumes": _mean([volume["miou_organs"] for volume in volumes.values()]),
        **_organ_means(organs),
        "mdice_slices": _mean([row.dice for row in rows]),
        "miou_slices": _mean([row.iou for row in rows]),
        "slices": len(rows),
        "organs": organs,
        "volumes": volumes,
    }


def _by_organ(rows: Sequence[SliceScore]) -> dict[str, dict[str, Any]]:
    """Means over slices by organ, in the order of their numbers."""
    return {
        organ: {
            "dice": _mean([row.dice for row in own]),
            "iou": _mean([row.iou for row in own]),
            "slices": len(own),
        }
        for organ, own in _grouped(sorted(rows, key=lambda row: row.label), lambda row: row.organ).items()
    }


def _organ_means(organs: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    return {
        "mdice_organs": _mean([organ["dice"] for organ in organs.values()]),
        "miou_organs": _mean([organ["iou"] for organ in organs.values()]),
    }


def _oracle(rows: Sequence[SliceScore]) -> float | None:
    """Mean of the best of three masks; None unless every answer has three.

    Of a dialogue only those that were right at the first click would count, and be perfect.
    """
    best = [row.dice_oracle for row in rows if row.dice_oracle is not None]
    return _mean(best) if len(best) == len(rows) else None


def _agreement(rows: Sequence[SliceScore]) -> dict[str, Any]:
    """How the predicted IoU compares with the true one over all slices."""
    predicted, true = [row.iou_prediction for row in rows], [row.iou for row in rows]
    found: dict[str, Any] = {"mean": _mean(predicted), "true_mean": _mean(true)}
    varies = len(set(predicted)) > 1 and len(set(true)) > 1  # without, there is no correlation
    for name, correlation in (("pearson", stats.pearsonr), ("spearman", stats.spearmanr)):
        found[name] = _finite(float(correlation(predicted, true).statistic)) if varies else None
    return found


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
