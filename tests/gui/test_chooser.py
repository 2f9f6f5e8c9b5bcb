"""The chooser, with real hovers and clicks: what lights up, what is taken, and how it is left."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from qtpy.QtCore import QPoint, Qt
from qtpy.QtTest import QTest

from napari_sam_med.gui import chooser, find_list
from napari_sam_med.gui.chooser_layers import CANDIDATES_NAME
from napari_sam_med.gui.organ_panel import _CLASS_ID
from napari_sam_med.segmentation.organ_objects import OrganGuess
from napari_sam_med.session.found import Found
from napari_sam_med.volume.organs import Organ
from tests.gui import find_desk
from tests.gui.desk import LEFT, NO_KEY, Desk
from tests.gui.find_desk import KIDNEY, LARGE, SMALL, STOMACH, Search, axial, choose, find

LIVER = 6
POINTED = 1


@pytest.fixture
def ready(desk: Desk, search: Search) -> Desk:
    """Slice 3 of what was found, with the liver chosen for it."""
    find(desk)
    desk.session.select_organ(LIVER)
    return desk


def found(desk: Desk) -> Found:
    return desk.actions.finding.found


def hover(desk: Desk, index_zyx: tuple[float, float, float]) -> None:
    place = desk.canvas_xy(index_zyx)
    QTest.mouseMove(desk.native, place + QPoint(2, 2))
    QTest.mouseMove(desk.native, place)
    desk.settle()


def click(desk: Desk, index_zyx: tuple[float, float, float]) -> None:
    desk.click(index_zyx)
    desk.wait(lambda: not desk.actions.finding.chooser.is_taking)


def lit(desk: Desk) -> np.ndarray:
    """Pixels that stand out on the canvas's layer."""
    layer = desk.viewer.layers[CANDIDATES_NAME]
    return layer.data[0] == POINTED


def test_hovering_lights_up_the_smallest_and_j_what_lies_around_it(ready: Desk) -> None:
    hover(ready, (3, 9, 11))
    ready.wait(lambda: np.array_equal(lit(ready), SMALL.mask))
    assert ready.said[-1] == "left kidney 91 %, score 0.90, 0.288 ml. Click to take it into liver."
    ready.key(Qt.Key.Key_J)
    ready.wait(lambda: np.array_equal(lit(ready), LARGE.mask))
    assert "Object 2, score 0.80" in ready.said[-1]
    hover(ready, (3, 9, 12))  # still over both: what was stepped to stays
    assert found(ready).pointed == 2
    ready.key(Qt.Key.Key_J)
    ready.wait(lambda: np.array_equal(lit(ready), SMALL.mask))
    hover(ready, (3, 5, 18))
    ready.wait(lambda: np.array_equal(lit(ready), LARGE.mask))
    hover(ready, (3, 22, 4))
    assert not lit(ready).any()
    assert not ready.labels.any()
    layer = ready.viewer.layers[CANDIDATES_NAME]
    assert layer.data.shape == (1, 24, 32), "one slice of it, however large the volume is"
    assert layer not in ready.bridge.layers_of_type(type(layer))


def test_what_is_found_next_lies_above_a_layer_that_came_meanwhile(ready: Desk) -> None:
    ready.widget.find_panel.forget.click()
    image = ready.bridge.image_layer
    ready.viewer.add_image(np.zeros(image.data.shape), name="theirs", scale=image.scale, units=image.units)
    find(ready)
    assert ready.viewer.layers[-1].name == CANDIDATES_NAME
    click(ready, (3, 9, 11))
    [kidney] = [number for number, organ in ready.session.organs.items() if organ.name == "left kidney"]
    expected = np.zeros_like(ready.labels)
    KIDNEY.written_into(expected, kidney)
    assert np.array_equal(ready.labels, expected)


