"""The panel is closed by its dock's x and opened again from napari's menu: no work is forgotten by it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from napari.layers import Points, Shapes
from pytestqt.qtbot import QtBot
from qtpy.compat import isalive
from qtpy.QtCore import Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QDockWidget, QFileDialog, QLabel

from napari_sam_med.gui import leaving, status_line
from napari_sam_med.gui.chooser_layers import CANDIDATES_NAME
from napari_sam_med.gui.scan_layers import BOXES_NAME, LABELS_NAME, POINTS_NAME, PREVIEW_NAME
from napari_sam_med.gui.widget import DOCK_NAME, SamMedWidget
from napari_sam_med.session import jobs
from napari_sam_med.session.journal_folder import default_folder
from napari_sam_med.volume.reading import read_labels
from tests.gui.desk import LEFT, Desk, choose_in_menu
from tests.gui.fake_model import FakePredictor
from tests.gui.find_desk import Search, find
from tests.gui.test_carrying import accept_a_box
from tests.gui.test_journal import everything, kept, window_of
from tests.gui.test_work_list_meanwhile import held_back

OWN = {POINTS_NAME, BOXES_NAME, PREVIEW_NAME}


@pytest.fixture(autouse=True)
def told(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What a notification said; napari's own would outlive a test."""
    texts: list[str] = []
    monkeypatch.setattr(status_line, "show_info", texts.append)
    return texts


def close_by_x(desk: Desk, widget: SamMedWidget) -> None:
    QTest.mouseClick(widget.parentWidget().title.close_button, LEFT)
    desk.settle()


def opened_again(desk: Desk) -> SamMedWidget:
    choose_in_menu(desk.viewer, "SAM Med", "SAM Med")
    desk.settle()
    widget = desk.viewer.window.dock_widgets[DOCK_NAME]
    assert widget.isVisible()
    return widget


def names(desk: Desk) -> list[str]:
    return [layer.name for layer in desk.viewer.layers]


def test_unexported_work_goes_on_where_it_was(desk: Desk, told: list[str]) -> None:
    accept_a_box(desk)
    kept(desk)
    before, layers = everything(desk.session), list(desk.viewer.layers)
    labels, tool = desk.bridge.labels_layer, desk.bridge.tool
    window = desk.viewer.window._qt_window
    for floats in (False, True):
        widget = desk.widget
        if floats:
            QTest.mouseClick(widget.parentWidget().title.float_button, LEFT)
            desk.wait(widget.parentWidget().isFloating)
        close_by_x(desk, widget)
        window.hide()
        window.show()
        assert not widget.isVisible()
        assert told[-1] == "Not exported yet: open SAM Med again.", "or napari cuts it off"
        again = opened_again(desk)
        assert again is widget
        assert everything(desk.session) == before
        assert desk.bridge.labels_layer is labels
        assert desk.bridge.tool == tool
        assert list(desk.viewer.layers) == layers
        assert again.recovery_bar.isHidden(), "nothing is offered that is there"
    desk.undo()
    assert not desk.labels.any()
    desk.redo()
    assert everything(desk.session) == before


@pytest.mark.parametrize("is_opened_again", [False, True])
def test_closing_the_window_asks_as_it_would_have(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, is_opened_again: bool
) -> None:
    """Statement 11."""
    window = window_of(desk)
    accept_a_box(desk)
    kept(desk)
    asked: list[str] = []
    answers = ["cancel", "leave"]
    monkeypatch.setattr(
        leaving, "ask", lambda parent, verb, is_kept, name: asked.append(verb) or answers.pop(0)
    )
    close_by_x(desk, desk.widget)
    if is_opened_again:
        opened_again(desk)
    window.close()
    assert asked == ["Close"]
    assert window.isVisible()
    assert desk.labels.any()
    window.close()
    assert asked == ["Close", "Close"]
    assert not window.isVisible()
    assert desk.actions.workers.running == []
    assert len(default_folder().files()) == 1


def test_the_window_lets_export_what_waits_and_closes(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    window, drawn = window_of(desk), tmp_path / "work.nii.gz"
    accept_a_box(desk)
    kept(desk)
    close_by_x(desk, desk.widget)
    monkeypatch.setattr(leaving, "ask", lambda parent, verb, is_kept, name: "export")
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_: (str(drawn), ""))
    count = np.count_nonzero(desk.labels)
    window.close()
    assert window.isVisible()
    desk.wait(lambda: not window.isVisible())
    assert np.count_nonzero(read_labels(drawn).data) == count > 0


