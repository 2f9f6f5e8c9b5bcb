"""Steps of the main thread, one in a turn of the event loop."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace

import pytest
from pytestqt.qtbot import QtBot
from qtpy.QtCore import Qt, QTimer
from qtpy.QtGui import QPainter, QPaintEvent
from qtpy.QtWidgets import QWidget

from napari_sam_med.gui.turns import Turns


@pytest.fixture
def canvas(qtbot: QtBot) -> QWidget:
    """What is drawn on."""
    made = QWidget()
    qtbot.addWidget(made)
    return made


@pytest.fixture
def turns(canvas: QWidget) -> Turns:
    return Turns(lambda: SimpleNamespace(native=canvas), canvas)


def test_others_come_in_between_and_what_a_step_changed_is_drawn_after_it(
    turns: Turns, canvas: QWidget, qtbot: QtBot
) -> None:
    done: list[str] = []

    def steps(name: str) -> Iterator[None]:
        for number in (1, 2):
            assert not canvas.updatesEnabled()
            done.append(f"{name} {number}")
            QTimer.singleShot(0, lambda: done.append("other"))
            yield

    turns.add(steps("a"))
    turns.add(steps("b"))
    assert not done
    qtbot.waitUntil(lambda: done.count("other") == 4)
    assert done == ["a 1", "other", "a 2", "other", "b 1", "other", "b 2", "other"]
    qtbot.waitUntil(canvas.updatesEnabled)


class Red(QWidget):
    """A picture."""

    def paintEvent(self, event: QPaintEvent) -> None:  # noqa: N802  Qt's name
        QPainter(self).fillRect(self.rect(), Qt.GlobalColor.red)


def test_the_last_picture_stays_on_a_canvas_that_waits(qtbot: QtBot) -> None:
    window = QWidget()
    qtbot.addWidget(window)
    window.resize(60, 60)
    picture = Red(window)
    picture.resize(40, 40)
    turns = Turns(lambda: SimpleNamespace(native=picture), window)
    with qtbot.waitExposed(window):
        window.show()

    def is_red() -> bool:
        return window.screen().grabWindow(window.winId()).toImage().pixelColor(20, 20) == Qt.GlobalColor.red

    qtbot.waitUntil(is_red)
    turns.draw_later()
    assert not picture.updatesEnabled()
    window.repaint()  # as Qt does where a slider has come beside it
    assert is_red()
    qtbot.waitUntil(picture.updatesEnabled)


def test_steps_that_fail_end_and_the_next_go_on(turns: Turns, canvas: QWidget, qtbot: QtBot) -> None:
    done: list[str] = []

    def fail() -> Iterator[None]:
        yield
        raise ValueError("no")

    with qtbot.captureExceptions() as errors:
        turns.add(fail())
        turns.add(done.append("c") for _ in range(2))
        qtbot.waitUntil(lambda: done.count("c") == 2)
    assert [kind for kind, *_ in errors] == [ValueError]
    qtbot.waitUntil(canvas.updatesEnabled)


def test_what_is_cleared_is_not_done_and_the_canvas_is_free(
    turns: Turns, canvas: QWidget, qtbot: QtBot
) -> None:
    done: list[int] = []

    def steps() -> Iterator[None]:
        done.append(1)
        turns.clear()
        yield
        done.append(2)

    turns.add(steps())
    qtbot.waitUntil(lambda: bool(done))
    qtbot.wait(50)
    assert done == [1]
    assert canvas.updatesEnabled()
    turns.draw_later()
    assert not canvas.updatesEnabled()
    qtbot.waitUntil(canvas.updatesEnabled)


def test_while_a_step_asks_something_the_canvas_is_drawn_and_others_wait(
    turns: Turns, canvas: QWidget, qtbot: QtBot
) -> None:
    done: list[str] = []

    def asks() -> Iterator[None]:
        turns.add(done.append("other") for _ in range(1))
        qtbot.waitUntil(canvas.updatesEnabled)  # an event loop in this one, as a modal question has
        qtbot.wait(50)
        done.append("answered")
        yield
        done.append("went on")

    turns.add(asks())
    qtbot.waitUntil(lambda: len(done) == 3)
    assert done == ["answered", "went on", "other"]
    qtbot.waitUntil(canvas.updatesEnabled)


def test_nothing_is_begun_after_the_end_nor_kept(turns: Turns, canvas: QWidget, qtbot: QtBot) -> None:
    done, closed = [], []

    def steps() -> Iterator[None]:
        try:
            done.append(1)
            yield
        finally:
            closed.append(1)

    waiting = steps()
    next(waiting)
    turns.end()
    turns.add(waiting)
    turns.add(steps())
    del waiting
    assert closed == [1], "nobody holds what was given"
    qtbot.wait(50)
    assert done == [1]
    assert canvas.updatesEnabled()