def test_a_click_takes_it_into_the_chosen_organ_and_one_undo_brings_it_back(ready: Desk) -> None:
    click(ready, (3, 9, 11))
    expected = np.zeros_like(ready.labels)
    KIDNEY.written_into(expected, LIVER)
    assert np.array_equal(ready.labels, expected)
    assert [item.name for item in ready.session.objects.values()] == ["liver"]
    assert "Liver taken. Ctrl-Z undoes it; G carries it on." in ready.said
    assert found(ready).taken == {1}
    hover(ready, (3, 9, 11.5))
    ready.wait(lambda: np.array_equal(lit(ready), LARGE.mask))  # what was taken is no candidate any more
    ready.undo()
    assert not ready.labels.any()
    hover(ready, (3, 9, 11))
    ready.wait(lambda: np.array_equal(lit(ready), SMALL.mask))


def test_it_is_taken_whole_before_the_next_key(ready: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chooser, "_SLICE_OF_TIME", 0.0)  # a large object on a slow computer
    ready.actions.finding.chooser.take(1)
    assert not ready.labels.any()
    QTest.keyClick(ready.native, Qt.Key.Key_Z, Qt.KeyboardModifier.ControlModifier)
    ready.settle()
    assert not ready.labels.any()
    ready.redo()
    assert (ready.labels == LIVER).any(axis=(1, 2)).nonzero()[0].tolist() == [2, 3, 4]
    assert found(ready).taken == {1}


def test_a_row_that_is_gone_is_not_gone_to(ready: Desk) -> None:
    rows = ready.widget.find_panel.list
    rows.itemEntered.emit(rows.topLevelItem(0), 1)
    assert found(ready).pointed == 1
    found(ready).clear()
    QTest.qWait(find_list._REST_MS + 50)  # what would go there would fail
    assert found(ready).pointed is None


def test_the_organ_that_it_looks_like_or_a_new_one_or_joined_to_one(ready: Desk) -> None:
    panel = ready.widget.find_panel
    choose(panel.into, "suggested")
    click(ready, (3, 9, 11))
    [item] = ready.session.objects.values()
    assert ready.session.organs.name_of(item.class_id) == "left kidney"
    click(ready, (3, 5, 18))
    assert "It looks like no known organ; choose its organ in the list" in ready.said[-1]
    choose(panel.into, "new")
    click(ready, (3, 5, 18))
    assert len(ready.session.objects) == 2
    assert max(ready.session.organs) == 14
    assert (ready.labels[3] == 14).sum() == LARGE.area_px - SMALL.area_px
    ready.look_at(axial(5))
    hover(ready, (5, 19, 25))
    choose(panel.into, "active")
    panel.joins.setChecked(True)
    ready.key(Qt.Key.Key_Return)  # as a click
    ready.wait(lambda: not ready.actions.finding.chooser.is_taking)
    assert found(ready).taken == {1, 2, 3}
    assert len(ready.session.objects) == 2
    assert (ready.labels[5] == 14).sum() == LARGE.area_px + STOMACH.voxels


def click_organ(desk: Desk, class_id: int) -> None:
    """Choose an organ in the list of organs."""
    tree = desk.widget.organ_panel.tree
    [row] = [
        tree.topLevelItem(i)
        for i in range(tree.topLevelItemCount())
        if tree.topLevelItem(i).data(0, _CLASS_ID) == class_id
    ]
    tree.scrollToItem(row)
    place = tree.visualItemRect(row).center()
    QTest.mouseClick(tree.viewport(), Qt.MouseButton.LeftButton, NO_KEY, place)
    desk.settle()


def test_a_guess_is_taken_unless_an_organ_is_chosen_meanwhile(desk: Desk, search: Search) -> None:
    desk.session.select_organ(LIVER)
    find(desk)
    panel = desk.widget.find_panel
    assert panel.into.currentData() == "suggested"
    hover(desk, (3, 9, 11))
    assert desk.said[-1].endswith("Click to take it into left kidney.")
    hover(desk, (3, 5, 18))
    assert desk.said[-1].endswith("It looks like no known organ: choose its organ in the list to take it.")
    click(desk, (3, 9, 11))
    assert desk.session.organs.name_of(int(desk.labels[3, 9, 11])) == "left kidney"
    assert panel.into.currentData() == "suggested", "what taking chooses is not the user's choice"
    desk.undo()
    assert panel.into.currentData() == "suggested"
    click_organ(desk, LIVER)
    assert panel.into.currentData() == "active"
    assert desk.said[-1] == "Found objects are taken into liver from now on (Take into, under Find)."
    click(desk, (3, 9, 11))
    click(desk, (3, 5, 18))
    assert set(np.unique(desk.labels)) == {0, LIVER}
    find(desk)
    assert panel.into.currentData() == "suggested", "other objects, other organs"


