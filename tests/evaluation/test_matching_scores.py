"""Scores of matching, and of the example's mask copied over."""

from __future__ import annotations

import numpy as np
import pytest

from napari_sam_med import Volume, load_predictor
from napari_sam_med.evaluation.matching_scores import (
    copied_by_box,
    copied_in_place,
    score_copies,
    score_matching,
)
from napari_sam_med.segmentation.matching.example import ExampleSlice
from napari_sam_med.segmentation.matching.matcher import Matching
from napari_sam_med.volume.slice_view import SliceView
from tests.segmentation.matching.scenes import disc, example_of, volume_of_rods

ROD = (42.0, 38.0, 9.0)


def labelled() -> tuple[Volume, np.ndarray]:
    volume = volume_of_rods([ROD])
    truth = np.zeros(volume.shape, dtype=bool)
    truth[1:8] = disc(*ROD)
    return volume, truth


def an_example(mask: np.ndarray, spacing: tuple[float, float] = (1.0, 1.0)) -> ExampleSlice:
    return ExampleSlice(np.zeros((*mask.shape, 3), dtype=np.uint8), mask, spacing)


def test_a_match_is_scored_on_slices_and_as_a_volume() -> None:
    volume, truth = labelled()
    example, nano = example_of((40.0, 42.0, 9.0)), load_predictor("nano", device="cpu")
    score = score_matching(volume, truth, example, nano, Matching(every=4), left_out=(4,))
    assert score.slices == 0  # of slices 0, 4 and 8 only the one left out shows the organ
    assert np.isnan(score.dice)
    assert score.false_alarms == 0.0
    assert score.volume_dice > 0.85
    assert score.volume_dice == score.volume_dice_all


def test_a_copy_is_on_every_slice_and_nobody_tells_it_where_to_end() -> None:
    volume, truth = labelled()
    views = [SliceView("axial", z) for z in (0, 2, 5)]
    score = score_copies(volume, truth, views, lambda _: disc(*ROD), left_out=(2,))
    assert (score.slices, score.dice, score.iou) == (1, 1.0, 1.0)
    assert score.false_alarms == 1.0
    assert score.volume_dice == pytest.approx(2 * 6 / (6 + 8))


def test_a_copy_in_place_keeps_millimetres_from_the_middle() -> None:
    example = an_example(disc(20, 30, 6, (40, 60)))
    assert np.array_equal(copied_in_place(example, (40, 60), (1.0, 1.0)), example.mask)
    finer = copied_in_place(example, (80, 120), (0.5, 0.5))
    assert np.array_equal(finer[::2, ::2], example.mask)
    wider = copied_in_place(example, (60, 80), (1.0, 1.0))
    assert np.array_equal(wider[10:50, 10:70], example.mask)


def test_a_copy_by_box_moves_and_scales_with_the_body() -> None:
    mask = np.zeros((40, 60), dtype=bool)
    mask[10:20, 15:25] = True
    same = copied_by_box(an_example(mask), (5, 5, 44, 34), mask.shape, (5, 5, 44, 34))
    assert np.array_equal(same, mask)
    moved = copied_by_box(an_example(mask), (5, 5, 44, 34), (50, 70), (8, 9, 47, 38))
    assert np.array_equal(moved[4:44, 3:63], mask)
    twice = copied_by_box(an_example(mask), (5, 5, 24, 24), (60, 80), (0, 0, 39, 39))
    assert np.count_nonzero(twice) == 4 * np.count_nonzero(mask)
    assert np.array_equal(np.argwhere(twice)[0], (10, 20))
