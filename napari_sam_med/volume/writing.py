"""Labels out: written beside, read again, compared, and only then put in the place of the previous file."""

from __future__ import annotations

import os
from collections.abc import Mapping
from gzip import GzipFile
from pathlib import Path
from typing import Any, Literal

import numpy.typing as npt

from napari_sam_med.errors import ExportError, ImageError, LabelError
from napari_sam_med.volume.disk_labels import is_on_disk
from napari_sam_med.volume.formats import (
    coco,
    dicom,
    metaimage,
    nifti,
    nrrd,
    ome_zarr,
    ome_zarr_writing,
    reading_again,
    sidecar,
)
from napari_sam_med.volume.formats.label_description import TABLE_ENDINGS, table_content
from napari_sam_med.volume.formats.reading_again import ReadAgain
from napari_sam_med.volume.formats.sidecar import Origin
from napari_sam_med.volume.grid import Grid
from napari_sam_med.volume.labels import LabelVolume
from napari_sam_med.volume.organs import OrganTable
from napari_sam_med.volume.replacement import Replacement, not_written, sweep_orphans
from napari_sam_med.volume.volume import Volume

__all__ = [
    "FILE_ENDINGS",
    "LABEL_ENDINGS",
    "SERIES_ENDINGS",
    "holds_voxels",
    "refuse_sources",
    "refuse_unfit",
    "remarks",
    "write_labels",
    "write_table",
]

LabelEnding = Literal[
    ".nii",
    ".nii.gz",
    ".nrrd",
    ".seg.nrrd",
    ".mha",
    ".ome.zarr",
    ".seg.dcm",
    ".dcm",
    ".coco.json",
    ".stl",
    ".obj",
    ".ply",
    ".vtk",
]
#: Endings of files that `write_labels` makes of labels of any scan; the longer of two that fit counts.
FILE_ENDINGS: tuple[LabelEnding, ...] = (
    *(".seg.nrrd", ".nii.gz", ".nii", ".nrrd", ".mha"),
    *(".coco.json", ".stl", ".obj", ".ply", ".vtk"),
)
#: All endings that it takes for such labels: of files, and of the folder of an OME-Zarr image.
LABEL_ENDINGS: tuple[LabelEnding, ...] = (*FILE_ENDINGS, ".ome.zarr")
#: Endings that it takes for labels of a DICOM series, too.
SERIES_ENDINGS: tuple[LabelEnding, ...] = (".seg.dcm", ".dcm")

# NIfTI stores float32: a qform was measured to be 3.7e-5 mm off in ordinary heads
_AFFINE_TOLERANCE_MM = 1e-3


