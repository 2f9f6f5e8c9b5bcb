"""Learning from one's own volumes in the widget: list, estimate, run, stop, go on, use the model."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from qtpy.QtCore import Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QFileDialog, QPushButton

from napari_sam_med.errors import ExportError
from napari_sam_med.gui import workers
from napari_sam_med.gui.learn_panel import LearnPanel
from napari_sam_med.progress import Progress
from napari_sam_med.session import learning as learning_jobs
from napari_sam_med.training import own_models, tuning_run
from napari_sam_med.training.finetuning import Epoch
from napari_sam_med.volume.reading import read_labels
from napari_sam_med.volume.slice_view import SliceView
from tests.gui.desk import LEFT, NO_KEY, Desk
from tests.gui.fake_model import FakePredictor
from tests.training.ring_cases import write_case


@pytest.fixture(autouse=True)
def no_other_programs_first(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The tests share the machine with others: they would wait for all of those, and two threads for each
    other.
    """
    monkeypatch.setattr(workers, "_give_way", lambda: None)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def press(desk: Desk, made: QPushButton) -> None:
    """A real click; the section is unfolded and in sight."""
    desk.widget._scroll.ensureWidgetVisible(made)
    desk.settle()
    assert made.isVisible()
    assert made.isEnabled(), made.text()
    QTest.mouseClick(made, LEFT, NO_KEY, made.rect().center())
    desk.settle()


@pytest.fixture
def panel(desk: Desk) -> LearnPanel:
    """The section, unfolded, with its recipes."""
    made = desk.widget.learn_panel
    assert not made.isExpanded()
    made.expand(animate=False)
    desk.wait(lambda: made.recipe.count() > 0)
    return made


def shown(panel: LearnPanel) -> list[tuple[str, str, bool]]:
    """Name, labelled slices and tick of each row."""
    items = [panel.cases.topLevelItem(i) for i in range(panel.cases.topLevelItemCount())]
    return [(i.text(0), i.text(1), i.checkState(0) == Qt.CheckState.Checked) for i in items]


