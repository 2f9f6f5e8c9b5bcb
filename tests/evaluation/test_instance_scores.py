"""Instance masks of detections, and their average precision, by hand and as COCO's own tools count it."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from napari_sam_med.errors import PromptError
from napari_sam_med.evaluation.cases import Case
from napari_sam_med.evaluation.detections import Detection, write_detections
from napari_sam_med.evaluation.instance_scores import (
    Instance,
    InstanceSlice,
    instance_summary,
    instances_document,
    measure_instances,
    true_instances,
)
from napari_sam_med.evaluation.measuring import SliceChoice
from napari_sam_med.evaluation.prompt_strategies import parse_strategies
from napari_sam_med.evaluation.report import instances_table
from napari_sam_med.progress import Progress
from napari_sam_med.sam.mask_prediction import MaskPrediction
from napari_sam_med.sam.prompts import Prompts
from napari_sam_med.volume.formats.coco import mask_of, run_lengths
from napari_sam_med.volume.grid import Grid
from napari_sam_med.volume.labels import LabelVolume
from napari_sam_med.volume.organs import OrganTable
from napari_sam_med.volume.slice_view import SliceView

SHAPE = (120, 130)


def _block(rows: slice, columns: slice, organ: str = "liver", score: float = 1.0, **more: Any) -> Instance:
    mask = np.zeros(SHAPE, bool)
    mask[rows, columns] = True
    box = (columns.start, rows.start, columns.stop - columns.start, rows.stop - rows.start)
    return Instance(organ, run_lengths(mask), int(mask.sum()), box, score, **more)


def _slice(
    index: int, truths: Sequence[Instance], found: Sequence[Instance], left_out: int = 0
) -> InstanceSlice:
    view = SliceView("axial", index)
    done = Progress(1, 1)
    return InstanceSlice(done, "nano", "boxes:a", "ct", view, SHAPE, tuple(truths), tuple(found), left_out)


def _scores(*slices: InstanceSlice) -> dict[str, Any]:
    scores: dict[str, Any] = instance_summary(slices)["nano"]["boxes:a"]
    return scores


TRUTH = _block(slice(10, 20), slice(10, 15))
"""50 pixels."""


def test_the_very_mask_is_right_at_every_threshold() -> None:
    scores = _scores(_slice(0, [TRUTH], [TRUTH]))
    assert [scores[key] for key in ("ap", "ap50", "ap75", "ap_small", "ar")] == pytest.approx([1] * 5)
    assert scores["ap_medium"] is None
    assert scores["ap_large"] is None
    assert scores["class_agnostic"]["ap"] == pytest.approx(1)


def test_an_overlap_counts_up_to_its_threshold() -> None:
    """31 of 50 pixels are an IoU of 0.62: right at 0.5, 0.55 and 0.6, wrong at the seven others."""
    mask = np.zeros(SHAPE, bool)
    mask[10:16, 10:15] = True
    mask[16, 10] = True
    found = Instance("liver", run_lengths(mask), 31, (10, 10, 5, 7), 0.5)
    scores = _scores(_slice(0, [TRUTH], [found]))
    assert scores["ap50"] == pytest.approx(1)
    assert scores["ap75"] == 0
    assert scores["ap"] == pytest.approx(0.3)
    assert scores["ar"] == pytest.approx(0.3)


def test_a_surer_false_positive_halves_the_precision_of_what_follows() -> None:
    """Half of the truths is found, at a precision of 1/2: 51 of the 101 points of recall."""
    wrong = _block(slice(60, 70), slice(60, 70), score=0.9)
    right = _block(slice(10, 20), slice(10, 15), score=0.8)
    scores = _scores(_slice(0, [TRUTH], [right]), _slice(1, [TRUTH], [wrong]))
    assert scores["ap50"] == pytest.approx(0.5 * 51 / 101)
    assert scores["ar"] == pytest.approx(0.5)
    less_sure = _block(slice(60, 70), slice(60, 70), score=0.7)
    assert _scores(_slice(0, [TRUTH], [right]), _slice(1, [TRUTH], [less_sure]))["ap50"] == pytest.approx(
        51 / 101
    )


def test_a_second_mask_of_one_instance_is_wrong() -> None:
    """And what is found where nothing is costs as much as on a slice with organs."""
    twice = [_block(slice(10, 20), slice(10, 15), score=score) for score in (0.9, 0.8)]
    rest = _slice(1, [TRUTH], [_block(slice(10, 20), slice(10, 15), score=0.7)])
    # right, wrong, right: precision 1 up to a recall of 1/2, then 2/3
    expected = (51 + 50 * 2 / 3) / 101
    assert _scores(_slice(0, [TRUTH], twice), rest)["ap50"] == pytest.approx(expected)
    empty = _slice(2, [], [twice[1]])
    assert _scores(_slice(0, [TRUTH], twice[:1]), empty, rest)["ap50"] == pytest.approx(expected)


def test_the_organ_must_be_right_unless_it_does_not_matter() -> None:
    other = _block(slice(60, 70), slice(60, 65), "spleen")
    called = [_block(slice(10, 20), slice(10, 15), "spleen"), _block(slice(60, 70), slice(60, 65), "spleen")]
    scores = _scores(_slice(0, [TRUTH, other], called))
    assert scores["organs"]["liver"]["ap50"] == 0
    # the first of two that are as sure is wrong, so that the precision is 1/2
    assert scores["organs"]["spleen"]["ap50"] == pytest.approx(0.5)
    assert scores["ap50"] == pytest.approx(0.25)
    assert scores["class_agnostic"]["ap50"] == pytest.approx(1)


def test_sizes_are_told_apart() -> None:
    small, medium = TRUTH, _block(slice(0, 40), slice(60, 100))
    large = _block(slice(20, 120), slice(10, 110))
    slices = [
        _slice(0, [small], []),
        _slice(1, [medium], [medium]),
        _slice(2, [large], [large]),
    ]
    scores = _scores(*slices)
    assert [scores[f"ap_{size}"] for size in ("small", "medium", "large")] == pytest.approx([0, 1, 1])
    assert scores["instances"] == {"all": 3, "small": 1, "medium": 1, "large": 1}
    assert scores["organs"]["liver"] == {
        key: pytest.approx(scores[key]) for key in ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large")
    }
    assert scores["detections"] == 2
    table = instances_table({"instances": instance_summary(slices)})
    assert table is not None
    shown = dict(zip(table.headings, table.rows[0], strict=True))
    assert (shown["model"], shown["strategy"]) == ("nano", "boxes:a")
    assert (shown["small"], shown["medium"], shown["instances"], shown["detections"]) == (
        "0.000",
        "1.000",
        "3",
        "2",
    )
    assert instances_table({}) is None


def test_what_is_too_small_to_be_asked_for_is_neither_right_nor_wrong() -> None:
    tiny = _block(slice(80, 82), slice(80, 82), is_ignored=True)
    on_it = _block(slice(80, 82), slice(80, 82), score=1.0)
    right = _block(slice(10, 20), slice(10, 15), score=0.5)
    for found in ([right], [on_it, right]):
        scores = _scores(_slice(0, [TRUTH, tiny], found))
        assert scores["ap50"] == pytest.approx(1)
        assert scores["instances"]["all"] == 1


def test_nothing_found_and_nothing_to_find() -> None:
    nothing = _scores(_slice(0, [TRUTH], []))
    assert nothing["ap"] == nothing["ar"] == 0
    empty = _scores(_slice(0, [], [TRUTH], left_out=3), _slice(1, [], [], left_out=1))
    assert {empty[key] for key in ("ap", "ap50", "ap_small", "ar")} == {None}
    assert empty["organs"] == {}
    assert empty["left_out"] == 4
    assert instance_summary([]) == {}
    masks = np.zeros(SHAPE, bool)
    blank = Instance("liver", run_lengths(masks), 0, (0, 0, 0, 0), 0.9)
    # an empty answer is a wrong one, and surer than the right one
    found = [blank, _block(slice(10, 20), slice(10, 15), score=0.5)]
    assert _scores(_slice(0, [TRUTH], found))["ap50"] == pytest.approx(0.5)


@st.composite
def _instances(draw: st.DrawFn, *, true: bool) -> list[Instance]:
    found = []
    for _ in range(draw(st.integers(0, 4))):
        y, x = draw(st.integers(0, 40)), draw(st.integers(0, 40))
        height, width = draw(st.integers(1, 79)), draw(st.integers(1, 79))
        organ = draw(st.sampled_from(["liver", "spleen"]))
        score = 1.0 if true else draw(st.floats(0, 1))
        ignored = true and draw(st.integers(0, 5)) == 0
        found.append(_block(slice(y, y + height), slice(x, x + width), organ, score, is_ignored=ignored))
    return found


@given(st.lists(st.tuples(_instances(true=True), _instances(true=False)), min_size=1, max_size=4))
@settings(deadline=None, max_examples=40)
def test_coco_counts_the_same_from_the_file(drawn: list[tuple[list[Instance], list[Instance]]]) -> None:
    slices = [_slice(index, truths, found) for index, (truths, found) in enumerate(drawn)]
    document = json.loads(json.dumps(instances_document(slices)))
    results = document.pop("results")["nano"]["boxes:a"]
    scores = _scores(*slices)
    assert scores["detections"] == len(results)
    if not results or not document["annotations"]:
        return  # COCO loads no empty list
    keys = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large")
    for use_classes, ours in ((1, scores), (0, scores["class_agnostic"])):
        with contextlib.redirect_stdout(io.StringIO()):
            truth = COCO()
            truth.dataset = json.loads(json.dumps(document))
            truth.createIndex()
            evaluation = COCOeval(truth, truth.loadRes([dict(one) for one in results]), "segm")
            evaluation.params.useCats = use_classes
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
        expected = [None if value < 0 else pytest.approx(value) for value in evaluation.stats]
        assert [ours[key] for key in keys] == expected[:6]
        assert ours["ar"] == expected[8]


def test_true_instances_are_organs_or_their_pieces() -> None:
    data = np.zeros((2, 8, 9), np.uint8)
    data[1, 0:2, 0:3] = 1
    data[1, 2, 3] = 1  # touches the corner of the first
    data[1, 6:8, 6:9] = 1
    data[1, 4, 0] = 3
    labels = LabelVolume(data, Grid.from_zyx(data.shape), OrganTable.from_names({1: "cyst", 3: "vein"}))
    view = SliceView("axial", 1)
    whole = true_instances(labels, view, SliceChoice(min_area=2))
    assert [(one.organ, one.area, one.box_xywh, one.is_ignored) for one in whole] == [
        ("cyst", 13, (0, 0, 9, 8), False),
        ("vein", 1, (0, 4, 1, 1), True),
    ]
    assert np.array_equal(mask_of({"size": [8, 9], "counts": whole[0].counts}, (8, 9)), data[1] == 1)
    pieces = true_instances(labels, view, SliceChoice(min_area=7), "components")
    assert [(one.organ, one.area, one.box_xywh, one.is_ignored) for one in pieces] == [
        ("cyst", 7, (0, 0, 4, 3), False),
        ("cyst", 6, (6, 6, 3, 2), True),
        ("vein", 1, (0, 4, 1, 1), True),
    ]
    assert true_instances(labels, SliceView("axial", 0)) == ()
    (vein,) = true_instances(labels, view, SliceChoice(organs=("Vein",)))
    assert vein.organ == "vein"


class _FillsBoxes:
    """Answers a box with the filled box, sure to 0.5."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def embed(self, image: npt.ArrayLike, pixel_spacing: npt.ArrayLike = (1.0, 1.0)) -> Any:
        return SimpleNamespace(shape=np.shape(image)[:2])

    def predict_batch(self, embedding: Any, prompts: Sequence[Prompts]) -> list[MaskPrediction]:
        self.asked.append(len(prompts))
        return [self._answer(embedding.shape, one) for one in prompts]

    def _answer(self, shape: tuple[int, int], prompts: Prompts) -> MaskPrediction:
        assert prompts.box_xyxy is not None
        x0, y0, x1, y1 = np.rint(prompts.box_xyxy).astype(int)
        masks = np.zeros((1, *shape), bool)
        masks[0, y0 : y1 + 1, x0 : x1 + 1] = True
        sure = np.array([0.5], np.float32)
        return MaskPrediction(
            masks, sure, np.zeros((1, 4, 4), np.float32), sure, np.zeros((1, 0), np.float32)
        )


