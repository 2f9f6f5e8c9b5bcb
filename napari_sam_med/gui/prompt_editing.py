"""Prompts as the user draws them: from the Points and Shapes layers into the session, and back."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from napari.layers import Points, Shapes
from qtpy.QtCore import QObject, Qt, Signal

from napari_sam_med.gui import prompt_layers
from napari_sam_med.gui.own_writing import OwnWriting
from napari_sam_med.gui.planes import Frame
from napari_sam_med.gui.scribble import Stroke
from napari_sam_med.sam.prompts import Prompts
from napari_sam_med.session.session import Session
from napari_sam_med.volume.slice_view import Plane, SliceView
from napari_sam_med.wording import number_of

__all__ = ["PromptEditing"]

_DRAG_CANVAS_PIXELS = 4
"""A hand that clicks may shake by less than this."""
_MODES_OF_CLICKS = ("add_polygon", "add_polyline")
"""napari's tools that draw corner by corner, without a button held down."""


class PromptEditing(OwnWriting, QObject):
    """Two layers of ours that always show the prompts of the active object.

    Layers of the user's are read once, with `take_in`, and never written to: they may hold more than prompts
    of one object.

    Signals
    -------
    message : str
        Something that the user should know.
    message_over : str
        It does not hold any more.
    sign_changed
        Plain clicks set points of the other sign now.
    points_wanted
        There is no Points layer to put a point into.
    """

    message = Signal(str)
    message_over = Signal(str)
    sign_changed = Signal()
    points_wanted = Signal()
    _reading_wanted = Signal()

    def __init__(
        self, session: Session, current_view: Callable[[], SliceView | None], parent: QObject | None = None
    ) -> None:
        super().__init__(parent)
        self.points: Points | None = None
        self.boxes: Shapes | None = None
        self._session = session
        self._current_view = current_view
        self._frame: Frame | None = None
        self._next_is_negative = False
        self._scribbles = False
        self.takes_points: Callable[[], bool] = lambda: True
        self._clicked: int | None = None
        self._lasso_begun: tuple[int, npt.NDArray[np.float64]] | None = None
        self._is_negative_click = False
        self._released_at: npt.NDArray[np.float64] | None = None
        self._is_outdated = False
        self._n_outside, self._told = 0, ""
        # posted events come after napari has finished with the layer, and before Qt draws
        self._reading_wanted.connect(self._read_outdated, Qt.ConnectionType.QueuedConnection)
        session.events.objects.connect(self._on_objects)
        session.events.active_object_id.connect(self._on_objects)

    def start(self, frame: Frame) -> None:
        """Work on another scan."""
        self._note_outside(0)
        self._frame = frame

    def let_go(self) -> None:
        """Leave the layers to the user."""
        self._is_outdated = False
        self.take_points(None)
        self.take_boxes(None)
        self._frame = None

    def detach(self) -> None:
        """Stop listening to the session too."""
        self.let_go()
        self._session.events.objects.disconnect(self._on_objects, missing_ok=True)
        self._session.events.active_object_id.disconnect(self._on_objects, missing_ok=True)

    def take_points(self, layer: Points | None) -> None:
        """Read points from this layer."""
        if layer is None:
            self._note_outside(0)
        if self.points is not None:
            self.points.events.data.disconnect(self._on_edited)
            self.points.events.data.disconnect(self._on_point_coming)
            if self._on_press in self.points.mouse_drag_callbacks:
                self.points.mouse_drag_callbacks.remove(self._on_press)
        self.points = layer
        if layer is not None:
            prompt_layers.prepare_points(layer, self._plane)
            layer.mouse_drag_callbacks.insert(0, self._on_press)
            layer.events.data.connect(self._on_point_coming, position="first")
            layer.events.data.connect(self._on_edited)
            self._on_edited()

    def take_boxes(self, layer: Shapes | None) -> None:
        """Read boxes and outlines from this layer."""
        if layer is None:
            self._note_outside(0)
        if self.boxes is not None:
            self.boxes.events.data.disconnect(self._on_edited)
            if self._on_box_press in self.boxes.mouse_drag_callbacks:
                self.boxes.mouse_drag_callbacks.remove(self._on_box_press)
        self.boxes = layer
        self._clicked = self._lasso_begun = None
        if layer is not None:
            layer.mouse_drag_callbacks.insert(0, self._on_box_press)
            layer.events.data.connect(self._on_edited)
            self._on_edited()

    @property
    def next_is_negative(self) -> bool:
        """Whether a plain click sets a background point."""
        return self._next_is_negative

    @next_is_negative.setter
    def next_is_negative(self, negative: bool) -> None:
        self._next_is_negative = negative
        self.sign_changed.emit()

    @property
    def scribbles(self) -> bool:
        """Whether a drag in the Points layer sets points along its way; else it moves the picture."""
        return self._scribbles

    @scribbles.setter
    def scribbles(self, scribbles: bool) -> None:
        self._scribbles = scribbles
        if self.points is not None:
            self.points.mouse_pan = not scribbles

    @property
    def _plane(self) -> Plane:
        view = self._current_view()
        return "axial" if view is None else view.plane

    @property
    def _is_readable(self) -> bool:
        """Whether there is a scan, and no shape half drawn: napari announces it when it is done."""
        return self._frame is not None and self._session.volume is not None and not self.is_half_drawn

    @property
    def is_half_drawn(self) -> bool:
        """Whether a shape is being drawn."""
        return getattr(self.boxes, "_is_creating", False)

    def end_shape(self, keep: bool) -> bool:
        """End the polygon that is being drawn corner by corner, or drop it; False when there is none."""
        if not self.is_half_drawn or str(self.boxes.mode) not in _MODES_OF_CLICKS:
            return False
        with self._writing():
            count = len(self.boxes.data)
            self.boxes._finish_drawing()
            if not keep and len(self.boxes.data) == count:
                self._remove_shapes({count - 1})
        self._read_soon()
        return True

    # from the layers

    def _on_press(self, layer: Points, event: Any) -> Iterator[None]:
        """Alt or Ctrl turns the sign of the points that this click or stroke sets."""
        self._released_at = None
        prompt_layers.prepare_next(layer, self._next_is_negative ^ _turns_sign(event), self._plane)
        if str(layer.mode) != "add":
            return
        stroke = Stroke(layer, event) if self._scribbles else None
        yield
        while event.type == "mouse_move":
            if stroke is not None:
                with self._writing():  # one step of the whole stroke
                    stroke.go_on(event)
            yield
        with self._writing():
            is_stroke = stroke is not None and stroke.end()
        if not is_stroke:
            self._released_at = np.array(event.position, dtype=float)
        self._read_soon()

    def _on_point_coming(self, event: Any) -> None:
        """Ask the model about a click while napari is still adding its point, which takes 10 ms."""
        position, self._released_at = self._released_at, None
        if position is None or _action(event) != "adding" or self._is_writing or not self._is_readable:
            return
        reading = prompt_layers.read_prompts(
            self.points, self.boxes, self._frame, self._plane, self._clicked, coming=position
        )
        with self._writing():
            self._give(reading.prompts)

    def _on_box_press(self, layer: Shapes, event: Any) -> Iterator[None]:
        """Tell a click from a drag: napari makes a rectangle of either, and draws on after a lasso's."""
        self._clicked = self._lasso_begun = None
        mode = str(layer.mode)
        if mode not in ("add_rectangle", "add_polygon_lasso"):
            return
        self._is_negative_click = _turns_sign(event)
        begun = len(layer.data), np.array(event.position, dtype=float)
        start, is_click = np.array(event.pos, dtype=float), True
        yield
        while event.type == "mouse_move":
            is_click &= bool(np.abs(np.array(event.pos) - start).max() < _DRAG_CANVAS_PIXELS)
            yield
        if mode == "add_polygon_lasso":
            self._lasso_begun = begun
            self._read_soon()  # when napari has ended the outline too
        elif is_click:
            self._clicked = len(layer.data) - 1

    def _on_edited(self, event: Any = None) -> None:
        if not self._is_writing and not _action(event).endswith("ing"):  # adding, then added
            self._read_soon()

    def _read_soon(self) -> None:
        if not self._is_outdated:  # once for several edits
            self._is_outdated = True
            self._reading_wanted.emit()

    def _read_outdated(self) -> None:
        if self._is_outdated:
            self._read()

    def _read(self) -> None:
        self._is_outdated, self._released_at = False, None
        self._end_lasso()
        if not self._is_readable:
            return
        clicked, self._clicked = self._clicked, None
        reading = prompt_layers.read_prompts(self.points, self.boxes, self._frame, self._plane, clicked)
        if reading.clicks:
            with self._writing():
                self._remove_shapes(set(reading.clicks))
            self._set_points(list(reading.clicks.values()))
            reading = prompt_layers.read_prompts(self.points, self.boxes, self._frame, self._plane)
        with self._writing():
            if reading.replaced_shapes:
                self._remove_shapes(set(reading.replaced_shapes))
            if self.points is not None:
                prompt_layers.color_points(self.points)
            self._give(reading.prompts)
        self._note_outside(reading.n_outside)

    def _note_outside(self, number: int) -> None:
        """Say that prompts lie outside the volume; not again where that was said when they were drawn."""
        before, self._n_outside = self._n_outside, number
        if number != before and self._told:
            told, self._told = self._told, ""
            self.message_over.emit(told)
        if number > before:
            self._told = f"{number_of(number, 'prompt')} outside the volume ignored."
            self.message.emit(self._told)

    def _give(self, prompts: Mapping[SliceView, Prompts]) -> None:
        """Let the session know what differs from what it knows."""
        active = self._session.active_object
        known = {} if active is None else dict(active.key_slices)
        for view in sorted({*known, *prompts}):
            if known.get(view) != prompts.get(view):
                self._session.prompt(view, prompts.get(view))

    def take_in(self, points: Points | None = None, boxes: Shapes | None = None) -> None:
        """Add what a layer of the user's holds to the prompts of the active object."""
        if self._frame is None or self._session.volume is None:
            return
        self._read_outdated()
        reading = prompt_layers.read_prompts(points, boxes, self._frame, self._plane)
        for view, given in sorted(reading.prompts.items()):
            active = self._session.active_object
            known = None if active is None else active.key_slices.get(view)
            self._session.prompt(view, prompt_layers.joined(known, given))
        n_left = reading.n_outside + len(reading.replaced_shapes) + len(reading.clicks)
        if n_left:
            self.message.emit(
                f"{n_left} of them not taken: outside the volume, too small, or not the newest on a slice."
            )

    def _end_lasso(self) -> None:
        """See to a lasso once napari has; one too small for napari to make a shape of is a click."""
        begun, self._lasso_begun = self._lasso_begun, None
        if begun is None or self.boxes is None or self._frame is None:
            return
        n_shapes, position = begun
        if self.is_half_drawn:
            with self._writing():
                self.boxes._finish_drawing()
        if len(self.boxes.data) == n_shapes:
            self._set_points([self._frame.index(position)])
        self.boxes.selected_data = set()  # marks at every corner would cover the border of the mask

    def _remove_shapes(self, numbers: set[int]) -> None:
        self.boxes.selected_data = numbers
        self.boxes.remove_selected()

    def _set_points(self, positions: Sequence[npt.NDArray[np.float64]]) -> None:
        """Points (voxel indices) in place of shapes that were clicked, not drawn; box and outline stay."""
        if not self.takes_points():
            self.message.emit("This model takes boxes only: press, drag and release to draw a box.")
            return
        if self.points is None:
            self.points_wanted.emit()
        with self._writing():
            prompt_layers.prepare_next(self.points, self._is_negative_click, self._plane)
            for position in positions:
                self.points.add(self.points.world_to_data(self._frame.world(position)))

    # into the layers

    def _on_objects(self, *_: Any) -> None:
        if self._is_writing or self._frame is None:
            return
        active = self._session.active_object
        wanted = {} if active is None else dict(active.key_slices)
        half_drawn = len(self.boxes.data) - 1 if self.is_half_drawn else None  # is no prompt yet
        shown = prompt_layers.read_prompts(self.points, self.boxes, self._frame, self._plane, half_drawn)
        if shown.prompts == wanted:
            return
        self._is_outdated = False
        with self._writing():
            if self.points is not None:
                prompt_layers.write_points(self.points, wanted, self._frame)
            if self.boxes is not None:
                prompt_layers.write_shapes(self.boxes, wanted, self._frame)
        self._note_outside(0)


def _action(event: Any) -> str:
    action = getattr(event, "action", None)
    return str(getattr(action, "value", action))


def _turns_sign(event: Any) -> bool:
    return "Alt" in event.modifiers or "Control" in event.modifiers
