"""A folder of cases by clicks and keys: what was done on one is there again after the others."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from napari.layers import Image, Labels
from qtpy.QtCore import Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QFileDialog, QListWidgetItem, QWidget

from napari_sam_med.gui import launch, leaving
from napari_sam_med.gui import work_list as control_module
from napari_sam_med.gui.settings import Settings
from napari_sam_med.session.work_list import open_work_list, read_case, save_case
from napari_sam_med.session.work_list_cases import STATUS_FILE_NAME
from napari_sam_med.volume.labels import LabelVolume
from napari_sam_med.volume.organs import Organ
from napari_sam_med.volume.reading import read_labels, read_volume
from napari_sam_med.volume.writing import write_labels
from tests.gui.case_list import at, cases, panel, saved, work_list
from tests.gui.desk import LEFT, Desk
from tests.gui.fake_model import FakePredictor
from tests.gui.test_carrying import accept_a_box
from tests.gui.test_journal import everything, press, result, window_of
from tests.gui.test_prompting import LIVER

ALT = Qt.KeyboardModifier.AltModifier


def names(desk: Desk, kind: type) -> list[str]:
    return [layer.name for layer in desk.viewer.layers if isinstance(layer, kind)]


def double_click(desk: Desk, item: QListWidgetItem) -> None:
    shown = panel(desk).list
    place = shown.visualItemRect(item).center()
    QTest.mouseClick(shown.viewport(), LEFT, pos=place)
    QTest.mouseDClick(shown.viewport(), LEFT, pos=place)


def test_there_and_back_gives_the_same_labels_and_prompts(
    open_list: Callable[..., Desk], folder: Path, asked: list[str]
) -> None:
    desk = open_list()
    assert panel(desk).isVisible()
    assert panel(desk).counts.text() == "3 cases: 0 done, 0 in progress, 3 new"
    assert not panel(desk).previous.isEnabled()
    accept_a_box(desk)
    before = everything(desk.session)
    assert panel(desk).counts.text() == "3 cases: 0 done, 1 in progress, 2 new"
    press(panel(desk).next)
    at(desk, 1)
    assert not desk.labels.any()
    assert not desk.session.objects
    assert np.array_equal(saved(folder, 1), before[0])
    assert names(desk, Image) == ["ct_2.nii.gz"]
    assert len(names(desk, Labels)) == 2
    accept_a_box(desk)
    second = everything(desk.session)
    for _ in range(2):
        press(panel(desk).previous)
        at(desk, 0)
        assert everything(desk.session) == before
        assert len(desk.bridge.boxes_layer.data) == 1
        press(panel(desk).next)
        at(desk, 1)
        assert everything(desk.session) == second
    assert not panel(desk).isHidden()
    assert not desk.widget.recovery_bar.isVisible()
    assert not asked
    assert len(list((folder / "labels").glob("*.nii.gz"))) == 2, "each in the one file that it came from"


def test_keys_go_on_and_mark_what_is_done(open_list: Callable[..., Desk], folder: Path) -> None:
    desk = open_list()
    accept_a_box(desk)
    desk.key(Qt.Key.Key_Right, ALT)
    at(desk, 1)
    desk.key(Qt.Key.Key_Left, ALT)
    at(desk, 0)
    desk.key(Qt.Key.Key_D, ALT)
    at(desk, 1)
    assert panel(desk).counts.text() == "3 cases: 1 done, 0 in progress, 2 new"
    press(panel(desk).done)
    at(desk, 2)
    assert not saved(folder, 2).any(), "nothing to see on it: done, with labels that say so"
    desk.key(Qt.Key.Key_D, ALT)
    desk.wait(lambda: work_list(desk).counts["done"] == 3)
    assert "No other case is left to do" in desk.said[-1]
    desk.key(Qt.Key.Key_Right, ALT)
    assert "last case" in desk.said[-1]


def test_only_looking_at_cases_leaves_no_trace(open_list: Callable[..., Desk], folder: Path) -> None:
    desk = open_list()
    desk.session.select_organ(LIVER)
    press(panel(desk).next)
    at(desk, 1)
    press(panel(desk).next)
    at(desk, 2)
    assert work_list(desk).counts["new"] == 3
    assert not (folder / "labels").exists()


def test_a_double_click_opens_and_the_filter_hides_what_is_done(open_list: Callable[..., Desk]) -> None:
    desk = open_list()
    shown = panel(desk).list
    double_click(desk, shown.item(2))
    at(desk, 2)
    assert shown.item(2).font().bold()
    [_, mark] = panel(desk).menu_of(1).actions()
    mark.trigger()
    assert work_list(desk).status(cases(desk)[1]) == "done"
    panel(desk).only_open.setChecked(True)
    assert [shown.item(row).isHidden() for row in range(3)] == [False, True, False]
    press(panel(desk).previous)
    at(desk, 0)
    assert desk.actions.work_list.position == 0, "past the one that is done"
    [_, mark] = panel(desk).menu_of(1).actions()
    mark.trigger()
    assert not shown.item(1).isHidden()


@pytest.mark.parametrize("how", ["damaged", "missing"])
def test_a_case_that_cannot_be_opened_is_marked_and_the_list_goes_on(
    open_list: Callable[..., Desk], folder: Path, how: str
) -> None:
    desk = open_list()
    accept_a_box(desk)
    before = everything(desk.session)
    if how == "damaged":
        (folder / "ct_2.nii.gz").write_bytes(b"nothing of the kind")
    else:
        (folder / "ct_2.nii.gz").unlink()
    press(panel(desk).next)
    control = desk.actions.work_list
    desk.wait(lambda: control.problems)
    assert "ct_2.nii.gz" in desk.said[-1]
    assert "could not be opened" in panel(desk).list.item(1).toolTip()
    assert everything(desk.session) == before, "the case before is still open, and saved"
    press(panel(desk).next)
    at(desk, 2)
    press(panel(desk).done)
    at(desk, 0)
    assert everything(desk.session) == before


def test_labels_that_cannot_be_read_are_never_replaced(open_list: Callable[..., Desk], folder: Path) -> None:
    """Statement 7."""
    desk = open_list()
    bad = folder / "labels" / "ct_2_labels.nii.gz"
    bad.parent.mkdir()
    bad.write_bytes(b"somebody's labels")
    press(panel(desk).next)
    desk.wait(lambda: desk.actions.work_list.problems)
    assert "They stay as they are" in desk.said[-1]
    press(panel(desk).next)
    at(desk, 2)
    assert bad.read_bytes() == b"somebody's labels"


def test_a_window_that_was_killed_is_gone_on_with_unasked(
    open_list: Callable[..., Desk], folder: Path, asked: list[str]
) -> None:
    desk = open_list()
    accept_a_box(desk)
    before = everything(desk.session)
    assert desk.actions.keeping.journal.flush()
    desk.viewer.close()  # by a script: nobody is asked, nothing is saved
    assert not list((folder / "labels").glob("*.nii.gz"))
    again = open_list()
    assert work_list(again).counts == {"done": 0, "in progress": 1, "new": 2}
    assert everything(again.session) == before
    assert not again.widget.recovery_bar.isVisible()
    press(panel(again).next)
    at(again, 1)
    assert np.array_equal(saved(folder, 1), before[0])
    assert not asked


def test_closing_the_window_saves_the_case(
    open_list: Callable[..., Desk], folder: Path, asked: list[str]
) -> None:
    desk = open_list()
    window = window_of(desk)
    accept_a_box(desk)
    labels = desk.labels.copy()
    window.close()
    desk.wait(lambda: not window.isVisible())
    assert np.array_equal(saved(folder, 1), labels)
    assert not asked


def test_a_carry_under_way_ends_and_what_it_filled_is_saved(
    open_list: Callable[..., Desk], folder: Path, predictor: FakePredictor
) -> None:
    desk = open_list()
    accept_a_box(desk)
    desk.actions.model.model.store.kept.clear()
    seen, asked_for = predictor.embed, []

    def held_at_the_third(image: np.ndarray, *arguments: object) -> object:
        asked_for.append(image)
        if len(asked_for) == 3:
            predictor.gate.clear()
        return seen(image, *arguments)

    predictor.embed = held_at_the_third
    desk.key(Qt.Key.Key_G)
    desk.wait(lambda: not predictor.gate.is_set())
    desk.settle()
    assert desk.actions.is_busy
    filled = desk.labels.copy()
    press(panel(desk).next)
    desk.wait(lambda: desk.actions.work_list.current.case == cases(desk)[1])
    predictor.gate.set()
    desk.wait_until_carried()
    assert np.array_equal(saved(folder, 1), filled)
    assert not desk.labels.any()


def test_what_is_drawn_while_the_next_case_is_read_is_saved_too(
    open_list: Callable[..., Desk], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = open_list()
    accept_a_box(desk)
    real = control_module.read_case

    def slow(*arguments: object):
        with_more = real(*arguments)
        yield next(with_more)
        desk.labels[2, 3:5, 3:5] = LIVER  # as another plugin would
        return (yield from with_more)

    monkeypatch.setattr(control_module, "read_case", slow)
    press(panel(desk).next)
    at(desk, 1)
    assert (saved(folder, 1)[2, 3:5, 3:5] == LIVER).all()


def test_labels_have_to_go_elsewhere_where_the_folder_is_read_only(
    make_desk: Callable[[], Desk], predictor: FakePredictor, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "labels").write_bytes(b"a file where the folder should be")
    elsewhere = folder.parent / f"{folder.name} elsewhere"
    elsewhere.mkdir()
    answers = [None, elsewhere]
    monkeypatch.setattr(control_module, "ask_output", lambda place: answers.pop(0))
    desk = make_desk()
    desk.actions.work_list.open_folder(folder)
    assert work_list(desk) is None
    assert "No work list was opened" in desk.said[-1]
    desk.actions.work_list.open_folder(folder)
    desk.wait(lambda: work_list(desk) is not None)
    at(desk, 0)
    accept_a_box(desk)
    press(panel(desk).next)
    at(desk, 1)
    assert (elsewhere / "ct_1_labels.nii.gz").is_file()
    desk.widget.stop()
    again = make_desk()
    again.actions.work_list.open_folder(folder)
    desk.wait(lambda: work_list(again) is not None)
    assert work_list(again).counts["in progress"] == 1
    assert not answers


def test_where_saving_fails_it_is_asked_and_the_work_comes_back(
    open_list: Callable[..., Desk], folder: Path, asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = open_list()
    (folder / "labels").write_bytes(b"a file where the folder should be")
    accept_a_box(desk)
    before = everything(desk.session)
    answers = ["cancel", "leave"]
    monkeypatch.setattr(
        leaving, "ask", lambda parent, verb, is_kept, name: asked.append(verb) or answers.pop(0)
    )
    press(panel(desk).next)
    desk.wait(lambda: asked == ["Open"])
    desk.settle()
    assert everything(desk.session) == before
    press(panel(desk).next)
    at(desk, 1)
    assert asked == ["Open", "Open"]
    press(panel(desk).previous)
    at(desk, 0)
    assert everything(desk.session) == before


def test_two_windows_on_a_folder_lose_nothing(open_list: Callable[..., Desk], folder: Path) -> None:
    desk = open_list()
    accept_a_box(desk)
    drawn = desk.labels.copy()
    other = result(open_work_list(folder))
    case = other.cases[0]
    theirs = result(read_case(case, other.kept(case), other.start(case), other.target(case)))
    theirs.scan.labels.data[1, 2, 3] = 1
    known = result(save_case(other.target(case), theirs.saved, theirs.scan.labels, theirs.scan.volume))
    other.note_saved(case, known, None)
    other.note(other.cases[2], status="done")
    press(panel(desk).done)
    at(desk, 1)
    assert work_list(desk).counts == {"done": 2, "in progress": 0, "new": 1}
    assert np.array_equal(saved(folder, 1), theirs.scan.labels.data)
    assert np.array_equal(read_labels(folder / "labels" / "ct_1_labels_2.nii.gz").data, drawn)
    assert any("stays as it is; the labels of ct_1 are in ct_1_labels_2.nii.gz" in text for text in desk.said)


def test_labels_of_the_users_own_are_the_start_and_stay(open_list: Callable[..., Desk], folder: Path) -> None:
    theirs = LabelVolume.like(read_volume(folder / "ct_1.nii.gz"))
    theirs.data[3, 4:8, 4:8] = 5
    path = write_labels(folder / "ct_1_seg.nii.gz", theirs)
    before = path.read_bytes()
    desk = open_list()
    assert len(cases(desk)) == 3
    assert np.array_equal(desk.labels, theirs.data)
    accept_a_box(desk)
    labels = desk.labels.copy()
    press(panel(desk).next)
    at(desk, 1)
    assert path.read_bytes() == before
    assert np.array_equal(saved(folder, 1), labels)
    assert (labels == 5).any()


def test_erased_labels_are_asked_about_and_the_file_stays(
    open_list: Callable[..., Desk], folder: Path, asked: list[str]
) -> None:
    """Statement 7."""
    desk = open_list()
    accept_a_box(desk)
    press(panel(desk).next)
    at(desk, 1)
    press(panel(desk).previous)
    at(desk, 0)
    before = saved(folder, 1)
    assert before.any()
    desk.session.remove_organ(LIVER)
    assert not desk.labels.any()
    press(panel(desk).next)
    at(desk, 1)
    assert asked == ["Open"]
    assert np.array_equal(saved(folder, 1), before)


def test_an_export_over_the_file_of_the_case_is_no_change_by_others(
    open_list: Callable[..., Desk], folder: Path
) -> None:
    """Also the way to save labels that were erased on purpose."""
    desk = open_list()
    accept_a_box(desk)
    press(panel(desk).next)
    at(desk, 1)
    press(panel(desk).previous)
    at(desk, 0)
    desk.session.remove_organ(LIVER)
    target = folder / "labels" / "ct_1_labels.nii.gz"
    desk.actions.export(target)
    desk.wait(lambda: f"{target.name} written and checked." in desk.said)
    press(panel(desk).next)
    at(desk, 1)
    assert not saved(folder, 1).any()
    assert len(list((folder / "labels").glob("*.nii.gz"))) == 1


def test_organs_of_ones_own_are_there_on_the_next_case(open_list: Callable[..., Desk]) -> None:
    desk = open_list()
    desk.session.set_organ(Organ(40, "lesion", (1.0, 0.0, 0.0)))
    press(panel(desk).next)
    at(desk, 1)
    assert desk.session.organs.name_of(40) == "lesion"


def test_names_that_a_file_lacks_are_not_carried_on(open_list: Callable[..., Desk], folder: Path) -> None:
    labels = np.zeros((32, 24, 8), np.uint8)
    labels[4:8, 4:8, 3] = 5
    nib.save(nib.Nifti1Image(labels, nib.load(folder / "ct_1.nii.gz").affine), folder / "ct_1_seg.nii.gz")
    desk = open_list()
    assert desk.session.organs.name_of(5) == "label 5"
    press(panel(desk).next)
    at(desk, 1)
    assert desk.session.organs.name_of(LIVER) == "liver"


def test_another_scan_is_no_case_and_the_list_goes_on_after_it(
    open_list: Callable[..., Desk], folder: Path, volume, asked: list[str]
) -> None:
    desk = open_list()
    accept_a_box(desk)
    layer = desk.viewer.add_image(volume.data, metadata={"sam_med": volume}, **volume.display_transform)
    desk.actions.open_scan(layer)
    desk.wait(lambda: desk.session.volume is volume)
    assert saved(folder, 1).any()
    assert not asked
    assert desk.actions.work_list.current is None
    assert not panel(desk).done.isEnabled()
    desk.wait(lambda: desk.actions.keeping.is_kept)
    accept_a_box(desk)
    press(panel(desk).next)
    at(desk, 1)
    assert asked == ["Open"], "work on a scan that is no case has no file of its own"
    assert not layer.visible


def test_a_case_that_was_left_for_another_scan_comes_back_with_prompts_and_objects(
    open_list: Callable[..., Desk], volume, asked: list[str]
) -> None:
    desk = open_list()
    accept_a_box(desk)
    before = desk.labels.copy()
    layer = desk.viewer.add_image(volume.data, metadata={"sam_med": volume}, **volume.display_transform)
    desk.actions.open_scan(layer)
    desk.wait(lambda: desk.session.volume is volume and desk.actions.keeping.is_kept)
    assert not desk.session.objects
    desk.actions.work_list.open_position(0)
    at(desk, 0)
    assert np.array_equal(desk.labels, before)
    assert len(desk.session.objects) == 1
    assert not desk.widget.recovery_bar.isVisible()


def test_closing_the_list_saves_and_leaves_the_scan(open_list: Callable[..., Desk], folder: Path) -> None:
    desk = open_list()
    accept_a_box(desk)
    press(panel(desk).close_list)
    desk.wait(lambda: not panel(desk).isVisible())
    assert saved(folder, 1).any()
    assert desk.labels.any()
    assert Settings.load().work_list_folder == str(folder)


def test_the_menu_offers_the_folder_of_the_last_time(
    desk: Desk, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *_: str(folder))
    menu = desk.widget.folder_button.menu()
    menu.aboutToShow.emit()
    assert len(menu.actions()) == 2
    menu.actions()[0].trigger()
    at(desk, 0)
    press(panel(desk).close_list)
    menu.aboutToShow.emit()
    [*_, last] = menu.actions()
    assert folder.name in last.text()
    last.trigger()
    at(desk, 0)
    assert panel(desk).isVisible()


def test_a_folder_without_scans_is_told_and_the_scan_stays(desk: Desk, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    volume = desk.session.volume
    desk.actions.work_list.open_folder(empty)
    desk.wait(lambda: "holds no scan" in desk.said[-1])
    assert desk.session.volume is volume
    assert not panel(desk).isVisible()
    desk.key(Qt.Key.Key_Right, ALT)
    assert "There is no work list" in desk.said[-1]


def test_nothing_is_cut_off_and_a_thousand_cases_are_shown(
    open_list: Callable[..., Desk], folder: Path
) -> None:
    for number in range(1000):
        (folder / f"a_rather_long_name_of_a_scan_{number:04}_of_a_patient.nii").write_bytes(b"")
    desk = open_list(is_opened=False)
    desk.wait(lambda: desk.actions.work_list.problems)
    assert panel(desk).list.count() == 1003
    assert panel(desk).counts.text().startswith("1003 cases: ")
    assert desk.widget.minimumSizeHint().width() <= 345
    for made in panel(desk).findChildren(QWidget):
        assert made.x() + made.width() <= made.parentWidget().width() or not made.isVisible()


def test_a_folder_on_the_command_line_opens_as_a_work_list(
    make_napari_viewer: Callable,
    predictor: FakePredictor,
    folder: Path,
    qtbot,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    widgets = []
    real = launch.SamMedWidget
    monkeypatch.setattr(launch.napari, "Viewer", lambda **_: make_napari_viewer(show=True))
    monkeypatch.setattr(launch, "SamMedWidget", lambda viewer: widgets.append(real(viewer)) or widgets[-1])
    monkeypatch.chdir(folder.parent)
    launch.open_viewer(Path(folder.name))
    try:
        control = widgets[0].actions_.work_list
        qtbot.waitUntil(lambda: control.current is not None, timeout=20_000)
        assert control.work_list.folder == folder
    finally:
        widgets[0].stop()
        qtbot.wait(50)


def test_the_file_of_statuses_lies_with_the_labels(open_list: Callable[..., Desk], folder: Path) -> None:
    desk = open_list()
    accept_a_box(desk)
    press(panel(desk).done)
    at(desk, 1)
    assert (folder / "labels" / STATUS_FILE_NAME).is_file()
