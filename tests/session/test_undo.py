"""What the undo stack keeps and forgets."""

from __future__ import annotations

import numpy as np

from napari_sam_med.session.changes import Change
from napari_sam_med.session.objects import Annotations
from napari_sam_med.session.undo import UndoStack
from napari_sam_med.volume.labels import LabelChange
from napari_sam_med.volume.organs import OrganTable
from napari_sam_med.volume.slice_view import SliceView


def step(label: str, n_voxels: int = 1) -> Change:
    now = Annotations(OrganTable(), {}, 1, None)
    values = np.zeros(n_voxels, dtype=np.uint8)
    return Change(label, (LabelChange(SliceView("axial", 0), np.arange(n_voxels), values, values),), now, now)


def test_steps_come_back_newest_first_and_can_be_redone() -> None:
    stack = UndoStack()
    for label in ("a", "b"):
        stack.push(step(label))
    assert stack.undo().label == "b"
    assert (stack.undo_label, stack.redo_label) == ("a", "b")
    assert stack.redo().label == "b"
    assert stack.redo() is None


def test_a_new_step_forgets_what_was_undone() -> None:
    stack = UndoStack()
    stack.push(step("a"))
    stack.undo()
    stack.push(step("b"))
    assert stack.redo() is None
    assert len(stack) == 1


def test_old_steps_go_by_number_and_by_weight_but_never_below_the_least_number() -> None:
    stack = UndoStack(min_steps=3, max_steps=5, max_bytes=1)
    for number in range(10):
        stack.push(step(str(number), n_voxels=1000))
    assert len(stack) == 3
    light = UndoStack(min_steps=3, max_steps=5)
    for number in range(10):
        light.push(step(str(number)))
    assert len(light) == 5


def test_nothing_to_undo() -> None:
    stack = UndoStack()
    assert stack.undo() is None
    assert stack.undo_label is None
    stack.push(step("a"))
    stack.clear()
    assert stack.undo() is None
