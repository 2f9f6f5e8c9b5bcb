"""Drawing an outline with a real mouse, and what becomes of it."""

from __future__ import annotations

import numpy as np
import pytest
from qtpy.QtCore import Qt
from qtpy.QtTest import QTest

from napari_sam_med.sam.model_registry import MODELS
from napari_sam_med.sam.outlines import mask_of_outline
from napari_sam_med.volume.slice_view import SliceView
from tests.gui.desk import LEFT, NO_KEY, Desk
from tests.gui.fake_model import FakePredictor
from tests.gui.test_prompting import INSIDE, LIVER, VIEW, box_the_organ, organ_mask

SHIFT, CONTROL = Qt.KeyboardModifier.ShiftModifier, Qt.KeyboardModifier.ControlModifier
# around the left upper half of the organ (rows 6..11, columns 8..15); the lower right corner stays outside
HALF = [(4, 4, 6), (4, 4, 17), (4, 7.3, 17), (4, 13, 9.3), (4, 13, 6)]
WHOLE = [(4, 4, 6), (4, 4, 18), (4, 14, 18), (4, 14, 6)]


def lasso(desk: Desk, way: list[tuple[float, float, float]], modifier=NO_KEY) -> None:
    desk.bridge.set_tool("lasso")
    desk.trace([*way, way[0]], modifier)


def lasso_half(desk: Desk) -> np.ndarray:
    desk.session.select_organ(LIVER)
    desk.look_at(VIEW)
    lasso(desk, HALF)
    return desk.wait_for_proposal()


def prompts(desk: Desk, view: SliceView = VIEW):
    return desk.session.active_object.key_slices[view]


def test_a_lasso_gives_a_proposal_that_enter_accepts_and_undo_takes_back(desk: Desk) -> None:
    mask = lasso_half(desk)
    assert prompts(desk).kinds == {"outline"}
    drawn = np.array([(x, y) for _, y, x in HALF], np.float32)
    wanted = mask_of_outline(drawn, (24, 32)) & organ_mask(desk)
    assert np.count_nonzero(mask ^ wanted) <= 3, "the mouse stops at whole pixels of the canvas"
    assert 0 < mask.sum() < organ_mask(desk).sum()
    assert not desk.bridge.boxes_layer.selected_data, "no marks lie on the border"
    assert desk.bridge.tool == "lasso"
    desk.key(Qt.Key.Key_Return)
    assert np.array_equal(desk.slice_labels(VIEW) == LIVER, mask)
    desk.undo()
    assert not desk.labels.any()
    assert list(desk.bridge.boxes_layer.shape_type) == ["polygon"]
    desk.undo()
    assert not len(desk.bridge.boxes_layer.data)
    assert not desk.session.objects, "the outline is one step"
    desk.redo()
    assert list(desk.bridge.boxes_layer.shape_type) == ["polygon"]
    desk.redo()
    assert np.array_equal(desk.slice_labels(VIEW) == LIVER, mask)


def test_another_object_shows_its_own_outline(desk: Desk) -> None:
    lasso_half(desk)
    desk.key(Qt.Key.Key_Return)
    first, outline = desk.session.active_object_id, prompts(desk).outline_xy
    shown = desk.bridge.boxes_layer.data[0].copy()
    desk.key(Qt.Key.Key_K)
    assert not len(desk.bridge.boxes_layer.data)
    lasso(desk, WHOLE)
    desk.wait_for_proposal()
    desk.session.select_object(first)
    desk.settle()
    assert list(desk.bridge.boxes_layer.shape_type) == ["polygon"]
    redrawn = desk.bridge.boxes_layer.data[0]
    assert np.allclose(redrawn.min(axis=0), shown.min(axis=0), atol=0.6)
    assert np.allclose(redrawn.max(axis=0), shown.max(axis=0), atol=0.6)
    assert np.array_equal(prompts(desk).outline_xy, outline)
    steps = desk.session.undo_stack.undo_label
    desk.bridge.prompts._read()
    assert np.array_equal(prompts(desk).outline_xy, outline), "what was drawn again is read as the same"
    assert desk.session.undo_stack.undo_label == steps


