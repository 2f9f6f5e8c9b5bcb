"""Simulated boxes: where their sides lie, by hand and by chance."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_sam_med.evaluation.baselines import tight_box
from napari_sam_med.evaluation.box_strategies import bound_box, jittered_box, larger_box, random_margin_box
from napari_sam_med.evaluation.prompt_target import PromptTarget, prompt_targets, tight_boxes
from napari_sam_med.sam.prompts import Prompts
from tests.evaluation.drawn_masks import MASKS, SEEDS, Mask, drawn, generator, target


def test_the_box_touches_the_mask() -> None:
    assert bound_box(target("......", "..##..", ".##...", "......"), generator()) == Prompts.from_box(
        (1, 1, 3, 2)
    )


def test_boxes_of_many_masks_are_found_together() -> None:
    masks = np.stack(
        [drawn("....", ".##.", ".#.."), drawn("#...", "....", "...#"), drawn("....", "..#.", "....")]
    )
    assert tight_boxes(masks).tolist() == [[1, 1, 2, 2], [0, 0, 3, 2], [2, 1, 2, 1]]
    assert [one.box_xyxy.tolist() for one in prompt_targets(masks)] == tight_boxes(masks).tolist()
    masks[1] = False
    with pytest.raises(ValueError, match="empty"):
        tight_boxes(masks)


@given(MASKS)
def test_the_box_of_a_target_is_the_tangent_box(mask: Mask) -> None:
    found = PromptTarget(mask)
    assert np.array_equal(found.box_xyxy, tight_box(mask))
    part = mask[found.crop]
    assert part.sum() == mask.sum()
    assert part[0].any()
    assert part[-1].any()
    assert part[:, 0].any()
    assert part[:, -1].any()


@given(MASKS, SEEDS, st.floats(0, 0.49))
def test_a_jittered_box_stays_near_and_in_the_image(mask: Mask, seed: int, fraction: float) -> None:
    tight, moved = tight_box(mask), jittered_box(PromptTarget(mask), generator(seed), fraction).box_xyxy
    assert moved is not None
    reach = fraction * np.tile(tight[2:] - tight[:2] + 1, 2)
    assert (np.abs(moved - tight) <= reach + 1e-5).all()
    assert (moved >= 0).all()
    assert (moved[2:] >= moved[:2]).all()
    assert moved[2] <= mask.shape[1] - 1
    assert moved[3] <= mask.shape[0] - 1


def test_jitter_moves_every_side_both_ways_by_all_of_its_reach() -> None:
    mask = np.zeros((300, 300), bool)
    mask[100:150, 100:200] = True
    boxes = np.stack([jittered_box(PromptTarget(mask), generator(seed), 0.1).box_xyxy for seed in range(400)])
    moves = (boxes - tight_box(mask)) / [100, 50, 100, 50]
    assert np.allclose(moves.min(0), -0.1, atol=0.005)
    assert np.allclose(moves.max(0), 0.1, atol=0.005)
    assert np.abs(moves.mean(0)).max() < 0.01
    assert np.abs(np.corrcoef(moves.T) - np.eye(4)).max() < 0.15


def test_margins_move_sides_out_or_in_by_up_to_so_many_pixels() -> None:
    mask = np.zeros((120, 130), bool)
    mask[40:80, 50:90] = True
    one, tight = PromptTarget(mask), tight_box(mask)
    assert np.array_equal(larger_box(one, generator()).box_xyxy, tight + np.array([-5, -5, 5, 5]))
    for margin in (19, -15):
        boxes = np.stack([random_margin_box(one, generator(seed), margin).box_xyxy for seed in range(200)])
        outwards = (boxes - tight) * np.array([-1, -1, 1, 1]) * np.sign(margin)
        assert outwards.min(0).tolist() == [0] * 4
        assert outwards.max(0).tolist() == [abs(margin)] * 4
    assert random_margin_box(one, generator(), 0) == bound_box(one, generator())


def test_boxes_end_at_the_border_of_the_image() -> None:
    edge = np.zeros((20, 20), bool)
    edge[0, 0] = True
    assert larger_box(PromptTarget(edge), generator()).box_xyxy.tolist() == [0, 0, 5, 5]


@given(MASKS, SEEDS, st.integers(-20, 40))
def test_a_margin_leaves_a_box_in_the_image_that_grows_or_shrinks(mask: Mask, seed: int, margin: int) -> None:
    tight = tight_box(mask)
    moved = random_margin_box(PromptTarget(mask), generator(seed), margin).box_xyxy
    assert (moved[:2] >= 0).all()
    assert (moved[:2] <= moved[2:]).all()
    assert (moved[2:] <= np.array(mask.shape[::-1]) - 1).all()
    assert (np.abs(moved - tight) <= abs(margin)).all() or margin < 0
    if margin >= 0:
        assert (moved[:2] <= tight[:2]).all()
        assert (moved[2:] >= tight[2:]).all()
