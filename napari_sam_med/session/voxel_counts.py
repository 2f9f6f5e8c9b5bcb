"""How many voxels each class has, kept up to date from the changes instead of counted anew."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_sam_med.volume.disk_labels import labelled_planes

if TYPE_CHECKING:
    from napari_sam_med.volume.labels import LabelChange

__all__ = ["VoxelCounts"]


class VoxelCounts:
    """Voxels per class of one label array.

    Parameters
    ----------
    data : ndarray (z, y, x) of unsigned int
        Counted once, a slice at a time.
    """

    def __init__(self, data: npt.NDArray[Any]) -> None:
        self._counts: dict[int, int] = {}
        for index in labelled_planes(data):
            plane = data[index]
            if not plane.max(initial=0):  # most slices; counting takes 60 times as long
                continue
            counts = np.bincount(plane.ravel())
            values = np.flatnonzero(counts)
            self._add(values, counts[values])

    @property
    def class_ids(self) -> tuple[int, ...]:
        """Classes that have voxels, ascending."""
        return tuple(sorted(class_id for class_id, count in self._counts.items() if count))

    def __getitem__(self, class_id: int) -> int:
        return self._counts.get(class_id, 0)

    def record(self, change: LabelChange, *, reverted: bool = False) -> frozenset[int]:
        """Follow a change that was applied (or reverted); answers the classes whose count moved."""
        gone, come = (change.after, change.before) if reverted else (change.before, change.after)
        values, counts = _tally(gone)
        self._add(values, -counts)
        touched = set(values.tolist())
        values, counts = _tally(come)
        self._add(values, counts)
        return frozenset(touched | set(values.tolist())) - {0}

    def _add(self, values: npt.NDArray[Any], counts: npt.NDArray[Any]) -> None:
        for value, count in zip(values.tolist(), counts.tolist(), strict=True):
            if value:
                self._counts[value] = self._counts.get(value, 0) + count


def _tally(values: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Which numbers there are, ascending, and how often; counting is ten times as fast as sorting many."""
    if values.size and values.min() == values.max():  # one mask on background, nearly always
        return values[:1], np.array([values.size])
    if values.size < 2**12:
        return np.unique(values, return_counts=True)
    counts = np.bincount(values)
    present = np.flatnonzero(counts)
    return present, counts[present]
