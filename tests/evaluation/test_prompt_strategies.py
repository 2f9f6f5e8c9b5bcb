"""Simulated prompts: where they lie, that they repeat, and what the robot clicks on next."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from scipy import ndimage

from napari_sam_med.errors import PromptError
from napari_sam_med.evaluation.baselines import tight_box
from napari_sam_med.evaluation.prompt_strategies import (
    STRATEGIES,
    PromptTarget,
    Strategy,
    bound_box,
    center_distance,
    corrective_click,
    jittered_box,
    larger_box,
    parse_strategies,
    random_margin_box,
    random_mask,
)
from napari_sam_med.sam.mask_prediction import MaskPrediction
from napari_sam_med.sam.prompts import Prompts

Mask = npt.NDArray[np.bool_]
MASKS = npst.arrays(np.bool_, st.tuples(st.integers(1, 12), st.integers(1, 14))).filter(lambda m: m.any())
SEEDS = st.integers(0, 2**32)
EVERY_STRATEGY = parse_strategies(STRATEGIES)


def _rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def _mask(*rows: str) -> Mask:
    """A mask drawn with #."""
    return np.array([[letter == "#" for letter in row] for row in rows])


def _answer(mask: Mask) -> MaskPrediction:
    logits = np.where(mask[:4, :4], 3.0, -3.0).astype(np.float32)[None]
    return MaskPrediction(mask[None], np.array([0.9], np.float32), logits, np.ones(1), np.zeros((1, 2)))


def test_the_box_touches_the_mask() -> None:
    mask = _mask("......", "..##..", ".##...", "......")
    assert bound_box(PromptTarget(mask), _rng()) == Prompts.from_box((1, 1, 3, 2))


@given(MASKS, SEEDS, st.floats(0, 0.49))
def test_a_jittered_box_stays_near_and_in_the_image(mask: Mask, seed: int, fraction: float) -> None:
    tight, moved = tight_box(mask), jittered_box(PromptTarget(mask), _rng(seed), fraction).box_xyxy
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
    boxes = np.stack([jittered_box(PromptTarget(mask), _rng(seed), 0.1).box_xyxy for seed in range(400)])
    moves = (boxes - tight_box(mask)) / [100, 50, 100, 50]
    assert np.allclose(moves.min(0), -0.1, atol=0.005)
    assert np.allclose(moves.max(0), 0.1, atol=0.005)
    assert np.abs(moves.mean(0)).max() < 0.01
    assert np.abs(np.corrcoef(moves.T) - np.eye(4)).max() < 0.15


def test_margins_move_sides_out_or_in_by_up_to_so_many_pixels() -> None:
    mask = np.zeros((120, 130), bool)
    mask[40:80, 50:90] = True
    tight = tight_box(mask)
    assert np.array_equal(larger_box(PromptTarget(mask), _rng()).box_xyxy, tight + np.array([-5, -5, 5, 5]))
    for margin in (19, -15):
        boxes = np.stack(
            [random_margin_box(PromptTarget(mask), _rng(seed), margin).box_xyxy for seed in range(200)]
        )
        outwards = (boxes - tight) * np.array([-1, -1, 1, 1]) * np.sign(margin)
        assert outwards.min(0).tolist() == [0] * 4
        assert outwards.max(0).tolist() == [abs(margin)] * 4
    edge = np.zeros((20, 20), bool)
    edge[0, 0] = True
    assert larger_box(PromptTarget(edge), _rng()).box_xyxy.tolist() == [0, 0, 5, 5]


@given(MASKS, SEEDS)
def test_random_clicks_lie_on_different_pixels_of_the_mask(mask: Mask, seed: int) -> None:
    prompts = random_mask(PromptTarget(mask), _rng(seed), 3)
    x, y = prompts.points_xy.astype(int).T
    assert mask[y, x].all()
    assert len(set(zip(x, y, strict=True))) == min(3, mask.sum())
    assert prompts.point_labels.all()


def test_the_click_lies_deepest() -> None:
    mask = _mask(
        ".........",
        ".#####.##",
        ".#####...",
        ".#####...",
        ".........",
    )
    assert center_distance(PromptTarget(mask), _rng()) == Prompts.from_points([[2, 2]], [1])


def test_the_image_ends_in_background() -> None:
    prompts = center_distance(PromptTarget(np.ones((5, 9), bool)), _rng())
    assert prompts.points_xy.tolist() == [[2, 2]]


@given(MASKS)
def test_the_click_lies_in_the_mask_and_no_pixel_is_deeper(mask: Mask) -> None:
    ((x, y),) = center_distance(PromptTarget(mask), _rng()).points_xy.astype(int)
    depth = ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
    assert mask[y, x]
    assert depth[y, x] == depth.max()


