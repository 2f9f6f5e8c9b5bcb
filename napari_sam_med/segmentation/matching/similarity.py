"""Matching by what the encoder says: where a slice looks like the example's organ, SAM is asked.

No training: as in PerSAM (Zhang et al., Personalize Segment Anything Model with One Shot, 2023,
https://arxiv.org/abs/2305.03048) the example's mask pools features of the encoder, and their similarity with
those of the query gives prompts; as in Matcher (Liu et al., Matcher: Segment Anything with One Shot Using
All-Purpose Feature Matching, 2023, https://arxiv.org/abs/2305.13310) single cells are compared, not one mean,
several prompts are tried, and the answers are chosen among. Unlike both, the example's background has a say:
a cell is the organ's when it is closer to cells of the organ than to cells outside it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage

from napari_sam_med.sam.prompts import Prompts
from napari_sam_med.segmentation.automatic.found_objects import FoundMask
from napari_sam_med.segmentation.matching.example import Example, ExampleSlice
from napari_sam_med.segmentation.matching.features import CellFeatures, coverage, on_pixels
from napari_sam_med.segmentation.matching.matcher import (
    MatchedMask,
    Matching,
    QuerySlice,
    place_agreement,
    size_agreement,
    surest,
)
from napari_sam_med.segmentation.slicewise import box_of_mask

if TYPE_CHECKING:
    from napari_sam_med.sam.mask_prediction import MaskPrediction
    from napari_sam_med.sam.predictor import Predictor

__all__ = ["SimilarityMatcher", "likeness"]

Floats = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

_NEAREST = 5
"""Cells of the example that a cell is compared with: its nearest inside the organ, and outside it."""
_MOST_CELLS = 600
"""Cells of the organ, and as many outside it, that are kept of a slice of the example."""
_SOFTNESS = 0.1
"""Difference of two cosines at which the likeness goes from 0.5 to 0.73."""
_LEAST_PIECE = 0.05
"""Smaller pieces, as shares of the example's area, are not asked about."""
_PEAKS_PER_PIECE = 3


@dataclass(frozen=True, eq=False)
class _Reference:
    """Cells of the example: ``inside`` (n, C) and ``outside`` (m, C) the organ, unit vectors."""

    inside: torch.Tensor
    outside: torch.Tensor
    centre: torch.Tensor


