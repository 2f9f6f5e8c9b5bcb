"""Which thread frees what lies in a circle of references."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from pytestqt.qtbot import QtBot
from qtpy.QtCore import QObject
from qtpy.QtWidgets import QStyleOptionSlider

from napari_sam_med.gui import garbage
from napari_sam_med.gui.garbage import keep_garbage_on_main_thread

_NEW_OBJECTS = 10_000
"""Python looks for garbage after 700 to 2000."""


@pytest.fixture
def thresholds(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[int, int, int]]:
    """Those of Python, with no widget there; they are the same afterwards."""
    assert gc.isenabled()
    monkeypatch.setattr(garbage, "_keepers", [])
    before = gc.get_threshold()
    gc.set_threshold(700, 10, 10)
    yield gc.get_threshold()
    gc.enable()
    gc.set_threshold(*before)


@contextmanager
def _searches() -> Iterator[list[int]]:
    """Generations through which was searched meanwhile."""
    searched: list[int] = []

    def note(phase: str, info: dict[str, int]) -> None:
        if phase == "start":
            searched.append(info["generation"])

    gc.callbacks.append(note)
    try:
        yield searched
    finally:
        gc.callbacks.remove(note)


def _make_objects_on_a_thread() -> list[list[None]]:
    made: list[list[None]] = []
    thread = threading.Thread(target=lambda: made.extend([] for _ in range(_NEW_OBJECTS)))
    thread.start()
    thread.join()
    return made


def _circle(freed_on: list[threading.Thread]) -> weakref.finalize:
    made = QObject()
    made.itself = made
    return weakref.finalize(made, lambda: freed_on.append(threading.current_thread()))


@pytest.mark.parametrize("is_kept", [True, False])
def test_circles_with_objects_of_qt_are_freed_on_the_main_thread(
    qtbot: QtBot, thresholds: tuple[int, int, int], is_kept: bool
) -> None:
    end = keep_garbage_on_main_thread() if is_kept else lambda: None
    try:
        freed_on: list[threading.Thread] = []
        _circle(freed_on)
        made = _make_objects_on_a_thread()
        assert len(made) == _NEW_OBJECTS
        if is_kept:
            assert not freed_on
            qtbot.waitUntil(lambda: bool(freed_on))
        # without, the thread that made other objects frees it: the test would see it
        assert (freed_on[0] is threading.main_thread()) == is_kept
    finally:
        end()


def test_a_style_option_that_was_looked_at_is_such_a_circle(thresholds: tuple[int, int, int]) -> None:
    """What the module is for; when PyQt makes none any more, it may go."""
    gc.collect()
    option = QStyleOptionSlider()
    assert option.palette is not None
    del option
    assert gc.collect() > 0


def test_the_thresholds_come_back_with_the_last_who_asked(
    qtbot: QtBot, thresholds: tuple[int, int, int]
) -> None:
    first, second = keep_garbage_on_main_thread(), keep_garbage_on_main_thread()
    assert gc.get_threshold()[0] > thresholds[0]
    assert gc.isenabled()
    first()
    first()
    assert gc.get_threshold()[0] > thresholds[0]
    second()
    assert gc.get_threshold() == thresholds


def test_what_somebody_else_has_set_stays(qtbot: QtBot, thresholds: tuple[int, int, int]) -> None:
    end = keep_garbage_on_main_thread()
    gc.set_threshold(1234, 5, 6)
    end()
    assert gc.get_threshold() == (1234, 5, 6)


def test_where_the_search_is_switched_off_there_is_none(
    qtbot: QtBot, thresholds: tuple[int, int, int]
) -> None:
    gc.disable()
    end = keep_garbage_on_main_thread()
    with _searches() as searched:
        made = _make_objects_on_a_thread()
        qtbot.wait(200)  # some turns of its timer; nothing is to come of them
        assert len(made) == _NEW_OBJECTS
        assert not searched
    end()


def test_all_is_searched_through_only_after_a_rest(
    qtbot: QtBot, thresholds: tuple[int, int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    gc.set_threshold(1, 1, 1)  # a search is due with every beat, through all with every seventh
    end = keep_garbage_on_main_thread()
    with _searches() as searched:
        qtbot.waitUntil(lambda: searched.count(1) >= 4)
        assert 2 not in searched
        monkeypatch.setattr(garbage, "_REST", 0)
        monkeypatch.setattr(garbage, "_MIN_REST_SECONDS", 0)
        qtbot.waitUntil(lambda: 2 in searched)
    end()
