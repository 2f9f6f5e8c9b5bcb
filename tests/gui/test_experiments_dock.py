"""Where the Experiments panel lies in the window, and what it leaves of it."""

from __future__ import annotations

import gc
import threading
from collections import Counter
from collections.abc import Callable, Iterator

import pytest
from qtpy.compat import isalive
from qtpy.QtCore import Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication, QDockWidget, QTabBar, QWidget

from napari_sam_med.gui.experiments import (
    DOCK_NAME,
    ExperimentsWidget,
    open_experiments,
    opening_experiments,
)
from napari_sam_med.gui.workers import Job
from tests.gui.desk import LEFT, Desk, choose_in_menu
from tests.gui.fake_model import FakePredictor


@pytest.fixture
def desk(make_desk: Callable[[], Desk], predictor: FakePredictor) -> Iterator[Desk]:
    """The SAM Med widget in a window that is wide enough for the panel, and as wide for others afterwards."""
    made = make_desk()
    made.viewer.window.resize(1350, 750)
    made.settle()
    main = made.widget.parentWidget()
    width = main.width()
    yield made
    if isalive(main) and main.window().isVisible():
        for panel in panels():
            if isinstance(panel.parentWidget(), QDockWidget):
                made.viewer.window.remove_dock_widget(panel)
        made.wait(lambda: not panels() and main.isVisible())
        made.viewer.window._qt_window.resizeDocks([main], [width], Qt.Orientation.Horizontal)
        made.wait(lambda: main.width() == width)


def panels() -> list[ExperimentsWidget]:
    return [widget for widget in QApplication.allWidgets() if isinstance(widget, ExperimentsWidget)]


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


N_PAGES = 5
N_STEPS = 10
"""More than an opening has from the moment that the panel is docked."""


def taken(steps: Iterator[None], number: int) -> None:
    """Take steps; those that there are not are left out."""
    for _ in range(number):
        next(steps, None)


def docked_empty(desk: Desk) -> tuple[ExperimentsWidget, Iterator[None]]:
    """The panel that was docked just now, and the steps that fill it."""
    steps, docks = opening_experiments(desk.viewer), desk.viewer.window.dock_widgets
    while DOCK_NAME not in docks:
        next(steps)
    desk.settle()
    return docks[DOCK_NAME], steps


def is_seen(widget: QWidget) -> bool:
    """Of docks that lie on one another, Qt calls all visible."""
    return not widget.visibleRegion().isEmpty()


def widgets() -> Counter[str]:
    return Counter(type(widget).__name__ for widget in QApplication.allWidgets())


def titles(panel: ExperimentsWidget) -> list[str]:
    return [panel.tabs.tabText(number) for number in range(panel.tabs.count())]


def test_nothing_of_it_is_seen_before_it_is_all_there(desk: Desk) -> None:
    panel, steps = docked_empty(desk)
    assert panel.isVisible()
    turns = 0
    while not panel.body.isVisible():
        assert not [part for part in (panel.tabs, panel.run, panel.status) if part.isVisible()]
        taken(steps, 1)
        desk.settle()
        turns += 1
    assert turns > 3
    assert titles(panel) == ["Set up", "Means", "Answers", "Plots", "Study"]
    assert panel.tabs.currentIndex() == 0
    assert not panel.tabs.isTabVisible(panel.tabs.indexOf(panel.study))
    assert panel.tabs.tabToolTip(panel.tabs.indexOf(panel.study)).startswith("What was published")


def test_it_has_its_width_before_it_is_filled(desk: Desk) -> None:
    before = desk.widget.parentWidget().width()
    panel, steps = docked_empty(desk)
    taken(steps, 1)
    desk.wait(lambda: panel.parentWidget().width() > before)
    width = panel.parentWidget().width()
    assert not panel.body.isVisible()
    taken(steps, N_STEPS)
    desk.settle()
    assert panel.body.isVisible()
    assert panel.parentWidget().width() == width


def test_the_canvas_is_not_black_in_a_new_size(desk: Desk) -> None:
    """It waits with drawing in other steps."""
    canvas, docks = desk.widget.actions_.bridge.canvas().native, desk.viewer.window.dock_widgets
    width, drawn = canvas.width(), {canvas.width(): True}
    canvas.aboutToCompose.connect(lambda: drawn.setdefault(canvas.width(), canvas.updatesEnabled()))
    open_by(desk, "button")
    desk.wait(lambda: DOCK_NAME in docks and docks[DOCK_NAME].body.isVisible())
    assert canvas.width() < width
    assert len(drawn) > 1
    assert all(drawn.values())
    drawn.clear()
    drawn[canvas.width()] = True
    QTest.mouseClick(docks[DOCK_NAME].parentWidget().title.close_button, LEFT)
    desk.wait(lambda: width in drawn)
    assert all(drawn.values())


