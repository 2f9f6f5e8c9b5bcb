"""What the user has must outlive a question answered with no, a wrong layer, a name without a suffix."""

from __future__ import annotations

import json
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from qtpy.QtCore import Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication, QFileDialog, QMessageBox, QWidget

from napari_sam_med import LabelVolume, write_labels
from napari_sam_med.gui import contributions, leaving
from napari_sam_med.gui.settings import Settings
from napari_sam_med.gui.widget import SamMedWidget
from napari_sam_med.session import jobs
from napari_sam_med.session.journal_folder import default_folder
from napari_sam_med.volume.intensity import WINDOW_PRESETS
from napari_sam_med.volume.organs import Organ
from napari_sam_med.volume.slice_view import SliceView
from napari_sam_med.volume.volume import Volume
from tests.gui.desk import Desk
from tests.gui.fake_model import FakePredictor
from tests.gui.test_carrying import accept_a_box
from tests.gui.test_journal import crash, press
from tests.gui.test_prompting import LIVER, SPLEEN, VIEW


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


def test_a_finished_object_that_was_brought_back_is_gone_on_with_by_its_own_prompts(
    desk: Desk, volume: Volume
) -> None:
    """Statement 4: a click on it in the list shows its box again, and a click on the canvas corrects it."""
    accept_a_box(desk)
    liver, box = desk.session.active_object_id, desk.session.active_object.key_slices[VIEW]
    desk.session.select_organ(SPLEEN)
    desk.look_at(SliceView("axial", 2))
    desk.bridge.set_tool("box")
    desk.drag((2, 4, 6), (2, 9, 18))
    desk.wait_for_proposal()
    desk.key(Qt.Key.Key_Return)
    was = desk.labels.copy()
    crash(desk)
    desk.open(volume)
    desk.wait(desk.widget.recovery_bar.offer.isVisible)
    press(desk.widget.recovery_bar.bring_back)
    desk.wait(lambda: np.array_equal(desk.labels, was))
    assert desk.session.active_class_id == SPLEEN
    tree = desk.widget.organ_panel.tree
    desk.wait(lambda: tree.topLevelItem(LIVER - 1).childCount() == 1)
    desk.widget._scroll.ensureWidgetVisible(tree)
    tree.scrollToItem(tree.topLevelItem(LIVER - 1).child(0))
    desk.settle()
    where = tree.visualItemRect(tree.topLevelItem(LIVER - 1).child(0)).center()
    QTest.mouseClick(tree.viewport(), Qt.MouseButton.LeftButton, pos=where)
    desk.settle()
    assert desk.session.active_object_id == liver
    assert desk.bridge.current_view() == VIEW
    assert desk.session.active_object.key_slices[VIEW] == box
    [corners] = desk.bridge.boxes_layer.data
    shown = np.array([corners[:, 2].min(), corners[:, 1].min(), corners[:, 2].max(), corners[:, 1].max()])
    assert np.allclose(shown, box.box_xyxy, atol=1)
    desk.bridge.set_tool("point")
    desk.click((4, 7, 9), Qt.KeyboardModifier.ControlModifier)
    desk.wait(lambda: desk.session.preview is not None and not desk.session.preview.mask[7, 9])
    desk.key(Qt.Key.Key_Return)
    changed = np.argwhere(desk.labels != was)
    assert len(changed)
    assert (changed[:, 0] == VIEW.index).all()
    assert desk.labels[4, 7, 9] == 0
    assert desk.session.active_object_id == liver


