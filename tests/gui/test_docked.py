"""Nothing stays of a widget whose dock is closed."""

from __future__ import annotations

import gc
import weakref
from collections import Counter
from collections.abc import Iterator

import pytest
from napari.components import ViewerModel
from pytestqt.qtbot import QtBot
from qtpy.compat import isalive
from qtpy.QtCore import Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication, QDockWidget, QMainWindow

from napari_sam_med.gui import garbage
from napari_sam_med.gui.docked import Docked
from napari_sam_med.gui.experiments import ExperimentsWidget, open_experiments
from napari_sam_med.gui.widget import SamMedWidget
from tests.gui.desk import Desk


def _widgets() -> Counter[str]:
    return Counter(type(widget).__name__ for widget in QApplication.allWidgets())


def _dock_main_widget(viewer: ViewerModel) -> SamMedWidget:
    widget = SamMedWidget(viewer)
    viewer.window.add_dock_widget(widget, name="SAM Med again")
    return widget


def _open_and_close(desk: Desk, kind: type[Docked]) -> weakref.ref[Docked]:
    widget = (open_experiments if kind is ExperimentsWidget else _dock_main_widget)(desk.viewer)
    dock = widget.parentWidget()
    desk.settle()
    # the button with which a user closes it
    QTest.mouseClick(dock.title.close_button, Qt.MouseButton.LeftButton)
    desk.wait(lambda: not isalive(widget) and not isalive(dock))
    desk.settle()
    return weakref.ref(widget)


@pytest.mark.parametrize("kind", [ExperimentsWidget, SamMedWidget])
def test_no_widget_is_left_of_panels_that_were_opened_and_closed(desk: Desk, kind: type[Docked]) -> None:
    if kind is SamMedWidget:  # one at a time
        desk.viewer.window.remove_dock_widget(desk.widget)
    _open_and_close(desk, kind)
    before = _widgets()
    closed = [_open_and_close(desk, kind) for _ in range(3)]
    assert _widgets() == before
    gc.collect()
    assert [widget() for widget in closed[:2]] == [None, None]  # napari or Qt may still know the last one


class Plain(Docked):
    """With nothing in it."""

    n_stops = 0

    def stop(self) -> None:
        self.n_stops += 1


class Broken(Plain):
    def __init__(self) -> None:
        super().__init__()
        raise ValueError("on purpose")


@pytest.fixture
def thresholds(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[int, int, int]]:
    """Those of Python, with no widget there."""
    before = gc.get_threshold()
    monkeypatch.setattr(garbage, "_keepers", [])
    gc.set_threshold(700, 10, 10)
    yield gc.get_threshold()
    gc.set_threshold(*before)


@pytest.fixture
def window(qtbot: QtBot) -> QMainWindow:
    made = QMainWindow()
    qtbot.addWidget(made)
    return made


def _docked(window: QMainWindow) -> tuple[Plain, QDockWidget]:
    widget, dock = Plain(), QDockWidget()
    dock.setWidget(widget)
    window.addDockWidget(Qt.DockWidgetArea.RightDockWidgetArea, dock)
    window.show()
    return widget, dock


def test_python_searches_for_garbage_as_before_once_the_dock_is_closed(
    qtbot: QtBot, thresholds: tuple[int, int, int], window: QMainWindow
) -> None:
    first, dock = _docked(window)
    second, _ = _docked(window)
    assert not second.isVisible()  # not yet
    second.setParent(None)
    qtbot.waitUntil(lambda: not isalive(second))
    assert gc.get_threshold() != thresholds
    first.setParent(None)  # as napari does it
    assert first.n_stops == 1
    qtbot.waitUntil(lambda: not isalive(first))
    assert gc.get_threshold() == thresholds
    assert isalive(dock)


def test_python_searches_for_garbage_as_before_once_the_window_is_closed(
    qtbot: QtBot, thresholds: tuple[int, int, int], window: QMainWindow
) -> None:
    widget, _ = _docked(window)
    assert gc.get_threshold() != thresholds
    window.close()
    assert widget.n_stops == 1
    assert gc.get_threshold() == thresholds


def test_python_searches_for_garbage_as_before_once_the_window_is_deleted(
    qtbot: QtBot, thresholds: tuple[int, int, int]
) -> None:
    window = QMainWindow()
    _docked(window)
    assert gc.get_threshold() != thresholds
    window.deleteLater()
    qtbot.waitUntil(lambda: not isalive(window))
    assert gc.get_threshold() == thresholds


def test_python_searches_for_garbage_as_before_where_a_widget_could_not_be_made(
    qtbot: QtBot, thresholds: tuple[int, int, int]
) -> None:
    with pytest.raises(ValueError, match="on purpose"):
        Broken()
    gc.collect()
    assert gc.get_threshold() == thresholds


def test_a_dock_that_is_hidden_floats_or_moves_keeps_its_widget(qtbot: QtBot, window: QMainWindow) -> None:
    widget, dock = _docked(window)
    for change in (
        dock.hide,
        dock.show,
        lambda: dock.setFloating(True),
        lambda: dock.setFloating(False),
        lambda: window.addDockWidget(Qt.DockWidgetArea.LeftDockWidgetArea, dock),
        window.hide,
        window.show,
    ):
        change()
        QApplication.processEvents()
    qtbot.wait(50)  # nothing is to come of it
    assert isalive(widget)
    assert widget.n_stops == 0


def test_a_widget_whose_end_fails_is_deleted_all_the_same(
    qtbot: QtBot, thresholds: tuple[int, int, int], window: QMainWindow, monkeypatch: pytest.MonkeyPatch
) -> None:
    widget, _ = _docked(window)

    def fail() -> None:
        raise ValueError("on purpose")

    monkeypatch.setattr(widget, "stop", fail)
    with qtbot.captureExceptions() as failed:
        widget.setParent(None)
        qtbot.waitUntil(lambda: not isalive(widget))
    assert [str(error) for _, error, _ in failed] == ["on purpose"]
    assert gc.get_threshold() == thresholds
