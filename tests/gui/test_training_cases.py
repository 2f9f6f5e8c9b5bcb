"""The list of volumes to learn from: what is added, updated, named, ticked and remembered."""

from __future__ import annotations

import gc
import threading
import weakref
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from qtpy.QtCore import Qt

from napari_sam_med.gui.learn_panel import LearnPanel
from napari_sam_med.session import learning as learning_jobs
from napari_sam_med.training import own_models
from napari_sam_med.volume.reading import read_labels
from tests.gui.desk import Desk
from tests.gui.learn_desk import add_cases, label_a_slice, open_case, press, shown, unfolded
from tests.gui.test_carrying import accept_a_box
from tests.gui.test_journal import kept
from tests.training.ring_cases import write_case


@pytest.fixture
def panel(desk: Desk) -> LearnPanel:
    """The section, unfolded, with its recipes."""
    return unfolded(desk)


def test_the_open_scan_is_added_with_its_labels_once(desk: Desk, panel: LearnPanel, tmp_path: Path) -> None:
    scan, _ = open_case(desk, tmp_path)
    press(desk, panel.add_volume)
    assert "no labelled voxel" in desk.said[-1]
    label_a_slice(desk)
    press(desk, panel.add_volume)
    assert any("A copy of the labels" in text for text in desk.said)
    desk.wait(lambda: shown(panel) == [(scan.name, "1", True)])
    [case] = desk.actions.learning.cases.listed
    assert case.labels_path.parent == own_models.training_labels_folder()
    assert (np.asarray(nib.load(case.labels_path).dataobj) > 0).sum() == (desk.labels > 0).sum()
    assert desk.actions.keeping.has_unexported_work  # the copy is not the user's own export

    panel.cases.topLevelItem(0).setCheckState(0, Qt.CheckState.Unchecked)
    label_a_slice(desk, 3)
    press(desk, panel.add_volume)
    desk.wait(lambda: shown(panel) == [(scan.name, "2", False)])  # updated, and still only judged
    assert "1 updated" in desk.said[-1]
    [remembered] = own_models.read_case_list(own_models.case_list_path())
    assert (remembered.image_path, remembered.split) == (scan, "val")


def test_labels_that_were_opened_are_learned_from_as_they_are_open(
    desk: Desk, panel: LearnPanel, tmp_path: Path
) -> None:
    _, labels = open_case(desk, tmp_path)
    desk.actions.open_labels(labels)
    desk.wait(lambda: desk.labels.any())
    press(desk, panel.add_volume)
    desk.wait(lambda: [count for _, count, _ in shown(panel)] == ["3"])
    [case] = desk.actions.learning.cases.listed
    assert case.labels_path not in (case.image_path, labels)
    assert np.array_equal(read_labels(case.labels_path).data, read_labels(labels).data)


def test_exported_labels_are_learned_from_where_they_are(
    desk: Desk, panel: LearnPanel, tmp_path: Path
) -> None:
    open_case(desk, tmp_path)
    label_a_slice(desk)
    out = tmp_path / "mine.nii.gz"
    desk.widget.export_panel.export_to(out)
    desk.wait(lambda: not desk.actions.keeping.has_unexported_work)
    press(desk, panel.add_volume)
    desk.wait(lambda: len(desk.actions.learning.cases.listed) == 1)
    assert desk.actions.learning.cases.listed[0].labels_path == out
    assert not own_models.training_labels_folder().exists()


