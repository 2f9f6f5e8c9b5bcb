"""What the status line says of the cases of a work list."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from napari_sam_med.errors import ExportError
from napari_sam_med.session.work_list import WorkList
from napari_sam_med.session.work_list_cases import Case
from tests.gui.case_list import at, cases, panel, saved, work_list
from tests.gui.desk import Desk
from tests.gui.test_carrying import accept_a_box
from tests.gui.test_journal import press


def test_done_with_empty_labels_says_so_and_goes_on(open_list: Callable[..., Desk], folder: Path) -> None:
    desk = open_list()
    text = desk.widget.status.text
    press(panel(desk).done)
    at(desk, 1)
    assert work_list(desk).status(cases(desk)[0]) == "done"
    assert not saved(folder, 1).any()
    assert text.text().startswith("ct_1 is done with empty labels. ct_2 (2 of 3)")
    accept_a_box(desk)
    press(panel(desk).done)
    at(desk, 2)
    assert text.text().startswith("ct_10 (3 of 3)"), "nothing is said of labels that are there"
    press(panel(desk).done)
    desk.wait(lambda: work_list(desk).counts["done"] == 3)
    assert text.text().startswith("ct_10 is done with empty labels. No other case is left to do.")


def test_a_case_that_could_not_be_marked_is_not_said_to_be_done(
    open_list: Callable[..., Desk], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = WorkList.note

    def note(self: WorkList, case: Case, **changes: object) -> None:
        if changes.get("status") == "done":
            raise ExportError("The disk is full; free some space.")
        plain(self, case, **changes)

    desk = open_list()
    with monkeypatch.context() as patch:
        patch.setattr(WorkList, "note", note)
        press(panel(desk).done)
        desk.wait(lambda: "The disk is full; free some space." in desk.said)
    assert work_list(desk).counts["done"] == 0
    press(panel(desk).next)
    at(desk, 1)
    assert not any("done with empty labels" in text for text in desk.said)
