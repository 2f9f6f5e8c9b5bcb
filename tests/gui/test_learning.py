"""Learning from one's own volumes in the widget: estimate, run, stop, go on, use the model."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from napari_sam_med.errors import ExportError
from napari_sam_med.gui import workers
from napari_sam_med.gui.learn_panel import LearnPanel
from napari_sam_med.progress import Progress
from napari_sam_med.session import learning as learning_jobs
from napari_sam_med.training import own_models, tuning_run
from napari_sam_med.training.finetuning import Epoch
from napari_sam_med.volume.slice_view import SliceView
from tests.gui import find_desk
from tests.gui.desk import Desk
from tests.gui.fake_model import FakePredictor
from tests.gui.find_desk import Search
from tests.gui.learn_desk import Gate, add_cases, press, unfolded


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


@pytest.fixture
def panel(desk: Desk) -> LearnPanel:
    """The section, unfolded, with its recipes."""
    return unfolded(desk)


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


def test_training_waits_while_a_prompt_is_answered_and_while_objects_are_looked_for(
    desk: Desk,
    panel: LearnPanel,
    predictor: FakePredictor,
    search: Search,
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
    search.gate.clear()
    find_desk.start(desk)
    desk.qtbot.wait(50)
    before = len(done)
    desk.qtbot.wait(150)
    assert len(done) == before
    search.gate.set()
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
    assert "disk is full" in desk.said[-1]
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


def write_model(name: str, base: str = "nano") -> Path:
    """The folder of a model that another session has made, all but the weights as they are written."""
    folder = own_models.model_folder(name)
    folder.mkdir(parents=True)
    scores = {
        when: {"bound_box": {"mdice_organs": dice, "organs": {"heart": dice}}}
        for when, dice in (("before", 0.5), ("after", 0.75))
    }
    card = {
        "base": {"model": base},
        "improved": True,
        "best_epoch": 3,
        "scores": scores,
        "scored_on": "val and test cases",
    }
    (folder / "card.json").write_text(json.dumps(card), encoding="utf-8")
    rows = "epoch,loss,train_dice,held_out_dice\n0,,,0.5\n3,0.1,0.8,0.75\n4,0.1,0.8,0.7\n"
    (folder / "curves.csv").write_text(rows, encoding="utf-8")
    (folder / "model.safetensors").write_bytes(b"")
    return folder


def test_the_table_of_an_own_model_is_shown_whenever_it_is_chosen(desk: Desk, panel: LearnPanel) -> None:
    hearts, more = write_model("hearts"), write_model("my nano 2", base="hearts")
    assert not panel.scores.isVisible()
    models = desk.widget.model_panel
    models.choose(str(hearts))
    assert panel.scores.isVisible()
    row = panel.scores.topLevelItem(0)
    assert [row.text(column) for column in range(4)] == ["box", "0.500", "0.750", "+0.250"]
    assert row.child(0).text(0) == "heart"
    assert '"hearts", epoch 3 was kept' in panel.scored_on.text()
    assert [point[0] for point in panel.curves.points] == [0, 3, 4]
    assert not panel.use.isVisible()

    models.choose(str(more / "model.safetensors"))
    assert '"my nano 2"' in panel.scored_on.text()
    assert panel.back.text() == 'Back to "hearts"'
    press(desk, panel.back)
    assert desk.session.model == str(hearts)
    assert '"hearts"' in panel.scored_on.text()
    press(desk, panel.back)
    assert desk.session.model == "nano"
    assert not panel.back.isVisible()
    press(desk, panel.use)  # it is still shown
    assert desk.session.model == str(hearts)

    (more / "card.json").write_text('{"scores": []}', encoding="utf-8")
    models.choose(str(more))
    assert not panel.scores.isVisible()
    assert not panel.curves.isVisible()
    assert not panel.back.isVisible()


def test_the_name_offered_is_free_and_one_that_was_typed_stays(
    desk: Desk, panel: LearnPanel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(learning_jobs, "learn", endless)
    add_cases(desk, tmp_path, monkeypatch)
    assert panel.name.text() == "my nano"
    press(desk, panel.start)
    assert panel.name.text() == "my nano 2"
    press(desk, panel.stop)
    desk.wait(lambda: not desk.actions.learning.is_running)
    desk.widget.model_panel.choose(str(write_model("my nano 2")))
    assert panel.name.text() == "my nano 3"
    desk.widget.model_panel.choose(str(tmp_path / "other.pth"))
    assert panel.name.text() == "my other"
    panel.name.setText("hearts")
    desk.widget.model_panel.choose("nano")
    assert panel.name.text() == "hearts"


def endless(plan: own_models.Plan, *, is_remembered: bool) -> Iterator[tuning_run.TuningStep]:
    """A run in its first epoch for ever."""
    own_models.write_plan(plan)
    while True:
        time.sleep(0.01)
        yield tuning_run.TuningStep(Progress(1, 10**6, "epoch 1"))


def test_that_a_run_begins_anew_is_told(
    desk: Desk, panel: LearnPanel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def learn(plan: own_models.Plan, *, is_remembered: bool) -> Iterator[tuning_run.TuningStep]:
        yield tuning_run.TuningStep(Progress(0, 1, "model as it was"), warning="another one; use -o")
        yield from endless(plan, is_remembered=is_remembered)

    monkeypatch.setattr(learning_jobs, "learn", learn)
    add_cases(desk, tmp_path, monkeypatch)
    press(desk, panel.start)
    desk.wait(lambda: "begins anew" in desk.said[-1])
    press(desk, panel.stop)
    desk.wait(lambda: not desk.actions.learning.is_running)


def test_a_run_of_another_window_is_left_alone_until_that_is_closed(
    make_desk: Callable[[], Desk],
    predictor: FakePredictor,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(learning_jobs, "learn", endless)
    first = make_desk()
    panel = unfolded(first)
    add_cases(first, tmp_path, monkeypatch)
    press(first, panel.start)
    output = own_models.model_folder("my nano")
    first.wait(lambda: own_models.read_plan(output) is not None)

    second = make_desk()
    other = unfolded(second)
    assert not other.go_on.isVisible()
    other.name.setText("my nano")
    press(second, other.start)
    assert "in another window" in second.said[-1]
    first.widget.stop()
    other.name.setText("my nano")
    press(second, other.start)
    assert second.actions.learning.is_running
    press(second, other.stop)
    second.wait(lambda: not second.actions.learning.is_running)
    press(second, other.discard)
    assert not output.exists()
