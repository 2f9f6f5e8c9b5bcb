"""`FoundMask` and `FoundObject`: what was found without a hand, on a slice and in a volume."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from napari_sam_med.volume.slice_view import SliceView

if TYPE_CHECKING:
    from napari_sam_med.segmentation.organ_objects import OrganGuess

__all__ = ["FoundMask", "FoundObject"]

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class FoundMask:
    """A mask on one slice, kept as the part of the slice that it takes up.

    Attributes
    ----------
    shape : (H, W)
        Of the slice.
    corner : (row, column)
        First pixel of `pixels` in the slice.
    pixels : ndarray (h, w) bool
        The mask within its tangent box; not empty.
    predicted_iou : float
        The model's own estimate.
    stability_score : float
        IoU of the masks at a raised and a lowered threshold, 0..1.
    point_xy : (x, y) or None
        The click that it answers, in pixels of the slice.
    crop_xyxy : (x_min, y_min, x_max, y_max) or None
        The part of the slice that the model saw, edges of pixels; None for the whole slice.
    """

    shape: tuple[int, int]
    corner: tuple[int, int]
    pixels: Mask
    predicted_iou: float
    stability_score: float
    point_xy: tuple[float, float] | None = None
    crop_xyxy: tuple[int, int, int, int] | None = None

    @classmethod
    def of(
        cls,
        mask: Mask,
        predicted_iou: float,
        stability_score: float,
        point_xy: tuple[float, float] | None = None,
        crop_xyxy: tuple[int, int, int, int] | None = None,
    ) -> FoundMask:
        """From a mask (H, W) of the whole slice.

        Raises
        ------
        ValueError
            When the mask is empty.
        """
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        if not len(rows):
            raise ValueError("an empty mask is no find")
        part = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].copy()
        shape, corner = (mask.shape[0], mask.shape[1]), (int(rows[0]), int(columns[0]))
        return cls(shape, corner, part, predicted_iou, stability_score, point_xy, crop_xyxy)

    @property
    def mask(self) -> Mask:
        """The mask (H, W) of the whole slice, in a new array."""
        whole = np.zeros(self.shape, dtype=bool)
        whole[self.place] = self.pixels
        return whole

    @property
    def place(self) -> tuple[slice, slice]:
        """Rows and columns of the slice that `pixels` takes up."""
        (row, column), (height, width) = self.corner, self.pixels.shape
        return slice(row, row + height), slice(column, column + width)

    @property
    def box_xyxy(self) -> tuple[int, int, int, int]:
        """First and last column and row (x_min, y_min, x_max, y_max) of the mask, both inside it."""
        (row, column), (height, width) = self.corner, self.pixels.shape
        return column, row, column + width - 1, row + height - 1

    @cached_property
    def area_px(self) -> int:
        """Pixels of the mask; asked for again and again, from linking to the list of objects."""
        return int(np.count_nonzero(self.pixels))

    def overlap_px(self, other: FoundMask) -> int:
        """Pixels in both masks, which lie on slices of one shape."""
        tops = [max(a, b) for a, b in zip(self.corner, other.corner, strict=True)]
        ends = [
            min(a + m, b + n)
            for a, m, b, n in zip(
                self.corner, self.pixels.shape, other.corner, other.pixels.shape, strict=True
            )
        ]
        if any(top >= end for top, end in zip(tops, ends, strict=True)):
            return 0
        parts = [
            one.pixels[tuple(slice(t - c, e - c) for t, e, c in zip(tops, ends, one.corner, strict=True))]
            for one in (self, other)
        ]
        return int(np.count_nonzero(parts[0] & parts[1]))

    def iou(self, other: FoundMask) -> float:
        """Intersection over union with another mask."""
        both = self.overlap_px(other)
        return both / (self.area_px + other.area_px - both)


@dataclass(frozen=True, eq=False)
class FoundObject:
    """An object of a volume: one mask on each of its slices, all of one plane.

    Attributes
    ----------
    number : int
        From 1, in the order of `score`.
    masks : dict of SliceView to FoundMask
        In ascending order of slices.
    score : float
        How sure it is, 0..1, by what its finder goes by.
    organ : OrganGuess or None
        What the organ classifier takes it for.
    """

    number: int
    masks: dict[SliceView, FoundMask]
    score: float
    organ: OrganGuess | None = None

    @cached_property
    def voxels(self) -> int:
        """Voxels of the object."""
        return sum(mask.area_px for mask in self.masks.values())

    @property
    def best_view(self) -> SliceView:
        """The slice that shows most of it; the lowest of equal ones."""
        return max(self.masks, key=lambda view: (self.masks[view].area_px, -view.index))

    def with_organ(self, organ: OrganGuess | None) -> FoundObject:
        """The same object with another guess of what it is."""
        return replace(self, organ=organ)

    def written_into(self, volume_zyx: npt.NDArray[np.generic], value: int = 1) -> None:
        """Set the object's voxels of an array (z, y, x) to a value."""
        for view, found in self.masks.items():
            view.window_on(volume_zyx)[found.place][found.pixels] = value

    def __iter__(self) -> Iterator[tuple[SliceView, FoundMask]]:
        """Slices and masks, in ascending order."""
        return iter(self.masks.items())

    @staticmethod
    def renumbered(objects: Iterable[FoundObject]) -> list[FoundObject]:
        """The objects by falling score, numbered from 1."""
        ranked = sorted(objects, key=lambda one: (-one.score, one.number))
        return [replace(one, number=number) for number, one in enumerate(ranked, start=1)]
