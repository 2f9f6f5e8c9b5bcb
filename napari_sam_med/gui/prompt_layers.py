"""Points and Shapes layers to frozen prompts, and back.

A point is foreground unless its feature ``label`` says ``negative``; the feature ``plane`` remembers the
plane that it was set in. A shape lies in the slice along whose axis it is flat; a polygon or path (what
napari's lasso and polygon tools draw) is an outline, any other shape stands for its tangent box.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from napari.layers import Layer, Points, Shapes

from napari_sam_med.gui.planes import Frame
from napari_sam_med.sam.outlines import simplified_outline
from napari_sam_med.sam.prompts import Prompts
from napari_sam_med.volume.slice_view import PLANES, Plane, SliceView

__all__ = [
    "NEGATIVE",
    "POSITIVE",
    "Reading",
    "color_points",
    "joined",
    "prepare_next",
    "prepare_points",
    "read_prompts",
    "write_points",
    "write_shapes",
]

POSITIVE, NEGATIVE = "positive", "negative"
_POINT_COLORS = {POSITIVE: (0.10, 0.85, 0.25, 1.0), NEGATIVE: (0.95, 0.15, 0.15, 1.0)}
_LEAST_PIXELS = 2.0
_OUTLINE_TYPES = ("polygon", "path")
_DECIMALS = 2
"""Prompts are kept to a hundredth of a pixel, so that reading what was written gives the same prompts."""


@dataclass
class Reading:
    """Prompts found on the canvas.

    Attributes
    ----------
    prompts : dict
        ``{view: Prompts}``.
    n_outside : int
        Points and shapes that lie outside the volume, ignored.
    replaced_shapes : list of int
        Shapes that a newer one on the same slice stands for: one box and one outline an object and slice.
    clicks : dict
        ``{number of a shape: voxel index (z, y, x) where it was begun}`` for shapes that a click without a
        drag left, or too small to mean an area; none of them is among the prompts.
    """

    prompts: dict[SliceView, Prompts] = field(default_factory=dict)
    n_outside: int = 0
    replaced_shapes: list[int] = field(default_factory=list)
    clicks: dict[int, npt.NDArray[np.float64]] = field(default_factory=dict)


def read_prompts(
    points: Points | None,
    boxes: Shapes | None,
    frame: Frame,
    plane: Plane,
    clicked: int | None = None,
    *,
    coming: npt.NDArray[np.float64] | None = None,
) -> Reading:
    """Everything that the two layers ask.

    Parameters
    ----------
    points, boxes : napari layers or None
        Ours or the user's own, with any transform.
    frame : Frame
        Of the scan.
    plane : Plane
        For points of which nothing says in which plane they were set, and shapes flat along several axes.
    clicked : int, optional
        Number of a shape that is known to be a click, however large napari made it.
    coming : ndarray (ndim,), optional
        World position of a point that `points` is about to get, with its defaults.
    """
    reading = Reading()
    found: dict[SliceView, dict[str, Any]] = {}
    if points is not None and (len(points.data) or coming is not None):
        _read_points(points, frame, plane, reading, found, coming)
    if boxes is not None and len(boxes.data):
        _read_shapes(boxes, frame, plane, reading, found, clicked)
    for view, parts in found.items():
        reading.prompts[view] = Prompts(
            parts.get("xy"), parts.get("labels"), parts.get("box"), outline_xy=parts.get("outline")
        )
    return reading


def _read_shapes(
    layer: Shapes,
    frame: Frame,
    plane: Plane,
    reading: Reading,
    found: dict[SliceView, dict[str, Any]],
    clicked: int | None,
) -> None:
    newest: dict[tuple[SliceView, str], int] = {}
    for number, (vertices, shape_type) in enumerate(zip(layer.data, layer.shape_type, strict=True)):
        corners = frame.index(_world(layer, np.asarray(vertices)))
        view = _slice_of(corners, frame, plane)
        if view is None:
            reading.n_outside += 1
            continue
        pixels = np.array([_pixel(view, corner, frame) for corner in corners])
        kind = "outline" if shape_type in _OUTLINE_TYPES else "box"
        drawn = simplified_outline(pixels) if kind == "outline" else _box_around(pixels, view, frame)
        if number == clicked or drawn is None or _is_dot(view, corners, frame):
            reading.clicks[number] = corners[0]
            continue
        if (view, kind) in newest:
            reading.replaced_shapes.append(newest[view, kind])
        newest[view, kind] = number
        found.setdefault(view, {})[kind] = drawn


def _read_points(
    layer: Points,
    frame: Frame,
    plane: Plane,
    reading: Reading,
    found: dict[SliceView, dict[str, Any]],
    coming: npt.NDArray[np.float64] | None,
) -> None:
    data = np.asarray(layer.data)
    labels = _feature(layer, "label", POSITIVE)
    planes = _feature(layer, "plane", plane)
    if coming is not None:
        data = np.append(data, np.atleast_2d(layer.world_to_data(coming)), axis=0)  # the way napari adds it
        labels.append(_default(layer, "label", POSITIVE))
        planes.append(_default(layer, "plane", plane))
    index = frame.index(_world(layer, data))
    inside = frame.contains(index)
    reading.n_outside += int((~inside).sum())
    for position, is_inside, label, drawn_in in zip(index, inside, labels, planes, strict=True):
        if not is_inside:
            continue
        view = _containing(drawn_in if drawn_in in PLANES else plane, position, frame)
        parts = found.setdefault(view, {})
        parts.setdefault("xy", []).append(_pixel(view, position, frame))
        parts.setdefault("labels", []).append(0 if label == NEGATIVE else 1)


def _slice_of(corners: npt.NDArray[np.float64], frame: Frame, plane: Plane) -> SliceView | None:
    """Slice of a shape with corners (N, 3) in voxels; None outside the volume, or where it is not flat."""
    low, high = corners.min(axis=0), corners.max(axis=0)
    flat = [axis for axis in range(3) if high[axis] - low[axis] < 1e-3]
    axis = PLANES.index(plane)
    if axis not in flat and flat:
        axis = flat[0]
    shape = np.array(frame.shape_zyx)
    if (high < -0.5).any() or (low > shape - 0.5).any() or not flat:
        return None
    return _containing(PLANES[axis], (low + high) / 2, frame)


def _box_around(pixels: npt.NDArray[np.float64], view: SliceView, frame: Frame) -> list[float]:
    """Tangent box (x_min, y_min, x_max, y_max) of corners (N, 2), inside the slice."""
    height, width = view.slice_shape(frame.shape_zyx)
    pixels = np.clip(pixels, 0, [width - 1, height - 1])
    return [*pixels.min(axis=0), *pixels.max(axis=0)]


def _is_dot(view: SliceView, corners: npt.NDArray[np.float64], frame: Frame) -> bool:
    """Whether a shape is under two pixels wide or high.

    The pixel is the finer side of the slice's: where slices are thick, a box may be one slice high.
    """
    axes = [axis for axis in range(3) if axis != view.axis]
    step = np.linalg.norm(frame.world(np.eye(3)) - frame.world(np.zeros(3)), axis=1)[axes]
    extent = np.ptp(corners, axis=0)[axes]
    return bool((extent * step).min() < _LEAST_PIXELS * step.min())


def prepare_points(layer: Points, plane: Plane) -> None:
    """Give a layer the features that say what its points mean: foreground, in this plane."""
    layer.current_face_color = _POINT_COLORS[POSITIVE]
    features = {name: np.array(values, dtype=object) for name, values in layer.features.items()}
    for name, value in (("label", POSITIVE), ("plane", plane)):
        if name not in features:
            features[name] = np.full(len(layer.data), value, dtype=object)
    layer.features = features


def prepare_next(layer: Points, negative: bool, plane: Plane) -> None:
    """Let the next point of a layer be foreground or background, in this plane."""
    label = NEGATIVE if negative else POSITIVE
    if (_default(layer, "label", ""), _default(layer, "plane", "")) != (label, plane):
        layer.feature_defaults = {"label": label, "plane": plane}


def joined(known: Prompts | None, given: Prompts) -> Prompts:
    """Prompts of a slice and more of them: points that are not there yet, the newer box and outline."""
    if known is None:
        return given
    points = [
        (*map(float, xy), int(label))
        for prompts in (known, given)
        for xy, label in zip(prompts.points_xy, prompts.point_labels, strict=True)
    ]
    points = list(dict.fromkeys(points))
    box = known.box_xyxy if given.box_xyxy is None else given.box_xyxy
    outline = known.outline_xy if given.outline_xy is None else given.outline_xy
    xy, labels = [p[:2] for p in points], [p[2] for p in points]
    return Prompts(xy or None, labels or None, box, known.mask_input, outline)


def write_points(layer: Points, key_slices: Mapping[SliceView, Prompts], frame: Frame) -> None:
    """Show the points of an object in place of what the layer holds."""
    positions: list[Sequence[float]] = []
    labels: list[str] = []
    planes: list[str] = []
    for view, prompts in key_slices.items():
        for xy, label in zip(prompts.points_xy, prompts.point_labels, strict=True):
            positions.append(view.index_zyx(xy, frame.shape_zyx))
            labels.append(POSITIVE if label else NEGATIVE)
            planes.append(view.plane)
    data = _data(layer, np.array(positions, dtype=float).reshape(-1, 3), frame)
    layer.selected_data = set()
    is_written = _are_same(layer.data, data) and all(
        name in layer.features and list(layer.features[name]) == values
        for name, values in (("label", labels), ("plane", planes))
    )
    if not is_written:  # napari takes 20 ms to write them, and as long to draw them
        layer.data = data
        layer.features = {"label": np.array(labels, dtype=object), "plane": np.array(planes, dtype=object)}
    color_points(layer)


def write_shapes(layer: Shapes, key_slices: Mapping[SliceView, Prompts], frame: Frame) -> None:
    """Show the boxes and outlines of an object in place of what the layer holds."""
    shapes: list[npt.NDArray[np.float64]] = []
    types: list[str] = []
    for view, prompts in key_slices.items():
        drawn: list[tuple[str, Sequence[Sequence[float]]]] = []
        if prompts.box_xyxy is not None:
            left, top, right, bottom = prompts.box_xyxy.tolist()
            drawn.append(("rectangle", [(left, top), (right, top), (right, bottom), (left, bottom)]))
        if prompts.outline_xy is not None:
            drawn.append(("polygon", prompts.outline_xy.tolist()))
        for shape_type, corners in drawn:
            index = np.array([view.index_zyx(corner, frame.shape_zyx) for corner in corners])
            shapes.append(_data(layer, index, frame))
            types.append(shape_type)
    layer.selected_data = set()
    if list(layer.shape_type) == types and all(map(_are_same, layer.data, shapes)):
        return
    layer.data = []
    if shapes:
        layer.add(shapes, shape_type=types)
    layer.selected_data = set()


def _are_same(there: npt.NDArray[np.float64], wanted: npt.NDArray[np.float64]) -> bool:
    return np.shape(there) == wanted.shape and np.allclose(there, wanted, rtol=0, atol=1e-6)


def color_points(layer: Points) -> None:
    """Green for foreground, red for background."""
    if len(layer.data):
        labels = _feature(layer, "label", POSITIVE)
        colors = np.array([_POINT_COLORS.get(str(label), (1, 1, 1, 1)) for label in labels])
        if not np.allclose(layer.face_color, colors):  # napari takes a while to set them
            layer.face_color = colors


def _feature(layer: Points, name: str, default: str) -> list[str]:
    features = layer.features
    if name not in features:
        return [default] * len(layer.data)
    return [value if isinstance(value, str) and value else default for value in features[name]]


def _default(layer: Points, name: str, default: str) -> str:
    defaults = layer.feature_defaults
    value = defaults[name].iloc[0] if name in defaults else None
    return value if isinstance(value, str) and value else default


def _containing(plane: Plane, position: npt.NDArray[np.float64], frame: Frame) -> SliceView:
    """Slice of a position inside the volume; half a voxel beyond the border is the border's slice."""
    axis = PLANES.index(plane)
    return SliceView(plane, int(np.clip(round(float(position[axis])), 0, frame.shape_zyx[axis] - 1)))


def _pixel(view: SliceView, position: npt.NDArray[np.float64], frame: Frame) -> tuple[float, float]:
    x, y = view.pixel_xy(position, frame.shape_zyx)
    return round(x, _DECIMALS), round(y, _DECIMALS)


def _world(layer: Points | Shapes, data: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """World positions (N, 3) of layer coordinates (N, ndim); missing leading axes are 0."""
    world = np.array([layer.data_to_world(position) for position in data], dtype=float)
    padded = np.zeros((len(data), 3))
    count = min(3, world.shape[1])
    padded[:, -count:] = world[:, -count:]
    return padded


def _data(
    layer: Points | Shapes, index_zyx: npt.NDArray[np.float64], frame: Frame
) -> npt.NDArray[np.float64]:
    """Layer coordinates (N, 3) of voxel indices (N, 3)."""
    if not len(index_zyx):
        return np.empty((0, 3))
    # exact also where ours takes the mouse to a whole slice: boxes of other planes lie between slices
    return np.array(
        [Layer.world_to_data(layer, position) for position in frame.world(index_zyx)], dtype=float
    )
