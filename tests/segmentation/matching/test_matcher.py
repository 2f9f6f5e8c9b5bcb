"""What is asked of matching, and which masks are kept."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from napari_sam_med.errors import PromptError
from napari_sam_med.segmentation.automatic.found_objects import FoundMask
from napari_sam_med.segmentation.matching.matcher import (
    DESIGNS,
    ENGINES,
    MatchedMask,
    Matching,
    place_agreement,
    size_agreement,
    surest,
)
from tests.segmentation.matching.scenes import disc, example_of


def matched(mask: np.ndarray, score: float) -> MatchedMask:
    return MatchedMask(FoundMask.of(mask, 0.9, 0.9), score)


def test_engines_and_designs_have_these_names() -> None:
    assert ENGINES == ("similarity", "stitching")
    assert DESIGNS == ("example", "random", "grid", "grid-negatives")


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"engine": "guess"}, "no engine of matching 'guess'; use similarity, stitching"),
        ({"design": "spiral"}, "no prompt design 'spiral'; use example, random, grid, grid-negatives"),
        ({"every": -1}, "0 or more for every"),
        ({"most_instances": 0}, "1 or more for most_instances"),
        ({"near_mm": -3.0}, "near_mm is 0 or more"),
        ({"min_score": 2.0}, "0 to 1 for min_score"),
    ],
)
def test_what_does_not_exist_is_refused(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(PromptError, match=said):
        Matching(**wrong)


def test_two_answers_to_one_object_are_one_and_the_unsure_are_dropped() -> None:
    best, again = matched(disc(40, 40, 10), 0.8), matched(disc(41, 40, 10), 0.79)
    inside, beside = matched(disc(40, 40, 4), 0.78), matched(disc(40, 80, 10), 0.75)
    unsure = matched(disc(70, 40, 6), 0.5)
    masks = [unsure, inside, beside, again, best]
    assert surest(masks, Matching()) == [best, beside]
    assert surest(masks, Matching(least_of_best=0.0)) == [best, beside, unsure]
    assert surest(masks, Matching(most_instances=1)) == [best]
    assert surest(masks, Matching(min_score=0.9)) == []


def test_size_counts_only_far_from_that_of_the_example() -> None:
    assert size_agreement(100.0, 100.0) == size_agreement(10.0, 100.0) == size_agreement(250.0, 100.0) == 1.0
    assert size_agreement(1.0, 100.0) < 0.5
    assert size_agreement(1000.0, 100.0) < 0.5


def test_place_counts_from_the_middles_in_millimetres_and_only_where_asked_for() -> None:
    example = example_of((40.0, 42.0, 9.0))
    same, moved = disc(40, 42, 5), disc(40, 72, 5)
    assert place_agreement(moved, (1.0, 1.0), example, 0.0) == 1.0
    assert place_agreement(same, (1.0, 1.0), example, 30.0) == pytest.approx(1.0)
    assert place_agreement(moved, (1.0, 1.0), example, 30.0) == pytest.approx(np.exp(-0.5))
    # an image of the same extent with pixels half as large
    fine = disc(80.5, 84.5, 10, (192, 224))
    assert place_agreement(fine, (0.5, 0.5), example, 30.0) == pytest.approx(1.0, abs=1e-3)
