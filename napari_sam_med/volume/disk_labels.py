"""Labels of a scan that is larger than memory: an array in a file that takes what is labelled, no more."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import platformdirs

from napari_sam_med.errors import LabelError

__all__ = ["DiskLabels", "has_labels", "is_on_disk", "labelled_planes", "refuse_on_disk"]


class DiskLabels(np.memmap[Any, np.dtype[np.uint16]]):
    """Class numbers (z, y, x) in a file without a name, which goes with the last array of it.

    The file has holes where nothing was written: they take no room on the disk, and no memory once the
    system needs that for something else.

    Attributes
    ----------
    file : file object or None
        None for a view.
    """

    file: Any = None

    @classmethod
    def zeros(cls, shape_zyx: Sequence[int]) -> DiskLabels:
        """Empty labels; uint16, because widening them later would read all of them.

        Raises
        ------
        LabelError
            If the file cannot be made.
        """
        folder = _folder()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            # it stays open as long as the array: its holes are looked up
            file = tempfile.TemporaryFile(dir=folder, prefix="labels-")  # noqa: SIM115
            os.truncate(file.fileno(), int(np.prod(shape_zyx, dtype=np.int64)) * 2)
            data = cls(file, dtype=np.uint16, mode="r+", shape=tuple(shape_zyx))
        except OSError as error:
            raise LabelError(
                f"Labels larger than memory need a file, which cannot be made in {folder} "
                f"({error.strerror or error}); free some space, or set NAPARI_SAM_MED_HOME to another disk."
            ) from error
        data.file = file
        made: DiskLabels = data
        return made

    def __array_finalize__(self, source: Any) -> None:
        super().__array_finalize__(source)
        self.file = None  # a view has other places in the file

    def copy_labelled(self) -> DiskLabels:
        """Copy in a file of its own."""
        copy = DiskLabels.zeros(self.shape)
        for index in labelled_planes(self):
            if self[index].any():
                copy[index] = self[index]
        return copy


def is_on_disk(data: npt.NDArray[Any]) -> bool:
    """Whether labels lie in a file because they are larger than memory."""
    return isinstance(data, np.memmap)


def labelled_planes(*arrays: npt.NDArray[Any]) -> Sequence[int]:
    """Numbers of the planes data[i] in which one of the arrays may hold something, ascending.

    All of arrays in memory; of a file those that are no holes, where the system can tell.
    """
    if not all(isinstance(data, DiskLabels) for data in arrays):
        return range(len(arrays[0]))
    return sorted({index for data in arrays for index in _planes_of(data)})


def _planes_of(data: npt.NDArray[Any]) -> Sequence[int]:
    file = data.file if isinstance(data, DiskLabels) else None
    if file is None or not hasattr(os, "SEEK_DATA"):
        return range(len(data))
    size, plane = int(data.nbytes), int(data.nbytes) // len(data)
    found: set[int] = set()
    place = 0
    while place < size:
        try:
            start = os.lseek(file.fileno(), place, os.SEEK_DATA)
            place = os.lseek(file.fileno(), start, os.SEEK_HOLE)
        except OSError:  # no more of it, or a disk that knows no holes and says so
            if not place and not _is_sparse(file):
                return range(len(data))
            break
        found.update(range(start // plane, (place - 1) // plane + 1))
    return sorted(found)


def has_labels(data: npt.NDArray[Any]) -> bool:
    """Whether any voxel of labels (z, y, x) is labelled."""
    return any(data[index].any() for index in labelled_planes(data)) if is_on_disk(data) else bool(data.any())


def refuse_on_disk(data: npt.NDArray[Any], what: str, remedy: str) -> None:
    """Refuse what needs all labels in memory at once.

    Raises
    ------
    LabelError
        If the labels lie on the disk.
    """
    if is_on_disk(data):
        raise LabelError(
            f"{what} needs all labels of the scan in memory at once ({data.nbytes / 2**30:.1f} GiB), and "
            f"this scan is larger than memory; {remedy}."
        )


def _is_sparse(file: Any) -> bool:
    """Whether a file takes next to no room, so that what was not found is not there."""
    return bool(os.fstat(file.fileno()).st_blocks == 0)


def _folder() -> Path:
    home = os.environ.get("NAPARI_SAM_MED_HOME")
    return (Path(home) if home else platformdirs.user_cache_path("napari-sam-med")) / "labels on disk"
