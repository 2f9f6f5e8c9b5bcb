"""The chooser: pointing at what was found, on the canvas, and taking it with a click."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator
from typing import Any

from napari.layers import Layer
from qtpy.QtCore import QEvent, QObject, QTimer, Signal
from qtpy.QtGui import QCursor
from qtpy.QtWidgets import QApplication, QToolTip

from napari_sam_med.errors import PromptError, SamMedError
from napari_sam_med.gui.chooser_layers import ChooserLayers
from napari_sam_med.gui.layer_bridge import LayerBridge, Tool
from napari_sam_med.session.found import Found, FoundBox, Into, Taken, taking, use_box
from napari_sam_med.session.session import Session
from napari_sam_med.volume.slice_view import SliceView

__all__ = ["Chooser"]

_SLICE_OF_TIME = 0.02
"""Seconds of writing between two looks at what the user does: an object may have hundreds of slices."""
_READ_SECONDS = 3.0
"""What was taken is not talked over by what is pointed at next; its tooltip says that."""
_CLICK_PIXELS = 4.0
"""A press that moves further on the screen is a drag: the camera's."""
_USER_ACTS = frozenset(
    {QEvent.Type.MouseButtonPress, QEvent.Type.KeyPress, QEvent.Type.ShortcutOverride, QEvent.Type.Drop}
)