def test_quitting_asks_for_every_window_with_work(
    make_desk: Callable[[], Desk],
    predictor: FakePredictor,
    make_volume: Callable,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Statement 11: a quit that one window refuses closes none."""
    desks = [make_desk() for _ in range(3)]
    for size, desk in zip((24, 26, 28), desks, strict=True):
        desk.open(make_volume((8, size, 32)))
    for desk in desks[:2]:
        accept_a_box(desk)
    windows = [desk.viewer.window._qt_window for desk in desks]
    for window in windows:
        window.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose, False)
    numbers = [int(window.winId()) for window in windows]
    asked: list[tuple[int, str]] = []  # of numbers: what is patched outlives the windows
    answers = ["leave", "cancel"]

    def ask(parent: QWidget, verb: str, is_kept: bool, name: str) -> str:
        asked.append((int(parent.window().winId()), verb))
        return answers.pop(0)

    monkeypatch.setattr(leaving, "ask", ask)
    monkeypatch.setattr(QApplication, "quit", lambda: None)
    windows[2].close(quit_app=True)
    assert {number for number, _ in asked} == set(numbers[:2])
    assert {verb for _, verb in asked} == {"Quit"}
    assert all(window.isVisible() for window in windows)
    assert all(desk.labels.any() for desk in desks[:2])
    asked.clear()
    answers += ["leave", "leave"]
    windows[0].close(quit_app=True)
    assert [number for number, _ in asked] == numbers[:2], "the one at hand first"
    assert not any(window.isVisible() for window in windows)
    assert len(default_folder().files()) == 2


def test_an_export_says_what_made_each_object(desk: Desk, tmp_path: Path) -> None:
    accept_a_box(desk)
    desk.key(Qt.Key.Key_G)
    desk.wait_until_carried()
    desk.look_at(SliceView("axial", 2))
    desk.bridge.set_tool("paint")
    desk.click((2, 15, 4))
    desk.widget.export_panel.export_to(tmp_path / "work.nii.gz")
    desk.wait(lambda: "Written" in desk.widget.export_panel.written.text())
    model = json.loads((tmp_path / "work.sam-med.json").read_text())["model"]
    assert model["name"] == "nano"
    assert model["objects"] == [{"label": LIVER, "name": "liver", "slices": {"nano": 5, "drawn by hand": 1}}]


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
    of_the_scan = [*desk.widget.volume_panel.planes.values(), *desk.widget.prompt_panel.tools.values()]
    assert not any(made.isEnabled() or made.isChecked() for made in of_the_scan)


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
    desk.actions.keeping.journal.mark_exported()  # else the widget itself would wait
    desk.viewer.window.remove_dock_widget(desk.widget)
    again = SamMedWidget(desk.viewer)
    assert again is not desk.widget
    desk.viewer.window.add_dock_widget(again, name="SAM Med again")
    try:
        session = again.actions_.session
        desk.wait(lambda: session.volume is not None and again.actions_.bridge.labels_layer is not None)
        assert again.actions_.bridge.labels_layer is work
        assert np.count_nonzero(session.labels.data) == count > 0
        assert session.labels.data is work.data
    finally:
        again.stop()


def test_keys_take_everything_back_and_do_it_again(desk: Desk, tmp_path: Path) -> None:
    """Statement 10: boxes in two planes, a carried mask, strokes, a fill, a file; by real mouse and keys."""
    session, stack = desk.session, desk.session.undo_stack

    def now() -> tuple[bytes, dict[int, object], object]:
        return desk.labels.tobytes(), dict(session.objects), session.organs

    start = now()
    accept_a_box(desk)
    desk.key(Qt.Key.Key_G)
    desk.wait_until_carried()
    session.select_organ(SPLEEN)
    desk.look_at(SliceView("coronal", 8))
    desk.bridge.set_tool("box")
    desk.drag((7, 8, 5), (0, 8, 18))
    desk.wait_for_proposal()
    desk.key(Qt.Key.Key_Return)
    assert session.voxel_count(SPLEEN), "it took voxels from the liver"
    desk.look_at(SliceView("axial", 2))
    desk.bridge.set_tool("paint")
    desk.drag((2, 15, 4), (2, 15, 20))
    desk.drag((2, 8, 4), (2, 8, 20))
    desk.bridge.labels_layer.mode = "fill"
    desk.click((2, 2, 2))
    assert session.voxel_count(SPLEEN) > 400, "the background of the slice"
    other = LabelVolume.like(session.volume)
    other.data[3, 4:9, 4:9] = LIVER
    desk.actions.open_labels(write_labels(tmp_path / "other.nii.gz", other))
    desk.wait(lambda: stack.undo_label == "Open other.nii.gz")
    desk.settle()
    end, labels = now(), []
    while stack.undo_label is not None:
        labels.append(stack.undo_label.split()[0])
        desk.undo()
    assert labels == ["Open", "Paint", "Paint", "Paint", "Accept", "Prompt", "Carry", "Accept", "Prompt"]
    assert now() == start
    while stack.redo_label is not None:
        desk.redo()
    assert now() == end
    assert np.array_equal(desk.labels, other.data)


def test_a_whole_session_that_keeps_nothing_leaves_nothing_of_the_scan(
    make_desk: Callable[[], Desk],
    make_volume: Callable,
    user_folders: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With the real model and store; temporary files are looked for too."""
    home = user_folders
    (home / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(home / "tmp"))

    def written() -> dict[str, bytes]:
        return {str(path.relative_to(home)): path.read_bytes() for path in home.rglob("*") if path.is_file()}

    desk = make_desk()
    desk.widget.disk_panel.nothing.setChecked(True)
    desk.open(make_volume((8, 48, 64)))
    keeping = desk.actions.keeping
    desk.wait(lambda: keeping.journal.image is not None)
    desk.session.select_organ(LIVER)
    desk.look_at(SliceView("axial", 4))
    desk.bridge.set_tool("box")
    desk.drag((4, 10, 14), (4, 26, 34))
    desk.qtbot.waitUntil(lambda: desk.session.preview is not None, timeout=60_000)
    desk.key(Qt.Key.Key_Return)
    desk.key(Qt.Key.Key_G)
    desk.wait_until_carried()
    desk.labels[2, 3:5, 3:5] = LIVER
    (tmp_path / "exports").mkdir()
    desk.widget.export_panel.export_to(tmp_path / "exports" / "work.nii.gz")
    desk.wait(lambda: "Written" in desk.widget.export_panel.written.text())
    assert keeping.journal.flush()
    assert desk.actions.model.model.store.directory is None
    [settings] = written()
    assert settings.endswith("settings.json")
    assert b"exports" not in written()[settings]
    desk.widget.disk_panel.nothing.setChecked(False)
    assert keeping.journal.flush()
    assert sorted(Path(name).suffix for name in written()) == [".journal", ".json", ".lock", ".owner"]
    desk.widget.disk_panel.nothing.setChecked(True)
    assert keeping.is_kept is False
    before = written()
    desk.labels[3, 3:5, 3:5] = LIVER
    assert keeping.journal.flush()
    desk.look_at(SliceView("axial", 1))
    desk.settle()
    monkeypatch.setattr(QMessageBox, "question", lambda *_: QMessageBox.StandardButton.Yes)
    assert written() == before
    desk.widget.disk_panel._ask_clear_work()
    desk.wait(lambda: len(written()) == 1)
    assert list(written()) == [settings]


def test_the_names_from_before_are_offered_for_labels_without_names(desk: Desk, tmp_path: Path) -> None:
    """And never given unasked: number 6 may be another organ in another file."""
    other = LabelVolume.like(desk.session.volume)
    other.data[3, 4:9, 4:9] = LIVER
    other.data[3, 10:12, 4:9] = 40
    path = write_labels(tmp_path / "other.mha", other)  # a format without a place for names
    (tmp_path / "other.sam-med.json").unlink()
    session, names = desk.session, desk.widget.organ_panel.names
    desk.actions.open_labels(path)
    desk.wait(names.isVisible)
    assert session.organs.name_of(LIVER) == "label 6"
    assert "6 liver" in names.toolTip()
    assert "6 liver" in desk.said[-1]
    desk.widget._scroll.ensureWidgetVisible(names)
    desk.settle()
    press(names)
    assert session.organs.name_of(LIVER) == "liver"
    assert session.organs.name_of(40) == "label 40"
    assert desk.said[-1] == "The organs have their names from before (1). Ctrl-Z takes them away again."
    desk.wait(lambda: not names.isVisible())
    desk.undo()
    assert session.organs.name_of(LIVER) == "label 6"
    desk.wait(names.isVisible)
    desk.undo()
    assert session.organs.name_of(LIVER) == "liver"
    desk.wait(lambda: not names.isVisible())


def test_the_window_is_remembered_for_scans_that_napari_opens() -> None:
    Settings.load().remember(window="bone")
    [(_, options, _)] = contributions.abdomen_phantom()
    assert options["contrast_limits"] == WINDOW_PRESETS["bone"]


def test_layers_of_the_users_are_read_and_never_written(desk: Desk) -> None:
    accept_a_box(desk)
    before = dict(desk.session.active_object.key_slices)
    place = desk.bridge.frame.layer_arguments
    empty = desk.viewer.add_shapes(None, ndim=3, name="empty", **place)
    desk.bridge.missing.choose_boxes(empty)
    desk.settle()
    assert dict(desk.session.active_object.key_slices) == before
    corners = [np.array([[5, a, a], [5, a, a + 4], [5, a + 4, a + 4], [5, a + 4, a]]) for a in (2, 8, 14)]
    boxes = desk.viewer.add_shapes(corners, shape_type="rectangle", name="mine", **place)
    desk.bridge.missing.choose_boxes(boxes)
    points = desk.viewer.add_points(np.array([[4, 8, 11], [4, 100, 100]]), name="my points", **place)
    for _ in range(2):
        desk.bridge.missing.choose_points(points)
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
