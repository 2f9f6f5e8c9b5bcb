"""DICOM in: a folder of a series or any file of it, and DICOM SEG. Needs the extra ``dicom``."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from napari_sam_med.errors import ExportError, ImageError
from napari_sam_med.volume.formats.scan import Scan
from napari_sam_med.volume.labels import LabelVolume
from napari_sam_med.volume.organs import OrganTable
from napari_sam_med.volume.replacement import Replacement

__all__ = [
    "DicomSource",
    "files_of",
    "find_files",
    "has_dicom_mark",
    "is_available",
    "is_label_file",
    "n_times",
    "read",
    "refuse_foreign",
    "require",
    "write_seg",
]

_PACKAGES = ("pydicom", "highdicom")


@dataclass(frozen=True)
class DicomSource:
    """Where the slices of a series lie, for exports that refer to them.

    Attributes
    ----------
    files : tuple of Path
        The files, in the order of the slices; each once.
    slices : tuple of (int, int)
        Of each slice k, its file's position in `files` and its frame in that file, both from 0.
    """

    files: tuple[Path, ...]
    slices: tuple[tuple[int, int], ...]


def files_of(header: object | None) -> tuple[Path, ...]:
    """Files of the series that the header of a volume is of; none where it is of no series."""
    return header.files if isinstance(header, DicomSource) else ()


def is_available() -> bool:
    """Whether the packages of the extra are installed; imports nothing."""
    return all(importlib.util.find_spec(name) is not None for name in _PACKAGES)


def require(path: Path) -> None:
    """Refuse where the extra is missing.

    Raises
    ------
    ImageError
        With the command that installs it.
    """
    if not is_available():
        raise ImageError(
            f"{path.name} is DICOM, which needs pydicom and highdicom, and they are not installed: "
            'pip install "napari-sam-med[dicom]".'
        )


def has_dicom_mark(path: Path) -> bool:
    """Whether a file begins as DICOM files do; False where it cannot be read."""
    try:
        with path.open("rb") as stream:
            return stream.read(132)[128:] == b"DICM"
    except OSError:
        return False


def find_files(folder: Path) -> tuple[list[Path], list[str]]:
    """DICOM files of a folder, not of folders in it, by name, and names of files that only seem to be some.

    Raises
    ------
    ImageError
        If the folder cannot be read.
    """
    try:
        files = sorted(path for path in folder.iterdir() if path.is_file())
        found = [path for path in files if not path.name.startswith(".") and has_dicom_mark(path)]
        odd = {p.name for p in files if not p.name.startswith(".") and _is_like_dicom(p)}
    except OSError as error:
        raise ImageError(
            f"{folder} cannot be read: {error.strerror or error}; check the folder and its permissions."
        ) from error
    return found, sorted(odd - {path.name for path in found})


def _is_like_dicom(path: Path) -> bool:
    """Whether a file is called as those of series are."""
    ending = path.suffix.lower()
    return ending in ("", ".dcm", ".ima") or ending[1:].isdigit()


def is_label_file(path: Path) -> bool:
    """Whether a file is a DICOM SEG; False without the extra, which reading it then asks for."""
    if not is_available():
        return False
    from napari_sam_med.volume.formats import dicom_seg

    return dicom_seg.is_seg(path)


def n_times(path: Path) -> int:
    """1, for a series that can be opened; reads and checks all headers of it."""
    require(path)
    from napari_sam_med.volume.formats import dicom_seg, dicom_series

    with dicom_series.damages(path):
        if dicom_seg.is_seg(path):
            dicom_seg.open_seg(path)
        else:
            dicom_series.open_series(path)
    return 1


def read(path: Path, time: int | None = None) -> Scan:
    """The volume of a series, or the label map of a DICOM SEG.

    Parameters
    ----------
    path : Path
        A folder with the files of one series, any file of a series (the others of it are looked for in its
        folder), a multi-frame file, or a DICOM SEG.
    time : int, optional
        0, as there is one volume.

    Raises
    ------
    ImageError
        If the files are damaged or of several series, slices are missing, doubled, unevenly spaced or of
        different orientations, or the extra is not installed.
    LabelError
        If segments overlap.
    """
    require(path)
    if time not in (None, 0):
        raise ImageError(f"{path.name} is opened as one volume; time {time} does not exist, give 0.")
    from napari_sam_med.volume.formats import dicom_pixels, dicom_seg, dicom_series

    with dicom_series.damages(path):
        if dicom_seg.is_seg(path):
            return dicom_seg.read(path)
        series = dicom_series.open_series(path)
        array = dicom_pixels.read_voxels(series)
    return Scan(array, series.stack.affine, series.source, 1, series.warnings)


def refuse_foreign(target: Path, header: object | None) -> None:
    """Refuse a DICOM SEG of a scan that is no DICOM series; known before there are labels.

    Raises
    ------
    ExportError
        If `target` ends with ``.dcm`` and `header`, that of the scan, is of no series.
    """
    if target.name.lower().endswith(".dcm") and not isinstance(header, DicomSource):
        raise _foreign(target)


def _foreign(target: Path) -> ExportError:
    return ExportError(
        f"{target.name} would be a DICOM SEG, which refers to the DICOM series that it was drawn on, and "
        "this scan is none; write .seg.nrrd or .nii.gz, or give the series as the reference."
    )


def write_seg(
    file: Replacement,
    labels: LabelVolume,
    source: object | None,
    organs: OrganTable,
    model: Mapping[str, Any] | None,
) -> None:
    """Write a DICOM SEG into the temporary file, flush, read it again and compare.

    Parameters
    ----------
    file : Replacement
    labels : LabelVolume
        On the grid of the series.
    source : DicomSource
        Anything else is refused, as a DICOM SEG refers to the images that it was drawn on.
    organs : OrganTable
        A row for each number in the labels.
    model : mapping or None
        Its ``name`` stands in the file.

    Raises
    ------
    ExportError
        If it cannot be written, or reads back otherwise.
    """
    if not isinstance(source, DicomSource):
        raise _foreign(file.target)
    try:
        require(file.target)
    except ImageError as error:
        raise ExportError(str(error)) from None
    from napari_sam_med.volume.formats import dicom_seg_writing

    array = labels.grid.from_canonical(labels.data)
    dicom_seg_writing.write(file.temporary, array, source, organs, model)
    file.flush_to_disk()
    dicom_seg_writing.compare(file.temporary, labels, organs)
