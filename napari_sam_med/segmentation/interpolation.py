"""Shape-based interpolation: the slices between two key slices, without a model.

The signed distances to both key masks are mixed, after both were moved to the centroid that lies on the
straight line between theirs (Raya & Udupa 1990, doi:10.1109/42.52980; Herman, Zheng & Bucholtz 1992,
doi:10.1109/38.135915).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from napari_sam_med.errors import PromptError
from napari_sam_med.progress import Progress
from napari_sam_med.segmentation.propagation import PromptedObjects, PropagatedSlice
from napari_sam_med.segmentation.slicewise import Window, predict_slice
from napari_sam_med.volume.slice_view import PLANES, SliceView

if TYPE_CHECKING:
    from napari_sam_med.sam.embedding_store import EmbeddingStore
    from napari_sam_med.sam.predictor import Predictor
    from napari_sam_med.sam.prompts import Prompts
    from napari_sam_med.volume.volume import Volume

__all__ = [
    "InterpolatingPropagator",
    "ShapePrior",
    "interpolated_distance_mm",
    "main_plane_views",
    "signed_distance_mm",
]

_MARGIN = 16
"""Pixels around both masks in which distances are computed; a prior's soft border lies within them."""

_NO_LIMIT = 1 << 62

BoolImage = npt.NDArray[np.bool_]
DistanceImage = npt.NDArray[np.float32]


def signed_distance_mm(mask_hw: BoolImage, spacing_mm: tuple[float, float]) -> DistanceImage:
    """Distance of every pixel centre from the border of a mask.

    The border runs between the pixels: on pixels of 1 mm, the two on either side of it have -0.5 and 0.5.

    Parameters
    ----------
    mask_hw : ndarray (H, W) of bool
        Empty and full ones have no border; their distance is the diagonal of the slice, everywhere.
    spacing_mm : (float, float)
        Distance of neighbouring rows and of neighbouring columns.

    Returns
    -------
    ndarray (H, W) of float32
        In mm, negative inside.
    """
    if mask_hw.all() or not mask_hw.any():
        diagonal = float(np.hypot(mask_hw.shape[0] * spacing_mm[0], mask_hw.shape[1] * spacing_mm[1]))
        return np.full(mask_hw.shape, -diagonal if mask_hw.any() else diagonal, dtype=np.float32)
    outside, inside = _distance_to(mask_hw, spacing_mm), _distance_to(~mask_hw, spacing_mm)
    return (outside - inside).astype(np.float32)


def _distance_to(pixels_hw: BoolImage, spacing_mm: tuple[float, float]) -> npt.NDArray[np.float64]:
    """Distance (mm) of every pixel centre to the border of the pixels given, 0 on these.

    That is half a pixel short of the nearest centre: half a step along the axis on which the two lie more
    pixels apart, seen in the direction between them. It is exact for borders along rows, columns and
    diagonals.
    """
    distance, nearest = ndimage.distance_transform_edt(~pixels_hw, sampling=spacing_mm, return_indices=True)
    rows, columns = np.ogrid[: pixels_hw.shape[0], : pixels_hw.shape[1]]
    n_rows, n_columns = abs(nearest[0] - rows), abs(nearest[1] - columns)
    along_rows = n_rows >= n_columns
    step = np.where(along_rows, spacing_mm[0], spacing_mm[1])
    half = 0.5 * step**2 * np.where(along_rows, n_rows, n_columns)
    return np.asarray(distance - half / np.where(pixels_hw, 1.0, distance), dtype=np.float64)


