"""What is done while a folder is looked through, a case is saved, or labels are read."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from napari.layers import Image
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QFileDialog

from napari_sam_med.errors import LabelError
from napari_sam_med.gui import leaving
from napari_sam_med.gui import work_list as control_module
from napari_sam_med.session import jobs
from napari_sam_med.session.labels_copy import LabelsCopy
from napari_sam_med.volume.labels import LabelVolume
from napari_sam_med.volume.reading import read_labels
from napari_sam_med.volume.writing import write_labels
from tests.gui.case_list import at, cases, panel, saved, work_list
from tests.gui.desk import Desk
from tests.gui.fake_model import FakePredictor
from tests.gui.test_carrying import accept_a_box
from tests.gui.test_journal import press
from tests.gui.test_prompting import LIVER, box_the_organ


def held_back(monkeypatch: pytest.MonkeyPatch, where: object, name: str, at: str = "end") -> threading.Event:
    """A job that waits at its end, or its start, until the event is set."""
    may_end, real = threading.Event(), getattr(where, name)

    def slow(*arguments: object):
        if at == "start":
            may_end.wait(30)
        answer = yield from real(*arguments)
        may_end.wait(30)
        return answer

    monkeypatch.setattr(where, name, slow)
    return may_end


def test_what_is_drawn_while_another_folder_is_looked_through_is_saved(
    open_list: Callable[..., Desk], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = open_list()
    other = folder.parent / f"{folder.name} other"
    other.mkdir()
    (folder / "ct_10.nii.gz").rename(other / "ct_10.nii.gz")
    may_end = held_back(monkeypatch, control_module, "open_work_list")
    desk.actions.work_list.open_folder(other)
    accept_a_box(desk)
    may_end.set()
    desk.wait(lambda: work_list(desk).folder == other)
    at(desk, 0)
    assert (saved(folder, 1) == LIVER).any()


def test_the_next_case_waits_until_the_one_before_is_saved(
    open_list: Callable[..., Desk], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = open_list()
    theirs = LabelVolume.like(desk.session.volume)
    theirs.data[2, 3:5, 3:5] = LIVER
    desk.actions.open_labels(write_labels(folder.parent / "theirs.nii.gz", theirs))
    desk.wait(lambda: desk.labels.any())
    read = []
    real = control_module.read_case
    monkeypatch.setattr(control_module, "read_case", lambda *a: read.append(a) or real(*a))
    may_end = held_back(monkeypatch, control_module, "save_case")
    press(panel(desk).next)
    press(panel(desk).next)
    assert not read
    assert desk.actions.work_list.current.case == cases(desk)[0]
    may_end.set()
    at(desk, 2)
    assert (saved(folder, 1)[2, 3:5, 3:5] == LIVER).all()


def test_labels_that_arrive_after_their_scan_was_removed_are_let_go(
    desk: Desk, predictor: FakePredictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = LabelVolume.like(desk.session.volume)
    theirs.data[2, 3:5, 3:5] = LIVER
    path = write_labels(tmp_path / "theirs.nii.gz", theirs)
    may_end = held_back(monkeypatch, jobs, "open_labels")
    desk.actions.open_labels(path)
    desk.viewer.layers.remove(desk.actions.bridge.image_layer)
    may_end.set()
    desk.wait(lambda: not desk.actions.workers.running)
    desk.settle()
    assert desk.session.labels is None


def test_what_another_plugin_has_drawn_alone_is_saved(open_list: Callable[..., Desk], folder: Path) -> None:
    desk = open_list()
    desk.labels[2, 3:5, 3:5] = LIVER
    press(panel(desk).next)
    at(desk, 1)
    assert (saved(folder, 1)[2, 3:5, 3:5] == LIVER).all()


def test_after_an_export_the_case_that_waited_is_opened(
    open_list: Callable[..., Desk], folder: Path, asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = open_list()
    exported = folder.parent / "exported.nii.gz"
    monkeypatch.setattr(leaving, "ask", lambda parent, verb, is_kept, name: asked.append(verb) or "export")
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_: (str(exported), ""))
    real = control_module.read_case

    def read(*arguments: object):
        (folder / "labels").write_bytes(b"a file where the folder should be")
        desk.labels[2, 3:5, 3:5] = LIVER  # while the next case is read
        return (yield from real(*arguments))

    monkeypatch.setattr(control_module, "read_case", read)
    press(panel(desk).next)
    at(desk, 1)
    assert asked == ["Open"]
    assert (read_labels(exported).data[2, 3:5, 3:5] == LIVER).all()
    shown = [layer.name for layer in desk.viewer.layers if isinstance(layer, Image)]
    assert shown == ["ct_2.nii.gz"]
    assert desk.labels is desk.bridge.labels_layer.data
    assert desk.labels.shape == desk.bridge.image_layer.data.shape


def test_a_list_that_is_closed_while_a_case_comes_leaves_nothing_of_that(
    open_list: Callable[..., Desk], at_turn
) -> None:
    desk = open_list()
    layers, volume = list(desk.viewer.layers), desk.session.volume
    at_turn(1, desk.actions.work_list.close)
    press(panel(desk).next)
    desk.wait(lambda: work_list(desk) is None)
    desk.wait(lambda: not desk.actions.scans.is_loading)
    assert list(desk.viewer.layers) == layers
    assert desk.session.volume is volume


@pytest.mark.parametrize("is_read", [False, True])
@pytest.mark.parametrize("answer", ["cancel", "leave"])
def test_a_case_that_waits_is_given_up_where_saving_fails_and_something_else_was_asked_for(
    open_list: Callable[..., Desk],
    folder: Path,
    at_turn: Callable,
    asked: list[str],
    monkeypatch: pytest.MonkeyPatch,
    is_read: bool,
    answer: str,
) -> None:
    """It must not be shown as the one on its way for ever, nor leave its layers."""
    desk = open_list()
    control, layers = desk.actions.work_list, list(desk.viewer.layers)
    monkeypatch.setattr(leaving, "ask", lambda parent, verb, is_kept, name: asked.append(verb) or answer)
    may_end = held_back(monkeypatch, control_module, "save_case", at="start")

    def draw() -> None:
        (folder / "labels").write_bytes(b"a file where the folder should be")
        desk.labels[2, 3:5, 3:5] = LIVER

    if is_read:
        at_turn(1, draw)  # while the layers of the next one come
    else:
        draw()
    press(panel(desk).next)
    desk.wait(lambda: control._is_saving)
    assert control.asked_for == 1
    desk.actions.open_labels(folder / "no labels.nii.gz")
    may_end.set()
    desk.wait(lambda: asked == ["Open"])
    desk.wait(lambda: not desk.actions.workers.running)
    desk.wait(lambda: not desk.actions.scans.is_loading)
    assert control.asked_for == 0
    assert control.current.case == cases(desk)[0]
    assert list(desk.viewer.layers) == layers
    assert panel(desk).list.currentRow() == 0


def test_a_case_that_waits_is_given_up_where_the_list_is_closed_meanwhile(
    open_list: Callable[..., Desk], at_turn: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = open_list()
    control, layers = desk.actions.work_list, list(desk.viewer.layers)
    may_end = held_back(monkeypatch, control_module, "save_case", at="start")
    at_turn(1, lambda: desk.labels.__setitem__((2, slice(3, 5), slice(3, 5)), LIVER))
    press(panel(desk).next)
    desk.wait(lambda: control._is_saving)
    control.close()
    may_end.set()
    desk.wait(lambda: work_list(desk) is None)
    desk.wait(lambda: not desk.actions.scans.is_loading)
    assert list(desk.viewer.layers) == layers


def test_a_case_that_is_being_read_is_given_up_where_labels_are_opened_meanwhile(
    open_list: Callable[..., Desk], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = open_list()
    control, volume = desk.actions.work_list, desk.session.volume
    theirs = LabelVolume.like(volume)
    theirs.data[2, 3:5, 3:5] = LIVER
    path = write_labels(folder.parent / "theirs.nii.gz", theirs)
    may_end = held_back(monkeypatch, control_module, "read_case")
    press(panel(desk).next)
    assert control.asked_for == 1
    desk.actions.open_labels(path)
    may_end.set()
    desk.wait(lambda: desk.labels.any())
    desk.wait(lambda: not desk.actions.workers.running)
    desk.settle()
    assert desk.session.volume is volume
    assert control.asked_for == panel(desk).list.currentRow() == 0
    press(panel(desk).next)
    at(desk, 1)
    assert (saved(folder, 1)[2, 3:5, 3:5] == LIVER).all()


def test_a_case_that_is_done_leads_to_the_next_though_that_is_on_its_way_already(
    open_list: Callable[..., Desk], monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = open_list()
    control = desk.actions.work_list
    accept_a_box(desk)
    press(panel(desk).next)
    at(desk, 1)
    press(panel(desk).previous)
    at(desk, 0)
    may_end = held_back(monkeypatch, control_module, "read_case")
    press(panel(desk).next)
    assert control.asked_for == 1
    control.finish()
    may_end.set()
    desk.wait(lambda: control.current is not None and control.current.case != cases(desk)[0])
    assert work_list(desk).status(cases(desk)[0]) == "done"
    at(desk, 1)


def test_a_copy_of_the_labels_that_cannot_be_finished_is_work_that_was_not_saved(
    open_list: Callable[..., Desk], folder: Path, asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of a scan larger than memory, whose labels have no room on the disk twice."""

    def full(*_: object) -> LabelVolume:
        raise LabelError("The disk of the labels has 3 MiB left; free some space.")

    desk = open_list()
    monkeypatch.setattr(leaving, "ask", lambda parent, verb, is_kept, name: asked.append(verb) or "cancel")
    accept_a_box(desk)
    with monkeypatch.context() as patch:
        patch.setattr(LabelsCopy, "finish", full)
        press(panel(desk).next)
        desk.wait(lambda: asked == ["Open"])
    assert any("3 MiB left" in text for text in desk.said)
    assert desk.actions.work_list.current.case == cases(desk)[0]
    assert desk.actions.work_list.needs_saving
    press(panel(desk).next)
    at(desk, 1)
    assert (saved(folder, 1) == LIVER).any()


def test_a_case_with_an_open_proposal_is_not_done_yet(open_list: Callable[..., Desk], folder: Path) -> None:
    desk = open_list()
    desk.session.select_organ(LIVER)
    box_the_organ(desk)
    desk.key(Qt.Key.Key_D, Qt.KeyboardModifier.AltModifier)
    assert "not accepted yet" in desk.said[-1]
    assert work_list(desk).counts["done"] == 0
    desk.key(Qt.Key.Key_Return)
    desk.key(Qt.Key.Key_D, Qt.KeyboardModifier.AltModifier)
    at(desk, 1)
    assert (saved(folder, 1) == LIVER).any()
    assert work_list(desk).counts["done"] == 1