def test_where_nothing_has_a_guess_objects_go_into_the_chosen_organ(
    desk: Desk, search: Search, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(find_desk, "OBJECTS", [one.with_organ(None) for one in find_desk.OBJECTS])
    desk.session.select_organ(LIVER)
    find(desk)
    hover(desk, (3, 9, 11))
    assert desk.said[-1].endswith("Click to take it into liver.")
    click(desk, (3, 9, 11))
    assert (desk.labels == LIVER).sum() == KIDNEY.voxels
    click_organ(desk, 1)
    choose(desk.widget.find_panel.into, "new")
    click_organ(desk, LIVER)
    assert desk.widget.find_panel.into.currentData() == "new", "what was said there holds"


def test_a_locked_organ_is_refused_with_a_word(ready: Desk) -> None:
    ready.session.set_organ(Organ(LIVER, "liver", (1, 0, 0), locked=True))
    click(ready, (3, 9, 11))
    assert "liver is locked" in ready.said[-1]
    assert not ready.labels.any()
    assert found(ready).taken == set()


def test_what_another_organ_keeps_of_it_is_said(ready: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    ready.labels[3, 7, 9:13] = 1  # 4 of 48 voxels
    click(ready, (3, 9, 11))
    assert "Liver taken; spleen keeps 8 % of it. Ctrl-Z undoes it; G carries it on." in ready.said
    assert (ready.labels[3, 7, 9:13] == 1).all()
    assert (ready.labels == LIVER).sum() == 44
    ready.undo()
    ready.session.set_organ(Organ(1, "spleen", (1, 0, 0), locked=True))
    hover(ready, (3, 5, 18))
    click(ready, (3, 9, 11))
    assert "Liver taken; spleen (locked) keeps 8 % of it. Ctrl-Z undoes it; G carries it on." in ready.said
    hover(ready, (3, 5, 18))  # over what lies around it
    assert found(ready).pointed == 2
    assert ready.widget.status.text.text().startswith("Liver taken; spleen (locked) keeps")
    monkeypatch.setattr(chooser, "_READ_SECONDS", 0.0)
    ready.undo()
    click(ready, (3, 9, 11))
    hover(ready, (3, 5, 17))
    hover(ready, (3, 9, 11))
    hover(ready, (3, 22, 4))
    hover(ready, (3, 5, 18))
    assert ready.widget.status.text.text().startswith("Object 2, score 0.80"), "when it was read"


def test_what_others_have_all_of_is_refused_and_stays_to_be_chosen(ready: Desk) -> None:
    ready.labels[2:5, 4:16, 6:20] = 1
    click(ready, (3, 9, 11))
    assert ready.said[-1] == (
        "All of this object is spleen already, so nothing was taken into liver; erase there first."
    )
    assert not (ready.labels == LIVER).any()
    assert not ready.session.objects
    assert found(ready).pointed == 1


def test_a_drag_moves_the_camera_and_takes_nothing(ready: Desk) -> None:
    before = tuple(ready.viewer.scene.camera.center)
    ready.drag((3, 9, 11), (3, 13, 15))
    assert tuple(ready.viewer.scene.camera.center) != before
    assert not ready.labels.any()
    place = ready.canvas_xy((3, 9, 11))
    QTest.mouseClick(ready.native, Qt.MouseButton.RightButton, NO_KEY, place)
    ready.settle()
    assert not ready.labels.any()


def test_escape_leaves_it_and_gives_the_tool_back(desk: Desk, search: Search) -> None:
    desk.session.select_organ(LIVER)
    desk.bridge.set_tool("box")
    find(desk)
    assert desk.bridge.tool == "pan"
    desk.key(Qt.Key.Key_Escape)
    assert desk.bridge.tool == "box"
    assert not desk.viewer.layers[CANDIDATES_NAME].visible
    assert not desk.widget.find_panel.choose.isChecked()
    desk.drag((3, 4, 6), (3, 13, 17))
    assert desk.wait_for_proposal().any()
    desk.key(Qt.Key.Key_Escape)  # now for the prompts
    assert desk.session.preview is None
    desk.widget.find_panel.choose.click()
    assert desk.viewer.layers[CANDIDATES_NAME].visible
    hover(desk, (3, 9, 11))
    assert found(desk).pointed == 1


def test_another_tool_leaves_it(ready: Desk) -> None:
    ready.key(Qt.Key.Key_W)
    assert not ready.actions.finding.chooser.is_on
    click(ready, (3, 9, 11))
    assert found(ready).taken == set()
    assert ready.session.active_object is not None, "the click was a prompt"


def test_the_list_goes_to_the_best_slice_and_a_double_click_takes(ready: Desk) -> None:
    rows = ready.widget.find_panel.list
    shown = [[rows.topLevelItem(i).text(c) for c in range(5)] for i in range(rows.topLevelItemCount())]
    assert shown == [
        ["1", "left kidney", "91 %", "0.288", "2–4"],
        ["3", "stomach", "60 %", "0.21", "5"],
        ["2", "–", "–", "6.05", "1–6"],
    ]
    rows.scrollToItem(rows.topLevelItem(1))
    place = rows.visualItemRect(rows.topLevelItem(1)).center()
    QTest.mouseMove(rows.viewport(), place)
    QTest.mouseClick(rows.viewport(), LEFT, NO_KEY, place)
    ready.settle()
    assert ready.bridge.current_view() == axial(5)
    ready.wait(lambda: np.array_equal(lit(ready), STOMACH.masks[axial(5)].mask))
    QTest.mouseDClick(rows.viewport(), LEFT, NO_KEY, place)
    ready.wait(lambda: found(ready).taken)
    assert found(ready).taken == {3}
    assert rows.topLevelItem(1).text(0) == "✓"
    ready.undo()
    assert rows.topLevelItem(1).text(0) == "3"


def test_a_sure_organ_is_not_cut_off(ready: Desk) -> None:
    found(ready).replace([replace(KIDNEY, organ=OrganGuess("left kidney", 1.0, abstained=False))])
    rows = ready.widget.find_panel.list
    assert rows.topLevelItem(0).text(2) == "100 %"
    ready.settle()
    assert rows.sizeHintForColumn(2) <= rows.columnWidth(2)


def test_it_follows_to_other_slices_and_planes(ready: Desk) -> None:
    ready.look_at(axial(5))
    ready.wait(lambda: ready.viewer.layers[CANDIDATES_NAME].data[0][20, 25])
    hover(ready, (5, 19, 25))
    assert found(ready).pointed == 3
    ready.bridge.show_plane("coronal")
    ready.settle()
    assert not ready.viewer.layers[CANDIDATES_NAME].data.any()
    assert found(ready).pointed is None
    ready.bridge.show_plane("axial")
    ready.look_at(axial(5))
    hover(ready, (5, 19, 25))
    assert found(ready).pointed == 3


def test_a_layer_that_the_user_removes_is_made_again_and_clear_forgets_all(ready: Desk) -> None:
    ready.viewer.layers.remove(ready.viewer.layers[CANDIDATES_NAME])
    ready.settle()
    assert not ready.actions.finding.chooser.is_on
    ready.widget.find_panel.choose.click()
    hover(ready, (3, 9, 11))
    ready.wait(lambda: np.array_equal(lit(ready), SMALL.mask))
    click(ready, (3, 9, 11))
    ready.widget.find_panel.forget.click()
    layer = ready.viewer.layers[CANDIDATES_NAME]
    assert not layer.visible
    assert not layer.data.any()
    assert found(ready).is_empty
    assert (ready.labels == LIVER).any(), "what was taken stays"
    assert ready.widget.find_panel.list.topLevelItemCount() == 0
