"""What a propagation must leave alone."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from napari_sam_med.errors import PromptError
from napari_sam_med.progress import Progress
from napari_sam_med.sam.prompts import Prompts
from napari_sam_med.segmentation.propagation import PropagatedSlice
from napari_sam_med.session.session import Session
from napari_sam_med.volume.slice_view import SliceView

LIVER = 6
BOX = Prompts.from_box((2, 2, 9, 9))
KEY = SliceView("axial", 3)


def axial(index: int) -> SliceView:
    return SliceView("axial", index)


@pytest.fixture
def liver(session: Session, propose: Callable) -> int:
    """An object accepted on axial slice 3, rows and columns 2 to 5."""
    session.select_organ(LIVER)
    session.prompt(KEY, BOX)
    propose(KEY, slice(2, 6), slice(2, 6))
    session.accept()
    return session.active_object_id


def carried(session: Session, object_id: int, index: int, mask=None, **more) -> PropagatedSlice:
    fields = {"logits": None, "quality": 0.7, "source": "propagated", "reason": None}
    fields["direction"] = "forward" if index > KEY.index else "backward"
    mask = session.objects[object_id].mask(KEY) if mask is None else mask
    return PropagatedSlice(Progress(1, 2), object_id, LIVER, axial(index), mask, **(fields | more))


def slices(session: Session, object_id: int) -> list[int]:
    return sorted(view.index for view in session.objects[object_id].masks)


@pytest.mark.parametrize(
    ("direction", "reached", "left"), [("forward", 4, [1, 2, 3, 4]), ("backward", 2, [2, 3, 4, 5])]
)
def test_carrying_one_way_leaves_the_other_side(
    session: Session, liver: int, direction: str, reached: int, left: list[int]
) -> None:
    with session.begin("Carry") as change:
        for index in (4, 5, 2, 1):
            change.put(carried(session, liver, index))
        change.drop_outdated(0, 1000, ("forward", "backward"))
    with session.begin("Carry") as change:
        change.put(carried(session, liver, reached))
        change.drop_outdated(0, 1000, (direction,))
    assert slices(session, liver) == left
    assert np.count_nonzero(session.labels.data) == 16 * len(left)


def test_a_stop_that_a_key_slice_has_passed_is_forgotten(session: Session, liver: int, propose) -> None:
    with session.begin("Carry") as change:
        change.put(carried(session, liver, 4))
        change.put(carried(session, liver, 5, np.zeros((8, 9), dtype=bool), reason="a leak"))
        change.drop_outdated(0, 1000)
    assert session.objects[liver].stops["forward"].view == axial(5)
    session.prompt(axial(7), BOX)
    propose(axial(7), slice(2, 6), slice(2, 6))
    session.accept()
    with session.begin("Carry") as change:  # nothing lies beyond slice 7, so no end is reported there
        for index in (4, 5, 6):
            change.put(carried(session, liver, index))
        change.drop_outdated(0, 1000)
    assert "forward" not in session.objects[liver].stops
    session.undo()
    assert session.objects[liver].stops["forward"].view == axial(5)


def test_an_object_removed_while_it_is_carried_stays_removed(session: Session, liver: int) -> None:
    change = session.begin("Carry")
    change.put(carried(session, liver, 4))
    session.remove_object(liver)
    change.drop_outdated(0, 1000)
    change.close()
    assert not session.objects
    assert not session.labels.data.any()


def test_erasing_all_of_an_object_leaves_none_active(session: Session, liver: int) -> None:
    session.prompt(KEY, None)
    session.labels.data[KEY.index] = 0
    session.record_stroke([KEY])
    assert session.active_object_id is None
    with pytest.raises(PromptError, match="nothing to carry"):
        session.propagation_input([liver])
    session.undo()
    assert session.active_object_id == liver


def test_removing_one_of_two_overlapping_objects_keeps_the_other_whole(
    session: Session, liver: int, propose: Callable
) -> None:
    session.new_object()
    session.prompt(KEY, BOX)
    propose(KEY, slice(4, 8), slice(4, 8))
    session.accept()
    session.remove_object(session.active_object_id)
    assert np.array_equal(session.objects[liver].mask(KEY), KEY.extract(session.labels.data) == LIVER)
    assert session.voxel_count(LIVER) == 16


@pytest.mark.parametrize("plane", ["coronal", "sagittal"])
@pytest.mark.parametrize("value", [True, False])
def test_key_slices_of_other_planes_are_left(
    session: Session, liver: int, propose: Callable, plane: str, value: bool
) -> None:
    other = SliceView(plane, 4)
    session.prompt(other, BOX)
    proposed = propose(other, slice(0, 6), slice(1, 3))
    session.accept()
    before = other.extract(session.labels.data)
    assert (before[proposed] == LIVER).all()
    with session.begin("Carry") as change:
        for index in range(session.volume.shape[0]):
            view = axial(index)
            mask = np.full(view.slice_shape(session.volume.shape), value)
            change.put(carried(session, liver, index, mask))
    with session.begin("Carry") as change:
        change.put(carried(session, liver, 4, mask))
        change.drop_outdated(0, 1000)
    assert np.array_equal(other.extract(session.labels.data), before)
    found = session.objects[liver].mask(axial(4))
    assert np.array_equal(found, axial(4).extract(session.labels.data) == LIVER)
    assert found.any()
    while session.undo():
        pass
    assert not session.labels.data.any()


@pytest.mark.parametrize("painted", [LIVER, 1])
def test_a_stroke_under_way_on_a_slice_that_is_carried_is_a_step(
    session: Session, liver: int, painted: int
) -> None:
    change = session.begin("Carry")
    change.put(carried(session, liver, 4))
    session.labels.data[5, 5:12, 5:12] = painted
    change.put(carried(session, liver, 5))
    change.put(carried(session, liver, 6))
    session.labels.data[5, 14, 14] = painted
    session.record_stroke([axial(5)])
    change.close()
    assert (session.labels.data[5, 5:12, 5:12] == painted).all()
    assert session.voxel_count(painted) == np.count_nonzero(session.labels.data == painted)
    assert [session.undo() for _ in range(3)] == ["Paint", "Carry", "Paint"]
    while session.undo():
        pass
    assert not session.labels.data.any()


def test_a_new_click_on_an_accepted_slice_is_not_passed_over(
    session: Session, liver: int, propose: Callable
) -> None:
    session.prompt(KEY, BOX.replace(points_xy=[(7, 7)], point_labels=[1]))
    with pytest.raises(PromptError, match="Slice 3 has a new click"):
        session.propagation_input([liver])
    corrected = propose(KEY, slice(2, 8), slice(2, 8))
    session.accept()
    _, masks = session.propagation_input([liver])
    assert np.array_equal(masks[liver][KEY], corrected)
    session.prompt(KEY, BOX)
    session.prompt(KEY, None)
    _, masks = session.propagation_input([liver])
    assert masks[liver].keys() == {KEY}
