"""The status line: what matters is not talked over before it was read."""

from __future__ import annotations

import pytest
from qtpy.QtCore import Qt

from tests.gui.desk import Desk

NOTHING = "There is nothing to carry: draw a box or click on an organ first."


@pytest.fixture
def told(desk: Desk) -> Desk:
    """Right after an error that the user has to read."""
    desk.key(Qt.Key.Key_G)
    assert shown(desk) == NOTHING
    return desk


def shown(desk: Desk) -> str:
    return desk.widget.status.text.text()


def test_what_is_said_next_stands_below_an_error(told: Desk) -> None:
    told.actions.status.emit("loading nano…")
    assert shown(told) == f"{NOTHING}\nloading nano…"
    told.actions.status.emit("Scan ready: draw a box on an organ.")
    assert shown(told) == f"{NOTHING}\nScan ready: draw a box on an organ."
    told.widget.status.withdraw("Scan ready: draw a box on an organ.")
    assert shown(told) == NOTHING


def test_what_does_not_hold_any_more_goes(told: Desk) -> None:
    told.actions.tell("The labels layer was removed.")
    status = told.widget.status
    assert shown(told) == f"{NOTHING}\nThe labels layer was removed."
    status.withdraw("The labels layer was removed.")
    assert shown(told) == NOTHING
    status.withdraw(NOTHING)
    assert shown(told) == "Ready"


def test_several_errors_stand_below_each_other_once(told: Desk) -> None:
    told.actions.tell("ct_2 is damaged; it was left out.")
    told.actions.tell(NOTHING)
    assert shown(told) == f"{NOTHING}\nct_2 is damaged; it was left out."


def test_it_is_over_when_the_user_goes_on(told: Desk) -> None:
    told.actions.status.emit("loading nano…")
    told.key(Qt.Key.Key_K)
    assert shown(told).startswith("New object of ")


def test_it_is_over_when_it_was_read(told: Desk) -> None:
    status = told.widget.status
    status._reading.setInterval(1)
    told.actions.tell("ct_2 is damaged; it was left out.")
    told.actions.status.emit("ct_3 (3 of 6)")
    told.wait(lambda: shown(told) == "ct_3 (3 of 6)")
    told.actions.tell("ct_4 is damaged; it was left out.")
    told.wait(lambda: not status._reading.isActive())
    told.settle()
    assert shown(told) == "ct_4 is damaged; it was left out.", "until something else is said"
    told.actions.status.emit("ct_5 (5 of 6)")
    assert shown(told) == "ct_5 (5 of 6)"