def test_nothing_is_kept_when_nothing_is_to_be_kept(
    desk: Desk, panel: LearnPanel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.actions.settings.keeps_nothing = True
    add_cases(desk, tmp_path, monkeypatch)
    assert len(shown(panel)) == 2
    assert not own_models.case_list_path().exists()
    open_case(desk, tmp_path)
    label_a_slice(desk)
    press(desk, panel.add_volume)
    assert "export them first" in desk.said[-1]
    assert len(shown(panel)) == 2


def test_rows_are_removed_and_a_damaged_file_changes_nothing(
    desk: Desk, panel: LearnPanel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = add_cases(desk, tmp_path, monkeypatch)
    assert shown(panel) == [("scan1", "3", True), ("scan2", "2", False)]
    (tmp_path / "again").mkdir()
    again = [write_case(tmp_path / "again", 1, depth=2)]
    own_models.write_case_list(path, again)
    panel._ask_file()
    assert [name for name, *_ in shown(panel)] == ["scan1", "scan2", "again/scan1"]
    desk.actions.learning.cases.remove(again)
    path.write_text("nonsense\n1\n", encoding="utf-8")
    panel._ask_file()
    assert "image,labels" in desk.said[-1]
    press(desk, panel.remove)
    assert "first" in desk.said[-1]
    panel.cases.topLevelItem(0).setSelected(True)
    press(desk, panel.remove)
    assert [name for name, *_ in shown(panel)] == ["scan2"]
    press(desk, panel.start)
    assert "only judged" in desk.said[-1]
    assert (tmp_path / "scan1.nii.gz").exists()


def test_files_that_are_called_alike_go_by_their_folders(
    desk: Desk, panel: LearnPanel, tmp_path: Path
) -> None:
    for patient in ("anna", "bert", "carl"):
        case = write_case(tmp_path / patient, 1, depth=3)
        path = case.image_path.rename(tmp_path / patient / "image.nii.gz")
        listed = tmp_path / f"{patient}.csv"
        listed.write_text(f"image,labels\n{path},{case.labels_path}\n", encoding="utf-8")
        desk.actions.learning.cases.add_from(listed)
    assert [name for name, *_ in shown(panel)] == ["anna", "bert", "carl"]
    desk.actions.learning.cases.add_from(tmp_path / "anna.csv")  # once more
    assert [name for name, *_ in shown(panel)] == ["anna", "bert", "carl"]


def test_volumes_of_one_patient_are_learned_from_or_judged_together(
    desk: Desk, panel: LearnPanel, tmp_path: Path
) -> None:
    cases = [write_case(tmp_path, seed, depth=3) for seed in (1, 2, 3)]
    cases = [replace(case, patient=who) for case, who in zip(cases, ("p", "p", "q"), strict=True)]
    path = tmp_path / "cases.csv"
    own_models.write_case_list(path, cases)
    desk.actions.learning.cases.add_from(path)
    panel.cases.topLevelItem(1).setCheckState(0, Qt.CheckState.Unchecked)
    assert [is_ticked for *_, is_ticked in shown(panel)] == [False, False, True]
    assert "2 volumes of one patient" in desk.said[-1]

    late = tmp_path / "late.csv"
    own_models.write_case_list(late, [replace(write_case(tmp_path, 4, depth=3), patient="p", split="train")])
    desk.actions.learning.cases.add_from(late)
    press(desk, panel.start)
    assert "tick both or none" in desk.said[-1]
    assert not desk.actions.learning.is_running


def test_labels_that_changed_are_counted_anew_also_while_others_are_counted(
    desk: Desk, panel: LearnPanel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted: list[list[str]] = []
    gate = threading.Event()

    def count_slices(cases):
        counted.append([case.name for case in cases])
        for case in cases:
            gate.wait(60)
            yield case, len(counted)

    monkeypatch.setattr(learning_jobs, "count_slices", count_slices)
    path = tmp_path / "cases.csv"
    for seed in (1, 2):
        own_models.write_case_list(path, [write_case(tmp_path, seed, depth=3)])
        desk.actions.learning.cases.add_from(path)
        desk.wait(lambda: len(counted) == len(desk.actions.learning.cases.listed))
    gate.set()
    desk.wait(lambda: [count for _, count, _ in shown(panel)] == ["2", "2"])
    assert counted == [["scan1"], ["scan1", "scan2"]]


def test_labels_that_were_exported_go_with_their_scan(desk: Desk, tmp_path: Path) -> None:
    accept_a_box(desk)
    kept(desk)
    desk.actions.export(tmp_path / "work.nii.gz")
    desk.wait(lambda: not desk.actions.keeping.has_unexported_work)
    desk.wait(lambda: not desk.actions.workers.running)
    labels = weakref.ref(desk.session.labels)
    for layer in (desk.bridge.image_layer, desk.bridge.labels_layer):
        desk.viewer.layers.remove(layer)
    del layer
    desk.wait(lambda: desk.session.volume is None)
    desk.settle()
    gc.collect()
    assert labels() is None