@pytest.fixture
def case(tmp_path: Path) -> Case:
    """A liver of 4 x 5 pixels on slices 1 and 2, nothing on 0 and 3; the table knows a spleen, too."""
    data = np.zeros((12, 10, 4), np.uint8)
    data[2:7, 3:7, 1:3] = 6
    affine = np.diag([-1.0, -1.0, 1.0, 1.0])  # i, j, k run as x, y, z
    nib.save(nib.Nifti1Image(data.astype(np.int16), affine), tmp_path / "ct.nii.gz")
    nib.save(nib.Nifti1Image(data, affine), tmp_path / "labels.nii.gz")
    return Case(
        "ct.nii.gz",
        "ct.nii.gz",
        tmp_path / "ct.nii.gz",
        tmp_path / "labels.nii.gz",
        '{"6": "liver", "1": "spleen"}',
    )


def _found(index: int, box: tuple[int, int, int, int], score: float = 1.0, organ: str = "liver") -> Detection:
    return Detection("ct", SliceView("axial", index), box, score, organ=organ)


def test_all_detections_of_a_slice_become_masks(case: Case, tmp_path: Path) -> None:
    detections = [
        _found(1, (2, 3, 6, 6), 0.8),
        _found(1, (0, 0, 1, 1), 0.4),
        _found(1, (5, 5, 6, 6), organ="pancreas"),  # the labels cannot say
        _found(3, (0, 0, 1, 1), 0.2, "spleen"),  # the labels say that there is none
    ]
    write_detections(tmp_path / "a.csv", detections)
    strategies = parse_strategies(["bound_box", f"boxes:{tmp_path / 'a.csv'}"])
    model = _FillsBoxes()
    slices = list(measure_instances([case], {"filled": model}, strategies, SliceChoice()))
    assert [one.view.index for one in slices] == [1, 2, 3]
    assert [(one.progress.done, one.progress.total) for one in slices] == [(1, 3), (2, 3), (3, 3)]
    assert model.asked == [2, 1], "a slice without detections is not asked about"
    assert [(i.organ, i.area, i.score) for i in slices[0].found] == [
        ("liver", 20, pytest.approx(0.4)),
        ("liver", 4, pytest.approx(0.2)),
    ]
    assert [(i.organ, i.area) for one in slices for i in one.truths] == [("liver", 20), ("liver", 20)]
    assert [one.left_out for one in slices] == [1, 0, 0]
    scores = instance_summary(slices)["filled"][strategies[1].name]
    # one of two livers is found, for sure; the spleen that is none is no liver
    assert scores["ap"] == pytest.approx(51 / 101)
    # of any organ too, as it is less sure than the right one
    assert scores["class_agnostic"]["ap"] == pytest.approx(51 / 101)
    assert scores["detections"] == 3
    assert scores["left_out"] == 1


