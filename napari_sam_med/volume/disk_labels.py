"""Labels of a scan that is larger than memory: an array in a file that takes what is labelled, no more."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import platformdirs

from napari_sam_med.errors import LabelError

__all__ = ["DiskLabels", "is_on_disk", "labelled_planes", "refuse_on_disk"]

_RESERVE = 1 << 30
"""Bytes that stay free on the disk: the system ends a program that writes to a mapped file on a full one."""


class DiskLabels(np.memmap[Any, np.dtype[np.uint16]]):
    """Class numbers (z, y, x) in a file without a name, which goes with the last array of it.

    The file has holes where nothing was written: they take no room on the disk, and no memory once the
    system needs that for something else.

    Attributes
    ----------
    descriptor : int or None
        Of the open file, in which holes are looked up; None for a view, and where holes cannot be trusted.
    """

    descriptor: int | None = None

    @classmethod
    def zeros(cls, shape_zyx: Sequence[int]) -> DiskLabels:
        """Empty labels; uint16, because widening them later would read all of them.

        Raises
        ------
        LabelError
            If the file cannot be made, or the disk is nearly full.
        """
        folder = _folder()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            _refuse_full_disk(folder)
            with tempfile.TemporaryFile(dir=folder, prefix="labels-") as file:
                os.truncate(file.fileno(), int(np.prod(shape_zyx, dtype=np.int64)) * 2)
                data = cls(file, dtype=np.uint16, mode="r+", shape=tuple(shape_zyx))
                descriptor = os.dup(file.fileno())
        except OSError as error:
            raise LabelError(
                f"Labels larger than memory need a file, which cannot be made in {folder} "
                f"({error.strerror or error}); free some space, or set NAPARI_SAM_MED_HOME to another disk."
            ) from error
        weakref.finalize(data, os.close, descriptor)
        data.descriptor = descriptor if _tells_holes(data, descriptor) else None
        made: DiskLabels = data
        return made

    def __array_finalize__(self, source: Any) -> None:
        super().__array_finalize__(source)
        self.descriptor = None  # a view has other places in the file

    def __setitem__(self, key: Any, value: Any) -> None:
        """Write labels; raises `LabelError` where the disk is nearly full."""
        _refuse_full_disk(_folder())
        super().__setitem__(key, value)

    def copy_labelled(self) -> DiskLabels:
        """Copy in a file of its own."""
        copy = DiskLabels.zeros(self.shape)
        for index in labelled_planes(self):
            if self[index].any():
                copy[index] = self[index]
        return copy


def is_on_disk(data: npt.NDArray[Any]) -> bool:
    """Whether labels lie in a file because they are larger than memory."""
    return isinstance(data, DiskLabels)


def labelled_planes(*arrays: npt.NDArray[Any]) -> Sequence[int]:
    """Numbers of the planes data[i] in which one of the arrays may hold something, ascending.

    All of arrays in memory; of a file those that are no holes, where the system can tell.
    """
    if not all(isinstance(data, DiskLabels) for data in arrays):
        return range(len(arrays[0]))
    return sorted({index for data in arrays for index in _planes_of(data)})


def _planes_of(data: npt.NDArray[Any]) -> Sequence[int]:
    descriptor = data.descriptor if isinstance(data, DiskLabels) else None
    if descriptor is None:
        return range(len(data))
    size, plane = int(data.nbytes), int(data.nbytes) // len(data)
    found: set[int] = set()
    place = 0
    while place < size:
        try:
            start = os.lseek(descriptor, place, os.SEEK_DATA)
            place = os.lseek(descriptor, start, os.SEEK_HOLE)
        except OSError as error:
            if error.errno != errno.ENXIO:  # which says that there is no more of it
                return range(len(data))
            break
        found.update(range(start // plane, (place - 1) // plane + 1))
    return sorted(found)


def _tells_holes(data: npt.NDArray[Any], descriptor: int) -> bool:
    """Whether the system finds what was written to an empty file this moment.

    Some file systems look for it only after it has reached the disk, such as ZFS before 2.1.2
    (openzfs/zfs#11900): labels would be taken for holes.
    """
    if not hasattr(os, "SEEK_DATA"):
        return False
    data[-1, -1, -1] = 1
    try:
        return os.lseek(descriptor, 0, os.SEEK_DATA) < data.nbytes
    except OSError:
        return False
    finally:
        data[-1, -1, -1] = 0


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


def _refuse_full_disk(folder: Path) -> None:
    try:
        free = shutil.disk_usage(folder).free
    except OSError:  # somebody cleared the cache folder; the file without a name lives on
        return
    if free < _RESERVE:
        raise LabelError(
            f"The disk of the labels ({folder}) has {free / 2**20:.0f} MiB left, and labels larger than "
            f"memory are written only while there are {_RESERVE >> 20}; free some space."
        )


def _folder() -> Path:
    home = os.environ.get("NAPARI_SAM_MED_HOME")
    return (Path(home) if home else platformdirs.user_cache_path("napari-sam-med")) / "labels on disk"
