"""NRRD and Slicer's .seg.nrrd in and out, and MetaImage (MHA) out, through SimpleITK."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk  # noqa: N813  # the name that its own manual uses
from scipy import ndimage

from napari_sam_med.errors import ExportError, ImageError
from napari_sam_med.volume.formats.byte_source import GZIP_EXPANSION, refuse_beyond_memory
from napari_sam_med.volume.formats.nifti_geometry import geometry_warnings, is_usable
from napari_sam_med.volume.formats.nrrd_header import NrrdHeader, read_header
from napari_sam_med.volume.formats.scan import Scan
from napari_sam_med.volume.geometry_doubt import NO_ORIENTATION_BUT_LPS
from napari_sam_med.volume.grid import Grid
from napari_sam_med.volume.organs import MAX_CLASS_ID, Organ, OrganTable, default_color
from napari_sam_med.volume.orientation import AS_STORED

__all__ = ["SNOMED_CODES", "n_times", "organs_of_metadata", "read", "write"]

FloatArray = npt.NDArray[np.float64]
_RAS_FROM_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
_COLOUR_KINDS = ("RGB-color", "RGBA-color", "HSV-color", "XYZ-color", "complex")
_SLICES_A_STEP = 32
_SEGMENT_KEY = re.compile(r"Segment(\d+)_LabelValue")
# what 3D Slicer itself writes for a segment of no particular kind
_TAGS = (
    "Segmentation.Status:completed|TerminologyEntry:Segmentation category and type - 3D Slicer General "
    "Anatomy list~SCT^123037004^Anatomical Structure~SCT^{code}^{name}~^^~"
    "Anatomic codes - DICOM master list~^^~^^|"
)
#: SNOMED CT codes of Slicer's own list for the organs that this package names; else "Organ".
SNOMED_CODES = {
    "spleen": "78961009",
    "right kidney": "9846003",
    "left kidney": "18639004",
    "gallbladder": "28231008",
    "esophagus": "32849002",
    "liver": "10200004",
    "stomach": "69695003",
    "aorta": "15825003",
    "inferior vena cava": "64131007",
    "pancreas": "15776009",
    "right adrenal": "29392005",
    "left adrenal": "38360000",
}


def n_times(path: Path) -> int:
    """Number of three-dimensional volumes in a file; reads the header only."""
    return _count(_information(path)[0])


def read(path: Path, time: int | None = None) -> Scan:
    """One volume of an NRRD file.

    Parameters
    ----------
    path : Path
        ``.nrrd``, ``.nhdr`` or ``.seg.nrrd``.
    time : int, optional
        Which volume of a file that holds several; the first, with a warning, when left out.

    Raises
    ------
    ImageError
        If the file is truncated, damaged, of colours, or has no sensible geometry.
    """
    reader, header = _information(path)
    warnings = []
    if not header.has_orientation:
        warnings.append(
            f"{path.name} has no orientation: its axes are taken to run to left, posterior, superior; check "
            "left and right."
        )
    metadata = _metadata(reader)
    kind = metadata.get("NRRD_kinds[pixel]", "")
    if kind in _COLOUR_KINDS or "complex" in sitk.GetPixelIDValueAsString(reader.GetPixelIDValue()):
        raise ImageError(
            f"{path.name} holds {kind or 'complex numbers'}: scans have one number a voxel; convert it to "
            f"grey."
        )
    count = _count(reader)
    if time is not None and not 0 <= time < count:
        raise ImageError(
            f"{path.name} holds {count} volumes; time {time} does not exist, give 0 to {count - 1}."
        )
    if count > 1 and time is None:
        warnings.append(f"{path.name} holds {count} volumes; the first is used.")
    header.check_packed(path, _voxel_bytes(reader))
    try:
        image = reader.Execute()
    except (RuntimeError, MemoryError) as error:
        raise ImageError(
            f"{path.name} cannot be read ({_reason(error)}); copy or export it again."
        ) from error
    affine = _affine(image)
    if not is_usable(affine):
        raise ImageError(
            f"The geometry of {path.name} is damaged (not finite, or no sensible voxel size); export "
            "it again."
        )
    warnings += geometry_warnings(affine)
    array_ijk = AS_STORED.from_canonical(_one_volume(image, time or 0))
    doubt = None if header.has_orientation else NO_ORIENTATION_BUT_LPS
    return Scan(array_ijk, affine, None, count, tuple(warnings), organs_of_metadata(metadata), doubt)


def write(path: Path, array_ijk: npt.NDArray[Any], grid: Grid, organs: OrganTable | None = None) -> None:
    """Write an array (i, j, k), packed; labels (uint8, uint16) in a .seg.nrrd carry segments, too.

    Raises
    ------
    ExportError
        If the file cannot be written, or is a .seg.nrrd of a single voxel, which Slicer takes for an empty
        one.
    """
    image = _image_of(AS_STORED.to_canonical(array_ijk))
    lps = _RAS_FROM_LPS @ grid.affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetOrigin(lps[:3, 3].tolist())
    image.SetDirection((lps[:3, :3] / spacing).ravel().tolist())
    if organs is not None and path.name.endswith(".seg.nrrd"):
        if array_ijk.size == 1:
            raise ExportError(
                "A .seg.nrrd of a single voxel means an empty segmentation to 3D Slicer; write .nrrd or "
                ".nii.gz."
            )
        for key, value in _segment_metadata(array_ijk, organs).items():
            image.SetMetaData(key, value)
    try:
        sitk.WriteImage(image, str(path), useCompression=True)
    except RuntimeError as error:
        raise ExportError(f"SimpleITK could not write the file ({_reason(error)}).") from error


def _image_of(array_kji: npt.NDArray[Any]) -> Any:
    """An ITK image of an array (k, j, i), filled some slices at a time: SimpleITK takes contiguous ones."""
    k, j, i = array_kji.shape
    image = sitk.Image(i, j, k, sitk.GetImageFromArray(np.zeros((1, 1, 1), array_kji.dtype)).GetPixelID())
    for first in range(0, k, _SLICES_A_STEP):
        part = np.ascontiguousarray(array_kji[first : first + _SLICES_A_STEP])
        image[:, :, first : first + len(part)] = sitk.GetImageFromArray(part)
    return image


def organs_of_metadata(metadata: Mapping[str, str]) -> OrganTable | None:
    """Names and colours of Slicer's ``SegmentN_`` keys; None where there are none.

    Of segments that share a label value (they lie in layers that overlap) the first gives the name.
    """
    organs: dict[int, Organ] = {}
    for key, value in sorted(metadata.items()):
        match = _SEGMENT_KEY.fullmatch(key)
        if match is None or not value.strip().isdigit():
            continue
        prefix, class_id = f"Segment{match[1]}_", int(value)
        if class_id in organs or not 1 <= class_id <= MAX_CLASS_ID:
            continue
        name = metadata.get(f"{prefix}Name") or metadata.get(f"{prefix}ID") or f"label {class_id}"
        organs[class_id] = Organ(class_id, name, _color(metadata.get(f"{prefix}Color", ""), class_id))
    return OrganTable(organs.values()) if organs else None


def _information(path: Path) -> tuple[Any, NrrdHeader]:
    """A reader that has parsed the header; sizes are checked before anything is allocated."""
    header = read_header(path)
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    reader.SetImageIO("NrrdImageIO")
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        reason = _reason(error)
        raise ImageError(f"{path.name} cannot be read ({reason}); copy or export it again.") from error
    size = reader.GetSize()
    if not size or min(size) < 1:
        raise ImageError(f"{path.name} has an impossible shape: {size}; export it again.")
    n_bytes = _voxel_bytes(reader)
    if n_bytes > path.stat().st_size * GZIP_EXPANSION and header.has_largest_ratio:
        raise ImageError(
            f"{path.name} is truncated: its header announces {size} voxels, but the file holds "
            f"{path.stat().st_size} bytes; copy or download it again."
        )
    refuse_beyond_memory(path, n_bytes, f"{size} voxels")
    return reader, header


def _voxel_bytes(reader: Any) -> int:
    """Bytes that all voxels of a file take, unpacked."""
    bits = re.search(r"(\d+)-bit", sitk.GetPixelIDValueAsString(reader.GetPixelIDValue()))
    n_values = int(np.prod([*reader.GetSize(), reader.GetNumberOfComponents()], dtype=object))
    return n_values * int(bits[1] if bits else 8) // 8


def _count(reader: Any) -> int:
    return int(np.prod([1, reader.GetNumberOfComponents(), *reader.GetSize()[3:]], dtype=object))


def _one_volume(image: Any, time: int) -> npt.NDArray[Any]:
    """Voxels (k, j, i) of one volume; components of a vector image and further axes count as volumes."""
    array = np.asarray(_Voxels(image))
    if image.GetNumberOfComponentsPerPixel() > 1:
        array = np.moveaxis(array, -1, 0)
    elif image.GetDimension() == 2:
        array = array[None]
    array = array.reshape(-1, *array.shape[-3:])[time]
    return np.ascontiguousarray(array)


class _Voxels:
    """The voxels of an ITK image, which lives as long as an array of them: no second copy is made."""

    def __init__(self, image: Any) -> None:
        self._image = image
        interface = sitk.GetArrayViewFromImage(image).__array_interface__
        self.__array_interface__ = {**interface, "data": (interface["data"][0], False)}  # may be written to


def _affine(image: Any) -> FloatArray:
    """Voxel (i, j, k) to RAS mm of an ITK image of two or more axes."""
    n = min(image.GetDimension(), 3)
    full = image.GetDimension()
    direction = np.array(image.GetDirection()).reshape(full, full)[:n, :n]
    lps = np.eye(4)
    lps[:n, :n] = direction * np.array(image.GetSpacing())[:n]
    lps[:n, 3] = image.GetOrigin()[:n]
    return np.asarray(_RAS_FROM_LPS @ lps)


def _segment_metadata(array_ijk: npt.NDArray[Any], organs: OrganTable) -> dict[str, str]:
    boxes = ndimage.find_objects(array_ijk)
    metadata = {
        "Segmentation_SourceRepresentation": "Binary labelmap",
        "Segmentation_MasterRepresentation": "Binary labelmap",
        "Segmentation_ContainedRepresentationNames": "Binary labelmap|",
        "Segmentation_ReferenceImageExtentOffset": "0 0 0",
    }
    for number, organ in enumerate(organs.values()):
        box = boxes[organ.class_id - 1] if organ.class_id <= len(boxes) else None
        extent = (
            "0 -1 0 -1 0 -1" if box is None else " ".join(f"{side.start} {side.stop - 1}" for side in box)
        )
        tag_name = re.sub(r"[|~^&\n]", " ", organ.name)
        rows = {
            "ID": f"Segment_{organ.class_id}",
            "Name": organ.name,
            "NameAutoGenerated": "0",
            "Color": " ".join(f"{value:.6g}" for value in organ.color),
            "ColorAutoGenerated": "0",
            "LabelValue": str(organ.class_id),
            "Layer": "0",
            "Extent": extent,
            "Tags": _TAGS.format(code=SNOMED_CODES.get(organ.name, "113343008"), name=tag_name),
        }
        metadata |= {f"Segment{number}_{key}": value for key, value in rows.items()}
    return metadata


def _color(text: str, class_id: int) -> tuple[float, float, float]:
    try:
        red, green, blue = (min(max(float(part), 0.0), 1.0) for part in text.split())
    except ValueError:
        return default_color(class_id)
    return red, green, blue


def _metadata(reader: Any) -> dict[str, str]:
    """Keys and values of the header; keys that are no UTF-8, which SimpleITK cannot look up, are left out."""
    keys = (key for key in reader.GetMetaDataKeys() if key.isprintable())
    return {key: _text(reader.GetMetaData(key)) for key in keys}


def _text(value: str) -> str:
    """SimpleITK hands over bytes that are no UTF-8 as surrogates; old Slicer files are Latin-1."""
    return value.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _reason(error: BaseException) -> str:
    """The last line of ITK's multi-line messages, which is the one that says why."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