def add_cases(desk: Desk, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two ring volumes through a cases file and the dialog: one to learn from, one to judge by."""
    cases = [write_case(folder, 1, depth=4), write_case(folder, 2, depth=3, split="val")]
    path = folder / "cases.csv"
    own_models.write_case_list(path, cases)
    monkeypatch.setattr(QFileDialog, "getOpenFileName", lambda *_, **__: (str(path), ""))
    desk.widget.learn_panel._ask_file()
    desk.wait(lambda: len(desk.actions.learning.counts) == 2)
    return path


def open_case(desk: Desk, folder: Path, seed: int = 5) -> tuple[Path, Path]:
    """Open a ring volume from its file."""
    case = write_case(folder, seed, depth=4)
    before = desk.session.volume
    desk.actions.open_scan(case.image_path)
    desk.wait(lambda: desk.session.volume is not None and desk.session.volume is not before)
    desk.settle()
    return case.image_path, case.labels_path


def label_a_slice(desk: Desk, z: int = 2) -> None:
    """Accept a box on the bright disc."""
    desk.look_at(SliceView("axial", z))
    desk.bridge.set_tool("box")
    desk.drag((z, 12, 40), (z, 28, 66))
    desk.wait_for_proposal()
    desk.key(Qt.Key.Key_Return)


def test_the_open_scan_is_added_with_its_labels_once(desk: Desk, panel: LearnPanel, tmp_path: Path) -> None:
    scan, _ = open_case(desk, tmp_path)
    press(desk, panel.add_volume)
    assert "no labelled voxel" in desk.said[-1]
    label_a_slice(desk)
    press(desk, panel.add_volume)
    assert any("A copy of the labels" in text for text in desk.said)
    desk.wait(lambda: shown(panel) == [(scan.name, "1", True)])
    [case] = desk.actions.learning.cases
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
    [case] = desk.actions.learning.cases
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
    desk.wait(lambda: len(desk.actions.learning.cases) == 1)
    assert desk.actions.learning.cases[0].labels_path == out
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
    desk.actions.learning.remove(again)
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


def test_a_model_is_taught_stopped_gone_on_with_and_used(
    desk: Desk, panel: LearnPanel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real thing on tiny volumes, with boxes alone."""
    monkeypatch.setattr(tuning_run, "REPORTED", ("bound_box",))
    add_cases(desk, tmp_path, monkeypatch)
    panel.recipe.setCurrentIndex(panel.recipe.findText("gentle"))
    panel.recipe.activated.emit(panel.recipe.currentIndex())
    assert "MVTec" in panel.recipe.toolTip()
    panel.epochs.setValue(2)
    panel.views.setValue(0)
    panel.name.setText("rings")
    press(desk, panel.estimate)
    desk.wait(lambda: desk.actions.learning.cost is not None, timeout=300_000)
    desk.wait(lambda: not desk.actions.learning.is_estimating)
    assert panel.cost.isVisible()
    assert "2 slices in 2 views" in panel.cost.text()

    said: list[str] = []
    desk.actions.learning.progress.connect(lambda text, _: said.append(text))
    gate = Gate(learning_jobs.learn, lambda step: step.epoch is not None and step.epoch.number == 1)
    monkeypatch.setattr(learning_jobs, "learn", gate)
    press(desk, panel.start)
    assert panel.bar.isVisible()
    desk.wait(gate.reached.is_set, timeout=300_000)
    press(desk, panel.stop)
    gate.opened.set()
    desk.wait(lambda: not desk.actions.learning.is_running, timeout=300_000)
    assert "stopped after epoch 1" in desk.said[-1]
    assert [point[0] for point in panel.curves.points] == [0, 1]
    assert panel.go_on.text() == 'Go on with "rings"'
    output = own_models.model_folder("rings")
    assert not own_models.is_done(output)

    press(desk, panel.go_on)
    desk.wait(lambda: not desk.actions.learning.is_running, timeout=300_000)
    assert own_models.is_done(output), desk.said
    assert [point[0] for point in panel.curves.points] == [0, 1, 2]
    assert any("epoch 2 of 2" in text for text in said)
    assert not panel.go_on.isVisible()
    rows = [panel.scores.topLevelItem(i) for i in range(panel.scores.topLevelItemCount())]
    assert rows[0].text(0) == "box"
    assert [rows[0].child(i).text(0) for i in range(rows[0].childCount())] == ["ring", "disc"]
    assert "Not for clinical use" in panel.scored_on.text()
    press(desk, panel.use)
    assert desk.session.model == str(output)
    desk.wait(lambda: desk.actions.model.model is not None)
    models = desk.widget.model_panel.models
    assert models.currentData() == str(output)
    assert "rings" in models.currentText()
    press(desk, panel.back)
    assert desk.session.model == "nano"
    assert models.findData(str(output)) >= 0  # still offered


class Gate:
    """A job that waits, after the first step that fits, until the test has acted."""

    def __init__(self, job: Callable[..., Any], fits: Callable[[Any], bool]) -> None:
        self._job, self._fits = job, fits
        self.reached, self.opened = threading.Event(), threading.Event()

    def __call__(self, *arguments: Any, **options: Any):
        for step in self._job(*arguments, **options):
            yield step
            if self._fits(step) and not self.opened.is_set():
                self.reached.set()
                self.opened.wait(60)
                yield step


def test_training_waits_while_a_prompt_is_answered(
    desk: Desk,
    panel: LearnPanel,
    predictor: FakePredictor,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    done: list[int] = []

    def learn(plan: own_models.Plan, *, is_remembered: bool):
        while True:
            done.append(len(done))
            time.sleep(0.01)
            yield tuning_run.TuningStep(Progress(len(done), 10**6, "epoch 1"))

    monkeypatch.setattr(learning_jobs, "learn", learn)
    add_cases(desk, tmp_path, monkeypatch)
    press(desk, panel.start)
    desk.wait(lambda: len(done) > 3)
    desk.look_at(SliceView("axial", 3))
    predictor.gate.clear()
    desk.actions.model.model.store.kept.clear()
    desk.bridge.set_tool("box")
    desk.drag((3, 4, 6), (3, 13, 17))
    assert desk.actions.model.is_answering
    desk.qtbot.wait(50)  # the step under way ends
    before = len(done)
    desk.qtbot.wait(150)
    assert len(done) == before
    predictor.gate.set()
    desk.wait_for_proposal()
    desk.wait(lambda: len(done) > before)
    press(desk, panel.stop)
    desk.wait(lambda: not desk.actions.learning.is_running)


def test_a_run_that_fails_is_one_line_and_can_be_gone_on_with_or_discarded(
    desk: Desk, panel: LearnPanel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def learn(plan: own_models.Plan, *, is_remembered: bool):
        own_models.write_plan(plan)
        yield tuning_run.TuningStep(Progress(0, 2, "model as it was"), Epoch(0, 0.0, 0.5, 0.5))
        raise ExportError("The disk is full; make room.")

    monkeypatch.setattr(learning_jobs, "learn", learn)
    add_cases(desk, tmp_path, monkeypatch)
    panel.name.setText("full")
    press(desk, panel.start)
    desk.wait(lambda: not desk.actions.learning.is_running)
    assert any("disk is full" in text for text in desk.said)
    assert panel.go_on.text() == 'Go on with "full"'
    panel.epochs.setValue(panel.epochs.value() + 1)
    panel.name.setText("full")
    press(desk, panel.start)
    assert "another run that was stopped" in desk.said[-1]
    press(desk, panel.discard)
    assert not own_models.model_folder("full").exists()
    assert not panel.go_on.isVisible()
    panel.name.setText("a/b")
    press(desk, panel.start)
    assert "cannot be called" in desk.said[-1]
