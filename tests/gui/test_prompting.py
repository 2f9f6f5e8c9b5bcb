"""From a click to a mask in the labels, with a real mouse on a real canvas."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from threading import Event
from typing import Any

import numpy as np
import pytest
from napari.layers import Labels
from qtpy.QtCore import Qt

from napari_sam_med.errors import DeviceMemoryError
from napari_sam_med.gui.layer_bridge import PREVIEW_NAME
from napari_sam_med.gui.workers import Job
from napari_sam_med.sam.model_registry import MODELS
from napari_sam_med.sam.prompts import Prompts
from napari_sam_med.volume.slice_view import SliceView
from tests.gui.desk import Desk
from tests.gui.fake_model import FakePredictor

LIVER, SPLEEN = 6, 1
VIEW = SliceView("axial", 4)
# make_volume's organ: rows 6..11, columns 8..15 on slices 1..6
ORGAN = (slice(6, 12), slice(8, 16))
INSIDE = (4, 8, 11)


def box_the_organ(desk: Desk) -> np.ndarray:
    desk.look_at(VIEW)
    desk.bridge.set_tool("box")
    desk.drag((4, 4, 6), (4, 13, 18))
    return desk.wait_for_proposal()


def organ_mask(desk: Desk, view: SliceView = VIEW) -> np.ndarray:
    return view.extract(desk.session.volume.data) > 100


def test_a_box_gives_a_proposal_that_enter_accepts_and_undo_takes_back(desk: Desk) -> None:
    desk.session.select_organ(LIVER)
    mask = box_the_organ(desk)
    assert np.array_equal(mask, organ_mask(desk))
    preview = desk.viewer.layers[PREVIEW_NAME]
    assert preview.visible
    assert preview.data.shape == (1, 24, 32)
    assert not desk.labels.any()
    desk.key(Qt.Key.Key_Return)
    assert np.array_equal(desk.slice_labels(VIEW) == LIVER, mask)
    assert not preview.data.any()
    desk.undo()
    assert not desk.labels.any()
    desk.redo()
    assert np.array_equal(desk.slice_labels(VIEW) == LIVER, mask)


def test_what_the_user_sees_is_the_mask(desk: Desk) -> None:
    """Statement 25: the picture on the canvas and the voxels in the labels are at the same place."""
    box_the_organ(desk)
    desk.key(Qt.Key.Key_Return)
    assert desk.bridge.labels_layer.data is desk.session.labels.data
    shown = desk.bridge.labels_layer._slice.image.raw
    assert np.array_equal(np.asarray(shown) > 0, organ_mask(desk))


def test_clicks_add_and_ctrl_clicks_take_away(desk: Desk) -> None:
    desk.look_at(VIEW)
    desk.bridge.set_tool("point")
    desk.click(INSIDE)
    assert np.array_equal(desk.wait_for_proposal(), organ_mask(desk))
    for modifier, (y, x) in (
        (Qt.KeyboardModifier.ControlModifier, (10, 14)),
        (Qt.KeyboardModifier.AltModifier, (7, 9)),
    ):
        desk.click((4, y, x), modifier)
        desk.wait(lambda y=y, x=x: desk.session.preview and not desk.session.preview.mask[y, x])
    prompts = desk.session.active_object.key_slices[VIEW]
    assert prompts.point_labels.tolist() == [1, 0, 0]
    assert np.allclose(prompts.points_xy[0], (11, 8), atol=0.6)
    colors = desk.bridge.points_layer.face_color
    assert colors[0, 1] > colors[0, 0]
    assert colors[1, 0] > colors[1, 1]


def test_the_model_is_asked_before_napari_has_added_the_point(desk: Desk) -> None:
    """And the point that is added then is the one that was asked about: one step, one question."""
    desk.look_at(VIEW)
    desk.bridge.set_tool("point")
    points = desk.bridge.points_layer
    asked: list[int] = []
    steps: list[str] = []
    desk.session.events.objects.connect(lambda *_: asked.append(len(points.data)))
    desk.session.committed.connect(lambda change: steps.append(change.label))
    desk.click(INSIDE)
    desk.wait_for_proposal()
    desk.click((4, 10, 14), Qt.KeyboardModifier.ControlModifier)
    desk.wait(lambda: desk.session.preview and not desk.session.preview.mask[10, 14])
    assert asked == [0, 1]
    assert len(steps) == 2
    assert len(points.data) == 2
    assert desk.session.active_object.key_slices[VIEW].point_labels.tolist() == [1, 0]
    desk.undo()
    desk.undo()
    assert not len(points.data)
    assert desk.session.active_object is None


def test_a_drag_in_point_mode_sets_no_point_and_is_forgotten(desk: Desk) -> None:
    desk.look_at(VIEW)
    desk.bridge.set_tool("point")
    desk.drag((4, 4, 6), (4, 13, 18))
    assert desk.session.active_object is None
    desk.bridge.points_layer.add(INSIDE)
    desk.settle()
    prompts = desk.session.active_object.key_slices[VIEW]
    assert np.allclose(prompts.points_xy, [(11, 8)])


def test_the_layer_of_the_proposal_waits_where_the_user_looks(desk: Desk) -> None:
    """Moving and showing it would make the first mask on a slice late."""
    preview = desk.viewer.layers[PREVIEW_NAME]
    for view in (VIEW, SliceView("coronal", 8)):
        desk.look_at(view)
        wanted = desk.bridge.frame.slice_arguments(view)["translate"]
        desk.wait(lambda wanted=wanted: preview.visible and np.allclose(preview.translate, wanted))
        assert not preview.data.any()
    desk.bridge.show_in_3d()
    desk.settle()
    assert not preview.visible


def test_t_switches_the_sign_of_plain_clicks(desk: Desk) -> None:
    desk.look_at(VIEW)
    desk.bridge.set_tool("point")
    desk.click(INSIDE)
    desk.key(Qt.Key.Key_T)
    assert desk.widget.prompt_panel.tools["minus"].isChecked()
    desk.click((4, 10, 14))
    assert desk.session.active_object.key_slices[VIEW].point_labels.tolist() == [1, 0]


def test_escape_clears_the_prompts_of_the_slice_only(desk: Desk) -> None:
    box_the_organ(desk)
    desk.look_at(SliceView("axial", 2))
    desk.drag((2, 4, 6), (2, 13, 18))
    desk.wait_for_proposal()
    desk.key(Qt.Key.Key_Escape)
    assert desk.session.preview is None
    assert desk.session.active_object.key_slices.keys() == {VIEW}
    assert len(desk.bridge.boxes_layer.data) == 1


def test_a_second_box_on_the_slice_takes_the_place_of_the_first(desk: Desk) -> None:
    box_the_organ(desk)
    desk.drag((4, 5, 7), (4, 9, 18))
    desk.wait(lambda: desk.session.preview and desk.session.preview.mask.sum() < organ_mask(desk).sum())
    assert len(desk.bridge.boxes_layer.data) == 1


def test_prompts_in_other_planes_hit_what_they_point_at(desk: Desk) -> None:
    """Statement 25, with the patient's head up."""
    for view in (SliceView("coronal", 8), SliceView("sagittal", 11)):
        desk.session.new_object()
        desk.bridge.show_plane(view.plane)
        desk.look_at(view)
        desk.bridge.set_tool("point")
        desk.click(INSIDE)
        mask = desk.wait_for_proposal()
        assert np.array_equal(mask, organ_mask(desk, view))
        desk.key(Qt.Key.Key_Return)
        assert np.array_equal(desk.slice_labels(view) > 0, mask)
        assert desk.labels[INSIDE] > 0
        top, bottom = desk.canvas_xy((6, 8, 11)), desk.canvas_xy((1, 8, 11))
        assert top.y() < bottom.y()
        desk.undo()


