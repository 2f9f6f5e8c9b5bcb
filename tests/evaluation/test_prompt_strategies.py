"""Strategies by name: what they promise, how they are combined, and what the robot clicks on next."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from napari_sam_med.errors import PromptError
from napari_sam_med.evaluation.prompt_strategies import (
    STRATEGIES,
    PromptTarget,
    Strategy,
    corrective_click,
    draw_prompts,
    parse_strategies,
)
from napari_sam_med.sam.mask_prediction import MaskPrediction
from napari_sam_med.sam.prompts import Prompts
from napari_sam_med.volume.slice_view import SliceView
from tests.evaluation.drawn_masks import MASKS, RING, SEEDS, Mask, drawn, generator

SNAPPED = [name for name in STRATEGIES if parse_strategies([name])[0].may_miss]
COMBINED = (
    "bound_box+center_mask",
    "center_mask+background_corner",
    "random_margin_box:10+random_3",
    "bound_box+random_gaussian+background_corner",
    "jittered_box:0.1+corrective_clicks:2",
)
EVERY_STRATEGY = [
    parse_strategies([name])[-1] for name in (*STRATEGIES, *(f"{name}:snap" for name in SNAPPED), *COMBINED)
]
_MARGIN = 48
"""Pixels around a mask, so that no side is clipped."""


def _grey(mask: Mask) -> npt.NDArray[np.uint8]:
    values = np.random.default_rng(0).integers(0, 255, (*mask.shape, 1))
    return np.repeat(values, 3, 2).astype(np.uint8)


def _opened(strategy: Strategy, mask: Mask, seed: int) -> Prompts:
    return strategy.dialogue.opening(PromptTarget(mask, _grey(mask)), generator(seed))


def _answer(mask: Mask) -> MaskPrediction:
    logits = np.where(mask[:4, :4], 3.0, -3.0).astype(np.float32)[None]
    return MaskPrediction(mask[None], np.array([0.9], np.float32), logits, np.ones(1), np.zeros((1, 2)))


@settings(deadline=None)
@given(mask=MASKS, seed=SEEDS, down=st.integers(0, 5), right=st.integers(0, 5))
def test_prompts_repeat_and_move_with_the_mask(mask: Mask, seed: int, down: int, right: int) -> None:
    grey = _grey(mask)

    def target(left: int, top: int) -> PromptTarget:
        around = ((_MARGIN + top, _MARGIN - top), (_MARGIN + left, _MARGIN - left))
        return PromptTarget(np.pad(mask, around), np.pad(grey, (*around, (0, 0))))

    here, there, move = target(0, 0), target(right, down), np.array([right, down])
    for strategy in EVERY_STRATEGY:
        opening = strategy.dialogue.opening
        first, again, moved = (opening(one, generator(seed)) for one in (here, here, there))
        assert first == again, strategy.name
        assert first.kinds <= strategy.dialogue.kinds, strategy.name
        assert np.array_equal(moved.point_labels, first.point_labels), strategy.name
        assert np.allclose(moved.points_xy, first.points_xy + move, atol=1e-4), strategy.name
        assert moved.kinds == first.kinds
        if first.box_xyxy is not None:
            assert np.allclose(moved.box_xyxy, first.box_xyxy + np.tile(move, 2), atol=1e-4), strategy.name


@settings(deadline=None)
@given(mask=MASKS, seed=SEEDS)
def test_clicks_lie_where_they_say(mask: Mask, seed: int) -> None:
    rows, columns = PromptTarget(mask).crop
    boxed = np.zeros_like(mask)
    boxed[rows, columns] = True
    for strategy in EVERY_STRATEGY:
        prompts = _opened(strategy, mask, seed)
        x, y = np.floor(prompts.points_xy + 0.5).astype(int).T
        positive = prompts.point_labels == 1
        assert boxed[y, x][positive].all(), strategy.name
        assert mask[y, x][positive].all() or strategy.may_miss, strategy.name
        assert not mask[y, x][~positive].any() or mask.all(), strategy.name


def test_a_ring_is_missed_by_those_that_may_and_hit_when_snapped() -> None:
    assert set(SNAPPED) == {"random_box", "center_box", "center_mask", "center_gaussian", "center_bilateral"}
    ring = drawn(*RING)
    target = PromptTarget(ring, np.zeros((5, 5, 3), np.uint8))
    for strategy in EVERY_STRATEGY:
        hits = []
        for seed in range(40):
            prompts = strategy.dialogue.opening(target, generator(seed))
            x, y = np.rint(prompts.points_xy[prompts.point_labels == 1]).astype(int).T
            hits.append(ring[y, x].all())
        assert all(hits) is not strategy.may_miss, strategy.name


@settings(deadline=None, max_examples=30)
@given(masks=npst.arrays(np.bool_, (3, 9, 11)).filter(lambda m: m.any((1, 2)).all()), seed=SEEDS)
def test_many_objects_at_once_get_what_each_gets_alone(masks: Mask, seed: int) -> None:
    for strategy in EVERY_STRATEGY:
        rngs = [generator(seed + i) for i in range(3)]
        together = draw_prompts(strategy, masks, rngs, _grey(masks[0]))
        alone = [_opened(strategy, mask, seed + i) for i, mask in enumerate(masks)]
        assert together == alone, strategy.name


def test_the_prompts_of_a_seed_stay_what_they_were() -> None:
    y, x = np.ogrid[:120, :130]
    outer, hole = ((x - 60) / 25) ** 2 + ((y - 55) / 14) ** 2, ((x - 66) / 6) ** 2 + ((y - 55) / 5) ** 2
    mask = (outer <= 1) & (hole > 1)
    boxes = {
        "bound_box": [35, 41, 85, 69],
        "jittered_box:0.05": [35.637985, 42.15192, 86.406, 68.2031],
        "larger_box:5": [30, 36, 90, 74],
        "random_margin_box:-20": [54, 51, 71, 54],
        "random_margin_box:40": [0, 16, 113, 105],
    }
    for name, box in boxes.items():
        assert np.allclose(_opened(*parse_strategies([name]), mask, 7).box_xyxy, box, atol=1e-3)
    clicks = {
        "random_mask": [[65, 66]],
        "random_3": [[64, 66], [74, 58], [46, 60]],
        "center_distance": [[48, 55]],
        "corrective_clicks:3": [[48, 55]],
    }
    for name, points in clicks.items():
        assert _opened(*parse_strategies([name]), mask, 7) == Prompts.from_points(points)


def test_the_robot_clicks_into_the_largest_error() -> None:
    truth = drawn(
        "###.......",
        "###.......",
        "###.......",
        "....####..",
    )
    answer = drawn(
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
    truth, answer = drawn("####....."), drawn("....#####")
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


def _names(*names: str) -> list[str]:
    return [strategy.name for strategy in parse_strategies(names)]


def test_names_stand_for_strategies() -> None:
    assert _names("jittered_box:.20", "corrective_clicks", " bound_box", "bound_box") == [
        "jittered_box:0.2",
        *(f"corrective_clicks:{n}" for n in (1, 3, 5)),
        "bound_box",
    ]
    assert _names("random_margin_box") == [f"random_margin_box:{m}" for m in (-20, -10, 0, 10, 20, 30, 40)]
    assert _names("center_mask:snap", "scribble") == ["center_mask:snap", "scribble:5"]
    assert _names("center_gaussian:100", "center_gaussian") == ["center_gaussian"]
    assert _names("center_gaussian:30.0:snap", "random_gaussian:5") == [
        "center_gaussian:30:snap",
        "random_gaussian:5",
    ]
    clicks = parse_strategies(["corrective_clicks:2", "corrective_clicks:7"])
    assert [s.turn for s in clicks] == [2, 7]
    assert all(a.dialogue is b.dialogue for a, b in pairwise(clicks))


def test_the_width_of_a_gaussian_is_used() -> None:
    mask = drawn("#..#..####")
    for name in ("center_gaussian", "center_bilateral"):
        narrow, default = parse_strategies([f"{name}:2", name])
        assert _opened(narrow, mask, 0) != _opened(default, mask, 0)
    (near,) = parse_strategies(["random_gaussian:0.1"])
    assert {_opened(near, mask, seed).points_xy[0, 0] for seed in range(20)} == {3, 6}


def test_joined_names_stand_for_all_of_their_combinations_in_one_order() -> None:
    assert _names("center_mask + bound_box", "bound_box+center_mask") == ["bound_box+center_mask"]
    assert _names("background_corner+jittered_box") == [
        "jittered_box:0.05+background_corner",
        "jittered_box:0.1+background_corner",
    ]
    assert _names("background_corner+center_mask", "center_mask+background_corner") == [
        "background_corner+center_mask",
        "center_mask+background_corner",
    ]


@pytest.mark.parametrize("name", COMBINED[:4])
@given(mask=MASKS, seed=SEEDS)
def test_a_combination_is_the_union_of_its_parts(name: str, mask: Mask, seed: int) -> None:
    (whole,) = parse_strategies([name])
    parts = parse_strategies(name.split("+"))
    target, rng = PromptTarget(mask), generator(seed)
    drawn_parts = [part.dialogue.opening(target, rng) for part in parts]
    united = whole.dialogue.opening(target, generator(seed))
    assert united.points_xy.tolist() == [p for one in drawn_parts for p in one.points_xy.tolist()]
    assert united.point_labels.tolist() == [v for one in drawn_parts for v in one.point_labels.tolist()]
    boxes = [one.box_xyxy.tolist() for one in drawn_parts if one.box_xyxy is not None]
    assert boxes == ([] if united.box_xyxy is None else [united.box_xyxy.tolist()])
    assert united.kinds == whole.dialogue.kinds == frozenset().union(*(p.dialogue.kinds for p in parts))
    assert whole.turn == 1
    assert whole.may_miss == any(part.may_miss for part in parts)


def test_a_dialogue_goes_on_from_what_stands_before_it() -> None:
    first, second = parse_strategies(["corrective_clicks:1+bound_box", "bound_box+corrective_clicks:3"])
    assert (first.name, first.turn) == ("bound_box+corrective_clicks:1", 2)
    assert (second.name, second.turn) == ("bound_box+corrective_clicks:3", 4)
    assert first.dialogue.name == second.dialogue.name == "bound_box+corrective_clicks"
    assert first.dialogue.kinds == {"box", "point", "mask"}
    mask = drawn("....", ".##.", ".##.")
    opened = _opened(first, mask, 0)
    assert opened == Prompts.from_box((1, 1, 2, 2))
    assert first.dialogue.reply is not None
    reply = first.dialogue.reply(mask, opened, _answer(drawn("....", ".#..", ".##.")))
    assert reply is not None
    assert reply.points_xy.tolist() == [[2, 1]]
    assert np.array_equal(reply.box_xyxy, opened.box_xyxy)


def test_boxes_of_a_file_are_a_strategy_and_its_name_may_hold_a_plus(tmp_path: Path) -> None:
    file = tmp_path / "fold+1.csv"
    file.write_text("image,plane,slice,organ,label,x0,y0,x1,y1,score\nct,axial,3,,2,1,1,4,5,0.9\n")
    alone, joined = parse_strategies([f"boxes:{file}", f"center_mask+boxes:{file}+background_corner"])
    assert alone.name == f"boxes:{file}"
    assert joined.name == f"boxes:{file}+center_mask+background_corner"
    mask = np.zeros((9, 9), bool)
    mask[2:5, 2:4] = True
    target = PromptTarget(mask, case="ct", view=SliceView("axial", 3), label=2)
    assert alone.dialogue.opening(target, generator()) == Prompts.from_box((1, 1, 4, 5))
    assert joined.dialogue.opening(target, generator()).kinds == {"box", "point"}
    with pytest.raises(PromptError, match="one box"):
        parse_strategies([f"boxes:{file}+bound_box"])


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("box", "bound_box"),
        ("boxes", "boxes:FILE"),
        ("bound_box:3", "no parameter"),
        ("jittered_box:0.7", "0.5"),
        ("jittered_box:lots", "jittered_box:0.1"),
        ("jittered_box:nan", "jittered_box:0.1"),
        ("larger_box:-1", "larger_box:5"),
        ("random_margin_box:much", "-1000 to 1000"),
        ("random_3:2", "no parameter"),
        ("corrective_clicks:0", "1 to"),
        ("corrective_clicks:1e9", "1 to"),
        ("scribble:0", "scribble:5"),
        ("center_mask:0.1", "center_mask:snap"),
        ("center_gaussian:0", "center_gaussian:30"),
        ("center_gaussian:snap:30", "width"),
        ("random_gaussian:snap", "random_gaussian:30"),
        ("center_distance:snap", "no parameter"),
        ("bound_box+box", '"box"'),
        ("bound_box+", '""'),
        ("bound_box+larger_box", "one box"),
        ("center_mask+center_mask", "named once"),
        ("corrective_clicks:1+corrective_clicks:3", "one dialogue"),
    ],
)
def test_what_cannot_be_given_is_refused_with_what_can(name: str, says: str) -> None:
    with pytest.raises(PromptError, match=says):
        parse_strategies([name])


def test_no_strategy_is_refused() -> None:
    with pytest.raises(PromptError, match="at least one"):
        parse_strategies([])
