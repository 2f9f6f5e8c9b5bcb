"""Labels out as an OME-Zarr label image, some slices at a time; empty chunks take no room."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_sam_med.errors import ExportError, ImageError
from napari_sam_med.volume.disk_labels import labelled_planes
from napari_sam_med.volume.formats import ome_zarr
from napari_sam_med.volume.formats.ome_zarr import OmeZarrSource
from napari_sam_med.volume.grid import Grid
from napari_sam_med.volume.labels import LabelVolume
from napari_sam_med.volume.lazy_array import fits_memory
from napari_sam_med.volume.organs import OrganTable
from napari_sam_med.volume.replacement import Replacement

__all__ = ["FolderReplacement", "refuse_tilt", "write"]

_VERSION = "0.5"
_CHUNKS = (32, 256, 256)
_MOST_TILT_DEG = 0.01
_TOLERANCE_MM = 1e-3
_ROOT = "0"


class FolderReplacement(Replacement):
    """As `Replacement`, for a folder; the previous one stands aside until the new one has its name."""

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self.temporary, ignore_errors=True)

    def flush_to_disk(self) -> None:
        """Wait until all is on the disk: of thousands of chunks at once, where the system can."""
        if hasattr(os, "sync"):
            os.sync()

    def refuse_foreign(self) -> None:
        """Refuse to replace a folder that is no label image.

        Raises
        ------
        ExportError
            If there is one, or a file of that name.
        """
        if not self.target.exists():
            return
        try:
            scan = ome_zarr.read(self.target)
        except ImageError:
            scan = None
        if scan is None or scan.organs is None:
            raise ExportError(
                f"{self.target} is there already and holds no labels in OME-Zarr; choose another name."
            )

    def put_in_place(self) -> None:
        """Give the temporary folder the name of the target."""
        # a name that is seen, and not swept up: all there is, should the program end between the two steps
        aside = self.target.with_name(f"{self.target.name}.previous-{secrets.token_hex(4)}")
        had = self.target.exists()
        if had:
            os.replace(self.target, aside)
        try:
            os.replace(self.temporary, self.target)
        except BaseException:  # an interrupt, too
            if had:
                with suppress(OSError):
                    os.replace(aside, self.target)
            raise
        if had:
            with suppress(OSError):
                os.replace(aside, self.temporary)  # which is removed on leaving


def write(file: FolderReplacement, labels: LabelVolume, header: object | None, organs: OrganTable) -> None:
    """Write labels into the temporary folder of `file`, read them again and compare.

    Beside an OME-Zarr scan its own axes, units and chunks are used, so that both lie on one grid in every
    program. Beside other scans axes z, y, x run to superior, posterior and left, and say so (RFC-4).

    Raises
    ------
    ExportError
        If the grid is oblique, which the format cannot hold, or what is read again differs.
    ImageError
        If zarr is not installed.
    """
    file.refuse_foreign()
    zarr = ome_zarr.zarr_module()
    source = header if isinstance(header, OmeZarrSource) else None
    grid = labels.grid if source is not None else labels.grid.canonical()
    data = labels.data if source is None else labels.grid.from_canonical(labels.data).transpose(2, 1, 0)
    refuse_tilt(grid, file.target)
    axes, scale, translation = _axes(grid, source)
    version = _VERSION if source is None else source.version
    wanted = _CHUNKS if source is None else source.chunks
    if not fits_memory(wanted[0] * data[0].nbytes):  # a slab of whole chunks is in memory at once
        wanted = _CHUNKS
    chunks = tuple(min(n, size) for n, size in zip(wanted, data.shape, strict=True))
    group = zarr.open_group(file.temporary, mode="w", zarr_format=3 if version == "0.5" else 2)
    group.attrs.update(_attributes(version, axes, scale, translation, organs))
    options: dict[str, Any] = (
        {"chunk_key_encoding": {"name": "v2", "separator": "/"}} if version == "0.4" else {}
    )
    if version == "0.5":
        options["dimension_names"] = [str(axis["name"]) for axis in axes]
    array = group.create_array(
        _ROOT, shape=data.shape, chunks=chunks, dtype=data.dtype, fill_value=0, **options
    )
    slabs = list(_labelled_slabs(labels, data, chunks[0], source is not None))
    for slab in slabs:
        array[slab] = np.ascontiguousarray(data[slab])
    _compare(file.temporary, data, slabs, grid, organs)
    file.flush_to_disk()


def _axes(
    grid: Grid, source: OmeZarrSource | None
) -> tuple[list[Mapping[str, Any]], list[float], list[float]]:
    """Axes as they are written, with size of a voxel and place of the first along each, in its unit."""
    if source is not None:
        axes: list[Mapping[str, Any]] = list(source.axes)
        units = source.mm_per_unit
    else:
        words = ("inferior-to-superior", "anterior-to-posterior", "right-to-left")
        axes = [
            {
                "name": name,
                "type": "space",
                "unit": "millimeter",
                "orientation": {"type": "anatomical", "value": word},
            }
            for name, word in zip("zyx", words, strict=True)
        ]
        units = (1.0, 1.0, 1.0)
    scale, translation = [], []
    for number, (word, unit) in enumerate(zip(ome_zarr.directions(axes)[0], units, strict=True)):
        row, sign = ome_zarr.DIRECTIONS[word]
        scale.append(float(sign * grid.affine[row, 2 - number]) / unit)
        translation.append(float(sign * grid.affine[row, 3]) / unit)
    return axes, scale, translation


def refuse_tilt(grid: Grid, target: Path) -> None:
    """Refuse a grid that lies off the axes of the patient.

    Raises
    ------
    ExportError
    """
    if grid.obliquity_deg > _MOST_TILT_DEG or grid.shear > 1e-4:
        raise ExportError(
            f"{target} was not written: the scan lies {grid.obliquity_deg:.2g} degrees off the axes of the "
            "patient, which OME-Zarr 0.4 and 0.5 cannot say; choose .nii.gz."
        )


def _attributes(
    version: str,
    axes: list[Mapping[str, Any]],
    scale: list[float],
    translation: list[float],
    organs: OrganTable,
) -> dict[str, Any]:
    multiscale: dict[str, Any] = {
        "name": "labels",
        "axes": [dict(axis) for axis in axes],
        "datasets": [
            {
                "path": _ROOT,
                "coordinateTransformations": [
                    {"type": "scale", "scale": scale},
                    {"type": "translation", "translation": translation},
                ],
            }
        ],
    }
    about: dict[str, Any] = {
        "colors": [
            {"label-value": i, "rgba": [*(round(255 * value) for value in organ.color), 255]}
            for i, organ in organs.items()
        ],
        "properties": [{"label-value": i, "name": organ.name} for i, organ in organs.items()],
    }
    if version == "0.4":
        return {
            "multiscales": [{"version": version, **multiscale}],
            "image-label": {"version": version, **about},
        }
    return {"ome": {"version": version, "multiscales": [multiscale], "image-label": about}}


def _labelled_slabs(
    labels: LabelVolume, data: npt.NDArray[Any], depth: int, is_source_order: bool
) -> Iterator[slice]:
    """Slabs of whole chunks along the first axis of `data` that may hold labels."""
    planes = np.zeros(labels.shape[0], dtype=bool)
    planes[list(labelled_planes(labels.data))] = True
    orientation = labels.grid.orientation
    if is_source_order and orientation.file_axes[0] != 2:  # the first axis is not that of axial slices
        planes = np.ones(data.shape[0], dtype=bool)
    elif is_source_order and orientation.flipped[0]:
        planes = planes[::-1]
    for start in range(0, data.shape[0], depth):
        slab = slice(start, min(start + depth, data.shape[0]))
        if planes[slab].any() and data[slab].any():
            yield slab


def _compare(
    folder: Path, data: npt.NDArray[Any], slabs: list[slice], grid: Grid, organs: OrganTable
) -> None:
    """Read what was written again; of the rest nothing lies on the disk."""
    try:
        array = ome_zarr.zarr_module().open_group(folder, mode="r")[_ROOT]
        is_equal = array.shape == data.shape and array.dtype == data.dtype
        is_equal = is_equal and all(np.array_equal(array[slab], data[slab]) for slab in slabs)
        affine, names = ome_zarr.affine_and_organs(folder)
    except (ImageError, OSError) as error:
        raise ExportError(f"{folder.name} cannot be read again ({error}); check the disk.") from error
    if not is_equal:
        raise ExportError("The labels were written but read back with other values; check the disk.")
    if not grid.same_as(Grid(affine, grid.shape_ijk), tolerance_mm=_TOLERANCE_MM):
        raise ExportError("The labels were written but read back at another place; choose .nii.gz.")
    if {i: organ.name for i, organ in (names or {}).items()} != {
        i: organ.name for i, organ in organs.items()
    }:
        raise ExportError("The organ names were written but read back changed; rename them and export again.")
