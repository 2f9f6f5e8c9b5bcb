"""Between the session and napari's layers; the only file that touches ``viewer.layers``."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
from napari.components import ViewerModel
from napari.layers import Image, Labels, Layer, Points, Shapes
from qtpy.QtCore import QObject, QTimer, Signal

from napari_sam_med.gui import planes, prompt_layers
from napari_sam_med.gui.label_colors import organ_colormap, preview_colormap
from napari_sam_med.gui.planes import Frame
from napari_sam_med.session.jobs import PreparedScan
from napari_sam_med.session.session import Session
from napari_sam_med.volume.slice_view import Plane, SliceView

__all__ = ["BOXES_NAME", "LABELS_NAME", "POINTS_NAME", "PREVIEW_NAME", "LayerBridge", "Tool"]

POINTS_NAME = "SAM Med points"
BOXES_NAME = "SAM Med boxes"
LABELS_NAME = "SAM Med labels"
PREVIEW_NAME = "SAM Med preview"

Tool = Literal["box", "point", "paint", "erase", "pan"]

_REFRESH_MS = 20
_REFRESH_3D_MS = 700
"""A 3-D refresh sends the whole volume to the graphics card, so that it must not come with every slice."""


class LayerBridge(QObject):
    """Shows a session in a viewer and reads the user's prompts, strokes and window from it.

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
    scan_removed
        The image layer that is worked on was removed.
    keys_wanted : Layer
        A layer was made or taken on that needs the session's key bindings before napari's own.
    """

    view_changed = Signal(object)
    layers_changed = Signal()
    tool_changed = Signal()
    message = Signal(str)
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
        self.labels_layer: Labels | None = None
        self.points_layer: Points | None = None
        self.boxes_layer: Shapes | None = None
        self._preview_layer: Labels | None = None
        self._is_writing = False
        self._next_is_negative = False
        self._last_view: SliceView | None = None
        self._hidden_in_3d: list[Layer] = []
        self._tool_in_2d: Tool | None = None
        self._missing_timer = self._timer(self._tell_missing)
        self._connections: list[tuple[Any, Callable[..., None]]] = []
        self._layer_connections: list[tuple[Any, Callable[..., None]]] = []
        self._refresh_timer = self._timer(self._refresh_labels)
        self._read_timer = self._timer(self._read_prompts)
        self._listen()

    @property
    def viewer(self) -> ViewerModel:
        """The viewer; only while it lives."""
        viewer = self._viewer()
        if viewer is None:
            raise ReferenceError("The viewer of this widget is gone.")
        return viewer

    def _timer(self, slot: Callable[[], None]) -> QTimer:
        timer = QTimer(self)
        timer.setSingleShot(True)
        timer.timeout.connect(slot)
        return timer

    # listening

    def _listen(self) -> None:
        layers, dims = self.viewer.layers, self.viewer.dims
        self._connect(layers.events.inserted, self._on_inserted)
        self._connect(layers.events.removed, self._on_removed)
        self._connect(layers.events.reordered, self._on_renamed)
        self._connect(layers.selection.events.active, self._on_tool)
        self._connect(dims.events.point, self._on_view)
        self._connect(dims.events.order, self._on_view)
        self._connect(dims.events.ndisplay, self._on_view)
        events = self.session.events
        events.organs.connect(self._on_organs)
        events.objects.connect(self._on_objects)
        events.active_object_id.connect(self._on_objects)
        events.active_class_id.connect(self._on_active_class)
        events.preview.connect(self._on_preview)
        events.window.connect(self._on_window)

    def _connect(self, emitter: Any, callback: Callable[..., None], *, of_layer: bool = False) -> None:
        emitter.connect(callback)
        (self._layer_connections if of_layer else self._connections).append((emitter, callback))

    def detach(self) -> None:
        """Stop listening; the layers stay with the user, the preview goes."""
        for emitter, callback in [*self._connections, *self._layer_connections]:
            emitter.disconnect(callback)
        self._connections.clear()
        self._layer_connections.clear()
        for timer in (self._refresh_timer, self._read_timer, self._missing_timer):
            timer.stop()
        events = self.session.events
        for signal, callback in (
            (events.organs, self._on_organs),
            (events.objects, self._on_objects),
            (events.active_object_id, self._on_objects),
            (events.active_class_id, self._on_active_class),
            (events.preview, self._on_preview),
            (events.window, self._on_window),
        ):
            signal.disconnect(callback, missing_ok=True)
        self._let_go_of_labels()
        self._remove(self._preview_layer)
        self._preview_layer = None

    # which layers there are

    def layers_of_type(self, kind: type[Layer]) -> list[Layer]:
        """Layers of a type, topmost first; the preview is never among them."""
        found = [layer for layer in self.viewer.layers if isinstance(layer, kind)]
        return [layer for layer in reversed(found) if layer is not self._preview_layer]

    def _on_inserted(self, event: Any) -> None:
        event.value.events.name.connect(self._on_renamed)
        self.layers_changed.emit()

    def _on_renamed(self, event: Any = None) -> None:
        self.layers_changed.emit()

    def _on_removed(self, event: Any) -> None:
        layer = event.value
        layer.events.name.disconnect(self._on_renamed)
        if layer is self.points_layer:
            self.points_layer = None
        if layer is self.boxes_layer:
            self.boxes_layer = None
        if layer is self._preview_layer:
            self._preview_layer = None
        if layer is self.labels_layer and not self._is_writing:
            self._let_go_of_labels()
            self._missing_timer.start(0)  # not while the viewer is being closed
        if layer is self.image_layer:
            self.image_layer = None
            self.scan_removed.emit()
        self.layers_changed.emit()

    def _tell_missing(self) -> None:
        if self.frame is not None and self.labels_layer is None:
            self.message.emit(
                'The labels layer was removed; choose "Bring the labels back" under Scan, Labels.'
            )

    # a scan

    def show(self, scan: PreparedScan, image: Image | None, labels: Labels | None = None) -> None:
        """Work on a scan: makes the layers that are missing, all with the scan's own transform.

        Parameters
        ----------
        scan : PreparedScan
        image : Image or None
            The layer that shows the scan already; never moved. None makes one.
        labels : Labels or None
            The layer whose data is ``scan.labels.data`` already. None makes one.
        """
        self._drop_scan()
        self.frame = Frame(scan.volume.display_transform, scan.volume.shape)
        with self._writing():
            self.image_layer = self._add_image(scan) if image is None else image
            self._widen_contrast_range(scan)
            self.image_layer.contrast_limits = scan.window
            self._connect(self.image_layer.events.contrast_limits, self._on_contrast, of_layer=True)
            self.keys_wanted.emit(self.image_layer)
            self._take_labels(scan, labels)
            self._make_preview_layer(SliceView("axial", 0))
            self.choose_points(None)
            self.choose_boxes(None)
        self._on_view()

    def _drop_scan(self) -> None:
        for emitter, callback in self._layer_connections:
            emitter.disconnect(callback)
        self._layer_connections.clear()
        with self._writing():
            self._remove(self._preview_layer)
            for layer in (self.points_layer, self.boxes_layer):
                if layer is not None and layer.metadata.get("sam_med_own"):
                    self._remove(layer)
            labels = self.labels_layer
            if labels is not None and labels.name.startswith(LABELS_NAME) and not labels.data.any():
                self._remove(labels)  # nobody has drawn anything on it
            self._let_go_of_labels()
        self._preview_layer = self.points_layer = self.boxes_layer = self.image_layer = None
        self.frame = None

    def close_scan(self) -> None:
        """The image is gone: prompt layers and preview go too, the labels stay."""
        self._drop_scan()
        self._on_view()

    def _add_image(self, scan: PreparedScan) -> Image:
        return self.viewer.add_image(
            scan.volume.data,
            name=scan.volume.name,
            colormap="gray",
            contrast_limits=scan.window,
            metadata={"sam_med": scan.volume},
            **self.frame.layer_arguments,
        )

    def _widen_contrast_range(self, scan: PreparedScan) -> None:
        low, high = self.image_layer.contrast_limits_range
        limits = [*scan.window, *scan.value_range]
        self.image_layer.contrast_limits_range = (min(low, *limits), max(high, *limits))

    def _take_labels(self, scan: PreparedScan, labels: Labels | None) -> None:
        if labels is None:
            labels = self.viewer.add_labels(
                scan.labels.data,
                name=LABELS_NAME,
                opacity=0.55,
                metadata={"sam_med": scan.labels},
                **self.frame.layer_arguments,
            )
        self.labels_layer = labels
        labels.colormap = organ_colormap(scan.labels.organs)
        scan.labels.changed.connect(self._on_labels_changed)
        self._watched_labels = scan.labels
        self._connect(labels.events.paint, self._on_paint, of_layer=True)
        self._connect(labels.events.selected_label, self._on_selected_label, of_layer=True)
        self._connect(labels.events.mode, self._on_tool, of_layer=True)
        self.keys_wanted.emit(labels)
        self._on_active_class()

    def _let_go_of_labels(self) -> None:
        if self.labels_layer is not None:
            self._watched_labels.changed.disconnect(self._on_labels_changed, missing_ok=True)
        self.labels_layer = None

    def show_labels_again(self) -> None:
        """Bring back a labels layer that was removed, or whose array had to grow."""
        session = self.session
        if session.labels is None or self.frame is None:
            return
        old = self.labels_layer
        self._let_go_of_labels()
        with self._writing(), self._keeping_tool():
            if old is not None and old in self.viewer.layers:
                self._layer_connections = [
                    (emitter, callback)
                    for emitter, callback in self._layer_connections
                    if emitter not in (old.events.paint, old.events.selected_label, old.events.mode)
                ]
                self.viewer.layers.remove(old)
            scan = PreparedScan(session.volume, session.labels, None, session.window, session.window)
            self._take_labels(scan, None)
            index = self.viewer.layers.index(self.image_layer) + 1
            self.viewer.layers.move(len(self.viewer.layers) - 1, index)

    # the user's layers for prompts

    def choose_points(self, layer: Points | None) -> None:
        """Take prompts from a Points layer of the user's; None makes one of ours."""
        if layer is None:
            size = max(self.frame.shape_zyx[1:]) / 45
            layer = self.viewer.add_points(
                np.empty((0, 3)),
                name=POINTS_NAME,
                size=size,
                border_color="white",
                border_width=0.12,
                metadata={"sam_med_own": True},
                **self.frame.layer_arguments,
            )
        view = self.current_view()
        prompt_layers.prepare_points(layer, "axial" if view is None else view.plane)
        if self._on_point_press not in layer.mouse_drag_callbacks:
            layer.mouse_drag_callbacks.insert(0, self._on_point_press)
        self.points_layer = layer
        self._connect(layer.events.data, self._on_prompts_edited, of_layer=True)
        self._connect(layer.events.mode, self._on_tool, of_layer=True)
        self.keys_wanted.emit(layer)
        self._on_prompts_edited()

    def choose_boxes(self, layer: Shapes | None) -> None:
        """Take prompts from a Shapes layer of the user's; None makes one of ours."""
        if layer is None:
            layer = self.viewer.add_shapes(
                None,
                ndim=3,
                name=BOXES_NAME,
                edge_color="#ffd23f",
                face_color=[0, 0, 0, 0],
                edge_width=max(self.frame.shape_zyx[1:]) / 200,
                metadata={"sam_med_own": True},
                **self.frame.layer_arguments,
            )
        self.boxes_layer = layer
        self._connect(layer.events.data, self._on_prompts_edited, of_layer=True)
        self._connect(layer.events.mode, self._on_tool, of_layer=True)
        self.keys_wanted.emit(layer)
        self._on_prompts_edited()

    def _on_point_press(self, layer: Points, event: Any) -> None:
        """Alt or Ctrl turns the sign of the point that this click sets."""
        negative = self._next_is_negative ^ ("Alt" in event.modifiers or "Control" in event.modifiers)
        self._prepare_point(layer, negative)

    def _prepare_point(self, layer: Points, negative: bool) -> None:
        view = self.current_view()
        layer.feature_defaults = {
            "label": prompt_layers.NEGATIVE if negative else prompt_layers.POSITIVE,
            "plane": "axial" if view is None else view.plane,
        }

    @property
    def next_is_negative(self) -> bool:
        """Whether a plain click sets a background point."""
        return self._next_is_negative

    def set_next_negative(self, negative: bool) -> None:
        """Let plain clicks set background points (or foreground points again)."""
        self._next_is_negative = negative
        self.tool_changed.emit()

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
        if active is self.boxes_layer and mode == "add_rectangle":
            return "box"
        if active is self.points_layer and mode == "add":
            return "point"
        if active is self.labels_layer and mode in ("paint", "erase"):
            return mode
        return None

    def set_tool(self, tool: Tool) -> None:
        """Let the mouse draw boxes, set points, paint, erase, or move the camera."""
        if self.frame is None:
            return
        if tool == "box" and self.boxes_layer is None:
            self.choose_boxes(None)
        if tool == "point" and self.points_layer is None:
            self.choose_points(None)
        layer, mode = {
            "box": (self.boxes_layer, "add_rectangle"),
            "point": (self.points_layer, "add"),
            "paint": (self.labels_layer, "paint"),
            "erase": (self.labels_layer, "erase"),
            "pan": (self.viewer.layers.selection.active, "pan_zoom"),
        }[tool]
        if layer is None:
            return
        self.viewer.layers.selection.active = layer
        layer.mode = mode
        self.tool_changed.emit()

    def _on_tool(self, event: Any = None) -> None:
        self.tool_changed.emit()

    # where the user looks

    def current_view(self) -> SliceView | None:
        """The slice that is looked at; None in 3-D or outside the volume."""
        return None if self.frame is None else planes.current_view(self.viewer, self.frame)

    def show_plane(self, plane: Plane) -> None:
        """Turn to a plane."""
        planes.show_plane(self.viewer, plane)
        if self._tool_in_2d is not None:  # napari takes it out of the user's hand in 3-D
            tool, self._tool_in_2d = self._tool_in_2d, None
            self.set_tool(tool)

    def show_in_3d(self) -> None:
        """Turn to 3-D: the organs alone where there are any, since the scan would hide them."""
        self._tool_in_2d = self.tool if self.viewer.dims.ndisplay == 2 else self._tool_in_2d
        planes.show_in_3d(self.viewer)
        has_organs = any(self.session.voxel_count(class_id) for class_id in self.session.organs)
        covering = (self.image_layer, self.boxes_layer, self.points_layer) if has_organs else ()
        self._hidden_in_3d = [layer for layer in covering if layer is not None and layer.visible]
        for layer in self._hidden_in_3d:
            layer.visible = False

    def go_to(self, view: SliceView) -> None:
        """Move to a slice."""
        if self.frame is not None:
            planes.go_to(self.viewer, self.frame, view)

    def _on_view(self, event: Any = None) -> None:
        if self._hidden_in_3d and self.viewer.dims.ndisplay == 2:
            hidden, self._hidden_in_3d = self._hidden_in_3d, []
            for layer in hidden:
                layer.visible = True
        view = self.current_view()
        if view != self._last_view:
            self._last_view = view
            self.view_changed.emit(view)

    # the user's edits into the session

    def _on_prompts_edited(self, event: Any = None) -> None:
        action = getattr(event, "action", None)
        if self._is_writing or str(getattr(action, "value", action)).endswith("ing"):  # adding, then added
            return
        # after napari has finished with the layer, and once for several edits
        self._read_timer.start(0)

    def _read_prompts(self) -> None:
        if self.frame is None or self.session.volume is None:
            return
        view = self.current_view()
        plane: Plane = "axial" if view is None else view.plane
        reading = prompt_layers.read_prompts(self.points_layer, self.boxes_layer, self.frame, plane)
        with self._writing():
            if reading.replaced_shapes:
                self.boxes_layer.selected_data = set(reading.replaced_shapes)
                self.boxes_layer.remove_selected()
            if self.points_layer is not None:
                prompt_layers.color_points(self.points_layer)
            active = self.session.active_object
            known = {} if active is None else dict(active.key_slices)
            for changed in sorted({*known, *reading.prompts}):
                if known.get(changed) != reading.prompts.get(changed):
                    self.session.prompt(changed, reading.prompts.get(changed))
        if reading.n_outside:
            count = f"{reading.n_outside} prompt{'s' if reading.n_outside > 1 else ''}"
            self.message.emit(f"{count} outside the volume ignored.")

    def _on_paint(self, event: Any = None) -> None:
        if self.labels_layer is None:
            return
        view = self.current_view() if self.labels_layer.n_edit_dimensions == 2 else None
        change = self.session.record_stroke(None if view is None else [view])
        if self.session.organs.locked_ids:
            self._refresh_labels()
            if change is None:
                self.message.emit("That organ is locked, so nothing was painted; unlock it first.")

    def _on_selected_label(self, event: Any = None) -> None:
        label = int(self.labels_layer.selected_label)
        if label in self.session.organs and label != self.session.active_class_id:
            self.session.select_organ(label)

    def _on_contrast(self, event: Any = None) -> None:
        low, high = (float(value) for value in self.image_layer.contrast_limits)
        if not self._is_writing and low < high and (low, high) != self.session.window:
            self.session.window = (low, high)

    # the session into the layers

    def _on_objects(self, *_: Any) -> None:
        if self._is_writing or self.frame is None:
            return
        active = self.session.active_object
        wanted = {} if active is None else dict(active.key_slices)
        view = self.current_view()
        plane: Plane = "axial" if view is None else view.plane
        shown = prompt_layers.read_prompts(self.points_layer, self.boxes_layer, self.frame, plane).prompts
        if shown == wanted:
            return
        self._read_timer.stop()
        with self._writing():
            if self.points_layer is not None:
                prompt_layers.write_points(self.points_layer, wanted, self.frame)
            if self.boxes_layer is not None:
                prompt_layers.write_boxes(self.boxes_layer, wanted, self.frame)

    def _on_organs(self, *_: Any) -> None:
        if self.labels_layer is not None:
            self.labels_layer.colormap = organ_colormap(self.session.organs)
        self._on_preview()

    def _on_active_class(self, *_: Any) -> None:
        label = self.session.active_class_id
        if self.labels_layer is not None and label <= np.iinfo(self.labels_layer.data.dtype).max:
            self.labels_layer.selected_label = label

    def _on_window(self, window: tuple[float, float] | None = None, *_: Any) -> None:
        if self.image_layer is None or window is None:
            return
        if tuple(self.image_layer.contrast_limits) != tuple(window):
            with self._writing():
                self.image_layer.contrast_limits = window

    def _on_labels_changed(self, view: SliceView | None) -> None:
        if self.labels_layer is None:
            return
        if self.session.labels is not None and self.session.labels.data is not self.labels_layer.data:
            self.show_labels_again()
            return
        here = self.current_view()
        if self.viewer.dims.ndisplay == 3:
            if not self._refresh_timer.isActive():
                self._refresh_timer.start(_REFRESH_3D_MS)
        elif view is None or here is None or view.plane != here.plane or view.index == here.index:
            self._refresh_timer.start(_REFRESH_MS)

    def _refresh_labels(self) -> None:
        if self.labels_layer is not None:
            self.labels_layer.refresh(extent=False, highlight=False)

    def _on_preview(self, *_: Any) -> None:
        preview = self.session.preview
        if preview is None or self.frame is None:
            if self._preview_layer is not None:
                self._preview_layer.visible = False
            return
        view = preview.view
        layer = self._preview_layer
        with self._writing(), self._keeping_tool():
            if layer is None:
                layer = self._make_preview_layer(view)
            elif layer.data.shape[view.axis] != 1:
                layer.data = self._thin_array(view)  # another plane; nobody but us keeps this array
            layer.colormap = preview_colormap(self.session.organs, self.session.active_class_id)
            SliceView(view.plane, 0).insert(layer.data, preview.mask)
            layer.translate = self.frame.slice_arguments(view)["translate"]
            layer.visible = True
            layer.refresh(extent=False)

    def _make_preview_layer(self, view: SliceView) -> Labels:
        """Made with the scan already: making a layer takes napari longer than showing a mask may take."""
        self._preview_layer = self.viewer.add_labels(
            self._thin_array(view),
            name=PREVIEW_NAME,
            opacity=0.6,
            visible=False,
            metadata={"sam_med_own": True},
            **self.frame.slice_arguments(view),
        )
        return self._preview_layer

    def _thin_array(self, view: SliceView) -> np.ndarray:
        shape = [*self.frame.shape_zyx]
        shape[view.axis] = 1
        return np.zeros(shape, dtype=np.uint8)

    @property
    def preview_layer(self) -> Labels | None:
        """The layer that shows the proposed mask; one voxel thick."""
        return self._preview_layer

    # small things

    def _remove(self, layer: Layer | None) -> None:
        if layer is not None and layer in self.viewer.layers:
            self.viewer.layers.remove(layer)

    @contextmanager
    def _writing(self) -> Any:
        """What the layers announce meanwhile comes from us, not from the user."""
        before, self._is_writing = self._is_writing, True
        try:
            yield
        finally:
            self._is_writing = before

    @contextmanager
    def _keeping_tool(self) -> Any:
        """Adding a layer makes it the active one; the user's stays active instead."""
        active = self.viewer.layers.selection.active
        yield
        if active is not None and active in self.viewer.layers:
            self.viewer.layers.selection.active = active