class ShapePrior:
    """What two key masks say of the slices between them.

    Both signed distances are computed once, around the masks only, so that asking for a slice takes about a
    millisecond.

    Parameters
    ----------
    before_hw, after_hw : ndarray (H, W) of bool
        Masks of the two key slices, neither empty.
    spacing_mm : (float, float)
        Distance of neighbouring rows and of neighbouring columns.

    Raises
    ------
    PromptError
        If a mask is empty, or the two have different shapes.
    """

    def __init__(self, before_hw: BoolImage, after_hw: BoolImage, spacing_mm: tuple[float, float]) -> None:
        if before_hw.shape != after_hw.shape:
            raise PromptError(
                f"Key masks of {before_hw.shape} and {after_hw.shape} (H, W) have nothing between them; "
                "take both from one plane of one volume."
            )
        if not before_hw.any() or not after_hw.any():
            raise PromptError("An empty key mask has no shape; interpolate between two slices with a mask.")
        self.spacing_mm = spacing_mm
        rows, columns = _box_of(before_hw | after_hw)
        height, width = before_hw.shape
        self._around = (
            (rows.start, height - rows.stop),
            (columns.start, width - columns.stop),
        )
        self._before = signed_distance_mm(before_hw[rows, columns], spacing_mm)
        self._after = signed_distance_mm(after_hw[rows, columns], spacing_mm)
        self._step = _centroid(after_hw) - _centroid(before_hw)

    def at(self, fraction: float) -> DistanceImage:
        """Signed distance at a share of the way from the first key slice (0) to the second (1).

        Returns
        -------
        ndarray (H, W) of float32
            In mm, negative inside. Beyond a margin of 16 pixels around the masks it stays what it is there.
        """
        return np.pad(self._mixed(fraction), self._around, mode="edge")

    def mask_at(self, fraction: float) -> BoolImage:
        """The interpolated mask (H, W); it may be empty where the two shapes have nothing in common."""
        return np.pad(self._mixed(fraction) < 0, self._around)

    @cached_property
    def agreement(self) -> float:
        """Dice coefficient (0..1) of the two masks, moved onto each other."""
        first, second = _moved(self._before, self._step / 2) < 0, _moved(self._after, -self._step / 2) < 0
        total = np.count_nonzero(first) + np.count_nonzero(second)
        return 2.0 * np.count_nonzero(first & second) / total if total else 0.0

    @cached_property
    def radius_mm(self) -> float:
        """Radius of the disc that has the mean area of the two masks."""
        n_pixels = (np.count_nonzero(self._before < 0) + np.count_nonzero(self._after < 0)) / 2
        return float(np.sqrt(n_pixels * self.spacing_mm[0] * self.spacing_mm[1] / np.pi))

    def _mixed(self, fraction: float) -> DistanceImage:
        before = _moved(self._before, fraction * self._step)
        after = _moved(self._after, (fraction - 1.0) * self._step)
        return (np.float32(1.0 - fraction) * before + np.float32(fraction) * after).astype(np.float32)


def interpolated_distance_mm(
    before_hw: BoolImage, after_hw: BoolImage, fraction: float, spacing_mm: tuple[float, float]
) -> DistanceImage:
    """Signed distance (H, W) in mm between two masks, for one slice; `ShapePrior` answers for many.

    ``fraction`` counts from the first mask (0) to the second (1); errors as of `ShapePrior`.
    """
    return ShapePrior(before_hw, after_hw, spacing_mm).at(fraction)


def _box_of(mask_hw: BoolImage) -> tuple[slice, slice]:
    """Bounding box of a mask with the margin, inside the slice."""
    sides = []
    for axis, length in enumerate(mask_hw.shape):
        held = np.flatnonzero(mask_hw.any(axis=1 - axis))
        sides.append(slice(max(int(held[0]) - _MARGIN, 0), min(int(held[-1]) + _MARGIN + 1, length)))
    return sides[0], sides[1]


def _centroid(mask_hw: BoolImage) -> npt.NDArray[np.float64]:
    rows, columns = np.nonzero(mask_hw)
    return np.array([rows.mean(), columns.mean()])


def _moved(distance: DistanceImage, step: npt.NDArray[np.float64]) -> DistanceImage:
    """A distance map moved by rows and columns, fractions of a pixel included."""
    if not step.any():
        return distance
    moved = ndimage.shift(distance, step, order=1, mode="nearest", prefilter=False)
    return np.asarray(moved, dtype=np.float32)


