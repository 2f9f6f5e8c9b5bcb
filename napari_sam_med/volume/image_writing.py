"""Images out, such as edges: numbers on the voxels of a scan, written beside, read again and put in place."""

from __future__ import annotations

import os
from gzip import GzipFile
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from napari_sam_med.errors import ExportError, ImageError
from napari_sam_med.volume.formats import dicom, metaimage, nifti, nrrd
from napari_sam_med.volume.grid import Grid
from napari_sam_med.volume.replacement import Replacement, not_written, sweep_orphans
from napari_sam_med.volume.volume import Volume

__all__ = ["IMAGE_ENDINGS", "write_image"]

ImageEnding = Literal[".nii.gz", ".nii", ".nrrd", ".mha"]
#: Endings that `write_image` takes; the longer of two that fit counts.
IMAGE_ENDINGS: tuple[ImageEnding, ...] = (".nii.gz", ".nii", ".nrrd", ".mha")

_AFFINE_TOLERANCE_MM = 1e-3  # NIfTI stores float32


def write_image(path: str | os.PathLike[str], data_zyx: npt.NDArray[np.float32], source: Volume) -> Path:
    """Write numbers on the grid of a scan, in the scan's own orientation and affine.

    A new file is written beside, read again and compared before it replaces the previous one.

    Parameters
    ----------
    path : path
        The ending decides: ``.nii``, ``.nii.gz``, ``.nrrd`` or ``.mha``. NIfTI carries the geometry of a
        NIfTI scan bit for bit.
    data_zyx : ndarray (z, y, x) float32
        LPS+, of the shape of `source`.
    source : Volume
        The scan.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    ExportError
        If the ending is unknown, the target is the scan itself or cannot be written, the array has another
        shape, or the file does not read back as it should.
    """
    target = Path(path)
    ending = next((e for e in IMAGE_ENDINGS if target.name.lower().endswith(e)), None)
    if ending is None or target.name.lower().endswith(".seg.nrrd"):
        raise ExportError(
            f"{target.name} has no ending of an image: images are written as {', '.join(IMAGE_ENDINGS)}; "
            "give a name that ends so."
        )
    if data_zyx.shape != source.shape:
        raise ExportError(
            f"An image of {data_zyx.shape} voxels (z, y, x) does not fit {source.name} of {source.shape}; "
            "give one value for each voxel of the scan."
        )
    for scan in (source.path, *dicom.files_of(source.header)):
        if scan is not None and os.path.exists(target) and os.path.exists(scan) and target.samefile(scan):
            raise ExportError(
                f"{target} is the scan itself, which must not be replaced; choose another name."
            )
    sweep_orphans(Path(os.path.realpath(target)).parent)
    array_ijk = source.grid.from_canonical(np.asarray(data_zyx, dtype=np.float32))
    try:
        with Replacement(target, ending) as file:
            try:
                _write(file.temporary, ending, array_ijk, source)
                file.flush_to_disk()
                _compare(file.temporary, ending, array_ijk, source.grid)
            except ExportError as error:
                file.raise_hidden_error()  # SimpleITK is silent on a full disk
                raise ExportError(f"{target} was not written: {error}") from error
            file.put_in_place()
    except OSError as error:
        raise not_written(target, error) from error
    return target


def _write(path: Path, ending: ImageEnding, array_ijk: npt.NDArray[np.float32], source: Volume) -> None:
    if ending in (".nrrd", ".mha"):
        nrrd.write(path, array_ijk, source.grid)
        return
    with path.open("wb") as stream:
        if ending == ".nii":
            nifti.write(stream, array_ijk, source.grid, source.header, None)
            return
        # no name and no time in the gzip header: the same numbers give the same bytes
        with GzipFile("", "wb", compresslevel=6, fileobj=stream, mtime=0) as packed:
            nifti.write(packed, array_ijk, source.grid, source.header, None)


def _compare(path: Path, ending: ImageEnding, array_ijk: npt.NDArray[np.float32], grid: Grid) -> None:
    """Read the written file again; it must hold the same numbers at the same places."""
    try:
        if ending == ".mha":
            scan = metaimage.read(path)
        else:
            form = None if grid.doubt is None else grid.doubt.used
            scan = nrrd.read(path) if ending == ".nrrd" else nifti.read(path, form=form)
    except ImageError as error:
        raise ExportError(f"it cannot be read again ({error}); check the disk.") from error
    if not np.array_equal(scan.array_ijk, array_ijk):
        raise ExportError("it read back with other values; check the disk.")
    i, j, k = scan.array_ijk.shape
    if not grid.same_as(Grid(scan.affine, (i, j, k)), tolerance_mm=_AFFINE_TOLERANCE_MM):
        raise ExportError(
            f"this geometry (shear {grid.shear:.2g}) does not survive in a {ending} file; choose .nii.gz."
        )