def test_new_object_leaves_the_first_one_alone_and_it_can_be_reopened(desk: Desk) -> None:
    desk.session.select_organ(LIVER)
    box_the_organ(desk)
    desk.key(Qt.Key.Key_Return)
    first = desk.session.active_object_id
    desk.key(Qt.Key.Key_K)
    assert len(desk.bridge.boxes_layer.data) == 0
    desk.drag((4, 5, 7), (4, 8, 18))
    desk.wait_for_proposal()
    desk.key(Qt.Key.Key_Return)
    assert len(desk.session.objects) == 2
    second_box = desk.bridge.boxes_layer.data[0].copy()
    desk.session.select_object(first)
    desk.settle()
    assert len(desk.bridge.boxes_layer.data) == 1
    assert not np.allclose(desk.bridge.boxes_layer.data[0], second_box)
    assert desk.session.objects[first].key_slices.keys() == {VIEW}


def test_a_locked_organ_says_so_and_stays(desk: Desk) -> None:
    desk.session.select_organ(LIVER)
    box_the_organ(desk)
    desk.session.set_organ(replace(desk.session.organs[LIVER], locked=True))
    desk.key(Qt.Key.Key_Return)
    assert not desk.labels.any()
    assert any("liver is locked" in text for text in desk.said)


def test_the_answer_to_a_click_is_waited_for_and_not_that_to_undo(
    desk: Desk, predictor: FakePredictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    awaited: list[float] = []
    is_awaited = Event()
    plain_wait, plain_predict = Job.deliver_within, predictor.predict

    def deliver_within(job: Job, seconds: float) -> None:
        awaited.append(seconds)
        is_awaited.set()
        plain_wait(job, seconds)

    def predict(*asked: Any, **how: Any) -> Any:
        assert is_awaited.wait(10)  # else the answer may be there before anybody can wait for it
        return plain_predict(*asked, **how)

    monkeypatch.setattr(Job, "deliver_within", deliver_within)
    monkeypatch.setattr(predictor, "predict", predict)
    desk.session.select_organ(LIVER)
    desk.wait(lambda: desk.actions.model.model is not None)
    mask = box_the_organ(desk)
    assert len(awaited) == 1
    desk.key(Qt.Key.Key_Return)
    desk.undo()
    assert np.array_equal(desk.wait_for_proposal(), mask)  # it comes all the same
    desk.redo()
    assert len(awaited) == 1
    assert np.array_equal(desk.slice_labels(VIEW) == LIVER, mask)


def test_enter_says_that_a_mask_is_on_its_way_only_where_one_is(desk: Desk, predictor: FakePredictor) -> None:
    desk.session.select_organ(LIVER)
    desk.look_at(VIEW)
    desk.wait(lambda: desk.actions.model.model is not None)
    predictor.predict = partial(_after, predictor.gate, predictor.predict)
    predictor.gate.clear()
    desk.bridge.set_tool("box")
    desk.drag((4, 4, 6), (4, 13, 18))
    desk.key(Qt.Key.Key_Return)
    assert desk.said[-1].startswith("The mask is on its way")
    desk.key(Qt.Key.Key_Escape)
    desk.key(Qt.Key.Key_Return)
    assert desk.said[-1].startswith("There is no proposal to accept")
    predictor.gate.set()
    desk.wait(lambda: not desk.actions.workers.running)


def test_a_proposal_that_is_out_of_sight_is_spoken_of(desk: Desk) -> None:
    desk.session.select_organ(LIVER)
    box_the_organ(desk)
    waits = "Prompts not accepted yet: liver, axial slice 4. Enter accepts them there."
    text = desk.widget.status.text
    assert waits not in text.text()
    desk.look_at(SliceView("coronal", 9))
    assert text.text() == waits
    desk.key(Qt.Key.Key_Return)
    assert text.text() == waits, "what Enter is pressed for is there, on another slice"
    assert not desk.labels.any()
    desk.look_at(VIEW)
    desk.wait_for_proposal()
    desk.wait(lambda: "Enter accepts, Escape clears" in text.text())
    desk.key(Qt.Key.Key_Return)
    desk.look_at(SliceView("coronal", 9))
    assert "not accepted" not in text.text()
    desk.bridge.set_tool("box")
    desk.drag((2, 9, 6), (5, 9, 18))
    desk.wait_for_proposal()
    desk.look_at(SliceView("axial", 5))
    assert "Prompts not accepted yet: liver, coronal slice 9. Enter" in text.text()
    desk.look_at(SliceView("coronal", 9))
    desk.key(Qt.Key.Key_Escape)
    desk.look_at(SliceView("axial", 5))
    assert "not accepted" not in text.text()


def test_prompts_that_wait_are_counted_and_named_with_their_object(desk: Desk) -> None:
    desk.session.select_organ(LIVER)
    text, box = desk.widget.status.text, Prompts.from_box((6, 4, 18, 13))
    for index in (5, 3):
        desk.session.prompt(SliceView("axial", index), box)
    desk.look_at(SliceView("axial", 6))
    both = "Prompts not accepted yet: liver, axial slice 3; liver, axial slice 5"
    assert text.text() == f"{both}. Enter accepts them there."
    desk.session.select_organ(SPLEEN)
    for index in (2, 4):
        desk.session.prompt(SliceView("axial", index), box)
    desk.look_at(SliceView("axial", 7))
    assert (
        text.text()
        == f"{both}; spleen, axial slice 2 and 1 more. Choose their object, and press Enter there."
    )
    desk.key(Qt.Key.Key_G)
    desk.wait_until_carried()
    desk.look_at(SliceView("axial", 6))
    assert text.text() == f"{both}. Choose their object, and press Enter there.", "carried from the spleen's"


def _after(gate: Event, answer: Callable[..., Any], *asked: Any, **how: Any) -> Any:
    assert gate.wait(10)
    return answer(*asked, **how)


def test_painting_is_undone_with_the_same_key(desk: Desk) -> None:
    desk.look_at(VIEW)
    desk.session.select_organ(SPLEEN)
    desk.bridge.set_tool("paint")
    desk.bridge.labels_layer.brush_size = 4
    desk.drag((4, 15, 5), (4, 15, 20))
    painted = desk.labels.copy()
    assert (painted == SPLEEN).sum() > 20
    assert desk.session.undo_stack.undo_label == "Paint"
    desk.undo()
    assert not desk.labels.any()
    desk.redo()
    assert np.array_equal(desk.labels, painted)


def test_paint_on_a_locked_organ_is_put_back(desk: Desk) -> None:
    desk.session.select_organ(LIVER)
    box_the_organ(desk)
    desk.key(Qt.Key.Key_Return)
    desk.session.set_organ(replace(desk.session.organs[LIVER], locked=True))
    before = desk.labels.copy()
    desk.session.select_organ(SPLEEN)
    desk.bridge.set_tool("paint")
    desk.bridge.labels_layer.brush_size = 3
    desk.drag((4, 8, 9), (4, 8, 14))
    assert np.array_equal(desk.labels, before)


def test_prompts_outside_the_volume_are_ignored_with_a_message(desk: Desk) -> None:
    desk.look_at(VIEW)
    desk.bridge.set_tool("point")
    desk.click((4, -4, 11))
    assert not desk.session.objects
    told = "1 prompt outside the volume ignored."
    assert desk.said.count(told) == 1
    desk.bridge.set_tool("box")
    desk.drag((4, 4, 6), (4, 11, 15))
    assert desk.session.objects
    assert desk.said.count(told) == 1, "it was said when it was drawn"
    desk.bridge.set_tool("point")
    desk.click((4, -4, 8))
    assert desk.said.count("2 prompts outside the volume ignored.") == 1
    points = desk.bridge.points_layer
    points.selected_data = {len(points.data) - 1}
    points.remove_selected()
    desk.settle()
    assert "outside" not in desk.widget.status.text.text(), "there is one only by now"
    desk.click((4, -4, 8))
    assert "2 prompts outside" in desk.widget.status.text.text()
    desk.session.new_object()
    desk.settle()
    assert "outside" not in desk.widget.status.text.text(), "none of this object is"
    desk.click((4, -4, 8))
    assert desk.said.count(told) == 2, "of another object it was not"
    desk.viewer.layers.remove(desk.bridge.points_layer)
    desk.settle()
    assert "outside" not in desk.widget.status.text.text(), "it went with its layer"


def test_a_model_that_takes_boxes_only_turns_points_off(desk: Desk, predictor: FakePredictor) -> None:
    predictor.accepts = frozenset({"box"})
    predictor.record = MODELS["medsam"]
    desk.actions.model.loaded.emit()
    assert not desk.widget.prompt_panel.tools["plus"].isEnabled()
    assert desk.widget.prompt_panel.tools["box"].isEnabled()
    desk.look_at(VIEW)
    desk.bridge.set_tool("point")
    desk.click(INSIDE)
    desk.wait(lambda: any("takes boxes only" in text for text in desk.said))


def test_an_error_of_the_model_is_a_line_and_the_prompts_stay(desk: Desk, predictor: FakePredictor) -> None:
    """Statement 40."""
    predictor.error = DeviceMemoryError('Device "cuda" ran out of memory; choose a smaller model.')
    desk.look_at(SliceView("coronal", 8))
    desk.bridge.set_tool("point")
    desk.click(INSIDE)
    desk.wait(lambda: any("ran out of memory" in text for text in desk.said))
    assert desk.session.active_object.key_slices
    assert desk.session.preview is None


def test_another_window_is_another_picture_for_the_model(desk: Desk, predictor: FakePredictor) -> None:
    box_the_organ(desk)
    seen = len(predictor.embedded)
    desk.bridge.image_layer.contrast_limits = (-100, 400)
    desk.wait(lambda: len(predictor.embedded) > seen)
    assert desk.session.window == (-100.0, 400.0)
    assert desk.widget.volume_panel.window_panel.low.value() == -100
    panel = desk.widget.volume_panel.window_panel
    panel.presets.setCurrentIndex(panel.presets.findData("bone"))
    panel.presets.activated.emit(panel.presets.currentIndex())
    assert tuple(desk.bridge.image_layer.contrast_limits) == (-450.0, 1050.0)


def test_the_users_own_layers_can_hold_the_prompts(desk: Desk) -> None:
    desk.look_at(VIEW)
    own = desk.viewer.add_points(
        np.array([[4.0, 8.0, 11.0]]), name="mine", **desk.bridge.frame.layer_arguments
    )
    combo = desk.widget.prompt_panel.points
    names = [combo.itemText(i) for i in range(combo.count())]
    combo.activated.emit(names.index("mine"))
    desk.settle()
    assert np.array_equal(desk.wait_for_proposal(), organ_mask(desk))
    assert own in desk.viewer.layers
    boxes = desk.viewer.add_shapes(name="my boxes", ndim=3, **desk.bridge.frame.layer_arguments)
    desk.bridge.missing.choose_boxes(boxes)
    desk.bridge.set_tool("box")
    desk.drag((4, 4, 6), (4, 13, 18))
    assert desk.session.active_object.key_slices[VIEW].box_xyxy is not None


def test_the_colour_table_follows_the_organs(desk: Desk) -> None:
    desk.session.set_organ(replace(desk.session.organs[LIVER], color=(0.0, 0.0, 1.0)))
    assert np.allclose(desk.bridge.labels_layer.get_color(LIVER)[:3], (0, 0, 1))
    desk.session.set_organ(replace(desk.session.organs[LIVER], visible=False))
    assert desk.bridge.labels_layer.get_color(LIVER)[3] == 0
    desk.undo()
    assert desk.bridge.labels_layer.get_color(LIVER)[3] == 1


def test_a_class_above_255_gets_a_wider_layer(desk: Desk) -> None:
    desk.session.labels.assign(VIEW, organ_mask(desk), 300)
    desk.settle()
    assert desk.bridge.labels_layer.data is desk.session.labels.data
    assert desk.bridge.labels_layer.data.dtype == np.uint16
    assert len(desk.bridge.layers_of_type(Labels)) == 1


def test_a_click_in_box_mode_is_a_point_and_the_box_stays(desk: Desk) -> None:
    box_the_organ(desk)
    box = desk.session.active_object.key_slices[VIEW].box_xyxy
    desk.click((4, 10, 14), Qt.KeyboardModifier.ControlModifier)
    desk.wait(lambda: desk.session.preview and not desk.session.preview.mask[10, 14])
    desk.click(INSIDE)
    prompts = desk.session.active_object.key_slices[VIEW]
    assert np.array_equal(prompts.box_xyxy, box)
    assert prompts.point_labels.tolist() == [0, 1]
    assert np.allclose(prompts.points_xy, [(14, 10), (11, 8)], atol=0.6)
    assert len(desk.bridge.boxes_layer.data) == 1
    assert desk.bridge.tool == "box"
    assert desk.bridge.points_layer.face_color[0, 0] > desk.bridge.points_layer.face_color[0, 1]
    desk.undo()
    desk.undo()
    assert desk.session.active_object.key_slices[VIEW].kinds == {"box"}
    assert len(desk.bridge.points_layer.data) == 0


def test_a_click_is_a_click_on_a_scan_of_many_pixels_too(desk: Desk) -> None:
    """Zoomed out, the rectangle that napari leaves of a click covers many pixels."""
    box_the_organ(desk)
    desk.viewer.scene.camera.zoom /= 8
    desk.settle()
    desk.click(INSIDE, Qt.KeyboardModifier.AltModifier)
    prompts = desk.session.active_object.key_slices[VIEW]
    assert prompts.kinds == {"box", "point"}
    assert prompts.point_labels.tolist() == [0]


def test_a_short_drag_sets_a_point_and_one_slice_of_thick_slices_is_a_box(desk: Desk) -> None:
    desk.look_at(VIEW)
    desk.bridge.set_tool("box")
    desk.drag((4, 8, 9), (4, 8.9, 15))
    assert desk.session.active_object.key_slices[VIEW].kinds == {"point"}
    desk.bridge.show_plane("coronal")
    view = SliceView("coronal", 8)
    desk.look_at(view)
    desk.drag((3.2, 8, 7), (4.1, 8, 15))
    assert desk.session.active_object.key_slices[view].kinds == {"box"}


def test_a_click_for_a_model_of_boxes_says_so_and_keeps_the_box(desk: Desk, predictor: FakePredictor) -> None:
    box_the_organ(desk)
    predictor.record = MODELS["medsam"]
    before = desk.session.active_object.key_slices[VIEW]
    desk.click(INSIDE)
    assert desk.session.active_object.key_slices[VIEW] == before
    assert any("takes boxes only" in text for text in desk.said)


def test_a_click_in_box_mode_brings_a_missing_points_layer_back(desk: Desk) -> None:
    desk.viewer.layers.remove(desk.bridge.points_layer)
    desk.look_at(VIEW)
    desk.bridge.set_tool("box")
    desk.click(INSIDE)
    assert np.array_equal(desk.wait_for_proposal(), organ_mask(desk))
    assert desk.bridge.tool == "box"


def test_a_scribble_becomes_a_few_points_of_one_step(desk: Desk) -> None:
    desk.session.select_organ(LIVER)
    desk.look_at(VIEW)
    desk.key(Qt.Key.Key_H)
    assert desk.widget.prompt_panel.tools["scribble"].isChecked()
    camera = tuple(desk.viewer.scene.camera.center)
    desk.drag((4, 7, 9), (4, 10, 14))
    assert np.array_equal(desk.wait_for_proposal(), organ_mask(desk))
    prompts = desk.session.active_object.key_slices[VIEW]
    assert 3 <= len(prompts.points_xy) <= 6
    assert set(prompts.point_labels.tolist()) == {1}
    assert np.allclose(prompts.points_xy[0], (9, 7), atol=0.5), "it begins where the stroke began"
    x, y = prompts.points_xy.T
    assert np.allclose((y - 7) / 3, (x - 9) / 5, atol=0.2), "all lie on the stroke"
    assert tuple(desk.viewer.scene.camera.center) == camera, "the picture stays where it is"
    assert len(desk.bridge.points_layer.data) == len(prompts.points_xy)
    desk.undo()
    assert not desk.session.objects, "the stroke is one step"
    assert len(desk.bridge.points_layer.data) == 0


def test_a_scribble_with_ctrl_says_what_is_not_part_of_it(desk: Desk) -> None:
    desk.session.select_organ(LIVER)
    box_the_organ(desk)
    desk.widget.prompt_panel.tools["scribble"].click()
    desk.drag((4, 8, 9), (4, 8, 14), Qt.KeyboardModifier.ControlModifier)
    prompts = desk.session.active_object.key_slices[VIEW]
    desk.wait(lambda: desk.session.preview is not None and not desk.session.preview.mask[8, 9:14].any())
    assert set(prompts.point_labels.tolist()) == {0}
    assert prompts.box_xyxy is not None


def test_a_click_with_the_scribble_tool_is_a_point(desk: Desk) -> None:
    desk.session.select_organ(LIVER)
    desk.look_at(VIEW)
    desk.bridge.set_tool("scribble")
    desk.click(INSIDE)
    desk.wait_for_proposal()
    assert len(desk.session.active_object.key_slices[VIEW].points_xy) == 1
    desk.bridge.set_tool("point")
    camera = tuple(desk.viewer.scene.camera.center)
    desk.drag((4, 7, 9), (4, 10, 14))
    assert len(desk.session.active_object.key_slices[VIEW].points_xy) == 1
    assert tuple(desk.viewer.scene.camera.center) != camera, "the point tool moves the picture"
