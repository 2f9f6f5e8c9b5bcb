"""The files of a DICOM series: found, told apart and checked by their headers, before voxels are read."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom import Dataset
from pydicom.config import IGNORE
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import UID

from napari_sam_med.errors import ImageError, SamMedError
from napari_sam_med.volume.formats.byte_source import GZIP_EXPANSION, refuse_beyond_memory
from napari_sam_med.volume.formats.dicom import DicomSource, find_files
from napari_sam_med.volume.formats.dicom_stack import Plane, Stack, shortened, stack_planes
from napari_sam_med.wording import number_of

__all__ = ["Series", "Slice", "damages", "functional_group", "numbers", "open_series", "read_header"]

_TAGS = [
    *("SOPClassUID", "Modality", "SeriesInstanceUID", "SeriesNumber", "SeriesDescription"),
    *("Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation", "NumberOfFrames"),
    *("BitsAllocated", "BitsStored", "PixelRepresentation", "RescaleSlope", "RescaleIntercept"),
    *("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"),
    *("SliceThickness", "SpacingBetweenSlices", "ModalityLUTSequence"),
    *("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"),
]
_DEFLATED = b"1.2.840.10008.1.2.1.99"
_LISTED_SERIES = 12


@dataclass(frozen=True, eq=False)
class Slice:
    """One slice: its file, its frame where that holds several, and what its values mean."""

    path: Path
    frame: int | None
    header: Dataset
    plane: Plane
    slope: float
    intercept: float


@dataclass(frozen=True, eq=False)
class Series:
    """Slices that were checked, in their order along the normal."""

    name: str
    slices: tuple[Slice, ...]
    stack: Stack
    warnings: tuple[str, ...]

    @property
    def source(self) -> DicomSource:
        """What exports need to refer to the slices."""
        files = list(dict.fromkeys(piece.path for piece in self.slices))
        places = {path: place for place, path in enumerate(files)}
        return DicomSource(tuple(files), tuple((places[s.path], s.frame or 0) for s in self.slices))


@contextmanager
def damages(path: Path) -> Iterator[None]:
    """Whatever pydicom raises on a damaged file as an ImageError; its warnings are not shown."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        except (SamMedError, MemoryError):
            raise
        except Exception as error:  # broad: damaged bytes lead pydicom to errors of every kind
            reason = str(error).splitlines()[0].rstrip(".") if str(error) else type(error).__name__
            raise ImageError(
                f"{path.name} is damaged or no sound DICOM ({reason}); copy or export it again."
            ) from error


def read_header(path: Path, tags: list[str] | None = None) -> Dataset:
    """What stands before the voxels of a file.

    Raises
    ------
    ImageError
        If it is damaged.
    """
    with damages(path):
        with path.open("rb") as stream:
            if _DEFLATED in stream.read(1024):  # all of it is unpacked at once
                n_bytes = path.stat().st_size * GZIP_EXPANSION
                refuse_beyond_memory(path, n_bytes, "packed data of unknown size")
        header: Dataset = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=tags)
        for _ in (*header.file_meta, *(header.iterall() if tags else ())):
            pass  # values are converted here, where errors are expected, and not when they are used
    return header


