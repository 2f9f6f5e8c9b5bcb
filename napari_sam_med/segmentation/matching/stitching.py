"""Matching by one image of both: SAM is shown example and query side by side.

Clicks in the example alone do not carry over, because SAM's answers stay near its prompts. So candidate
clicks are put into the query as well, one in each of many runs, and the runs are filtered by confidence: the
model's own IoU, the stability of the mask, and whether the half that is known is given back. After: AIL 862,
lecture 21, "One Example Semantic Segmentation", with its four designs of prompts.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from napari_sam_med.errors import ModelError
from napari_sam_med.sam.prompts import Prompts
from napari_sam_med.segmentation.automatic.found_objects import FoundMask
from napari_sam_med.segmentation.matching.canvas import Canvas
from napari_sam_med.segmentation.matching.example import Example
from napari_sam_med.segmentation.matching.matcher import (
    Design,
    MatchedMask,
    Matching,
    QuerySlice,
    place_agreement,
    size_agreement,
    surest,
)

if TYPE_CHECKING:
    from napari_sam_med.sam.mask_prediction import MaskPrediction
    from napari_sam_med.sam.predictor import Predictor

__all__ = ["StitchingMatcher", "prompts_of_design"]

Mask = npt.NDArray[np.bool_]
Points = npt.NDArray[np.float32]

_EXAMPLE_POINTS = 5
_NEGATIVE_POINTS = 4
_DARK = 8
"""Grey values up to this are air or padding: no candidate lies there."""
_LEAST_STABILITY = 0.5
_LEAST_REPRODUCED = 0.3
"""IoU of the answer's example half with the example's mask."""


class StitchingMatcher:
    """A `Matcher` that shows the model example and query in one image; one model pass a slice.

    Parameters
    ----------
    example : Example
        Its main slice is shown.
    predictor : Predictor
        That takes points.
    matching : Matching
        Its `design`, `runs` and `seed` are the prompts.

    Raises
    ------
    ModelError
        When the model takes no points.
    """

    def __init__(self, example: Example, predictor: Predictor, matching: Matching) -> None:
        if "point" not in predictor.accepts:
            raise ModelError(
                f"{predictor.record.title} takes no points, and stitching asks with points; "
                "take the engine similarity, or a model that takes points."
            )
        self._example = example
        self._predictor = predictor
        self._matching = matching

    def find(self, query: QuerySlice) -> list[MatchedMask]:
        """Instances by falling score; see `Matcher`."""
        canvas = Canvas.of(self._example.slices[0], query.image, query.pixel_spacing)
        prompts = prompts_of_design(
            canvas, self._matching.design, runs=self._matching.runs, seed=self._matching.seed
        )
        embedding = self._predictor.embed(canvas.image, (canvas.pixel_mm, canvas.pixel_mm))
        answers = self._predictor.predict_batch(embedding, prompts, False, direct_upsampling=True)
        found = [
            one
            for prompt, answer in zip(prompts, answers, strict=True)
            for one in self._judged(answer, prompt, canvas, query)
        ]
        return surest(found, self._matching)

    def _judged(
        self, answer: MaskPrediction, prompt: Prompts, canvas: Canvas, query: QuerySlice
    ) -> Iterator[MatchedMask]:
        """Pieces of an answer in the query, each with the score of the whole run."""
        mask, best = answer.best_mask, answer.best_index
        iou, stability = float(answer.iou_predictions[best]), float(answer.stability_scores[best])
        reproduced = _iou(canvas.example_half(mask), canvas.example_mask)
        if stability < _LEAST_STABILITY or reproduced < _LEAST_REPRODUCED:
            return
        asked = [(x, y) for x, y in prompt.points_xy.tolist() if x >= canvas.query_left]
        if any(not mask[int(y), int(x)] for x, y in asked):
            return  # the model did not follow into the query
        sure = float(np.cbrt(min(max(iou, 0.0), 1.0) * stability * reproduced))
        pieces, count = ndimage.label(canvas.query_half(mask))
        for number in range(1, count + 1):
            piece = pieces == number
            area_mm2 = np.count_nonzero(piece) * query.pixel_mm2
            size = size_agreement(area_mm2, self._example.slices[0].area_mm2)
            place = place_agreement(piece, query.pixel_spacing, self._example, self._matching.near_mm)
            score = sure * size * place
            point = canvas.query_xy(asked[0]) if asked else None
            yield MatchedMask(FoundMask.of(piece, iou, stability, point), score)


def _iou(one: Mask, other: Mask) -> float:
    return np.count_nonzero(one & other) / np.count_nonzero(one | other)


def prompts_of_design(canvas: Canvas, design: Design, *, runs: int, seed: int = 0) -> list[Prompts]:
    """Clicks of every run, in pixels of the canvas; one run where the query gets none.

    Parameters
    ----------
    canvas : Canvas
    design : {"example", "random", "grid", "grid-negatives"}
        Clicks on the example's organ alone; with one random click in the query; with one click of a grid over
        the query; with that and clicks on the example's background.
    runs : int
        At most so many.
    seed : int
        Of everything that is random.
    """
    rng = np.random.default_rng(seed)
    positive = _some(canvas.example_mask, _EXAMPLE_POINTS, rng)
    deepest = ndimage.distance_transform_edt(np.pad(canvas.example_mask, 1))[1:-1, 1:-1]
    row, column = np.unravel_index(int(np.argmax(deepest)), deepest.shape)
    positive[0] = column, row
    if design == "example":
        return [Prompts.from_points(positive)]
    negative = np.zeros((0, 2), dtype=np.float32)
    if design == "grid-negatives":
        negative = _some(_background(canvas), _NEGATIVE_POINTS, rng)
    is_lit = canvas.query_part.max(axis=2) > _DARK
    candidates = _some(is_lit, runs, rng) if design == "random" else _grid(is_lit, runs)
    candidates[:, 0] += canvas.query_left
    labels = [1] * (len(positive) + 1) + [0] * len(negative)
    return [Prompts.from_points([*positive, xy, *negative], labels) for xy in candidates]


def _some(mask: Mask, count: int, rng: np.random.Generator) -> Points:
    """Random pixels (N, 2) x, y of a mask; fewer where it has fewer, none of an empty one."""
    inside = np.argwhere(mask)
    chosen = rng.permutation(len(inside))[:count]
    points: Points = inside[chosen][:, ::-1].astype(np.float32)
    return points


def _grid(mask: Mask, count: int) -> Points:
    """Points (N, 2) x, y of a regular grid over a mask's box that lie in the mask, at most so many."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return np.zeros((0, 2), dtype=np.float32)
    side = int(np.sqrt(count))
    shares = (np.arange(side) + 0.5) / side
    ys = rows[0] + shares * (rows[-1] - rows[0] + 1) - 0.5
    xs = columns[0] + shares * (columns[-1] - columns[0] + 1) - 0.5
    points = np.stack(np.meshgrid(xs, ys), axis=-1).reshape(-1, 2).round().astype(int)
    lit: Points = points[mask[points[:, 1], points[:, 0]]].astype(np.float32)
    return lit


def _background(canvas: Canvas) -> Mask:
    """What lies around the example's organ, lit where it can be."""
    mask = canvas.example_mask
    width = max(2, round(0.5 * float(np.sqrt(np.count_nonzero(mask)))))
    distance = ndimage.distance_transform_edt(~mask)
    around = np.asarray((distance > width / 2) & (distance <= 1.5 * width))
    lit = around & (canvas.image[: mask.shape[0], : canvas.query_left].max(axis=2) > _DARK)
    return lit if lit.any() else around
