"""Files in: the content of a file, not its name, decides who reads it."""

from __future__ import annotations

import operator
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, Protocol, SupportsIndex

import numpy as np
import numpy.typing as npt

from napari_sam_med.errors import ImageError, LabelError
from napari_sam_med.volume.disk_labels import DiskLabels, refuse_on_disk
from napari_sam_med.volume.formats import coco, dicom, metaimage, nifti, nrrd, ome_zarr, sidecar
from napari_sam_med.volume.formats.content import FileKind, kind_of
from napari_sam_med.volume.formats.label_description import read_table
from napari_sam_med.volume.formats.scan import Scan
from napari_sam_med.volume.formats.sidecar import Origin
from napari_sam_med.volume.geometry_doubt import GeometryDoubt
from napari_sam_med.volume.grid import MOST_SHEAR, Grid, shear_of
from napari_sam_med.volume.intensity import contrast_warning
from napari_sam_med.volume.label_values import placed_on, whole_numbers
from napari_sam_med.volume.labels import LabelVolume
from napari_sam_med.volume.lazy_array import LazyArray
from napari_sam_med.volume.organs import OrganTable
from napari_sam_med.volume.volume import Volume

__all__ = ["read_labels", "read_volume", "volume_times"]

#: One slash where it has been a `Path`; drives of Windows have one letter.
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]+:/", re.IGNORECASE)


class _Reader(Protocol):
    """A module of `formats` that reads."""

    def n_times(self, path: Path) -> int: ...

    def read(self, path: Path, time: int | None = None) -> Scan: ...


_READERS: dict[FileKind, _Reader] = {
    "nifti": nifti,
    "nrrd": nrrd,
    "metaimage": metaimage,
    "dicom": dicom,
    "ome_zarr": ome_zarr,
}


def read_volume(
    path: str | os.PathLike[str],
    *,
    time: SupportsIndex | None = None,
    form: Literal["sform", "qform"] | None = None,
) -> Volume:
    """Read a scan: NIfTI (.nii, .nii.gz, pairs), Analyze, NRRD, MetaImage, a DICOM series, or OME-Zarr.

    Parameters
    ----------
    path : path
        The file; for DICOM the folder of a series or any file of it, for OME-Zarr the folder of the image
        or the ``zarr.json`` or ``.zattrs`` in it. What is inside decides how it is read; a
        name that says otherwise gives a warning.
    time : int, optional
        Which volume of a file that holds several (time points or components, counted in file order); the
        first, with a warning, when left out.
    form : {"sform", "qform"}, optional
        Which form of a NIfTI header to believe where both are sound and disagree; the sform, with a warning,
        when left out.

    Returns
    -------
    Volume
        Voxels as LPS+ (z, y, x) in the stored dtype; ``.warnings`` says what is odd about the file. Those of
        an OME-Zarr image that is larger than a sixth of the memory stay on the disk (`LazyArray`).

    Raises
    ------
    ImageError
        If the file is missing, truncated, damaged, no scan, or of a format that is not read.
    """
    file = _file(path)
    index = None if time is None else operator.index(time)
    scan = _scan(file, index, form)
    grid = _grid(scan)
    volume = Volume(
        data=grid.to_canonical(scan.array_ijk),
        grid=grid,
        path=file,
        warnings=scan.warnings,
        header=scan.header,
        n_times=scan.n_times,
        time=index or 0,
        levels=tuple(grid.to_canonical(level) for level in scan.levels),
    )
    odd = contrast_warning(volume)
    return replace(volume, warnings=(*volume.warnings, odd)) if odd else volume


def volume_times(path: str | os.PathLike[str]) -> int:
    """Number of volumes (time points or components) that a file holds; reads its header only.

    Raises
    ------
    ImageError
        As `read_volume` does.
    """
    file = _file(path)
    kind, _ = kind_of(file)
    return _READERS[kind].n_times(file)


