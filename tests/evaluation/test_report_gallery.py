"""Pictures of answers: which are chosen, how they are asked for again, and what is drawn where."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

from napari_sam_med.errors import ImageError
from napari_sam_med.evaluation.report_gallery import (
    ANSWER_COLOUR,
    TRUTH_COLOUR,
    GallerySource,
    answered_again,
    draw_answer,
    gallery_pictures,
    telling_answers,
)
from napari_sam_med.evaluation.slice_scores import SliceScore
from napari_sam_med.sam.mask_prediction import MaskPrediction
from napari_sam_med.sam.prompts import Prompts
from napari_sam_med.volume.grid import Grid
from napari_sam_med.volume.labels import LabelVolume
from napari_sam_med.volume.organs import OrganTable
from napari_sam_med.volume.slice_view import SliceView
from napari_sam_med.volume.volume import Volume
from tests.evaluation.made_up_scores import made_up_scores

SHAPE = (5, 40, 50)


class _FillsBoxes:
    """Answers with the filled box, or a row for every click; its logits say how many clicks there were."""

    def __init__(self) -> None:
        self.embedded = 0
        self.asked: list[Prompts] = []

    def embed(self, image: npt.ArrayLike, pixel_spacing: npt.ArrayLike = (1.0, 1.0)) -> Any:
        assert np.shape(image) == (*SHAPE[1:], 3)
        self.embedded += 1
        return self.embedded

    def predict(self, embedding: Any, prompts: Prompts) -> MaskPrediction:
        self.asked.append(prompts)
        mask = np.zeros(SHAPE[1:], bool)
        if prompts.box_xyxy is not None:
            x0, y0, x1, y1 = prompts.box_xyxy.astype(int)
            mask[y0 : y1 + 1, x0 : x1 + 1] = True
        mask[: len(prompts.points_xy)] = True
        logits = np.full((1, 4, 4), len(prompts.points_xy), np.float32)
        one = np.ones(1, np.float32)
        return MaskPrediction(mask[None], one, logits, one, np.zeros((1, 2), np.float32))


@pytest.fixture
def scan() -> tuple[Volume, LabelVolume]:
    """Noise, and a block of 6 x 8 pixels labelled 1 on every slice."""
    grid = Grid.from_zyx(SHAPE, (2.0, 1.0, 1.0))
    labels = np.zeros(SHAPE, np.uint8)
    labels[:, 10:16, 20:28] = 1
    noise = np.random.default_rng(0).normal(0, 50, SHAPE).astype(np.int16)
    return Volume(noise, grid), LabelVolume(labels, grid, OrganTable.from_names({1: "block"}))


def _score(index: int = 0, dice: float = 1.0, **changes: Any) -> SliceScore:
    place = ("v", "block", 1, SliceView("axial", index), "bound_box", "played")
    row = SliceScore(*place, dice, dice / (2 - dice), None, 0.9, 48, 0.1)
    return replace(row, **{"prompts": Prompts.from_box([20, 10, 27, 15]), **changes})


def _colours(picture: npt.NDArray[Any], colour: str) -> npt.NDArray[np.bool_]:
    """Where a picture has a colour, nearly."""
    wanted = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])
    found: npt.NDArray[np.bool_] = np.abs(picture.astype(int) - wanted).max(axis=-1) < 30
    return found


def test_best_median_and_worst_are_chosen_for_every_strategy_and_model() -> None:
    dices = (0.4, 0.9, 0.1, 0.8, 0.5)
    rows = [_score(i, dice) for i, dice in enumerate(dices)]
    rows += [_score(i, dice, model="other") for i, dice in enumerate(dices[:2])]
    rows += [_score(0, 0.3, strategy="center_mask"), _score(1, 0.99, prompts=None)]
    chosen = [(row.model, row.strategy, place, row.dice) for place, row in telling_answers(rows)]
    assert chosen == [
        ("played", "bound_box", "best", 0.9),
        ("played", "bound_box", "median", 0.5),
        ("played", "bound_box", "worst", 0.1),
        ("other", "bound_box", "best", 0.9),
        ("other", "bound_box", "worst", 0.4),
        ("played", "center_mask", "best", 0.3),
    ]


def test_of_many_strategies_each_family_is_shown_before_any_has_two() -> None:
    sweep = [f"random_margin_box:{margin}" for margin in range(30)]
    scores, _ = made_up_scores(strategies=[*sweep, "center_mask", "bound_box"])
    shown = list(dict.fromkeys(row.strategy for _, row in telling_answers(scores)))
    assert shown == [*sweep[:22], "center_mask", "bound_box"]


def test_pictures_are_of_the_answers_that_were_measured(scan: tuple[Volume, LabelVolume]) -> None:
    model = _FillsBoxes()
    reads = []

    def read(name: str) -> tuple[Volume, LabelVolume]:
        reads.append(name)
        return scan

    other = _score(3, 0.2, strategy="center_mask")  # was measured on other labels, it seems
    rows = [_score(3), _score(1, 1.0), other, _score(3, model="not at hand")]
    found = list(gallery_pictures(rows, GallerySource(read, {"played": model})))
    assert reads == ["v"]
    assert model.embedded == 2
    facts = {(one.score.strategy, one.place, one.score.view.index): one.changed for one in found}
    assert facts == {
        ("bound_box", "best", 3): False,
        ("bound_box", "worst", 1): False,
        ("center_mask", "best", 3): True,
    }
    for one in found:
        Image.open(io.BytesIO(one.png)).verify()


def test_a_dialogue_is_held_again_turn_by_turn() -> None:
    model = _FillsBoxes()
    asked = Prompts([[1, 1], [2, 2], [3, 3]], [1, 0, 1], [0, 5, 3, 7])
    score = _score(prompts=asked, replies=2)
    answer = answered_again(score, None, model)  # type: ignore[arg-type]  # a played model looks at no embedding
    assert answer.best_mask[:3].all()
    assert [len(one.points_xy) for one in model.asked] == [1, 2, 3]
    assert [one.point_labels.tolist() for one in model.asked] == [[1], [1, 0], [1, 0, 1]]
    assert all(np.array_equal(one.box_xyxy, [0, 5, 3, 7]) for one in model.asked)  # type: ignore[arg-type]  # there is a box
    told = [one.mask_input for one in model.asked]
    assert told[0] is None
    assert [float(np.ravel(one)[0]) for one in told[1:] if one is not None] == [1, 2]


def test_clicks_given_at_once_are_asked_at_once() -> None:
    model = _FillsBoxes()
    asked = Prompts.from_points([[1, 1], [2, 2], [3, 3]])
    answered_again(_score(prompts=asked), None, model)  # type: ignore[arg-type]  # as above
    assert model.asked == [asked]


def test_truth_and_answer_are_outlined_where_they_are() -> None:
    image = np.full((40, 50, 3), 90, np.uint8)
    truth, answer = np.zeros((2, 40, 50), bool)
    truth[10:20, 10:20] = True
    answer[10:20, 25:35] = True
    figure = draw_answer(image, truth, answer, Prompts([[12, 12]], [0], [10, 10, 34, 19]))
    axes = figure.axes[0]
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    picture = np.asarray(canvas.buffer_rgba())[..., :3]
    for colour, left, right in ((TRUTH_COLOUR, 9.5, 19.5), (ANSWER_COLOUR, 24.5, 34.5)):
        rows, columns = np.nonzero(_colours(picture, colour))
        pixels = np.stack([columns, picture.shape[0] - 1 - rows], axis=1)
        xy = axes.transData.inverted().transform(pixels)
        assert xy[:, 0].min() == pytest.approx(left, abs=0.5)
        assert xy[:, 0].max() == pytest.approx(right, abs=0.5)
        assert xy[:, 1].min() == pytest.approx(9.5, abs=0.5)
        assert xy[:, 1].max() == pytest.approx(19.5, abs=0.5)


def test_a_picture_shows_all_of_a_slice_that_is_narrow_and_pixels_as_they_are() -> None:
    image = np.zeros((10, 100, 3), np.uint8)
    mask = np.zeros((10, 100), bool)
    mask[4:6, 5:95] = True
    axes = draw_answer(image, mask, mask, None, (4.0, 1.0)).axes[0]
    left, right = axes.get_xlim()
    bottom, top = axes.get_ylim()
    assert (right - left) == pytest.approx((bottom - top) * 4), "a square in millimetres"
    assert (bottom + top) / 2 == pytest.approx(4.5)
    assert top < -0.5
    assert bottom > 9.5


def test_an_empty_answer_is_drawn(scan: tuple[Volume, LabelVolume]) -> None:
    empty = np.zeros((40, 50), bool)
    figure = draw_answer(np.zeros((40, 50, 3), np.uint8), empty, empty)
    assert figure.axes[0].get_xlim()[1] >= 49


def test_what_is_not_given_is_named(scan: tuple[Volume, LabelVolume]) -> None:
    source = GallerySource.of_cases([], {"played": _FillsBoxes()})
    with pytest.raises(ImageError, match="speak of v, which is not among the cases"):
        next(gallery_pictures([_score()], source))
    with pytest.raises(ImageError, match="axial slice 5 of v, which has 5 now"):
        next(gallery_pictures([_score(5)], GallerySource(lambda name: scan, source.predictors)))
    with pytest.raises(ImageError, match="is not in the results"):
        answered_again(_score(prompts=None), None, _FillsBoxes())  # type: ignore[arg-type]  # as above
