"""Prompts for a slice from what is known around it: neighbours, crossing key slices, the user's clicks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from napari_sam_med.sam.prompts import Prompts
from napari_sam_med.segmentation.slicewise import (
    box_of_mask,
    grid_per_pixel,
    logits_of_distance,
    prompts_for_model,
)

if TYPE_CHECKING:
    from napari_sam_med.sam.predictor import ImageEmbedding, Predictor
    from napari_sam_med.segmentation.gaps import Key
    from napari_sam_med.volume.slice_view import Plane, SliceView
    from napari_sam_med.volume.volume import Volume

__all__ = ["Hypotheses", "PromptKind"]

PromptKind = Literal["box", "mask", "both"]

_LOGIT_LIMIT = 8.0
_MOST_MOTION = 0.05
"""Of the box's sides, a slice: what moves faster is rather another object."""
_LEAST_LEAK_PX, _LEAST_LEAK_SHARE = 2.0, 0.05
"""Radius of what lies beyond the expected mask, in pixels and of the square root of that mask's area, from
which it is a leak and not a border drawn a little wider."""
_NEAR_SLICES = 3
"""A click on background holds on as many neighbouring slices."""


class Hypotheses:
    """What may be asked about an object on a slice.

    Parameters
    ----------
    volume : Volume
    predictor : Predictor
    prompted : mapping
        ``{view: prompts}`` that the user gave; their background points hold on neighbouring slices too.
    across : sequence of Key
        Key slices of other planes.
    box_margin : float
        Share of its sides by which a box is widened.
    kind : {"box", "mask", "both"}
        What of a mask is a prompt: its box, its box and logits, or one after the other.
    stop_leaks : bool
        Whether a background click is tried where an answer that is not believed leaked.
    """

    def __init__(
        self,
        volume: Volume,
        predictor: Predictor,
        prompted: Mapping[SliceView, Prompts],
        across: Sequence[Key],
        box_margin: float,
        kind: PromptKind,
        stop_leaks: bool = True,
    ) -> None:
        self._kind: PromptKind = kind
        self._stop_leaks = stop_leaks
        self._shape = volume.shape
        self._predictor = predictor
        self._across = across
        self._box_margin = box_margin
        self._background = [
            (view, point)
            for view, prompts in prompted.items()
            for point in prompts.points_xy[prompts.point_labels == 0]
        ]

    def first(
        self,
        view: SliceView,
        mask: npt.NDArray[np.bool_],
        logits: npt.NDArray[np.float32] | None,
        motion_xy: npt.NDArray[np.float64],
        prior_px: npt.NDArray[np.float32] | None,
        embedding: ImageEmbedding,
    ) -> list[Prompts]:
        """The prompt from the neighbour's mask; with a prior, also one from the prior alone.

        Parameters
        ----------
        view : SliceView
        mask, logits
            Of the neighbouring slice: (H, W) bool, and (h, w) float32 or None.
        motion_xy : ndarray (2,)
            Pixels by which the mask is expected to have moved.
        prior_px : ndarray (H, W) float32 or None
            Signed distance in pixels, negative inside.
        embedding : ImageEmbedding
            Of the slice.
        """
        if prior_px is None:
            mask, logits = self._moved(mask, logits, motion_xy, embedding)
            points = self._points(view, mask)
            asked = {"mask": (logits,), "box": (None,), "both": (logits, None)}[self._kind]
            return [self._prompts(view, mask, given, points) for given in asked]
        prior, expected = self.prior_logits(prior_px, embedding), prior_px < 0
        mixed = prior
        if logits is not None:
            mixed = ((np.clip(logits, -_LOGIT_LIMIT, _LOGIT_LIMIT) + prior) / 2).astype(np.float32)
        points = self._points(view, expected)
        first = None if self._kind == "box" else mixed
        second = prior if self._kind == "mask" else None
        return [
            self._prompts(view, mask | expected, first, points),
            self._prompts(view, expected, second, points),
        ]

    def others(
        self,
        view: SliceView,
        expected: npt.NDArray[np.bool_],
        logits: npt.NDArray[np.float32] | None,
        answer: npt.NDArray[np.bool_],
    ) -> list[Prompts]:
        """Prompts to try when the first answer (H, W) is not believed: the box alone, with a click in it, and
        with a background click where the answer leaked out of what was expected.
        """
        if not expected.any():
            return []
        known = self._points(view, expected)
        tried = [self._prompts(view, expected, None, known)]
        if "point" in self._predictor.accepts:
            xy, labels = known or ([], [])
            inside = _deepest(expected)
            tried.append(self._prompts(view, expected, logits, ([*xy, inside], [*labels, 1])))
            leak = _leak(answer, expected) if self._stop_leaks else None
            if leak is not None:
                points = ([*xy, inside, leak], [*labels, 1, 0])
                tried.append(self._prompts(view, expected, logits, points))
        return tried

    def background_near(
        self, plane: Plane, indices: range
    ) -> list[tuple[SliceView, npt.NDArray[np.float32]]]:
        """The user's clicks (x, y) on background that hold on some of the slices, each with its own slice."""
        return [
            (view, point)
            for view, point in self._background
            if view.plane == plane
            and -_NEAR_SLICES <= view.index - indices.start < len(indices) + _NEAR_SLICES
        ]

    def prior_logits(
        self, prior_px: npt.NDArray[np.float32], embedding: ImageEmbedding
    ) -> npt.NDArray[np.float32]:
        """A signed distance (H, W) in pixels as logits (h, w)."""
        return logits_of_distance(prior_px, embedding, self._predictor)

    def held_by_other_planes(self, view: SliceView, mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        """The mask (H, W) with the lines on which key slices of other planes cross it as they say."""
        if not self._across:
            return mask
        held = mask.copy()
        for key in self._across:
            held[view.line_of(key.view, self._shape)] = key.mask[key.view.line_of(view, self._shape)]
        return held

    def _prompts(
        self,
        view: SliceView,
        mask: npt.NDArray[np.bool_],
        logits: npt.NDArray[np.float32] | None,
        points: tuple[list[Any], list[int]] | None,
    ) -> Prompts:
        held = self.held_by_other_planes(view, mask)
        box = box_of_mask(held if held.any() else mask, self._box_margin)
        xy, labels = points if points is not None else (None, None)
        prompts = Prompts(xy or None, labels or None, box, logits)
        return prompts_for_model(prompts, self._predictor)

    def _points(self, view: SliceView, expected: npt.NDArray[np.bool_]) -> tuple[list[Any], list[int]] | None:
        """Clicks that hold on this slice: the user's on background nearby, and what crossing planes know."""
        if "point" not in self._predictor.accepts:
            return None
        xy: list[Any] = []
        labels: list[int] = []
        for _, (x, y) in self.background_near(view.plane, range(view.index, view.index + 1)):
            row, column = (
                min(max(round(float(at)), 0), n - 1) for at, n in zip((y, x), expected.shape, strict=True)
            )
            if not expected[row, column]:
                xy.append((float(x), float(y)))
                labels.append(0)
        for key in self._across:
            point = _middle_of_line(view, key, self._shape)
            if point is not None:
                xy.append(point)
                labels.append(1)
        return (xy, labels) if xy else None

    def _moved(
        self,
        mask: npt.NDArray[np.bool_],
        logits: npt.NDArray[np.float32] | None,
        motion_xy: npt.NDArray[np.float64],
        embedding: ImageEmbedding,
    ) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.float32] | None]:
        left, top, right, bottom = box_of_mask(mask)
        most = _MOST_MOTION * np.array([right - left + 1, bottom - top + 1])
        motion = np.clip(motion_xy, -most, most)
        pixels = np.round(motion).astype(int)
        if pixels.any():
            moved = _shifted(mask, pixels, False)
            mask = moved if moved.any() else mask
        cells = np.round(motion * grid_per_pixel(mask.shape, embedding, self._predictor)).astype(int)
        if logits is not None and cells.any():
            logits = _shifted(logits, cells, -_LOGIT_LIMIT)
        return mask, logits


