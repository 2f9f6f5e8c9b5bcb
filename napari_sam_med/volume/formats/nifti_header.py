"""Headers of NIfTI-1, NIfTI-2 and Analyze 7.5: what a file holds and where; nothing is believed unchecked."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.nifti1 import data_type_codes
from nibabel.spatialimages import HeaderDataError
from nibabel.wrapstruct import WrapStructError

from napari_sam_med.errors import ImageError
from napari_sam_med.volume.formats.byte_source import ByteSource

__all__ = ["OpenedNifti", "header_half", "open_nifti", "shape_text"]

_CIFTI_INTENTS = range(3000, 3100)
_CIFTI_EXTENSION = 32
_LARGEST_VOX_OFFSET = 64 << 20
_KIND_OF_DATATYPE = {
    1: "one-bit pixels",
    32: "complex numbers",
    128: "RGB colours",
    1792: "complex numbers",
    2048: "complex numbers",
    2304: "RGBA colours",
}


@dataclass(frozen=True, eq=False)
class OpenedNifti:
    """A parsed header: what to read, from where."""

    header: Any
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    offset: int
    data_path: Path
    tables: list[bytes]
    warnings: list[str]

    @property
    def shape_ijk(self) -> tuple[int, int, int]:
        i, j, k = (*self.shape, 1, 1)[:3]
        return i, j, k

    @property
    def n_times(self) -> int:
        return int(np.prod([1, *self.shape[3:]], dtype=object))


def open_nifti(path: Path, source: ByteSource) -> OpenedNifti:
    """Read and check the header of a file; `source` then stands at or before its voxels.

    Raises
    ------
    ImageError
        If it is no NIfTI or Analyze file, damaged, or no image of one number a voxel.
    """
    header, is_single = _parse(path, source)
    shape = _shape(header, path)
    dtype = _dtype(header, path)
    _refuse_cifti(path, header, [])
    size = header.template_dtype.itemsize
    offset = _offset(header, size if is_single else 0, path)
    n_bytes = int(np.prod(shape, dtype=object)) * dtype.itemsize
    extensions = b""
    data_path = path if is_single else _data_half(path)
    if is_single:
        source.require(offset + n_bytes, f"{shape_text(shape)} voxels")
        extensions = source.read(offset - size)
    elif not isinstance(header, nib.Spm2AnalyzeHeader):
        extensions = (
            source.read(min(source.capacity - size, _LARGEST_VOX_OFFSET)) if not source.is_gzip else b""
        )
    blocks = _extensions(extensions, header.endianness)
    _refuse_cifti(path, header, blocks)
    warnings = []
    bitpix = int(header["bitpix"])
    if bitpix not in (0, 8 * dtype.itemsize):
        warnings.append(
            f"The header says {bitpix} bits a voxel, but its data type has {8 * dtype.itemsize}; the type "
            "counts."
        )
    return OpenedNifti(header, shape, dtype, offset, data_path, [content for _, content in blocks], warnings)


def _parse(path: Path, source: ByteSource) -> tuple[Any, bool]:
    """Header of a file, not yet believed, and whether the voxels follow in the same file."""
    source.require(348, "a NIfTI header")
    start = source.read(4)
    for endianness in "<>":
        size = struct.unpack(f"{endianness}i", start)[0]
        if size == 540:
            source.require(540, "a NIfTI-2 header")
            block = start + source.read(536)
            if block[4:7] not in (b"n+2", b"ni2"):
                break
            return nib.Nifti2Header(block, endianness, check=False), block[4:7] == b"n+2"
        if size == 348:
            block = start + source.read(344)
            if block[344:347] in (b"n+1", b"ni1"):
                return nib.Nifti1Header(block, endianness, check=False), block[344:347] == b"n+1"
            if path.name.lower().endswith((".hdr", ".hdr.gz")):
                return nib.Spm2AnalyzeHeader(block, endianness, check=False), False
            break
    raise ImageError(
        f"{path.name} is not a NIfTI file: its header does not begin as one; check what the file is, "
        "or export it again."
    )


def _shape(header: Any, path: Path) -> tuple[int, ...]:
    n_axes = int(header["dim"][0])
    shape = tuple(int(n) for n in header["dim"][1 : n_axes + 1]) if 1 <= n_axes <= 7 else ()
    if not shape or min(shape) < 1:
        raise ImageError(
            f"{path.name} has an impossible shape: its header says dim = {[int(n) for n in header['dim']]}; "
            "a scan has 2 or 3 axes of at least one voxel, so export it again."
        )
    return shape


def _dtype(header: Any, path: Path) -> np.dtype[Any]:
    code = int(header["datatype"])
    if code in _KIND_OF_DATATYPE:
        raise ImageError(
            f"{path.name} holds {_KIND_OF_DATATYPE[code]}: scans have one number a voxel; "
            "convert it to a grey-scale volume."
        )
    try:
        dtype: np.dtype[Any] = header.get_data_dtype()
        known = code in data_type_codes.code and dtype.kind in "iuf" and dtype.itemsize > 0
    except (HeaderDataError, KeyError, WrapStructError):
        known = False
    if not known:
        raise ImageError(
            f"{path.name} has the unknown data type code {code}; its header is damaged, export it again."
        )
    return dtype


def _offset(header: Any, header_size: int, path: Path) -> int:
    value = float(header["vox_offset"])
    if not np.isfinite(value) or value != int(value) or not 0 <= value <= _LARGEST_VOX_OFFSET:
        raise ImageError(
            f"{path.name} says that its voxels begin at byte {value:g}; its header is damaged, export it "
            f"again."
        )
    # writers that leave 0 in a single file mean "right after the header and its four extension bytes"
    return int(value) if header_size == 0 or value >= header_size else header_size + 4


def _refuse_cifti(path: Path, header: Any, blocks: list[tuple[int, bytes]]) -> None:
    intent = 0 if isinstance(header, nib.Spm2AnalyzeHeader) else int(header["intent_code"])
    if intent in _CIFTI_INTENTS or any(code == _CIFTI_EXTENSION for code, _ in blocks):
        raise ImageError(
            f"{path.name} is a CIFTI file, not a voxel image: it holds values of brain surfaces or a "
            f"connectivity "
            "matrix; open the scan itself."
        )


def _extensions(content: bytes, endianness: str) -> list[tuple[int, bytes]]:
    """Header extensions as (code, content); stops at the first that makes no sense."""
    blocks: list[tuple[int, bytes]] = []
    if len(content) < 4 or content[0] == 0:
        return blocks
    position = 4
    while position + 8 <= len(content):
        size, code = struct.unpack_from(f"{endianness}ii", content, position)
        if size < 8 or position + size > len(content):
            break
        blocks.append((code, content[position + 8 : position + size]))
        position += size
    return blocks


def header_half(path: Path) -> Path:
    """For the .img half of a pair, the path of its .hdr."""
    for image, header in ((".img", ".hdr"), (".img.gz", ".hdr.gz"), (".IMG", ".HDR")):
        if path.name.endswith(image):
            other = path.with_name(path.name[: -len(image)] + header)
            if not other.exists() and image == ".img.gz":
                other = other.with_suffix("")
            if not other.exists():
                raise ImageError(
                    f"{path.name} is half of a pair and {other.name} is missing; put it beside {path.name}."
                )
            return other
    return path


def _data_half(path: Path) -> Path:
    """For the .hdr half of a pair, the path of its .img."""
    stem = path.name
    for header in (".hdr", ".hdr.gz", ".HDR"):
        if path.name.endswith(header):
            stem = path.name[: -len(header)]
    names = [stem + image for image in (".img", ".img.gz", ".IMG")]
    for name in names:
        if path.with_name(name).exists():
            return path.with_name(name)
    raise ImageError(f"{path.name} is a header only and {names[0]} is missing; put {names[0]} beside it.")


def shape_text(shape: tuple[int, ...]) -> str:
    """A shape for people."""
    return " x ".join(map(str, shape))
