"""Our warnings over the canvas: one at a time and for a while, so that they do not hide the scan."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from napari._qt.dialogs.qt_notification import NapariQtNotification
from napari.utils.notifications import notification_manager, show_info
from qtpy.QtTest import QTest

from tests.gui.desk import LEFT, Desk, choose_in_menu
from tests.gui.test_carrying import accept_a_box

ONE, TWO = "ct_2 is damaged; it was left out.", "ct_3 is damaged; it was left out."


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
    return [
        bubble.message.text() for bubble in canvas.findChildren(NapariQtNotification) if bubble.isVisible()
    ]


def soon(desk: Desk) -> None:
    """Let its time be over in the next turn."""
    desk.widget.status._notification._timer.start(1)


def test_the_newest_warning_takes_the_place_of_the_one_before(desk: Desk) -> None:
    desk.actions.tell(ONE)
    assert texts(desk) == [ONE]
    noted = len(notification_manager.records)
    for number in range(5):
        desk.actions.tell(f"ct_{number} is damaged; it was left out.")
    (text,) = texts(desk)
    lines = text.splitlines()
    assert lines[0] == "ct_4 is damaged; it was left out."
    assert sorted(lines) == [f"ct_{number} is damaged; it was left out." for number in range(5)]
    assert len(notification_manager.records) == noted + 5, "napari has each of them"


def test_a_line_that_does_not_hold_any_more_goes(desk: Desk) -> None:
    desk.actions.tell(ONE)
    desk.actions.tell(TWO)
    assert texts(desk) == [f"{TWO}\n{ONE}"]
    desk.widget.status.withdraw(TWO)
    assert texts(desk) == [ONE]
    desk.widget.status.withdraw(ONE)
    assert texts(desk) == []


def test_what_the_user_took_away_does_not_come_back_with_a_line_less(
    desk: Desk, bubbles: list[NapariQtNotification]
) -> None:
    desk.actions.tell(ONE)
    desk.actions.tell(TWO)
    bubbles[-1].close()
    desk.wait(lambda: texts(desk) == [])
    desk.widget.status.withdraw(TWO)
    assert texts(desk) == []
    assert ONE in desk.widget.status.text.text()


def test_it_goes_with_the_widget(desk: Desk) -> None:
    desk.actions.tell(ONE)
    assert texts(desk) == [ONE]
    desk.widget.stop()
    assert texts(desk) == []
    desk.actions.tell(TWO)
    assert texts(desk) == []


@pytest.mark.parametrize("comes_back", [True, False])
def test_what_reminds_of_a_closed_widget_goes_when_it_comes_back_or_ends(
    desk: Desk, comes_back: bool
) -> None:
    accept_a_box(desk)
    desk.actions.tell(ONE)
    QTest.mouseClick(desk.widget.parentWidget().title.close_button, LEFT)
    assert texts(desk) == ["Not exported yet: open SAM Med again."]
    if comes_back:
        choose_in_menu(desk.viewer, "SAM Med", "SAM Med")
    else:
        desk.widget.stop()
    assert texts(desk) == []


def test_what_was_read_is_not_said_again(desk: Desk) -> None:
    desk.actions.tell(ONE)
    desk.widget.status._on_read()
    desk.actions.tell(TWO)
    assert texts(desk) == [TWO]


def test_a_warning_after_the_user_closed_the_last_is_seen(
    desk: Desk, bubbles: list[NapariQtNotification]
) -> None:
    desk.actions.tell(ONE)
    (bubble,) = bubbles
    QTest.mouseClick(bubble.close_button, LEFT)
    assert texts(desk) == []
    desk.widget.status._on_read()
    desk.actions.tell(TWO)
    assert texts(desk) == [TWO]


def test_a_warning_that_comes_as_the_last_fades_is_seen(
    desk: Desk, bubbles: list[NapariQtNotification]
) -> None:
    desk.actions.tell(ONE)
    bubbles[0].close_with_fade()
    desk.widget.status._on_read()
    desk.actions.tell(TWO)
    desk.qtbot.wait(2 * NapariQtNotification.FADE_OUT_RATE)
    assert texts(desk) == [TWO]


def test_it_goes_by_itself_whatever_napari_shows_besides(
    desk: Desk, bubbles: list[NapariQtNotification]
) -> None:
    desk.actions.tell(ONE)
    show_info("saved 1 layer")  # it stops the time of all others
    assert sorted(texts(desk)) == [ONE, "saved 1 layer"]
    soon(desk)
    desk.wait(lambda: texts(desk) == ["saved 1 layer"])
    desk.widget.status._on_read()
    desk.actions.tell(TWO)
    theirs, ours = bubbles
    siblings = desk.viewer.window._qt_viewer.canvas.native.children()
    assert siblings.index(ours) > siblings.index(theirs), "over napari's, at the same place"


def test_one_that_is_unfolded_stays_and_keeps_to_its_text(
    desk: Desk, bubbles: list[NapariQtNotification]
) -> None:
    desk.actions.tell(ONE)
    QTest.mouseClick(bubbles[0].expand_button, LEFT)
    soon(desk)
    desk.qtbot.wait(100)
    assert texts(desk) == [ONE]
    QTest.mouseClick(bubbles[0].expand_button, LEFT)
    desk.wait(lambda: texts(desk) == [])


def test_one_that_is_unfolded_stays_when_the_mouse_leaves_it(
    desk: Desk, bubbles: list[NapariQtNotification], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(NapariQtNotification, "FADE_OUT_RATE", 1)
    desk.actions.tell(ONE)
    QTest.mouseClick(bubbles[0].expand_button, LEFT)
    desk.widget.model_panel.setFocus()
    focused = desk.widget.window().focusWidget()
    bubbles[0].leaveEvent(None)
    assert bubbles[0].timer.isSingleShot(), "no endless timer"
    bubbles[0].timer.timeout.emit()  # as napari's time is over
    desk.qtbot.wait(50)
    assert texts(desk) == [ONE]
    assert desk.widget.window().focusWidget() is focused


def test_a_new_text_does_not_take_the_focus_away(desk: Desk) -> None:
    desk.actions.tell(ONE)
    desk.widget.model_panel.setFocus()
    focused = desk.widget.window().focusWidget()
    assert focused is not None
    desk.actions.tell(TWO)
    assert desk.widget.window().focusWidget() is focused
    soon(desk)
    desk.wait(lambda: texts(desk) == [])
    assert desk.widget.window().focusWidget() is focused
