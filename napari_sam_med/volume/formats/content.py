"""What a file is, by its first bytes, and a plain word about files that are no scans."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path
from typing import Literal

from napari_sam_med.errors import ImageError
from napari_sam_med.volume.formats import ome_zarr

__all__ = ["FileKind", "kind_of"]

FileKind = Literal["nifti", "nrrd", "metaimage", "dicom", "ome_zarr"]

# first bytes of files that people mistake for scans: what they are, and what to do
_NO_SCAN: tuple[tuple[bytes, str], ...] = (
    (
        b"version https://git-lfs",
        'is a Git LFS pointer, not image data; run "git lfs pull" in its repository.',
    ),
    (
        b"\x00\x05\x16\x07",
        "is an AppleDouble file of macOS, not image data; open the file without the ._ prefix.",
    ),
    (b"\x89PNG", "is a PNG picture; scans are volumes: open NIfTI, NRRD or MHA."),
    (b"\xff\xd8\xff", "is a JPEG picture; scans are volumes: open NIfTI, NRRD or MHA."),
    (b"II*\x00", "is a TIFF picture without a place in the patient; open NIfTI, NRRD or MHA."),
    (b"MM\x00*", "is a TIFF picture without a place in the patient; open NIfTI, NRRD or MHA."),
    (b"CDF", "is a MINC-1 file, which is not supported; convert it with mnc2nii and open the NIfTI file."),
    (b"\x89HDF", "is an HDF5 or MINC-2 file, which is not supported; convert it to NIfTI and open that."),
    (b"PK\x03\x04", "is a ZIP archive; unpack it and open the scan inside."),
    (b"<!DOCTYPE", "is a web page: a download went wrong; download the file again."),
    (b"<html", "is a web page: a download went wrong; download the file again."),
)
_BY_NAME: tuple[tuple[tuple[str, ...], str], ...] = (
    (
        (".mgz", ".mgh"),
        "is a FreeSurfer file, which is not supported; convert it with mri_convert to .nii.gz.",
    ),
    ((".mnc",), "is a MINC file, which is not supported; convert it with mnc2nii and open the NIfTI file."),
    (
        (".head", ".brik", ".brik.gz"),
        "is an AFNI file, which is not supported; convert it with 3dAFNItoNIFTI.",
    ),
    (
        (".dcm", ".ima"),
        "does not begin as a DICOM file does: it is damaged or very old; copy it again, or convert it with "
        "dcmconv.",
    ),
)
_SIZES = {n.to_bytes(4, order) for n in (348, 540) for order in ("little", "big")}


def kind_of(path: Path) -> tuple[FileKind, tuple[str, ...]]:
    """Kind of an existing scan file, and a warning where its name says something else.

    A folder is an OME-Zarr image if it says so, else a DICOM series.

    Raises
    ------
    ImageError
        If there is no such file, it is empty, or it is no scan of a format that is read.
    """
    if ome_zarr.root_of(path) is not None:
        return "ome_zarr", ()
    if path.is_dir():
        return "dicom", ()
    head, is_gzip = _head(path)
    for magic, text in _NO_SCAN:
        if head[: len(magic)].lower() == magic.lower():
            raise ImageError(f"{path.name} {text}")
    if head[128:132] == b"DICM":
        return "dicom", ()
    if head[:4] in _SIZES:
        return "nifti", _name_warnings(path, is_gzip)
    if head[:4] == b"NRRD":
        return "nrrd", ()
    if (b"NDims" in head and b"ElementType" in head) or path.name.lower().endswith((".mha", ".mhd")):
        return "metaimage", ()
    name = path.name.lower()
    for endings, text in _BY_NAME:
        if name.endswith(endings):
            raise ImageError(f"{path.name} {text}")
    if name.endswith((".nii", ".nii.gz", ".hdr", ".img", ".img.gz", ".hdr.gz")):
        return "nifti", ()
    if name.endswith((".nrrd", ".nhdr")):
        return "nrrd", ()
    raise ImageError(f"{path.name} is no scan that can be read: open NIfTI, NRRD, MHA or DICOM.")


def _head(path: Path) -> tuple[bytes, bool]:
    """First bytes of a file, unpacked where it is gzipped, and whether it is."""
    try:
        if not path.exists():
            raise ImageError(f"{path} does not exist; check the path.")
        with path.open("rb") as stream:
            raw = stream.read(4096)
            is_gzip = raw[:2] == b"\x1f\x8b"
            if is_gzip:
                stream.seek(0)
                raw = gzip.GzipFile(fileobj=stream).read(4096)
    except (EOFError, gzip.BadGzipFile, zlib.error):
        raise ImageError(
            f"{path.name} is truncated or damaged: its gzip stream cannot be unpacked; copy or download "
            f"it again."
        ) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ImageError(f"{path} cannot be read: {reason}; check the path and its permissions.") from error
    if not raw:
        raise ImageError(f"{path.name} is empty (0 bytes); copy or download it again.")
    return raw, is_gzip


def _name_warnings(path: Path, is_gzip: bool) -> tuple[str, ...]:
    name = path.name.lower()
    if is_gzip and name.endswith((".nii", ".hdr")):
        return (f"{path.name} is gzipped although its name does not say so; it was unpacked.",)
    if not is_gzip and name.endswith(".gz"):
        return (f"{path.name} is not gzipped although its name says so; it was read as it is.",)
    return ()