# the engine

_FALL_PER_RADIUS = 0.1
"""Exponent of the fall of quality for every radius of the object between a slice and its nearest key."""


class InterpolatingPropagator:
    """Fills the slices between key slices by shape alone ("fill between slices"); it needs no model.

    Every slice between two neighbouring key slices of an object's main plane gets the mask of a `ShapePrior`;
    key slices of other planes are answered as they are. Nothing is filled outside the outermost key slices.
    """

    def propagate(
        self,
        volume: Volume,
        objects: PromptedObjects,
        predictor: Predictor | None = None,
        *,
        window: Window = "auto",
        store: EmbeddingStore | None = None,
        masks: Mapping[int, Mapping[SliceView, npt.ArrayLike]] | None = None,
        first_index: int | None = None,
        last_index: int | None = None,
        directions: Collection[str] = (),
    ) -> Iterator[PropagatedSlice]:
        """Fill between the key slices; see `napari_sam_med.propagate` for what is yielded.

        Parameters
        ----------
        volume, objects
            As in `napari_sam_med.propagate`.
        predictor : Predictor, optional
            Answers key slices that have prompts and no mask.
        window, store : optional
            What the predictor sees, and where embeddings are kept.
        masks : mapping, optional
            ``object_id -> {view: (H, W) bool}``: key masks, taken as they are.
        first_index, last_index : int, optional
            Canonical indices; slices outside them are not filled.
        directions : collection of str
            Without effect, for there is no way beyond the outermost key slices; other engines take it.

        Yields
        ------
        PropagatedSlice
            Key slices, the outermost with the reason why it ends there; then the slices between them,
            nearest to a key slice first, with the source "interpolated".

        Raises
        ------
        PromptError
            If a key slice has prompts and no mask, and there is no predictor to answer it.
        """
        given = masks or {}
        answer = partial(_key_of, volume, predictor, window, store)
        limits = range(first_index or 0, _NO_LIMIT if last_index is None else last_index + 1)
        views = {i: {*prompted, *given.get(i, {})} for i, (_, prompted) in objects.items()}
        n_total = sum(len(held) + _n_between(main_plane_views(held), limits) for held in views.values())
        n_done = 0
        gaps: list[_Gap] = []
        for object_id, (class_id, prompted) in objects.items():
            drawn = given.get(object_id, {})
            main = main_plane_views(views[object_id])
            keys = []
            for view in [*main, *sorted(views[object_id] - set(main))]:
                keys.append(answer(view, prompted.get(view), drawn.get(view)))
                n_done += 1
                progress = Progress(n_done, n_total, "key slices")
                yield keys[-1].as_slice(object_id, class_id, _end_reason(keys[-1], main), progress)
            gaps += [
                _Gap(
                    object_id,
                    class_id,
                    before,
                    after,
                    volume.spacing[main[0].axis],
                    volume.pixel_spacing(main[0]),
                )
                for before, after in pairwise(keys[: len(main)])
                if before.mask.any() and after.mask.any()
            ]
        steps = [(gap, index) for gap in gaps for index in gap.indices if index in limits]
        n_total = n_done + len(steps)
        for gap, index in sorted(steps, key=lambda step: step[0].n_slices_to_key(step[1])):
            n_done += 1
            yield gap.slice_at(index, Progress(n_done, n_total, "interpolating"))


def main_plane_views(views: Collection[SliceView]) -> list[SliceView]:
    """Those of the plane that most lie in (the first of axial, coronal, sagittal when equal), in order."""
    plane = max(PLANES, key=lambda one: sum(view.plane == one for view in views))
    return sorted(view for view in views if view.plane == plane)


def _n_between(views: list[SliceView], limits: range) -> int:
    """Slices that lie between neighbouring views and within the limits."""
    return sum(
        max(0, min(after.index, limits.stop) - max(before.index + 1, limits.start))
        for before, after in pairwise(views)
    )


