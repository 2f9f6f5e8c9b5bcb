"""Layers that another reader put into napari: their grid and transform are kept, never changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_sam_med.errors import ImageError
from napari_sam_med.volume.grid import Grid
from napari_sam_med.volume.intensity import contrast_warning
from napari_sam_med.volume.orientation import AS_STORED, orientation_of
from napari_sam_med.volume.volume import Volume

__all__ = ["volume_of_layer"]

FloatArray = npt.NDArray[np.float64]
# a layer's unit; anything else, above all napari's default "pixel", is taken for millimetres
_MM_OF_UNIT = {"nanometer": 1e-6, "micrometer": 1e-3, "micron": 1e-3, "centimeter": 10.0, "meter": 1e3}
_RAS_FROM_ZYX_LPS = np.array([[0.0, 0, -1, 0], [0, -1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1]])
_ZYX_FROM_IJK = np.array([[0.0, 0, 1, 0], [0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1]])


def volume_of_layer(layer: Any) -> Volume:
    """See `Volume.from_layer`."""
    data = _full_resolution(layer)
    own = _own_volume(layer, data)
    if own is not None:
        return own
    transform = _transform_of(layer, len(data.shape))
    if len(data.shape) == 2:
        data = data[None]
    shape_ijk = (int(data.shape[2]), int(data.shape[1]), int(data.shape[0]))
    millimetres = np.diag([*_millimetres_per_unit(transform), 1.0])
    affine = _RAS_FROM_ZYX_LPS @ millimetres @ _world_from_data(transform) @ _ZYX_FROM_IJK
    warnings: tuple[str, ...] = ()
    try:
        grid = Grid(affine, shape_ijk, AS_STORED)
    except ImageError:
        grid = Grid.from_zyx(data.shape)
        warnings = (f"The transform of layer {layer.name!r} cannot be inverted; 1 mm voxels are assumed.",)
    volume = Volume(
        data=data,
        grid=grid,
        path=_path_of(layer),
        warnings=warnings,
        layer_transform=transform,
        layer_name=str(layer.name),
        levels=tuple(layer.data[1:]) if getattr(layer, "multiscale", False) else (),
    )
    odd = contrast_warning(volume)
    return replace(volume, warnings=(*warnings, odd)) if odd else volume


def _full_resolution(layer: Any) -> Any:
    data = layer.data[0] if getattr(layer, "multiscale", False) else layer.data
    if getattr(layer, "rgb", False):
        raise ImageError(
            f"Layer {layer.name!r} is a colour image: scans have one number a voxel; convert it to grey."
        )
    if not hasattr(data, "shape") or not hasattr(data, "dtype"):
        data = np.asarray(data)
    if len(data.shape) not in (2, 3) or min(data.shape) < 1:
        raise ImageError(
            f"Layer {layer.name!r} has {len(data.shape)} axes: a scan has 2 or 3; split the layer along the "
            "others (in napari: right click on it, Split Stack)."
        )
    if np.dtype(data.dtype).kind not in "iufb":
        raise ImageError(
            f"Layer {layer.name!r} holds {data.dtype} values: scans hold real numbers; convert it."
        )
    return data


def _own_volume(layer: Any, data: Any) -> Volume | None:
    """The volume in ``layer.metadata["sam_med"]``: a `Volume`, or a mapping with one or an affine."""
    kept = (getattr(layer, "metadata", None) or {}).get("sam_med")
    volume = kept.get("volume") if isinstance(kept, Mapping) else kept
    if isinstance(volume, Volume) and volume.shape == tuple(data.shape):
        return volume if volume.data is data else replace(volume, data=data, statistics={}, levels=())
    if not isinstance(kept, Mapping) or "affine" not in kept or len(data.shape) != 3:
        return None
    affine = np.asarray(kept["affine"], dtype=np.float64)
    if affine.shape != (4, 4) or not np.isfinite(affine).all() or not np.linalg.det(affine[:3, :3]):
        return None
    shape_ijk = [0, 0, 0]
    for canonical_axis, file_axis in enumerate(orientation_of(affine).file_axes):
        shape_ijk[file_axis] = int(data.shape[canonical_axis])
    grid = Grid(affine, (shape_ijk[0], shape_ijk[1], shape_ijk[2]))
    return Volume(data=data, grid=grid, path=_path_of(layer), layer_name=str(layer.name))


def _transform_of(layer: Any, ndim: int) -> dict[str, Any]:
    """All of a layer's own transform, as keyword arguments for a new layer of three axes."""
    scale, translate = np.ones(3), np.zeros(3)
    rotate, shear, affine = np.eye(3), np.eye(3), np.eye(4)
    scale[-ndim:] = np.asarray(layer.scale, dtype=float)[-ndim:]
    translate[-ndim:] = np.asarray(layer.translate, dtype=float)[-ndim:]
    rotate[-ndim:, -ndim:] = np.asarray(layer.rotate, dtype=float)
    shear[-ndim:, -ndim:] = _shear_matrix(layer.shear, ndim)
    matrix = getattr(layer.affine, "affine_matrix", layer.affine)
    affine[-ndim - 1 :, -ndim - 1 :] = np.asarray(matrix, dtype=float)
    transform: dict[str, Any] = {
        "scale": tuple(scale),
        "translate": tuple(translate),
        "rotate": rotate,
        "shear": shear[np.triu_indices(3, 1)] if np.allclose(shear, np.triu(shear)) else shear,
        "affine": affine,
    }
    for key in ("units", "axis_labels"):
        values = tuple(getattr(layer, key, None) or ())
        if len(values) == ndim:
            # a new axis of a flat picture: measured as its neighbours, named apart from them
            first = values[0] if key == "units" else "slice"
            transform[key] = values if ndim == 3 else (first, *values)
    return transform


def _shear_matrix(shear: Any, ndim: int) -> FloatArray:
    """napari gives shear as the upper triangle of a unit matrix, row by row, or as the matrix."""
    values = np.asarray(shear, dtype=float)
    if values.ndim == 2:
        return values
    matrix = np.eye(ndim)
    matrix[np.triu_indices(ndim, 1)] = values
    return matrix


def _world_from_data(transform: Mapping[str, Any]) -> FloatArray:
    """Matrix (4, 4) from a voxel (z, y, x) to napari's world, composed as napari composes it."""
    inner = np.eye(4)
    shear = _shear_matrix(transform["shear"], 3)
    inner[:3, :3] = np.asarray(transform["rotate"]) @ shear @ np.diag(transform["scale"])
    inner[:3, 3] = transform["translate"]
    return np.asarray(transform["affine"] @ inner, dtype=np.float64)


def _millimetres_per_unit(transform: Mapping[str, Any]) -> list[float]:
    units = transform.get("units", ("mm", "mm", "mm"))
    return [_MM_OF_UNIT.get(str(unit), 1.0) for unit in units]


def _path_of(layer: Any) -> Path | None:
    path = getattr(getattr(layer, "source", None), "path", None)
    return None if path is None else Path(path)
