"""OME-Zarr (NGFF 0.4 and 0.5) in: images and labels in chunks, read as a whole where they fit into memory.

The format says how far apart voxels are and where the first one lies, but until RFC-4 (anatomical orientation
of axes) not which way an axis runs in the patient.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_sam_med.errors import ImageError
from napari_sam_med.volume.formats.nifti_geometry import geometry_warnings, is_usable
from napari_sam_med.volume.formats.scan import Scan
from napari_sam_med.volume.geometry_doubt import GeometryDoubt
from napari_sam_med.volume.lazy_array import ChunkCache, LazyArray, fits_memory
from napari_sam_med.volume.organs import Organ, OrganTable, default_color

__all__ = [
    "DIRECTIONS",
    "MARKERS",
    "OmeZarrSource",
    "affine_and_organs",
    "directions",
    "n_times",
    "read",
    "root_of",
    "zarr_module",
]

#: Files that say that their folder is a Zarr group or array.
MARKERS = ("zarr.json", ".zgroup", ".zattrs", ".zarray")
_VERSIONS = ("0.4", "0.5")
_MM_OF_UNIT = {
    "angstrom": 1e-7,
    "nanometer": 1e-6,
    "micrometer": 1e-3,
    "millimeter": 1.0,
    "centimeter": 10.0,
    "meter": 1e3,
    "inch": 25.4,
}
#: RFC-4's words for the directions that a whole body has: the axis of RAS, and whether it grows along it.
DIRECTIONS = {
    "left-to-right": (0, 1),
    "right-to-left": (0, -1),
    "posterior-to-anterior": (1, 1),
    "anterior-to-posterior": (1, -1),
    "inferior-to-superior": (2, 1),
    "superior-to-inferior": (2, -1),
}
_TAKEN = {"x": "right-to-left", "y": "anterior-to-posterior", "z": "inferior-to-superior"}
_DAMAGES = (KeyError, TypeError, ValueError, AttributeError, IndexError)


@dataclass(frozen=True, eq=False)
class OmeZarrSource:
    """What labels of an OME-Zarr image need to lie beside it as other programs see it.

    Attributes
    ----------
    version : str
        ``0.4`` (Zarr 2) or ``0.5`` (Zarr 3).
    axes : tuple of dict
        Those of space as the file has them, in its order.
    mm_per_unit : tuple of float
        Of each of these axes.
    chunks : tuple of int
        Along these axes.
    """

    version: str
    axes: tuple[Mapping[str, Any], ...]
    mm_per_unit: tuple[float, ...]
    chunks: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class _Opened:
    """Metadata of an image that was looked at."""

    version: str
    axes: list[Mapping[str, Any]]
    arrays: list[Any]
    scale: npt.NDArray[np.float64]
    translation: npt.NDArray[np.float64]
    organs: OrganTable | None

    @property
    def space(self) -> list[int]:
        return [number for number, axis in enumerate(self.axes) if axis.get("type", "space") == "space"]

    @property
    def others(self) -> tuple[int, ...]:
        """Lengths of the axes of time and channels."""
        return tuple(size for axis, size in enumerate(self.arrays[0].shape) if axis not in self.space)


def root_of(path: Path) -> Path | None:
    """The folder of a Zarr group that a path means: itself, or that of its ``zarr.json``; None for others."""
    folder = path.parent if path.name in MARKERS and path.is_file() else path
    return folder if any((folder / name).is_file() for name in MARKERS) else None


def zarr_module() -> Any:
    """The module zarr.

    Raises
    ------
    ImageError
        Where it is not installed.
    """
    try:
        import zarr
    except ImportError as error:
        raise ImageError(
            'OME-Zarr needs zarr, which is not installed; install it with pip install "napari-sam-med[zarr]".'
        ) from error
    return zarr


def n_times(path: Path) -> int:
    """Number of three-dimensional volumes (time points times channels); reads metadata only."""
    return math.prod(_open(path).others)


def read(path: Path, time: int | None = None) -> Scan:
    """One volume of an OME-Zarr image, on the disk where it is larger than a sixth of the memory.

    Parameters
    ----------
    path : Path
        Folder of the image.
    time : int, optional
        Which volume of several, counted over time and channels as they are stored; the first, with a warning,
        when left out.

    Raises
    ------
    ImageError
        If the folder holds no image of version 0.4 or 0.5, or the metadata are damaged.
    """
    opened = _open(path)
    count = math.prod(opened.others)
    if time is not None and not 0 <= time < count:
        raise ImageError(
            f"{path.name} holds {count} volumes; time {time} does not exist, give 0 to {count - 1}."
        )
    warnings = []
    if count > 1 and time is None:
        warnings.append(f"{path.name} holds {count} volumes (times and channels); the first is used.")
    affine, doubt, more = _geometry(opened, path)
    warnings += more
    index = iter(np.unravel_index(time or 0, opened.others) if opened.others else ())
    where = [None if axis in opened.space else int(next(index)) for axis in range(len(opened.axes))]
    cache = ChunkCache()
    levels = [LazyArray(array, where, cache=cache).transpose((2, 1, 0)) for array in opened.arrays]
    source = OmeZarrSource(
        opened.version,
        tuple(opened.axes[axis] for axis in opened.space),
        tuple(_MM_OF_UNIT.get(str(opened.axes[axis].get("unit")), 1.0) for axis in opened.space),
        tuple(int(opened.arrays[0].chunks[axis]) for axis in opened.space),
    )
    is_whole = fits_memory(levels[0].nbytes)
    return Scan(
        np.asarray(levels[0]) if is_whole else levels[0],
        affine,
        source,
        count,
        (*warnings, *geometry_warnings(affine)),
        opened.organs,
        doubt,
        () if is_whole else tuple(levels[1:]),
    )


def affine_and_organs(path: Path) -> tuple[npt.NDArray[np.float64], OrganTable | None]:
    """Voxel (i, j, k) to RAS mm, and names of labels, of an image; raises as `read` does."""
    opened = _open(path)
    return _geometry(opened, path)[0], opened.organs


def _open(path: Path) -> _Opened:
    zarr = zarr_module()
    try:
        group = zarr.open_group(path, mode="r")
        attributes = dict(group.attrs)
    except Exception as error:  # zarr raises a dozen kinds for damaged or foreign folders
        raise ImageError(
            f"{path.name} cannot be opened as a Zarr group ({error}); open the folder of an OME-Zarr image."
        ) from error
    ome = attributes.get("ome", attributes)
    try:
        multiscales = ome.get("multiscales")
        if not multiscales:
            raise ImageError(_no_image(path, group))
        image = multiscales[0]
        version = str(ome.get("version") or image.get("version") or "unknown")
        if version not in _VERSIONS:
            raise ImageError(
                f"{path.name} is OME-Zarr of version {version}: {' and '.join(_VERSIONS)} are read; "
                "write it again as one of these."
            )
        axes: list[Mapping[str, Any]] = [dict(axis) for axis in image["axes"]]
        levels = [dataset["path"] for dataset in image["datasets"]]
        missing = [level for level in levels if level not in group]
        if missing:
            raise ImageError(
                f"{path.name} names the level {missing[0]!r}, which is not in it; copy or download it again."
            )
        arrays = [group[level] for level in levels]
        if not all(isinstance(array, zarr.Array) for array in arrays):
            raise ValueError("a level that is no array")
        scale, translation = np.ones(len(axes)), np.zeros(len(axes))
        steps = [
            *image["datasets"][0]["coordinateTransformations"],
            *image.get("coordinateTransformations", []),
        ]
        for step in steps:
            if step["type"] == "scale":
                factor = _vector(step["scale"], len(axes))
                scale, translation = scale * factor, translation * factor
            elif step["type"] == "translation":
                translation = translation + _vector(step["translation"], len(axes))
            elif step["type"] != "identity":
                raise ValueError(f"the transformation {step['type']!r}")
        organs = _organs(ome.get("image-label"))
        opened = _Opened(version, axes, arrays, scale, translation, organs)
    except _DAMAGES as error:
        raise ImageError(
            f"The metadata of {path.name} are damaged or of a kind that is not read ({error!r}); write it "
            "again as OME-Zarr 0.4 or 0.5."
        ) from error
    _refuse_others(path, opened)
    return opened


def _refuse_others(path: Path, opened: _Opened) -> None:
    if len(opened.space) != 3:
        raise ImageError(
            f"{path.name} has {len(opened.space)} axes of space: a scan has three; open it as a volume of "
            "single slices."
        )
    first = opened.arrays[0]
    if any(array.ndim != len(opened.axes) for array in opened.arrays) or min(first.shape) < 1:
        raise ImageError(f"The arrays of {path.name} have other axes than it says; write it again.")
    if np.dtype(first.dtype).kind not in "iufb":
        raise ImageError(f"{path.name} holds {first.dtype} values: scans hold real numbers; convert it.")


def _no_image(path: Path, group: Any) -> str:
    inside = sorted(name for name, _ in group.groups())[:3]
    such = f", such as {path.name}/{inside[0]}" if inside else ""
    return f"{path.name} is a Zarr group without an image of its own; open one of the images in it{such}."


def _vector(values: Sequence[float], n_axes: int) -> npt.NDArray[np.float64]:
    vector = np.array(values, dtype=np.float64)
    if vector.shape != (n_axes,):
        raise ValueError(f"{vector.size} numbers for {n_axes} axes")
    return vector


def _geometry(opened: _Opened, path: Path) -> tuple[npt.NDArray[np.float64], GeometryDoubt | None, list[str]]:
    """Voxel (i, j, k) to RAS mm, where i runs along the last axis of space of the file."""
    axes = [opened.axes[axis] for axis in opened.space]
    words, trouble = directions(axes)
    warnings = []
    unknown = sorted({str(axis.get("unit")) for axis in axes} - _MM_OF_UNIT.keys())
    if unknown:
        said = "no unit" if unknown == ["None"] else f"the unit {', '.join(unknown)}"
        warnings.append(f"{path.name} has {said} for its axes; millimetres are assumed.")
    affine = np.zeros((4, 4))
    affine[3, 3] = 1.0
    for number, (axis, word) in enumerate(zip(axes, words, strict=True)):
        row, sign = DIRECTIONS[word]
        mm = _MM_OF_UNIT.get(str(axis.get("unit")), 1.0)
        affine[row, 2 - number] = sign * mm * opened.scale[opened.space[number]]
        affine[row, 3] = sign * mm * opened.translation[opened.space[number]]
    if not is_usable(affine):
        raise ImageError(
            f"The geometry of {path.name} is damaged (not finite, or no sensible voxel size); write it again."
        )
    if trouble is None:
        return affine, None, warnings
    warnings.append(
        f"{path.name} has {trouble}: its x, y and z are taken to run to left, posterior, superior; "
        "check left and right."
    )
    remark = "alone, with x, y and z taken to run to left, posterior, superior"
    return affine, GeometryDoubt((f"it has {trouble}",), "voxel sizes", remark=remark), warnings


def directions(axes: Sequence[Mapping[str, Any]]) -> tuple[list[str], str | None]:
    """The direction of each axis, a word of `DIRECTIONS`, and what the file has instead of all three."""
    said = [axis.get("orientation") for axis in axes]
    words = [str(one.get("value") if isinstance(one, Mapping) else one) for one in said]
    if all(word in DIRECTIONS for word in words) and len({DIRECTIONS[word][0] for word in words}) == 3:
        return words, None
    trouble = "no anatomical orientation"
    if any(one is not None for one in said):
        trouble = f"an anatomical orientation that is not understood ({', '.join(words)})"
    names = [str(axis.get("name", "")).lower() for axis in axes]
    if sorted(names) != ["x", "y", "z"]:
        names = ["z", "y", "x"]  # the order that the format asks for
    return [_TAKEN[name] for name in names], trouble


def _organs(about: Mapping[str, Any] | None) -> OrganTable | None:
    """Names and colours of ``image-label``; None where the image is no labels."""
    if about is None:
        return None
    names = {int(row["label-value"]): row.get("name") for row in about.get("properties", [])}
    colors = {int(row["label-value"]): row.get("rgba") for row in about.get("colors", [])}
    organs = []
    for class_id in sorted(set(names) | set(colors)):
        if class_id < 1:
            continue
        rgba = colors.get(class_id)
        r, g, b = default_color(class_id) if rgba is None else (float(value) / 255 for value in rgba[:3])
        organs.append(Organ(class_id, str(names.get(class_id) or f"label {class_id}"), (r, g, b)))
    return OrganTable(organs)
