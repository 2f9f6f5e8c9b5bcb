"""How a viewer is turned for each plane, and where voxels lie in its world."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from napari.components import ViewerModel
from napari.utils.transforms import Affine

from napari_sam_med.volume.slice_view import PLANES, Plane, SliceView

__all__ = ["Frame", "canvas_of", "current_view", "go_inside", "go_to", "show_in_3d", "show_plane"]

_ORDERS: dict[Plane, tuple[int, int, int]] = {
    "axial": (0, 1, 2),
    "coronal": (1, 0, 2),
    "sagittal": (2, 0, 1),
}
_ORIENTATIONS: dict[Plane, tuple[str, str]] = {
    "axial": ("down", "right"),
    "coronal": ("up", "right"),  # superior is up
    "sagittal": ("up", "right"),
}
_TO_POSTERIOR, _TO_SUPERIOR = (0.0, 1.0, 0.0), (1.0, 0.0, 0.0)


class Frame:
    """Where the voxels of a scan lie in the viewer's world; the transform that all its layers share.

    Parameters
    ----------
    transform : mapping
        Keyword arguments of a napari layer: scale, translate and, of a foreign layer, rotate, shear, affine.
    shape_zyx : (int, int, int)
    """

    def __init__(self, transform: Mapping[str, Any], shape_zyx: Sequence[int]) -> None:
        self.layer_arguments = dict(transform)
        self.shape_zyx = tuple(int(n) for n in shape_zyx)
        own = {key: transform[key] for key in ("scale", "translate", "rotate", "shear") if key in transform}
        self._inner = Affine(**own)
        outer = transform.get("affine")
        whole = self._inner if outer is None else Affine(affine_matrix=np.asarray(outer)).compose(self._inner)
        self._world_from_index = whole
        self._index_from_world = whole.inverse

    def world(self, index_zyx: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """World position (3,) or (N, 3) of voxel indices (z, y, x)."""
        return np.asarray(self._world_from_index(np.asarray(index_zyx, dtype=float)))

    def index(self, world: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Voxel index (z, y, x), not rounded, of world positions (ndim,) or (N, ndim) (last three axes)."""
        positions = np.asarray(world, dtype=float)[..., -3:]
        return np.asarray(self._index_from_world(positions))

    def contains(self, index_zyx: npt.ArrayLike) -> npt.NDArray[np.bool_]:
        """Whether positions (N, 3) lie in the volume, half a voxel of border included."""
        positions = np.asarray(index_zyx, dtype=float)
        return ((positions >= -0.5) & (positions <= np.array(self.shape_zyx) - 0.5)).all(axis=-1)

    def slice_arguments(self, view: SliceView) -> dict[str, Any]:
        """Layer arguments that place an array of one slice (one voxel thick) where the slice lies."""
        offset = np.zeros(3)
        offset[view.axis] = view.index
        return self.layer_arguments | {"translate": tuple(np.asarray(self._inner(offset)))}


def current_view(viewer: ViewerModel, frame: Frame) -> SliceView | None:
    """The slice that the viewer shows; None in 3-D, or where it shows none of the volume.

    The index comes from the world position, never from ``dims.current_step``: that one moves when a layer
    with another spacing is added.
    """
    dims = viewer.dims
    if dims.ndisplay != 2 or dims.ndim < 3:
        return None
    hidden = [axis - (dims.ndim - 3) for axis in dims.not_displayed if axis >= dims.ndim - 3]
    if len(hidden) != 1:
        return None
    axis = hidden[0]
    index = round(float(frame.index(dims.point)[axis]))
    return SliceView(PLANES[axis], index) if 0 <= index < frame.shape_zyx[axis] else None


def go_to(viewer: ViewerModel, frame: Frame, view: SliceView) -> None:
    """Move the viewer to a slice, turning it to the slice's plane where it shows another one."""
    now = current_view(viewer, frame)
    if now is None or now.plane != view.plane:
        show_plane(viewer, view.plane)
    index = np.round(frame.index(viewer.dims.point))
    index[view.axis] = view.index
    axis = viewer.dims.ndim - 3 + view.axis
    viewer.dims.set_point(axis, float(frame.world(index)[view.axis]))


def go_inside(viewer: ViewerModel, frame: Frame) -> None:
    """Move the viewer to the middle of a volume along every axis on which it is beyond it.

    An earlier scan elsewhere leaves it there, and no slice of this one would be seen.
    """
    index = frame.index(viewer.dims.point)
    shape = np.array(frame.shape_zyx)
    is_beyond = (index < -0.5) | (index > shape - 0.5)
    if is_beyond.any():
        world = frame.world(np.where(is_beyond, (shape - 1) // 2, index))
        viewer.dims.set_point(range(viewer.dims.ndim - 3, viewer.dims.ndim), world.tolist())


def show_plane(viewer: ViewerModel, plane: Plane) -> None:
    """Show a plane the way radiologists look at it."""
    viewer.dims.ndisplay = 2
    others = viewer.dims.ndim - 3
    viewer.dims.order = (*range(others), *(axis + others for axis in _ORDERS[plane]))
    _camera(viewer).orientation2d = _ORIENTATIONS[plane]
    viewer.reset_view()


def canvas_of(viewer: ViewerModel | None) -> Any:
    """What a viewer is drawn on; None without a window."""
    window = getattr(viewer, "window", None)
    return getattr(getattr(window, "_qt_viewer", None), "canvas", None)


def show_in_3d(viewer: ViewerModel) -> None:
    """Show the volume from in front of the patient, head up, the patient's right on the left."""
    others = viewer.dims.ndim - 3
    viewer.dims.order = (*range(others), *(axis + others for axis in (0, 1, 2)))
    viewer.dims.ndisplay = 3
    camera = _camera(viewer)
    camera.orientation = ("away", "down", "right")  # anything else would mirror the patient
    viewer.reset_view()
    camera.set_view_direction(view_direction=_TO_POSTERIOR, up_direction=_TO_SUPERIOR)


def _camera(viewer: ViewerModel) -> Any:
    scene = getattr(viewer, "scene", None)
    return viewer.camera if scene is None else scene.camera
