"""Layers in 3-D, coarse enough: napari takes all voxels to the graphics card, and an image's as floats.

512 x 512 x 300 voxels of a scan held the window up for a second. Without a graphics card each drawing of
labels of that size took three, and takes a quarter with every fifth voxel.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from types import MethodType
from typing import Any

import numpy as np
import numpy.typing as npt
from napari.layers import Image, Labels, Layer
from napari.utils.transforms import Affine
from vispy.gloo import gl

__all__ = ["coarsen_image", "coarsen_labels", "draws_in_software", "leave_fine"]

_MOST_LABELS, _MOST_VALUES = 256, 160
"""Voxels along an axis, where there are too many for `_FINE_BYTES`; making values floats takes longer."""
_MOST_IN_SOFTWARE = 96
_FINE_BYTES = 80_000_000
"""On the graphics card: 512 x 512 x 300 labels come whole, in 75 ms without a graphics card."""
_SOFTWARE = ("llvmpipe", "softpipe", "swiftshader", "swrast", "gdi generic", "software", "basic render")
_FLOAT_BYTES = 4


def draws_in_software(canvas: Any) -> bool | None:
    """Whether the processor draws, as on a remote desktop or in a virtual machine; None before it has."""
    scene = getattr(canvas, "_scene_canvas", None)  # another napari may call it otherwise
    if scene is None or not canvas.native.isValid():
        return None
    scene.set_current()
    name = str(gl.glGetParameter(gl.GL_RENDERER)).lower()
    return any(word in name for word in _SOFTWARE)


def coarsen_image(layer: Image, *, in_software: bool) -> bool:
    """Let a layer take fewer voxels to 3-D; answers whether it does."""
    state = getattr(layer, "_slicing_state", None)
    make = getattr(type(state), "_make_slice_request_internal", None)
    if make is None:
        return False  # another napari
    if layer.multiscale or layer.rgb or not isinstance(layer.data, np.ndarray):
        return False  # of several levels napari takes the coarsest
    state._make_slice_request_internal = partial(_thin_request, MethodType(make, state), layer, in_software)
    _refresh_with_places(layer, True)
    return not _shows_places(layer) and max(_steps_of_image(layer.data.shape, in_software)) > 1


def coarsen_labels(layer: Labels, visual: Any, *, in_software: bool) -> bool:
    """Let what draws labels take fewer of them to the graphics card in 3-D, and none around those; answers
    whether it does. The layer has all of them, so that whoever paints in 3-D paints where it is shown.
    """
    plain = getattr(type(visual), "downsample_texture", None)
    if plain is None or visual.MAX_TEXTURE_SIZE_3D is None:
        return False  # no window, no 3-D there, or another napari
    visual.downsample_texture = partial(_thin_texture, MethodType(plain, visual), visual, in_software)
    _refresh_with_places(layer, True)
    return not _shows_places(layer) and max(_steps_of_labels(layer.data, in_software)) > 1


def leave_fine(layer: Layer, visual: Any) -> None:
    """Let napari take all voxels again."""
    _refresh_with_places(layer, False)
    vars(getattr(layer, "_slicing_state", layer)).pop("_make_slice_request_internal", None)
    if visual is not None:
        vars(visual).pop("downsample_texture", None)


def _shows_places(layer: Layer) -> bool:
    """Whether napari draws a plane or a box by indices of voxels, which coarse ones have others of."""
    return str(layer.depiction) == "plane" or layer.bounding_box.visible


def _refresh_with_places(layer: Layer, is_wanted: bool) -> None:
    """Let napari take the voxels anew when that changes, once."""
    for event in (layer.events.depiction, layer.bounding_box.events.visible):
        event.disconnect(layer.refresh)
        if is_wanted:
            event.connect(layer.refresh)


def _steps_of_image(shape: tuple[int, ...], in_software: bool) -> tuple[int, ...]:
    return _steps(shape, _FLOAT_BYTES, _MOST_IN_SOFTWARE if in_software else _MOST_VALUES, in_software)


def _steps_of_labels(labels: npt.NDArray[Any], in_software: bool) -> tuple[int, ...]:
    most = _MOST_IN_SOFTWARE if in_software else _MOST_LABELS
    return _steps(labels.shape, labels.dtype.itemsize, most, in_software)


def _steps(shape: tuple[int, ...], item_bytes: int, most: int, in_software: bool) -> tuple[int, ...]:
    """Every how many voxels are shown along each axis."""
    if not in_software and math.prod(shape) * item_bytes <= _FINE_BYTES:
        return (1,) * len(shape)
    return tuple(-(-n // most) for n in shape)


@dataclass(frozen=True)
class _ThinRequest:
    """A request of napari's for a slice, of voxels some steps apart.

    Attributes
    ----------
    request : _ScalarFieldSliceRequest
        Of the data with every such voxel.
    steps : ndarray
        Along each axis of the layer.
    """

    request: Any
    steps: npt.NDArray[np.int_]

    @property
    def id(self) -> int:
        return self.request.id

    def __call__(self) -> Any:
        scale = Affine(name="tile2data", scale=self.steps, ndim=len(self.steps))
        return replace(self.request(), tile_to_data=scale)


def _thin_request(make: Callable[..., Any], layer: Image, in_software: bool, **options: Any) -> Any:
    request = make(**options)
    if request.slice_input.ndisplay != 3 or _shows_places(layer):
        return request
    data = request.data_at_data_level
    steps = np.array(_steps_of_image(data.shape, in_software))
    thin = data[tuple(slice(None, None, int(step)) for step in steps)]
    return _ThinRequest(replace(request, data_at_data_level=thin), steps)


def _thin_texture(
    plain: Callable[..., npt.NDArray[Any]],
    visual: Any,
    in_software: bool,
    data: npt.NDArray[Any],
    most: int,
) -> npt.NDArray[Any]:
    """What napari does with labels that are too large for a texture, for us to say which are."""
    layer = visual.layer
    steps = _steps_of_labels(data, in_software)
    if layer._slice_input.ndisplay != 3 or max(steps) == 1 or _shows_places(layer):
        return plain(data, most)
    thin = data[tuple(slice(None, None, step) for step in steps)]
    around = _around(thin)
    tile = layer._transforms["tile2data"]
    scale, translate = np.ones(layer.ndim), np.zeros(layer.ndim)
    for axis, step, part in zip(layer._slice_input.displayed, steps, around, strict=True):
        scale[axis], translate[axis] = step, step * part.start
    tile.scale, tile.translate = scale, translate
    visual._on_matrix_change()
    return np.ascontiguousarray(thin[around])


def _around(labels: npt.NDArray[Any]) -> tuple[slice, ...]:
    """Where any are, and a voxel more on each side, by which the surface is shaded."""
    parts = []
    for axis in range(labels.ndim):
        found = np.flatnonzero(labels.any(axis=tuple(other for other in range(labels.ndim) if other != axis)))
        parts.append(slice(max(0, found[0] - 1), found[-1] + 2) if len(found) else slice(0, 1))
    return tuple(parts)