def test_the_choice_of_slices_and_organs_holds(case: Case, tmp_path: Path) -> None:
    """The liver has 20 pixels on an axial slice and 10 on a coronal one."""
    detections = [_found(3, (0, 0, 1, 1)), _found(2, (0, 0, 1, 1)), _found(0, (0, 0, 1, 1), organ="spleen")]
    write_detections(tmp_path / "a.csv", detections)
    strategies = parse_strategies([f"boxes:{tmp_path / 'a.csv'}"])

    def measured(**choice: Any) -> list[InstanceSlice]:
        return list(measure_instances([case], {"filled": _FillsBoxes()}, strategies, SliceChoice(**choice)))

    def views(**choice: Any) -> list[tuple[str, int]]:
        return [(one.view.plane, one.view.index) for one in measured(**choice)]

    assert views() == [("axial", 0), ("axial", 1), ("axial", 2), ("axial", 3)]
    assert views(every=2, planes=("coronal", "axial")) == [
        *(("coronal", 4), ("coronal", 6)),
        *(("axial", 0), ("axial", 2)),
    ]
    assert views(most=1) == [("axial", 2)]
    assert views(organs=("liver",)) == [("axial", 1), ("axial", 2), ("axial", 3)]
    assert views(organs=("1",)) == [("axial", 0)]
    small = measured(min_area=21)
    assert [(one.view.index, len(one.truths)) for one in small] == [(0, 0), (2, 1), (3, 0)]
    assert small[1].truths[0].is_ignored
    spleens = measured(organs=("SPLEEN",), planes=("axial",), every=1, most=0)
    assert [(one.truths, [i.organ for i in one.found]) for one in spleens] == [((), ["spleen"])]
    livers = measured(organs=("6",))
    assert [(len(one.found), one.left_out) for one in livers] == [(0, 0), (1, 0), (1, 0)]


def test_boxes_that_are_not_of_the_case_are_refused(case: Case, tmp_path: Path) -> None:
    write_detections(tmp_path / "a.csv", [_found(4, (0, 0, 1, 1))])
    strategies = parse_strategies([f"boxes:{tmp_path / 'a.csv'}"])
    with pytest.raises(PromptError, match=r"slice 4 of ct.nii.gz, which has 4"):
        next(measure_instances([case], {"filled": _FillsBoxes()}, strategies, SliceChoice()))
    others = parse_strategies(["bound_box"])
    assert list(measure_instances([case], {"filled": _FillsBoxes()}, others, SliceChoice())) == []