def test_a_script_has_it_whole_while_it_is_still_being_filled(desk: Desk) -> None:
    panel, steps = docked_empty(desk)
    assert open_experiments(desk.viewer) is panel
    assert len(titles(panel)) == N_PAGES
    assert panel.body.isVisible()
    taken(steps, N_STEPS)
    assert len(titles(panel)) == N_PAGES
    assert panel.body.isVisible()


@pytest.mark.parametrize("way", ["script", "menu"])
def test_all_at_once_it_is_whole_and_wide_too(desk: Desk, way: str) -> None:
    before = desk.widget.parentWidget().width()
    if way == "script":
        open_experiments(desk.viewer)
    else:
        desk.viewer.window.add_plugin_dock_widget("napari-sam-med", "Experiments")
    (panel,) = panels()
    assert len(titles(panel)) == N_PAGES
    desk.wait(panel.tabs.isVisible)
    desk.wait(lambda: panel.parentWidget().width() > before)


def test_who_turns_back_to_the_widget_while_it_opens_stays_there(desk: Desk) -> None:
    panel, steps = docked_empty(desk)
    main = desk.widget.parentWidget()
    bars = desk.viewer.window._qt_window.findChildren(QTabBar)
    bar = next(bar for bar in bars if bar.isVisible() and bar.count() == 2)
    place = next(number for number in range(2) if bar.tabText(number) == main.windowTitle())
    QTest.mouseClick(bar, LEFT, pos=bar.tabRect(place).center())
    desk.wait(lambda: is_seen(main))
    taken(steps, N_STEPS)
    desk.settle()
    assert is_seen(main)
    assert not is_seen(panel)
    QTest.mouseClick(bar, LEFT, pos=bar.tabRect(1 - place).center())
    desk.wait(lambda: is_seen(panel.run))
    assert len(titles(panel)) == N_PAGES


def test_closing_it_before_it_is_all_there_is_no_error(desk: Desk) -> None:
    docks = desk.viewer.window.dock_widgets
    docked_empty(desk)[1].close()  # the first has parts of Qt and napari made that stay
    QTest.mouseClick(docks[DOCK_NAME].parentWidget().title.close_button, LEFT)
    desk.wait(lambda: not panels())
    before = widgets()
    for number in range(N_STEPS):
        panel, steps = docked_empty(desk)
        taken(steps, number)
        QTest.mouseClick(panel.parentWidget().title.close_button, LEFT)
        desk.wait(lambda: DOCK_NAME not in docks)
        if number % 2:
            desk.wait(lambda: not panels())  # Qt deletes it
        for _ in steps:
            desk.settle()
        assert DOCK_NAME not in docks
        desk.wait(lambda: not panels())
        desk.wait(lambda: widgets() == before)


def test_nothing_is_left_of_one_whose_opening_ends_before_it_is_docked(desk: Desk) -> None:
    docks = desk.viewer.window.dock_widgets
    before = widgets()
    n_jobs = threading.active_count()
    for number in range(1, N_STEPS):
        steps = opening_experiments(desk.viewer)
        taken(steps, number)
        if DOCK_NAME in docks:
            break
        assert len(panels()) == 1
        steps.close()
        desk.wait(lambda: not panels())
        gc.collect()
        desk.wait(lambda: widgets() == before)
    else:
        raise AssertionError("it was never docked")
    assert number > 3
    desk.wait(lambda: threading.active_count() <= n_jobs)


def test_the_menu_may_open_it_while_the_button_does(desk: Desk) -> None:
    steps, docks = opening_experiments(desk.viewer), desk.viewer.window.dock_widgets
    next(steps)
    open_by(desk, "menu")
    desk.wait(lambda: DOCK_NAME in docks)
    panel = docks[DOCK_NAME]
    taken(steps, N_STEPS)
    desk.wait(lambda: panels() == [panel])
    assert docks[DOCK_NAME] is panel
    assert panel.isVisible()


@pytest.mark.parametrize("is_docked", [False, True])
def test_napari_is_closed_while_it_is_being_made(desk: Desk, is_docked: bool) -> None:
    docks = desk.viewer.window.dock_widgets
    open_by(desk, "button")
    desk.wait(lambda: DOCK_NAME in docks if is_docked else panels())
    panel = panels()[0]
    assert (DOCK_NAME in docks) == is_docked
    control = panel.control
    desk.viewer.window._qt_window.close()
    assert control._is_stopped
    desk.settle()
    if not is_docked:
        desk.wait(lambda: not isalive(panel))


def test_all_docks_are_closed_at_once(desk: Desk) -> None:
    docks = desk.viewer.window.dock_widgets
    open_by(desk, "button")
    desk.wait(lambda: DOCK_NAME in docks and docks[DOCK_NAME].body.isVisible())
    panel = docks[DOCK_NAME]
    desk.viewer.window.remove_dock_widget("all")
    desk.wait(lambda: not isalive(panel))
    desk.settle()
    assert not docks