def write_labels(
    path: str | os.PathLike[str],
    labels: LabelVolume,
    *,
    source: Volume | None = None,
    model: Mapping[str, Any] | None = None,
    origin: Origin | None = None,
) -> Path:
    """Write labels on the grid of their scan, and a sidecar ``<stem>.sam-med.json`` beside them.

    A new file is written beside, read again and compared (voxels, affine, names) before it replaces the
    previous one; on any failure the previous file stays as it is, unless the error says that only the
    sidecar failed. A symbolic link is written through.

    Parameters
    ----------
    path : path
        The ending decides: ``.nii``, ``.nii.gz``, ``.nrrd``, ``.seg.nrrd`` or ``.mha`` for label volumes,
        ``.ome.zarr`` for a folder of a label image in OME-Zarr,
        ``.dcm`` or ``.seg.dcm`` for a DICOM SEG of a DICOM series,
        ``.coco.json`` for masks of slices, ``.stl``, ``.obj``, ``.ply`` or ``.vtk`` for surfaces in LPS mm;
        `remarks` says what a format cannot keep. NIfTI carries the geometry of a NIfTI source bit for bit;
        NIfTI, .seg.nrrd, OME-Zarr and DICOM SEG carry names and colours. Labels that lie on the disk are
        written as ``.nii``, ``.nii.gz`` or ``.ome.zarr``.
    labels : LabelVolume
        uint8 and uint16 stay what they are.
    source : Volume, optional
        The scan; its grid must be that of `labels`, and its header is used. By default what `labels`
        remember.
    model : mapping, optional
        Name, version and hash of the model, for the sidecar.
    origin : Origin, optional
        What an earlier sidecar said of scan and model, see `read_origin`; for what is not known otherwise.

    Returns
    -------
    Path
        The label file.

    Raises
    ------
    ExportError
        If the ending is unknown, the target is the scan itself or cannot be written, or the file does not
        read back as it should.
    LabelError
        If `source` lies on another grid.
    """
    target = Path(path)
    ending = _ending_of(target)
    header, source_path = labels.header, labels.path
    if source is not None:
        header, source_path = source.header, source.path
        if not source.grid.same_as(labels.grid):
            raise LabelError(
                f"The labels have another grid than {source.name}: they must lie on the scan's own voxels; "
                "read them with `read_labels(path, reference=volume)`."
            )
    refuse_sources(target, labels, source, origin)
    if is_on_disk(labels.data):
        _refuse_in_memory(target, ending)
    organs = labels.organs.covering(labels.class_ids())
    sweep_orphans(Path(os.path.realpath(target)).parent)
    try:
        with (
            _replacement(target, ending) as file,
            Replacement(sidecar.path_beside(target), ".json") as beside,
        ):
            known = Origin.of(source_path, model, dicom.files_of(header)).completed_by(origin or Origin())
            content = _content_without_grid(ending, labels, organs, known)
            if ending == ".dcm" or ending == ".seg.dcm":
                _write_seg(file, labels, header, organs, known)
            elif isinstance(file, ome_zarr_writing.FolderReplacement):
                ome_zarr_writing.write(file, labels, header, organs)
            elif content is None:
                _write_volume(file, ending, labels, header, organs)
            else:
                _write_bytes(file, content)
            beside.temporary.write_bytes(sidecar.content(target, labels.grid, organs, known))
            beside.flush_to_disk()
            file.put_in_place()
            _put_sidecar_in_place(beside, target)
    except OSError as error:
        raise not_written(target, error) from error
    return target


def refuse_unfit(path: str | os.PathLike[str], volume: Volume) -> None:
    """Refuse now a name for labels of a scan that `write_labels` would refuse after long work.

    Raises
    ------
    ExportError
        If its ending is of no label format, or of one that cannot hold labels of this scan.
    ImageError
        If zarr is needed and not installed.
    """
    target = Path(path)
    ending = _ending_of(target)
    if ending == ".ome.zarr":
        ome_zarr.zarr_module()
        ome_zarr_writing.refuse_tilt(volume.grid, target)
    elif volume.is_lazy:
        _refuse_in_memory(target, ending)


def _refuse_in_memory(target: Path, ending: LabelEnding) -> None:
    if ending not in (".nii", ".nii.gz", ".ome.zarr"):
        raise ExportError(
            f"{target} was not written: {ending} files are made in memory, and these labels are larger than "
            "that; choose .ome.zarr or .nii.gz."
        )


def _replacement(target: Path, ending: LabelEnding) -> Replacement:
    return (ome_zarr_writing.FolderReplacement if ending == ".ome.zarr" else Replacement)(target, ending)


def write_table(path: str | os.PathLike[str], organs: OrganTable) -> Path:
    """Write names and colours for another program, as `write_labels` writes: whole or not at all.

    Parameters
    ----------
    path : path
        The ending decides: ``.label`` (ITK-SNAP label description) or ``.lut.txt`` (FreeSurfer colour table).
    organs : OrganTable

    Returns
    -------
    Path
        The file.

    Raises
    ------
    ExportError
        If the ending is unknown or the target cannot be written.
    """
    target = Path(path)
    ending = next((e for e in TABLE_ENDINGS if target.name.lower().endswith(e)), None)
    if ending is None:
        raise ExportError(f"{target.name} has no ending of a table: choose {' or '.join(TABLE_ENDINGS)}.")
    sweep_orphans(Path(os.path.realpath(target)).parent)
    try:
        with Replacement(target, ending) as file:
            _write_bytes(file, table_content(ending, organs))
            file.put_in_place()
    except OSError as error:
        raise not_written(target, error) from error
    return target


