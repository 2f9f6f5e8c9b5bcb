"""MetaImage (.mha, .mhd) in.

Read here and not through ITK: ITK gives wrong voxels silently where packed ones are damaged, and reading a
damaged header through it was seen to corrupt memory.
"""

from __future__ import annotations

import os
import re
import zlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_sam_med.errors import ImageError
from napari_sam_med.volume.formats.byte_source import GZIP_EXPANSION, refuse_beyond_memory
from napari_sam_med.volume.formats.nifti_geometry import geometry_warnings, is_usable
from napari_sam_med.volume.formats.scan import Scan
from napari_sam_med.volume.geometry_doubt import NO_ORIENTATION_BUT_LPS

__all__ = ["n_times", "read"]

_LONGEST_HEADER = 1 << 16
_LINE = re.compile(rb"\s*(\w+)\s*=[ \t]*([^\n]*)\n?")
_DTYPES = {
    "MET_CHAR": "i1",
    "MET_UCHAR": "u1",
    "MET_SHORT": "i2",
    "MET_USHORT": "u2",
    "MET_INT": "i4",
    "MET_UINT": "u4",
    "MET_LONG": "i4",
    "MET_ULONG": "u4",
    "MET_LONG_LONG": "i8",
    "MET_ULONG_LONG": "u8",
    "MET_FLOAT": "f4",
    "MET_DOUBLE": "f8",
}
_LPS_TO_RAS = np.array([-1.0, -1.0, 1.0])


@dataclass(frozen=True)
class _Header:
    path: Path
    fields: dict[str, str]
    size: tuple[int, ...]
    n_channels: int
    dtype: np.dtype[Any]
    start: int

    @property
    def n_times(self) -> int:
        return int(np.prod([1, self.n_channels, *self.size[3:]], dtype=object))

    @property
    def n_bytes(self) -> int:
        return int(np.prod([self.dtype.itemsize, self.n_channels, *self.size], dtype=object))

    def is_true(self, *keys: str) -> bool:
        return any(self.fields.get(key, "")[:1] in ("T", "t", "1") for key in keys)

    def numbers(self, count: int, *keys: str) -> npt.NDArray[np.float64] | None:
        """Numbers of the first of `keys` that is there."""
        text = next((self.fields[key] for key in keys if key in self.fields), None)
        return None if text is None else _numbers(self.path, keys[0], text, count)


def n_times(path: Path) -> int:
    """Number of three-dimensional volumes in a file; reads the header only."""
    return _header(path).n_times


def read(path: Path, time: int | None = None) -> Scan:
    """One volume of a MetaImage file; channels and a fourth axis count as volumes.

    Parameters
    ----------
    path : Path
        ``.mha``, or ``.mhd`` with its data file beside it.
    time : int, optional
        Which volume of a file that holds several; the first, with a warning, when left out.

    Raises
    ------
    ImageError
        If the file is truncated, damaged, of text or of several data files, or has no sensible geometry.
    """
    header = _header(path)
    count, warnings = header.n_times, []
    if time is not None and not 0 <= time < count:
        raise ImageError(
            f"{path.name} holds {count} volumes; time {time} does not exist, give 0 to {count - 1}."
        )
    if count > 1 and time is None:
        warnings.append(f"{path.name} holds {count} volumes; the first is used.")
    affine, has_orientation = _affine(header)
    if not has_orientation:
        warnings.append(
            f"{path.name} has no orientation: its axes are taken to run to left, posterior, superior; check "
            "left and right."
        )
    array = _voxels(header)[..., time or 0]
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    doubt = None if has_orientation else NO_ORIENTATION_BUT_LPS
    return Scan(array, affine, None, count, (*warnings, *geometry_warnings(affine)), doubt=doubt)


def _header(path: Path) -> _Header:
    with path.open("rb") as stream:
        content = stream.read(_LONGEST_HEADER)
    fields: dict[str, str] = {}
    position = 0
    while "ElementDataFile" not in fields:
        line = _LINE.match(content, position)
        if line is None:
            raise ImageError(
                f"{path.name} is truncated or damaged: header line {len(fields) + 1} cannot be read; "
                "copy or export it again."
            )
        fields[line[1].decode()] = line[2].decode("utf-8", "replace").strip()
        position = line.end()
    n_axes = _whole(path, fields, "NDims", "", 2, 4)
    size = tuple(int(n) for n in _numbers(path, "DimSize", fields.get("DimSize", ""), n_axes))
    dtype = _DTYPES.get(fields.get("ElementType", "").removesuffix("_ARRAY"))
    if dtype is None or min(size) < 1:
        raise ImageError(
            f"{path.name} has voxels of type {fields.get('ElementType')!r} and size {size}, which cannot be "
            "read; export it again with numbers."
        )
    n_channels = _whole(path, fields, "ElementNumberOfChannels", "1", 1, 65535)
    header = _Header(path, fields, size, n_channels, np.dtype(dtype), position)
    is_big = header.is_true("BinaryDataByteOrderMSB", "ElementByteOrderMSB")
    header = replace(header, dtype=header.dtype.newbyteorder(">" if is_big else "<"))
    refuse_beyond_memory(path, header.n_bytes, f"{size} voxels")
    return header


