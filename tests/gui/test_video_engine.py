"""The video engine as the user meets it: a file is chosen, masks are carried with it, cancelled, undone."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from qtpy.QtCore import QEvent, Qt
from qtpy.QtGui import QHelpEvent
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication, QFileDialog

from napari_sam_med import propagate
from napari_sam_med.gui import propagation_panel
from napari_sam_med.gui.settings import Settings
from napari_sam_med.segmentation import video_propagation
from napari_sam_med.segmentation.video_network import VideoNetwork
from napari_sam_med.segmentation.video_propagation import load_video_propagator
from tests.gui.desk import LEFT, NO_KEY, Desk
from tests.gui.test_carrying import accept_a_box
from tests.gui.test_prompting import LIVER, VIEW
from tests.segmentation.tiny_sam2 import tiny_video_model, write_folder

pytest.importorskip("transformers")

SLICES = list(range(8))
FIRST, CHOOSE = "slice by slice", "video: choose a file…"


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """A folder with a tiny video model that finds something on every slice."""
    write_folder(tmp_path / "tiny", tiny_video_model())
    return tmp_path / "tiny"


class Gate:
    """Holds a call of another thread after some calls, until it is opened."""

    def __init__(self, free_calls: int) -> None:
        self.free_calls = free_calls
        self.reached, self.opened = threading.Event(), threading.Event()
        self.threads: list[threading.Thread] = []

    def before(self, call: Callable) -> Callable:
        def gated(*args, **kwargs):
            self.threads.append(threading.current_thread())
            if len(self.threads) > self.free_calls:
                self.reached.set()
                self.opened.wait(60)
            return call(*args, **kwargs)

        return gated


@pytest.fixture
def loading(monkeypatch: pytest.MonkeyPatch) -> Gate:
    """Loading a video model: let through unless its ``free_calls`` say otherwise."""
    gate = Gate(99)
    monkeypatch.setattr(video_propagation, "load_video_propagator", gate.before(load_video_propagator))
    return gate


def entries(desk: Desk) -> list[str]:
    combo = desk.widget.propagation_panel.engines
    return [combo.itemText(i) for i in range(combo.count())]


def shown(desk: Desk) -> str:
    return desk.widget.propagation_panel.engines.currentText()


def pick(desk: Desk, text: str) -> None:
    """Choose an engine with the keyboard, without a step onto any other."""
    combo = desk.widget.propagation_panel.engines
    keys = {FIRST: Qt.Key.Key_Home, CHOOSE: Qt.Key.Key_End}
    QTest.keyClick(combo, keys.get(text, Qt.Key.Key_Down))
    desk.settle()


def pick_file(desk: Desk, monkeypatch: pytest.MonkeyPatch, path: Path | str) -> None:
    monkeypatch.setattr(QFileDialog, "getOpenFileName", lambda *_: (str(path), ""))
    pick(desk, CHOOSE)


def wait_for_engine(desk: Desk) -> None:
    desk.wait(lambda: desk.actions.carrying.video.engine is not None, timeout=60_000)


def click_start(desk: Desk) -> None:
    button = desk.widget.propagation_panel.start
    desk.widget._scroll.ensureWidgetVisible(button)
    desk.settle()
    QTest.mouseClick(button, LEFT, NO_KEY, button.rect().center())


def filled(desk: Desk) -> list[int]:
    return np.flatnonzero(desk.labels.any(axis=(1, 2))).tolist()


def test_a_chosen_file_carries_as_it_does_without_the_widget(
    desk: Desk, tiny: Path, loading: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert entries(desk) == [FIRST, CHOOSE]
    pick_file(desk, monkeypatch, tiny / "model.safetensors")
    wait_for_engine(desk)
    assert shown(desk) == "video: tiny"
    assert "Loading tiny…" in desk.said
    assert desk.said[-1] == "tiny is ready: G carries with it."
    assert threading.main_thread() not in loading.threads
    accept_a_box(desk)
    one_slice = desk.labels.copy()
    click_start(desk)
    desk.wait_until_carried()
    done = propagate(
        desk.session.volume,
        {1: (LIVER, {})},
        engine=load_video_propagator(tiny, device="cpu"),
        window=desk.session.window,
        masks={1: {VIEW: VIEW.extract(one_slice) == LIVER}},
    )
    masks = {one.view.index: one.mask for one in done}
    assert sorted(masks) == SLICES == filled(desk)
    assert all(np.array_equal(desk.labels[z] == LIVER, mask) for z, mask in masks.items())
    assert desk.session.active_object.stop_reasons == {
        "forward": "stopped at slice 7: end of the volume",
        "backward": "stopped at slice 0: start of the volume",
    }
    report = desk.widget.propagation_panel.report
    assert "forward: stopped at slice 7: end of the volume" in report.text()
    carried = desk.labels.copy()
    desk.undo()
    assert np.array_equal(desk.labels, one_slice)
    assert not report.text()
    desk.redo()
    assert np.array_equal(desk.labels, carried)
    pick(desk, FIRST)
    desk.key(Qt.Key.Key_G)
    desk.wait_until_carried()
    bright = np.asarray(desk.session.volume.data) > 100
    assert np.array_equal(desk.labels == LIVER, bright), "the 2-D model's answer takes its place"


def test_slices_arrive_and_cancelling_keeps_them_as_one_step(
    desk: Desk, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(3)
    monkeypatch.setattr(VideoNetwork, "answer_next", gate.before(VideoNetwork.answer_next))
    pick_file(desk, monkeypatch, tiny / "config.json")
    wait_for_engine(desk)
    accept_a_box(desk)
    one_slice = desk.labels.copy()
    click_start(desk)
    desk.wait(gate.reached.is_set)
    desk.wait(lambda: filled(desk) == [2, 3, 4, 5])
    assert desk.actions.is_busy
    assert not desk.widget.propagation_panel.start.isEnabled()
    assert "Carrying: axial slice 5" in desk.said
    cancel = desk.widget.status.cancel
    QTest.mouseClick(cancel, LEFT, NO_KEY, cancel.rect().center())
    gate.opened.set()
    desk.wait_until_carried()
    assert {2, 3, 4, 5} <= set(filled(desk)) < set(SLICES)
    assert desk.said[-1] == "Cancelled; what was done is kept."
    desk.undo()
    assert np.array_equal(desk.labels, one_slice)


def test_direction_and_range_hold(desk: Desk, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pick_file(desk, monkeypatch, tiny / "config.json")
    wait_for_engine(desk)
    accept_a_box(desk)
    panel = desk.widget.propagation_panel
    panel.directions.setCurrentIndex(panel.directions.findData("backward"))
    panel.limited.setChecked(True)
    panel.first.setValue(2)
    click_start(desk)
    desk.wait_until_carried()
    assert filled(desk) == [2, 3, 4]
    assert "backward: stopped at slice 2: start of the chosen range" in panel.report.text()


def test_carrying_waits_for_a_model_that_is_being_loaded(
    desk: Desk, tiny: Path, loading: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    loading.free_calls = 0
    accept_a_box(desk)
    pick_file(desk, monkeypatch, tiny / "config.json")
    desk.wait(loading.reached.is_set)
    click_start(desk)
    assert desk.said[-1] == "Loading tiny; the mask is carried when it is there."
    assert filled(desk) == [4]
    loading.opened.set()
    desk.wait(lambda: desk.actions.is_busy, timeout=60_000)
    desk.wait_until_carried()
    assert filled(desk) == SLICES


def test_undo_takes_back_a_start_that_waits(
    desk: Desk, tiny: Path, loading: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    loading.free_calls = 0
    accept_a_box(desk)
    pick_file(desk, monkeypatch, tiny / "config.json")
    desk.wait(loading.reached.is_set)
    click_start(desk)
    desk.undo()
    desk.redo()
    loading.opened.set()
    wait_for_engine(desk)
    desk.settle()
    assert not desk.actions.is_busy
    assert filled(desk) == [4]


def test_a_choice_that_is_taken_back_while_it_loads_is_forgotten(
    desk: Desk, tiny: Path, loading: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    loading.free_calls = 0
    pick_file(desk, monkeypatch, tiny / "config.json")
    desk.wait(loading.reached.is_set)
    pick(desk, FIRST)
    loading.opened.set()
    desk.wait(lambda: not any(job.name == "load video model" for job in desk.actions.workers.running))
    desk.settle()
    assert shown(desk) == FIRST
    assert Settings.load().video_model == ""


def test_a_bad_file_is_one_line_and_the_choice_before_it_holds(
    desk: Desk, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = tmp_path / "notes.pt"
    bad.write_text("not a model")

    def refused() -> bool:
        return "notes.pt is damaged or no checkpoint" in desk.said[-1] and "\n" not in desk.said[-1]

    pick_file(desk, monkeypatch, bad)
    desk.wait(refused)
    assert desk.widget.status.text.text() == desk.said[-1]
    assert shown(desk) == FIRST
    assert entries(desk) == [FIRST, CHOOSE]
    pick_file(desk, monkeypatch, tiny / "config.json")
    wait_for_engine(desk)
    pick_file(desk, monkeypatch, bad)
    desk.wait(refused)
    assert shown(desk) == "video: tiny"
    pick_file(desk, monkeypatch, "")  # the dialog was closed
    assert shown(desk) == "video: tiny"
    assert Settings.load().video_model == str(tiny)
    accept_a_box(desk)
    desk.key(Qt.Key.Key_G)
    desk.wait_until_carried()
    assert filled(desk) == SLICES


def test_the_file_is_offered_next_time_and_loaded_when_it_is_chosen(
    make_desk: Callable[[], Desk], predictor, volume, tiny: Path, loading: Gate
) -> None:
    Settings(video_model=str(tiny)).save()
    desk = make_desk()
    desk.open(volume)
    assert entries(desk) == [FIRST, "video: tiny", CHOOSE]
    assert shown(desk) == FIRST
    assert not loading.threads
    pick(desk, "video: tiny")
    wait_for_engine(desk)
    pick(desk, FIRST)
    pick(desk, "video: tiny")
    assert shown(desk) == "video: tiny"
    assert len(loading.threads) == 1, "it was kept"


def test_a_model_is_loaded_anew_for_another_device(
    desk: Desk, tiny: Path, loading: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    pick_file(desk, monkeypatch, tiny / "config.json")
    wait_for_engine(desk)
    desk.session.device = "cpu"
    accept_a_box(desk)
    desk.key(Qt.Key.Key_G)
    desk.wait(lambda: desk.actions.is_busy, timeout=60_000)
    desk.wait_until_carried()
    assert filled(desk) == SLICES
    assert len(loading.threads) == 2


def test_without_transformers_the_tooltip_says_what_to_install(
    make_desk: Callable[[], Desk], predictor, volume, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(propagation_panel, "is_available", lambda: False)
    desk = make_desk()
    desk.open(volume)
    combo = desk.widget.propagation_panel.engines
    assert not combo.isEnabled()
    assert shown(desk) == FIRST
    place = combo.rect().center()
    QApplication.sendEvent(combo, QHelpEvent(QEvent.Type.ToolTip, place, combo.mapToGlobal(place)))
    assert "needs the package transformers, which is not installed" in combo.toolTip()
    assert 'pip install "napari-sam-med[video]"' in combo.toolTip()
    accept_a_box(desk)
    click_start(desk)
    desk.wait_until_carried()
    assert filled(desk) == [1, 2, 3, 4, 5, 6]
