"""Section 4, Prompts: boxes, outlines and points, the proposal, undo."""

from __future__ import annotations

from napari.layers import Points, Shapes

from napari_sam_med.gui.actions import Actions
from napari_sam_med.gui.appearance import Section, button, labelled, note, press, row, tool_buttons
from napari_sam_med.gui.layer_combo import LayerCombo

__all__ = ["PromptPanel"]


class PromptPanel(Section):
    """Choose a tool, draw on the canvas, accept or clear."""

    def __init__(self, actions: Actions) -> None:
        super().__init__(4, "Prompts")
        self._actions = actions
        bridge = actions.bridge
        layout, self.tools = tool_buttons(
            [
                (
                    "box",
                    "Box",
                    "Drag a box around the organ (Q); a click sets a point.\n"
                    "A box in a second plane joins the same object and bounds it in 3-D.",
                ),
                (
                    "lasso",
                    "Lasso",
                    "Drag around the organ (Shift-Q): an outline says more than a box where\n"
                    "neighbours lie in its corners; a click sets a point. A box on the slice holds too.",
                ),
                (
                    "plus",
                    "+ Point",
                    "Click on the organ; Alt or Ctrl and a click say what is not part of it (W, T)",
                ),
                ("minus", "– Point", "Click on what is not part of the organ (W, T)"),
                (
                    "scribble",
                    "Scribble",
                    "Drag over the organ: the stroke becomes a few points (H);\n"
                    "with Alt or Ctrl it says what is not part of it",
                ),
                ("paint", "Brush", "Paint on the labels with napari's brush (U); [ and ] change its size"),
                ("erase", "Erase", "Take voxels off with napari's eraser"),
                ("pan", "Move", "Drag the picture; the wheel zooms"),
            ],
            self._on_tool,
            columns=4,
        )
        self.add(layout)
        self.accept = button("Accept  ⏎", "Write the proposed mask into the labels (Enter)", actions.accept)
        self.clear = button(
            "Clear  Esc", "Take the prompts of this slice away (Escape)", actions.clear_prompts
        )
        self.add(row(self.accept, self.clear))
        self.as_key = button(
            "Use mask as key",
            "Make the organ's mask on this slice (painted, imported or carried) a key slice as it stands.",
            actions.reviewing.use_labels_as_key,
        )
        self.undo = button("Undo", "Nothing to undo", actions.undo)
        self.redo = button("Redo", "Nothing to do again", actions.redo)
        self.add(row(self.undo, self.redo, self.as_key))
        self.answer = note()
        self.add(self.answer)
        self.boxes = LayerCombo(
            bridge,
            Shapes,
            "Boxes and outlines are kept here; choose a Shapes layer of yours to copy from.",
            None,
        )
        self.points = LayerCombo(
            bridge, Points, "Clicks are kept here; choose a Points layer of yours to copy from.", None
        )
        self.boxes.chosen.connect(self._on_boxes)
        self.points.chosen.connect(self._on_points)
        self.add(labelled("Boxes in", self.boxes))
        self.add(labelled("Points in", self.points))
        bridge.layers_changed.connect(self.refresh)
        bridge.tool_changed.connect(self.refresh_tools)
        actions.scans.opened.connect(self.refresh)
        actions.model.loaded.connect(self.refresh_tools)
        events = actions.session.events
        events.model.connect(self.refresh_tools)
        events.preview.connect(self.refresh_answer)
        events.volume.connect(self.refresh)
        actions.session.history_changed.connect(self.refresh_history)
        self.refresh()

    def refresh(self, *_: object) -> None:
        """Show layers, tools and history as they are."""
        bridge = self._actions.bridge
        self.boxes.show_layers(bridge.boxes_layer)
        self.points.show_layers(bridge.points_layer)
        self.refresh_tools()
        self.refresh_answer()
        self.refresh_history()

    def refresh_tools(self, *_: object) -> None:
        """Press the button of the tool in hand; points stay off for models that take boxes only."""
        bridge = self._actions.bridge
        tool = bridge.tool
        if tool == "point":
            tool = "minus" if bridge.prompts.next_is_negative else "plus"
        takes_points = "point" in self._actions.model.accepts
        has_scan = bridge.frame is not None
        for key, made in self.tools.items():
            made.setEnabled(has_scan and (takes_points or key not in ("plus", "minus", "scribble")))
        press(self.tools, tool if has_scan else None)
        self.as_key.setEnabled(has_scan)
        self.points.setEnabled(takes_points)

    def refresh_answer(self, *_: object) -> None:
        """Say how sure the model is of its proposal."""
        preview = self._actions.session.preview
        self.accept.setEnabled(preview is not None)
        if preview is None:
            text = ""
        elif not preview.mask.any():
            text = f"The mask proposed on slice {preview.view.index} is empty"
        else:
            text = f"Proposed on slice {preview.view.index}, quality {preview.quality:.2f}"
        self.answer.setText(text or "Nothing proposed on this slice")
        self.answer.setVisible(True)

    def refresh_history(self) -> None:
        """Name what would be undone and redone."""
        stack = self._actions.session.undo_stack
        undo, redo = stack.undo_label, stack.redo_label
        self.undo.setEnabled(undo is not None)
        self.redo.setEnabled(redo is not None)
        self.undo.setToolTip("Nothing to undo" if undo is None else f"Undo: {undo} (Ctrl-Z)")
        self.redo.setToolTip("Nothing to do again" if redo is None else f"Do again: {redo} (Ctrl-Shift-Z)")

    def _on_tool(self, key: str) -> None:
        bridge = self._actions.bridge
        if key in ("plus", "minus"):
            bridge.prompts.next_is_negative = key == "minus"
            bridge.set_tool("point")
        else:
            bridge.set_tool(key)
        self.refresh_tools()

    def _on_boxes(self, layer: Shapes | None) -> None:
        if layer is not None and layer is not self._actions.bridge.boxes_layer:
            self._actions.bridge.missing.choose_boxes(layer)

    def _on_points(self, layer: Points | None) -> None:
        if layer is not None and layer is not self._actions.bridge.points_layer:
            self._actions.bridge.missing.choose_points(layer)
