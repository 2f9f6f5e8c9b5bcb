"""Freed memory goes back to the system when work is at rest."""

from __future__ import annotations

import threading

import pytest
from pytestqt.qtbot import QtBot
from qtpy.QtCore import QObject

from napari_sam_med.gui import housekeeping
from napari_sam_med.gui.housekeeping import Housekeeping
from tests.gui.desk import Desk


@pytest.fixture
def given_back_on(monkeypatch: pytest.MonkeyPatch) -> list[threading.Thread]:
    """The threads on which memory was given back, without a rest before."""
    threads: list[threading.Thread] = []
    monkeypatch.setattr(
        housekeeping, "give_back_freed_memory", lambda: threads.append(threading.current_thread())
    )
    monkeypatch.setattr(housekeeping, "_REST_MS", 0)
    return threads


def test_it_goes_back_once_and_not_on_the_main_thread(
    qtbot: QtBot, given_back_on: list[threading.Thread]
) -> None:
    parent = QObject()
    kept = Housekeeping(parent)
    kept.soon()
    kept.soon()
    assert not given_back_on
    qtbot.waitUntil(lambda: bool(given_back_on))
    qtbot.wait(50)
    assert len(given_back_on) == 1
    assert given_back_on[0] is not threading.main_thread()


def test_it_goes_back_after_a_layer_has_gone_and_not_when_the_widget_is_closed(
    given_back_on: list[threading.Thread], desk: Desk
) -> None:
    desk.settle()
    given_back_on.clear()
    desk.viewer.layers.remove(desk.bridge.image_layer)
    desk.wait(lambda: bool(given_back_on))
    desk.settle()
    given_back_on.clear()
    desk.viewer.add_points(name="last")
    desk.viewer.window.remove_dock_widget(desk.widget)
    desk.settle()
    assert not given_back_on