def _data_place(header: _Header) -> tuple[Path, int]:
    """File that holds the voxels and the byte at which they begin."""
    path, place = header.path, header.fields["ElementDataFile"]
    is_text = header.fields.get("BinaryData", "True")[:1] not in ("T", "t", "1")
    if is_text or place.split(" ")[0].upper() == "LIST" or "%" in place:
        raise ImageError(
            f"{path.name} keeps its voxels as text or in several files; export it as one .mha file."
        )
    if place.upper() == "LOCAL":
        return path, header.start
    data_path = path.parent / place
    if not place or not os.path.isfile(data_path):  # unlike Path.is_file False for names that are too long
        raise ImageError(
            f"{path.name} is a header only and its data file {place!r} is missing; put it beside the header."
        )
    start = header.numbers(1, "HeaderSize")
    if start is None or start[0] >= 0:
        return data_path, 0 if start is None else int(start[0])
    return data_path, max(data_path.stat().st_size - header.n_bytes, 0)  # -1: the voxels are the end of it


def _voxels(header: _Header) -> npt.NDArray[Any]:
    """All voxels (i, j, k, volume), channels before further axes, as a view of what was read."""
    data_path, start = _data_place(header)
    with data_path.open("rb") as stream:
        stream.seek(start)
        if header.is_true("CompressedData"):
            content = _unpacked(header, stream.read())
        else:
            content = stream.read(header.n_bytes)
    if len(content) < header.n_bytes:
        raise ImageError(
            f"{data_path.name} is truncated: {header.n_bytes} bytes of voxels are announced, {len(content)} "
            "are there; copy or download it again."
        )
    flat = np.frombuffer(content, dtype=header.dtype, count=header.n_bytes // header.dtype.itemsize)
    spatial = (*header.size, 1)[:3]
    by_channel = flat.reshape((header.n_channels, *spatial, -1), order="F")
    return np.moveaxis(by_channel, 0, 3).reshape((*spatial, -1), order="F")


def _unpacked(header: _Header, packed: bytes) -> bytes:
    """Voxels of a zlib stream, its checksum checked; no more than the header announces."""
    if header.n_bytes > len(packed) * GZIP_EXPANSION:
        return b""
    unpacker = zlib.decompressobj(wbits=47)  # zlib or gzip, whichever the stream says
    try:
        content = unpacker.decompress(packed, header.n_bytes + 1)
    except zlib.error as error:
        raise ImageError(
            f"{header.path.name} is damaged: its packed voxels do not check out ({error}); copy it again."
        ) from error
    if (len(content) == header.n_bytes and not unpacker.eof) or len(content) > header.n_bytes:
        raise ImageError(
            f"{header.path.name} is damaged: its packed voxels are not the {header.n_bytes} bytes that its "
            "header announces; copy or export it again."
        )
    return content


def _affine(header: _Header) -> tuple[npt.NDArray[np.float64], bool]:
    """Voxel (i, j, k) to RAS mm, and whether the header says how the axes lie."""
    n = len(header.size)
    spacing = header.numbers(n, "ElementSpacing", "ElementSize")
    origin = header.numbers(n, "Offset", "Position", "Origin")
    matrix = header.numbers(n * n, "TransformMatrix", "Rotation", "Orientation")
    # a row of the file's matrix is the direction of one axis
    direction = np.eye(n) if matrix is None else matrix.reshape(n, n).T
    m = min(n, 3)
    affine = np.eye(4)
    affine[:m, :m] = direction[:m, :m] * (np.ones(n) if spacing is None else spacing)[:m]
    affine[:m, 3] = 0 if origin is None else origin[:m]
    affine[:3] *= _LPS_TO_RAS[:, None]
    if not is_usable(affine):
        raise ImageError(
            f"The geometry of {header.path.name} is damaged (not finite, or no sensible voxel size); "
            "export it again."
        )
    return affine, matrix is not None


def _whole(path: Path, fields: dict[str, str], key: str, default: str, low: int, high: int) -> int:
    text = fields.get(key, default)
    if not text.isdecimal() or len(text) > 9 or not low <= int(text) <= high:
        raise ImageError(
            f"{path.name} says {key} = {text!r}, which must be {low} to {high}; export it again."
        )
    return int(text)


def _numbers(path: Path, key: str, text: str, count: int) -> npt.NDArray[np.float64]:
    try:
        values = np.array([float(part) for part in text.split()])
    except ValueError:
        values = np.empty(0)
    if len(values) != count or not np.isfinite(values).all() or np.abs(values).max() > 1e15:
        raise ImageError(
            f"{path.name} says {key} = {text!r}, which must be {count} numbers; export it again."
        )
    return values