def read_labels(
    path: str | os.PathLike[str],
    *,
    reference: Volume | None = None,
    names: OrganTable | str | os.PathLike[str] | None = None,
) -> LabelVolume:
    """Read labels: formats of `read_volume`, DICOM SEG, or COCO masks (.coco.json) written here.

    Names and colours come from the file's own table, else from its sidecar, else they are ``label N``.
    Values are made whole numbers: floats with noise below 0.001 are rounded, a 0/255 mask becomes 0/1, and a
    few negative values (which mean "unknown" in some data sets) become background, the latter two with a
    warning.

    Parameters
    ----------
    path : path
    reference : Volume, optional
        The scan that the labels belong to; the result then lies on its grid and keeps its header for export.
        Labels on another grid are placed by their affine, nearest neighbour, with a warning; never by index.
    names : OrganTable or path, optional
        Names and colours that win over those of the file; a path is of an ITK-SNAP label description or a
        FreeSurfer colour table.

    Returns
    -------
    LabelVolume
        uint8, or uint16 where a number is above 255; ``.warnings`` says what was odd.

    Raises
    ------
    ImageError
        As `read_volume` does.
    LabelError
        If the values are no labels, the file holds several volumes or overlapping segments, or it shares no
        voxel with `reference`; or if `names` cannot be read.
    """
    file = _file(path)
    given = (
        OrganTable() if names is None else names if isinstance(names, OrganTable) else read_table(Path(names))
    )
    if file.name.lower().endswith(".coco.json"):
        return _coco_labels(file, reference, given)
    if reference is not None and reference.is_lazy and ome_zarr.root_of(file) is None:
        raise LabelError(
            f"{file.name} cannot be opened on {reference.name}, which is larger than memory: labels of such "
            "scans are read from OME-Zarr; export them as .ome.zarr."
        )
    scan = _scan(file, None, _form_of(reference))
    if scan.n_times > 1:
        raise LabelError(
            f"{file.name} holds {scan.n_times} volumes or overlapping layers, and a voxel can have one "
            f"label here; "
            "merge them first (in 3D Slicer: export as a label map)."
        )
    grid = _grid(scan)
    data, warnings = _label_numbers(grid.to_canonical(scan.array_ijk), file.name)
    organs, more = (scan.organs, []) if scan.organs is not None else sidecar.read_organs(file, grid)
    header, source_path = scan.header, None
    if reference is not None:
        header, source_path = reference.header, reference.path
        if not reference.grid.same_voxels_as(grid):
            refuse_on_disk(data, f"Placing {file.name} on another grid", "give labels of the scan's own grid")
            data, placement = placed_on(reference.grid, data, grid, file.name)
            more += placement
        grid = reference.grid
    labels = LabelVolume(
        data,
        grid,
        OrganTable((dict(organs or {}) | dict(given)).values()),
        header=header,
        path=source_path,
        warnings=(*scan.warnings, *warnings, *more),
    )
    labels.organs = labels.organs.covering(labels.class_ids())
    return labels


def _file(path: str | os.PathLike[str]) -> Path:
    """The path; for a file that marks a folder as OME-Zarr, that folder; raises on addresses."""
    if _ADDRESS.match(os.fspath(path)) and not Path(path).exists():
        raise ImageError(
            f"{os.fspath(path)} is an address: files on this machine and on mounted drives are read; "
            "download it first."
        )
    return ome_zarr.root_of(Path(path)) or Path(path)


def _coco_labels(file: Path, reference: Volume | None, given: OrganTable) -> LabelVolume:
    if reference is None:
        raise LabelError(
            f"{file.name} holds masks of single slices without geometry; give the scan on which they lie as "
            "the reference."
        )
    known = Origin.of(reference.path, None, dicom.files_of(reference.header)).source
    data, organs = coco.read(file, reference.grid, None if known is None else known["sha256"])
    small = data if int(data.max(initial=0)) > 255 else data.astype(np.uint8)
    named = OrganTable((dict(organs) | dict(given)).values())
    labels = LabelVolume(small, reference.grid, named, header=reference.header, path=reference.path)
    labels.organs = labels.organs.covering(labels.class_ids())
    return labels


def _label_numbers(data_zyx: Any, name: str) -> tuple[npt.NDArray[Any], list[str]]:
    """Labels as whole numbers; those of a file that stay on the disk are copied to it, slice by slice."""
    if not isinstance(data_zyx, LazyArray):
        return whole_numbers(data_zyx, name)
    if data_zyx.dtype not in (np.uint8, np.uint16):
        raise LabelError(
            f"{name} holds {data_zyx.dtype.name} numbers and is larger than memory: such labels are read as "
            "uint8 or uint16; write it again as one of these."
        )
    labels = DiskLabels.zeros(data_zyx.shape)
    for index in range(len(labels)):
        plane = data_zyx[index]
        if plane.any():
            labels[index] = plane
    return labels, []


def _form_of(reference: Volume | None) -> str | None:
    """The form by which a scan was placed: labels with its header lie where it lies."""
    doubt = None if reference is None else reference.grid.doubt
    return None if doubt is None else doubt.used


def _scan(path: Path, time: int | None, form: str | None) -> Scan:
    kind, warnings = kind_of(path)
    scan = nifti.read(path, time, form) if kind == "nifti" else _READERS[kind].read(path, time)
    return scan.with_warnings(warnings)


def _grid(scan: Scan) -> Grid:
    i, j, k = scan.array_ijk.shape
    return Grid(scan.affine, (i, j, k), doubt=_with_shear(scan.doubt, scan.affine))


def _with_shear(doubt: GeometryDoubt | None, affine: npt.NDArray[np.float64]) -> GeometryDoubt | None:
    shear = shear_of(affine)
    if shear <= MOST_SHEAR:
        return doubt
    known = GeometryDoubt((), "matrix") if doubt is None else doubt
    return known.with_fact(
        f"its voxel axes are not at right angles (shear {shear:.2g})", "with its slices shown straight"
    )
