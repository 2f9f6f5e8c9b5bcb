"""How a viewer is turned for each plane, and where voxels lie in its world."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
from napari.components import ViewerModel
from napari.layers import Layer
from napari.utils.transforms import Affine
from qtpy.compat import isalive

from napari_sam_med.volume.slice_view import PLANES, Plane, SliceView

__all__ = [
    "Frame",
    "canvas_of",
    "come_back_to",
    "current_view",
    "fit",
    "go_inside",
    "go_to",
    "keep_place_of_sliders",
    "sees",
    "show_in_3d",
    "show_plane",
    "stay_at",
    "visual_of",
]

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
_FITTED = 0.95
"""Of the canvas, as napari's own Home."""
_LEAST_SEEN = 0.5
"""Of the scan, or of the canvas where that shows a part of it."""


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

    def box(self) -> npt.NDArray[np.float64]:
        """Lowest and highest world position (2, 3) of the volume, edges of voxels included."""
        ends = np.stack([np.full(3, -0.5), np.array(self.shape_zyx) - 0.5])
        corners = self.world(np.array(np.meshgrid(*ends.T)).reshape(3, -1).T)
        return np.stack([corners.min(axis=0), corners.max(axis=0)])

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
        show_plane(viewer, view.plane, frame)
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


def show_plane(viewer: ViewerModel, plane: Plane, frame: Frame | None = None) -> None:
    """Show a plane the way radiologists look at it, and all of a scan; of all layers where none is given."""
    with _laid_out_once(viewer):
        viewer.dims.ndisplay = 2
        others = viewer.dims.ndim - 3
        viewer.dims.order = (*range(others), *(axis + others for axis in _ORDERS[plane]))
    _camera(viewer).orientation2d = _ORIENTATIONS[plane]
    fit(viewer, frame)


def fit(viewer: ViewerModel, frame: Frame | None) -> None:
    """Let a scan fill the canvas, however far other layers reach; all layers where none is given."""
    if frame is None or viewer.canvas.grid.enabled:
        viewer.reset_view()
        return
    low, high = _box_seen(viewer, frame)
    camera = _camera(viewer)
    middle = (low + high) / 2
    camera.center = tuple(middle) if len(middle) == 3 else (camera.center[0], *middle)
    extent = (high - low)[[0, 2]] if len(middle) == 3 else high - low  # in 3-D from the front
    camera.zoom = _FITTED * float(np.min(np.array(viewer.canvas.size) / extent))


def sees(viewer: ViewerModel, frame: Frame) -> bool:
    """Whether a scan is in sight on the canvas of a 2-D view, or around it where the user has zoomed in."""
    low, high = _box_seen(viewer, frame)
    camera = _camera(viewer)
    half = np.array(viewer.canvas.size) / camera.zoom / 2
    middle = np.array(camera.center[-2:])
    overlap = np.clip(np.minimum(high, middle + half) - np.maximum(low, middle - half), 0.0, None)
    return bool(np.prod(overlap) > _LEAST_SEEN * min(np.prod(high - low), np.prod(2 * half)))


def _box_seen(viewer: ViewerModel, frame: Frame) -> npt.NDArray[np.float64]:
    """Ends (2, n) of a scan along the axes that are displayed."""
    others = viewer.dims.ndim - 3
    return frame.box()[:, [axis - others for axis in viewer.dims.displayed]]


def canvas_of(viewer: ViewerModel | None) -> Any:
    """What a viewer is drawn on; None without a window."""
    return getattr(_qt_viewer(viewer), "canvas", None)


def visual_of(viewer: ViewerModel, layer: Layer) -> Any:
    """What draws a layer; None without a window."""
    return getattr(canvas_of(viewer), "layer_to_visual", {}).get(layer)


def keep_place_of_sliders(viewer: ViewerModel, *, is_kept: bool) -> None:
    """Leave the place empty of those that just went, or let the canvas have it again: one of another size is
    grey until it is drawn.
    """
    sliders = _sliders_of(viewer)
    if sliders is not None:
        layout = sliders.layout()
        layout.setContentsMargins(0, 0, 0, 0)
        if is_kept:
            layout.setContentsMargins(0, max(0, sliders.height() - layout.sizeHint().height()), 0, 0)


@contextmanager
def _laid_out_once(viewer: ViewerModel) -> Iterator[None]:
    """Have Qt lay the window out when all sliders that go are gone: napari shows another one before that."""
    sliders = _sliders_of(viewer)
    around = None if sliders is None else sliders.parentWidget()
    if around is None or around.layout() is None:
        yield
        return
    around.layout().setEnabled(False)
    try:
        yield
    finally:
        around.layout().setEnabled(True)
        sliders.layout().activate()
        around.layout().activate()  # at once: what is fitted next goes by the size of the canvas


def show_in_3d(viewer: ViewerModel, frame: Frame | None = None) -> None:
    """Show a scan, or all layers, from in front of the patient, head up, the patient's right on the left."""
    others = viewer.dims.ndim - 3
    with _laid_out_once(viewer):
        viewer.dims.order = (*range(others), *(axis + others for axis in (0, 1, 2)))
        viewer.dims.ndisplay = 3
    camera = _camera(viewer)
    camera.orientation = ("away", "down", "right")  # anything else would mirror the patient
    fit(viewer, frame)
    camera.set_view_direction(view_direction=_TO_POSTERIOR, up_direction=_TO_SUPERIOR)


def stay_at(viewer: ViewerModel, point: Sequence[float]) -> None:
    """Have the viewer where it was before a layer was removed that reached further: napari's slider keeps the
    number of its step, which is another slice then, often the last.
    """
    dims = viewer.dims
    if len(point) == dims.ndim and tuple(point) != dims.point:
        dims.set_point(range(dims.ndim), point)


def come_back_to(viewer: ViewerModel, point: Sequence[float]) -> None:
    """Have the viewer at a point when it comes back from 3-D; napari goes where its camera looks."""
    dims, camera = viewer.dims, _camera(viewer)
    camera.center = (point[dims.order[-3]], *camera.center[-2:])
    dims.set_point(range(dims.ndim), point)


def _camera(viewer: ViewerModel) -> Any:
    scene = getattr(viewer, "scene", None)
    return viewer.camera if scene is None else scene.camera


def _sliders_of(viewer: ViewerModel) -> Any:
    """napari's, below the canvas; None without a window, or where it is being taken down."""
    sliders = getattr(_qt_viewer(viewer), "dims", None)
    return sliders if sliders is not None and isalive(sliders) else None


def _qt_viewer(viewer: ViewerModel | None) -> Any:
    return getattr(getattr(viewer, "window", None), "_qt_viewer", None)
