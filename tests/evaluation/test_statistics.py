"""Intervals, comparisons and calibration against hand-computed cases and scipy itself."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import stats

from napari_sam_med.evaluation.slice_scores import SliceScore
from napari_sam_med.evaluation.statistics import (
    LEAST_PATIENTS,
    bootstrap_interval,
    calibration,
    comparisons,
    patient_means,
)
from napari_sam_med.volume.slice_view import SliceView


def _score(dice: float, patient: str = "p", slice_index: int = 0, **changes: Any) -> SliceScore:
    fields: dict[str, Any] = {
        "volume": patient,
        "organ": "liver",
        "label": 6,
        "view": SliceView("axial", slice_index),
        "strategy": "bound_box",
        "model": "nano",
        "dice": dice,
        "iou": dice / (2 - dice),
        "dice_oracle": None,
        "iou_prediction": 0.5,
        "area_px": 30,
        "seconds": 0.1,
        "patient": patient,
    }
    return SliceScore(**fields | changes)


def test_a_patient_is_the_mean_of_volumes_of_organs_of_slices() -> None:
    rows = [
        _score(0.2),
        _score(0.4, slice_index=1),
        _score(0.9, organ="spleen"),
        _score(0.5, volume="second scan"),
        _score(1.0, "q"),
        _score(0.7, "", volume="alone"),
    ]
    means = patient_means(rows, lambda row: row.dice)
    assert means == pytest.approx({"p": ((0.3 + 0.9) / 2 + 0.5) / 2, "q": 1.0, "alone": 0.7})
    assert patient_means(rows, lambda row: row.nsd) == {}


def test_the_interval_is_scipys_and_repeats() -> None:
    values = [0.5, 0.6, 0.9, 0.7, 0.65]
    low, high = bootstrap_interval(values, seed=3) or (0, 0)
    found = stats.bootstrap(
        (np.array(values),), np.mean, n_resamples=2000, method="percentile", rng=np.random.default_rng(3)
    ).confidence_interval
    assert (low, high) == (found.low, found.high)
    assert min(values) < low < np.mean(values) < high < max(values)
    assert bootstrap_interval([0.5]) is None
    assert bootstrap_interval([]) is None
    assert bootstrap_interval([0.5, 0.5]) == (0.5, 0.5)


def test_calibration_by_hand() -> None:
    found = calibration([0.05, 0.05, 0.95, 1.2, float("nan")], [0.05, 0.15, 0.85, 0.75, 0.1])
    assert found["bins"] == [
        {"from": 0.0, "to": 0.1, "answers": 2, "predicted": 0.05, "true": pytest.approx(0.1)},
        {"from": 0.9, "to": 1.0, "answers": 2, "predicted": pytest.approx(1.075), "true": 0.8},
    ]
    assert found["ece"] == pytest.approx((2 * 0.05 + 2 * 0.275) / 4)
    assert calibration([], []) == {"ece": None, "bins": []}
    assert calibration([0.3] * 4, [0.3] * 4)["ece"] == pytest.approx(0)


def _patients(count: int, gains: np.ndarray, slices: int = 2) -> list[SliceScore]:
    """Two models on each patient, the second better by the patient's gain."""
    rows = []
    for patient in range(count):
        for index in range(slices):
            row = _score(0.5 + 0.01 * patient + 0.02 * index, f"p{patient}", index)
            rows += [row, replace(row, model="tuned", dice=row.dice + float(gains[patient]))]
    return rows


def test_models_are_compared_over_patients() -> None:
    gains = np.array([0.1, 0.05, 0.2, 0.15, 0.12, 0.07])
    (found,) = comparisons(_patients(LEAST_PATIENTS, gains))
    assert (found["between"], found["within"]) == ("models", "bound_box")
    assert (found["a"], found["b"], found["over"], found["pairs"]) == ("nano", "tuned", "patients", 6)
    assert found["difference"] == pytest.approx(-gains.mean())
    assert found["mean_b"] - found["mean_a"] == pytest.approx(gains.mean())
    # all signs alike: of the 64 ways to flip them two are as extreme
    assert found["p_permutation"] == pytest.approx(2 / 64)
    assert found["p_wilcoxon"] == pytest.approx(stats.wilcoxon(gains).pvalue)
    assert found["p_fdr"] == found["p_permutation"]
    assert found["note"] == ""


def test_few_patients_are_compared_over_slices_with_a_warning() -> None:
    (found,) = comparisons(_patients(2, np.array([0.1, 0.2]), slices=5))
    assert (found["over"], found["pairs"]) == ("slices", 10)
    assert found["note"].startswith("slices of 2 patients are not independent")
    (alone,) = comparisons(_patients(1, np.array([0.1]), slices=1))
    assert (alone["pairs"], alone["p_wilcoxon"], alone["p_permutation"], alone["p_fdr"]) == (
        1,
        None,
        None,
        None,
    )
    assert alone["note"].startswith("slices of one patient")


def test_the_best_strategy_is_compared_with_the_others_on_shared_slices() -> None:
    rows = [_score(0.8, slice_index=i) for i in range(4)]
    rows += [replace(row, strategy="random_mask", dice=row.dice - 0.1) for row in rows[:3]]
    rows += [replace(row, strategy="twin") for row in rows[:4]]
    found = comparisons(rows)
    assert [(one["between"], one["within"], one["a"], one["b"]) for one in found] == [
        ("strategies", "nano", "bound_box", "random_mask"),
        ("strategies", "nano", "bound_box", "twin"),
    ]
    assert [one["pairs"] for one in found] == [3, 4]
    assert found[0]["difference"] == pytest.approx(0.1)
    assert (found[1]["p_wilcoxon"], found[1]["p_permutation"]) == (1.0, 1.0)
    # Benjamini and Hochberg: the smaller of two is doubled, the larger stays
    assert found[0]["p_fdr"] == pytest.approx(min(1.0, 2 * found[0]["p_permutation"]))
    assert found[1]["p_fdr"] == 1.0


def test_seeds_of_one_slice_are_no_pairs_of_their_own() -> None:
    rows = [_score(0.5 + 0.1 * seed, slice_index=i, seed=seed) for i in range(3) for seed in range(4)]
    rows += [replace(row, model="tuned", dice=row.dice + 0.1) for row in rows]
    (found,) = comparisons(rows)
    assert found["pairs"] == 3
    assert found["mean_a"] == pytest.approx(0.65)


def test_lone_models_and_strategies_have_nothing_to_compare() -> None:
    assert comparisons([_score(0.5)]) == []
    assert comparisons([]) == []
