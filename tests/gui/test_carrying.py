"""Propagation as the user meets it: streamed, cancelled, undone, exported."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from qtpy.QtCore import Qt

from napari_sam_med.gui.layer_bridge import LABELS_NAME
from napari_sam_med.volume.reading import read_labels
from napari_sam_med.volume.slice_view import SliceView
from tests.gui.desk import Desk
from tests.gui.fake_model import FakePredictor
from tests.gui.test_prompting import LIVER, VIEW, box_the_organ


def accept_a_box(desk: Desk) -> None:
    desk.session.select_organ(LIVER)
    box_the_organ(desk)
    desk.key(Qt.Key.Key_Return)


def organ(desk: Desk) -> np.ndarray:
    return np.asarray(desk.session.volume.data) > 100


def test_from_a_drag_to_a_file_and_back(desk: Desk, tmp_path: Path) -> None:
    accept_a_box(desk)
    one_slice = desk.labels.copy()
    desk.key(Qt.Key.Key_G)
    desk.wait_until_carried()
    assert np.array_equal(desk.labels == LIVER, organ(desk))
    item = desk.session.active_object
    assert item.quality_text.startswith("6 slices, lowest ")
    assert item.lowest[1] >= 0.9
    assert item.stop_reasons == {
        "forward": "stopped at slice 7: the mask vanished",
        "backward": "stopped at slice 0: the mask vanished",
    }
    report = desk.widget.propagation_panel.report
    assert "backward: stopped at slice 0: the mask vanished" in report.text()
    desk.undo()
    assert not report.text(), "what was undone is not reported"
    assert np.array_equal(desk.labels, one_slice)
    desk.redo()
    assert "stopped at slice 0" in report.text()
    assert np.array_equal(desk.labels == LIVER, organ(desk))
    desk.viewer.layers[LABELS_NAME].name = "renamed by the user"
    desk.widget.export_panel.export_to(tmp_path / "leber ä.nii.gz")
    desk.wait(lambda: "Written" in desk.widget.export_panel.written.text())
    again = read_labels(tmp_path / "leber ä.nii.gz", reference=desk.session.volume)
    assert np.array_equal(again.data, desk.labels)
    assert again.organs.name_of(LIVER) == "liver"
    assert np.array_equal(again.grid.affine, desk.session.volume.affine)
    assert desk.actions.settings.export_folder == str(tmp_path)


def test_g_carries_a_box_that_was_not_accepted_yet_and_says_so(desk: Desk) -> None:
    desk.session.select_organ(LIVER)
    box_the_organ(desk)
    parts: list[str] = []
    desk.actions.progress.connect(lambda progress: progress and parts.append(progress.text))
    desk.key(Qt.Key.Key_G)
    desk.wait_until_carried()
    assert np.array_equal(desk.labels == LIVER, organ(desk))
    during = [text for text in desk.said if "Carrying: axial slice" in text]
    assert during
    assert all(text.startswith("Liver accepted on slice 4. Carrying") for text in during)
    assert desk.said[-1].startswith("Liver accepted on slice 4. liver: 6 slices")
    assert "carrying" in parts
    assert not any("propagat" in text for text in parts)
    desk.undo()
    assert np.flatnonzero(desk.labels.any(axis=(1, 2))).tolist() == [4], "accepted in a step of its own"
    desk.undo()
    assert not desk.labels.any()


def test_in_3d_g_accepts_nothing_that_cannot_be_seen(desk: Desk) -> None:
    desk.session.select_organ(LIVER)
    box_the_organ(desk)
    desk.key(Qt.Key.Key_4, Qt.KeyboardModifier.AltModifier)
    desk.wait(lambda: desk.viewer.dims.ndisplay == 3 and desk.actions.model.view is None)
    desk.key(Qt.Key.Key_G)
    assert "The prompts of liver on axial slice 4 are not accepted yet" in desk.said[-1]
    assert not desk.actions.is_busy
    assert not desk.labels.any()
    desk.key(Qt.Key.Key_1, Qt.KeyboardModifier.AltModifier)
    desk.wait_for_proposal()
    desk.key(Qt.Key.Key_Return)
    desk.key(Qt.Key.Key_4, Qt.KeyboardModifier.AltModifier)
    desk.wait(lambda: desk.viewer.dims.ndisplay == 3 and desk.actions.model.view is None)
    desk.key(Qt.Key.Key_G)
    desk.wait_until_carried()
    assert np.array_equal(desk.labels == LIVER, organ(desk)), "what was accepted is carried in 3-D, too"


def test_prompts_of_another_slice_that_count_as_accepted_are_told(desk: Desk) -> None:
    desk.session.select_organ(LIVER)
    box_the_organ(desk)
    desk.look_at(SliceView("axial", 6))
    desk.wait(lambda: desk.session.preview is None)
    desk.key(Qt.Key.Key_G)
    desk.wait_until_carried()
    assert np.array_equal(desk.labels == LIVER, organ(desk))
    assert desk.said[-1].startswith("Liver: the prompts on slice 4 count as accepted. liver: 6 slices")
    desk.undo()
    assert not desk.labels.any()


def test_forward_only_and_a_range(desk: Desk) -> None:
    accept_a_box(desk)
    panel = desk.widget.propagation_panel
    panel.directions.setCurrentIndex(panel.directions.findData("forward"))
    panel.limited.setChecked(True)
    panel.last.setValue(5)
    panel.carry()
    desk.wait(lambda: desk.actions.is_busy)
    desk.wait_until_carried()
    assert np.flatnonzero(desk.labels.any(axis=(1, 2))).tolist() == [4, 5]
    assert desk.session.active_object.stop_reasons == {
        "forward": "stopped at slice 5: end of the chosen range"
    }


def test_cancelling_keeps_what_is_done_as_one_step(desk: Desk, predictor: FakePredictor) -> None:
    accept_a_box(desk)
    one_slice = desk.labels.copy()
    desk.actions.model.model.store.kept.clear()
    seen = predictor.embed

    asked: list[int] = []

    def slow(image, *args):
        asked.append(1)
        if len(asked) == 4:
            predictor.gate.clear()
        return seen(image, *args)

    predictor.embed = slow
    desk.key(Qt.Key.Key_G)
    desk.wait(lambda: not predictor.gate.is_set())
    desk.settle()
    desk.widget.status.cancel.click()
    predictor.gate.set()
    desk.wait_until_carried()
    done = int(desk.labels.any(axis=(1, 2)).sum())
    assert 3 <= done < 6
    assert any("what was done is kept" in text for text in desk.said)
    desk.undo()
    assert np.array_equal(desk.labels, one_slice)


def test_undo_while_it_runs_ends_it(desk: Desk, predictor: FakePredictor) -> None:
    accept_a_box(desk)
    one_slice = desk.labels.copy()
    desk.actions.model.model.store.kept.clear()
    predictor.gate.clear()
    predictor.waiting.clear()
    desk.key(Qt.Key.Key_G)
    desk.wait(predictor.waiting.is_set)
    desk.undo()
    predictor.gate.set()
    desk.wait_until_carried()
    assert not desk.labels.any() or np.array_equal(desk.labels, one_slice)
    desk.settle()
    assert desk.labels.any(axis=(1, 2)).sum() <= 1


def test_cleaning_up_ends_carrying_with_what_is_in_the_labels(desk: Desk, predictor: FakePredictor) -> None:
    accept_a_box(desk)
    desk.actions.model.model.store.kept.clear()
    seen = predictor.embed
    asked: list[int] = []

    def slow(image, *args):
        asked.append(1)
        if len(asked) == 4:
            predictor.gate.clear()
        return seen(image, *args)

    predictor.embed = slow
    desk.key(Qt.Key.Key_G)
    desk.wait(lambda: not predictor.gate.is_set())
    desk.settle()
    desk.actions.reviewing.clean_up("largest_component")
    before = desk.labels.copy()
    predictor.gate.set()
    desk.wait_until_carried()
    desk.settle()
    assert np.array_equal(desk.labels, before)


def test_a_job_that_outlives_its_layer_writes_nothing(desk: Desk, predictor: FakePredictor) -> None:
    """Statement 42."""
    accept_a_box(desk)
    labels = desk.labels
    before = labels.copy()
    desk.actions.model.model.store.kept.clear()
    predictor.gate.clear()
    predictor.waiting.clear()
    desk.key(Qt.Key.Key_G)
    desk.wait(predictor.waiting.is_set)
    desk.viewer.layers.remove(desk.bridge.image_layer)
    assert desk.session.volume is None
    predictor.gate.set()
    desk.wait_until_carried()
    assert np.array_equal(labels, before)


def test_the_viewer_can_close_while_a_job_runs(desk: Desk, predictor: FakePredictor) -> None:
    """Statement 42."""
    accept_a_box(desk)
    desk.actions.model.model.store.kept.clear()
    predictor.gate.clear()
    predictor.waiting.clear()
    desk.key(Qt.Key.Key_G)
    desk.wait(predictor.waiting.is_set)
    predictor.gate.set()
    desk.viewer.close()
    assert desk.actions.workers.running == []


def test_a_removed_labels_layer_can_be_brought_back(desk: Desk) -> None:
    accept_a_box(desk)
    desk.viewer.layers.remove(desk.bridge.labels_layer)
    desk.settle()
    assert any("Bring the labels back" in text for text in desk.said)
    combo = desk.widget.volume_panel.labels
    assert combo.itemText(0) == "Bring the labels back"
    assert "Bring the labels back" in desk.widget.status._lasting
    combo.activated.emit(0)
    assert "Bring the labels back" not in desk.widget.status._lasting
    assert desk.bridge.labels_layer.data is desk.labels
    assert desk.labels.any()


def test_two_objects_are_carried_in_one_pass(desk: Desk) -> None:
    desk.look_at(VIEW)
    desk.bridge.set_tool("box")
    for class_id, top, bottom in ((LIVER, 4, 8.3), (1, 8.7, 13)):
        desk.session.select_organ(class_id)
        desk.drag((4, top, 6), (4, bottom, 18))
        desk.wait_for_proposal()
        desk.key(Qt.Key.Key_Return)
    desk.widget.propagation_panel.all_objects.setChecked(True)
    desk.widget.propagation_panel.carry()
    desk.wait(lambda: desk.actions.is_busy)
    desk.wait_until_carried()
    assert set(np.unique(desk.labels)) == {0, 1, LIVER}
    assert [len(item.masks) for item in desk.session.objects.values()] == [6, 6]


def test_a_failed_export_says_so_and_the_work_goes_on(desk: Desk, tmp_path: Path) -> None:
    """Statement 17."""
    accept_a_box(desk)
    desk.widget.export_panel.export_to(tmp_path / "no such folder" / "labels.nii.gz")
    desk.wait(lambda: any("no such folder" in text or "labels.nii.gz" in text for text in desk.said[-3:]))
    assert desk.labels.any()


def test_carrying_in_other_planes(desk: Desk) -> None:
    for view in (SliceView("coronal", 8), SliceView("sagittal", 11)):
        desk.session.select_organ(LIVER)
        desk.bridge.show_plane(view.plane)
        desk.look_at(view)
        desk.bridge.set_tool("point")
        desk.click((4, 8, 11))
        desk.wait_for_proposal()
        desk.key(Qt.Key.Key_G)
        desk.wait_until_carried()
        assert np.array_equal(desk.labels == LIVER, organ(desk))
        desk.undo()
        desk.undo()
        assert not desk.labels.any()