def test_the_newest_outline_of_a_slice_holds(desk: Desk) -> None:
    half = lasso_half(desk)
    lasso(desk, WHOLE)
    desk.wait(lambda: desk.session.preview and desk.session.preview.mask.sum() > half.sum())
    assert len(desk.bridge.boxes_layer.data) == 1
    assert np.array_equal(desk.session.preview.mask, organ_mask(desk))
    desk.undo()
    desk.wait(lambda: desk.session.preview and np.array_equal(desk.session.preview.mask, half))


def test_box_and_outline_of_a_slice_hold_together(desk: Desk) -> None:
    half = lasso_half(desk)
    desk.bridge.set_tool("box")
    desk.drag((4, 4, 6), (4, 8.4, 18))
    desk.wait(lambda: desk.session.preview and desk.session.preview.mask.sum() < half.sum())
    assert prompts(desk).kinds == {"box", "outline"}
    rows = np.arange(24)[:, None] <= 8
    assert np.array_equal(desk.session.preview.mask, half & rows)
    assert list(desk.bridge.boxes_layer.shape_type) == ["polygon", "rectangle"]
    desk.undo()
    assert list(desk.bridge.boxes_layer.shape_type) == ["polygon"]


def test_a_click_with_the_lasso_is_a_point_and_the_outline_stays(desk: Desk) -> None:
    lasso_half(desk)
    outline = prompts(desk).outline_xy
    desk.click((4, 7, 9), CONTROL)
    desk.wait(lambda: desk.session.preview and not desk.session.preview.mask[7, 9])
    assert prompts(desk).point_labels.tolist() == [0]
    assert np.allclose(prompts(desk).points_xy, [(9, 7)], atol=0.6)
    assert np.array_equal(prompts(desk).outline_xy, outline)
    assert desk.bridge.tool == "lasso"
    desk.click(INSIDE)
    assert prompts(desk).point_labels.tolist() == [0, 1]
    assert not desk.bridge.boxes_layer._is_creating, "the next drag begins an outline of its own"


def test_a_tiny_lasso_is_a_click(desk: Desk) -> None:
    desk.look_at(VIEW)
    y, x = INSIDE[1:]
    lasso(desk, [(4, y, x), (4, y, x + 0.7), (4, y + 0.7, x + 0.7)])
    assert np.array_equal(desk.wait_for_proposal(), organ_mask(desk))
    assert prompts(desk).kinds == {"point"}
    assert np.allclose(prompts(desk).points_xy, [(x, y)], atol=0.3)
    assert not len(desk.bridge.boxes_layer.data)


@pytest.mark.parametrize("view", [SliceView("coronal", 8), SliceView("sagittal", 11)], ids=str)
def test_a_lasso_in_another_plane_marks_what_it_surrounds(desk: Desk, view: SliceView) -> None:
    desk.bridge.show_plane(view.plane)
    desk.look_at(view)
    low, high = np.array((0.0, 4, 6)), np.array((7.0, 14, 18))
    low[view.axis] = high[view.axis] = view.index
    first, second = (axis for axis in range(3) if axis != view.axis)
    corners = [low.copy() for _ in range(4)]
    for number, axes in ((1, [second]), (2, [first, second]), (3, [first])):
        corners[number][axes] = high[axes]
    lasso(desk, [tuple(corner) for corner in corners])
    assert np.array_equal(desk.wait_for_proposal(), organ_mask(desk, view))
    assert prompts(desk, view).kinds == {"outline"}
    desk.key(Qt.Key.Key_Return)
    assert desk.labels[INSIDE] > 0


def test_what_happens_meanwhile_does_not_end_the_lasso(desk: Desk) -> None:
    mask = box_the_organ(desk)
    desk.bridge.set_tool("lasso")
    way = [desk.canvas_xy(place) for place in HALF]
    QTest.mouseMove(desk.native, way[0])
    QTest.mousePress(desk.native, LEFT, NO_KEY, way[0])
    for place in way[1:3]:
        QTest.mouseMove(desk.native, place)
        QTest.qWait(5)
    desk.session.accept()
    desk.settle()
    assert np.array_equal(desk.slice_labels(VIEW) > 0, mask)
    for place in way[3:]:
        QTest.mouseMove(desk.native, place)
        QTest.qWait(5)
    QTest.mouseRelease(desk.native, LEFT, NO_KEY, way[-1])
    desk.settle()
    assert prompts(desk).kinds == {"box", "outline"}
    assert np.allclose(prompts(desk).outline_xy.max(axis=0), (17, 13), atol=0.6)


