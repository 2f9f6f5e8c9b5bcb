"""Our warnings over the canvas: one at a time, so that they neither pile up nor hide the scan."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from napari._qt.dialogs.qt_notification import NapariQtNotification
from qtpy.QtTest import QTest

from tests.gui.desk import LEFT, Desk


@pytest.fixture(autouse=True)
def bubbles(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[NapariQtNotification]]:
    """napari's list of what it shows, without what other tests left in it."""
    shown: list[NapariQtNotification] = []
    monkeypatch.setattr(NapariQtNotification, "_instances", shown)
    yield shown
    while shown:
        shown[-1].close()


def texts(desk: Desk) -> list[str]:
    """Of the notifications that stand over the canvas."""
    desk.settle()
    canvas = desk.viewer.window._qt_viewer.canvas.native
    bubbles = canvas.findChildren(NapariQtNotification)
    return [bubble.message.text() for bubble in bubbles if bubble.isVisible()]


def test_the_newest_warning_takes_the_place_of_the_one_before(desk: Desk) -> None:
    desk.actions.tell("ct_2 is damaged; it was left out.")
    assert texts(desk) == ["ct_2 is damaged; it was left out."]
    for number in range(5):
        desk.actions.tell(f"ct_{number} is damaged; it was left out.")
    (text,) = texts(desk)
    lines = text.splitlines()
    assert lines[0] == "ct_4 is damaged; it was left out."
    assert sorted(lines) == [f"ct_{number} is damaged; it was left out." for number in range(5)]


def test_what_was_read_is_not_said_again(desk: Desk) -> None:
    desk.actions.tell("ct_2 is damaged; it was left out.")
    desk.widget.status._on_read()
    desk.actions.tell("ct_3 is damaged; it was left out.")
    assert texts(desk) == ["ct_3 is damaged; it was left out."]


def test_a_warning_after_the_user_closed_the_last_is_seen(
    desk: Desk, bubbles: list[NapariQtNotification]
) -> None:
    desk.actions.tell("ct_2 is damaged; it was left out.")
    (bubble,) = bubbles
    QTest.mouseClick(bubble.close_button, LEFT)
    assert texts(desk) == []
    desk.widget.status._on_read()
    desk.actions.tell("ct_3 is damaged; it was left out.")
    assert texts(desk) == ["ct_3 is damaged; it was left out."]


def test_a_warning_that_comes_as_the_last_fades_is_seen(
    desk: Desk, bubbles: list[NapariQtNotification]
) -> None:
    desk.actions.tell("ct_2 is damaged; it was left out.")
    (bubble,) = bubbles
    bubble.close_with_fade()
    desk.widget.status._on_read()
    desk.actions.tell("ct_3 is damaged; it was left out.")
    desk.wait(lambda: bubble not in bubbles)
    assert texts(desk) == ["ct_3 is damaged; it was left out."]


def test_a_new_text_does_not_take_the_focus_away(desk: Desk) -> None:
    desk.actions.tell("ct_2 is damaged; it was left out.")
    desk.widget.model_panel.setFocus()
    focused = desk.widget.window().focusWidget()
    desk.actions.tell("ct_3 is damaged; it was left out.")
    assert desk.widget.window().focusWidget() is focused
