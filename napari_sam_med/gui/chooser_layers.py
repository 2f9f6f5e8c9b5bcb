"""What was found, in the viewer: candidates and boxes of the slice at hand, edges on the scan's grid."""

from __future__ import annotations

import colorsys
from collections.abc import Iterator
from typing import Any

import numpy as np
from napari.layers import Image, Labels, Layer
from napari.utils.colormaps import DirectLabelColormap
from qtpy.QtCore import QObject, QTimer

from napari_sam_med.gui.labels_display import thin_array
from napari_sam_med.gui.layer_bridge import LayerBridge
from napari_sam_med.gui.own_writing import FOUND_MARK
from napari_sam_med.gui.slow_layers import clear_away, insert_unselected, inserted_in_parts, without_tools
from napari_sam_med.gui.whole_slices import Shapes
from napari_sam_med.session.found import Found, FoundBox
from napari_sam_med.volume.slice_view import SliceView

__all__ = ["BOXES_NAME", "CANDIDATES_NAME", "EDGES_NAME", "ChooserLayers"]

CANDIDATES_NAME = "Found: candidates"
BOXES_NAME = "Found: boxes"
EDGES_NAME = "Found: edges"

_REDRAW_MS = 25
_POINTED = 1
_COLORS = 48
"""Candidates share so many colours; the golden ratio keeps those of neighbours apart."""
_ALPHA, _POINTED_COLOR = 0.42, (1.0, 1.0, 1.0, 0.7)
_MOST_BOXES = 20
"""A slice may have hundreds, of which the worst would hide the best, and take napari long to draw."""
_BOX, _BOX_POINTED = "#4dd2ff", "#ffffff"
_META = {"sam_med_own": True, FOUND_MARK: True}


