"""Hands for the section that learns: real clicks, tiny volumes, and jobs that wait for the test."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from qtpy.QtCore import Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QFileDialog, QPushButton

from napari_sam_med.gui.learn_panel import LearnPanel
from napari_sam_med.training import own_models
from napari_sam_med.volume.slice_view import SliceView
from tests.gui.desk import LEFT, NO_KEY, Desk
from tests.training.ring_cases import write_case


def press(desk: Desk, made: QPushButton) -> None:
    """A real click; the section is unfolded and in sight."""
    desk.widget._scroll.ensureWidgetVisible(made)
    desk.settle()
    assert made.isVisible()
    assert made.isEnabled(), made.text()
    QTest.mouseClick(made, LEFT, NO_KEY, made.rect().center())
    desk.settle()


def unfolded(desk: Desk) -> LearnPanel:
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
    desk.wait(lambda: len(desk.actions.learning.cases.counts) == 2)
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
