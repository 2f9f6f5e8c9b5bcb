"""NIfTI-1 and NIfTI-2 in and out, and Analyze 7.5 in; voxels come from length- and CRC-checked bytes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from gzip import GzipFile
from pathlib import Path
from typing import IO, Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
from nibabel.nifti1 import Nifti1Extension

from napari_sam_med.errors import ImageError
from napari_sam_med.volume.formats.byte_source import ByteSource
from napari_sam_med.volume.formats.label_table import from_xml, to_xml
from napari_sam_med.volume.formats.nifti_geometry import (
    AXES_AS_LAS,
    ChosenAffine,
    base_affine_of_analyze,
    choose_affine,
    describe_units,
    geometry_warnings,
)
from napari_sam_med.volume.formats.nifti_header import OpenedNifti, header_half, open_nifti, shape_text
from napari_sam_med.volume.formats.scan import Scan
from napari_sam_med.volume.geometry_doubt import GeometryDoubt
from napari_sam_med.volume.grid import Grid, shear_of
from napari_sam_med.volume.organs import OrganTable

__all__ = ["NiftiSource", "n_times", "read", "write"]


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


def n_times(path: Path) -> int:
    """Number of three-dimensional volumes in a file, or in either half of a pair; reads the header only."""
    path = header_half(path)
    with ByteSource(path) as source:
        return open_nifti(path, source).n_times


def read(path: Path, time: int | None = None, form: str | None = None) -> Scan:
    """One volume of a NIfTI or Analyze file.

    Parameters
    ----------
    path : Path
        ``.nii``, ``.nii.gz`` or either half of a pair; what is inside decides.
    time : int, optional
        Which volume of a file that holds several; the first, with a warning, when left out.
    form : {"sform", "qform"}, optional
        Which form of the header to believe where both are sound and disagree; the sform, with a warning,
        when left out.

    Raises
    ------
    ImageError
        If the file is truncated, damaged, no voxel image, of colours or complex numbers, or lacks its other
        half.
    """
    path = header_half(path)
    try:
        with ByteSource(path) as source:
            opened = open_nifti(path, source)
            if opened.data_path == path:
                array, time_warnings = _read_array(opened, source, time)
            else:
                source.finish()
                with ByteSource(opened.data_path) as data_source:
                    array, time_warnings = _read_array(opened, data_source, time)
    except MemoryError as error:
        raise ImageError(f"{path.name} does not fit into memory; crop or downsample it first.") from error
    array = _scaled(array, opened.header, path)
    chosen = _affine(opened, form)
    if isinstance(opened.header, nib.Spm2AnalyzeHeader):
        header = None
    else:
        header = NiftiSource(_as_single_file(opened.header), opened.shape, chosen.is_stored)
    organs = next((table for table in map(from_xml, opened.tables) if table is not None), None)
    warnings = [*opened.warnings, *time_warnings, *chosen.warnings, *geometry_warnings(chosen.affine)]
    return Scan(array, chosen.affine, header, opened.n_times, tuple(warnings), organs, chosen.doubt)


def write(
    stream: IO[bytes] | GzipFile,
    array_ijk: npt.NDArray[Any],
    grid: Grid,
    source: object | None,
    organs: OrganTable | None,
) -> None:
    """Write an array (i, j, k) as an uncompressed NIfTI file into a stream: labels of `organs`, or an image.

    Labels are uint8 or uint16; an image, without `organs`, is float32.

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
    header.set_intent("none" if organs is None else "label", (), name="")
    header["cal_min"] = header["cal_max"] = 0  # a display range of the scan would hide what is written
    header.extensions.clear()
    if organs is not None:
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


def _read_array(
    opened: OpenedNifti, source: ByteSource, time: int | None
) -> tuple[npt.NDArray[Any], list[str]]:
    """One volume (i, j, k) in native byte order; the rest of a gzip stream is read past, for its CRC."""
    name, count = source.path.name, opened.n_times
    if time is not None and not 0 <= time < count:
        raise ImageError(
            f"{name} holds {count} volume{'s' * (count > 1)}; time {time} does not exist, give 0 to "
            f"{count - 1}."
        )
    n_voxels = int(np.prod(opened.shape_ijk, dtype=object))
    n_bytes = n_voxels * opened.dtype.itemsize
    source.require(opened.offset + n_bytes * count, f"{shape_text(opened.shape)} voxels")
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


def _affine(opened: OpenedNifti, form: str | None) -> ChosenAffine:
    if not isinstance(opened.header, nib.Spm2AnalyzeHeader):
        chosen = choose_affine(opened.header, opened.shape_ijk, form)
        return replace(chosen, warnings=[*chosen.warnings, *describe_units(opened.header)])
    affine_or_none = base_affine_of_analyze(opened.header)
    facts: tuple[str, ...] = ("it has no orientation",)
    if affine_or_none is None:
        affine_or_none = Grid.from_zyx(opened.shape_ijk[::-1]).affine
        size = "its voxel sizes are damaged too (1 mm is assumed)"
        facts = (*facts, "its voxel sizes are damaged (1 mm is assumed)")
    else:
        size = (
            "only its voxel sizes are used, and its axes are taken to run to left, anterior, superior (LAS)"
        )
    warning = f"An Analyze 7.5 file has no orientation: {size}; check left and right."
    doubt = GeometryDoubt(facts, "voxel sizes", remark=AXES_AS_LAS)
    return ChosenAffine(affine_or_none, False, [warning], doubt)
