"""The labels layer and the proposed mask: colours, refreshing, strokes. The bridge makes the layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from napari.layers import Labels
from qtpy.QtCore import QObject, QTimer, Signal

from napari_sam_med.gui.label_colors import organ_colormap, preview_colormap, same_colors
from napari_sam_med.gui.planes import Frame
from napari_sam_med.session.session import Session
from napari_sam_med.volume.disk_labels import is_on_disk
from napari_sam_med.volume.labels import LabelVolume
from napari_sam_med.volume.slice_view import SliceView

__all__ = ["LabelsDisplay", "thin_array"]

_REFRESH_MS = 20
_REFRESH_3D_MS = 700
"""A 3-D refresh sends the whole volume to the graphics card, so that it must not come with every slice."""

_REST_MS = 100
"""Rest on a slice before the layer of the proposal is moved there: whoever scrolls past needs it nowhere."""


def thin_array(shape_zyx: tuple[int, ...], view: SliceView) -> np.ndarray:
    """Array of a volume's shape, but one voxel thick along the axis that the slice cuts."""
    shape = [*shape_zyx]
    shape[view.axis] = 1
    return np.zeros(shape, dtype=np.uint8)


class LabelsDisplay(QObject):
    """Keeps a Labels layer, whose data is the session's own array, and the layer of the proposal up to date.

    Signals
    -------
    message : str
        Something that the user should know.
    preview_wanted
        There is no layer to show a proposal in.
    array_replaced
        The labels had to grow: their layer shows an array that is no longer theirs.
    """

    message = Signal(str)
    preview_wanted = Signal()
    array_replaced = Signal()

    def __init__(
        self, session: Session, current_view: Callable[[], SliceView | None], parent: QObject | None = None
    ) -> None:
        super().__init__(parent)
        self.layer: Labels | None = None
        self.preview_layer: Labels | None = None
        self._session = session
        self._current_view = current_view
        self._frame: Frame | None = None
        self._labels: LabelVolume | None = None
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.timeout.connect(self.refresh)
        self._rest_timer = QTimer(self)
        self._rest_timer.setSingleShot(True)
        self._rest_timer.setInterval(_REST_MS)
        self._rest_timer.timeout.connect(self._prepare_preview)
        events = session.events
        events.organs.connect(self._on_organs)
        events.active_class_id.connect(self._on_active_class)
        events.preview.connect(self.show_proposal)

    def show(self, layer: Labels, labels: LabelVolume, frame: Frame) -> None:
        """Take on a layer whose data is the labels' array."""
        self.let_go()
        self.layer, self._labels, self._frame = layer, labels, frame
        layer.colormap = organ_colormap(labels.organs)
        if is_on_disk(labels.data):
            _keep_from_3d(layer)
        labels.changed.connect(self._on_labels_changed)
        layer.events.paint.connect(self._on_paint)
        layer.events.selected_label.connect(self._on_selected_label)
        self._on_active_class()

    def let_go(self) -> None:
        """Leave the labels layer to the user."""
        self._timer.stop()
        self._rest_timer.stop()
        if self._labels is not None:
            self._labels.changed.disconnect(self._on_labels_changed, missing_ok=True)
        if self.layer is not None:
            self.layer.events.paint.disconnect(self._on_paint)
            self.layer.events.selected_label.disconnect(self._on_selected_label)
        self.layer = self._labels = None

    def detach(self) -> None:
        """Stop listening to the session too."""
        self.let_go()
        events = self._session.events
        events.organs.disconnect(self._on_organs, missing_ok=True)
        events.active_class_id.disconnect(self._on_active_class, missing_ok=True)
        events.preview.disconnect(self.show_proposal, missing_ok=True)

    # the labels

    def _on_organs(self, *_: Any) -> None:
        if self.layer is not None:
            self.layer.colormap = organ_colormap(self._session.organs)
        self.show_proposal()

    def _on_active_class(self, *_: Any) -> None:
        label = self._session.active_class_id
        if self.layer is not None and label <= np.iinfo(self.layer.data.dtype).max:
            self.layer.selected_label = label
        self._rest_timer.start()

    def _on_selected_label(self, event: Any = None) -> None:
        label = int(self.layer.selected_label)
        if label in self._session.organs and label != self._session.active_class_id:
            self._session.go_on_with_organ(label)

    def _on_labels_changed(self, view: SliceView | None) -> None:
        if self._labels.data is not self.layer.data:
            self.array_replaced.emit()
            return
        here = self._current_view()
        if here is None:
            if not self._timer.isActive():
                self._timer.start(_REFRESH_3D_MS)
        elif view is None or view.plane != here.plane or view.index == here.index:
            self._timer.start(_REFRESH_MS)

    def refuse_3d(self, event: Any = None) -> bool:
        """Whether there is no 3-D, since labels larger than memory would be read for it; told then.

        With the event of a turn to 3-D turns back.
        """
        labels = self._session.labels
        if labels is None or not is_on_disk(labels.data):
            return False
        if event is not None and event.source.ndisplay == 2:
            return False
        if event is not None:
            event.source.ndisplay = 2
        self.message.emit(
            "3-D needs all labels in memory at once, and this scan is larger than it; look at slices."
        )
        return True

    def refresh(self) -> None:
        """Show the array as it is now."""
        if self.layer is not None:
            self.layer.refresh(extent=False, highlight=False)

    def _on_paint(self, event: Any = None) -> None:
        """A stroke of the user's goes the way of every other change."""
        view = self._current_view() if self.layer.n_edit_dimensions == 2 else None
        change = self._session.record_stroke(None if view is None else [view])
        if self._session.organs.locked_ids:
            self.refresh()
            if change is None:
                self.message.emit("That organ is locked, so nothing was painted; unlock it first.")

    # the proposal

    def look_at(self, view: SliceView | None) -> None:
        """The user looks at a slice, or at none in 3-D: prepare for a proposal, which is to show at once."""
        if view is not None:
            self._rest_timer.start()
        elif self.preview_layer is not None and self.preview_layer.visible:
            self.preview_layer.visible = False

    def show_proposal(self, *_: Any) -> None:
        """Show the mask that is proposed, if one is; in a new layer where the user removed the one for it."""
        preview = self._session.preview
        if self.preview_layer is None and preview is not None and self._frame is not None:
            self.preview_wanted.emit()
        layer = self.preview_layer
        if layer is None or self._frame is None:
            return
        if preview is None:
            if layer.data.any():
                layer.data[:] = 0
                layer.refresh(extent=False, highlight=False, thumbnail=False)
            return
        self._place_preview(preview.view)
        SliceView(preview.view.plane, 0).insert(layer.data, preview.mask)
        layer.refresh(extent=False, highlight=False, thumbnail=False)

    def _prepare_preview(self) -> None:
        """Have everything about the layer of the proposal in place for the slice at hand but the mask."""
        view = self._current_view()
        if view is not None and self._session.preview is None and self.preview_layer is not None:
            self._place_preview(view)

    def _place_preview(self, view: SliceView) -> None:
        """Put the layer where a slice lies; each of these takes napari milliseconds, so only what differs."""
        layer = self.preview_layer
        if layer.data.shape[view.axis] != 1:
            # another plane; nobody else keeps this array
            layer.data = thin_array(self._frame.shape_zyx, view)
        colormap = preview_colormap(self._session.organs, self._session.active_class_id)
        if not same_colors(layer.colormap, colormap):
            layer.colormap = colormap
        translate = self._frame.slice_arguments(view)["translate"]
        if not np.array_equal(layer.translate, translate):
            layer.translate = translate
        if not layer.visible:
            layer.visible = True


def _keep_from_3d(layer: Labels) -> None:
    """Let a layer slice in 2-D alone: napari hears of 3-D before anybody else, and would read all of it."""
    slice_dims = layer._slice_dims

    def in_2d(dims: Any, *arguments: Any, **options: Any) -> None:
        if dims.ndisplay == 2:
            slice_dims(dims, *arguments, **options)

    layer._slice_dims = in_2d
