"""The section Find: what is asked, what streams in, what a cancelled run keeps, edges and boxes."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from qtpy.QtCore import Qt
from qtpy.QtTest import QTest

from napari_sam_med.errors import DeviceMemoryError
from napari_sam_med.gui import find_control
from napari_sam_med.gui.chooser_layers import BOXES_NAME, CANDIDATES_NAME, EDGES_NAME
from napari_sam_med.gui.find_progress import FindProgress
from napari_sam_med.progress import Progress
from napari_sam_med.segmentation.automatic.words import RankedObject
from napari_sam_med.session import finding_jobs
from napari_sam_med.session.finding_jobs import FindingStep, GivenExample
from napari_sam_med.session.found import FoundBox
from tests.gui import find_desk
from tests.gui.desk import Desk
from tests.gui.find_desk import KIDNEY, SHAPE, STOMACH, Search, axial, choose, find, start
from tests.gui.test_chooser import click, hover

LIVER = 6


def done(desk: Desk) -> bool:
    return not desk.actions.is_busy


def test_candidates_stream_in_and_a_cancelled_run_keeps_them_as_objects(desk: Desk, search: Search) -> None:
    search.held_at = 3
    search.gate.clear()
    start(desk)
    found, rows = desk.actions.finding.found, desk.widget.find_panel.list
    desk.wait(lambda: len(found.objects) == 6)  # of slices 3, 4 and 2, each mask by itself
    desk.wait(
        lambda: CANDIDATES_NAME in desk.viewer.layers and desk.viewer.layers[CANDIDATES_NAME].data.any()
    )
    assert desk.widget.find_panel.told.text() == "6 objects so far. Not for clinical use."
    listed = [[rows.topLevelItem(i).text(c) for c in (2, 4)] for i in range(rows.topLevelItemCount())]
    assert listed == [["–", index] for index in ("3", "3", "4", "4", "2", "2")], "as they were found"
    assert not desk.widget.find_panel.start.isEnabled()
    hover(desk, (3, 9, 11))
    assert found.mask_on(found.pointed, axial(3)) is KIDNEY.masks[axial(3)]
    desk.widget.status.cancel.click()
    search.gate.set()
    desk.wait(lambda: done(desk))
    desk.settle()
    assert desk.said[-1].startswith("Cancelled. 3 objects found. Point at one")
    slices = [[view.index for view in one.masks] for one in found.objects.values()]
    assert slices == [[2, 3, 4], [2, 3, 4, 5], [5]], "with the slice that was at work"
    desk.session.select_organ(LIVER)
    click(desk, (3, 9, 11))
    assert (desk.labels == LIVER).any(axis=(1, 2)).nonzero()[0].tolist() == [2, 3, 4]


def test_a_cancelled_run_says_what_it_leaves_out(
    desk: Desk, search: Search, monkeypatch: pytest.MonkeyPatch
) -> None:
    search.held_at = 3
    search.gate.clear()
    monkeypatch.setattr(find_desk, "_cut", lambda views: [KIDNEY])  # as if the others were seen once
    start(desk)
    desk.wait(lambda: len(desk.actions.finding.found.objects) == 6)
    desk.widget.status.cancel.click()
    search.gate.set()
    desk.wait(lambda: done(desk))
    assert re.match(
        r"Cancelled\. 1 object found\..* Left out: \d masks seen on one slice alone", desk.said[-1]
    )


def test_j_after_a_run_points_at_what_lies_under_the_mouse_then(desk: Desk, search: Search) -> None:
    search.held_at = 3
    search.gate.clear()
    start(desk)
    found = desk.actions.finding.found
    desk.wait(lambda: len(found.objects) == 6)  # of slices 3, 4 and 2, the small one and the large one
    desk.look_at(axial(2))
    hover(desk, (2, 9, 11))
    assert set(found.under(axial(2), (11, 9))) == {5, 6}
    desk.look_at(axial(2))
    search.gate.set()
    desk.wait(lambda: done(desk))
    desk.settle()
    desk.key(Qt.Key.Key_J)
    assert found.pointed == 1
    desk.key(Qt.Key.Key_J)
    assert found.pointed == 2
    desk.key(Qt.Key.Key_J)
    desk.key(Qt.Key.Key_Return)
    desk.wait(lambda: not desk.actions.finding.chooser.is_taking)
    assert (desk.labels > 0).sum() == KIDNEY.voxels
    desk.key(Qt.Key.Key_J)
    assert found.pointed == 2, "what is taken lies there no more"


def test_nothing_is_taken_into_an_organ_before_it_is_named(desk: Desk, search: Search) -> None:
    search.held_at = 3
    search.gate.clear()
    desk.session.select_organ(LIVER)
    start(desk)
    desk.wait(lambda: len(desk.actions.finding.found.objects) == 6)
    desk.wait(
        lambda: CANDIDATES_NAME in desk.viewer.layers and desk.viewer.layers[CANDIDATES_NAME].data.any()
    )
    hover(desk, (3, 9, 11))
    assert desk.said[-1].endswith(
        "What it looks like is told when all is searched: choose its organ in the list to take it."
    )
    click(desk, (3, 9, 11))
    assert not desk.labels.any()
    search.gate.set()
    desk.wait(lambda: done(desk))
    desk.settle()
    click(desk, (3, 9, 11))
    assert desk.session.organs.name_of(int(desk.labels[3, 9, 11])) == "left kidney"


def test_a_cancelled_example_does_not_count_what_was_carried_anew(
    desk: Desk, search: Search, monkeypatch: pytest.MonkeyPatch
) -> None:
    search.held_at = 3
    search.gate.clear()
    monkeypatch.setattr(finding_jobs, "example", lambda sight, plan, given: search(sight, plan))
    monkeypatch.setattr(find_desk, "_cut", lambda views: [KIDNEY])
    desk.session.select_organ(LIVER)
    desk.look_at(axial(3))
    finding = desk.actions.finding
    finding.find_like(finding.plan(True, 1, 0.0, True), GivenExample("liver", LIVER))
    desk.wait(lambda: len(finding.found.objects) == 6)
    desk.widget.status.cancel.click()
    search.gate.set()
    desk.wait(lambda: done(desk))
    assert desk.said[-1].startswith("Cancelled. 1 object found.")
    assert "Left out" not in desk.said[-1]


def test_the_list_is_in_sight_while_it_fills_and_a_row_goes_to_its_slice(desk: Desk, search: Search) -> None:
    search.held_at = 3
    search.gate.clear()
    panel, rows = desk.widget.find_panel, desk.widget.find_panel.list
    panel.expand(animate=False)
    desk.settle()
    desk.widget._scroll.ensureWidgetVisible(panel.start)
    start(desk)
    desk.wait(lambda: rows.topLevelItemCount() == 6)
    desk.wait(lambda: not rows.visibleRegion().isEmpty())
    last = rows.topLevelItem(5)
    rows.scrollToItem(last)
    QTest.mouseClick(rows.viewport(), Qt.MouseButton.LeftButton, pos=rows.visualItemRect(last).center())
    desk.wait(lambda: desk.bridge.current_view() == axial(2))
    search.gate.set()
    desk.wait(lambda: done(desk))
    desk.wait(lambda: rows.topLevelItemCount() == 3)
    assert [rows.topLevelItem(i).text(1) for i in range(3)] == ["left kidney", "stomach", "–"], "ranked now"


def test_the_bar_says_how_far_it_is_and_moves_while_nothing_comes(
    desk: Desk, search: Search, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [100.0]
    monkeypatch.setattr(find_control, "FindProgress", partial(FindProgress, lambda: clock[0]))
    gate = threading.Event()

    def slow(sight, plan):
        while not gate.is_set():  # as a search that works on its first slice tells again where it is
            yield FindingStep(Progress(0, 8, "slice 1 of 8"))
            time.sleep(0.01)
        yield FindingStep(Progress(2, 8, "slice 3 of 8"), plan.view)
        raise DeviceMemoryError("The device is full; close a program.")

    monkeypatch.setattr(finding_jobs, "everything", slow)
    seen = []
    desk.actions.progress.connect(lambda progress: progress and seen.append(progress.text))
    bar = desk.widget.status.bar
    start(desk)
    desk.wait(lambda: bar.isVisible() and bar.text().startswith("slice 1 of 8"))
    assert seen[0] == "starting"
    assert bar.text() == "slice 1 of 8 0%"
    clock[0] += 7
    desk.wait(lambda: bar.text() == "slice 1 of 8, 7 s 0%")
    clock[0] += 3
    desk.wait(lambda: bar.text() == "slice 1 of 8, 10 s 0%")
    gate.set()
    desk.wait(lambda: done(desk))
    assert seen[-1] == "slice 3 of 8, 30 s left"


def test_naming_is_said_once(desk: Desk, search: Search, monkeypatch: pytest.MonkeyPatch) -> None:
    def named(sight, plan):
        objects = yield from search(sight, plan)
        for number in range(1, 4):
            yield FindingStep(Progress(number, 3, f"naming {number} of 3"))
        return objects

    monkeypatch.setattr(finding_jobs, "everything", named)
    find(desk)
    assert desk.said.count("Naming the objects…") == 1
    assert desk.said[-1].startswith("3 objects found.")


def test_what_is_chosen_is_asked_and_an_error_keeps_what_was_found(desk: Desk, search: Search) -> None:
    panel = desk.widget.find_panel
    panel.everything.grid.setValue(12)
    panel.everything.names.setChecked(False)
    find(desk, whole=False, every=2)
    [plan] = search.asked
    assert (plan.view, plan.whole, plan.every, plan.grid_mm, plan.names) == (axial(3), False, 2, 12.0, False)
    assert desk.said[-1].startswith("2 objects found. Point at one in the list or on the image;")
    search.error, search.held_at = DeviceMemoryError("The device is full; close a program."), 3
    start(desk)
    desk.wait(lambda: len(search.asked) == 2 and done(desk))
    desk.settle()
    assert "The device is full" in desk.said[-1]
    assert len(desk.actions.finding.found.objects) == 2
    assert panel.start.isEnabled()


def test_a_word_ranks_what_is_there(desk: Desk, search: Search, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, likely = [], {1: 0.1, 2: 0.05, 3: 0.8}

    def word(sight, plan, meant, objects):
        asked.append((meant, objects))
        yield FindingStep(Progress(0, 0, "looking"))
        return sorted((RankedObject(one, likely[one.number]) for one in objects), key=lambda r: -r.score)

    monkeypatch.setattr(finding_jobs, "word", word)
    find(desk)
    panel = desk.widget.find_panel
    choose(panel.what, "word")
    panel.word.word.setText("stomach")
    panel.start.click()
    desk.wait(lambda: asked and done(desk))
    desk.settle()
    assert asked[0][0] == "stomach"
    assert len(asked[0][1]) == 3
    assert [panel.list.topLevelItem(i).text(2) for i in range(3)] == ["80 %", "10 %", "5 %"]
    assert panel.list.headerItem().text(2) == "Likely"
    assert desk.said[-1].startswith("3 objects found, the likeliest stomach first. Point at one")
    likely[3] = 0.2
    panel.start.click()
    desk.wait(lambda: len(asked) == 2 and done(desk))
    assert desk.said[-1].startswith("None of 3 objects is likely to be stomach; the list is in order of")
    assert desk.viewer.layers[CANDIDATES_NAME].visible
    likely.update({1: 0.001, 2: 0.0, 3: 0.004})
    panel.start.click()
    desk.wait(lambda: len(asked) == 3 and done(desk))
    assert desk.said[-1].startswith("None of the found objects looks like stomach. Search with")
    assert "None looks like stomach." in panel.told.text()
    assert [panel.list.topLevelItem(i).text(2) for i in range(3)] == ["91 %", "60 %", "–"], "as found"
    panel.word.word.setText("  ")
    panel.start.click()
    assert "No word was given" in desk.said[-1]
    for entry in range(panel.what.count()):
        choose(panel.what, panel.what.itemData(entry))
        desk.settle()
        assert panel.minimumSizeHint().width() <= panel.width(), "nothing is cut off"


def test_an_example_is_what_the_chosen_organ_has_here(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked = []

    def example(sight, plan, given):
        asked.append(given)
        yield FindingStep(Progress(0, 0, "looking"))
        return [STOMACH]

    monkeypatch.setattr(finding_jobs, "example", example)
    panel = desk.widget.find_panel
    panel.expand(animate=False)
    desk.session.select_organ(LIVER)
    desk.look_at(axial(3))
    choose(panel.what, "example")
    panel.start.click()
    assert "liver has no mask on this slice" in desk.said[-1]
    desk.labels[3, 4:9, 5:9] = LIVER
    choose(panel.example.engine, "stitching")
    panel.start.click()
    desk.wait(lambda: asked and done(desk))
    assert np.array_equal(asked[0].mask, desk.labels[3] == LIVER)
    assert (asked[0].name, asked[0].engine, asked[0].image) == ("liver", "stitching", None)
    panel.example.use_files(tmp_path / "other.nii.gz", tmp_path / "labels.nii.gz")
    panel.start.click()
    desk.wait(lambda: len(asked) == 2 and done(desk))
    assert asked[1].mask is None
    assert asked[1].labels == tmp_path / "labels.nii.gz"


def test_edges_are_an_image_on_the_grid_of_the_scan(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    strong = np.zeros(SHAPE, dtype=np.float32)
    strong[4, 6:20] = 1.0

    def edges(sight, plan):
        for number, view in enumerate(plan.views((8, *SHAPE))):
            yield FindingStep(Progress(number + 1, 8), view, edges=strong * (number + 1) / 8)
        return []

    monkeypatch.setattr(finding_jobs, "edges", edges)
    choose(desk.widget.find_panel.what, "edges")
    start(desk)
    desk.wait(lambda: EDGES_NAME in desk.viewer.layers and done(desk))
    desk.settle()
    layer = desk.viewer.layers[EDGES_NAME]
    assert layer.data.shape == desk.labels.shape
    assert layer.data[:, 4, 10].tolist() == [223, 159, 96, 32, 64, 128, 191, 255], "from slice 3 outwards"
    assert np.allclose(layer.scale, desk.bridge.image_layer.scale)
    assert layer.blending == "additive"
    assert layer not in desk.bridge.layers_of_type(type(layer))
    assert desk.said[-1] == "The edges of 8 slices are shown."
    start(desk, whole=False)
    desk.wait(lambda: done(desk) and "The edges of 1 slice are shown." in desk.said)
    assert [one.name for one in desk.viewer.layers].count(EDGES_NAME) == 1, "no volume more a run"
    assert desk.viewer.layers[EDGES_NAME] is layer
    assert layer.data[:, 4, 10].tolist() == [0, 0, 0, 32, 0, 0, 0, 0]


def test_a_proposed_box_is_taken_as_a_prompt(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    def proposals(sight, plan):
        boxes = (
            FoundBox(1, plan.view, (8, 6, 15, 11), 0.9),
            FoundBox(2, plan.view, (5, 3, 21, 16), 0.6),
        )
        yield FindingStep(Progress(1, 1), plan.view, boxes=boxes)
        return []

    monkeypatch.setattr(finding_jobs, "proposals", proposals)
    desk.session.select_organ(LIVER)
    desk.bridge.set_tool("point")
    choose(desk.widget.find_panel.what, "proposals")
    start(desk, whole=False)
    desk.wait(lambda: BOXES_NAME in desk.viewer.layers and done(desk))
    desk.settle()
    assert desk.widget.find_panel.list.headerItem().text(2) == "Score"
    layer = desk.viewer.layers[BOXES_NAME]
    assert layer.features["score"].tolist() == [0.9, 0.6]
    rows = desk.widget.find_panel.list
    assert [rows.topLevelItem(i).text(1) for i in range(2)] == ["8 × 6 px", "17 × 14 px"]
    hover(desk, (3, 8, 12))
    assert desk.actions.finding.found.pointed == 1
    desk.key(Qt.Key.Key_J)
    assert desk.actions.finding.found.pointed == 2
    desk.click((3, 8, 12))
    assert desk.wait_for_proposal().any()
    item = desk.session.active_object
    assert item.class_id == LIVER
    assert item.key_slices[axial(3)].box_xyxy.tolist() == [5, 3, 21, 16]
    assert desk.bridge.tool == "point", "the chooser is left, to go on with prompts"
    desk.undo()
    assert desk.session.active_object is None


def test_a_run_that_is_cancelled_before_it_finds_anything_says_so(desk: Desk, search: Search) -> None:
    search.gate.clear()
    start(desk, index=0)  # which shows nothing
    desk.wait(lambda: search.asked)
    desk.widget.status.cancel.click()
    search.gate.set()
    desk.wait(lambda: done(desk))
    assert desk.said[-1] == "Cancelled; nothing was found yet."


def test_another_scan_has_other_candidates(desk: Desk, search: Search, make_volume: Callable) -> None:
    find(desk)
    other = make_volume((9, 24, 32))
    layer = desk.viewer.add_image(other.data, metadata={"sam_med": other}, **other.display_transform)
    desk.actions.open_scan(layer)
    desk.wait(lambda: desk.bridge.image_layer is layer)
    assert desk.actions.finding.found.is_empty
    desk.wait(lambda: CANDIDATES_NAME not in desk.viewer.layers)
    assert not desk.actions.finding.chooser.is_on


def test_the_list_has_one_measure_and_says_which(
    desk: Desk, search: Search, monkeypatch: pytest.MonkeyPatch
) -> None:
    find(desk)
    rows = desk.widget.find_panel.list
    assert [rows.topLevelItem(i).text(2) for i in range(3)] == ["91 %", "60 %", "–"]
    assert rows.headerItem().text(2) == "Sure"
    assert "how probable the organ" in rows.headerItem().toolTip(2)
    assert rows.headerItem().toolTip(2) in rows.toolTip()

    def word(sight, plan, meant, objects):
        yield FindingStep(Progress(0, 0, "looking"))
        return [RankedObject(one, 0.7) for one in objects]

    monkeypatch.setattr(finding_jobs, "word", word)
    choose(desk.widget.find_panel.what, "word")
    desk.widget.find_panel.word.word.setText("stomach")
    desk.widget.find_panel.start.click()
    desk.wait(lambda: rows.headerItem().text(2) == "Likely")
    assert "that the object is stomach, in per cent" in rows.headerItem().toolTip(2)
    hover(desk, (3, 9, 11))
    assert desk.said[-1].startswith("left kidney 91 %, stomach 70 %, ")


def test_a_click_unfolds_the_section_and_its_results_have_room(desk: Desk, search: Search) -> None:
    panel = desk.widget.find_panel
    header = panel.toggleButton()
    desk.widget._scroll.ensureWidgetVisible(header)
    QTest.mouseClick(header, Qt.MouseButton.LeftButton)
    desk.settle()
    assert panel.isExpanded()
    assert CANDIDATES_NAME not in desk.viewer.layers
    find(desk)
    desk.wait(lambda: panel.list.height() > 100)
    for part in (panel.list, panel.choose, panel.take, panel.forget, panel.told):
        bottom = part.mapTo(panel.content(), part.rect().bottomLeft()).y()
        assert part.isVisible()
        assert bottom < panel.content().height()
    QTest.mouseClick(header, Qt.MouseButton.LeftButton)
    desk.settle()
    assert not panel.isExpanded()
    assert panel.content().height() == 0


def test_enter_in_an_input_is_for_that_input_alone(
    desk: Desk, search: Search, monkeypatch: pytest.MonkeyPatch
) -> None:
    find(desk)
    found = desk.actions.finding.found
    hover(desk, (3, 9, 11))
    desk.wait(lambda: found.pointed is not None)
    asked = []

    def word(sight, plan, meant, objects):
        asked.append(meant)
        yield FindingStep(Progress(0, 0, "looking"))
        return [RankedObject(one, 0.9) for one in objects]

    monkeypatch.setattr(finding_jobs, "word", word)
    panel = desk.widget.find_panel
    choose(panel.what, "word")
    panel.word.word.setFocus()
    desk.settle()
    panel.word.word.setText("liver")
    QTest.keyClick(panel.word.word, Qt.Key.Key_Return)
    desk.wait(lambda: asked == ["liver"] and done(desk))
    desk.settle()
    assert not desk.labels.any(), "Enter takes what is lit up where the canvas has the keyboard, not here"
    hover(desk, (3, 9, 11))
    desk.wait(lambda: found.pointed is not None)
    panel.every.setFocus()
    QTest.keyClick(panel.every, Qt.Key.Key_Return)
    desk.settle()
    assert not desk.labels.any()
    QTest.keyClick(desk.native, Qt.Key.Key_Return)
    desk.wait(lambda: bool(desk.labels.any()))
