"""What napari does at once when a layer comes, done bit by bit: each costs the main thread up to 0.1 s."""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import nullcontext, suppress
from typing import Any

import numpy as np
import numpy.typing as npt
from napari.components import LayerList, ViewerModel
from napari.layers import Image, Labels, Layer
from napari.utils.events import Event
from napari.utils.transforms import Affine
from OpenGL.error import GLError
from vispy.visuals import MeshVisual

from napari_sam_med.gui.planes import canvas_of, visual_of
from napari_sam_med.volume.disk_labels import labelled_planes

__all__ = [
    "clear_away",
    "drawn_in_parts",
    "insert_unselected",
    "inserted_in_parts",
    "prepare_dims",
    "prepare_units",
    "with_tools",
    "without_tools",
]

_LOOK_SECONDS = 0.02
"""For looking through labels in one step."""
_TOOLS = {"polygon": "polygon", "paint": "brush_stroke"}
"""Modes of napari's labels, and what it draws for each."""


def insert_unselected(layers: LayerList, place: int, layer: Layer) -> None:
    """Insert a layer, while those that are selected stay so; napari would turn to the controls of the new."""
    selection = layers.selection
    active, selected = selection.active, set(selection)
    with selection.events.blocker_all():
        layers.insert(place, layer)
        selection.active = active
        selection.update(selected)  # several have none that is active


def inserted_in_parts(viewer: ViewerModel, layer: Layer, insert: Callable[[], None]) -> Iterator[None]:
    """Have napari take a layer in steps, where it would take 0.1 s at once: its controls are made before it
    is inserted, and it is put among what is drawn afterwards.

    Parameters
    ----------
    viewer : ViewerModel
    layer : Layer
    insert : callable
        Inserts it.
    """
    window = getattr(getattr(viewer, "window", None), "_qt_viewer", None)
    controls, canvas = getattr(window, "controls", None), canvas_of(viewer)
    made, event = getattr(controls, "widgets", {}), Event("inserted", value=layer)
    if controls is None or not hasattr(canvas, "_pause_scene_graph"):  # no window, or another napari
        insert()
        return
    try:
        controls._add(event)
        yield
        is_made = layer in made
        canvas._pause_scene_graph = True
        with viewer.layers.events.inserted.blocker(controls._add) if is_made else nullcontext():
            insert()
    finally:
        canvas._pause_scene_graph = False
        if layer in made and layer not in viewer.layers:  # it does not come after all
            controls._remove(event)
    yield
    canvas._update_scenegraph()


def without_tools(layer: Labels) -> Labels:
    """Leave out what the canvas draws of napari's polygon and brush: 40 ms for a layer nobody paints on."""
    for name in _TOOLS.values():
        _show_overlay(layer, name, False)
    return layer


def with_tools(layer: Labels) -> None:
    """Bring each back when it is taken into the hand."""
    layer.events.mode.connect(_on_mode)


def _on_mode(event: Any) -> None:
    name = _TOOLS.get(str(event.source.mode))
    if name is not None:
        _show_overlay(event.source, name, True)


def _show_overlay(layer: Labels, name: str, is_shown: bool) -> None:
    overlay = getattr(layer, "_overlays", {}).get(name)  # another napari may keep them elsewhere
    if overlay is not None:
        overlay.visible = is_shown


def drawn_in_parts(canvas: Any, layer: Layer) -> Iterator[None]:
    """Let the parts of a layer that was just inserted or shown be drawn one after another, in steps: the
    graphics card takes 20 to 60 ms for the program of each. Text, which ours have none of, is not drawn:
    90 ms.
    """
    visual = getattr(canvas, "layer_to_visual", {}).get(layer)
    node = getattr(visual, "node", None)
    parts = [part for part in getattr(node, "_subvisuals", ()) if part.visible]
    for part in parts:
        part.visible = False
        if isinstance(part, MeshVisual):
            _keep_program(part)
    parts = [part for part in parts if part is not getattr(node, "text", None)]
    try:
        yield
        while parts:
            parts.pop(0).visible = True
            yield
    finally:  # also where nobody goes on with it
        for part in parts:
            part.visible = True