def test_quitting_from_another_window_asks_for_what_waits(
    desk: Desk, make_desk: Callable[[], Desk], asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    accept_a_box(desk)
    kept(desk)
    close_by_x(desk, desk.widget)
    other = make_desk()
    other.wait(other.widget.isVisible)
    monkeypatch.setattr(leaving, "ask", lambda parent, verb, is_kept, name: asked.append(verb) or "cancel")
    windows = [window_of(desk), window_of(other)]
    windows[1].close(quit_app=True)
    assert asked == ["Quit"]
    assert all(window.isVisible() for window in windows)


def test_a_tool_of_the_users_own_layer_stays_in_the_hand(desk: Desk) -> None:
    accept_a_box(desk)
    mine = desk.viewer.add_points(name="mine", ndim=3)
    mine.mode = "add"
    close_by_x(desk, desk.widget)
    assert mine.mode == "add"
    opened_again(desk)
    assert mine.mode == "add"
    assert desk.viewer.layers.selection.active is mine


def test_work_that_is_kept_nowhere_waits_as_well(desk: Desk) -> None:
    desk.actions.keeping.keep_nothing(True)
    accept_a_box(desk)
    before = everything(desk.session)
    close_by_x(desk, desk.widget)
    assert everything(opened_again(desk).actions_.session) == before


def test_nothing_is_drawn_or_done_while_the_panel_is_closed(desk: Desk) -> None:
    accept_a_box(desk)
    n_steps, n_objects = len(desk.labels.nonzero()[0]), len(desk.session.objects)
    prompts = desk.session.active_object.key_slices
    close_by_x(desk, desk.widget)
    desk.drag((4, 2, 2), (4, 6, 6))
    desk.key(Qt.Key.Key_G)
    desk.undo()
    assert len(desk.labels.nonzero()[0]) == n_steps
    assert len(desk.session.objects) == n_objects
    assert desk.session.active_object.key_slices == prompts
    opened_again(desk)
    desk.undo()
    assert not desk.labels.any(), "the keys are back"


def test_a_job_under_way_ends_and_what_it_filled_waits(desk: Desk, predictor: FakePredictor) -> None:
    accept_a_box(desk)
    kept(desk)
    desk.actions.keeping.journal.mark_exported()
    desk.actions.model.model.store.kept.clear()
    plain, seen = predictor.embed, []

    def held_at_the_third(image: np.ndarray, *arguments: object) -> object:
        seen.append(image)
        if len(seen) == 3:
            predictor.gate.clear()
        return plain(image, *arguments)

    predictor.embed = held_at_the_third
    desk.key(Qt.Key.Key_G)
    desk.wait(lambda: not predictor.gate.is_set())
    desk.settle()
    filled = desk.labels.copy()
    close_by_x(desk, desk.widget)
    predictor.gate.set()
    desk.wait_until_carried()
    assert opened_again(desk) is desk.widget
    assert np.array_equal(desk.labels, filled)


@pytest.mark.parametrize("is_worked_on", [False, True])
def test_without_anything_to_lose_it_ends_and_its_prompt_layers_go(
    desk: Desk, told: list[str], is_worked_on: bool
) -> None:
    users = (desk.viewer.add_points(name="mine", ndim=3), desk.viewer.add_shapes(name="mine too", ndim=3))
    desk.settle()
    if is_worked_on:
        accept_a_box(desk)
        kept(desk)
        desk.actions.keeping.journal.mark_exported()
    for _ in range(2):
        widget = desk.viewer.window.dock_widgets.get(DOCK_NAME, desk.widget)
        close_by_x(desk, widget)
        desk.wait(lambda widget=widget: not isalive(widget))
        assert [one for one in desk.viewer.layers if isinstance(one, Points | Shapes)] == list(users)
        assert not OWN & set(names(desk))
        again = opened_again(desk)
        desk.wait(lambda again=again: again.actions_.bridge.labels_layer is not None)
        desk.wait(lambda again=again: not again.actions_.scans.is_loading)
        assert set(names(desk)) >= OWN
        assert not [name for name in names(desk) if name.startswith("SAM Med") and name.endswith("]")]
        assert names(desk).count(LABELS_NAME) == 1
    assert not told
    again.stop()


def test_removing_the_scan_ends_a_panel_that_waits(desk: Desk, search: Search) -> None:
    accept_a_box(desk)
    kept(desk)
    find(desk)
    assert CANDIDATES_NAME in names(desk)
    close_by_x(desk, desk.widget)
    assert isalive(desk.widget)
    desk.viewer.layers.remove(desk.bridge.image_layer)
    desk.wait(lambda: not isalive(desk.widget))
    assert not {*OWN, CANDIDATES_NAME} & set(names(desk))


@pytest.mark.parametrize("is_opened_again", [False, True])
def test_an_export_that_ends_while_it_waits_ends_it(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_opened_again: bool
) -> None:
    """Or it would keep its model and the scan for as long as the window is open."""
    may_end = held_back(monkeypatch, jobs, "export_labels")
    drawn = tmp_path / "work.nii.gz"
    accept_a_box(desk)
    kept(desk)
    desk.actions.export(drawn)
    close_by_x(desk, desk.widget)
    if is_opened_again:
        opened_again(desk)
    may_end.set()
    desk.wait(drawn.is_file)
    if is_opened_again:
        desk.wait(lambda: not desk.actions.workers.running)
        desk.settle()
        assert desk.widget.isVisible()
    else:
        desk.wait(lambda: not isalive(desk.widget))
    assert read_labels(drawn).data.any()


def test_the_menu_hides_and_shows_it_and_the_window_asks(desk: Desk, asked: list[str]) -> None:
    accept_a_box(desk)
    close_by_x(desk, desk.widget)
    widget = opened_again(desk)
    choose_in_menu(desk.viewer, "SAM Med", "SAM Med")
    desk.wait(lambda: not widget.isVisible())
    assert opened_again(desk) is widget
    choose_in_menu(desk.viewer, "SAM Med", "SAM Med")
    window = window_of(desk)
    window.close()
    assert asked == ["Close"]


def test_the_title_says_the_name_once_wherever_it_is_docked(
    make_napari_viewer: Callable, predictor: FakePredictor, qtbot: QtBot
) -> None:
    viewer = make_napari_viewer(show=True)
    choose_in_menu(viewer, "SAM Med", "SAM Med")
    qtbot.waitUntil(lambda: DOCK_NAME in viewer.window.dock_widgets)
    widget = viewer.window.dock_widgets[DOCK_NAME]
    dock: QDockWidget = widget.parentWidget()

    def titles() -> set[str]:
        return {dock.windowTitle(), *(label.text() for label in dock.title.findChildren(QLabel))} - {""}

    qtbot.waitUntil(lambda: titles() == {"SAM Med"})
    QTest.mouseClick(dock.title.float_button, LEFT)
    qtbot.waitUntil(dock.isFloating)
    assert titles() == {"SAM Med"}
    QTest.mouseClick(dock.title.float_button, LEFT)
    qtbot.waitUntil(lambda: not dock.isFloating())
    assert titles() == {"SAM Med"}
    QTest.mouseClick(dock.title.close_button, LEFT)
    qtbot.waitUntil(lambda: not isalive(widget))


def test_found_objects_are_not_taken_while_the_panel_is_closed_and_are_there_again(
    desk: Desk, search: Search
) -> None:
    accept_a_box(desk)
    find(desk)
    chooser, before = desk.actions.finding.chooser, desk.labels.copy()
    assert chooser.is_on
    close_by_x(desk, desk.widget)
    desk.click((3, 9, 11))
    assert np.array_equal(desk.labels, before)
    opened_again(desk)
    desk.widget.find_panel.choose.click()
    desk.settle()
    assert chooser.is_on
    desk.click((3, 9, 11))
    desk.wait(lambda: not chooser.is_taking)
    assert not np.array_equal(desk.labels, before)
    desk.undo()
    assert np.array_equal(desk.labels, before), "the keys of its layer are back, too"
    desk.key(Qt.Key.Key_Escape)
    assert not chooser.is_on