class SimilarityMatcher:
    """A `Matcher` that compares features; one model pass a slice, and one prompt batch.

    Parameters
    ----------
    example : Example
        All its slices are compared with.
    predictor : Predictor
        Of any architecture; one that takes no points is asked with boxes.
    matching : Matching
    """

    def __init__(self, example: Example, predictor: Predictor, matching: Matching) -> None:
        self._example = example
        self._predictor = predictor
        self._matching = matching
        self._references: dict[tuple[tuple[int, int], tuple[float, float]], list[_Reference]] = {}

    def likeness(self, query: QuerySlice) -> Floats:
        """How much each pixel (H, W) looks like the organ, 0..1; above 0.5 more than like what is not it."""
        frame = (query.shape, query.pixel_spacing)
        if frame not in self._references:
            self._references[frame] = [self._reference(one, *frame) for one in self._example.slices]
        difference = torch.stack([self._difference(query, one) for one in self._references[frame]]).amax(0)
        cells = CellFeatures.of(query.embedding, self._predictor).shape
        return on_pixels(torch.sigmoid(difference / _SOFTNESS), cells, query.shape)

    def find(self, query: QuerySlice) -> list[MatchedMask]:
        """Instances by falling score; see `Matcher`."""
        alike = self.likeness(query)
        prompts = list(self._prompts(alike, query))
        if not prompts:
            return []
        answers = self._predictor.predict_batch(query.embedding, prompts, direct_upsampling=True)
        scored = [
            one
            for prompt, answer in zip(prompts, answers, strict=True)
            for one in self._judged(answer, prompt, alike, query)
        ]
        return surest(scored, self._matching)

    def _reference(
        self, one: ExampleSlice, shape: tuple[int, int], spacing: tuple[float, float]
    ) -> _Reference:
        framed = one.framed(shape, spacing)
        embedding = self._predictor.embed(framed.image, framed.pixel_spacing)
        cells = CellFeatures.of(embedding, self._predictor)
        covered = coverage(framed.mask, cells.shape)
        # an organ smaller than a cell still has the cell that shows most of it
        is_inside = covered >= min(0.5, float(covered.max()))
        return _Reference(
            _thinned(cells.vectors[is_inside]), _thinned(cells.vectors[covered == 0]), cells.centre
        )

    def _difference(self, query: QuerySlice, reference: _Reference) -> torch.Tensor:
        """Cosine with the nearest cells inside the organ minus that with the nearest outside it."""
        vectors = CellFeatures.of(query.embedding, self._predictor, reference.centre).vectors
        inside, outside = (
            (vectors @ part.T).topk(min(_NEAREST, len(part)), dim=1).values.mean(1)
            if len(part)
            else torch.zeros(len(vectors))
            for part in (reference.inside, reference.outside)
        )
        return inside - outside

    def _prompts(self, alike: Floats, query: QuerySlice) -> Iterator[Prompts]:
        """A box around each piece that looks like the organ, and clicks on its likest places."""
        least = _LEAST_PIECE * self._example.area_mm2 / query.pixel_mm2
        pieces, count = ndimage.label(alike > 0.5)
        if not count:
            return
        weights = ndimage.sum_labels(alike, pieces, np.arange(1, count + 1))
        likeliest = 1 + np.argsort(-weights, kind="stable")[: 2 * self._matching.most_instances]
        takes_points, takes_boxes = (kind in self._predictor.accepts for kind in ("point", "box"))
        for number in likeliest:
            piece = pieces == number
            if weights[number - 1] < least:
                continue
            if takes_boxes:
                yield Prompts.from_box(box_of_mask(piece))
            if takes_points:
                yield from (Prompts.from_points([peak]) for peak in self._peaks(piece, alike, query))

    def _peaks(self, piece: Mask, alike: Floats, query: QuerySlice) -> Iterator[tuple[float, float]]:
        """Likest places (x, y) of a piece, inside it and as far apart as organs of the example's size."""
        depth = ndimage.distance_transform_edt(np.pad(piece, 1))[1:-1, 1:-1]
        height = np.where(piece, alike * (1 + depth), 0.0)
        apart = np.sqrt(self._example.area_mm2 / query.pixel_mm2)
        rows, columns = np.indices(piece.shape)
        for _ in range(_PEAKS_PER_PIECE):
            row, column = np.unravel_index(int(np.argmax(height)), height.shape)
            if height[row, column] <= 0:
                return
            yield float(column), float(row)
            height[np.hypot(rows - row, columns - column) < apart] = 0.0

    def _judged(
        self, answer: MaskPrediction, prompt: Prompts, alike: Floats, query: QuerySlice
    ) -> Iterator[MatchedMask]:
        """The masks of an answer with their scores; empty masks are no finds."""
        point = tuple(prompt.points_xy[0].tolist()) if len(prompt.points_xy) else None
        for mask, iou, stability in zip(
            answer.masks, answer.iou_predictions, answer.stability_scores, strict=True
        ):
            if not mask.any():
                continue
            looks = likeness(mask, alike)
            size = size_agreement(np.count_nonzero(mask) * query.pixel_mm2, self._example.area_mm2)
            place = place_agreement(mask, query.pixel_spacing, self._example, self._matching.near_mm)
            score = float(np.sqrt(np.clip(iou, 0.0, 1.0) * looks) * size * place)
            yield MatchedMask(FoundMask.of(mask, float(iou), float(stability), point), score)


def likeness(mask: Mask, alike: Floats) -> float:
    """How much a mask looks like the organ and its surroundings do not, 0..1.

    Parameters
    ----------
    mask : ndarray (H, W) bool
        Not empty.
    alike : ndarray (H, W) float32
        Likeness of the pixels, 0..1.
    """
    width = max(1.0, 0.25 * float(np.sqrt(np.count_nonzero(mask))))
    left, top, right, bottom = (int(v) for v in box_of_mask(mask))
    reach = int(np.ceil(width)) + 1
    near = (slice(max(top - reach, 0), bottom + reach + 1), slice(max(left - reach, 0), right + reach + 1))
    inside, values = mask[near], alike[near]
    gap = ndimage.distance_transform_edt(~inside)
    ring = (gap > 0) & (gap <= width)
    own = float(values[inside].mean())
    around = float(values[ring].mean()) if ring.any() else 0.0
    return max(0.0, own - 0.5 * around)


def _thinned(vectors: torch.Tensor) -> torch.Tensor:
    """At most so many of the vectors, evenly taken."""
    if len(vectors) <= _MOST_CELLS:
        return vectors
    chosen = torch.linspace(0, len(vectors) - 1, _MOST_CELLS).round().long()
    return vectors[chosen]