def holds_voxels(path: str | os.PathLike[str]) -> bool:
    """Whether labels at a path can be read again as they are: surfaces and COCO masks are for other uses."""
    return (
        not Path(path).name.lower().endswith((".coco.json", ".stl", ".obj", ".ply", ".vtk", *TABLE_ENDINGS))
    )


def remarks(path: str | os.PathLike[str], n_organs: int = 1) -> tuple[str, ...]:
    """What people must know of labels with `n_organs` organs at a path, one line each.

    What the format cannot keep, and a file beside it that other programs take for it; ask after writing.
    """
    file = Path(path)
    name, lower = file.name, file.name.lower()
    if lower.endswith(".coco.json"):
        return (f"{name} is lossy: {coco.LOSS}",)
    if lower.endswith(TABLE_ENDINGS):
        return (f"{name} holds names and colours, no voxels.",)
    if lower.endswith((".nii", ".nii.gz")):
        plain = name[:-3] if lower.endswith(".gz") else name
        if not (file.with_name(plain).exists() and file.with_name(f"{plain}.gz").exists()):
            return ()
        return (
            f"{plain} and {plain}.gz lie side by side: 3D Slicer and others on ITK read the former even when "
            "asked for the latter; remove or rename one of them.",
        )
    if not lower.endswith((".stl", ".obj", ".ply", ".vtk")):
        return ()
    lines = [f"{name} holds surfaces, from which voxels cannot be restored; keep a label volume, too."]
    if lower.endswith(".stl") and n_organs > 1:
        lines.append(
            f"{name} cannot tell its {n_organs} organs apart; choose .obj or .vtk, or one file each "
            "(convert: {organ} in the name)."
        )
    return tuple(lines)


def _content_without_grid(
    ending: LabelEnding, labels: LabelVolume, organs: OrganTable, origin: Origin
) -> bytes | None:
    """Content of a file that is no volume of voxels; None for those that are."""
    if ending == ".coco.json":
        return coco.content(labels, organs, origin)
    if ending == ".stl" or ending == ".obj" or ending == ".ply" or ending == ".vtk":
        from napari_sam_med.volume.formats import surfaces  # late: its libraries take a while to load

        return surfaces.content(ending, labels, organs)
    return None


def _write_bytes(file: Replacement, content: bytes) -> None:
    """Write, flush and read again."""
    file.temporary.write_bytes(content)
    file.flush_to_disk()
    if file.temporary.read_bytes() != content:
        raise ExportError(
            f"{file.target.name} was written but read back with other bytes; check the disk. The previous "
            "file is as it was."
        )


def _put_sidecar_in_place(beside: Replacement, labels_path: Path) -> None:
    try:
        beside.put_in_place()
    except OSError as error:
        raise ExportError(
            f"The labels were written to {labels_path}, but {beside.target.name} beside them could not be "
            f"({error.strerror or error}): it is missing or of the previous labels. Remove what is in its "
            "way and write the labels again."
        ) from error


def _ending_of(path: Path) -> LabelEnding:
    name = path.name.lower()
    for ending in (*LABEL_ENDINGS, *SERIES_ENDINGS):
        if name.endswith(ending) and len(name) > len(ending):
            return ending
    if name.endswith(TABLE_ENDINGS):
        raise ExportError(f"{path.name} is a table of names without voxels; use `write_table` for it.")
    raise ExportError(
        f"{path.name} has no ending of a label format: choose .nii.gz, .nii, .nrrd, .seg.nrrd, .mha or "
        ".ome.zarr, .dcm for a DICOM series, or .coco.json, .stl, .obj, .ply or .vtk."
    )


