"""What the user has must outlive a question answered with no, a wrong layer, a name without a suffix."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QFileDialog, QMessageBox

from napari_sam_med import LabelVolume, write_labels
from napari_sam_med.gui import contributions
from napari_sam_med.gui.settings import Settings
from napari_sam_med.gui.widget import SamMedWidget
from napari_sam_med.session import jobs
from napari_sam_med.session.journal_folder import default_folder
from napari_sam_med.volume.intensity import WINDOW_PRESETS
from napari_sam_med.volume.organs import Organ
from tests.gui.desk import Desk
from tests.gui.test_carrying import accept_a_box


def test_a_close_that_the_user_calls_off_leaves_the_widget_at_work(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    window = desk.viewer.window._qt_window
    with monkeypatch.context() as patch:
        patch.setattr(type(window), "closeEvent", lambda self, event: event.ignore())
        window.close()
        desk.settle()
    assert window.isVisible()
    accept_a_box(desk)
    assert desk.labels.any()
    workers = desk.actions.workers
    desk.viewer.close()
    assert workers.running == []


@pytest.mark.parametrize("answer", ["Yes", "No"])
def test_an_export_asks_before_it_replaces_a_name_that_got_its_suffix_from_us(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: str
) -> None:
    there = tmp_path / "liver.nii.gz"
    there.write_bytes(b"yesterday's work")
    accept_a_box(desk)
    typed = (str(tmp_path / "liver"), "NIfTI, compressed (*.nii.gz)")
    asked: list[str] = []
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_: typed)
    monkeypatch.setattr(
        QMessageBox, "question", lambda *args: asked.append(args[2]) or QMessageBox.StandardButton[answer]
    )
    desk.widget.export_panel.ask()
    if answer == "Yes":
        desk.wait(lambda: desk.widget.export_panel.written.text() == f"Written: {there}")
    desk.settle()
    assert "liver.nii.gz" in asked[0]
    assert (there.read_bytes() == b"yesterday's work") == (answer == "No")


@pytest.mark.parametrize("how", ["remove_selected", "clear"])
def test_all_layers_can_be_removed_at_once(desk: Desk, how: str) -> None:
    accept_a_box(desk)
    desk.viewer.layers.select_all()
    getattr(desk.viewer.layers, how)()
    desk.settle()
    assert list(desk.viewer.layers) == []
    assert desk.session.volume is None
    assert not any("labels layer was removed" in text for text in desk.said)


def test_a_label_picked_in_naparis_controls_goes_on_with_its_object(desk: Desk) -> None:
    accept_a_box(desk)
    first, layer = desk.session.active_object_id, desk.bridge.labels_layer
    label = layer.selected_label
    layer.selected_label = 1 if label != 1 else 2
    assert desk.session.active_object_id is None
    layer.selected_label = label
    assert desk.session.active_object_id == first


def test_labels_that_lie_elsewhere_are_refused_in_words(desk: Desk) -> None:
    other = np.zeros(desk.session.volume.shape, dtype=np.uint8)
    frame = desk.bridge.frame
    for place in ({"scale": (2, 1, 1)}, {"scale": (4, 1.5, 1), "translate": (100, 50, 7)}):
        desk.said.clear()
        layer = desk.viewer.add_labels(other, name="another scan's", **place)
        desk.widget.volume_panel.labels.chosen.emit(layer)
        desk.wait(lambda: any("lie elsewhere" in text for text in desk.said))
        assert desk.bridge.labels_layer is not layer
    assert desk.bridge.frame is frame


@pytest.mark.parametrize("what", ["undo", "another scan", "nothing"])
def test_what_was_to_be_carried_may_go_while_the_model_loads(
    desk: Desk, make_volume: Callable, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    accept_a_box(desk)
    gate, plain = threading.Event(), jobs.load_model

    def slowly(model: str, device: str):
        gate.wait(20)
        return (yield from plain(model, device))

    monkeypatch.setattr(jobs, "load_model", slowly)
    desk.session.device = "cpu"
    desk.key(Qt.Key.Key_G)
    if what == "undo":
        while desk.session.undo():
            pass
    elif what == "another scan":
        other = make_volume((10, 24, 32))
        layer = desk.viewer.add_image(other.data, metadata={"sam_med": other}, **other.display_transform)
        desk.actions.open_scan(layer)
        desk.wait(lambda: desk.session.volume is other)
    gate.set()
    desk.wait(lambda: desk.actions.model.model is not None)
    desk.wait_until_carried()
    assert (np.count_nonzero(desk.labels.any(axis=(1, 2))) > 1) == (what == "nothing")


def test_a_download_goes_on_while_the_user_works(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    def fetch(name: str):
        for done in range(2000):
            time.sleep(0.01)
            yield jobs.Progress(done, 2000, "downloading")
        return Path(name)

    monkeypatch.setattr(jobs, "fetch_model", fetch)
    accept_a_box(desk)
    ended: list[bool] = []
    desk.actions.fetch_model("mobile_sam", lambda: ended.append(True))
    desk.undo()
    desk.redo()
    desk.actions.open_scan(desk.bridge.image_layer)
    desk.settle()
    assert desk.actions.is_busy
    assert not ended
    desk.actions.cancel()
    desk.wait(lambda: ended)
    assert not desk.actions.is_busy


@pytest.mark.parametrize("is_foreign", [False, True])
def test_the_widget_goes_on_with_the_labels_it_was_closed_on(desk: Desk, is_foreign: bool) -> None:
    if is_foreign:
        image = desk.bridge.image_layer
        image.metadata = {}
        desk.actions.open_scan(image)
        desk.wait(lambda: desk.session.volume.layer_transform is not None)
        desk.settle()
    accept_a_box(desk)
    work, count = desk.bridge.labels_layer, np.count_nonzero(desk.labels)
    desk.viewer.window.remove_dock_widget(desk.widget)
    again = SamMedWidget(desk.viewer)
    desk.viewer.window.add_dock_widget(again, name="SAM Med again")
    try:
        session = again.actions_.session
        desk.wait(lambda: session.volume is not None and again.actions_.bridge.labels_layer is not None)
        assert again.actions_.bridge.labels_layer is work
        assert np.count_nonzero(session.labels.data) == count > 0
        assert session.labels.data is work.data
    finally:
        again.stop()


def test_the_window_is_remembered_for_scans_that_napari_opens() -> None:
    Settings.load().remember(window="bone")
    [(_, options, _)] = contributions.abdomen_phantom()
    assert options["contrast_limits"] == WINDOW_PRESETS["bone"]


def test_layers_of_the_users_are_read_and_never_written(desk: Desk) -> None:
    accept_a_box(desk)
    before = dict(desk.session.active_object.key_slices)
    place = desk.bridge.frame.layer_arguments
    empty = desk.viewer.add_shapes(None, ndim=3, name="empty", **place)
    desk.bridge.choose_boxes(empty)
    desk.settle()
    assert dict(desk.session.active_object.key_slices) == before
    corners = [np.array([[5, a, a], [5, a, a + 4], [5, a + 4, a + 4], [5, a + 4, a]]) for a in (2, 8, 14)]
    boxes = desk.viewer.add_shapes(corners, shape_type="rectangle", name="mine", **place)
    desk.bridge.choose_boxes(boxes)
    points = desk.viewer.add_points(np.array([[4, 8, 11], [4, 100, 100]]), name="my points", **place)
    for _ in range(2):
        desk.bridge.choose_points(points)
        desk.settle()
    found = desk.session.active_object.key_slices
    assert {view.index for view in found} == {4, 5}
    assert sum(len(prompts.points_xy) for prompts in found.values()) == 1
    assert sum(prompts.box_xyxy is not None for prompts in found.values()) == 2
    assert len(desk.bridge.boxes_layer.data) == 2
    desk.actions.new_object()
    desk.settle()
    assert len(boxes.data) == 3
    assert len(points.data) == 2
    assert len(desk.bridge.boxes_layer.data) == len(desk.bridge.points_layer.data) == 0


def test_opening_labels_is_one_step_that_ctrl_z_takes_back(
    desk: Desk, tmp_path: Path, asked: list[str]
) -> None:
    """Statement 10; and statement 11: what was there before is in no file, what was opened is."""
    accept_a_box(desk)
    keeping = desk.actions.keeping
    desk.wait(lambda: keeping.is_kept)
    layer, before, objects = desk.bridge.labels_layer, desk.labels.copy(), dict(desk.session.objects)
    other = LabelVolume.like(desk.session.volume)
    other.data[3, 4:9, 4:9] = 1
    other.organs = other.organs.with_organ(Organ(1, "Milz", (0.1, 0.2, 0.3)))
    desk.actions.open_labels(write_labels(tmp_path / "other.nii.gz", other))
    desk.wait(lambda: desk.session.undo_stack.undo_label == "Open other.nii.gz")
    desk.settle()
    assert asked == ["Open"]
    assert np.array_equal(desk.labels, other.data)
    assert desk.bridge.labels_layer is layer
    assert desk.session.organs.name_of(1) == "Milz"
    assert not desk.session.objects
    assert not keeping.has_unexported_work
    assert len(default_folder().files()) == 2, "the work that was there is offered again"
    assert all(file.is_active for file in default_folder().files())
    desk.undo()
    assert np.array_equal(desk.labels, before)
    assert dict(desk.session.objects) == objects
    assert desk.session.organs.name_of(1) == "spleen"
    assert keeping.has_unexported_work
    desk.redo()
    assert np.array_equal(desk.labels, other.data)
    assert desk.session.organs.name_of(1) == "Milz"
