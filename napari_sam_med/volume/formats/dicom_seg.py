"""DICOM SEG in: segments, placed by the positions of their frames, as one label map."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
from highdicom.color import CIELabColor
from pydicom import Dataset
from pydicom.pixels.utils import iter_pixels
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from napari_sam_med.errors import ImageError, LabelError
from napari_sam_med.volume.formats.byte_source import refuse_beyond_memory
from napari_sam_med.volume.formats.dicom_series import (
    LABEL_MAP_CLASS,
    damages,
    functional_group,
    numbers,
    read_header,
)
from napari_sam_med.volume.formats.dicom_stack import (
    Plane,
    normal_of,
    refuse_unlike,
    regular_affine,
    shortened,
    straightened,
    tolerance_mm,
)
from napari_sam_med.volume.formats.nifti_geometry import geometry_warnings, is_usable
from napari_sam_med.volume.formats.scan import Scan
from napari_sam_med.volume.organs import MAX_CLASS_ID, Organ, OrganTable, default_color

__all__ = ["TRACKING_ID", "OverlapError", "is_seg", "open_seg", "read"]

_UNCOMPRESSED = (ImplicitVRLittleEndian, ExplicitVRLittleEndian, DeflatedExplicitVRLittleEndian)
_CLASSES = ("1.2.840.10008.5.1.4.1.1.66.4", LABEL_MAP_CLASS)
#: What a segment's TrackingID says in files of this package: the number of its organ here.
TRACKING_ID = "napari-sam-med label {class_id}"
_TRACKED = re.compile(TRACKING_ID.replace("{class_id}", r"(\d{1,5})"))


class OverlapError(LabelError, ImageError):
    """Segments overlap: neither one label map nor a scan."""


@dataclass(frozen=True, eq=False)
class _Seg:
    """A DICOM SEG before its voxels are read."""

    path: Path
    is_label_map: bool
    is_packed: bool  # frames of one bit a voxel, without gaps
    class_of: dict[int, int]  # segment number to class number
    segment_of_frame: tuple[int, ...]
    slice_of_frame: tuple[int, ...]
    shape: tuple[int, int, int]  # slices, rows, columns
    affine: npt.NDArray[np.float64]
    organs: OrganTable
    warnings: tuple[str, ...]


def is_seg(path: Path) -> bool:
    """Whether a path is a file that holds a DICOM SEG; an ImageError where it is damaged."""
    return path.is_file() and str(read_header(path, ["SOPClassUID"]).get("SOPClassUID")) in _CLASSES


def read(path: Path) -> Scan:
    """Label map (i, j, k) of a DICOM SEG, uint8 or uint16, with names and colours.

    Slices without a frame are empty. Numbers are those of the segments; in files of this package, those that
    the organs had.

    Raises
    ------
    ImageError
        If the file is damaged or its frames have no even places.
    LabelError
        If segments overlap or are probabilities.
    """
    seg = open_seg(path)
    array = np.zeros(seg.shape, dtype=np.uint8 if max(seg.organs, default=0) <= 255 else np.uint16)
    frames = _packed_frames(seg) if seg.is_packed else iter_pixels(path, raw=True)
    lookup = np.zeros(MAX_CLASS_ID + 1, dtype=array.dtype)
    lookup[list(seg.class_of)] = list(seg.class_of.values())
    for segment, k in zip(seg.segment_of_frame, seg.slice_of_frame, strict=True):
        with damages(path):
            values = next(frames)
        if seg.is_label_map:
            _put(seg, array[k], lookup[values], values != 0)
        else:
            _put(seg, array[k], lookup[segment], values != 0)
    return Scan(array.transpose(2, 1, 0), seg.affine, None, 1, seg.warnings, seg.organs)


def _packed_frames(seg: _Seg) -> Iterator[npt.NDArray[np.uint8]]:
    """Frames (rows, columns) of 0 and 1, which begin within a byte where their bits fill no whole bytes.

    pydicom 3.0 reads such frames singly without their last byte.
    """
    rows, columns = seg.shape[1:]
    n_bits, n_frames = rows * columns, len(seg.slice_of_frame)
    packed = np.frombuffer(pydicom.dcmread(seg.path, specific_tags=["PixelData"]).PixelData, dtype=np.uint8)
    n_bytes = -(-n_bits * n_frames // 8)
    if packed.size < n_bytes:
        raise ImageError(
            f"{seg.path.name} is truncated: its header announces {n_bytes} bytes of voxels, but there are "
            f"{packed.size}; copy or export it again."
        )
    for start in range(0, n_bits * n_frames, n_bits):
        stop = start + n_bits
        bits = np.unpackbits(packed[start // 8 : -(-stop // 8)], bitorder="little")
        yield bits[start % 8 :][:n_bits].reshape(rows, columns)


def _put(seg: _Seg, plane: npt.NDArray[Any], labels: Any, mask: npt.NDArray[np.bool_]) -> None:
    labels = np.broadcast_to(labels, plane.shape)
    taken = mask & (plane != 0) & (plane != labels)
    if taken.any():
        first, second = (seg.organs.name_of(int(values[taken][0])) for values in (plane, labels))
        raise OverlapError(
            f"{seg.path.name} has overlapping segments ({first} and {second} share {int(taken.sum())} voxels "
            "of a slice), and a voxel can have one label here; merge them first, or export each segment to a "
            "file of its own (in 3D Slicer: Segmentations, Export to files)."
        )
    plane[mask] = labels[mask]


def open_seg(path: Path) -> _Seg:
    """Header of a DICOM SEG, checked; raises as `read` does, but for overlaps."""
    header = read_header(path)
    with damages(path):
        kind = str(header.get("SegmentationType"))
        if kind not in ("BINARY", "LABELMAP"):
            raise LabelError(
                f"{path.name} is a DICOM SEG of kind {kind}: labels are whole numbers, not probabilities; "
                "threshold it first."
            )
        planes, segments = _frames(path, header, kind == "LABELMAP")
        slices, affine, n_slices, warnings = _places(path, planes)
        warnings += geometry_warnings(affine)
        class_of, organs = _segments(path, header)
        if kind == "BINARY" and not set(segments) <= set(class_of):
            raise ImageError(
                f"{path.name} has frames of segments that it does not describe; export it again."
            )
        rows, columns = planes[0].shape
        shape = (n_slices, rows, columns)
        if min(rows, columns) < 1:
            raise ImageError(f"{path.name} is damaged: its header announces no pixels; copy it again.")
        refuse_beyond_memory(path, path.stat().st_size + 2 * n_slices * rows * columns, f"{shape} voxels")
        is_uncompressed = header.file_meta.TransferSyntaxUID in _UNCOMPRESSED
        is_packed = is_uncompressed and kind == "BINARY" and int(header.BitsAllocated) == 1
    return _Seg(
        path,
        kind == "LABELMAP",
        is_packed,
        class_of,
        segments,
        slices,
        shape,
        affine,
        organs,
        tuple(warnings),
    )


def _frames(path: Path, header: Dataset, is_label_map: bool) -> tuple[list[Plane], tuple[int, ...]]:
    """Place and segment number of each frame."""
    per_frame = header.get("PerFrameFunctionalGroupsSequence")
    count = int(header.get("NumberOfFrames") or 1)
    if not per_frame or len(per_frame) != count:
        raise ImageError(f"{path.name} does not say where each of its {count} frames lies; export it again.")
    planes, segments = [], []
    for index in range(count):
        name = f"frame {index + 1} of {path.name}"
        place = functional_group(header, index, "PlanePositionSequence")
        orientation = functional_group(header, index, "PlaneOrientationSequence")
        measures = functional_group(header, index, "PixelMeasuresSequence")
        spacing = numbers(measures, "PixelSpacing", 2, name)
        thickness = measures.get("SpacingBetweenSlices") or (
            measures.get("SliceThickness") if count == 1 else None
        )
        planes.append(
            Plane(
                name,
                (int(header.Rows), int(header.Columns)),
                np.array(numbers(place, "ImagePositionPatient", 3, name)),
                np.array(numbers(orientation, "ImageOrientationPatient", 6, name)),
                (spacing[0], spacing[1]),
                abs(float(thickness)) if thickness else None,
            )
        )
        group = functional_group(header, index, "SegmentIdentificationSequence")
        segments.append(0 if is_label_map else int(group.ReferencedSegmentNumber))
    return planes, tuple(segments)


def _places(
    path: Path, planes: list[Plane]
) -> tuple[tuple[int, ...], npt.NDArray[np.float64], int, list[str]]:
    """Slice of each frame, voxel (i, j, k) to RAS mm, number of slices, warnings."""
    refuse_unlike(planes, path.name)
    normal = normal_of(planes[0], path.name)
    places = np.array([plane.position for plane in planes])
    along = (places - places[0]) @ normal
    first, last = int(np.argmin(along)), int(np.argmax(along))
    extent = float(along[last] - along[first])
    said = planes[0].thickness
    if extent <= tolerance_mm(0.0):
        warnings = []
        if said is None:
            warnings = [f"{path.name} is one slice and does not say how thick it is; 1 mm is taken."]
        affine = _affine(path, planes[first], normal * (said or 1.0))
        return (0,) * len(planes), affine, 1, warnings
    gaps = np.diff(np.sort(along))
    smallest = float(gaps[gaps > tolerance_mm(0.0)].min())
    for spacing in (said, smallest):
        if spacing is None or round(extent / spacing) < 1:
            continue
        n_steps = round(extent / spacing)
        step = (places[last] - places[first]) / n_steps
        index = np.rint((along - along[first]) / extent * n_steps).astype(int)
        off = np.linalg.norm(places - places[first] - index[:, None] * step, axis=1)
        if off.max() <= tolerance_mm(extent / n_steps):
            warnings = []
            if spacing != said:
                warnings = [
                    f"{path.name} does not say how far its slices are apart; the smallest distance, "
                    f"{smallest:g} mm, is taken."
                ]
            affine = _affine(path, planes[first], straightened(step, normal, n_steps + 1))
            return tuple(int(k) for k in index), affine, n_steps + 1, warnings
    at = [f"{value:g}" for value in np.unique(np.round(places @ normal, 3))]
    raise ImageError(
        f"{path.name}: its frames are not evenly spaced; they lie at {shortened(at)} mm along the slice "
        "normal. Resample them to even slices and open that."
    )


def _affine(path: Path, plane: Plane, step: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    affine = regular_affine(plane, plane.position, step)
    if not is_usable(affine):
        raise ImageError(f"The geometry of {path.name} is damaged (no sensible voxel size); export it again.")
    return affine


def _segments(path: Path, header: Dataset) -> tuple[dict[int, int], OrganTable]:
    """Class number of each segment number, and the organ table."""
    rows = [row for row in header.get("SegmentSequence") or [] if int(row.SegmentNumber) != 0]
    ours = [_TRACKED.fullmatch(str(row.get("TrackingID") or "")) for row in rows]
    tracked = [int(match[1]) for match in ours if match is not None]
    is_ours = len(set(tracked)) == len(rows) and all(1 <= number <= MAX_CLASS_ID for number in tracked)
    class_of, organs = {}, []
    for position, row in enumerate(rows):
        class_id = tracked[position] if is_ours else int(row.SegmentNumber)
        name = str(row.get("SegmentLabel") or "")
        if is_ours:  # a label has 64 characters; the description has the whole name
            name = str(row.get("SegmentDescription") or name)
        class_of[int(row.SegmentNumber)] = class_id
        organs.append(Organ(class_id, name or f"label {class_id}", _color(row, class_id)))
    if len(class_of) != len(rows):
        raise ImageError(f"{path.name} describes a segment twice; export it again.")
    return class_of, OrganTable(organs)


def _color(row: Dataset, class_id: int) -> tuple[float, float, float]:
    value = row.get("RecommendedDisplayCIELabValue")
    if value is None or len(value) != 3:
        return default_color(class_id)
    red, green, blue = CIELabColor.from_dicom_value([int(part) for part in value]).to_rgb(clip=True)
    return red / 255, green / 255, blue / 255
