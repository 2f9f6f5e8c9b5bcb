"""Layers of ours that the user removed, or that there are none of yet."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from napari.layers import Layer, Points, Shapes
from qtpy.QtCore import QObject, QTimer

from napari_sam_med.gui.scan_layers import boxes_layer, points_layer, preview_layer
from napari_sam_med.gui.slow_layers import insert_unselected

if TYPE_CHECKING:
    from napari_sam_med.gui.layer_bridge import LayerBridge, Tool

__all__ = ["MissingLayers"]

_LABELS_REMOVED = 'The labels layer was removed; choose "Bring the labels back" under Scan, Labels.'


class MissingLayers(QObject):
    """Makes the layers of prompts and proposal where they are wanted and not there; misses the labels.

    Parameters
    ----------
    bridge : LayerBridge
    """

    def __init__(self, bridge: LayerBridge) -> None:
        super().__init__(bridge)
        self._bridge = bridge
        self._is_preview_chosen = False
        self._tool_in_hand: Tool | None = None
        self._tool_to_take: Tool | None = None
        self._labels_timer = QTimer(self)
        self._labels_timer.setSingleShot(True)
        self._labels_timer.timeout.connect(self._tell_of_labels)
        self._preview_timer = QTimer(self)
        self._preview_timer.setSingleShot(True)
        self._preview_timer.timeout.connect(self._go_on_without_preview)
        bridge.display.preview_wanted.connect(self._make_preview)
        bridge.prompts.points_wanted.connect(self._make_points)

    def stop(self) -> None:
        """For the end of the widget."""
        self._labels_timer.stop()
        self._preview_timer.stop()

    # the labels

    def on_labels_removed(self) -> None:
        """Tell of it a moment later: not while the viewer is being closed."""
        self._labels_timer.start(0)

    def labels_are_back(self) -> None:
        """What was told of them does not hold any more."""
        self._bridge.hint_over.emit(_LABELS_REMOVED)

    def _tell_of_labels(self) -> None:
        bridge = self._bridge
        if bridge.frame is not None and bridge.image_layer is not None and bridge.labels_layer is None:
            bridge.message.emit(_LABELS_REMOVED)

    # the proposal

    def note_tool(self) -> None:
        """What the user has in hand; the layer of the proposal, once chosen, has no tool."""
        selection = self._bridge.viewer.layers.selection
        active = selection.active
        if active is None:  # as while a layer is being removed
            self._is_preview_chosen &= len(selection) < 2
            return
        self._is_preview_chosen = active is self._bridge.display.preview_layer
        if not self._is_preview_chosen:
            self._tool_in_hand = self._bridge.tool

    def on_removing(self, layer: Layer) -> None:
        """napari is about to choose another one in its place."""
        if self._is_preview_chosen and layer is self._bridge.display.preview_layer:
            self._tool_to_take = self._tool_in_hand

    def on_preview_removed(self) -> None:
        """A moment later: napari may be going through a list of layers to remove."""
        self._preview_timer.start(0)

    def _go_on_without_preview(self) -> None:
        tool, self._tool_to_take = self._tool_to_take, None
        self._bridge.display.show_proposal()
        if tool is not None and self._bridge.viewer.dims.ndisplay == 2 and self._bridge.has_layer_of(tool):
            self._bridge.set_tool(tool)

    def _make_preview(self) -> None:
        """The user removed it; a proposal that is not seen would be accepted unseen."""
        bridge = self._bridge
        if bridge.frame is not None:
            place = bridge.own_layers.lowest(bridge.viewer.layers)
            layer = bridge.display.preview_layer = preview_layer(bridge.frame)
            insert_unselected(bridge.viewer.layers, place, layer)

    # the prompts

    def choose_points(self, layer: Points | None) -> None:
        """Take in what a Points layer of the user's holds, and leave it as it is; None makes one of ours."""
        bridge = self._bridge
        if layer is not None and bridge.frame is None:
            return
        if layer is not None:
            if bridge.points_layer is None:
                self._make_points()
            bridge.prompts.take_in(points=layer)
            if bridge.viewer.layers.selection.active is layer:
                bridge.set_tool("point")  # what is drawn there from now on is not read
        else:
            layer = points_layer(bridge.frame)
            bridge.viewer.layers.append(layer)
            bridge.prompts.take_points(layer)
            bridge.keys_wanted.emit(layer)
        bridge.layers_changed.emit()

    def _make_points(self) -> None:
        with self.keeping_tool():
            self.choose_points(None)

    def choose_boxes(self, layer: Shapes | None) -> None:
        """Take in what a Shapes layer of the user's holds, and leave it as it is; None makes one of ours."""
        bridge = self._bridge
        if layer is not None and bridge.frame is None:
            return
        if layer is not None:
            if bridge.boxes_layer is None:
                with self.keeping_tool():
                    self.choose_boxes(None)
            bridge.prompts.take_in(boxes=layer)
            if bridge.viewer.layers.selection.active is layer:
                bridge.set_tool("box")  # what is drawn there from now on is not read
        else:
            layer = boxes_layer(bridge.frame)
            bridge.viewer.layers.append(layer)
            bridge.prompts.take_boxes(layer)
            bridge.keys_wanted.emit(layer)
        bridge.layers_changed.emit()

    @contextmanager
    def keeping_tool(self) -> Iterator[None]:
        """Adding a layer makes it the active one; the user's stays active instead."""
        layers = self._bridge.viewer.layers
        active: Layer | None = layers.selection.active
        yield
        if active is not None and active in layers:
            layers.selection.active = active
