"""Compute on another machine: an address typed, a box answered there, and here again when it is lost."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from pytestqt.qtbot import QtBot
from qtpy.QtCore import Qt
from qtpy.QtTest import QTest

from napari_sam_med.cluster import scheduler_address
from napari_sam_med.gui import compute_on
from napari_sam_med.gui.compute_on import ComputeOn
from napari_sam_med.gui.other_machine import ComputingElsewhere
from napari_sam_med.gui.settings import Settings
from napari_sam_med.gui.workers import Workers
from napari_sam_med.progress import Progress
from napari_sam_med.sam.predictor import Predictor
from napari_sam_med.sam.shared_model import SharedModel
from napari_sam_med.session import other_machine
from napari_sam_med.volume.slice_view import SliceView
from tests.dask_here import scheduler_here
from tests.gui.desk import LEFT, Desk

pytest.importorskip("distributed")


@pytest.fixture
def machine():
    """A scheduler and a worker in this process."""
    with scheduler_here(1) as there:
        yield there


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Models that the worker was asked for, one for each task."""
    models: list[str] = []
    load = SharedModel.load

    def counted(model: SharedModel) -> Predictor:
        models.append(model.model)
        return load(model)

    monkeypatch.setattr(SharedModel, "load", counted)
    return models


def connect(panel: ComputeOn, address: str) -> None:
    if panel.places.currentText() == "This machine":
        QTest.keyClick(panel.places, Qt.Key.Key_Down)
    panel.address.selectAll()
    QTest.keyClicks(panel.address, address)
    QTest.mouseClick(panel.button, LEFT)


def box(desk: Desk, index: int) -> None:
    desk.look_at(SliceView("axial", index))
    desk.bridge.set_tool("box")
    desk.drag((index, 4, 6), (index, 13, 18))
    desk.wait_for_proposal()


def test_a_box_is_answered_there_and_here_when_the_other_machine_is_lost(
    make_desk: Callable[[], Desk], volume, machine, asked: list[str], user_folders: Path
) -> None:
    desk, address = make_desk(), machine.scheduler_address
    desk.actions.model.hold(True)  # embeds nothing ahead, so that tasks can be told apart
    desk.open(volume)
    panel = desk.widget.model_panel.compute_on
    assert not panel.address.isVisible()
    connect(panel, address)
    desk.wait(lambda: desk.actions.elsewhere.machine is not None)
    desk.settle()
    assert "1 worker" in panel.state.text()
    assert machine.dashboard_link in panel.state.text()
    assert panel.button.text() == "Disconnect"
    settings = json.loads(next(user_folders.rglob("settings.json")).read_text())
    assert settings["scheduler"] == address
    asked.clear()
    box(desk, 3)
    assert asked == ["nano"]
    desk.key(Qt.Key.Key_Return)
    desk.said.clear()
    machine.close()
    box(desk, 4)
    lost = f"The connection to {address} was lost; computing on this machine."
    desk.wait(lambda: lost in desk.said)
    assert asked == ["nano"]
    assert panel.state.text() == lost
    assert panel.places.currentText() == "This machine"
    assert desk.session.volume_ml(desk.session.active_class_id) > 0, "what was accepted stays"


def test_what_keeps_from_reaching_another_machine_is_said(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as without_library:
        without_library.setattr(compute_on, "is_installed", lambda: False)
        panel = desk.widget.model_panel.compute_on
        QTest.keyClick(panel.places, Qt.Key.Key_Down)
        assert 'pip install "napari-sam-med[cluster]"' in panel.state.text()
        assert not panel.address.isVisible()
        QTest.keyClick(panel.places, Qt.Key.Key_Up)
    connect(panel, "")
    assert panel.state.text().startswith("Type the address first")
    assert not desk.actions.elsewhere.is_connecting
    monkeypatch.setattr(scheduler_address, "PATIENCE_S", 0.2)
    connect(panel, "tcp://127.0.0.1:9")
    desk.wait(lambda: "No scheduler answers at tcp://127.0.0.1:9" in panel.state.text())
    assert panel.address.isEnabled()
    assert panel.button.text() == "Connect"
    monkeypatch.setattr(scheduler_address, "PATIENCE_S", 60)
    QTest.mouseClick(panel.button, LEFT)
    assert panel.button.text() == "Cancel"
    QTest.mouseClick(panel.button, LEFT)
    assert panel.button.text() == "Connect"
    assert not desk.actions.elsewhere.is_connecting


def test_one_that_answered_just_before_the_attempt_was_given_up_is_left(
    qtbot: QtBot, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Mock()

    def reach(address: str) -> Any:
        yield Progress(0, 0, f"connecting to {address}")
        return machine

    monkeypatch.setattr(other_machine, "reach", reach)
    workers, model = Workers(), Mock()
    elsewhere = ComputingElsewhere(workers, model, Settings())
    elsewhere.reach("tcp://there:1")
    elsewhere._connecting.join(10)
    elsewhere.leave()
    qtbot.waitUntil(lambda: machine.close.called)
    assert elsewhere.machine is None
    model.embed_on.assert_not_called()