def refuse_sources(
    target: Path, labels: LabelVolume, source: Volume | None = None, origin: Origin | None = None
) -> None:
    """Refuse to write over the scan that labels were drawn on, whichever of these knows it.

    Raises
    ------
    ExportError
        If `target` is that file, also through a link.
    """
    known = None if origin is None or origin.source is None else origin.source["path"]
    series = [dicom.files_of(labels.header), () if source is None else dicom.files_of(source.header)]
    for scan in (labels.path, None if source is None else source.path, known, *series[0], *series[1]):
        # of a damaged sidecar a path may be too long, which `exists` of a Path takes ill
        if scan is not None and os.path.exists(target) and os.path.exists(scan) and target.samefile(scan):
            raise ExportError(
                f"{target} is the scan itself, which labels must not replace; choose another name."
            )


def _write_volume(
    file: Replacement, ending: LabelEnding, labels: LabelVolume, header: object, organs: OrganTable
) -> None:
    """Write, flush, read again and compare."""
    try:
        _write(file.temporary, ending, labels, header, organs)
        file.flush_to_disk()
        _compare(file.temporary, ending, labels, organs)
    except ExportError as error:
        file.raise_hidden_error()  # SimpleITK is silent on a full disk
        raise ExportError(f"{file.target} was not written: {error}") from error


def _write_seg(
    file: Replacement, labels: LabelVolume, header: object, organs: OrganTable, origin: Origin
) -> None:
    try:
        dicom.write_seg(file, labels, header, organs, origin.model)
    except ExportError as error:  # it knows the file by its temporary name
        raise ExportError(f"{file.target} was not written: {error}") from error


def _write(path: Path, ending: LabelEnding, labels: LabelVolume, header: object, organs: OrganTable) -> None:
    array_ijk = labels.grid.from_canonical(labels.data)
    if ending not in (".nii", ".nii.gz"):
        nrrd.write(path, array_ijk, labels.grid, organs)
        return
    with path.open("wb") as stream:
        if ending == ".nii":
            nifti.write(stream, array_ijk, labels.grid, header, organs)
            return
        # no name and no time in the gzip header: the same labels give the same bytes
        with GzipFile("", "wb", compresslevel=6, fileobj=stream, mtime=0) as packed:
            nifti.write(packed, array_ijk, labels.grid, header, organs)


def _compare(path: Path, ending: LabelEnding, labels: LabelVolume, organs: OrganTable) -> None:
    """Read the written file again; it must hold the same voxels, place and names."""
    array_ijk = labels.grid.from_canonical(labels.data)
    try:
        written = _read_again(path, ending, array_ijk, labels.grid)
    except (ImageError, LabelError) as error:
        raise ExportError(
            f"The labels were written but cannot be read again ({error}); check the disk."
        ) from error
    if not written.is_equal:
        raise ExportError("The labels were written but read back with other values; check the disk.")
    i, j, k = array_ijk.shape
    if not labels.grid.same_as(Grid(written.affine, (i, j, k)), tolerance_mm=_AFFINE_TOLERANCE_MM):
        raise ExportError(
            f"This geometry (shear {labels.grid.shear:.2g}) does not survive in a {ending} file; choose "
            f".nii.gz."
        )
    if ending in (".nii", ".nii.gz", ".seg.nrrd"):
        names = None if written.organs is None else {i: organ.name for i, organ in written.organs.items()}
        if (names or {}) != {i: organ.name for i, organ in organs.items()}:
            raise ExportError(
                "The organ names were written but read back changed; rename them and export again."
            )


def _read_again(path: Path, ending: LabelEnding, array_ijk: npt.NDArray[Any], grid: Grid) -> ReadAgain:
    if ending in (".nii", ".nii.gz"):
        return reading_again.compare_nifti(path, array_ijk, None if grid.doubt is None else grid.doubt.used)
    scan = metaimage.read(path) if ending == ".mha" else nrrd.read(path)
    return ReadAgain(reading_again.are_equal(scan.array_ijk, array_ijk), scan.affine, scan.organs)
