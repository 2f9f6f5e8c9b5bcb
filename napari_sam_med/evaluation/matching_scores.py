"""How well one labelled example finds its organ elsewhere, and what copying its mask finds."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from napari_sam_med.evaluation.metrics import dice, dice_and_iou
from napari_sam_med.segmentation.matching.example import ExampleSlice
from napari_sam_med.segmentation.matching.volume_matching import match_volume
from napari_sam_med.volume.slice_view import SliceView

if TYPE_CHECKING:
    from napari_sam_med.sam.embedding_store import EmbeddingStore
    from napari_sam_med.sam.predictor import Predictor
    from napari_sam_med.segmentation.matching.example import Example
    from napari_sam_med.segmentation.matching.matcher import Matching
    from napari_sam_med.volume.volume import Volume

__all__ = ["Box", "MatchingScore", "copied_by_box", "copied_in_place", "score_copies", "score_matching"]

Mask = npt.NDArray[np.bool_]
Box = tuple[float, float, float, float]
"""x_min, y_min, x_max, y_max, pixels, both corners inside."""


@dataclass(frozen=True)
class MatchingScore:
    """One organ of a volume.

    Attributes
    ----------
    slices : int
        Searched slices that show the organ.
    dice, iou : float
        Mean over these, of the surest mask of each; 0 where there is none.
    dice_all : float
        Mean Dice over these, of all masks of each together.
    false_alarms : float
        Share of the searched slices without the organ on which there is a mask; NaN where all show it.
    volume_dice, volume_dice_all : float
        Of the surest instance in the volume, and of all of them together.
    seconds : float
        Search and propagation.
    """

    slices: int
    dice: float
    iou: float
    dice_all: float
    false_alarms: float
    volume_dice: float
    volume_dice_all: float
    seconds: float


def score_matching(
    volume: Volume,
    truth_zyx: Mask,
    example: Example,
    predictor: Predictor,
    matching: Matching,
    *,
    left_out: Collection[int] = (),
    store: EmbeddingStore | None = None,
) -> MatchingScore:
    """Match an example in a volume and compare with the truth.

    Parameters
    ----------
    volume : Volume
    truth_zyx : ndarray (z, y, x) bool
    example : Example
    predictor : Predictor
    matching : Matching
    left_out : collection of int
        Canonical indices of slices that do not count, such as the example's own.
    store : EmbeddingStore, optional
    """
    start = time.perf_counter()
    searched: dict[SliceView, list[Mask]] = {}
    search = match_volume(volume, example, predictor, matching, store=store)
    while True:
        try:
            done = next(search)
        except StopIteration as end:
            objects = end.value
            break
        if done.number is None:
            searched[done.view] = [one.found.mask for one in done.masks]
    seconds = time.perf_counter() - start
    surest, everything = np.zeros(volume.shape, dtype=bool), np.zeros(volume.shape, dtype=bool)
    for one in objects:
        one.written_into(everything)
    for one in objects[:1]:
        one.written_into(surest)
    return _score(searched, surest, everything, truth_zyx, left_out, seconds)


def score_copies(
    volume: Volume,
    truth_zyx: Mask,
    views: Sequence[SliceView],
    copy: Callable[[SliceView], Mask],
    *,
    left_out: Collection[int] = (),
) -> MatchingScore:
    """Compare a mask that is put on every slice of a plane with the truth; nobody tells it where to end.

    Parameters
    ----------
    volume : Volume
    truth_zyx : ndarray (z, y, x) bool
    views : sequence of SliceView
        The slices that a matching would search.
    copy : callable
        The mask (H, W) on a slice.
    left_out : collection of int
        Canonical indices of slices that do not count.
    """
    start = time.perf_counter()
    plane, axis = views[0].plane, views[0].axis
    everywhere = np.zeros(volume.shape, dtype=bool)
    for index in range(volume.shape[axis]):
        view = SliceView(plane, index)
        view.insert(everywhere, copy(view))
    searched = {view: [view.extract(everywhere)] for view in views}
    return _score(searched, everywhere, everywhere, truth_zyx, left_out, time.perf_counter() - start)


def _score(
    searched: Mapping[SliceView, Sequence[Mask]],
    surest: Mask,
    everything: Mask,
    truth_zyx: Mask,
    left_out: Collection[int],
    seconds: float,
) -> MatchingScore:
    overlaps, overlaps_all, alarms = [], [], []
    for view, masks in searched.items():
        truth = view.extract(truth_zyx)
        if view.index in left_out:
            continue
        if not truth.any():
            alarms.append(any(mask.any() for mask in masks))
            continue
        first = masks[0] if masks else np.zeros(truth.shape, dtype=bool)
        overlaps.append(dice_and_iou(first, truth))
        overlaps_all.append(dice(np.logical_or.reduce([first, *masks]), truth))
    axis = next(iter(searched)).axis
    counted = np.setdiff1d(np.arange(truth_zyx.shape[axis]), list(left_out))
    kept, kept_all, kept_truth = (
        np.take(array, counted, axis=axis) for array in (surest, everything, truth_zyx)
    )
    means = np.mean(overlaps, axis=0) if overlaps else (np.nan, np.nan)
    return MatchingScore(
        slices=len(overlaps),
        dice=float(means[0]),
        iou=float(means[1]),
        dice_all=float(np.mean(overlaps_all)) if overlaps_all else float("nan"),
        false_alarms=float(np.mean(alarms)) if alarms else float("nan"),
        volume_dice=dice(kept, kept_truth),
        volume_dice_all=dice(kept_all, kept_truth),
        seconds=seconds,
    )


def copied_in_place(example: ExampleSlice, shape: tuple[int, int], spacing: tuple[float, float]) -> Mask:
    """The example's mask at the same place in millimetres on a slice (H, W), the middles of both aligned."""
    own = example.framed(shape, spacing).mask
    rows, columns = (
        ((np.arange(new) + 0.5) * old / new).astype(int) for new, old in zip(shape, own.shape, strict=True)
    )
    copied: Mask = own[np.ix_(rows, columns)]
    return copied


def copied_by_box(example: ExampleSlice, example_box: Box, shape: tuple[int, int], box: Box) -> Mask:
    """The example's mask moved and scaled on a slice (H, W) as the body's box on it is to the example's."""
    height, width = example.mask.shape
    places = []
    for axis, size, limit in ((1, shape[0], height), (0, shape[1], width)):
        scale = (example_box[axis + 2] - example_box[axis] + 1) / (box[axis + 2] - box[axis] + 1)
        place = np.floor(example_box[axis] + (np.arange(size) + 0.5 - box[axis]) * scale)
        places.append(np.where((place >= 0) & (place < limit), place, limit).astype(int))
    # beyond its last row and column the example has nothing
    copied: Mask = np.pad(example.mask, (0, 1))[np.ix_(*places)]
    return copied