class Chooser(QObject):
    """What is found is pointed at by hovering, and taken by a click; the smallest under the cursor first.

    It works while its layer is the active one, in napari's pan and zoom mode, so that the camera goes on as
    ever; whoever takes another tool or layer leaves it.

    Parameters
    ----------
    session : Session
    found : Found
    bridge : LayerBridge
    make_way : callable
        Ends a job that fills slices, before something else changes them.

    Attributes
    ----------
    layers : ChooserLayers
    into : {"suggested", "active", "new"}
        The organ that a candidate is taken into. An organ that is chosen while the candidates are shown is
        meant: they go to the chosen one then, until they are forgotten.
    joins : bool
        Whether it is put to the newest object of that organ.
    model : str or None
        Name of the model that found the candidates.

    Signals
    -------
    changed
        The chooser was entered or left.
    status : str
    failed : Exception
    """

    changed = Signal()
    status = Signal(str)
    failed = Signal(object)

    def __init__(
        self,
        session: Session,
        found: Found,
        bridge: LayerBridge,
        make_way: Callable[[], None],
        parent: QObject | None = None,
    ) -> None:
        super().__init__(parent)
        self._session, self._found, self._bridge, self._make_way = session, found, bridge, make_way
        self.layers = ChooserLayers(found, bridge, self)
        self.into: Into = "suggested"
        self._into_chosen = False
        self.joins = False
        self.model: str | None = None
        self._is_on = False
        self._tool_before: Tool | None = None
        self._at: tuple[SliceView, tuple[float, float]] | None = None
        self._nest: list[int] = []
        self._listened_to: list[Layer] = []
        self._work: Generator[None, None, Taken | None] | None = None
        self._work_of = 0
        self._read_by = 0.0
        self._timer = QTimer(self)
        self._timer.timeout.connect(self._go_on)
        bridge.tool_changed.connect(self._on_tool)
        bridge.layers_changed.connect(self._on_layers)
        bridge.view_changed.connect(self._on_view)
        session.organ_chosen.connect(self._on_organ_chosen)

    @property
    def is_on(self) -> bool:
        """Whether hovering points and clicking takes."""
        return self._is_on

    @property
    def is_taking(self) -> bool:
        """Whether a candidate is being written into the labels."""
        return self._work is not None

    # in and out

    def begin(self) -> None:
        """Show the candidates, and let the mouse choose among them."""
        if self._bridge.frame is None:
            return
        tool = self._bridge.tool
        self._bridge.turns.draw_later()
        self.layers.begin()
        layer = self.layers.chosen_from
        if layer is None:
            return
        if not self._is_on:
            self._tool_before = tool
        self._listen_to(layer)
        layer.visible = True
        layer.mode = "pan_zoom"
        self._bridge.viewer.layers.selection.active = layer  # before it is on: napari has none in between
        self._is_on = True
        self.changed.emit()

    def leave(self) -> bool:
        """Hide the candidates and give the mouse back its tool; answers whether it was on."""
        if not self._is_on:
            return False
        self._bridge.turns.draw_later()
        self._end()
        if self._tool_before is not None:
            self._bridge.set_tool(self._tool_before)
        self.status.emit('The found objects are hidden; "Choose" under Find shows them again.')
        return True

    def _end(self) -> None:
        self._is_on, self._at = False, None
        self._found.point_at(None)
        QToolTip.hideText()
        for layer in (self.layers.candidates, self.layers.boxes):
            if layer is not None:
                layer.visible = False
        self.changed.emit()

    def clear(self) -> None:
        """Forget what was found; what was taken stays."""
        self.finish()
        was_on = self._is_on
        self._is_on, self._at = False, None
        if self._into_chosen:
            self.take_into("suggested")
        self._found.clear()
        self.layers.clear()
        if was_on:
            if self._tool_before is not None and self._bridge.frame is not None:
                self._bridge.set_tool(self._tool_before)
            self.changed.emit()

    def _on_tool(self) -> None:
        layer = self.layers.chosen_from
        is_ours = layer is not None and self._bridge.viewer.layers.selection.active is layer
        if self._is_on and not (is_ours and str(layer.mode) == "pan_zoom"):
            self._end()

    def _on_layers(self) -> None:
        for layer in (self.layers.candidates, self.layers.boxes, self.layers.edges):
            if layer is not None and layer not in self._bridge.viewer.layers and self.layers.forget(layer):
                self._end()

    def _listen_to(self, layer: Layer) -> None:
        if layer not in self._listened_to:
            self._listened_to = [one for one in self._listened_to if one in self._bridge.viewer.layers]
            self._listened_to.append(layer)
            layer.mouse_move_callbacks.append(self._on_move)
            layer.mouse_drag_callbacks.append(self._on_press)
        self._bridge.keys_wanted.emit(layer)  # a panel that is closed and waits takes its keys back

    # where to

    def take_into(self, into: Into) -> None:
        """Take candidates into that organ from now on."""
        self.into, self._into_chosen = into, False
        self.changed.emit()

    def _on_organ_chosen(self, class_id: int) -> None:
        if self._is_on and self._found.objects and self.into == "suggested":
            self.take_into("active")
            self._into_chosen = True
            name = self._session.organs.name_of(class_id)
            self.status.emit(f"Found objects are taken into {name} from now on (Take into, under Find).")

    # pointing

    def _place(self, event: Any) -> tuple[SliceView, tuple[float, float]] | None:
        view, frame = self._bridge.current_view(), self._bridge.frame
        if not self._is_on or view is None or frame is None:
            return None
        return view, view.pixel_xy(frame.index(event.position), frame.shape_zyx)

    def _on_move(self, layer: Layer, event: Any) -> None:
        place = self._place(event)
        if place is None:
            return
        self._at = place
        nest = self._under(*place)
        if nest[:1] != self._nest[:1] or self._found.pointed not in nest:
            self._point_at(nest[0] if nest else None)
        self._nest = nest

    def _under(self, view: SliceView, xy: tuple[float, float]) -> list[int]:
        return self._boxes_under(view, xy) if self._found.boxes else self._found.under(view, xy)

    def _boxes_under(self, view: SliceView, xy: tuple[float, float]) -> list[int]:
        x, y = xy
        inside = []
        for box in self.layers.boxes_here(view):
            left, top, right, bottom = box.box_xyxy
            if left <= x <= right and top <= y <= bottom:
                inside.append(((right - left) * (bottom - top), box.number))
        return [number for _, number in sorted(inside)]

    def _on_view(self, view: SliceView | None) -> None:
        self._at, self._nest = None, []
        if self._is_on and self._found.pointed is not None and view is not None:
            box = self._box(self._found.pointed)
            if self._found.mask_on(self._found.pointed, view) is None and (box is None or box.view != view):
                self._found.point_at(None)

    def step_out(self) -> None:
        """Point at the candidate around the one that is pointed at; from the outermost back to the first."""
        # looked for anew: what was found since, or was taken, has other numbers
        self._nest = [] if self._at is None or not self._is_on else self._under(*self._at)
        if not self._nest:
            self.status.emit("Point at a found object first; J then goes to the one around it.")
            return
        at = self._nest.index(self._found.pointed) if self._found.pointed in self._nest else -1
        self._point_at(self._nest[(at + 1) % len(self._nest)])

    def _point_at(self, number: int | None) -> None:
        self._found.point_at(number)
        if number is None:
            QToolTip.hideText()
            return
        told = self.text(number)
        QToolTip.showText(QCursor.pos(), told)
        self._say_pointed(f"{told}. {self._offer(number, 'Click')}")

    def point_at_row(self, number: int, goes_there: bool) -> None:
        """Point at a candidate of the list, and look at its best slice where that is wanted."""
        box = self._box(number)
        view = box.view if box is not None else self._found.objects[number].best_view
        if not self._is_on:
            self.begin()
        if goes_there and self._bridge.current_view() != view:
            self._bridge.go_to(view)
        self._found.point_at(number)
        self._say_pointed(f"{self.text(number)}. {self._offer(number, 'Double-click its row')}")

    def _say_pointed(self, text: str) -> None:
        if time.monotonic() >= self._read_by:  # the mouse moves on at once over what lies around
            self.status.emit(text)

    def text(self, number: int) -> str:
        """A candidate in words: what it looks like, how sure it is, how large."""
        box = self._box(number)
        if box is not None:
            return f"Box {number}, score {box.score:.2f}"
        one, guess = self._found.objects[number], self._found.guess(number)
        name = f"{guess} {one.organ.probability * 100:.0f} %" if guess else f"Object {number}"
        score = self._found.score(number)
        told = f"{self._found.word} {score * 100:.0f} %" if self._found.is_ranked else f"score {score:.2f}"
        return f"{name}, {told}, {self._found.volume_ml(number):.3g} ml"

    def _offer(self, number: int, how: str) -> str:
        if self._box(number) is not None:
            return f"{how} to take it as a prompt."
        if self.into == "suggested" and (why := self._found.unknown(number)):
            return f"{why}: choose its organ in the list to take it."
        return f"{how} to take it into {self._found.organ_for(number, self.into).name}."

    def _box(self, number: int) -> FoundBox | None:
        return self._found.boxes.get(number)

    # taking

    def _on_press(self, layer: Layer, event: Any) -> Iterator[None]:
        """A click takes; a drag moves the camera, and so does every other button."""
        if event.button != 1 or self._place(event) is None:
            return
        start = event.pos
        yield
        while event.type == "mouse_move":
            yield
        if max(abs(float(a) - float(b)) for a, b in zip(event.pos, start, strict=True)) <= _CLICK_PIXELS:
            self._on_move(layer, event)
            self.take_pointed()

    def take_pointed(self) -> bool:
        """Take the candidate that is pointed at; answers whether the chooser is on and there is one."""
        number = self._found.pointed
        if not self._is_on or number is None:
            return False
        self.take(number)
        return True

    def take(self, number: int) -> None:
        """Take a candidate into an organ, or a box as a prompt of the active object; one undo step."""
        box = self._box(number)
        try:
            if box is not None:
                use_box(self._session, box)
                self.leave()
                self._bridge.go_to(box.view)
                return
            if number in self._found.taken:
                self.status.emit("This object was taken already; Ctrl-Z undoes that.")
                return
            self.finish()
            self._make_way()
            try:
                organ = self._found.organ_for(number, self.into)
            except PromptError as error:  # a word in the status line will do: napari's bubbles stay
                self.status.emit(str(error))
                return
            one = self._found.objects[number]
            self._work = taking(self._session, one, organ, model=self.model, joins=self.joins)
            self._work_of = number
            QApplication.instance().installEventFilter(self)
            self._go_on()
        except SamMedError as error:
            self.failed.emit(error)

    def _go_on(self) -> None:
        """Write for a moment; the rest comes after what the user does meanwhile."""
        until = time.monotonic() + _SLICE_OF_TIME
        while self._work is not None and time.monotonic() < until:
            self._step(self._work)
        if self._work is None:
            self._rest()
        elif not self._timer.isActive():
            self._timer.start(0)

    def _rest(self) -> None:
        self._timer.stop()
        QApplication.instance().removeEventFilter(self)

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:  # noqa: N802  Qt's name
        """What the user does next finds it taken as a whole: undo, another organ, an export."""
        if event.type() in _USER_ACTS:
            self.finish()
        return super().eventFilter(watched, event)

    def _step(self, work: Generator[None, None, Taken | None]) -> None:
        try:
            next(work)
        except StopIteration as stop:
            self._work = None
            self._on_taken(stop.value)
        except SamMedError as error:
            self._work = None
            self.failed.emit(error)

    def finish(self) -> None:
        """Write all of the one that is being taken, before anything else."""
        while self._work is not None:
            self._step(self._work)
        self._rest()

    def _on_taken(self, taken: Taken | None) -> None:
        if taken is None:  # undone meanwhile, which was said
            return
        self._found.note_taken(self._work_of, taken.change)
        active = self._session.active_object
        name = "Object" if active is None else f"{active.name[:1].upper()}{active.name[1:]}"
        kept = taken.told(self._session.organs)
        self._read_by = time.monotonic() + _READ_SECONDS
        self.status.emit(f"{name} taken{f'; {kept}' if kept else ''}. Ctrl-Z undoes it; G carries it on.")

    def stop(self) -> None:
        """For the end of the widget."""
        self._session.organ_chosen.disconnect(self._on_organ_chosen, missing_ok=True)
        self._rest()
        if self._work is not None:
            self._work.close()
            self._work = None
        self._is_on = False
        self.layers.detach()
