"""Pictures of the best, the median and the worst answer to each strategy: slice, prompt, truth and answer."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

from napari_sam_med.errors import ImageError
from napari_sam_med.evaluation.cases import Case, read_case
from napari_sam_med.evaluation.measuring import Encoder, embed_labelled
from napari_sam_med.evaluation.metrics import dice
from napari_sam_med.evaluation.report_figures import small_png
from napari_sam_med.evaluation.slice_scores import SliceScore
from napari_sam_med.sam.mask_prediction import MaskPrediction
from napari_sam_med.sam.predictor import ImageEmbedding
from napari_sam_med.sam.prompts import Prompts
from napari_sam_med.segmentation.body import BodyBox
from napari_sam_med.volume.intensity import to_rgb
from napari_sam_med.volume.labels import LabelVolume
from napari_sam_med.volume.volume import Volume

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "ANSWER_COLOUR",
    "PLACES",
    "TRUTH_COLOUR",
    "GalleryPicture",
    "GallerySource",
    "answered_again",
    "draw_answer",
    "gallery_pictures",
    "telling_answers",
]

_Mask = npt.NDArray[np.bool_]

PLACES = ("best", "median", "worst")
TRUTH_COLOUR, ANSWER_COLOUR = "#E69F00", "#56B4E9"  # Okabe and Ito's orange and sky blue

_MOST_ROWS = 24  # of three pictures: about 2 MB
_INCHES, _DPI = 2.4, 140
_LEAST_SIDE_PX = 24
_ROUND_THE_ORGAN = 1.7  # side of what is shown by that of organ, answer and prompts
_SAME_DICE = 0.05  # embeddings that were stored in half precision differ by a pixel or two


class Answerer(Encoder, Protocol):
    """The part of `Predictor` that is needed here."""

    def predict(self, embedding: ImageEmbedding, prompts: Prompts) -> MaskPrediction: ...


@dataclass(frozen=True, eq=False)
class GallerySource:
    """Where pictures come from.

    Attributes
    ----------
    read : callable
        Scan and labels of a case by its name in the scores, on one grid.
    predictors : dict of str to Predictor
        By the name of the model in the scores; answers of other models are left out.
    crop_to_body : bool
        As the answers were measured, see `SliceChoice`.
    """

    read: Callable[[str], tuple[Volume, LabelVolume]]
    predictors: Mapping[str, Answerer]
    crop_to_body: bool = False

    @classmethod
    def of_cases(
        cls, cases: Sequence[Case], predictors: Mapping[str, Answerer], *, crop_to_body: bool = False
    ) -> GallerySource:
        """From files: each case is read when its pictures are due."""
        by_name = {case.name: case for case in cases}

        def read(name: str) -> tuple[Volume, LabelVolume]:
            if name not in by_name:
                raise ImageError(f"The results speak of {name}, which is not among the cases; give it too.")
            return read_case(by_name[name])

        return cls(read, predictors, crop_to_body)


@dataclass(frozen=True, eq=False)
class GalleryPicture:
    """A picture of one answer.

    Attributes
    ----------
    score : SliceScore
    place : {"best", "median", "worst"}
        Among the answers of its model to its strategy, by Dice.
    png : bytes
    changed : bool
        Whether the answer drawn is another one than was measured: the model or a file has changed since.
    """

    score: SliceScore
    place: str
    png: bytes
    changed: bool


def telling_answers(scores: Sequence[SliceScore]) -> list[tuple[str, SliceScore]]:
    """The best, the median and the worst answer, by Dice, of each model to each strategy.

    Only answers whose prompts are known count. Of a lone answer there is the best only, of two the best and
    the worst. When there are many strategies one of each family (the name before ``:``) comes first, until
    there are 72 pictures.

    Returns
    -------
    list of (place, SliceScore)
    """
    groups: dict[tuple[str, str], list[SliceScore]] = {}
    for row in scores:
        if row.prompts is not None and np.isfinite(row.dice):
            groups.setdefault((row.strategy, row.model), []).append(row)
    found = []
    for key in _chosen_rows(list(groups)):
        own = sorted(groups[key], key=lambda row: -row.dice)
        at = {"best": 0, "median": len(own) // 2, "worst": len(own) - 1}
        taken: set[int] = set()
        for place in ("best", "worst", "median"):
            if at[place] in taken:
                del at[place]
            else:
                taken.add(at[place])
        found += [(place, own[index]) for place, index in at.items()]
    return found


def gallery_pictures(scores: Sequence[SliceScore], source: GallerySource) -> Iterator[GalleryPicture]:
    """Pictures of `telling_answers`, case by case: each case is read once, each slice embedded once a model.

    A job: close it to cancel; what was yielded is whole.

    Yields
    ------
    GalleryPicture

    Raises
    ------
    ImageError, LabelError
        When a case cannot be read.
    """
    due = [one for one in telling_answers(scores) if one[1].model in source.predictors]
    for name in dict.fromkeys(score.volume for _, score in due):
        volume, labels = source.read(name)
        own = [one for one in due if one[1].volume == name]
        own.sort(key=lambda one: (one[1].model, one[1].view.plane, one[1].view.index))
        crop = BodyBox.of(volume) if source.crop_to_body else None
        embedded = None
        for place, score in own:
            predictor, view = source.predictors[score.model], score.view
            if view.index >= volume.shape[view.axis]:
                raise ImageError(
                    f"The results speak of {view.plane} slice {view.index} of {name}, which has "
                    f"{volume.shape[view.axis]} now; give the scan that was measured."
                )
            image, spacing = to_rgb(volume, view), volume.pixel_spacing(view)
            if embedded is None or embedded[0] != (score.model, view):
                embedded = (score.model, view), embed_labelled(volume, labels, view, predictor, crop)
            answer = answered_again(score, embedded[1], predictor).best_mask
            truth = np.asarray(view.extract(labels.data) == score.label)
            figure = draw_answer(image, truth, answer, score.prompts, spacing)
            changed = abs(dice(answer, truth) - score.dice) > _SAME_DICE
            yield GalleryPicture(score, place, small_png(figure), changed)


def answered_again(score: SliceScore, embedding: ImageEmbedding, predictor: Answerer) -> MaskPrediction:
    """The answer that was scored: the same prompts to the same model, a dialogue turn by turn.

    Parameters
    ----------
    score : SliceScore
        With its prompts.
    embedding : ImageEmbedding
        Of its slice.
    predictor : Predictor
    """
    if score.prompts is None:
        raise ImageError(f"What {score.model} was asked is not in the results; measure once more.")
    points, labels = score.prompts.points_xy, score.prompts.point_labels
    first = len(points) - score.replies
    prompts = score.prompts.replace(points_xy=points[:first], point_labels=labels[:first])
    answer = predictor.predict(embedding, prompts)
    for count in range(first + 1, len(points) + 1):
        asked = score.prompts.replace(
            points_xy=points[:count], point_labels=labels[:count], mask_input=answer.best_low_res_logits
        )
        answer = predictor.predict(embedding, asked)
    return answer


def draw_answer(
    image: npt.NDArray[np.uint8],
    truth: _Mask,
    answer: _Mask,
    prompts: Prompts | None = None,
    pixel_spacing: tuple[float, float] = (1.0, 1.0),
) -> Figure:
    """A square figure of an organ on its slice: truth orange, answer blue, box dashed, clicks + and x.

    Parameters
    ----------
    image : array (H, W, 3) uint8
    truth, answer : array (H, W) bool
    prompts : Prompts, optional
        In pixels of the slice.
    pixel_spacing : (row, column)
        Millimetres.
    """
    from matplotlib.collections import LineCollection
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_INCHES, _INCHES), dpi=_DPI, facecolor="black")
    axes = figure.add_axes((0, 0, 1, 1), facecolor="black")
    axes.imshow(image, aspect=pixel_spacing[0] / pixel_spacing[1], interpolation="nearest")
    axes.set_axis_off()
    for mask, colour, width in ((truth, TRUTH_COLOUR, 2.4), (answer, ANSWER_COLOUR, 1.1)):
        axes.add_collection(
            LineCollection(list(_border(mask)), colors=colour, linewidths=width, capstyle="projecting")
        )
    if prompts is not None:
        _draw_prompts(axes, prompts)
    (left, right), (top, bottom) = _window(truth | answer, prompts, pixel_spacing)
    axes.set(xlim=(left, right), ylim=(bottom, top))
    return figure


def _chosen_rows(keys: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """At most so many (strategy, model), in their order; of each family one before any has two."""
    seen: Counter[tuple[str, str]] = Counter()
    ranks = {}
    for strategy, model in keys:
        family = re.sub(r":[^+]*", "", strategy), model
        ranks[strategy, model] = seen[family]
        seen[family] += 1
    kept = set(sorted(keys, key=lambda key: ranks[key])[:_MOST_ROWS])
    return [key for key in keys if key in kept]


def _border(mask: _Mask) -> npt.NDArray[np.float64]:
    """Edges (N, 2, 2) as x, y of both ends, between the pixels of a mask and the others."""
    padded = np.pad(mask, 1)
    rows, columns = np.nonzero(padded[:, 1:] != padded[:, :-1])
    upright = np.stack([columns - 0.5, rows - 1.5, columns - 0.5, rows - 0.5], axis=1)
    rows, columns = np.nonzero(padded[1:] != padded[:-1])
    level = np.stack([columns - 1.5, rows - 0.5, columns - 0.5, rows - 0.5], axis=1)
    return np.concatenate([upright, level]).reshape(-1, 2, 2)


def _draw_prompts(axes: Axes, prompts: Prompts) -> None:
    """The box dashed, positive clicks as a plus and negative ones as a cross, white on black."""
    if prompts.box_xyxy is not None:
        x0, y0, x1, y1 = (float(side) for side in prompts.box_xyxy)
        # both corners lie inside the box: its line runs round their pixels
        x0, y0, x1, y1 = x0 - 0.5, y0 - 0.5, x1 + 0.5, y1 + 0.5
        xs, ys = (x0, x1, x1, x0, x0), (y0, y0, y1, y1, y0)
        # below the outlines, which it touches
        axes.plot(xs, ys, color="black", linewidth=1, zorder=1)
        axes.plot(xs, ys, color="white", linewidth=1, linestyle=(0, (4, 3)), zorder=1)
    for label, marker in ((1, "P"), (0, "X")):
        points = prompts.points_xy[prompts.point_labels == label]
        axes.plot(*points.T, marker, color="white", markeredgecolor="black", markersize=8)


def _window(
    drawn: _Mask, prompts: Prompts | None, spacing: tuple[float, float]
) -> tuple[tuple[float, float], tuple[float, float]]:
    """Columns and rows, from and to, of a square in millimetres round all that is drawn."""
    rows, columns = np.nonzero(drawn)
    xy = [np.stack([columns, rows], axis=1).astype(np.float32)] if len(rows) else []
    if prompts is not None:
        xy.append(prompts.points_xy)
        if prompts.box_xyxy is not None:
            xy.append(prompts.box_xyxy.reshape(2, 2))
    height, width = drawn.shape
    spots = np.concatenate(xy) if xy else np.array([[0, 0], [width - 1, height - 1]], np.float32)
    scale = np.array([spacing[1], spacing[0]])
    low, high = spots.min(axis=0) - 0.5, spots.max(axis=0) + 0.5
    side = max(float(((high - low) * scale).max()) * _ROUND_THE_ORGAN, _LEAST_SIDE_PX * float(scale.min()))
    half = side / 2 / scale
    spans = []
    for start, end, reach, size in zip(low, high, half, (width, height), strict=True):
        first = (start + end) / 2 - reach
        # within the slice where it is large enough, else centred on it
        last_first = size - 0.5 - 2 * reach
        first = min(max(first, -0.5), last_first) if last_first >= -0.5 else (last_first - 0.5) / 2
        spans.append((float(first), float(first + 2 * reach)))
    return spans[0], spans[1]
