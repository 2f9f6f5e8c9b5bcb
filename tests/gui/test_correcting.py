"""Putting a mask right with clicks, as a user does on slices that were carried or accepted."""

from __future__ import annotations

import numpy as np
from qtpy.QtCore import Qt

from napari_sam_med.session.session import Preview
from napari_sam_med.volume.slice_view import SliceView
from tests.gui.desk import Desk
from tests.gui.test_prompting import INSIDE, LIVER, VIEW, box_the_organ, organ_mask

CONTROL = Qt.KeyboardModifier.ControlModifier
CARRIED = SliceView("axial", 3)


def carry_the_organ(desk: Desk) -> None:
    desk.session.select_organ(LIVER)
    box_the_organ(desk)
    desk.key(Qt.Key.Key_Return)
    desk.key(Qt.Key.Key_G)
    desk.wait_until_carried()


def test_a_minus_click_on_a_carried_slice_takes_a_bit_of_its_mask(desk: Desk) -> None:
    carry_the_organ(desk)
    desk.look_at(CARRIED)
    desk.bridge.set_tool("point")
    before = desk.slice_labels(CARRIED) == LIVER
    desk.click((3, 10, 14), CONTROL)
    mask = desk.wait_for_proposal()
    assert not mask[10, 14]
    assert np.count_nonzero(mask & before) > 0.6 * np.count_nonzero(before)
    desk.click((3, 7, 9), CONTROL)
    desk.wait(lambda: desk.session.preview and not desk.session.preview.mask[7, 9])
    again = desk.session.preview.mask
    assert not again[10, 14]
    assert again[10, 10]
    desk.key(Qt.Key.Key_Return)
    assert np.array_equal(desk.slice_labels(CARRIED) == LIVER, again)
    prompts = desk.session.active_object.key_slices[CARRIED]
    assert prompts.kinds == {"point"}, "only what the user asked is kept"
    desk.key(Qt.Key.Key_G)
    desk.wait_until_carried()
    assert np.array_equal(desk.slice_labels(CARRIED) == LIVER, again), (
        "carrying starts from what was accepted"
    )


def test_a_plus_click_keeps_an_accepted_mask(desk: Desk) -> None:
    desk.look_at(VIEW)
    desk.session.select_organ(LIVER)
    desk.bridge.set_tool("box")
    desk.drag((4, 4, 6), (4, 8.4, 18))
    before = desk.wait_for_proposal()
    desk.key(Qt.Key.Key_Return)
    assert before.sum() < organ_mask(desk).sum()
    desk.bridge.set_tool("point")
    desk.click((4, 10, 11))
    mask = desk.wait_for_proposal()
    assert mask[10, 11]
    assert np.count_nonzero(mask & before) > 0.6 * np.count_nonzero(before)


def test_enter_on_an_empty_proposal_changes_nothing_and_says_so(desk: Desk) -> None:
    carry_the_organ(desk)
    before = desk.labels.copy()
    desk.look_at(CARRIED)
    desk.session.preview = Preview(CARRIED, np.zeros((24, 32), dtype=bool), 0.1)
    desk.key(Qt.Key.Key_Return)
    assert np.array_equal(desk.labels, before)
    assert desk.widget.status.text.text() == (
        "The proposed mask is empty; nothing was changed. Add a box or a click."
    )


def test_a_proposals_status_goes_with_its_slice(desk: Desk, predictor) -> None:
    status = desk.widget.status.text
    box_the_organ(desk)
    assert status.text() == "Predicted quality 0.90. Enter accepts, Escape clears."
    desk.look_at(CARRIED)
    assert status.text() == "Prompts not accepted yet: spleen, axial slice 4. Enter accepts them there."
    desk.look_at(VIEW)
    desk.wait_for_proposal()
    desk.session.select_organ(LIVER)
    remedy = "Choose their object, and press Enter there."
    assert status.text() == f"Prompts not accepted yet: spleen, axial slice 4. {remedy}"
    box_the_organ(desk)
    desk.widget.volume_panel.planes["3d"].click()
    desk.wait(lambda: desk.bridge.current_view() is None)
    assert status.text().startswith("The scan in 3-D")
    desk.widget.volume_panel.planes["axial"].click()
    desk.wait_for_proposal()
    desk.key(Qt.Key.Key_Return)
    assert status.text() == "Liver accepted on slice 4. G carries it on."


def test_the_status_of_a_slice_that_was_left_does_not_come_back(desk: Desk, predictor) -> None:
    desk.look_at(VIEW)
    desk.actions.model.model.store.kept.clear()
    predictor.gate.clear()
    predictor.waiting.clear()
    desk.bridge.set_tool("point")
    desk.click(INSIDE)
    desk.wait(predictor.waiting.is_set)
    assert desk.widget.status.text.text() == "embedding axial slice 4…"
    desk.widget.volume_panel.planes["coronal"].click()
    waits = "Prompts not accepted yet: spleen, axial slice 4. Enter accepts them there."
    assert desk.widget.status.text.text() == waits
    predictor.gate.set()
    desk.wait(lambda: not any(job.name == "preview" for job in desk.actions.workers.running))
    desk.settle()
    assert desk.widget.status.text.text() == waits
