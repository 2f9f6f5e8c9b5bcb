"""Files in: what a file is decides who reads it, its content before its name."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from napari_sam_med.volume.formats import nifti
from napari_sam_med.volume.grid import Grid
from napari_sam_med.volume.labels import LabelVolume
from napari_sam_med.volume.organs import OrganTable
from napari_sam_med.volume.volume import Volume

__all__ = ["read_labels", "read_volume", "volume_times"]


def read_volume(path: str | os.PathLike[str], *, time: int | None = None) -> Volume:
    file = Path(path)
    scan = nifti.read(file, time)
    grid = Grid(scan.affine, scan.array_ijk.shape)
    return Volume(
        grid.to_canonical(scan.array_ijk), grid, file, scan.warnings, scan.header, scan.n_times, time or 0
    )


def volume_times(path: str | os.PathLike[str]) -> int:
    return nifti.n_times(Path(path))


def read_labels(path: str | os.PathLike[str], *, reference: Volume | None = None) -> LabelVolume:
    file = Path(path)
    scan = nifti.read(file)
    grid = Grid(scan.affine, scan.array_ijk.shape)
    data = grid.to_canonical(scan.array_ijk)
    data = np.ascontiguousarray(np.rint(data).astype(np.uint8 if data.max() < 256 else np.uint16))
    return LabelVolume(
        data,
        grid,
        scan.organs or OrganTable().covering(np.unique(data).tolist()),
        header=scan.header,
        path=file,
    )
