"""DICOM series, written by pydicom from an array and an affine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid
from pydicom.valuerep import format_number_as_ds

_LPS_FROM_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


def ds(values: npt.ArrayLike) -> list[str]:
    """Numbers as decimal strings, with all the digits that fit 16 characters."""
    return [format_number_as_ds(float(value)) for value in np.ravel(values)]


def save_series(
    folder: Path, array_ijk: npt.NDArray[Any], affine: npt.NDArray[np.float64], **tags: Any
) -> list[Path]:
    """One CT file for each k of an array (column, row, slice) that lies at `affine` (RAS), in that order.

    File names do not sort as the slices do. `tags` are set in each file; a callable is called with k, and
    None removes a tag.
    """
    folder.mkdir(exist_ok=True, parents=True)
    lps = _LPS_FROM_RAS @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    uids = {name: generate_uid() for name in ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID")}
    paths = []
    for k in range(array_ijk.shape[2]):
        image = Dataset()
        image.SpecificCharacterSet = "ISO_IR 100"
        image.SOPClassUID, image.SOPInstanceUID, image.Modality = CTImageStorage, generate_uid(), "CT"
        image.PatientName, image.PatientID, image.PatientBirthDate = "Müller^Jürgen", "42", ""
        image.PatientSex, image.StudyID, image.StudyDate, image.StudyTime = "O", "1", "20200102", "030405"
        image.AccessionNumber, image.ReferringPhysicianName = "", ""
        image.SeriesNumber, image.SeriesDescription, image.InstanceNumber = 3, "portal venous", k + 1
        image.Manufacturer, image.ContentDate, image.ContentTime = "nobody", "20200102", "030405"
        image.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        image.Columns, image.Rows = array_ijk.shape[:2]
        image.ImageOrientationPatient = ds((lps[:3, :2] / spacing[:2]).T)
        image.ImagePositionPatient = ds(lps[:3, 2] * k + lps[:3, 3])
        image.PixelSpacing, image.SliceThickness = ds([spacing[1], spacing[0]]), ds([spacing[2]])[0]
        image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
        bits = 8 * array_ijk.dtype.itemsize
        image.BitsAllocated, image.BitsStored, image.HighBit = bits, bits, bits - 1
        image.PixelRepresentation = int(array_ijk.dtype.kind == "i")
        image.RescaleSlope, image.RescaleIntercept = "1", "0"
        image.PixelData = np.ascontiguousarray(array_ijk[:, :, k].T).tobytes()
        image["PixelData"].VR = "OW"
        for name, uid in uids.items():
            setattr(image, name, uid)
        for name, value in tags.items():
            chosen = value(k) if callable(value) else value
            if chosen is None:
                delattr(image, name)
            else:
                setattr(image, name, chosen)
        image.file_meta = FileMetaDataset()
        image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        paths.append(folder / f"IM{(7 * k + 3) % 997:03d}")
        image.save_as(paths[-1], enforce_file_format=True)
    return paths


def change(path: Path, **tags: Any) -> None:
    """Set tags of a file; None removes one."""
    image = pydicom.dcmread(path)
    for name, value in tags.items():
        if value is None:
            delattr(image, name)
        else:
            setattr(image, name, value)
    image.save_as(path)
