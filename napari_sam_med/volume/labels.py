"""Labels on a scan: one number a voxel, one rule for what may overwrite what."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, SupportsIndex

import numpy as np
import numpy.typing as npt
from psygnal import Signal

from napari_sam_med.errors import LabelError, LockedError
from napari_sam_med.volume.disk_labels import DiskLabels, labelled_planes
from napari_sam_med.volume.grid import Grid
from napari_sam_med.volume.organs import MAX_CLASS_ID, OrganTable
from napari_sam_med.volume.slice_view import SliceView
from napari_sam_med.volume.volume import Volume

__all__ = ["LabelChange", "LabelVolume", "labels_at", "sparse_copy"]

LabelArray = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]


@dataclass(frozen=True, eq=False)
class LabelChange:
    """What one action changes in one slice; undo is its `revert`.

    Attributes
    ----------
    view : SliceView
        The slice.
    indices : (N,) int32 or int64
        Flat (row-major) positions in the slice image (H, W).
    before, after : (N,) uint8 or uint16
        Class numbers there.
    """

    view: SliceView
    indices: npt.NDArray[np.integer[Any]]
    before: npt.NDArray[np.integer[Any]]
    after: npt.NDArray[np.integer[Any]]

    @property
    def is_empty(self) -> bool:
        """Whether nothing changes."""
        return self.indices.size == 0

    @property
    def nbytes(self) -> int:
        """Memory that the arrays take, in bytes."""
        return int(self.indices.nbytes + self.before.nbytes + self.after.nbytes)

    def apply(self, data_zyx: npt.NDArray[Any]) -> None:
        """Write `after` into a label array (z, y, x), in place.

        Raises
        ------
        LabelError
            If a class number does not fit the dtype of the array.
        """
        self._write(data_zyx, self.after)

    def revert(self, data_zyx: npt.NDArray[Any]) -> None:
        """Write `before` into a label array (z, y, x), in place; raises as `apply` does."""
        self._write(data_zyx, self.before)

    def _write(self, data_zyx: npt.NDArray[Any], values: npt.NDArray[np.integer[Any]]) -> None:
        if self.is_empty:
            return
        if values.max() > np.iinfo(data_zyx.dtype).max:
            raise LabelError(
                f"Class {values.max()} does not fit {data_zyx.dtype.name} labels; change them through "
                f"LabelVolume, "
                "which widens its array."
            )
        pixels, where = _flat(self.view.window_on(data_zyx), self.indices)
        pixels[where] = values


def labels_at(
    data_zyx: npt.NDArray[Any], view: SliceView, indices: npt.NDArray[np.integer[Any]]
) -> npt.NDArray[Any]:
    """Class numbers (N,) of a label array (z, y, x) at flat positions (N,) in a slice; a copy."""
    pixels, where = _flat(view.window_on(data_zyx), indices)
    found: npt.NDArray[Any] = pixels[where]
    return found


def _flat(window: npt.NDArray[Any], indices: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], Any]:
    """A slice, and what flat indices are in it."""
    indices = indices.astype(np.intp, copy=False)  # numpy takes half as long again to do it itself
    if window.flags.c_contiguous:  # an axial slice: four times as fast, and large steps have hundreds
        return window.reshape(-1), indices
    return window, np.divmod(indices, window.shape[1])


class LabelVolume:
    """Class numbers on the grid of a scan.

    Parameters
    ----------
    data : ndarray (z, y, x) of uint8 or uint16
        LPS+ like the scan's data; 0 is background. Kept, not copied.
    grid : Grid
        Geometry of the scan.
    organs : OrganTable, optional
        Names, colours and locks; the 13 BTCV organs when left out. Numbers without a row are fine.
    header : object, optional
        Header of the source file, for export; opaque.
    path : Path, optional
        The source image, which an export must not overwrite.
    warnings : tuple of str
        What was odd about the label file.

    Raises
    ------
    LabelError
        On another dtype or a shape that is not the grid's.
    """

    #: Emitted with the `SliceView` that changed, or None where all of it may have (and `data` be a new
    #: array).
    changed: ClassVar[Signal] = Signal(object)

    def __init__(
        self,
        data: npt.NDArray[Any],
        grid: Grid,
        organs: OrganTable | None = None,
        *,
        header: object | None = None,
        path: Path | None = None,
        warnings: tuple[str, ...] = (),
    ) -> None:
        if data.dtype not in (np.uint8, np.uint16):
            raise LabelError(f"Labels are uint8 or uint16, got {data.dtype}; convert them first.")
        if data.shape != grid.shape_zyx:
            raise LabelError(f"Labels of shape {data.shape} do not fit a scan of {grid.shape_zyx} (z, y, x).")
        self.data = data
        self.grid = grid
        self.organs = OrganTable.btcv() if organs is None else organs
        self.header = header
        self.path = path
        self.warnings = warnings

    @classmethod
    def like(
        cls, volume: Volume, organs: OrganTable | None = None, dtype: npt.DTypeLike = np.uint8
    ) -> LabelVolume:
        """Empty labels on the grid of a scan; organs default to the 13 of BTCV.

        Those of a scan that is larger than memory are uint16 and lie in a file, see `DiskLabels`.
        """
        data = DiskLabels.zeros(volume.shape) if volume.is_lazy else np.zeros(volume.shape, dtype=dtype)
        return cls(data, volume.grid, organs, header=volume.header, path=volume.path)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Number of voxels along z, y, x."""
        return self.grid.shape_zyx

    def __repr__(self) -> str:
        present = ", ".join(f"{i} {self.organs.name_of(i)}" for i in self.class_ids())
        z, y, x = self.shape
        return f"LabelVolume(z={z}, y={y}, x={x}; {self.data.dtype.name}; {present or 'empty'})"

    def changes_for(
        self,
        view: SliceView,
        mask: npt.ArrayLike,
        class_id: SupportsIndex,
        *,
        replaces: npt.ArrayLike | None = None,
        keep_others: bool = False,
    ) -> LabelChange:
        """What giving a mask to a class would change: the one rule of what may overwrite what.

        Voxels of `mask` become `class_id`, also those of other classes, unless a locked organ owns them or
        others are to be kept: what a person asked for may take from another organ, what was carried may not.
        Voxels of `replaces` outside `mask` are cleared where they still are `class_id`. Class 0 erases.

        Parameters
        ----------
        view : SliceView
        mask : (H, W) bool array-like
            In the slice image's own pixels.
        class_id : int
            0 to 65535.
        replaces : (H, W) bool array-like, optional
            Mask that the same object had here before.
        keep_others : bool
            Take background only, as if every other organ were locked.

        Raises
        ------
        LockedError
            If `class_id` itself is locked.
        LabelError
            If a mask has another shape or the number does not fit.
        """
        number = self._writable_class(class_id)
        current = view.extract(self.data)
        chosen = _mask_of(mask, current.shape, view)
        after = current.astype(np.uint16) if number > np.iinfo(current.dtype).max else current.copy()
        if replaces is not None:
            left_behind = _mask_of(replaces, current.shape, view) & ~chosen
            after[left_behind & (current == number)] = 0
        if keep_others:
            chosen = chosen & ((current == 0) | (current == number))
        elif self.organs.locked_ids:
            chosen = chosen & ~np.isin(current, self.organs.locked_ids)
        after[chosen] = number
        indices = np.flatnonzero(after != current)
        before = current.reshape(-1)[indices]
        small = indices.astype(np.int32) if current.size < 2**31 else indices
        return LabelChange(view, small, before, after.reshape(-1)[indices])

    def assign(
        self,
        view: SliceView,
        mask: npt.ArrayLike,
        class_id: SupportsIndex,
        *,
        replaces: npt.ArrayLike | None = None,
        keep_others: bool = False,
    ) -> LabelChange:
        """Give a mask to a class, by the rule of `changes_for`; emits `changed` and returns what changed."""
        change = self.changes_for(view, mask, class_id, replaces=replaces, keep_others=keep_others)
        self.apply(change)
        return change

    def apply(self, change: LabelChange) -> None:
        """Write a change, whatever the locks say now (they were asked when it was made).

        Labels are widened to uint16, as a new array in `data`, where a number needs it.
        """
        if change.is_empty:
            return
        grew = bool(change.after.max() > np.iinfo(self.data.dtype).max)
        if grew:
            self.data = self.data.astype(np.uint16)
        change.apply(self.data)
        self.changed.emit(None if grew else change.view)

    def revert(self, change: LabelChange) -> None:
        """Take a change back, whatever the locks say."""
        if change.is_empty:
            return
        change.revert(self.data)
        self.changed.emit(change.view)

    def class_ids(self) -> tuple[int, ...]:
        """Numbers present, ascending, without background."""
        return tuple(int(i) for i in np.flatnonzero(self._counts()) if i)

    def voxel_count(self, class_id: SupportsIndex) -> int:
        """Number of voxels of a class."""
        number = operator.index(class_id)
        if not number:
            return int(self._counts()[0])
        return sum(int(np.count_nonzero(block == number)) for block in self._blocks())

    def volume_ml(self, class_id: SupportsIndex) -> float:
        """Volume of a class in millilitres."""
        return self.voxel_count(class_id) * self.grid.voxel_volume_mm3 / 1000.0

    def _writable_class(self, class_id: SupportsIndex) -> int:
        try:
            number = operator.index(class_id)
        except TypeError:
            raise LabelError(f"A class is a whole number, got {class_id!r}.") from None
        if not 0 <= number <= MAX_CLASS_ID:
            raise LabelError(f"Class {number} does not fit: labels are 1 to {MAX_CLASS_ID}, and 0 erases.")
        if number in self.organs.locked_ids:
            raise LockedError(f"{self.organs.name_of(number)} is locked; unlock it before changing it.")
        return number

    def _counts(self) -> npt.NDArray[np.int64]:
        counts = np.zeros(int(np.iinfo(self.data.dtype).max) + 1, dtype=np.int64)
        for block in self._blocks():
            counts += np.bincount(block.ravel(), minlength=counts.size)
        counts[0] += self.data.size - counts.sum()  # of planes that were passed over
        return counts

    def _blocks(self) -> Iterator[npt.NDArray[Any]]:
        """Planes, cut along the axis on which memory is contiguous; holes of a file are passed over."""
        axis = int(np.argmax(np.abs(self.data.strides)))
        for index in range(self.data.shape[axis]) if axis else labelled_planes(self.data):
            yield self.data.take(index, axis) if axis else self.data[index]


def sparse_copy(data: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Copy of a label array (z, y, x), of the same layout, in which empty slices take no memory.

    The system gives out memory of zeros when it is first written to, so a copy of a few labelled slices of a
    thousand takes what those few do.
    """
    if isinstance(data, DiskLabels):
        return data.copy_labelled()
    order = np.argsort([-abs(stride) for stride in data.strides], kind="stable")
    copy: npt.NDArray[Any] = np.zeros([data.shape[axis] for axis in order], data.dtype)
    for index, plane in enumerate(data.transpose(order)):
        if plane.any():
            copy[index] = plane
    return copy.transpose(np.argsort(order))


def _mask_of(mask: npt.ArrayLike, shape: tuple[int, ...], view: SliceView) -> npt.NDArray[np.bool_]:
    array = np.asarray(mask)
    if array.shape != shape:
        raise LabelError(f"A mask of {array.shape} does not fit {view.plane} slices of {shape} (H, W).")
    return array.astype(bool, copy=False)
