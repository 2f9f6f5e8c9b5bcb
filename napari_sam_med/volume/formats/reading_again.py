"""What was written, read again and compared, without a second array of it where the format allows that."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_sam_med.volume.formats.byte_source import ByteSource
from napari_sam_med.volume.formats.label_table import from_xml
from napari_sam_med.volume.formats.nifti_geometry import choose_affine
from napari_sam_med.volume.formats.nifti_header import open_nifti
from napari_sam_med.volume.organs import OrganTable

__all__ = ["ReadAgain", "are_equal", "compare_nifti"]


@dataclass(frozen=True, eq=False)
class ReadAgain:
    """What a file holds, beside what was written.

    Attributes
    ----------
    is_equal : bool
        Whether dtype, shape and every voxel are as they were written.
    affine : (4, 4) float64
        Voxel (i, j, k) to RAS mm.
    organs : OrganTable or None
        Names in the file.
    """

    is_equal: bool
    affine: npt.NDArray[np.float64]
    organs: OrganTable | None


def compare_nifti(path: Path, array_ijk: npt.NDArray[Any], form: str | None) -> ReadAgain:
    """Read a NIfTI file to its end, a slice at a time, beside the array (i, j, k) that it is to hold.

    Raises
    ------
    ImageError
        If the file is truncated, damaged or no voxel image; `form` is that of `nifti.read`.
    """
    with ByteSource(path) as source:
        opened = open_nifti(path, source)
        affine = choose_affine(opened.header, opened.shape_ijk, form).affine
        organs = next((table for table in map(from_xml, opened.tables) if table is not None), None)
        is_equal = opened.dtype.newbyteorder("=") == array_ijk.dtype and opened.shape_ijk == array_ijk.shape
        source.skip(opened.offset - source.position)
        found = np.empty(opened.shape_ijk[1::-1], dtype=opened.dtype)  # (j, i): i runs fastest in a file
        for k in range(opened.shape_ijk[2]):
            source.fill(found)
            is_equal = is_equal and np.array_equal(found.T, array_ijk[:, :, k])
        source.finish()
    return ReadAgain(is_equal, affine, organs)


def are_equal(found: npt.NDArray[Any], expected: npt.NDArray[Any]) -> bool:
    """Whether two arrays of three axes have one dtype, one shape and the same values; compared in slices."""
    if found.dtype != expected.dtype or found.shape != expected.shape:
        return False
    axis = int(np.argmax(np.abs(expected.strides)))
    planes = zip(np.moveaxis(found, axis, 0), np.moveaxis(expected, axis, 0), strict=True)
    return all(np.array_equal(one, other) for one, other in planes)
