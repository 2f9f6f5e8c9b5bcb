"""Voxels of a checked DICOM series, with rescale slope and intercept applied."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.pixels.processing import apply_modality_lut
from pydicom.pixels.utils import iter_pixels, pixel_array

from napari_sam_med.errors import ImageError
from napari_sam_med.volume.formats.byte_source import refuse_beyond_memory
from napari_sam_med.volume.formats.dicom_series import Series, Slice, damages

__all__ = ["read_voxels"]


def read_voxels(series: Series) -> npt.NDArray[Any]:
    """All voxels (i, j, k) = (column, row, slice).

    Whole slopes and intercepts give int16, or int32 where a value does not fit it; others give float32.
    Unscaled values stay as they are stored.

    Raises
    ------
    ImageError
        If voxels are missing or damaged, or there is no memory for them.
    """
    slices = series.slices
    rows, columns = slices[0].plane.shape
    dtype = _dtype(slices)
    shape = (len(slices), rows, columns)
    refuse_beyond_memory(
        slices[0].path, int(np.prod(shape, dtype=object)) * dtype.itemsize, f"{shape} voxels"
    )
    try:
        array = np.empty(shape, dtype=dtype)
        for k, stored in _stored(slices):
            values = _scaled(stored, slices[k], array.dtype)
            if values.dtype.kind in "iu" and array.dtype.kind in "iu":
                limits = np.iinfo(array.dtype)
                if int(values.min()) < limits.min or int(values.max()) > limits.max:
                    array = array.astype(np.int32)
            array[k] = values
    except MemoryError as error:
        raise ImageError(
            f"{series.name} has {shape} voxels, for which there is no memory; close other programs."
        ) from error
    return array.transpose(2, 1, 0)


def _dtype(slices: tuple[Slice, ...]) -> np.dtype[Any]:
    """Type to begin with: the stored one, int16 (made int32 where a value asks for it), or float32."""
    stored, is_scaled, highest = set(), False, 0.0
    for piece in slices:
        header = piece.header
        is_whole = piece.slope.is_integer() and piece.intercept.is_integer()
        if not is_whole or "ModalityLUTSequence" in header or "PixelRepresentation" not in header:
            return np.dtype(np.float32)
        sign = "i" if int(header.PixelRepresentation) == 1 else "u"
        stored.add(f"{sign}{max(int(header.BitsAllocated) // 8, 1)}")
        is_scaled = is_scaled or (piece.slope, piece.intercept) != (1.0, 0.0)
        highest = max(highest, 2.0 ** int(header.BitsAllocated) * abs(piece.slope) + abs(piece.intercept))
    if not is_scaled and len(stored) == 1:
        return np.dtype(stored.pop())
    return np.dtype(np.int16 if highest <= np.iinfo(np.int32).max else np.float32)


def _stored(slices: tuple[Slice, ...]) -> Iterator[tuple[int, npt.NDArray[Any]]]:
    """Slice number and stored values (rows, columns), file by file."""
    by_file = sorted(range(len(slices)), key=lambda k: (str(slices[k].path), slices[k].frame or 0))
    for path, group in groupby(by_file, key=lambda k: slices[k].path):
        wanted = list(group)
        if slices[wanted[0]].frame is None:
            with damages(path):
                values = pixel_array(path, raw=True)
            yield wanted[0], values
            continue
        frames = iter_pixels(path, indices=[slices[k].frame or 0 for k in wanted], raw=True)
        for k in wanted:
            with damages(path):
                values = next(frames)
            yield k, values


def _scaled(stored: npt.NDArray[Any], piece: Slice, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    if stored.shape != piece.plane.shape:
        raise ImageError(
            f"{piece.plane.name} has pixels of shape {stored.shape} where {piece.plane.shape} is announced; "
            "export it again."
        )
    if "ModalityLUTSequence" in piece.header:
        return apply_modality_lut(stored, pydicom.dcmread(piece.path, stop_before_pixels=True))
    if (piece.slope, piece.intercept) == (1.0, 0.0):
        return stored
    if dtype.kind == "f":
        return stored.astype(np.float64) * piece.slope + piece.intercept
    scaled: npt.NDArray[np.int64] = stored.astype(np.int64) * int(piece.slope) + int(piece.intercept)
    return scaled