@dataclass(frozen=True, eq=False)
class _Key:
    """A key slice and its mask."""

    view: SliceView
    mask: BoolImage
    logits: npt.NDArray[np.float32] | None = None
    quality: float = 1.0
    iou_prediction: float | None = None

    def as_slice(
        self, object_id: int, class_id: int, reason: str | None, progress: Progress
    ) -> PropagatedSlice:
        return PropagatedSlice(
            progress=progress,
            object_id=object_id,
            class_id=class_id,
            view=self.view,
            mask=self.mask,
            logits=self.logits,
            quality=self.quality,
            source="prompt",
            reason=reason,
            iou_prediction=self.iou_prediction,
        )


def _key_of(
    volume: Volume,
    predictor: Predictor | None,
    window: Window,
    store: EmbeddingStore | None,
    view: SliceView,
    prompts: Prompts | None,
    drawn: npt.ArrayLike | None,
) -> _Key:
    if drawn is not None:
        return _Key(view, np.asarray(drawn, dtype=bool))
    assert prompts is not None  # every key slice has a mask or prompts
    if predictor is None:
        raise PromptError(
            f"{view.plane} slice {view.index} has prompts but no mask, and interpolation has no model to "
            "answer them; accept the slice first."
        )
    prediction = predict_slice(volume, view, prompts, predictor, window=window, store=store)
    best = prediction.best_index
    iou_prediction = float(prediction.iou_predictions[best])
    trust = np.nan_to_num([iou_prediction, prediction.stability_scores[best]]).clip(0.0, 1.0)
    quality = float(np.sqrt(trust.prod()))
    return _Key(view, prediction.best_mask, prediction.best_low_res_logits, quality, iou_prediction)


def _end_reason(key: _Key, main: list[SliceView]) -> str | None:
    """Why nothing is filled beyond a key slice."""
    if not key.mask.any():
        return "the key slice is empty"
    if len(main) < 2 and key.view in main:
        return "there is no second key slice to interpolate to"
    if key.view in (main[0], main[-1]):
        return "interpolation ends at the outermost key slice"
    return None


@dataclass(frozen=True, eq=False)
class _Gap:
    """What lies between two neighbouring key slices of an object; spacings in mm."""

    object_id: int
    class_id: int
    before: _Key
    after: _Key
    slice_spacing_mm: float
    pixel_spacing_mm: tuple[float, float]

    @property
    def indices(self) -> range:
        return range(self.before.view.index + 1, self.after.view.index)

    @cached_property
    def prior(self) -> ShapePrior:
        return ShapePrior(self.before.mask, self.after.mask, self.pixel_spacing_mm)

    def n_slices_to_key(self, index: int) -> int:
        return min(index - self.before.view.index, self.after.view.index - index)

    def slice_at(self, index: int, progress: Progress) -> PropagatedSlice:
        first, last = self.before.view.index, self.after.view.index
        fraction = (index - first) / (last - first)
        mask = self.prior.mask_at(fraction)
        empty = f"the masks of key slices {first} and {last} have no shape in common"
        return PropagatedSlice(
            progress=progress,
            object_id=self.object_id,
            class_id=self.class_id,
            view=SliceView(self.before.view.plane, index),
            mask=mask,
            logits=None,
            quality=self._quality(index, fraction) if mask.any() else 0.0,
            source="interpolated",
            reason=None if mask.any() else empty,
            direction="forward" if fraction <= 0.5 else "backward",
        )

    def _quality(self, index: int, fraction: float) -> float:
        """The Dice to expect if the key masks are right: it falls with the distance to the nearest of them
        and with their difference. Fitted to slices of label maps that no reported figure comes from.
        """
        radii = self.n_slices_to_key(index) * self.slice_spacing_mm / self.prior.radius_mm
        likeness = self.prior.agreement ** min(fraction, 1 - fraction)
        trust = min(self.before.quality, self.after.quality)
        return float(trust * likeness * np.exp(-_FALL_PER_RADIUS * radii))
