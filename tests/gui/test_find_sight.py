"""After a run of Find its list is in sight, unless the user is at something else in the dock."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from qtpy.QtCore import QPoint, QRect, Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QWidget

from napari_sam_med.gui.find_sight import scroll_area_of
from tests.gui.desk import LEFT, NO_KEY, Desk
from tests.gui.find_desk import Search, start


def in_sight(desk: Desk, part: QWidget) -> bool:
    """Whether all of a part can be seen."""
    return part.isVisible() and part.visibleRegion().boundingRect() == QRect(QPoint(0, 0), part.size())


@pytest.fixture
def held(desk: Desk, search: Search) -> Callable[[], None]:
    """A run that is under way, started at the lower end of what is seen of the dock; called, it ends."""
    search.held_at = 0
    search.gate.clear()
    panel, scroll = desk.widget.find_panel, desk.widget._scroll
    panel.expand(animate=False)
    desk.settle()
    below = panel.start.mapTo(scroll.widget(), QPoint(0, panel.start.height())).y()
    scroll.verticalScrollBar().setValue(below - scroll.viewport().height() + 10)
    QTest.mouseMove(desk.native, QPoint(20, 20))
    start(desk)
    desk.wait(lambda: search.asked)
    assert desk.actions.finding.found.is_empty
    assert in_sight(desk, panel.start)
    assert not in_sight(desk, panel.list)

    def end() -> None:
        search.gate.set()
        desk.wait(lambda: not desk.actions.is_busy)
        desk.settle()
        assert panel.list.topLevelItemCount() == 3

    return end


def scrolled(desk: Desk) -> int:
    return desk.widget._scroll.verticalScrollBar().value()


def test_the_results_are_scrolled_into_sight(desk: Desk, held: Callable[[], None]) -> None:
    before, panel = scrolled(desk), desk.widget.find_panel
    held()
    assert scrolled(desk) > before
    for part in (panel.list, panel.into, panel.choose, panel.told):
        assert in_sight(desk, part)
    seen = scrolled(desk)
    panel.start.click()  # what is in sight already stays where it is
    desk.wait(lambda: not desk.actions.is_busy)
    desk.settle()
    assert scrolled(desk) == seen


def test_not_while_the_mouse_is_at_another_section(desk: Desk, held: Callable[[], None]) -> None:
    before, organs = scrolled(desk), desk.widget.prompt_panel
    place = organs.visibleRegion().boundingRect().center()
    QTest.mouseMove(organs, place)
    held()
    assert scrolled(desk) == before


def test_with_the_mouse_at_find_itself(desk: Desk, held: Callable[[], None]) -> None:
    QTest.mouseMove(desk.widget.find_panel.start)
    held()
    assert in_sight(desk, desk.widget.find_panel.list)


def test_not_while_another_section_is_typed_into(desk: Desk, held: Callable[[], None]) -> None:
    before, other = scrolled(desk), desk.widget.volume_panel.window_panel.low
    other.setFocus(Qt.FocusReason.MouseFocusReason)
    held()
    assert scrolled(desk) == before
    assert desk.widget.window().focusWidget() is other


def test_not_while_a_button_of_the_mouse_is_down(desk: Desk, held: Callable[[], None]) -> None:
    before, place = scrolled(desk), QPoint(20, 20)
    QTest.mousePress(desk.native, LEFT, NO_KEY, place)
    held()
    assert scrolled(desk) == before
    QTest.mouseRelease(desk.native, LEFT, NO_KEY, place)


def test_not_where_the_user_has_scrolled_away_from_it(desk: Desk, held: Callable[[], None]) -> None:
    desk.widget._scroll.verticalScrollBar().setValue(0)
    desk.settle()
    assert desk.widget.find_panel.visibleRegion().isEmpty()
    held()
    assert scrolled(desk) == 0


def test_a_widget_that_is_in_no_scroll_area_has_none(desk: Desk) -> None:
    assert scroll_area_of(desk.widget.status) is None
    assert scroll_area_of(desk.widget.find_panel) is desk.widget._scroll