class ChooserLayers(QObject):
    """Thin layers that follow the user from slice to slice: what they cost does not grow with the volume.

    Parameters
    ----------
    found : Found
    bridge : LayerBridge
    """

    def __init__(self, found: Found, bridge: LayerBridge, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._found, self._bridge = found, bridge
        self.candidates: Labels | None = None
        self.boxes: Shapes | None = None
        self.edges: Image | None = None
        self._going: list[Layer] = []
        self._drawn: SliceView | None = None
        self._shown: int | None = None
        self._base = np.zeros((0, 0), dtype=np.uint8)
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(_REDRAW_MS)
        self._timer.timeout.connect(self.redraw)
        found.objects_changed.connect(self._on_objects)
        found.taken_changed.connect(self._later)
        found.pointed_changed.connect(self.show_pointed)
        bridge.view_changed.connect(self._later)

    @property
    def chosen_from(self) -> Layer | None:
        """The layer that the user chooses from."""
        return self.boxes if self._found.boxes else self.candidates

    def detach(self) -> None:
        """Stop listening, and take the layers away."""
        self._timer.stop()
        self._found.objects_changed.disconnect(self._on_objects, missing_ok=True)
        self._found.taken_changed.disconnect(self._later, missing_ok=True)
        self._found.pointed_changed.disconnect(self.show_pointed, missing_ok=True)
        for layer in (self.candidates, self.boxes, *self._going):
            self._bridge.remove(layer)
        self.candidates = self.boxes = None

    def clear(self) -> None:
        """Empty the candidates and the boxes, and hide them; edges are an image of their own, and stay.

        They are not removed: that takes napari 0.1 s, and as long again when they are wanted next.
        """
        self._drawn = self._shown = None
        for layer in (self.candidates, self.boxes):
            if layer is not None and layer.visible:
                layer.visible = False
        if self.candidates is not None:
            self.candidates.data[...] = 0
        if self.boxes is not None and len(self.boxes.data):
            self.boxes.data = []

    def let_go(self) -> None:
        """The scan is another one: its edges stay with it, the others go, one in a turn of the event loop."""
        layers = self._bridge.viewer.layers
        going = [layer for layer in (self.candidates, self.boxes) if layer is not None]
        self._going = [*(layer for layer in self._going if layer in layers), *going]  # a turn may never come
        self.candidates = self.boxes = self.edges = self._drawn = self._shown = None
        if going:
            self._bridge.turns.add(clear_away(self._bridge.viewer, going, None))

    def forget(self, layer: Layer) -> bool:
        """A layer was removed by somebody else; answers whether it was chosen from."""
        was_chosen_from = layer is not None and layer is self.chosen_from
        for name in ("candidates", "boxes", "edges"):
            if getattr(self, name) is layer:
                setattr(self, name, None)
        return was_chosen_from

    def prepare(self) -> Iterator[None]:
        """Have the layer of candidates, unseen, in steps: it takes napari 0.1 s."""
        frame, viewer = self._bridge.frame, self._bridge.viewer
        if self.candidates is not None or frame is None or self._found.boxes:
            return
        layer = self._new_candidates()

        def insert() -> None:
            if self.candidates is None and self._bridge.frame is frame:
                self._insert_candidates(layer)

        yield from inserted_in_parts(viewer, layer, insert)

    def _new_candidates(self) -> Labels:
        frame, view = self._bridge.frame, self._bridge.current_view() or SliceView("axial", 0)
        layer = Labels(
            thin_array(frame.shape_zyx, view),
            name=CANDIDATES_NAME,
            opacity=1.0,
            colormap=_colormap(),
            visible=False,
            metadata=dict(_META),
            **frame.slice_arguments(view),
        )
        layer.editable = False
        return without_tools(layer)

    def _insert_candidates(self, layer: Labels) -> None:
        self.candidates, self._drawn = self._add(layer), None

    def _add(self, layer: Layer) -> Any:
        """Above all others."""
        layers = self._bridge.viewer.layers
        insert_unselected(layers, len(layers), layer)
        return layer

    def begin(self) -> None:
        """Have the layer that is chosen from, over all others."""
        if not self._found.boxes and self.candidates is None and self._bridge.frame is not None:
            self._insert_candidates(self._new_candidates())
        self.redraw()
        layer, layers = self.chosen_from, self._bridge.viewer.layers
        if layer is not None and layers[-1] is not layer:
            layers.move(layers.index(layer), len(layers))

    # drawing

    def _later(self, *_: Any) -> None:
        if not self._timer.isActive():
            self._timer.start()

    def _on_objects(self, view: SliceView | None) -> None:
        if view is None or view == self._bridge.current_view():
            self._later()

    def redraw(self) -> None:
        """Draw what was found on the slice at hand."""
        view, frame = self._bridge.current_view(), self._bridge.frame
        if view is None or frame is None:
            return
        if self.candidates is not None:
            self._draw_candidates(self.candidates, view)
        if self.boxes is not None or self._found.boxes:
            self._draw_boxes(view)

    def _draw_candidates(self, layer: Labels, view: SliceView) -> None:
        frame = self._bridge.frame
        if layer.data.shape[view.axis] != 1:
            layer.data = thin_array(frame.shape_zyx, view)
        base = np.zeros(view.slice_shape(frame.shape_zyx), dtype=np.uint8)
        for number, mask in reversed(self._found.on_slice(view)):  # the smallest on top
            base[mask.place][mask.pixels] = 2 + number % _COLORS
        self._base, self._drawn, self._shown = base, view, None
        SliceView(view.plane, 0).window_on(layer.data)[...] = base
        translate = frame.slice_arguments(view)["translate"]
        if not np.array_equal(layer.translate, translate):
            layer.translate = translate
        self._paint_pointed(layer)
        layer.refresh(extent=False, highlight=False, thumbnail=False)

    def show_pointed(self) -> None:
        """Draw the candidate that is pointed at, and what it hid before; only their part of the slice."""
        view = self._bridge.current_view()
        if self.candidates is not None and view is not None and view == self._drawn:
            self._paint_pointed(self.candidates)
            self.candidates.refresh(extent=False, highlight=False, thumbnail=False)
        if self.boxes is not None and view is not None:
            self._color_boxes(view)

    def _paint_pointed(self, layer: Labels) -> None:
        window = SliceView(self._drawn.plane, 0).window_on(layer.data)
        before = self._found.mask_on(self._shown, self._drawn)
        if before is not None:
            window[before.place] = self._base[before.place]
        now = self._found.mask_on(self._found.pointed, self._drawn)
        self._shown = None
        if now is not None and self._found.pointed not in self._found.taken:
            window[now.place][now.pixels] = _POINTED
            self._shown = self._found.pointed

    # boxes

    def boxes_here(self, view: SliceView) -> list[FoundBox]:
        """Boxes that are drawn on a slice: the best, and the one that is pointed at."""
        here = self._found.boxes_on(view)
        shown = [*here[:_MOST_BOXES]]
        return shown + [box for box in here[_MOST_BOXES:] if box.number == self._found.pointed]

    def _draw_boxes(self, view: SliceView) -> None:
        frame = self._bridge.frame
        here = self.boxes_here(view)
        if self.boxes is None:
            self.boxes = self._add(
                Shapes(
                    None,
                    ndim=3,
                    name=BOXES_NAME,
                    face_color=[0, 0, 0, 0],
                    edge_width=max(frame.shape_zyx[1:]) / 300,
                    features={"number": np.empty(0, dtype=int), "score": np.empty(0)},
                    metadata=dict(_META),
                    **frame.layer_arguments,
                )
            )
            self.boxes.mode = "pan_zoom"
        layer = self.boxes
        layer.data = []
        if here:
            corners = [_corners(box, frame.shape_zyx) for box in here]
            layer.add(corners, shape_type="rectangle", edge_color=_BOX)
            layer.features = {
                "number": np.array([box.number for box in here]),
                "score": np.array([box.score for box in here]),
            }
        layer.selected_data = set()
        self._color_boxes(view)

    def _color_boxes(self, view: SliceView) -> None:
        here = self.boxes_here(view)
        if self.boxes is not None and len(self.boxes.data) == len(here) and here:
            pointed = self._found.pointed
            self.boxes.edge_color = [_BOX_POINTED if box.number == pointed else _BOX for box in here]

    # edges

    def show_edges(self, view: SliceView, edges: np.ndarray, *, begins: bool) -> None:
        """Put the edges (H, W) of a slice, 0..1, into the image of edges, which is made if there is none; the
        first ones of a run take the place of all that were there.
        """
        frame = self._bridge.frame
        if frame is None:
            return
        if self.edges is None:
            self.edges = self._add(
                Image(
                    np.zeros(frame.shape_zyx, dtype=np.uint8),
                    name=EDGES_NAME,
                    colormap="magma",
                    blending="additive",
                    gamma=2.0,  # weak edges step back
                    contrast_limits=(0, 255),
                    metadata=dict(_META),
                    **frame.layer_arguments,
                )
            )
        elif begins:
            self.edges.data[...] = 0
            self.edges.visible = True
        view.insert(self.edges.data, np.rint(np.clip(edges, 0.0, 1.0) * 255).astype(np.uint8))
        if begins or view == self._bridge.current_view():
            self.edges.refresh(extent=False, highlight=False, thumbnail=False)


def _corners(box: FoundBox, shape_zyx: tuple[int, ...]) -> np.ndarray:
    left, top, right, bottom = box.box_xyxy
    around = [(left, top), (right, top), (right, bottom), (left, bottom)]
    return np.array([box.view.index_zyx(xy, shape_zyx) for xy in around])


def _colormap() -> DirectLabelColormap:
    clear = (0.0, 0.0, 0.0, 0.0)
    colors: dict[int | None, tuple[float, ...]] = {None: clear, 0: clear, _POINTED: _POINTED_COLOR}
    for number in range(_COLORS):
        hue = (number * 0.618033988749895) % 1.0
        colors[2 + number] = (*colorsys.hsv_to_rgb(hue, 0.75, 1.0), _ALPHA)
    return DirectLabelColormap(color_dict=colors)