def test_a_model_of_boxes_takes_the_box_of_the_outline(desk: Desk, predictor: FakePredictor) -> None:
    predictor.accepts = frozenset({"box"})
    predictor.record = MODELS["medsam"]
    desk.actions.model.loaded.emit()
    assert desk.widget.prompt_panel.tools["lasso"].isEnabled()
    mask = lasso_half(desk)
    left, top, right, bottom = np.rint(prompts(desk).extent_within((999, 999))).astype(int)
    boxed = np.zeros_like(mask)
    boxed[top : bottom + 1, left : right + 1] = True
    assert np.array_equal(mask, boxed & organ_mask(desk))
    before = prompts(desk)
    desk.click(INSIDE)
    assert prompts(desk) == before
    assert any("takes boxes only" in text for text in desk.said)


def test_the_key_takes_the_lasso_into_the_hand(desk: Desk) -> None:
    desk.look_at(VIEW)
    desk.bridge.set_tool("paint")
    desk.key(Qt.Key.Key_Q, SHIFT)
    assert desk.bridge.tool == "lasso"
    assert desk.widget.prompt_panel.tools["lasso"].isChecked()
    assert not desk.widget.prompt_panel.tools["box"].isChecked()


def click_corners(desk: Desk) -> None:
    """With napari's own polygon tool."""
    desk.look_at(VIEW)
    desk.bridge.set_tool("box")
    desk.bridge.boxes_layer.mode = "add_polygon"
    for corner in HALF:
        place = desk.canvas_xy(corner)
        QTest.mouseMove(desk.native, place)
        QTest.qWait(5)
        QTest.mouseClick(desk.native, LEFT, NO_KEY, place)
        desk.settle()
        QTest.qWait(450)  # two clicks in less are a double click, which ends the polygon


def test_a_polygon_of_clicks_is_an_outline_that_enter_ends(desk: Desk) -> None:
    click_corners(desk)
    assert not desk.session.objects, "it is not done yet"
    desk.key(Qt.Key.Key_Return)
    mask = desk.wait_for_proposal()
    assert prompts(desk).kinds == {"outline"}
    assert 0 < mask.sum() < organ_mask(desk).sum()
    assert not desk.labels.any(), "the first Enter ends the polygon, the second one accepts"
    desk.key(Qt.Key.Key_Return)
    assert np.array_equal(desk.slice_labels(VIEW) > 0, mask)


def test_escape_drops_a_polygon_that_is_not_done(desk: Desk) -> None:
    box_the_organ(desk)
    click_corners(desk)
    desk.key(Qt.Key.Key_Escape)
    assert prompts(desk).kinds == {"box"}
    assert list(desk.bridge.boxes_layer.shape_type) == ["rectangle"]
    desk.key(Qt.Key.Key_Escape)
    assert not desk.session.objects


def test_polygons_of_the_users_own_layer_are_taken_in_and_other_shapes_by_their_boxes(desk: Desk) -> None:
    desk.look_at(VIEW)
    desk.bridge.set_tool("point")
    desk.click(INSIDE)
    own = desk.viewer.add_shapes(name="mine", ndim=3, **desk.bridge.frame.layer_arguments)
    own.add(np.array(HALF, float), shape_type="polygon")
    own.add(np.array([(4, 5, 7), (4, 5, 17), (4, 12, 17), (4, 12, 7)], float), shape_type="ellipse")
    desk.bridge.missing.choose_boxes(own)
    desk.settle()
    taken = prompts(desk)
    assert taken.kinds == {"point", "box", "outline"}
    assert np.allclose(taken.outline_xy, [(x, y) for _, y, x in HALF])
    assert np.allclose(taken.box_xyxy, (7, 5, 17, 12))
    assert list(own.shape_type) == ["polygon", "ellipse"]
    assert list(desk.bridge.boxes_layer.shape_type) == ["rectangle", "polygon"]
