"""An annotator of scripts: a mouse and keys in a real napari window, and eyes that wait for what comes."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from napari import Viewer
from qtpy.QtCore import QEvent, QEventLoop, QPoint, Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication, QWidget

from napari_sam_med import SliceView
from napari_sam_med.gui.widget import SamMedWidget

__all__ = ["Annotator"]

_NO_KEY = Qt.KeyboardModifier.NoModifier
_CONTROL, _SHIFT = Qt.KeyboardModifier.ControlModifier, Qt.KeyboardModifier.ShiftModifier
_LEFT = Qt.MouseButton.LeftButton
_MOVES = 8
_MOVE_SECONDS = 0.008


class Annotator:
    """One viewer, one widget, one pair of hands; every event comes in a turn of the event loop of its own.

    Parameters
    ----------
    viewer : napari.Viewer
    """

    def __init__(self, viewer: Viewer) -> None:
        self.viewer = viewer
        self.widget = SamMedWidget.at_work_on(viewer)
        self.actions = self.widget.actions_
        self.session, self.bridge = self.actions.session, self.actions.bridge

    # eyes

    def wait(self, condition: Callable[[], object], seconds: float = 120.0) -> None:
        """Handle events until a condition holds."""
        end = time.perf_counter() + seconds
        while not condition():
            if time.perf_counter() > end:
                raise TimeoutError(f"nothing came within {seconds:.0f} s")
            QApplication.processEvents(QEventLoop.ProcessEventsFlag.WaitForMoreEvents)
            # what is to be deleted waits for an event loop around this one, which there is not
            QApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete.value)

    def rest(self, seconds: float = 0.15) -> None:
        """Look at it for a moment."""
        end = time.perf_counter() + seconds
        self.wait(lambda: time.perf_counter() >= end)

    def wait_until_free(self, seconds: float = 300.0) -> None:
        """Until no long job is under way."""
        self.wait(lambda: not self.actions.is_busy, seconds)

    # hands

    def place(self, index_zyx: Sequence[float]) -> QPoint:
        """Where a voxel is drawn."""
        world = self.bridge.frame.world(index_zyx)
        canvas = self.viewer.window._qt_viewer.canvas
        shown = [world[axis - (self.viewer.dims.ndim - 3)] for axis in self.viewer.dims.displayed][::-1]
        x, y = canvas.view.scene.node_transform(canvas.view.canvas.scene).map([*shown, 0, 1])[:2]
        return QPoint(round(float(x)), round(float(y)))

    @property
    def native(self) -> QWidget:
        """The canvas as a widget."""
        return self.viewer.window._qt_viewer.canvas.native

    def point_at(self, index_zyx: Sequence[float]) -> None:
        """Move the mouse."""
        QTest.mouseMove(self.native, self.place(index_zyx))
        self.rest(_MOVE_SECONDS)

    def click(self, index_zyx: Sequence[float], modifier: Qt.KeyboardModifier = _NO_KEY) -> None:
        """Press and release."""
        self.point_at(index_zyx)
        place = self.place(index_zyx)
        QTest.mousePress(self.native, _LEFT, modifier, place)
        self.rest(0.05)
        QTest.mouseRelease(self.native, _LEFT, modifier, place)
        self.rest(0.05)

    def drag(self, start_zyx: Sequence[float], end_zyx: Sequence[float]) -> None:
        """Press, move, release."""
        start, end = self.place(start_zyx), self.place(end_zyx)
        self.point_at(start_zyx)
        QTest.mousePress(self.native, _LEFT, _NO_KEY, start)
        for step in range(1, _MOVES + 1):
            self.rest(_MOVE_SECONDS)
            QTest.mouseMove(self.native, start + (end - start) * step / _MOVES)
        self.rest(_MOVE_SECONDS)
        QTest.mouseRelease(self.native, _LEFT, _NO_KEY, end)
        self.rest(0.05)

    def key(self, key: Qt.Key, modifier: Qt.KeyboardModifier = _NO_KEY, seconds: float = 0.05) -> None:
        """Press a key on the canvas, and look for a moment."""
        QTest.keyClick(self.native, key, modifier)
        self.rest(seconds)

    def undo(self) -> None:
        """Ctrl-Z."""
        self.key(Qt.Key.Key_Z, _CONTROL, 0.15)

    def redo(self) -> None:
        """Ctrl-Shift-Z."""
        self.key(Qt.Key.Key_Z, _CONTROL | _SHIFT, 0.15)

    def look_at(self, view: SliceView) -> None:
        """Go to a slice."""
        self.bridge.go_to(view)
        self.rest()