def _shifted(image: npt.NDArray[Any], by_xy: npt.NDArray[np.int_], outside: float | bool) -> npt.NDArray[Any]:
    """Image (H, W) moved by whole pixels (x, y)."""
    moved = np.full_like(image, outside)
    x, y = int(by_xy[0]), int(by_xy[1])
    height, width = image.shape
    moved[max(0, y) : height + min(0, y), max(0, x) : width + min(0, x)] = image[
        max(0, -y) : height - max(0, y), max(0, -x) : width - max(0, x)
    ]
    return moved


def _deepest(mask: npt.NDArray[np.bool_]) -> tuple[float, float]:
    """The pixel (x, y) at the largest distance to the background."""
    left, top, right, bottom = (int(v) for v in box_of_mask(mask))
    depth = ndimage.distance_transform_edt(np.pad(mask[top : bottom + 1, left : right + 1], 1))
    row, column = np.unravel_index(int(depth.argmax()), depth.shape)
    return float(left + column - 1), float(top + row - 1)


def _leak(answer: npt.NDArray[np.bool_], expected: npt.NDArray[np.bool_]) -> tuple[float, float] | None:
    """The pixel (x, y) deepest in what an answer has beyond the expected mask; None where that is a rim."""
    beyond = answer & ~expected
    if not beyond.any():
        return None
    left, top, right, bottom = (int(v) for v in box_of_mask(beyond))
    depth = ndimage.distance_transform_edt(np.pad(beyond[top : bottom + 1, left : right + 1], 1))
    if depth.max() < max(_LEAST_LEAK_PX, _LEAST_LEAK_SHARE * np.sqrt(np.count_nonzero(expected))):
        return None
    row, column = np.unravel_index(int(depth.argmax()), depth.shape)
    return float(left + column - 1), float(top + row - 1)


def _middle_of_line(view: SliceView, key: Key, shape_zyx: Sequence[int]) -> tuple[float, float] | None:
    """Pixel (x, y) in the middle of the longest stretch where a crossing key slice shows the object."""
    inside = key.mask[key.view.line_of(view, shape_zyx)]
    runs, count = ndimage.label(inside)
    if not count:
        return None
    longest = np.flatnonzero(runs == np.bincount(runs)[1:].argmax() + 1)
    middle = int(longest[len(longest) // 2])
    row, column = view.line_of(key.view, shape_zyx)
    if isinstance(row, int):
        return float(middle), float(row)
    assert isinstance(column, int)  # one of the two is a number
    return float(column), float(middle)