def _keep_program(mesh: MeshVisual) -> None:
    """vispy gives a mesh an equal piece of its program anew with whatever is drawn, and so has the graphics
    card build the whole program again: with every move of a box that is drawn, a third of what that takes
    (https://github.com/vispy/vispy/issues/2568).
    """
    build = getattr(mesh, "_build_color_transform", None)
    if build is None or "_build_color_transform" in vars(mesh):  # another vispy; done already
        return
    kept: list[Any] = []

    def build_once(colors: npt.NDArray[Any]) -> Any:
        if colors.ndim == 2 and colors.shape[1] == 1:
            return build(colors)  # values, for which the colour map may be another
        if not kept:
            kept.append(build(colors))
        return kept[0]

    mesh._build_color_transform = build_once


def prepare_dims(viewer: ViewerModel) -> Iterator[None]:
    """Let an empty viewer have the sliders of a scan before that comes: they take 30 ms."""
    if not viewer.layers:
        viewer.dims.ndim = 3
        yield


def prepare_units() -> None:
    """Let napari read its table of units, which it does with the first layer: 0.15 s."""
    Affine(scale=(1.0, 1.0), units=("mm", "mm"))


def clear_away(viewer: ViewerModel, going: Sequence[Layer], labels: Labels | None) -> Iterator[None]:
    """Remove layers for good, in steps; and labels if nobody has drawn anything on them.

    What napari does at each that goes is done once, in steps of its own: it puts the rest in order. Before
    that it searches for garbage, 80 ms, for the sake of drivers on Windows; so does this, there.
    """
    layers, canvas = viewer.layers, canvas_of(viewer)
    if labels is not None and not (yield from _is_empty(labels)):
        labels = None
    going = [layer for layer in (*going, *([] if labels is None else [labels])) if layer in layers]
    waits = bool(going) and hasattr(canvas, "_pause_scene_graph")  # else no window, or another napari
    if waits:
        canvas._pause_scene_graph = True
    try:
        for layer in going:
            if layer is labels and not (yield from _is_empty(labels)):
                continue  # drawn on meanwhile
            _empty(layer, visual_of(viewer, layer))
            yield
            if layer in layers:
                layers.remove(layer)
                yield
        if waits and sys.platform == "win32":
            gc.collect()
            yield
    except BaseException:  # also where nobody goes on with it
        if waits:
            canvas._resume_scene_graph_update()
        raise
    if waits:
        canvas._pause_scene_graph = False
        with suppress(AttributeError, GLError):  # as napari does
            canvas._scene_canvas.context.finish()
        canvas._update_scenegraph()


def _empty(layer: Layer, visual: Any) -> None:
    """napari layers are circles of references, which keep what they hold until Python searches for them: a
    removed one holds no voxels any more, nor does what drew it in 3-D, which keeps them when 2-D is back.
    """
    if isinstance(layer, Image | Labels) and isinstance(layer.data, np.ndarray):
        layer.data = np.zeros((1, 1, 1), dtype=layer.data.dtype)
    volume = getattr(getattr(visual, "_layer_node", None), "_volume_node", None)
    drawn = getattr(volume, "_last_data", None)
    if drawn is not None:
        volume.set_data(np.zeros((1, 1, 1), dtype=drawn.dtype))
    layer.metadata = {}  # it names the scan or its labels


def _is_empty(labels: Labels) -> Generator[None, None, bool]:
    data = labels.data
    until = time.thread_time() + _LOOK_SECONDS
    for index in labelled_planes(data):
        if data[index].any():
            return False
        if time.thread_time() > until:
            yield
            until = time.thread_time() + _LOOK_SECONDS
    return True
