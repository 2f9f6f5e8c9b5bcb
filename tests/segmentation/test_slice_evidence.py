"""When a carried mask is believed: each limit by itself, in words, and the quality behind it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from napari_sam_med.segmentation.slice_evidence import Appearance, Findings, StopLimits, iou

WINDOW = (0.0, 100.0)
LIMITS = StopLimits(
    min_overlap=0.5,
    min_iou_prediction=0.5,
    min_stability=0.5,
    max_brightness_shift=3.0,
    max_divergence=0.5,
    max_growth=2.0,
)
GOOD = Findings(
    area_px=1000,
    expected_px=1000,
    overlap=0.9,
    iou_prediction=0.9,
    stability=0.9,
    brightness=50.0,
    key_brightness=50.0,
    brightness_shift=0.0,
    divergence=0.1,
)


def test_a_good_mask_is_believed() -> None:
    assert LIMITS.reason(GOOD, 3.0) is None
    assert GOOD.quality == pytest.approx((0.9 - 0.55) / (0.91 - 0.55))


def test_quality_rises_with_each_piece_of_evidence_and_stays_between_0_and_1() -> None:
    fair = replace(GOOD, overlap=0.7, iou_prediction=0.7, stability=0.7, divergence=0.3)
    for change in ({"overlap": 0.9}, {"iou_prediction": 0.9}, {"stability": 0.9}, {"divergence": 0.1}):
        assert 0 < fair.quality < replace(fair, **change).quality < 1
    assert replace(GOOD, overlap=0.0, iou_prediction=0.1).quality == 0
    assert replace(GOOD, overlap=1.0, iou_prediction=1.0, stability=1.0, divergence=0.0).quality == 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"area_px": 0}, "the mask vanished"),
        ({"overlap": 0.4}, "overlap with the previous slice fell to 0.40 (limit 0.50)"),
        ({"iou_prediction": 0.4}, "the model's predicted IoU fell to 0.40 (limit 0.50)"),
        ({"stability": 0.4}, "the mask's stability fell to 0.40 (limit 0.50)"),
        ({"area_px": 2500}, "the area grew 2.5 times (limit 2.0): a leak"),
        (
            {"brightness": 80.0, "brightness_shift": 4.0},
            "the mean value changed from 50 on the key slice to 80 (limit 3 standard deviations)",
        ),
        ({"divergence": 0.7}, "the values differ from the key slice's by 0.70 (limit 0.50)"),
    ],
)
def test_each_limit_says_what_is_wrong(change: dict[str, float], words: str) -> None:
    assert LIMITS.reason(replace(GOOD, **change), 3.0) == words


def test_thick_slices_and_small_objects_may_overlap_less_and_grow_more() -> None:
    little = replace(GOOD, overlap=0.4)
    assert LIMITS.reason(little, 5.0) is not None
    assert LIMITS.reason(little, 5.1) is None
    assert LIMITS.reason(replace(little, area_px=100, expected_px=100), 1.0) is None
    grown = replace(GOOD, area_px=3000)
    assert LIMITS.reason(grown, 5.0) is not None
    assert LIMITS.reason(grown, 10.0) is None


def test_appearance_is_limited_to_the_window_and_leaves_out_what_has_no_value() -> None:
    seen = Appearance.of(np.array([-500.0, 20.0, 60.0, 900.0, np.nan]), WINDOW)
    assert seen.mean == pytest.approx((0 + 20 + 60 + 100) / 4)
    assert seen.histogram.sum() == pytest.approx(1)
    even = Appearance.of(np.full(10, 50.0), WINDOW)
    assert even.deviation == pytest.approx(100 / 60)
    assert Appearance.of(np.full(3, 55.0), WINDOW).shift_from(even) == pytest.approx(3.0)
    assert np.isfinite(Appearance.of(np.full(4, np.nan), WINDOW).divergence_from(even))


@given(arrays(np.float64, 40, elements=st.floats(0, 100)), arrays(np.float64, 40, elements=st.floats(0, 100)))
def test_divergence_is_symmetric_and_between_0_and_1(a: np.ndarray, b: np.ndarray) -> None:
    first, second = Appearance.of(a, WINDOW), Appearance.of(b, WINDOW)
    assert first.divergence_from(second) == pytest.approx(second.divergence_from(first))
    assert -1e-9 <= first.divergence_from(second) <= 1 + 1e-9
    assert first.divergence_from(first) == pytest.approx(0)


def test_divergence_of_nothing_in_common_is_1() -> None:
    dark, bright = Appearance.of(np.full(5, 5.0), WINDOW), Appearance.of(np.full(5, 95.0), WINDOW)
    assert dark.divergence_from(bright) == pytest.approx(1)


@given(arrays(np.bool_, (4, 5)), arrays(np.bool_, (4, 5)))
def test_iou_counts_pixels(a: np.ndarray, b: np.ndarray) -> None:
    union = (a | b).sum()
    assert iou(a, b) == ((a & b).sum() / union if union else 0.0)
