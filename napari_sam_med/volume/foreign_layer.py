"""Layers that another reader put into napari: their grid and transform are kept, never changed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_sam_med.errors import ImageError
from napari_sam_med.volume.grid import Grid
from napari_sam_med.volume.volume import Volume

__all__ = ["volume_of_layer"]

FloatArray = npt.NDArray[np.float64]


def volume_of_layer(layer: Any) -> Volume:
    """See `Volume.from_layer`."""
    data = _full_resolution(layer)
    own = _own_volume(layer, data.shape)
    if own is not None:
        return own
    warnings = []
    matrix = _world_zyx_from_data(layer, data.ndim)
    transform = _transform_of(layer)
    if data.ndim == 2:
        data = data[None]
        transform = None  # a two-dimensional transform cannot place three-dimensional labels
    affine = _ras_from_ijk(matrix)
    try:
        grid = Grid(affine, (data.shape[2], data.shape[1], data.shape[0]), stored_as_zyx=True)
    except ImageError:
        spacing = np.abs(np.asarray(layer.scale, dtype=float))[-3:]
        grid = Grid.from_zyx(data.shape, spacing if (spacing > 0).all() and spacing.size == 3 else (1.0, 1.0, 1.0))
        warnings.append(f"The transform of layer {layer.name!r} cannot be inverted; only its scale is used.")
    return Volume(
        data=data,
        grid=grid,
        path=_path_of(layer),
        warnings=tuple(warnings),
        layer_transform=transform,
        layer_name=str(layer.name),
    )


def _full_resolution(layer: Any) -> Any:
    data = layer.data
    if getattr(layer, "multiscale", False):
        data = data[0]
    if getattr(layer, "rgb", False):
        raise ImageError(f"Layer {layer.name!r} is a colour image: scans have one number a voxel; convert it to grey.")
    if len(data.shape) not in (2, 3) or min(data.shape) < 1:
        raise ImageError(
            f"Layer {layer.name!r} has {len(data.shape)} axes: a scan has 2 or 3; split the layer along the others "
            "(napari: right click, Split Stack)."
        )
    return data


def _own_volume(layer: Any, shape: tuple[int, ...]) -> Volume | None:
    """The Volume that this package put into the metadata of its layer, with the voxels that the layer shows."""
    kept = getattr(layer, "metadata", {}).get("sam_med")
    volume = kept.get("volume") if isinstance(kept, dict) else kept
    if isinstance(volume, Volume) and volume.shape == tuple(shape):
        return volume
    return None
