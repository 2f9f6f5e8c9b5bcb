"""The Experiments panel with real clicks: choose, run, cancel, and beside the widget."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
from pytestqt.qtbot import QtBot
from qtpy.QtCore import QObject, QPoint, Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication, QFileDialog, QLineEdit

from napari_sam_med.errors import ModelError
from napari_sam_med.gui import widget as main_widget
from napari_sam_med.gui.experiments import DOCK_NAME, open_experiments, opening_experiments
from napari_sam_med.gui.experiments_layers import BOX_NAME, POINTS_NAME, PREDICTION_NAME, TRUTH_NAME
from napari_sam_med.gui.experiments_waiting import Waiting
from napari_sam_med.session import experiment_jobs
from napari_sam_med.session.jobs import LoadedModel
from napari_sam_med.volume.slice_view import SliceView
from tests.gui.desk import LEFT, NO_KEY, Desk
from tests.gui.experiments_desk import (  # noqa: F401  fixtures
    PanelDesk,
    model_that_answers,
    no_other_programs_first,
    panel_desk,
    panels,
)
from tests.session.measured_model import MeasuredPredictor, labels_of


def test_a_run_from_the_choices_to_the_slice_behind_a_number(desk: PanelDesk) -> None:
    panel, choices = desk.panel, desk.panel.choices
    assert [choices.organs.item(n).text() for n in range(2)] == ["spleen  (4)", "liver  (6)"]
    choices.tick(["bound_box", "center_distance"])
    choices.slices.setValue(2)
    assert panel.estimate.text() == "2 slices, 8 answers, about 8 prompts."
    desk.run()
    assert len(desk.lab.scores) == 8
    assert panel.tabs.currentWidget() is panel.means
    means = panel.means.table.rows
    assert {means.row(n).strategy for n in range(means.rowCount())} == {"bound_box", "center_distance", ""}
    before = desk.viewer.layers["truth"].data.copy()

    score = desk.click_row(0)
    assert score.dice == min(one.dice for one in desk.lab.scores)  # worst first
    desk.wait_for_mask(score)
    assert desk.view == score.view
    prompt = BOX_NAME if score.strategy == "bound_box" else POINTS_NAME
    assert set(desk.own_layers()) == {TRUTH_NAME, PREDICTION_NAME, prompt}
    truth, drawn = desk.shown_mask(TRUTH_NAME), desk.shown_mask(PREDICTION_NAME)
    assert np.array_equal(truth, score.view.extract(before) == score.label)
    assert 2 * (truth & drawn).sum() / max(1, truth.sum() + drawn.sum()) == pytest.approx(score.dice)
    assert f"Dice {score.dice:.3f}" in panel.chosen.text()
    assert np.array_equal(desk.viewer.layers["truth"].data, before)

    desk.viewer.window.remove_dock_widget(panel.parentWidget())
    assert not desk.own_layers()
    assert len(desk.viewer.layers) == 2


def test_an_answer_in_another_plane_turns_the_viewer(desk: PanelDesk) -> None:
    choices = desk.panel.choices
    choices.tick(["bound_box+center_distance"])
    assert choices.more.text() == "bound_box+center_distance"
    desk.click(choices.planes["axial"])
    desk.click(choices.planes["coronal"])
    desk.wait(lambda: desk.lab.survey is not None)
    choices.slices.setValue(1)
    desk.run()
    assert {score.view.plane for score in desk.lab.scores} == {"coronal"}
    score = desk.click_row(0)
    desk.wait_for_mask(score)
    assert desk.view == score.view
    assert {BOX_NAME, POINTS_NAME} <= set(desk.own_layers())
    box = desk.own_layers()[BOX_NAME].data[0]
    left, top, right, bottom = score.prompts.box_xyxy
    corners = [score.view.index_zyx(xy, desk.volume.shape) for xy in ((left, top), (right, bottom))]
    assert np.allclose(box.min(axis=0), np.min(corners, axis=0))
    assert np.allclose(box.max(axis=0), np.max(corners, axis=0))


def test_cancelling_keeps_what_was_measured(desk: PanelDesk, answering: MeasuredPredictor) -> None:
    desk.panel.choices.tick(["bound_box"])
    answering.batch_gate.clear()
    answering.free = 1
    desk.click(desk.panel.run)
    desk.wait(lambda: answering.batches == 2 and desk.lab.scores)
    desk.click(desk.panel.cancel)
    answering.batch_gate.set()
    desk.wait(lambda: not desk.control.is_running)
    count = len(desk.lab.scores)
    assert 0 < count < 10
    assert f"Stopped after {count} answers" in desk.said[-1]
    desk.wait(lambda: desk.lab.means is not None)
    assert sum(row.count for row in desk.lab.means.rows if row.strategy) == count
    assert desk.panel.run.isVisible()
    desk.run()  # and again, to the end
    assert len(desk.lab.scores) == 10


def test_a_run_that_comes_to_nothing_keeps_the_earlier_results(
    desk: PanelDesk, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    choices = desk.panel.choices
    choices.tick(["bound_box"])
    desk.run()
    scores, means = desk.lab.scores, desk.lab.means
    choices.tick([f"boxes:{tmp_path / 'gone.csv'}"])
    assert "10 answers, about 10 prompts" in desk.panel.estimate.text()  # no file is read for that
    desk.panel.tabs.setCurrentIndex(0)
    desk.run()
    assert "There is no file of boxes" in desk.panel.status.text()
    choices.tick(["center_mask"])
    with monkeypatch.context() as patch:
        patch.setattr(experiment_jobs, "load_model", _gone)
        desk.control._loaded.clear()
        desk.run()
    assert "nano is damaged" in desk.panel.status.text()
    load, gate = experiment_jobs.load_model, threading.Event()
    monkeypatch.setattr(experiment_jobs, "load_model", lambda *given: gate.wait(60) and load(*given))
    desk.click(desk.panel.run)
    desk.wait(lambda: desk.panel.estimate.text() == "loading nano")
    desk.click(desk.panel.cancel)
    gate.set()
    desk.wait(lambda: not desk.control.is_running)
    assert desk.panel.status.text() == "Stopped before the first answer. The earlier results stay."
    assert desk.lab.scores is scores
    assert desk.lab.means is means
    assert desk.panel.tabs.currentIndex() == 0  # where what went wrong can be put right


def _gone(model: str, device: str) -> LoadedModel:
    raise ModelError("nano is damaged; install the package again.")


def test_what_was_left_out_is_said_at_the_end(desk: PanelDesk, answering: MeasuredPredictor) -> None:
    answering.accepts = frozenset({"box"})
    desk.panel.choices.tick(["bound_box", "center_mask"])
    desk.run()
    assert desk.panel.status.text().startswith("10 answers.")
    assert "nano takes no point prompts; center_mask was left out" in desk.panel.status.text()


def test_closing_the_panel_cancels_the_run(desk: PanelDesk, answering: MeasuredPredictor) -> None:
    desk.panel.choices.tick(["bound_box"])
    answering.batch_gate.clear()
    desk.click(desk.panel.run)
    desk.wait(lambda: answering.batches == 1)
    job = desk.control._job
    answering.batch_gate.set()
    desk.viewer.window.remove_dock_widget(desk.panel.parentWidget())
    desk.wait(lambda: not job.is_running)
    assert job.was_cancelled
    assert not desk.control.is_running
    assert not desk.control._loaded  # as the window may keep the panel alive
    assert desk.control.data.labels is None


def test_a_run_does_not_wait_for_a_widget_that_is_gone(qtbot: QtBot) -> None:
    busy = Mock(model=Mock(is_answering=True), carrying=Mock(is_busy=False))
    beside, job, parent = [busy], Mock(), QObject()
    waiting = Waiting(lambda: beside[0], lambda: False, parent)
    waiting.begin(job)
    job.pause.assert_called_once()
    beside[0] = None  # closed, and never says that it has answered
    qtbot.waitUntil(lambda: job.resume.called)


def test_errors_are_one_line(desk: PanelDesk, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    choices = desk.panel.choices
    choices.tick([])
    desk.click(desk.panel.run)
    assert "tick at least one" in desk.panel.status.text()
    choices.tick(["no_such_box+bound_box"])
    desk.click(desk.panel.run)
    assert 'no prompt strategy "no_such_box"' in desk.panel.status.text()
    choices.tick(["bound_box"])
    desk.click(choices.no_organs)
    desk.click(desk.panel.run)
    assert "No organ is ticked" in desk.panel.status.text()
    desk.click(choices.all_organs)
    choices.min_area.setValue(9999)
    desk.wait(lambda: desk.lab.survey is not None)
    desk.run()
    assert "9999 or more pixels of a chosen organ" in desk.panel.status.text()
    choices.min_area.setValue(20)

    monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *_, **__: str(tmp_path))
    desk.click(desk.panel.open)
    desk.wait(lambda: not desk.control.is_filing)
    assert "has no results.csv" in desk.panel.status.text()


def test_labels_on_another_grid_are_refused(make_panel: Callable[..., PanelDesk], volume) -> None:
    desk = make_panel()
    assert "labels" in desk.panel.choices.organs_note.text()
    desk.add_labels(labels_of(volume), translate=(0.0, 0.0, 40.0))
    desk.wait(lambda: desk.said)
    assert "lie elsewhere than the scan" in desk.panel.status.text()
    desk.panel.say("")
    desk.run()
    assert "lie elsewhere than the scan" in desk.panel.status.text()


def test_painting_goes_on_and_is_noticed(desk: PanelDesk) -> None:
    layer = desk.viewer.layers["truth"]
    layer.selected_label = 9
    layer.mode = "paint"
    layer.paint((3, 20, 4), 9)
    desk.wait(lambda: 9 in (desk.lab.survey.names if desk.lab.survey else {}))
    organs = desk.panel.choices.organs
    assert organs.count() == 3


def test_the_panel_is_docked_once_what_it_imports_is_there(
    desk_with_widget: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk, may_end = desk_with_widget, threading.Event()
    plain = experiment_jobs.catalogue

    def catalogue():
        assert may_end.wait(10)
        return (yield from plain())

    monkeypatch.setattr(main_widget, "catalogue", catalogue)
    said = desk.widget.status.text.text()
    desk.widget.experiments.click()
    desk.settle()
    assert DOCK_NAME not in desk.viewer.window.dock_widgets
    assert desk.widget.status.text.text() == "Opening Experiments…"
    may_end.set()
    desk.wait(lambda: DOCK_NAME in desk.viewer.window.dock_widgets)
    desk.wait(lambda: desk.widget.status.text.text() == said)
    desk.viewer.window.dock_widgets[DOCK_NAME].stop()


def test_the_panel_opens_beside_the_widget_and_takes_its_scan(
    desk_with_widget: Desk, answering: MeasuredPredictor
) -> None:
    desk = desk_with_widget
    desk.widget._scroll.ensureWidgetVisible(desk.widget.experiments)
    desk.settle()
    QTest.mouseClick(desk.widget.experiments, LEFT, NO_KEY, desk.widget.experiments.rect().center())
    desk.wait(lambda: DOCK_NAME in desk.viewer.window.dock_widgets)
    panel = desk.viewer.window.dock_widgets[DOCK_NAME]
    try:
        assert panel.isVisible()
        assert panel.control.data.image is desk.bridge.image_layer
        assert panel.control.data.labels is desk.bridge.labels_layer
        desk.bridge.set_tool("box")
        change = desk.session.labels.assign(SliceView("axial", 3), _square(desk), 6)
        assert not change.is_empty
        desk.wait(
            lambda: panel.control.lab.survey is not None and panel.control.lab.survey.names == {6: "liver"}
        )
        panel.choices.tick(["bound_box"])
        answering.batch_gate.clear()
        panel._run()
        desk.wait(lambda: answering.batches == 1)
        # a prompt goes first: the run waits between two steps
        desk.look_at(SliceView("axial", 3))
        desk.actions.model.answering.emit(True)
        answering.batch_gate.set()
        desk.actions.model.answering.emit(False)
        desk.wait(lambda: not panel.control.is_running)
        panel.look_at(panel.control.lab.scores[0])
        desk.wait(lambda: panel.control.lab.sight.prediction is not None)
        assert desk.bridge.tool == "box"  # the tool stays in the user's hand
        names = [layer.name for layer in desk.bridge.layers_of_type(type(desk.bridge.labels_layer))]
        assert TRUTH_NAME not in names
    finally:
        panel.stop()


@pytest.fixture
def desk_with_widget(make_desk: Callable[[], Desk], predictor, volume) -> Desk:
    """The SAM Med widget at work on the small volume."""
    made = make_desk()
    made.open(volume)
    made.actions.model._model = None  # so that the panel loads its own
    return made


def _square(desk: Desk) -> np.ndarray:
    mask = np.zeros(desk.session.volume.shape[1:], dtype=bool)
    mask[6:12, 8:16] = True
    return mask


def test_nothing_waits_for_the_run(desk: PanelDesk, answering: MeasuredPredictor) -> None:
    """While a model is busy, the window still answers clicks."""
    desk.panel.choices.tick(["bound_box"])
    answering.batch_gate.clear()
    desk.click(desk.panel.run)
    desk.wait(lambda: answering.batches == 1)
    desk.panel.tabs.setCurrentIndex(0)
    QApplication.processEvents()
    desk.click(desk.panel.choices.no_organs)
    assert desk.panel.choices.choice().organs == frozenset({-1})
    answering.batch_gate.set()
    desk.wait(lambda: not desk.control.is_running)


def test_the_panel_follows_the_open_scan(desk_with_widget: Desk, make_volume: Callable) -> None:
    desk = desk_with_widget
    panel = open_experiments(desk.viewer)
    try:
        assert open_experiments(desk.viewer) is panel  # there is one of them
        other = make_volume((9, 20, 28))
        layer = desk.viewer.add_image(other.data, metadata={"sam_med": other}, **other.display_transform)
        assert panel.control.data.image is not layer
        desk.actions.open_scan(layer)
        desk.wait(lambda: desk.bridge.image_layer is layer and panel.control.data.image is layer)
        desk.wait(lambda: panel.control.data.labels is desk.bridge.labels_layer)
    finally:
        panel.stop()


def test_a_panel_whose_opening_ends_half_way_is_whole(desk_with_widget: Desk) -> None:
    """The widget that opens it may be closed between two steps."""
    desk = desk_with_widget
    steps = opening_experiments(desk.viewer)
    while DOCK_NAME not in desk.viewer.window.dock_widgets:
        next(steps)
    steps.close()
    panel = desk.viewer.window.dock_widgets[DOCK_NAME]
    try:
        desk.settle()
        assert panel.tabs.isVisibleTo(panel)
    finally:
        panel.stop()


def test_parameters_are_edited_and_snapping_is_switched_by_clicks(desk: PanelDesk) -> None:
    tree = desk.panel.choices.strategies
    items = {item.text(0): item for item in tree.items()}

    def click(name: str, column: int, x: int) -> None:
        tree.scrollToItem(items[name])
        desk.settle()
        place = tree.visualItemRect(items[name])
        left = place.left() if column == 0 else tree.columnViewportPosition(1)
        desk.click(tree.viewport(), QPoint(left + x, place.center().y()))

    desk.panel.choices.tick([])
    click("center_box", 0, 8)
    click("center_box", 1, 12)
    assert tree.names() == ["center_box:snap"]
    click("larger_box", 0, 8)
    click("larger_box", 1, 12)
    editor = tree.viewport().findChild(QLineEdit)
    editor.setText("3, 8")
    QTest.keyClick(editor, Qt.Key.Key_Return)
    desk.settle()
    assert tree.names() == ["larger_box:3", "larger_box:8", "center_box:snap"]
    assert desk.lab.choice.strategies == ("larger_box:3", "larger_box:8", "center_box:snap")
    protocol = desk.panel.choices.protocol
    protocol.setCurrentIndex(protocol.findText("box-margins"))
    protocol.activated.emit(protocol.currentIndex())
    assert tree.names() == [f"random_margin_box:{margin}" for margin in range(-20, 41, 10)]