def open_series(path: Path) -> Series:
    """The series of a folder, or the one that a file belongs to.

    Raises
    ------
    ImageError
        If there is no series or more than one, or its slices make no volume.
    """
    headers, remarks = _headers_of_series(path)
    for file, header in headers.items():
        _refuse_unreadable(file, header)
    slices = [piece for file, header in headers.items() for piece in _slices_of(file, header)]
    name = path.name or path.resolve().name
    with damages(path):
        stack = stack_planes([piece.plane for piece in slices], name)
    first = slices[0].header
    if str(first.PhotometricInterpretation) == "MONOCHROME1":
        remarks.append(
            f"{name} is MONOCHROME1: its low values are meant to be bright. The values are kept as they are "
            "and shown dark to bright."
        )
    rows, columns = slices[0].plane.shape
    what = f"{columns} x {rows} x {len(slices)} voxels"
    refuse_beyond_memory(path, rows * columns * len(slices) * int(first.BitsAllocated) // 8, what)
    ordered = tuple(slices[index] for index in stack.order)
    return Series(name, ordered, stack, (*remarks, *stack.warnings))


def _headers_of_series(path: Path) -> tuple[dict[Path, Dataset], list[str]]:
    if path.is_dir():
        return _only_series(path)
    header = read_header(path, _TAGS)
    if not _is_image(header):
        raise ImageError(
            f"{path.name} is DICOM without an image ({_kind_name(header) or 'unknown'}); open an image of "
            "the series."
        )
    uid = header.get("SeriesInstanceUID")
    if uid is None or _n_frames(header) > 1:
        return {path: header}, []
    files, odd = find_files(path.parent)
    headers, remarks = {path: header}, []
    for file in files:
        if file == path:
            continue
        try:
            other = read_header(file, _TAGS)
        except ImageError as error:
            remarks.append(f"A file beside {path.name} is left out: {error}")
            continue
        if other.get("SeriesInstanceUID") == uid and _is_image(other):
            headers[file] = other
        elif not _is_known(other):
            odd.append(file.name)
    return headers, _left_out(odd) + remarks


def _only_series(folder: Path) -> tuple[dict[Path, Dataset], list[str]]:
    files, odd = find_files(folder)
    by_series: dict[str, dict[Path, Dataset]] = {}
    others = []
    for file in files:
        header = read_header(file, _TAGS)
        if _is_image(header):
            by_series.setdefault(str(header.get("SeriesInstanceUID", "")), {})[file] = header
        else:
            others.append(_kind_name(header))
            if not _is_known(header):
                odd.append(file.name)
    if not by_series:
        found = f" ({', '.join(sorted(kind or 'unknown' for kind in set(others)))} only)" if others else ""
        raise ImageError(
            f"{folder} is a folder that holds no DICOM images{found}; "
            "give the folder in which the files of a series lie, or a volume's own file."
        )
    if len(by_series) > 1:
        listed = [_described(headers) for headers in by_series.values()]
        more = f" and {len(listed) - _LISTED_SERIES} more" if len(listed) > _LISTED_SERIES else ""
        raise ImageError(
            f"{folder} holds {len(listed)} series: {'; '.join(listed[:_LISTED_SERIES])}{more}. A volume is "
            "one series: open one of its files instead of the folder."
        )
    return next(iter(by_series.values())), _left_out(odd)


def _left_out(names: list[str]) -> list[str]:
    if not names:
        return []
    return [
        f"Left out, as they are no DICOM inside or damaged: {shortened(names)}; check that none is missing."
    ]


def _described(headers: dict[Path, Dataset]) -> str:
    file, header = next(iter(headers.items()))
    text = str(header.get("SeriesDescription") or "").strip() or "no description"
    number = header.get("SeriesNumber")
    return (
        f"series {'without number' if number is None else number} ({header.get('Modality', '?')}, {text}, "
        f"{number_of(len(headers), 'file')}, such as {file.name})"
    )


def _is_image(header: Dataset) -> bool:
    """Also of an image that was cut before its size, which must not be passed over."""
    kind = _kind_name(header)
    if "Segmentation" in kind or str(header.get("Modality")) == "SEG":
        return False
    return "Rows" in header or kind.endswith("Image Storage")


def _is_known(header: Dataset) -> bool:
    """Whether a file is an image, or something else that is no image for sure."""
    return _is_image(header) or _kind_name(header) != _sop_class(header)


def _kind_name(header: Dataset) -> str:
    """Name of what a file is; its number where it has none, empty where it does not say."""
    uid = _sop_class(header)
    return "Label Map Segmentation Storage" if uid == LABEL_MAP_CLASS else UID(uid, IGNORE).name


def _sop_class(header: Dataset) -> str:
    return str(header.get("SOPClassUID") or header.file_meta.get("MediaStorageSOPClassUID") or "")


#: Newer than pydicom's own dictionary of names.
LABEL_MAP_CLASS = "1.2.840.10008.5.1.4.1.1.66.7"


def _n_frames(header: Dataset) -> int:
    return int(header.get("NumberOfFrames") or 1)


def _refuse_unreadable(path: Path, header: Dataset) -> None:
    """Refuse colours, cut files and packings that cannot be unpacked here."""
    with damages(path):
        missing = [
            tag
            for tag in ("Rows", "Columns", "BitsAllocated", "PhotometricInterpretation")
            if header.get(tag) is None
        ]
        if missing or min(int(header.Rows), int(header.Columns), int(header.BitsAllocated)) < 1:
            fact = f"lacks {', '.join(missing)}" if missing else "announces no pixels"
            raise ImageError(f"{path.name} is truncated or damaged: its header {fact}; copy it again.")
        kind = str(header.PhotometricInterpretation)
        if not kind.startswith("MONOCHROME") or int(header.get("SamplesPerPixel") or 1) != 1:
            raise ImageError(
                f"{path.name} is a colour picture ({kind}): scans have one number a voxel; open the original "
                "series."
            )
        syntax = header.file_meta.TransferSyntaxUID
        if syntax.is_compressed:
            _refuse_packing(path, syntax)
        elif not syntax.is_deflated:
            n_bytes = int(header.Rows) * int(header.Columns) * int(header.BitsAllocated) * _n_frames(header)
            if path.stat().st_size < n_bytes // 8:
                raise ImageError(
                    f"{path.name} is truncated: its header announces {n_bytes // 8} bytes of voxels, but the "
                    f"file holds {path.stat().st_size} bytes; copy or download it again."
                )


def _refuse_packing(path: Path, syntax: Any) -> None:
    try:
        is_readable = bool(get_decoder(syntax).is_available)
    except NotImplementedError:  # pydicom's answer to a packing that it does not know
        is_readable = False
    if not is_readable:
        raise ImageError(
            f"{path.name} is packed as {syntax.name}, which cannot be unpacked here; install a decoder "
            "(pip install python-gdcm), or unpack the series first, for example with gdcmconv --raw."
        )


def _slices_of(path: Path, header: Dataset) -> list[Slice]:
    """One slice of a single-frame file, one for each frame of a multi-frame one."""
    with damages(path):
        if "PerFrameFunctionalGroupsSequence" in header:
            frames = header.PerFrameFunctionalGroupsSequence
            if len(frames) != _n_frames(header):
                raise ImageError(
                    f"{path.name} has {_n_frames(header)} frames but places for {len(frames)}; export it "
                    "again."
                )
            slices = [_slice_of_frame(path, header, index) for index in range(len(frames))]
        elif _n_frames(header) > 1:
            raise ImageError(
                f"{path.name} has {_n_frames(header)} frames in one file and does not say where each lies; "
                "convert it to NIfTI first, for example with dcm2niix, and open the result."
            )
        else:
            slices = [_slice(path, None, header, header, header, header, header)]
    return slices


def _slice_of_frame(path: Path, header: Dataset, index: int) -> Slice:
    place, orientation, measures, scale = (
        functional_group(header, index, name)
        for name in (
            *("PlanePositionSequence", "PlaneOrientationSequence"),
            *("PixelMeasuresSequence", "PixelValueTransformationSequence"),
        )
    )
    return _slice(path, index, header, place, orientation, measures, scale)


def functional_group(header: Dataset, index: int, name: str) -> Dataset:
    """Item of a functional group of a frame, or of all frames; empty where there is none."""
    shared = (header.get("SharedFunctionalGroupsSequence") or [Dataset()])[0]
    group = header.PerFrameFunctionalGroupsSequence[index].get(name) or shared.get(name)
    return group[0] if group else Dataset()


def _slice(
    path: Path,
    frame: int | None,
    header: Dataset,
    place: Dataset,
    orientation: Dataset,
    measures: Dataset,
    scale: Dataset,
) -> Slice:
    name = path.name if frame is None else f"frame {frame + 1} of {path.name}"
    plane = Plane(
        name,
        (int(header.Rows), int(header.Columns)),
        np.array(numbers(place, "ImagePositionPatient", 3, name)),
        np.array(numbers(orientation, "ImageOrientationPatient", 6, name)),
        (
            numbers(measures, "PixelSpacing", 2, name)[0],
            numbers(measures, "PixelSpacing", 2, name)[1],
        ),
        _positive(measures.get("SpacingBetweenSlices")) or _positive(measures.get("SliceThickness")),
    )
    slope, intercept = scale.get("RescaleSlope"), scale.get("RescaleIntercept")
    slope, intercept = 1.0 if slope is None else float(slope), float(intercept or 0)
    if not np.isfinite([slope, intercept]).all() or slope == 0:
        raise ImageError(f"{name} scales its values by {slope:g} and {intercept:g}; export it again.")
    return Slice(path, frame, header, plane, slope, intercept)


def numbers(dataset: Dataset, tag: str, count: int, name: str) -> Sequence[float]:
    """Values of a tag; an ImageError where they are missing or no numbers."""
    value = dataset.get(tag)
    values = [] if value is None else [float(part) for part in value]
    if len(values) != count or not np.isfinite(values).all():
        raise ImageError(
            f"{name} does not say where it lies in the patient ({tag} is "
            f"{'missing' if value is None else 'damaged'}), as pictures, X-rays and ultrasound do not; "
            "open a CT or MR series, or convert it to NIfTI first."
        )
    return values


def _positive(value: Any) -> float | None:
    return float(value) if value and float(value) > 0 and np.isfinite(float(value)) else None
