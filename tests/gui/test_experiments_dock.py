"""Where the Experiments panel lies in the window, and what it leaves of it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest
from qtpy.compat import isalive
from qtpy.QtCore import Qt
from qtpy.QtTest import QTest

from napari_sam_med.gui.experiments import DOCK_NAME, opening_experiments
from napari_sam_med.gui.workers import Job
from tests.gui.desk import LEFT, Desk, choose_in_menu
from tests.gui.fake_model import FakePredictor


@pytest.fixture
def desk(make_desk: Callable[[], Desk], predictor: FakePredictor) -> Desk:
    """The SAM Med widget in a window that is wide enough for the panel."""
    made = make_desk()
    made.viewer.window.resize(1350, 750)
    made.settle()
    return made


def open_by(desk: Desk, way: str) -> None:
    if way == "menu":
        choose_in_menu(desk.viewer, "SAM Med", "Experiments")
    else:
        desk.widget._scroll.ensureWidgetVisible(desk.widget.experiments)
        desk.settle()
        QTest.mouseClick(desk.widget.experiments, LEFT)


@pytest.mark.parametrize("way", ["button", "menu"])
def test_it_is_a_tab_beside_the_widget_and_gives_its_width_back(desk: Desk, way: str) -> None:
    window, docks = desk.viewer.window._qt_window, desk.viewer.window.dock_widgets
    main = desk.widget.parentWidget()
    before = main.width()
    for end in ("hide_button", "close_button"):
        open_by(desk, way)
        desk.wait(lambda: DOCK_NAME in docks and docks[DOCK_NAME].isVisible())
        dock = docks[DOCK_NAME].parentWidget()
        desk.wait(lambda dock=dock: window.tabifiedDockWidgets(main) == [dock])
        desk.wait(lambda dock=dock: dock.width() > before)
        QTest.mouseClick(getattr(dock.title, end), LEFT)
        desk.wait(lambda: main.isVisible() and main.width() == before)
    assert DOCK_NAME not in docks


def test_the_width_that_the_user_gave_to_the_widget_meanwhile_is_not_made_wider(desk: Desk) -> None:
    window, main = desk.viewer.window._qt_window, desk.widget.parentWidget()
    window.resizeDocks([main], [460], Qt.Orientation.Horizontal)
    desk.wait(lambda: main.width() == 460)
    open_by(desk, "button")
    dock = desk.viewer.window.dock_widgets
    desk.wait(lambda: DOCK_NAME in dock and dock[DOCK_NAME].isVisible())
    desk.settle()
    window.resizeDocks([dock[DOCK_NAME].parentWidget()], [400], Qt.Orientation.Horizontal)
    desk.wait(lambda: dock[DOCK_NAME].parentWidget().width() == 400)
    QTest.mouseClick(dock[DOCK_NAME].parentWidget().title.close_button, LEFT)
    desk.wait(lambda: DOCK_NAME not in dock and main.isVisible())
    desk.settle()
    assert main.width() == 400


def test_button_and_menu_open_the_same_panel(desk: Desk) -> None:
    open_by(desk, "button")
    docks = desk.viewer.window.dock_widgets
    desk.wait(lambda: DOCK_NAME in docks and docks[DOCK_NAME].isVisible())
    panel = docks[DOCK_NAME]
    open_by(desk, "menu")  # hides it
    desk.wait(lambda: not panel.isVisible())
    open_by(desk, "menu")
    desk.wait(panel.isVisible)
    assert [name for name in docks if name.startswith("Experiments")] == [DOCK_NAME]
    panel.stop()


def test_closing_it_does_not_wait_for_a_model_that_is_being_asked(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited_for: list[str] = []
    monkeypatch.setattr(Job, "join", lambda self, timeout: waited_for.append(self.name))
    docks, gate, asked = desk.viewer.window.dock_widgets, threading.Event(), threading.Event()
    open_by(desk, "button")
    desk.wait(lambda: DOCK_NAME in docks and docks[DOCK_NAME].tabs.isVisible())
    panel = docks[DOCK_NAME]

    def job() -> Iterator[None]:
        asked.set()
        gate.wait(60)
        yield

    running = panel.control.workers.start(job(), "asked")
    assert asked.wait(10)
    QTest.mouseClick(panel.parentWidget().title.close_button, LEFT)
    desk.wait(lambda: not isalive(panel))
    assert running.was_discarded
    assert waited_for == []
    gate.set()
    desk.wait(lambda: not running.is_running)


def test_closing_it_before_it_is_all_there_is_no_error(desk: Desk) -> None:
    docks = desk.viewer.window.dock_widgets
    steps = opening_experiments(desk.viewer)
    while DOCK_NAME not in docks:
        next(steps)
    QTest.mouseClick(docks[DOCK_NAME].parentWidget().title.close_button, LEFT)
    desk.wait(lambda: DOCK_NAME not in docks)
    desk.settle()  # Qt deletes it
    for _ in steps:
        desk.settle()
    assert DOCK_NAME not in docks
