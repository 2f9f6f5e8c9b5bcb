"""DICOM SEG out, through highdicom: one binary segment for each organ, on the slices of the source series."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import numpy.typing as npt
import pydicom
from pydicom import Dataset
from pydicom.sr.coding import Code

from napari_sam_med.errors import ExportError, ImageError, LabelError
from napari_sam_med.volume.formats.dicom import DicomSource
from napari_sam_med.volume.formats.dicom_seg import TRACKING_ID, read
from napari_sam_med.volume.formats.nrrd import SNOMED_CODES
from napari_sam_med.volume.formats.sidecar import program_version
from napari_sam_med.volume.grid import Grid
from napari_sam_med.volume.labels import LabelVolume
from napari_sam_med.volume.organs import Organ, OrganTable

__all__ = ["compare", "write"]

_PROGRAM = "napari-sam-med"
# decimal strings of 16 characters hold a head's places to far less; labels on another series are off by more
_TOLERANCE_MM = 1e-3
_LARGEST = 2**32 - 2  # bytes of voxels that an uncompressed DICOM file can hold
_LONGEST_LABEL, _LONGEST_NAME = 64, 1024
_ANATOMY = Code("123037004", "SCT", "Anatomical Structure")
_ANY_ORGAN = Code("113343008", "SCT", "Organ")
_ARTIFICIAL_INTELLIGENCE = Code("123110", "DCM", "Artificial Intelligence")
# type 2 of the Patient and Study modules: must be there, may be empty; anonymisers remove them
_MAY_BE_EMPTY = (
    *("PatientID", "PatientName", "PatientBirthDate", "PatientSex"),
    *("AccessionNumber", "StudyID", "StudyDate", "StudyTime", "ReferringPhysicianName"),
)
_MUST_BE_THERE = (
    "SOPClassUID",
    "SOPInstanceUID",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "FrameOfReferenceUID",
)


def write(
    path: Path,
    array_ijk: npt.NDArray[Any],
    source: DicomSource,
    organs: OrganTable,
    model: Mapping[str, Any] | None = None,
) -> None:
    """Write a label array (i, j, k) of uint8 or uint16 on the slices of its series.

    Segments are numbered from 1, in the order of the labels that have voxels; the label itself stands in
    their TrackingID.

    Parameters
    ----------
    path : Path
    array_ijk : ndarray
        (column, row, slice) as the series was read.
    source : DicomSource
        Its files are read again.
    organs : OrganTable
        A row for each number in the array.
    model : mapping, optional
        ``name`` of the model, for the algorithm's identification.

    Raises
    ------
    ExportError
        If nothing is labelled, the series' files are gone or lack what a DICOM SEG must repeat, or there are
        too many segments for one file.
    """
    counts = np.bincount(array_ijk.ravel(order="K"))
    class_ids = [int(number) for number in np.flatnonzero(counts) if number]
    if not class_ids:
        raise ExportError("No voxel is labelled, and a DICOM SEG must have a segment; label one.")
    n_bytes = array_ijk.size * len(class_ids) // 8
    if n_bytes > _LARGEST:
        raise ExportError(
            f"A DICOM SEG of {len(class_ids)} organs on this scan takes {n_bytes / 2**30:.1f} GiB, more than "
            "one file can hold; export one file for each organ ({organ} in the name), or .nii.gz."
        )
    images = _images(source)
    lookup = np.zeros(len(counts), dtype=np.uint8 if len(class_ids) < 256 else np.uint16)
    lookup[class_ids] = np.arange(1, len(class_ids) + 1)
    frames = np.empty((array_ijk.shape[2], array_ijk.shape[1], array_ijk.shape[0]), dtype=lookup.dtype)
    for k, (file, frame) in enumerate(source.slices):
        frames[frame if len(images) == 1 else file] = lookup[array_ijk[:, :, k].T]
    algorithm = _algorithm(model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about odd but harmless values that it repeats from the source
        try:
            seg = hd.seg.Segmentation(
                source_images=images,
                pixel_array=frames,
                segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
                segment_descriptions=[
                    _description(number, organs[class_id], algorithm)
                    for number, class_id in enumerate(class_ids, start=1)
                ],
                series_instance_uid=hd.UID(),
                series_number=_series_number(images[0]),
                sop_instance_uid=hd.UID(),
                instance_number=1,
                manufacturer=_PROGRAM,
                manufacturer_model_name=_PROGRAM,
                software_versions=program_version(),
                device_serial_number="0",
                omit_empty_frames=False,
                content_label="SEGMENTATION",
                content_description="Organ masks",
                specific_character_set="ISO_IR 192",
                series_description="Segmentation by napari-sam-med",
            )
            seg.save_as(path)
        except (AttributeError, KeyError, TypeError, ValueError, IndexError) as error:
            raise ExportError(
                f"The headers of {source.files[0].name} and its series do not allow a DICOM SEG ({error}); "
                "write .seg.nrrd or .nii.gz."
            ) from error


def compare(path: Path, labels: LabelVolume, organs: OrganTable) -> None:
    """Read the written file again; it must hold the same voxels, places and names.

    Raises
    ------
    ExportError
        If it does not.
    """
    try:
        scan = read(path)
    except (ImageError, LabelError) as error:
        raise ExportError(
            f"The labels were written but cannot be read again ({error}); check the disk."
        ) from error
    if not np.array_equal(scan.array_ijk, labels.grid.from_canonical(labels.data)):
        raise ExportError("The labels were written but read back with other values; check the disk.")
    i, j, k = scan.array_ijk.shape
    if not labels.grid.same_as(Grid(scan.affine, (i, j, k)), tolerance_mm=_TOLERANCE_MM):
        raise ExportError(
            "The labels were written but read back at another place: they do not lie on the slices of the "
            "series; read them with `read_labels(path, reference=volume)`, or write .nii.gz."
        )
    names = {number: organ.name for number, organ in (scan.organs or {}).items()}
    if names != {number: organs[number].name for number in names}:
        raise ExportError("The organ names were written but read back changed; rename them and export again.")


def _images(source: DicomSource) -> list[Dataset]:
    """Headers of the source files, with what must be there."""
    if len(source.files) > 1 and len(source.files) != len(source.slices):
        raise ExportError(
            "The scan is spread over several multi-frame files, to which one DICOM SEG cannot refer; write "
            ".seg.nrrd or .nii.gz."
        )
    images: list[Dataset] = []
    for file in source.files:
        try:
            image = pydicom.dcmread(file, stop_before_pixels=True)
        except (OSError, pydicom.errors.InvalidDicomError) as error:
            raise ExportError(
                f"{file} cannot be read ({error}), but a DICOM SEG repeats parts of its series; bring the "
                "series back, or write .seg.nrrd or .nii.gz."
            ) from error
        missing = [name for name in _MUST_BE_THERE if not image.get(name)]
        if missing:
            raise ExportError(
                f"{file.name} lacks {', '.join(missing)}, to which a DICOM SEG refers; write .seg.nrrd or "
                ".nii.gz."
            )
        for name in _MAY_BE_EMPTY:
            if name not in image:
                setattr(image, name, "")
        images.append(image)
    return images


def _description(
    number: int, organ: Organ, algorithm: hd.AlgorithmIdentificationSequence
) -> hd.seg.SegmentDescription:
    code = SNOMED_CODES.get(organ.name)
    meaning = organ.name[:1].upper() + organ.name[1:]
    color = hd.color.CIELabColor.from_rgb(*(round(255 * value) for value in organ.color))
    description = hd.seg.SegmentDescription(
        segment_number=number,
        segment_label=organ.name.replace("\\", "/")[:_LONGEST_LABEL].strip(),
        segmented_property_category=_ANATOMY,
        segmented_property_type=_ANY_ORGAN if code is None else Code(code, "SCT", meaning),
        algorithm_type=hd.seg.SegmentAlgorithmTypeValues.SEMIAUTOMATIC,
        algorithm_identification=algorithm,
        tracking_uid=hd.UID(),
        tracking_id=TRACKING_ID.format(class_id=organ.class_id),
        display_color=color,
    )
    description.SegmentDescription = organ.name[:_LONGEST_NAME]
    return description


def _algorithm(model: Mapping[str, Any] | None) -> hd.AlgorithmIdentificationSequence:
    name = _PROGRAM if not model or not model.get("name") else f"{_PROGRAM} {model['name']}"
    return hd.AlgorithmIdentificationSequence(
        name=name.replace("\\", "/")[:_LONGEST_LABEL],
        family=_ARTIFICIAL_INTELLIGENCE,
        version=program_version(),
    )


def _series_number(image: Dataset) -> int:
    """A number of its own, near that of the scan, as viewers sort by it."""
    try:
        return 1000 + abs(int(image.get("SeriesNumber") or 0)) % 100000
    except (TypeError, ValueError):
        return 1000
