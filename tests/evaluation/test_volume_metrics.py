"""Scores of volumes, by hand-computed cases."""

from __future__ import annotations

import numpy as np
import pytest

from napari_sam_med.evaluation.volume_metrics import over_propagation, score_volume

SPACING = (5.0, 1.0, 2.0)


def box(z, y, x, shape=(12, 30, 30)):
    mask = np.zeros(shape, dtype=bool)
    mask[slice(*z), slice(*y), slice(*x)] = True
    return mask


def test_the_truth_itself_scores_full():
    truth = box((2, 8), (5, 20), (6, 18))
    score = score_volume(truth, truth, SPACING)
    assert (score.dice, score.nsd, score.hd95_mm, score.over_propagation) == (1.0, 1.0, 0.0, 0.0)


@pytest.mark.parametrize(("shift", "mm"), [((0, 3, 0), 3.0), ((0, 0, 3), 6.0), ((2, 0, 0), 10.0)])
def test_distances_are_in_millimetres_along_each_axis(shift, mm):
    truth = box((2, 8), (5, 20), (6, 18))
    found = np.roll(truth, shift, axis=(0, 1, 2))
    assert score_volume(found, truth, SPACING).hd95_mm == pytest.approx(mm)


def test_nsd_forgives_what_lies_within_the_tolerance():
    truth = box((2, 8), (5, 20), (6, 18))
    found = np.roll(truth, 1, axis=2)  # 2 mm
    assert score_volume(found, truth, SPACING, tolerance_mm=2.0).nsd == 1.0
    assert score_volume(found, truth, SPACING, tolerance_mm=1.9).nsd < 1.0


def test_masks_that_touch_the_border_have_a_surface_there():
    truth = box((0, 12), (0, 30), (0, 30))
    found = box((0, 12), (0, 30), (0, 20))
    score = score_volume(found, truth, SPACING)
    assert score.nsd < 1.0
    assert score.hd95_mm == pytest.approx(20.0)


def test_an_empty_mask_fits_only_an_empty_truth():
    truth, nothing = box((2, 8), (5, 20), (6, 18)), box((0, 0), (0, 0), (0, 0))
    missed = score_volume(nothing, truth, SPACING)
    assert (missed.dice, missed.nsd, missed.hd95_mm, missed.over_propagation) == (0, 0, np.inf, 0)
    both = score_volume(nothing, nothing, SPACING)
    assert (both.dice, both.nsd, both.hd95_mm, both.over_propagation) == (1, 1, 0, 0)


@pytest.mark.parametrize(
    ("found", "expected"),
    [((4, 8), 0.0), ((2, 8), 1 / 6), ((4, 12), 0.5), ((10, 12), 1.0), ((0, 0), 0.0)],
)
def test_over_propagation_counts_filled_slices_beyond_the_organ(found, expected):
    truth = box((3, 8), (5, 9), (5, 9))
    truth[5] = False  # a slice that the organ skips lies within its extent
    assert over_propagation(box(found, (0, 4), (0, 4)), truth) == pytest.approx(expected)


def test_over_propagation_counts_along_the_axis_that_was_walked():
    truth, found = box((2, 8), (5, 20), (6, 18)), box((2, 8), (5, 20), (6, 24))
    assert over_propagation(found, truth, axis=0) == 0
    assert over_propagation(found, truth, axis=2) == pytest.approx(6 / 18)


def test_masks_on_other_grids_are_refused():
    with pytest.raises(ValueError, match="shape"):
        score_volume(np.ones((2, 3, 4)), np.ones((2, 3, 5)), SPACING)
