"""What the Experiments panel measured, with real clicks: sort, look at an answer, plot, save, open again."""

from __future__ import annotations

import csv
import json
import threading
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from qtpy.QtCore import QPoint, Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QFileDialog

from napari_sam_med.gui.experiments_layers import TRUTH_NAME
from napari_sam_med.progress import Progress
from napari_sam_med.session import experiment_results
from tests.gui.experiments_desk import (  # noqa: F401  fixtures
    PanelDesk,
    model_that_answers,
    no_other_programs_first,
    panel_desk,
    panels,
)


def test_clicking_a_heading_sorts_and_keeps_the_row_that_is_looked_at(desk: PanelDesk) -> None:
    desk.panel.choices.tick(["bound_box", "center_distance"])
    desk.run()
    score = desk.click_row(3)
    table = desk.panel.answers.table
    header = table.horizontalHeader()
    titles = [column.title for column in table.rows.columns]
    column = titles.index("Dice")
    place = QPoint(header.sectionViewportPosition(column) + 10, header.height() // 2)
    desk.click(header.viewport(), place)
    shown = [table.rows.row(n).dice for n in range(table.rows.rowCount())]
    assert shown == sorted(shown, reverse=True)
    assert shown != sorted(shown)
    assert table.rows.row(table.currentIndex().row()) is score
    organ = titles.index("Organ")
    desk.click(header.viewport(), QPoint(header.sectionViewportPosition(organ) + 10, header.height() // 2))
    organs = [table.rows.row(n).organ for n in range(table.rows.rowCount())]
    assert organs == sorted(organs)


def test_arrows_go_from_answer_to_answer(desk: PanelDesk) -> None:
    desk.panel.choices.tick(["bound_box"])
    desk.run()
    desk.click_row(0)
    table = desk.panel.answers.table
    QTest.keyClick(table, Qt.Key.Key_Down)
    score = table.rows.row(1)
    desk.wait_for_mask(score)
    assert desk.view == score.view


def test_a_mean_opens_its_answers_and_the_filter_shows_all_again(desk: PanelDesk) -> None:
    desk.panel.choices.tick(["bound_box", "center_distance"])
    desk.run()
    means, answers = desk.panel.means.table, desk.panel.answers
    row = next(n for n in range(means.rows.rowCount()) if means.rows.row(n).strategy == "center_distance")
    desk.click(means.viewport(), means.visualRect(means.rows.index(row, 0)).center())
    assert desk.panel.tabs.currentWidget() is answers
    shown = [answers.table.rows.row(n) for n in range(answers.table.rows.rowCount())]
    assert {score.strategy for score in shown} == {"center_distance"}
    assert answers.filter.strategy.currentText() == "center_distance"
    answers.filter.strategy.setCurrentIndex(0)
    answers.filter.strategy.activated.emit(0)
    assert answers.table.rows.rowCount() == len(desk.lab.scores)


@pytest.mark.parametrize("kind", ["dice", "predicted", "margins"])
def test_a_click_on_a_point_leads_to_its_slice(desk: PanelDesk, kind: str) -> None:
    desk.panel.choices.tick(["random_margin_box:0", "random_margin_box:5"])
    desk.run()
    plots = desk.panel.plots
    desk.panel.tabs.setCurrentWidget(plots)
    desk.settle()
    desk.click(plots.kinds[kind])
    plot = plots.plots[kind]
    assert plot.isVisible()
    for score in desk.lab.scores:
        if plot._at(plot.place_of(score)) is score:  # the topmost of those that lie together
            break
    desk.click(plot, plot.place_of(score).toPoint())
    assert desk.lab.chosen is score
    desk.wait_for_mask(score)
    assert desk.view == score.view
    table = desk.panel.answers.table
    assert table.rows.row(table.currentIndex().row()) is score


def test_margins_are_offered_only_where_they_were_measured(desk: PanelDesk) -> None:
    desk.panel.choices.tick(["bound_box"])
    desk.run()
    assert not desk.panel.plots.kinds["margins"].isEnabled()


def test_the_margins_stay_while_another_strategy_is_looked_at(desk: PanelDesk) -> None:
    desk.panel.choices.tick(["bound_box", "random_margin_box:0", "random_margin_box:5"])
    desk.run()
    means, plots = desk.panel.means.table, desk.panel.plots
    names = [means.rows.index(n, 0).data() for n in range(means.rows.rowCount())]
    assert set(names) == {
        "bound_box",
        "random_margin_box:0",
        "random_margin_box:5",
        "ellipse, no model",
        "whole box, no model",
    }
    desk.click(means.viewport(), means.visualRect(means.rows.index(names.index("bound_box"), 0)).center())
    desk.panel.tabs.setCurrentWidget(plots)
    desk.settle()
    desk.click(plots.kinds["margins"])
    assert plots.plots["margins"].isVisible()
    assert plots.plots["margins"].margins() == [0, 5]
    in_table = {row.strategy: row.dice for row in desk.lab.means.rows}
    for (model, margin), mean in plots.plots["margins"].means().items():
        assert model == "nano"
        assert mean == pytest.approx(in_table[f"random_margin_box:{margin}"])
    assert {score.strategy for score in plots.plots["dice"].scores} == {"bound_box"}


def test_the_report_is_saved_and_opened_again(
    desk: PanelDesk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "results"
    monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *_, **__: str(folder))
    desk.panel.choices.tick(["bound_box", "corrective_clicks:2"])
    desk.panel.choices.slices.setValue(2)
    desk.run()
    desk.click(desk.panel.save)
    desk.wait(lambda: not desk.control.is_filing)
    assert desk.said[-1] == f"Saved: {folder / 'report.html'}"
    with (folder / "results.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(desk.lab.scores) == 8
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    assert summary["run"]["strategies"] == ["bound_box", "corrective_clicks:2"]
    assert list(summary["run"]["model_sha256"]) == ["nano"]
    assert "<html" in (folder / "report.html").read_text(encoding="utf-8")
    assert list(folder.glob("figures/gallery*.png"))

    dice = sorted(score.dice for score in desk.lab.scores)
    desk.click(desk.panel.open)
    desk.wait(lambda: desk.lab.source is None and desk.lab.scores)
    assert sorted(score.dice for score in desk.lab.scores) == pytest.approx(dice, abs=1e-6)
    score = desk.click_row(0)
    desk.wait_for_mask(score)
    assert desk.view == score.view

    desk.run()
    desk.click(desk.panel.save)
    assert "holds results already" in desk.said[-1]


def test_saving_shows_how_far_it_is_and_can_be_stopped(
    desk: PanelDesk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *_, **__: str(tmp_path))
    panel, write = desk.panel, experiment_results.save_results
    panel.choices.tick(["bound_box"])
    panel.choices.slices.setValue(2)
    desk.run()
    gate = threading.Event()

    def slowly(*arguments: Any) -> Generator[Progress, None, Path]:
        job = write(*arguments)
        for progress in job:
            yield progress
            gate.wait(60)
        raise AssertionError("it was not stopped")

    with monkeypatch.context() as patch:
        patch.setattr(experiment_results, "save_results", slowly)
        desk.click(panel.save)
        desk.wait(lambda: panel.estimate.text() == "writing the results")
        assert panel.bar.isVisible()
        assert not panel.run.isVisible()
        desk.click(panel.cancel)
        gate.set()
        desk.wait(lambda: not desk.control.is_filing)
    assert "The report was not written" in panel.status.text()
    assert panel.run.isVisible()
    desk.click(panel.save)  # into the same folder
    desk.wait(lambda: not desk.control.is_filing)
    assert desk.said[-1] == f"Saved: {tmp_path / 'report.html'}"


def test_published_values_stand_beside_the_measured_ones(desk: PanelDesk) -> None:
    panel, choices = desk.panel, desk.panel.choices
    place = panel.tabs.indexOf(panel.study)
    desk.run()
    assert not panel.tabs.isTabVisible(place)
    choices.protocol.setCurrentIndex(choices.protocol.findText("btcv-prompts"))
    choices.protocol.activated.emit(choices.protocol.currentIndex())
    choices.slices.setValue(2)
    choices.more.setText("center_mask+background_corner")
    choices.more.editingFinished.emit()
    assert desk.lab.choice.protocol == "btcv-prompts"  # more than the study is measured
    desk.run()
    assert panel.tabs.isTabVisible(place)
    panel.tabs.setCurrentIndex(place)
    desk.settle()
    told = panel.study.text.toPlainText()
    for text in ("published test: original", "0.8649", "a box beats clicks", "in 3 of 9 where three"):
        assert text in told
    bound_box = next(row.dice for row in desk.lab.means.rows if row.strategy == "bound_box")
    assert f"{bound_box:.4f}" in told
    choices.tick(["bound_box"])
    assert desk.lab.choice.protocol == ""
    assert choices.protocol.currentText() == "Own choice"


def test_results_of_another_scan_say_so(desk: PanelDesk, tmp_path: Path) -> None:
    desk.panel.choices.tick(["bound_box"])
    desk.run()
    folder = tmp_path / "results"
    desk.control.save(folder)
    desk.wait(lambda: not desk.control.is_filing)
    text = (folder / "results.csv").read_text(encoding="utf-8")
    (folder / "results.csv").write_text(text.replace("volume", "other.nii.gz"), encoding="utf-8")
    desk.control.open(folder)
    desk.wait(lambda: desk.lab.source is None and desk.lab.scores)
    before = desk.view
    desk.click_row(0)
    assert '"other.nii.gz"' in desk.panel.status.text()
    assert desk.view == before
    assert not desk.own_layers()


def test_labels_can_be_hidden_while_an_answer_is_looked_at(desk: PanelDesk) -> None:
    desk.panel.choices.tick(["bound_box"])
    desk.run()
    desk.wait_for_mask(desk.click_row(0))
    layer, box = desk.viewer.layers["truth"], desk.panel.hide_labels
    desk.click(box, QPoint(8, box.height() // 2))
    assert not layer.visible
    assert TRUTH_NAME in desk.own_layers()
    desk.viewer.window.remove_dock_widget(desk.panel.parentWidget())
    assert layer.visible