@pytest.mark.parametrize("strategy", EVERY_STRATEGY, ids=lambda strategy: strategy.name)
@given(mask=MASKS, seed=SEEDS, shift=st.tuples(st.integers(0, 5), st.integers(0, 5)))
def test_prompts_repeat_and_move_with_the_mask(
    strategy: Strategy, mask: Mask, seed: int, shift: tuple[int, int]
) -> None:
    down, right = shift
    # a margin, so that no side is clipped
    here = np.pad(mask, 48)
    there = np.pad(mask, ((48 + down, 48 - down), (48 + right, 48 - right)))
    first, again = (strategy.dialogue.opening(PromptTarget(here), _rng(seed)) for _ in range(2))
    assert first == again
    assert first.kinds <= strategy.dialogue.kinds
    moved = strategy.dialogue.opening(PromptTarget(there), _rng(seed))
    assert np.array_equal(moved.points_xy, first.points_xy + np.array([right, down], np.float32))
    if first.box_xyxy is not None:
        assert moved.box_xyxy is not None
        assert np.allclose(moved.box_xyxy, first.box_xyxy + np.array([right, down] * 2), atol=1e-4)


def test_the_robot_clicks_into_the_largest_error() -> None:
    truth = _mask(
        "###.......",
        "###.......",
        "###.......",
        "....####..",
    )
    answer = _mask(
        "..........",
        "..........",
        "........##",
        "....######",
    )
    prompts = Prompts.from_points([[5, 3]], [1])
    missed = corrective_click(truth, prompts, _answer(answer))
    assert missed is not None
    assert missed.points_xy.tolist() == [[5, 3], [1, 1]]
    assert missed.point_labels.tolist() == [1, 1]
    assert missed.mask_input is not None
    assert np.array_equal(missed.mask_input, _answer(answer).best_low_res_logits)
    answer[:3, :3] = True
    excess = corrective_click(truth, missed, _answer(answer))
    assert excess is not None
    assert excess.points_xy.tolist() == [[5, 3], [1, 1], [8, 2]]
    assert excess.point_labels.tolist() == [1, 1, 0]
    assert corrective_click(truth, excess, _answer(truth)) is None


def test_a_missed_and_a_wrong_part_that_touch_are_two() -> None:
    truth, answer = _mask("####....."), _mask("....#####")
    prompts = corrective_click(truth, Prompts.from_points([[0, 0]], [1]), _answer(answer))
    assert prompts is not None
    assert prompts.points_xy[1].tolist() == [4, 0]
    assert prompts.point_labels.tolist() == [1, 0]


@given(MASKS, st.data())
def test_a_correction_says_what_is_true_where_the_answer_is_not(truth: Mask, data: st.DataObject) -> None:
    answer = data.draw(npst.arrays(np.bool_, truth.shape))
    assume((truth != answer).any())
    prompts = corrective_click(truth, Prompts.from_points([[0, 0]], [1]), _answer(answer))
    assert prompts is not None
    x, y = prompts.points_xy[-1].astype(int)
    assert truth[y, x] != answer[y, x]
    assert prompts.point_labels[-1] == truth[y, x]


def test_names_stand_for_strategies() -> None:
    names = [
        s.name for s in parse_strategies(["jittered_box:.20", "corrective_clicks", " bound_box", "bound_box"])
    ]
    assert names == ["jittered_box:0.2", *(f"corrective_clicks:{n}" for n in (1, 3, 5)), "bound_box"]
    clicks = parse_strategies(["corrective_clicks:2", "corrective_clicks:7"])
    assert [s.turn for s in clicks] == [2, 7]
    assert all(a.dialogue is b.dialogue for a, b in pairwise(clicks))


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("box", "bound_box"),
        ("bound_box:3", "no parameter"),
        ("jittered_box:0.7", "0.5"),
        ("jittered_box:lots", "jittered_box:0.1"),
        ("jittered_box:nan", "jittered_box:0.1"),
        ("larger_box:-1", "larger_box:5"),
        ("random_margin_box:much", "-1000 to 1000"),
        ("random_3:2", "no parameter"),
        ("corrective_clicks:0", "1 to"),
        ("corrective_clicks:1e9", "1 to"),
    ],
)
def test_unknown_names_are_refused_with_the_known_ones(name: str, says: str) -> None:
    with pytest.raises(PromptError, match=says):
        parse_strategies([name])


def test_no_strategy_is_refused() -> None:
    with pytest.raises(PromptError, match="at least one"):
        parse_strategies([])
