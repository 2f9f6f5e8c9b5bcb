"""NIfTI-1 and NIfTI-2 in and out, and Analyze 7.5 in; voxels come from length- and CRC-checked bytes."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from gzip import GzipFile
from pathlib import Path
from typing import IO, Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
from nibabel.nifti1 import Nifti1Extension, data_type_codes
from nibabel.spatialimages import HeaderDataError
from nibabel.wrapstruct import WrapStructError

from napari_sam_med.errors import ImageError
from napari_sam_med.volume.formats.byte_source import ByteSource
from napari_sam_med.volume.formats.label_table import from_xml, to_xml
from napari_sam_med.volume.formats.nifti_geometry import (
    base_affine_of_analyze,
    choose_affine,
    describe_units,
    geometry_warnings,
)
from napari_sam_med.volume.formats.scan import Scan
from napari_sam_med.volume.grid import Grid, shear_of
from napari_sam_med.volume.organs import OrganTable

__all__ = ["NiftiSource", "n_times", "read", "write"]

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
class NiftiSource:
    """Header of a NIfTI file, kept so that labels are written with the same geometry, bit for bit.

    Attributes
    ----------
    header : nibabel.Nifti1Header or Nifti2Header
    shape : tuple of int
        Shape that the file declares, with trailing axes of length 1 or two axes only.
    is_stored : bool
        False where the header's own geometry is damaged and must not be written again.
    """

    header: Any
    shape: tuple[int, ...]
    is_stored: bool = True

    @property
    def label_shape(self) -> tuple[int, ...]:
        """Shape of a label file for one volume of this file."""
        return self.shape if int(np.prod(self.shape[3:], dtype=np.int64)) == 1 else self.shape[:3]


@dataclass(frozen=True, eq=False)
class _Opened:
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


def n_times(path: Path) -> int:
    """Number of three-dimensional volumes in a file; reads the header only."""
    with ByteSource(path) as source:
        return _open(path, source).n_times


def read(path: Path, time: int | None = None) -> Scan:
    """One volume of a NIfTI or Analyze file.

    Parameters
    ----------
    path : Path
        ``.nii``, ``.nii.gz`` or either half of a pair; what is inside decides.
    time : int, optional
        Which volume of a file that holds several; the first, with a warning, when left out.

    Raises
    ------
    ImageError
        If the file is truncated, damaged, no voxel image, of colours or complex numbers, or lacks its other
        half.
    """
    path = _header_half(path)
    try:
        with ByteSource(path) as source:
            opened = _open(path, source)
            if opened.data_path == path:
                array, time_warnings = _read_array(opened, source, time)
            else:
                source.finish()
                with ByteSource(opened.data_path) as data_source:
                    array, time_warnings = _read_array(opened, data_source, time)
    except MemoryError as error:
        raise ImageError(f"{path.name} does not fit into memory; crop or downsample it first.") from error
    array = _scaled(array, opened.header, path)
    affine, is_stored, affine_warnings = _affine(opened)
    if isinstance(opened.header, nib.Spm2AnalyzeHeader):
        header = None
    else:
        header = NiftiSource(_as_single_file(opened.header), opened.shape, is_stored)
    organs = next((table for table in map(from_xml, opened.tables) if table is not None), None)
    warnings = [*opened.warnings, *time_warnings, *affine_warnings, *geometry_warnings(affine)]
    return Scan(array, affine, header, opened.n_times, tuple(warnings), organs)


def write(
    stream: IO[bytes] | GzipFile,
    array_ijk: npt.NDArray[Any],
    grid: Grid,
    source: object | None,
    organs: OrganTable,
) -> None:
    """Write a label array (i, j, k) of uint8 or uint16 as an uncompressed NIfTI file into a stream.

    The geometry fields are those of `source` bit for bit where it is a sound `NiftiSource`; else sform and
    qform are both written from the grid, with code 1 (scanner).
    """
    if isinstance(source, NiftiSource) and source.is_stored:
        header = source.header.copy()
        array_ijk = array_ijk.reshape(source.label_shape)
    else:
        header = _new_header(grid)
    if header.get_data_shape() != array_ijk.shape:  # setting it also resets unused voxel sizes
        header.set_data_shape(array_ijk.shape)
    header.set_data_dtype(array_ijk.dtype)
    header.set_slope_inter(1, 0)
    header.set_intent("label", (), name="")
    header["cal_min"] = header["cal_max"] = 0  # a display range of the scan would hide the labels
    header.extensions.clear()
    header.extensions.append(Nifti1Extension(0, to_xml(organs)))
    image_class = nib.Nifti2Image if isinstance(header, nib.Nifti2Header) else nib.Nifti1Image
    image_class(array_ijk, None, header).to_stream(stream)


def _new_header(grid: Grid) -> Any:
    header = nib.Nifti2Header() if max(grid.shape_ijk) > 32767 else nib.Nifti1Header()
    header.set_data_shape(grid.shape_ijk)
    header.set_sform(grid.affine, code=1)
    # a qform cannot hold a shear: two forms that disagree would be worse than one
    header.set_qform(grid.affine, code=1 if shear_of(grid.affine) <= 1e-5 else 0)
    header.set_xyzt_units("mm")
    return header


def _as_single_file(header: Any) -> Any:
    """The header as one of a .nii file: that of a pair differs in its magic alone."""
    single = nib.Nifti2Header if isinstance(header, nib.Nifti2Header) else nib.Nifti1Header
    result = single(header.binaryblock, header.endianness, check=False)
    result["magic"] = result.single_magic
    result["vox_offset"] = 0
    return result


def _header_half(path: Path) -> Path:
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


def _open(path: Path, source: ByteSource) -> _Opened:
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
        source.require(offset + n_bytes, f"{_shown(shape)} voxels")
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
            f"counts."
        )
    return _Opened(header, shape, dtype, offset, data_path, [content for _, content in blocks], warnings)


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


def _read_array(opened: _Opened, source: ByteSource, time: int | None) -> tuple[npt.NDArray[Any], list[str]]:
    """One volume (i, j, k) in native byte order; the rest of a gzip stream is read past, for its CRC."""
    name, count = source.path.name, opened.n_times
    if time is not None and not 0 <= time < count:
        raise ImageError(
            f"{name} holds {count} volume{'s' * (count > 1)}; time {time} does not exist, give 0 to "
            f"{count - 1}."
        )
    n_voxels = int(np.prod(opened.shape_ijk, dtype=object))
    n_bytes = n_voxels * opened.dtype.itemsize
    source.require(opened.offset + n_bytes * count, f"{_shown(opened.shape)} voxels")
    source.skip(opened.offset - source.position)
    source.skip(n_bytes * (time or 0))
    flat = np.empty(n_voxels, dtype=opened.dtype)
    source.fill(flat)
    source.skip(n_bytes * (count - 1 - (time or 0)) if source.is_gzip else 0)
    source.finish()
    if not flat.dtype.isnative:
        flat = flat.byteswap(inplace=True).view(flat.dtype.newbyteorder("="))
    warnings = []
    if count > 1 and time is None:
        what = "volumes (time points)" if len(opened.shape) == 4 else f"volumes ({len(opened.shape)}-D)"
        warnings.append(f"{name} holds {count} {what}; the first is used.")
    return flat.reshape(opened.shape_ijk, order="F"), warnings


def _scaled(array: npt.NDArray[Any], header: Any, path: Path) -> npt.NDArray[Any]:
    """Stored values times slope plus intercept, float32; the array itself where the file does not scale."""
    slope, inter = (_scale_factor(header, key) for key in ("scl_slope", "scl_inter"))
    if array.dtype == np.longdouble and array.dtype.itemsize > 8:
        array = array.astype(np.float64)
    if slope is None or slope == 0:  # the standard: a slope of 0 means no scaling
        return array
    inter = inter or 0.0
    if not np.isfinite([slope, inter]).all():
        raise ImageError(
            f"{path.name} scales its values by slope {slope} and intercept {inter}; export it again."
        )
    if (slope, inter) == (1.0, 0.0):
        return array
    scaled: npt.NDArray[Any] = array.astype(np.float64 if array.dtype == np.float64 else np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        scaled *= scaled.dtype.type(slope)
        scaled += scaled.dtype.type(inter)
    return scaled


def _scale_factor(header: Any, key: str) -> float | None:
    """Slope or intercept; None where there is no such field or it is NaN, which nibabel takes for unset."""
    try:
        value = float(header[key])
    except (KeyError, ValueError):
        return None
    return None if np.isnan(value) else value


def _affine(opened: _Opened) -> tuple[npt.NDArray[np.float64], bool, list[str]]:
    if not isinstance(opened.header, nib.Spm2AnalyzeHeader):
        affine, is_stored, warnings = choose_affine(opened.header, opened.shape_ijk)
        return affine, is_stored, [*warnings, *describe_units(opened.header)]
    affine_or_none = base_affine_of_analyze(opened.header)
    if affine_or_none is None:
        affine_or_none = Grid.from_zyx(opened.shape_ijk[::-1]).affine
        size = "its voxel sizes are damaged too (1 mm is assumed)"
    else:
        size = (
            "only its voxel sizes are used, and its axes are taken to run to left, anterior, superior (LAS)"
        )
    return affine_or_none, False, [f"An Analyze 7.5 file has no orientation: {size}; check left and right."]


def _shown(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
