"""What the user asks of a slice: points, a box, an outline, an earlier mask. Frozen, in its own pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_sam_med.errors import PromptError

__all__ = ["Prompts"]

ArrayLike = npt.ArrayLike


_LEAST_PIXELS = 1e-3
"""What is narrower than this is a line."""


def _frozen(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    array.setflags(write=False)
    return array


@dataclass(frozen=True, eq=False, init=False)
class Prompts:
    """Prompts for one object on one slice, as `segment_anything.SamPredictor.predict` takes them.

    Parameters
    ----------
    points_xy : array-like (N, 2), optional
        x = column, y = row, in pixels of the slice; pixel centres at integers.
    point_labels : array-like (N,), optional
        1 foreground, 0 background; all foreground when left out.
    box_xyxy : array-like (4,), optional
        x_min, y_min, x_max, y_max in pixels, both corners inside the box.
    mask_input : array-like (h, w) or (1, h, w), optional
        Low-resolution logits of an earlier prediction by the same model.
    outline_xy : array-like (N, 2), optional
        Corners x, y of a polygon around the object, in pixels, N >= 3; the last one is joined to the first.
        No model takes it as it is: see `Predictor.predict`.

    Raises
    ------
    PromptError
        On wrong shapes, non-finite numbers, labels other than 0 and 1, a box with max < min, an outline
        without area, or no prompt.
    """

    points_xy: npt.NDArray[np.float32]
    point_labels: npt.NDArray[np.int64]
    box_xyxy: npt.NDArray[np.float32] | None
    mask_input: npt.NDArray[np.float32] | None
    outline_xy: npt.NDArray[np.float32] | None

    def __init__(
        self,
        points_xy: ArrayLike | None = None,
        point_labels: ArrayLike | None = None,
        box_xyxy: ArrayLike | None = None,
        mask_input: ArrayLike | None = None,
        outline_xy: ArrayLike | None = None,
    ) -> None:
        points = _points(points_xy)
        labels = _labels(point_labels, len(points))
        box = None if box_xyxy is None else _box(box_xyxy)
        mask = None if mask_input is None else _mask(mask_input)
        outline = None if outline_xy is None else _outline(outline_xy)
        if not np.isfinite(points).all():
            raise PromptError(f"Point coordinates must be finite, got {points.tolist()}; remove that point.")
        if not len(points) and box is None and mask is None and outline is None:
            raise PromptError("There is no prompt: give at least one point, a box, an outline or a mask.")
        object.__setattr__(self, "points_xy", _frozen(points))
        object.__setattr__(self, "point_labels", _frozen(labels))
        object.__setattr__(self, "box_xyxy", None if box is None else _frozen(box))
        object.__setattr__(self, "mask_input", None if mask is None else _frozen(mask))
        object.__setattr__(self, "outline_xy", None if outline is None else _frozen(outline))

    @classmethod
    def from_box(cls, box_xyxy: ArrayLike) -> Prompts:
        """Prompts of one box, x_min, y_min, x_max, y_max in pixels."""
        return cls(box_xyxy=box_xyxy)

    @classmethod
    def from_points(cls, points_xy: ArrayLike, point_labels: ArrayLike | None = None) -> Prompts:
        """Prompts of points (N, 2) in pixels and their labels (N,), 1 foreground and 0 background."""
        return cls(points_xy=points_xy, point_labels=point_labels)

    @classmethod
    def from_outline(cls, outline_xy: ArrayLike) -> Prompts:
        """Prompts of one outline: the corners (N, 2) of a polygon in pixels."""
        return cls(outline_xy=outline_xy)

    @property
    def kinds(self) -> frozenset[str]:
        """Kinds of prompt present: a subset of ``{"point", "box", "mask", "outline"}``."""
        present: Sequence[tuple[str, bool]] = (
            ("point", len(self.points_xy) > 0),
            ("box", self.box_xyxy is not None),
            ("mask", self.mask_input is not None),
            ("outline", self.outline_xy is not None),
        )
        return frozenset(kind for kind, is_present in present if is_present)

    @property
    def is_lone_point(self) -> bool:
        """Whether the prompt is one point and nothing else: ambiguous, so models answer with three masks."""
        return len(self.points_xy) == 1 and self.kinds == {"point"}

    def extent_within(self, image_size: tuple[int, int]) -> npt.NDArray[np.float32] | None:
        """The box (4,), else the tangent box of the part of the outline in an image (H, W), else None.

        Raises
        ------
        PromptError
            When the outline lies outside the image.
        """
        if self.box_xyxy is not None or self.outline_xy is None:
            return self.box_xyxy
        height, width = image_size
        last = np.array([width - 1, height - 1], dtype=np.float32)
        low, high = self.outline_xy.min(axis=0), self.outline_xy.max(axis=0)
        if (low > last + 0.5).any() or (high < -0.5).any():
            raise PromptError(
                f"The outline from {low.tolist()} to {high.tolist()} lies outside the image of {width} x "
                f"{height} pixels; its corners are x = column, y = row."
            )
        return np.concatenate([np.clip(low, 0, last), np.clip(high, 0, last)])

    def replace(self, **changes: ArrayLike | None) -> Prompts:
        """Copy with some fields replaced."""
        fields: dict[str, Any] = {
            "points_xy": self.points_xy,
            "point_labels": self.point_labels,
            "box_xyxy": self.box_xyxy,
            "mask_input": self.mask_input,
            "outline_xy": self.outline_xy,
        }
        return Prompts(**(fields | changes))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Prompts):
            return NotImplemented
        return (
            np.array_equal(self.points_xy, other.points_xy)
            and np.array_equal(self.point_labels, other.point_labels)
            and _same(self.box_xyxy, other.box_xyxy)
            and _same(self.mask_input, other.mask_input)
            and _same(self.outline_xy, other.outline_xy)
        )

    def __hash__(self) -> int:
        box, outline = (b"" if a is None else a.tobytes() for a in (self.box_xyxy, self.outline_xy))
        points = self.points_xy.tobytes(), self.point_labels.tobytes()
        return hash((points, box, outline, self.mask_input is None))


def _numbers(values: ArrayLike, name: str) -> npt.NDArray[np.float32]:
    try:
        return np.asarray(values).astype(np.float32)
    except (TypeError, ValueError) as error:
        raise PromptError(
            f"{name} must be an array of numbers ({error}); give rows of equal length."
        ) from None


def _points(points_xy: ArrayLike | None) -> npt.NDArray[np.float32]:
    points = _numbers([] if points_xy is None else points_xy, "points_xy")
    if points.size == 0 or points.shape == (2,):
        return points.reshape(-1, 2)
    if points.ndim != 2 or points.shape[1] != 2:
        raise PromptError(
            f"Points are (N, 2) numbers x, y, got an array of {points.shape}; give x and y each."
        )
    return points


def _labels(point_labels: ArrayLike | None, n_points: int) -> npt.NDArray[np.int64]:
    if point_labels is None:
        return np.ones(n_points, dtype=np.int64)
    labels = np.asarray(point_labels).reshape(-1)
    if len(labels) != n_points:
        raise PromptError(
            f"{n_points} points need {n_points} labels, got {len(labels)}; give one label a point."
        )
    if not np.isin(labels, (0, 1)).all():
        raise PromptError(f"Point labels are 1 (foreground) or 0 (background), got {labels.tolist()}.")
    return labels.astype(np.int64)


def _box(box_xyxy: ArrayLike) -> npt.NDArray[np.float32]:
    box = _numbers(box_xyxy, "box_xyxy").reshape(-1)
    if box.shape != (4,) or not np.isfinite(box).all():
        raise PromptError(f"A box is four finite numbers x_min, y_min, x_max, y_max, got {box.tolist()}.")
    if box[2] < box[0] or box[3] < box[1]:
        raise PromptError(f"A box is x_min, y_min, x_max, y_max, got {box.tolist()}; swap its corners.")
    return box


def _outline(outline_xy: ArrayLike) -> npt.NDArray[np.float32]:
    outline = _numbers(outline_xy, "outline_xy")
    if outline.ndim != 2 or outline.shape[1] != 2 or len(outline) < 3 or not np.isfinite(outline).all():
        raise PromptError(
            f"An outline is (N, 2) finite numbers x, y with N >= 3, got an array of {outline.shape}; give x "
            "and y of at least three corners."
        )
    if np.linalg.matrix_rank(outline - outline[0], tol=_LEAST_PIXELS) < 2:
        raise PromptError(
            "The corners of the outline lie on one line, which has no area; draw around the object."
        )
    return outline


def _mask(mask_input: ArrayLike) -> npt.NDArray[np.float32]:
    mask = _numbers(mask_input, "mask_input")
    if mask.ndim == 3 and mask.shape[0] == 1:
        mask = mask[0]
    if mask.ndim != 2:
        raise PromptError(
            f"mask_input has shape {mask.shape}, but a mask prompt is (h, w) logits of the model's own "
            "low-resolution grid; pass `best_low_res_logits` of an earlier prediction."
        )
    if not np.isfinite(mask).all():
        raise PromptError("mask_input has NaN or infinite values; pass the logits of an earlier prediction.")
    return mask


def _same(a: npt.NDArray[Any] | None, b: npt.NDArray[Any] | None) -> bool:
    return (a is None and b is None) or (a is not None and b is not None and np.array_equal(a, b))
