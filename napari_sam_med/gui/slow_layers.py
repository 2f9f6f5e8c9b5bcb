"""What napari does at once when a layer comes, done bit by bit: each costs the main thread up to 0.1 s."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from napari.components import LayerList, ViewerModel
from napari.layers import Labels, Layer
from napari.utils.transforms import Affine

from napari_sam_med.gui.planes import Frame

__all__ = [
    "drawn_in_parts",
    "insert_unselected",
    "prepare_dims",
    "prepare_units",
    "with_tools",
    "without_tools",
]


def insert_unselected(layers: LayerList, place: int, layer: Layer) -> None:
    """Insert a layer, while the one that is active stays so; napari would turn to the controls of the new."""
    active = layers.selection.active
    if active is None:
        layers.insert(place, layer)
        return
    with layers.selection.events.blocker_all():
        layers.insert(place, layer)
        layers.selection.active = active


def without_tools(layer: Labels) -> Labels:
    """Leave out what the canvas draws of napari's polygon and brush: 40 ms for a layer nobody paints on."""
    for name in ("polygon", "brush_stroke"):
        layer._overlays[name].visible = False
    return layer


def with_tools(layer: Labels) -> Iterator[None]:
    """Bring it back."""
    for name in ("polygon", "brush_stroke"):
        layer._overlays[name].visible = True
        yield


def drawn_in_parts(canvas: Any, layer: Layer) -> Iterator[None]:
    """Let the parts of a layer that was just inserted be drawn one after another, in steps: the graphics card
    takes 20 to 60 ms for the program of each. Text, which ours have none of, is not drawn: 90 ms.
    """
    visual = getattr(canvas, "layer_to_visual", {}).get(layer)
    node = getattr(visual, "node", None)
    parts = [part for part in getattr(node, "_subvisuals", ()) if part.visible]
    for part in parts:
        part.visible = False
    yield
    for part in parts:
        if part is not getattr(node, "text", None):
            part.visible = True
            yield


def prepare_dims(viewer: ViewerModel, frame: Frame) -> Iterator[None]:
    """Let an empty viewer have the sliders of its first image before that comes, in steps of 30 ms."""
    if viewer.layers:
        return
    viewer.dims.ndim = 3
    yield
    first, last = frame.world([(0, 0, 0), [n - 1 for n in frame.shape_zyx]])
    step = np.abs(frame.world((1, 1, 1)) - first)
    viewer.dims.range = [*zip(np.minimum(first, last), np.maximum(first, last), step, strict=True)]
    yield


def prepare_units() -> None:
    """Let napari read its table of units, which it does with the first layer: 0.15 s."""
    Affine(scale=(1.0, 1.0), units=("mm", "mm"))
