"""Between the session and napari's layers."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Literal

from napari.components import ViewerModel
from napari.layers import Image, Labels, Layer, Points, Shapes
from qtpy.QtCore import QObject, QTimer, Signal

from napari_sam_med.gui import planes
from napari_sam_med.gui.arrival import Arrival
from napari_sam_med.gui.in_3d import In3d
from napari_sam_med.gui.labels_display import LabelsDisplay
from napari_sam_med.gui.missing_layers import MissingLayers
from napari_sam_med.gui.own_context import delete_in_own_context
from napari_sam_med.gui.own_writing import ANSWER_MARKS, OwnWriting
from napari_sam_med.gui.planes import Frame
from napari_sam_med.gui.prompt_editing import PromptEditing
from napari_sam_med.gui.scan_layers import (
    BOXES_NAME,
    LABELS_NAME,
    POINTS_NAME,
    PREVIEW_NAME,
    OwnLayers,
    labels_layer,
)
from napari_sam_med.gui.slow_layers import clear_away
from napari_sam_med.gui.turns import Turns
from napari_sam_med.gui.work_of_scan import labels_of_work, note_work
from napari_sam_med.session.jobs import PreparedScan
from napari_sam_med.session.session import Session
from napari_sam_med.volume.labels import LabelVolume
from napari_sam_med.volume.slice_view import Plane, SliceView

__all__ = ["BOXES_NAME", "LABELS_NAME", "POINTS_NAME", "PREVIEW_NAME", "LayerBridge", "Tool"]

Tool = Literal["box", "lasso", "point", "scribble", "paint", "erase", "pan"]
_MODES: dict[Tool, tuple[str, str]] = {  # whose layer, in which mode of napari's
    "box": ("boxes_layer", "add_rectangle"),
    "lasso": ("boxes_layer", "add_polygon_lasso"),
    "point": ("points_layer", "add"),
    "scribble": ("points_layer", "add"),
    "paint": ("labels_layer", "paint"),
    "erase": ("labels_layer", "erase"),
}


class LayerBridge(OwnWriting, QObject):
    """Which layers there are, where the user looks, and what the mouse does.

    What the layers hold is kept by two others: `LabelsDisplay` (labels, proposal) and `PromptEditing`
    (points, boxes, outlines).

    Signals
    -------
    view_changed : SliceView or None
        The slice that is looked at.
    layers_changed
        Layers came, went or were renamed.
    tool_changed
        The active layer, its mode or the sign of the next point changed.
    message : str
        Something that the user should know.
    hint : str
        What is seen, for the status line.
    hint_over : str
        A hint that does not hold any more.
    image_added : Image
        Whoever added it.
    scan_removed
        The image layer that is worked on was removed.
    keys_wanted : Layer
        A layer was made or taken on that needs the session's key bindings before napari's own.
    """

    view_changed = Signal(object)
    layers_changed = Signal()
    tool_changed = Signal()
    message = Signal(str)
    hint = Signal(str)
    hint_over = Signal(str)
    image_added = Signal(object)
    scan_removed = Signal()
    keys_wanted = Signal(object)

    def __init__(self, viewer: ViewerModel, session: Session, parent: QObject | None = None) -> None:
        super().__init__(parent)
        # Qt keeps the callbacks of signals where Python's collector does not see them: a strong reference
        # from there would keep the viewer alive for ever
        self._viewer = weakref.ref(viewer)
        self.session = session
        self.frame: Frame | None = None
        self.image_layer: Image | None = None
        self.display = LabelsDisplay(session, self.current_view, self)
        self.prompts = PromptEditing(session, self.current_view, self)
        self.turns = Turns(self.canvas, self)
        self._last_shown: tuple[SliceView | None, int] = (None, 2)
        self._point_before: tuple[float, ...] = ()
        self.in_3d = In3d(self)
        self.missing = MissingLayers(self)
        self._connections: list[tuple[Any, Callable[..., None]]] = []
        self._close_timer = QTimer(self)
        self._close_timer.setSingleShot(True)
        self._close_timer.timeout.connect(self._close_now)
        self.display.message.connect(self.message)
        self.display.array_replaced.connect(self.show_labels_again)
        self.prompts.message.connect(self.message)
        self.prompts.message_over.connect(self.hint_over)
        self.prompts.sign_changed.connect(self.tool_changed)
        self._listen()

    @property
    def viewer(self) -> ViewerModel:
        """The viewer; only while it lives."""
        viewer = self._viewer()
        if viewer is None:
            raise ReferenceError("The viewer of this widget is gone.")
        return viewer

    def canvas(self) -> Any:
        """What the layers are drawn on; None without a window."""
        return planes.canvas_of(self._viewer())

    @property
    def labels_layer(self) -> Labels | None:
        """The layer whose data is the session's label array."""
        return self.display.layer

    @property
    def points_layer(self) -> Points | None:
        """The layer that points are read from."""
        return self.prompts.points

    @property
    def boxes_layer(self) -> Shapes | None:
        """The layer that boxes and outlines are read from."""
        return self.prompts.boxes

    # listening

    def _listen(self) -> None:
        layers, dims = self.viewer.layers, self.viewer.dims
        delete_in_own_context(self.canvas())
        dims.events.ndisplay.connect(self.display.refuse_3d, position="first")
        self._connections.append((dims.events.ndisplay, self.display.refuse_3d))
        for emitter, callback in (
            (layers.events.inserted, self._on_inserted),
            (layers.events.removing, self._on_removing),
            (layers.events.removed, self._on_removed),
            (layers.events.removed, self._stay_at_point),
            (layers.events.reordered, self._on_renamed),
            (layers.selection.events.active, self._on_tool),
            (dims.events.point, self._on_view),
            (dims.events.order, self._on_view),
            (dims.events.ndisplay, self.in_3d.after_turn),
            (dims.events.ndisplay, self._on_view),  # after it, which moves the point: napari tells nobody
        ):
            emitter.connect(callback)
            self._connections.append((emitter, callback))
        for layer in layers:
            self._listen_to(layer)
        self.session.events.window.connect(self._on_window)

    def _listen_to(self, layer: Layer) -> None:
        layer.events.name.connect(self._on_renamed)
        layer.events.mode.connect(self._on_tool)

    def _forget(self, layer: Layer) -> None:
        layer.events.name.disconnect(self._on_renamed)
        layer.events.mode.disconnect(self._on_tool)

    def detach(self) -> None:
        """Stop listening; the layers stay with the user, the preview goes."""
        self.missing.stop()
        self._close_timer.stop()
        self.turns.end()
        for emitter, callback in self._connections:
            emitter.disconnect(callback)
        self._connections.clear()
        self.session.events.window.disconnect(self._on_window, missing_ok=True)
        if self._viewer() is not None:
            self.in_3d.forget()
        self.let_go_of_image()
        self.display.detach()
        self.prompts.detach()
        viewer = self._viewer()
        if viewer is not None:
            for layer in viewer.layers:
                self._forget(layer)
            self.remove(self.display.preview_layer)
        self.display.preview_layer = self.frame = None

    # which layers there are

    def layers_of_type(self, kind: type[Layer]) -> list[Layer]:
        """Layers of a type, topmost first; never the preview."""
        layers = [layer for layer in self.viewer.layers if isinstance(layer, kind)]
        found = [layer for layer in layers if ANSWER_MARKS.isdisjoint(layer.metadata)]
        return [layer for layer in reversed(found) if layer is not self.display.preview_layer]

    def _on_inserted(self, event: Any) -> None:
        self._listen_to(event.value)
        self.layers_changed.emit()
        if event.value in self.layers_of_type(Image):
            self.image_added.emit(event.value)

    def _on_renamed(self, event: Any = None) -> None:
        self.layers_changed.emit()

    def _on_removing(self, event: Any) -> None:
        self._point_before = self.viewer.dims.point
        self.missing.on_removing(self.viewer.layers[event.index])

    def _stay_at_point(self, event: Any) -> None:
        if self.frame is not None:
            planes.stay_at(self.viewer, self._point_before)

    def _on_removed(self, event: Any) -> None:
        layer = event.value
        self._forget(layer)
        if layer is self.prompts.points:
            self.prompts.take_points(None)
        if layer is self.prompts.boxes:
            self.prompts.take_boxes(None)
        if layer is self.display.preview_layer:
            self.display.preview_layer = None
            self.missing.on_preview_removed()
        if layer is self.display.layer and not self._is_writing:
            self.display.let_go()
            self.missing.on_labels_removed()
        if layer is self.image_layer:
            self.image_layer.events.contrast_limits.disconnect(self._on_contrast)
            self.image_layer = None
            self.scan_removed.emit()
        self.layers_changed.emit()

    def remove(self, layer: Layer | None) -> None:
        if layer is not None and layer in self.viewer.layers:
            self.viewer.layers.remove(layer)

    # a scan

    @property
    def own_layers(self) -> OwnLayers:
        """The layers of the proposal and the prompts."""
        return OwnLayers(self.display.preview_layer, self.points_layer, self.boxes_layer)

    def show(self, scan: PreparedScan, come: Arrival) -> tuple[list[Layer], Labels | None]:
        """Work on a scan whose layers are there; answers what `clear_away` takes of the scan before."""
        self._close_timer.stop()
        left = self._leave_scan(keeps_own=come.keeps_own)
        self.frame = Frame(scan.volume.display_transform, scan.volume.shape)
        with self._writing():
            self.image_layer = come.image
            self._show_window(scan)
            self.image_layer.events.contrast_limits.connect(self._on_contrast)
            self._show_labels(scan.labels, come.labels)
            self.prompts.start(self.frame)
            if come.keeps_own:
                seen = self.current_view()
                turns = come.is_new and seen is not None and seen.plane != "axial"  # as new scans are shown
                come.own.clear(self.frame, None if turns else seen)
            self.display.preview_layer = come.own.preview
            self.prompts.take_points(come.own.points)
            self.prompts.take_boxes(come.own.boxes)
            for layer in (come.image, come.own.points, come.own.boxes):
                self.keys_wanted.emit(layer)
        self._look_at_scan()
        self._on_view()
        self.layers_changed.emit()  # the layers came before, when they were not the ones that are worked on
        return left

    def close_scan(self) -> None:
        """The image is gone: prompt layers and preview go too, a moment later, the labels stay.

        Not at once: napari may be going through a list of layers to remove, which has ours in it.
        """
        self._close_timer.start(0)

    def _close_now(self) -> None:
        self.turns.add(clear_away(self.viewer, *self._leave_scan()))
        self._last_shown = None, self.viewer.dims.ndisplay
        self.view_changed.emit(None)  # also where it was none before, as layers went
        self.tool_changed.emit()

    def _leave_scan(self, *, keeps_own: bool = False) -> tuple[list[Layer], Labels | None]:
        """Let go of the layers; answers what `clear_away` takes."""
        own = [one for one in self.own_layers if one is not None and one.metadata.get("sam_med_own")]
        labels = self.labels_layer
        self.prompts.let_go()
        self.display.let_go()
        self.let_go_of_image()
        self.display.preview_layer = self.frame = None
        is_ours = labels is not None and labels.name.startswith(LABELS_NAME)
        return [] if keeps_own else own, labels if is_ours else None

    def let_go_of_image(self) -> None:
        """Its window stays as it is, whatever the session's becomes."""
        if self.image_layer is not None:
            self.image_layer.events.contrast_limits.disconnect(self._on_contrast)
        self.image_layer = None

    def _show_window(self, scan: PreparedScan) -> None:
        low, high = self.image_layer.contrast_limits_range
        limits = [*scan.window, *scan.value_range]
        self.image_layer.contrast_limits_range = (min(low, *limits), max(high, *limits))
        self.image_layer.contrast_limits = scan.window

    def _show_labels(self, labels: LabelVolume, layer: Labels) -> None:
        layer.metadata = {**layer.metadata, "sam_med": labels}
        note_work(self.image_layer, layer, self.session.volume.path)
        self.display.show(layer, labels, self.frame)
        self.in_3d.coarsen()
        self.keys_wanted.emit(layer)

    def labels_of_work(self, image: Image) -> Labels | None:
        """The layer that was worked on with this image before another scan was, or the widget was closed."""
        return labels_of_work(self.layers_of_type(Labels), image, self.viewer.layers)

    def show_labels_again(self) -> None:
        """Bring back a labels layer that was removed, or whose array had to grow."""
        labels = self.session.labels
        if labels is None or self.frame is None:
            return
        self.missing.labels_are_back()
        old = self.labels_layer
        self.display.let_go()
        with self._writing(), self.missing.keeping_tool():
            self.remove(old)
            layer = labels_layer(labels, self.frame)
            self.viewer.layers.insert(self.viewer.layers.index(self.image_layer) + 1, layer)
            self._show_labels(labels, layer)

    # tools

    @property
    def tool(self) -> Tool | None:
        """What the mouse does now; None for modes that have no button."""
        active = self.viewer.layers.selection.active
        if active is None:
            return "pan"
        mode = str(active.mode)
        if mode == "pan_zoom":
            return "pan"
        fitting = (tool for tool, of in _MODES.items() if active is getattr(self, of[0]) and mode == of[1])
        found = next(fitting, None)
        return "scribble" if found == "point" and self.prompts.scribbles else found

    def has_layer_of(self, tool: Tool) -> bool:
        """Whether the layer that a tool works on is there; it is made anew for `set_tool`."""
        return tool not in _MODES or getattr(self, _MODES[tool][0]) is not None

    def set_tool(self, tool: Tool) -> None:
        """Let the mouse draw boxes or outlines, set points, scribble, paint, erase, or move the camera."""
        if self.frame is None:
            return
        self.in_3d.choose_tool(tool)
        if tool in ("box", "lasso") and self.boxes_layer is None:
            self.missing.choose_boxes(None)
        if tool in ("point", "scribble") and self.points_layer is None:
            self.missing.choose_points(None)
        owner, mode = _MODES.get(tool, ("", "pan_zoom"))
        layer = getattr(self, owner) if owner else self.viewer.layers.selection.active
        if layer is None:
            return
        self.viewer.layers.selection.active = layer
        layer.mode = mode
        self.prompts.scribbles = tool == "scribble"
        self._on_tool()

    def _on_tool(self, event: Any = None) -> None:
        self.in_3d.note_tool()
        self.missing.note_tool()
        self.tool_changed.emit()

    def give_keyboard_to_canvas(self) -> None:
        """Where the shortcuts work; a viewer without a window has no keyboard."""
        canvas = self.canvas()
        if canvas is not None:
            with suppress(RuntimeError):  # the window is being taken down
                canvas.native.setFocus()

    # where the user looks

    def current_view(self) -> SliceView | None:
        """The slice that is looked at; None in 3-D or outside the volume."""
        viewer = self._viewer()
        return None if self.frame is None or viewer is None else planes.current_view(viewer, self.frame)

    def show_plane(self, plane: Plane) -> None:
        """Turn to a plane of the scan."""
        self.in_3d.stay()
        self.turns.draw_later()
        planes.show_plane(self.viewer, plane, self.frame)
        if self.frame is not None:
            planes.go_inside(self.viewer, self.frame)
        self._draw_with_scan()

    def _draw_with_scan(self) -> None:
        """After 3-D the scan is hidden; to show it takes napari as long as to turn, so it is another turn."""
        if self.in_3d.hides_scan:
            self.turns.draw_later(after_step=True)

    def _look_at_scan(self) -> None:
        """Bring a scan that lies elsewhere into sight; who sees it already keeps place and zoom."""
        if self.viewer.dims.ndisplay == 2:
            planes.go_inside(self.viewer, self.frame)
            if not planes.sees(self.viewer, self.frame):
                planes.fit(self.viewer, self.frame)

    def show_in_3d(self) -> None:
        """Turn to 3-D: the organs alone where there are any, since the scan would hide them."""
        if not self.display.refuse_3d():
            self.in_3d.go()

    def go_to(self, view: SliceView) -> None:
        """Move to a slice."""
        if self.frame is not None:
            self.in_3d.stay()
            now = self.current_view()
            if now is None or now.plane != view.plane:
                self.turns.draw_later()
            planes.go_to(self.viewer, self.frame, view)
            self._draw_with_scan()

    def _on_view(self, event: Any = None) -> None:
        shown = self.current_view(), self.viewer.dims.ndisplay
        if shown != self._last_shown:  # beside the scan there is none in 2-D either
            self._last_shown = shown
            self.view_changed.emit(shown[0])

    # the window, both ways

    def _on_contrast(self, event: Any = None) -> None:
        low, high = (float(value) for value in self.image_layer.contrast_limits)
        if not self._is_writing and low < high and (low, high) != self.session.window:
            self.session.window = (low, high)

    def _on_window(self, window: tuple[float, float] | None = None, *_: Any) -> None:
        if self.image_layer is None or window is None:
            return
        if tuple(self.image_layer.contrast_limits) != tuple(window):
            with self._writing():
                self.image_layer.contrast_limits = window
