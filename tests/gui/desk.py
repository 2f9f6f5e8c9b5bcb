"""Hands and eyes for GUI tests: real clicks and keys on the canvas, and waiting for what comes of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import pairwise

import numpy as np
from napari import Viewer
from pytestqt.qtbot import QtBot
from qtpy.compat import isalive
from qtpy.QtCore import QPoint, Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication, QMenu

from napari_sam_med.gui.widget import SamMedWidget
from napari_sam_med.volume.slice_view import SliceView
from napari_sam_med.volume.volume import Volume

NO_KEY = Qt.KeyboardModifier.NoModifier
LEFT = Qt.MouseButton.LeftButton


def choose_in_menu(viewer: Viewer, *titles: str) -> None:
    """Click on an entry of napari's menu Plugins."""
    menu: QMenu = viewer.window.plugins_menu
    menu.aboutToShow.emit()
    for title in titles:
        [action] = [one for one in menu.actions() if one.text() == title]
        if action.menu() is not None:
            menu = action.menu()
            menu.aboutToShow.emit()
    menu.popup(viewer.window._qt_window.pos())
    QTest.mouseClick(menu, LEFT, pos=menu.actionGeometry(action).center())


@contextmanager
def undrawn(viewer: Viewer) -> Iterator[None]:
    """Draw nothing of the window of a viewer meanwhile."""
    window = viewer.window._qt_window
    draws = window.updatesEnabled()
    window.setUpdatesEnabled(False)
    try:
        yield
    finally:
        if isalive(window):
            window.setUpdatesEnabled(draws)


class Desk:
    """One annotator in front of one viewer."""

    def __init__(self, viewer: Viewer, qtbot: QtBot) -> None:
        self.viewer = viewer
        self.qtbot = qtbot
        self.said: list[str] = []
        self.widget = SamMedWidget(viewer)
        viewer.window.add_dock_widget(self.widget, name="SAM Med")
        self.actions = self.widget.actions_
        self.session = self.actions.session
        self.bridge = self.actions.bridge
        self.actions.status.connect(self.said.append)

    # eyes

    def wait(self, condition: Callable[[], object], timeout: int = 10_000) -> None:
        self.qtbot.waitUntil(lambda: bool(condition()), timeout=timeout)

    def wait_for_proposal(self) -> np.ndarray:
        self.wait(lambda: self.session.preview is not None)
        return self.session.preview.mask

    def wait_until_carried(self, *, draws: bool = False) -> None:
        with nullcontext() if draws else self.nothing_drawn():
            self.wait(lambda: not self.actions.is_busy, timeout=120_000)
        self.settle()

    def settle(self) -> None:
        """Let queued events and single-shot timers run."""
        for _ in range(5):
            QApplication.processEvents()
            QTest.qWait(10)

    @property
    def labels(self) -> np.ndarray:
        return self.session.labels.data

    def slice_labels(self, view: SliceView) -> np.ndarray:
        return view.extract(self.labels)

    # hands

    def open(self, volume: Volume, **options) -> None:
        with self.nothing_drawn():
            layer = self.viewer.add_image(
                volume.data,
                metadata={"sam_med": volume},
                contrast_limits=(-160, 240),
                **volume.display_transform,
            )
            self.wait(lambda: self.session.volume is not None and self.bridge.image_layer is layer)
            self.wait(lambda: self.actions.model.model is not None)
            self.viewer.reset_view()
        self.settle()

    def nothing_drawn(self) -> AbstractContextManager[None]:
        """Of the many frames on the way to what a test is about."""
        return undrawn(self.viewer)

    def canvas_xy(self, index_zyx: Sequence[float]) -> QPoint:
        world = self.bridge.frame.world(index_zyx)
        canvas = self.viewer.window._qt_viewer.canvas
        shown = [world[axis - (self.viewer.dims.ndim - 3)] for axis in self.viewer.dims.displayed][::-1]
        x, y = canvas.view.scene.node_transform(canvas.view.canvas.scene).map([*shown, 0, 1])[:2]
        return QPoint(round(float(x)), round(float(y)))

    @property
    def native(self):
        return self.viewer.window._qt_viewer.canvas.native

    def click(self, index_zyx: Sequence[float], modifier=NO_KEY) -> None:
        place = self.canvas_xy(index_zyx)
        QTest.mouseMove(self.native, place)
        QTest.mouseClick(self.native, LEFT, modifier, place)
        self.settle()

    def drag(self, start_zyx: Sequence[float], end_zyx: Sequence[float], modifier=NO_KEY) -> None:
        start, end = self.canvas_xy(start_zyx), self.canvas_xy(end_zyx)
        QTest.mouseMove(self.native, start)
        QTest.mousePress(self.native, LEFT, modifier, start)
        for step in range(1, 9):
            place = start + (end - start) * step / 8
            QTest.mouseMove(self.native, place)
            QTest.qWait(5)
        QTest.mouseRelease(self.native, LEFT, modifier, end)
        self.settle()

    def trace(self, way_zyx: Sequence[Sequence[float]], modifier=NO_KEY) -> None:
        """Press, move along a way of many places, release."""
        way = [self.canvas_xy(place) for place in way_zyx]
        QTest.mouseMove(self.native, way[0])
        QTest.mousePress(self.native, LEFT, modifier, way[0])
        for start, end in pairwise(way):
            for step in range(1, 4):
                QTest.mouseMove(self.native, start + (end - start) * step / 3)
                QTest.qWait(2)
        QTest.mouseRelease(self.native, LEFT, modifier, way[-1])
        self.settle()

    def key(self, key: Qt.Key, modifier=NO_KEY) -> None:
        QTest.keyClick(self.native, key, modifier)
        self.settle()

    def undo(self) -> None:
        self.key(Qt.Key.Key_Z, Qt.KeyboardModifier.ControlModifier)

    def redo(self) -> None:
        self.key(Qt.Key.Key_Z, Qt.KeyboardModifier.ControlModifier | Qt.KeyboardModifier.ShiftModifier)

    def look_at(self, view: SliceView) -> None:
        self.bridge.go_to(view)
        self.settle()
