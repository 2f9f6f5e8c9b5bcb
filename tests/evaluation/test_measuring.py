"""Slices measured with a model that is played: what is asked of it, and how its answers are scored."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from napari_sam_med.evaluation.measuring import (
    Simulation,
    SliceChoice,
    SliceScore,
    labelled_slices,
    measure_baselines,
    measure_model,
    organ_names,
)
from napari_sam_med.evaluation.prompt_strategies import parse_strategies
from napari_sam_med.sam.mask_prediction import MaskPrediction
from napari_sam_med.sam.prompts import Prompts
from napari_sam_med.volume.grid import Grid
from napari_sam_med.volume.labels import LabelVolume
from napari_sam_med.volume.organs import OrganTable
from napari_sam_med.volume.volume import Volume

SHAPE = (6, 20, 24)


class _Played:
    """Answers a box with the filled box, clicks with one more row for each, a lone click with three masks."""

    def __init__(self) -> None:
        self.embedded = 0
        self.asked: list[list[Prompts]] = []

    def embed(self, image: npt.ArrayLike, pixel_spacing: npt.ArrayLike = (1.0, 1.0)) -> Any:
        assert np.shape(image) == (*SHAPE[1:], 3)
        self.embedded += 1
        return self.embedded

    def predict_batch(
        self, embedding: Any, prompts: Sequence[Prompts], *, single_beside: bool = False
    ) -> list[MaskPrediction]:
        assert single_beside
        assert embedding == self.embedded
        self.asked.append(list(prompts))
        return [self._answer(one) for one in prompts]

    def _answer(self, prompts: Prompts) -> MaskPrediction:
        mask = np.zeros(SHAPE[1:], bool)
        if prompts.box_xyxy is not None:
            x0, y0, x1, y1 = np.rint(prompts.box_xyxy).astype(int)
            mask[y0 : y1 + 1, x0 : x1 + 1] = True
        mask[: len(prompts.points_xy)] = len(prompts.points_xy) > 0
        masks = np.stack([mask, ~mask, mask]) if prompts.is_lone_point else mask[None]
        ious = np.array([0.6, 0.2, 0.1], np.float32)[: len(masks)]
        low = np.full((len(masks), 4, 4), float(len(prompts.points_xy)), np.float32)
        single = ~mask if len(masks) > 1 else None
        return MaskPrediction(masks, ious, low, np.ones(len(masks)), np.zeros((len(masks), 2)), single)


@pytest.fixture
def labels() -> LabelVolume:
    """An L of 12 pixels on slices 1 and 2, and a block of 4 on slice 2 alone."""
    data = np.zeros(SHAPE, np.uint8)
    data[1:3, 4:8, 5:7] = 1
    data[1:3, 6:8, 7:9] = 1
    data[2, 15:17, 15:17] = 3
    return LabelVolume(data, Grid.from_zyx(SHAPE, (1.0, 1.0, 1.0)), OrganTable.btcv())


@pytest.fixture
def scan() -> Volume:
    """Noise on the same grid."""
    data = np.random.default_rng(0).normal(0, 50, SHAPE).astype(np.int16)
    return Volume(data=data, grid=Grid.from_zyx(SHAPE, (1.0, 1.0, 1.0)))


def _measured(
    scan: Volume, labels: LabelVolume, *names: str, seed: int = 0
) -> tuple[_Played, list[SliceScore]]:
    model = _Played()
    simulation = Simulation(tuple(parse_strategies(names)), SliceChoice(), seed)
    steps = list(measure_model("scan", scan, labels, model, simulation, model="played"))
    assert [step.progress.done for step in steps] == [1, 2]
    assert {step.progress.total for step in steps} == {2}
    return model, [score for step in steps for score in step.scores]


def test_slices_are_chosen_by_area_plane_and_step(labels: LabelVolume) -> None:
    def chosen(**choice: Any) -> list[tuple[str, int, tuple[int, ...]]]:
        return [
            (found.view.plane, found.view.index, found.label_ids)
            for found in labelled_slices(labels, SliceChoice(**choice))
        ]

    assert chosen() == [("axial", 1, (1,)), ("axial", 2, (1, 3))]
    assert chosen(min_area=5) == [("axial", 1, (1,)), ("axial", 2, (1,))]
    assert chosen(min_area=12) == chosen(min_area=5)
    assert chosen(min_area=13) == []
    assert chosen(every=2) == [("axial", 2, (1, 3))]
    assert [found[1] for found in chosen(planes=("coronal", "sagittal"), every=5)] == [5, 15, 5, 15]


def test_slices_are_chosen_by_organ_and_number(labels: LabelVolume) -> None:
    def chosen(**choice: Any) -> list[tuple[int, tuple[int, ...]]]:
        return [(one.view.index, one.label_ids) for one in labelled_slices(labels, SliceChoice(**choice))]

    assert chosen(organs=("Left Kidney",)) == chosen(organs=("3",)) == [(2, (3,))]
    assert chosen(organs=("spleen", "3")) == chosen()
    assert chosen(organs=("liver",)) == []
    assert chosen(planes=("coronal",), most=2) == [(5, (1,)), (15, (3,))]
    assert len(chosen(planes=("coronal", "sagittal"), most=3)) == 6
    assert chosen(planes=("coronal",), most=99) == chosen(planes=("coronal",))


def test_a_filled_box_is_scored(scan: Volume, labels: LabelVolume) -> None:
    model, scores = _measured(scan, labels, "bound_box")
    assert model.embedded == 2
    assert [len(batch) for batch in model.asked] == [1, 2]
    first = scores[0]
    assert (first.organ, first.label, first.view.index, first.area_px) == ("spleen", 1, 1, 12)
    assert first.dice == pytest.approx(24 / 28)
    assert first.iou == pytest.approx(12 / 16)
    assert first.dice_oracle is None
    assert first.iou_prediction == pytest.approx(0.6)
    assert [(score.organ, score.dice) for score in scores[1:]] == [
        ("spleen", pytest.approx(24 / 28)),
        ("left kidney", 1.0),
    ]


def test_baselines_are_scored_on_the_same_slices(labels: LabelVolume) -> None:
    scores = list(measure_baselines("scan", labels, SliceChoice(), lambda _: (1.0, 2.0)))
    filled = [score for score in scores if score.model == "filled_box"]
    assert [score.dice for score in filled] == pytest.approx([24 / 28, 24 / 28, 1.0])
    assert [score.nsd for score in filled] == [1.0, 1.0, 1.0]
    # two corner pixels of the box lie 2 rows from the L
    assert [score.hd95_mm for score in filled] == [2.0, 2.0, 0.0]
    assert len(scores) == 2 * len(filled)
    plain = measure_baselines("scan", labels, SliceChoice())
    assert {(score.nsd, score.hd95_mm) for score in plain} == {(None, None)}


def test_the_best_of_three_is_noted_beside_the_one_that_the_model_prefers(
    scan: Volume, labels: LabelVolume
) -> None:
    _, scores = _measured(scan, labels, "center_distance")
    # the model prefers row 0, which the organ does not touch; the second mask is all the rest
    assert scores[0].dice == 0
    assert scores[0].dice_oracle == scores[0].dice_single == pytest.approx(2 * 12 / (12 + 19 * 24))
    assert scores[0].iou_oracle == scores[0].iou_single == pytest.approx(12 / (19 * 24))
    assert scores[0].nsd == 0
    assert scores[0].hd95_mm is not None


def test_one_dialogue_serves_all_numbers_of_clicks(scan: Volume, labels: LabelVolume) -> None:
    model, scores = _measured(scan, labels, "corrective_clicks:4", "corrective_clicks:1", "bound_box")
    # turn by turn, all organs at once; the box is asked about with the first click
    assert [len(batch) for batch in model.asked] == [2, 1, 1, 1, 4, 2, 2, 2]
    assert [(score.replies, len(score.prompts.points_xy)) for score in scores[:2] if score.prompts] == [
        (3, 4),
        (0, 1),
    ]
    assert {score.prompts.mask_input is None for score in scores if score.prompts} == {True}
    assert [len(batch[0].points_xy) for batch in model.asked[:4]] == [1, 2, 3, 4]
    assert model.asked[0][0].mask_input is None
    for turn in (1, 2, 3):
        given = model.asked[turn][0].mask_input
        assert given is not None
        assert (given == turn).all(), "the logits of the answer before"
    names = [score.strategy for score in scores[:3]]
    assert names == ["corrective_clicks:4", "corrective_clicks:1", "bound_box"]
    assert scores[0].seconds >= scores[1].seconds
    assert scores[1].dice_oracle is not None
    assert scores[0].dice_oracle is None


def test_nothing_is_asked_once_the_answer_is_right(scan: Volume) -> None:
    data = np.zeros(SHAPE, np.uint8)
    data[1:3, :2] = 1
    labels = LabelVolume(data, scan.grid, OrganTable.btcv())
    model, scores = _measured(scan, labels, "corrective_clicks")
    assert [len(batch) for batch in model.asked] == [1, 1, 1, 1], "two clicks, on each of two slices"
    assert [score.dice for score in scores] == pytest.approx([2 / 3, 1, 1] * 2)


def test_prompts_depend_on_the_seed_and_not_on_what_else_is_measured(
    scan: Volume, labels: LabelVolume
) -> None:
    def boxes(*names: str, seed: int = 0) -> list[Prompts]:
        model, _ = _measured(scan, labels, *names, seed=seed)
        return [one for batch in model.asked for one in batch]

    alone = boxes("jittered_box:0.1")
    assert boxes("jittered_box:0.1") == alone
    assert boxes("jittered_box:0.1", seed=1) != alone
    assert len(set(alone)) == 3
    together = boxes("bound_box", "jittered_box:0.1", "center_distance")
    assert [together[i] for i in (1, 4, 7)] == alone


def test_all_seeds_are_asked_together_and_equal_prompts_once(scan: Volume, labels: LabelVolume) -> None:
    model = _Played()
    strategies = tuple(parse_strategies(["bound_box", "random_mask"]))
    steps = measure_model("scan", scan, labels, model, Simulation(strategies, SliceChoice(), 4, (5, 6)))
    scores = [score for step in steps for score in step.scores]
    assert model.embedded == 2
    keys = [(score.view.index, score.label, score.seed, score.strategy) for score in scores]
    assert keys == [
        (index, label, seed, name)
        for index, label in ((1, 1), (2, 1), (2, 3))
        for seed in (4, 5, 6)
        for name in ("bound_box", "random_mask")
    ]
    first = [score.prompts for score in scores[:6]]
    assert model.asked[0] == list(dict.fromkeys(first)), "one box, and a click for each seed"
    assert len(model.asked[0]) < 6
    _, alone = _measured(scan, labels, "random_mask", seed=5)
    assert [score.prompts for score in alone] == [
        s.prompts for s in scores if s.seed == 5 and s.strategy[0] == "r"
    ]


def test_known_slices_are_neither_embedded_nor_asked(scan: Volume, labels: LabelVolume) -> None:
    model, scores = _measured(scan, labels, "bound_box")
    kept = [score for score in scores if score.view.index == 1]
    model = _Played()
    simulation = Simulation(tuple(parse_strategies(["bound_box"])))
    steps = list(
        measure_model(
            "scan",
            scan,
            labels,
            model,
            simulation,
            known=lambda labelled: kept if labelled.view.index == 1 else None,
        )
    )
    assert model.embedded == 1
    assert [(step.is_new, step.progress.done) for step in steps] == [(False, 1), (True, 2)]
    assert steps[0].scores == kept


def test_two_labels_of_one_name_are_told_apart() -> None:
    data = np.zeros(SHAPE, np.uint8)
    data[0, 0, :3] = (1, 2, 5)
    organs = OrganTable.from_names({1: "cyst", 2: "liver", 5: "cyst"})
    labels = LabelVolume(data, Grid.from_zyx(SHAPE, (1.0, 1.0, 1.0)), organs)
    assert organ_names(labels) == {1: "cyst (1)", 2: "liver", 5: "cyst (5)"}


def test_an_organ_that_a_detector_overlooked_is_measured_as_an_empty_answer(
    scan: Volume, labels: LabelVolume, tmp_path: Path
) -> None:
    boxes = tmp_path / "found.csv"
    boxes.write_text("image,slice,organ,x0,y0,x1,y1\nscan,2,spleen,5,4,8,7\n", encoding="utf-8")
    names = [f"boxes:{boxes}", f"boxes:{boxes}+corrective_clicks:2", "bound_box"]
    model, scores = _measured(scan, labels, *names)
    assert [score.strategy for score in scores] == [*names] * 3, "a row an organ, slice and strategy"
    found = {(score.view.index, score.organ, score.strategy): score for score in scores}
    for overlooked in ((1, "spleen"), (2, "left kidney")):
        for name in names[:2]:
            score = found[*overlooked, name]
            assert (score.dice, score.iou, score.prompts, score.replies, score.seconds) == (0, 0, None, 0, 0)
            assert np.isnan(score.iou_prediction)
    seen = found[2, "spleen", names[0]]
    assert seen.dice == found[2, "spleen", "bound_box"].dice > 0
    assert seen.prompts == Prompts.from_box((5, 4, 8, 7))
    assert found[2, "spleen", names[1]].replies == 2
    assert [len(batch) for batch in model.asked] == [1, 2, 1, 1], "boxes that are alike are asked about once"
