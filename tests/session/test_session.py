"""What an annotator does, without a window: prompt, accept, paint, carry, undo."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from napari_sam_med.errors import LockedError, PromptError
from napari_sam_med.progress import Progress
from napari_sam_med.sam.prompts import Prompts
from napari_sam_med.segmentation.propagation import PropagatedSlice
from napari_sam_med.session.session import Preview, Session
from napari_sam_med.volume.labels import LabelVolume
from napari_sam_med.volume.organs import Organ
from napari_sam_med.volume.slice_view import PLANES, SliceView

AXIAL = SliceView("axial", 3)
BOX = Prompts.from_box((2, 2, 9, 9))
LIVER, SPLEEN = 6, 1


def accept(
    session: Session, propose: Callable, class_id: int, rows: slice, columns: slice, view=AXIAL
) -> None:
    session.select_organ(class_id)
    session.prompt(view, BOX)
    propose(view, rows, columns)
    session.accept()


def carried(object_id: int, class_id: int, view: SliceView, mask: np.ndarray, **more) -> PropagatedSlice:
    fields = {"logits": None, "quality": 0.7, "source": "propagated", "reason": None, "direction": "forward"}
    return PropagatedSlice(Progress(1, 2), object_id, class_id, view, mask, **(fields | more))


def test_the_first_prompt_makes_an_object_of_the_active_organ(session: Session) -> None:
    session.select_organ(LIVER)
    session.prompt(AXIAL, BOX)
    assert session.active_object.name == "liver"
    assert session.active_object.key_slices == {AXIAL: BOX}


def test_clearing_the_only_prompt_drops_the_object(session: Session) -> None:
    session.prompt(AXIAL, BOX)
    session.prompt(AXIAL, None)
    assert not session.objects
    assert session.active_object is None


def test_accepting_writes_the_mask_and_remembers_prompt_and_quality(session: Session, propose) -> None:
    accept(session, propose, LIVER, slice(2, 6), slice(2, 9))
    written = AXIAL.extract(session.labels.data) == LIVER
    assert written.sum() == 28
    item = session.active_object
    assert np.array_equal(item.mask(AXIAL), written)
    assert item.quality_text == "1 slice, quality 0.80"
    assert session.preview is None


def test_undo_and_redo_of_an_accepted_mask(session: Session, propose) -> None:
    accept(session, propose, LIVER, slice(2, 6), slice(2, 9))
    assert session.undo() == "Accept liver on slice 3"
    assert not session.labels.data.any()
    assert session.active_object.key_slices == {AXIAL: BOX}
    assert not session.active_object.masks
    assert session.redo() == "Accept liver on slice 3"
    assert (session.labels.data == LIVER).sum() == 28
    assert session.active_object.masks


def test_prompts_are_undone_one_by_one(session: Session) -> None:
    session.prompt(AXIAL, BOX)
    more = BOX.replace(points_xy=[(3, 3)], point_labels=[0])
    session.prompt(AXIAL, more)
    session.undo()
    assert session.active_object.key_slices == {AXIAL: BOX}
    session.undo()
    assert not session.objects


def test_undo_restores_what_was_overwritten_in_another_organ(session: Session, propose) -> None:
    """Safety contract, statement 10."""
    accept(session, propose, SPLEEN, slice(0, 10), slice(0, 10))
    before = session.labels.data.copy()
    accept(session, propose, LIVER, slice(5, 15), slice(5, 15))
    assert session.voxel_count(SPLEEN) == 75
    session.undo()
    assert np.array_equal(session.labels.data, before)
    assert session.voxel_count(SPLEEN) == 100


def test_a_hundred_steps_can_be_undone(session: Session, propose) -> None:
    """Safety contract, statement 10."""
    states = [session.labels.data.copy()]
    session.prompt(AXIAL, BOX)
    for step in range(120):
        propose(SliceView("axial", step % 8), slice(step % 20, 22), slice(0, 1 + step % 30))
        session.accept()
        states.append(session.labels.data.copy())
    for expected in reversed(states[:-1]):
        session.undo()
        assert np.array_equal(session.labels.data, expected)


def test_an_object_knows_what_made_its_slices(session: Session, propose) -> None:
    accept(session, propose, LIVER, slice(2, 6), slice(2, 9))
    item = session.active_object
    with session.begin("Carry", "a video model") as change:
        for index in (4, 5):
            view = SliceView("axial", index)
            change.put(carried(item.object_id, LIVER, view, item.mask(AXIAL)))
    with session.begin("Fill") as change:
        view = SliceView("axial", 6)
        change.put(carried(item.object_id, LIVER, view, item.mask(AXIAL), source="interpolated"))
    session.labels.data[5, 2, 2] = 0
    session.record_stroke()
    expected = {"nano": 1, "a video model": 1, "drawn by hand": 1, "filled between slices": 1}
    assert session.active_object.made_by == expected


def test_accepting_again_replaces_the_objects_own_mask_only(session: Session, propose) -> None:
    accept(session, propose, LIVER, slice(0, 4), slice(0, 4))
    session.new_object()
    accept(session, propose, LIVER, slice(10, 14), slice(10, 14))
    assert [item.name for item in session.objects.values()] == ["liver", "liver 2"]
    propose(AXIAL, slice(10, 12), slice(10, 12))
    session.accept()
    assert session.voxel_count(LIVER) == 16 + 4


def test_going_on_with_an_organ_takes_its_newest_object(session: Session, propose) -> None:
    accept(session, propose, LIVER, slice(0, 4), slice(0, 4))
    liver = session.active_object_id
    session.go_on_with_organ(SPLEEN)
    assert session.active_object is None
    assert session.active_class_id == SPLEEN
    session.go_on_with_organ(LIVER)
    assert session.active_object_id == liver


def test_a_locked_organ_is_neither_changed_nor_overwritten(session: Session, propose) -> None:
    accept(session, propose, SPLEEN, slice(0, 10), slice(0, 10))
    session.set_organ(replace(session.organs[SPLEEN], locked=True))
    propose(AXIAL, slice(0, 2), slice(0, 2))
    with pytest.raises(LockedError, match="spleen is locked"):
        session.accept()
    accept(session, propose, LIVER, slice(5, 15), slice(5, 15))
    assert session.voxel_count(SPLEEN) == 100
    session.labels.data[3, 0:12, 0] = LIVER
    session.record_stroke([AXIAL])
    assert session.voxel_count(SPLEEN) == 100
    assert np.count_nonzero(session.labels.data == SPLEEN) == 100


def test_strokes_join_the_undo_stack_and_the_active_object(session: Session, propose) -> None:
    accept(session, propose, LIVER, slice(0, 4), slice(0, 4))
    before = session.labels.data.copy()
    session.labels.data[3, 8:10, 8:10] = LIVER
    session.labels.data[3, 0, 0] = 0
    change = session.record_stroke([AXIAL])
    assert change.label == "Paint"
    assert session.voxel_count(LIVER) == 16 + 4 - 1
    mask = session.active_object.masks[AXIAL]
    assert mask.source == "edited"
    assert mask.is_key
    assert mask.unpack().sum() == 19
    session.undo()
    assert np.array_equal(session.labels.data, before)
    assert session.active_object.masks[AXIAL].unpack().sum() == 16


@pytest.mark.parametrize("plane", PLANES)
def test_direct_writes_are_found_anywhere(session: Session, plane: str) -> None:
    """Safety contract, statement 3: every change is seen, however it was made."""
    session.labels.data[2:5, 3:6, 4:7] = 3
    after = session.labels.data.copy()
    assert session.record_stroke() is not None
    assert session.record_stroke() is None
    session.undo()
    assert not session.labels.data.any()
    session.redo()
    assert np.array_equal(session.labels.data, after)


def test_painting_an_unknown_number_gives_it_a_row(session: Session) -> None:
    session.labels.data[3, 0, 0] = 77
    session.record_stroke([AXIAL])
    assert session.organs.name_of(77) == "label 77"
    assert 77 in session.organs


def test_a_propagation_is_one_step(session: Session, propose) -> None:
    accept(session, propose, LIVER, slice(2, 6), slice(2, 6))
    before = session.labels.data.copy()
    object_id = session.active_object_id
    mask = session.active_object.mask(AXIAL)
    change = session.begin("Carry liver through slices")
    for index in (4, 5, 6):
        assert change.put(carried(object_id, LIVER, SliceView("axial", index), mask, quality=index / 10))
    end = carried(
        object_id, LIVER, SliceView("axial", 7), np.zeros_like(mask), quality=0.0, reason="the mask vanished"
    )
    assert not change.put(end)
    change.close()
    item = session.active_object
    assert item.quality_text == "4 slices, lowest 0.40 at 4"
    assert item.stop_reasons == {"forward": "stopped at slice 7: the mask vanished"}
    assert session.voxel_count(LIVER) == 4 * 16
    assert session.undo() == "Carry liver through slices"
    assert np.array_equal(session.labels.data, before)


def test_a_carried_mask_leaves_other_organs_as_they_are(session: Session, propose) -> None:
    accept(session, propose, SPLEEN, slice(0, 5), slice(0, 5), view=SliceView("axial", 5))
    accept(session, propose, LIVER, slice(2, 6), slice(2, 9))
    liver, next_view = session.active_object, SliceView("axial", 5)
    mask = np.zeros(next_view.slice_shape(session.labels.data.shape), dtype=bool)
    mask[2:6, 2:9] = True
    before = session.voxel_count(SPLEEN)
    change = session.begin("carry")
    change.put(carried(liver.object_id, LIVER, next_view, mask))
    change.close()
    assert session.voxel_count(SPLEEN) == before
    found = session.objects[liver.object_id].mask(next_view)
    assert np.array_equal(found, next_view.extract(session.labels.data) == LIVER)
    assert found.sum() == mask.sum() - mask[:5, :5].sum()


def test_key_slices_are_never_overwritten_by_propagation(session: Session, propose) -> None:
    accept(session, propose, LIVER, slice(2, 6), slice(2, 6))
    item = session.active_object
    with session.begin("Carry") as change:
        whole = np.ones(AXIAL.slice_shape(session.volume.shape), dtype=bool)
        change.put(carried(item.object_id, LIVER, AXIAL, whole, source="prompt", direction="key"))
    assert session.voxel_count(LIVER) == 16


def test_carrying_again_clears_what_the_last_time_reached_further(session: Session, propose) -> None:
    accept(session, propose, LIVER, slice(2, 6), slice(2, 6))
    item = session.active_object
    mask = item.mask(AXIAL)
    for last in (7, 5):
        with session.begin("Carry") as change:
            for index in range(4, last + 1):
                change.put(carried(item.object_id, LIVER, SliceView("axial", index), mask))
            change.drop_outdated(0, 1000)
    assert session.voxel_count(LIVER) == 3 * 16
    assert {view.index for view in session.active_object.masks} == {3, 4, 5}


def test_work_during_a_propagation_keeps_its_own_step(session: Session, propose) -> None:
    accept(session, propose, LIVER, slice(2, 6), slice(2, 6))
    item, mask = session.active_object, session.active_object.mask(AXIAL)
    change = session.begin("Carry")
    change.put(carried(item.object_id, LIVER, SliceView("axial", 4), mask))
    after_one = session.labels.data.copy()
    session.labels.data[4, 3, 3] = SPLEEN
    session.record_stroke([SliceView("axial", 4)])
    change.put(carried(item.object_id, LIVER, SliceView("axial", 5), mask))
    change.close()
    session.undo()
    assert session.undo() == "Paint"
    assert np.array_equal(session.labels.data, after_one)
    assert session.undo() == "Carry"
    assert session.voxel_count(LIVER) == 16


def test_undo_during_a_propagation_ends_it(session: Session, propose) -> None:
    accept(session, propose, LIVER, slice(2, 6), slice(2, 6))
    item, mask = session.active_object, session.active_object.mask(AXIAL)
    change = session.begin("Carry")
    change.put(carried(item.object_id, LIVER, SliceView("axial", 4), mask))
    session.undo()
    assert not change.is_open
    assert not change.put(carried(item.object_id, LIVER, SliceView("axial", 5), mask))
    assert session.voxel_count(LIVER) == 16


def test_an_exception_takes_an_open_change_back(session: Session, propose) -> None:
    accept(session, propose, LIVER, slice(2, 6), slice(2, 6))
    item, mask = session.active_object, session.active_object.mask(AXIAL)
    steps = len(session.undo_stack)

    def fail_half_way() -> None:
        with session.begin("Carry") as change:
            change.put(carried(item.object_id, LIVER, SliceView("axial", 4), mask))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_half_way()
    assert session.voxel_count(LIVER) == 16
    assert len(session.undo_stack) == steps
    assert session.active_object.masks.keys() == {AXIAL}


def test_what_propagation_is_given(session: Session, propose) -> None:
    accept(session, propose, LIVER, slice(2, 6), slice(2, 6))
    session.prompt(SliceView("axial", 5), BOX)
    object_id = session.active_object_id
    objects, masks = session.propagation_input([object_id])
    assert objects == {object_id: (LIVER, {AXIAL: BOX, SliceView("axial", 5): BOX})}
    assert masks[object_id].keys() == {AXIAL}
    with pytest.raises(PromptError, match="nothing to carry"):
        session.propagation_input([])
    session.set_organ(replace(session.organs[LIVER], locked=True))
    with pytest.raises(LockedError):
        session.propagation_input([object_id])


def test_removing_an_object_and_an_organ_can_be_undone(session: Session, propose) -> None:
    accept(session, propose, LIVER, slice(2, 6), slice(2, 6))
    session.new_object()
    accept(session, propose, LIVER, slice(8, 12), slice(2, 6))
    before = session.labels.data.copy()
    session.remove_object(session.active_object_id)
    assert session.voxel_count(LIVER) == 16
    session.remove_organ(LIVER)
    assert LIVER not in session.organs
    assert not session.objects
    assert not session.labels.data.any()
    session.undo()
    session.undo()
    assert np.array_equal(session.labels.data, before)
    assert LIVER in session.labels.organs
    assert len(session.objects) == 2


def test_organ_edits_are_steps_with_names_for_people(session: Session) -> None:
    session.set_organ(Organ(20, "lesion", (1.0, 0.0, 0.0)))
    assert session.undo_stack.undo_label == "Add lesion"
    session.set_organ(replace(session.organs[20], name="cyst"))
    assert session.undo_stack.undo_label == "Rename lesion to cyst"
    session.set_organ(replace(session.organs[20], locked=True))
    assert session.undo_stack.undo_label == "Lock cyst"
    assert session.labels.organs.locked_ids == (20,)
    session.undo()
    assert session.labels.organs.locked_ids == ()
    session.undo()
    assert session.organs.name_of(20) == "lesion"


def test_a_class_above_255_widens_the_labels_and_undo_still_works(session: Session, propose) -> None:
    session.set_organ(Organ(300, "nodule", (0.0, 1.0, 0.0)))
    accept(session, propose, 300, slice(2, 6), slice(2, 6))
    assert session.labels.data.dtype == np.uint16
    assert session.voxel_count(300) == 16
    session.undo()
    assert not session.labels.data.any()


def test_volume_in_millilitres(session: Session, propose) -> None:
    accept(session, propose, LIVER, slice(0, 10), slice(0, 10))
    assert session.volume_ml(LIVER) == pytest.approx(100 * 4.0 * 1.5 * 1.0 / 1000)


def test_existing_labels_are_gone_on_with(volume) -> None:
    labels = LabelVolume.like(volume)
    labels.data[2, 3:6, 3:6] = 99
    session = Session()
    session.open(volume, labels, (0.0, 1.0))
    assert session.voxel_count(99) == 9
    assert len(session.undo_stack) == 0


def test_fields_announce_themselves(session: Session) -> None:
    heard: list[tuple] = []
    session.events.window.connect(lambda *now: heard.append(now))
    session.window = (0.0, 80.0)
    session.window = (0.0, 80.0)
    assert len(heard) == 1


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_history_goes_back_and_forth_exactly(make_volume, data: st.DataObject) -> None:
    """Safety contract, statement 10: masks, strokes and prompts in any order and any plane."""
    volume = make_volume((5, 6, 7))
    session = Session()
    session.open(volume, LabelVolume.like(volume), (0.0, 1.0))
    states = [(session.labels.data.copy(), dict(session.objects))]
    session.committed.connect(lambda _: states.append((session.labels.data.copy(), dict(session.objects))))
    for _ in range(data.draw(st.integers(1, 8))):
        session.select_organ(data.draw(st.integers(1, 3)))
        kind = data.draw(st.sampled_from(["accept", "paint", "prompt"]))
        if kind == "paint":
            z, y, x = (data.draw(st.integers(0, n - 1)) for n in volume.shape)
            session.labels.data[z : z + 2, y, x:] = data.draw(st.integers(0, 3))
            session.record_stroke()
            continue
        view = SliceView(data.draw(st.sampled_from(PLANES)), data.draw(st.integers(0, 4)))
        corner = data.draw(st.integers(0, 3))
        session.prompt(view, Prompts.from_box((0, 0, 1 + corner, 1)))
        if kind == "accept":
            mask = np.zeros(view.slice_shape(volume.shape), dtype=bool)
            mask[corner:, : corner + 1] = True
            session.preview = Preview(view, mask, 0.5)
            session.accept()
    for labels, objects in reversed(states[:-1]):
        session.undo()
        assert np.array_equal(session.labels.data, labels)
        assert dict(session.objects) == objects
    for labels, objects in states[1:]:
        session.redo()
        assert np.array_equal(session.labels.data, labels)
        assert dict(session.objects) == objects
    counts = np.bincount(session.labels.data.ravel(), minlength=4)
    assert [session.voxel_count(i) for i in (1, 2, 3)] == counts[1:4].tolist()


def test_an_empty_proposal_is_refused_and_nothing_is_lost(session: Session, propose) -> None:
    accept(session, propose, LIVER, slice(2, 6), slice(2, 9))
    before = session.labels.data.copy()
    propose(AXIAL, slice(0, 0), slice(0, 0))
    with pytest.raises(PromptError, match="nothing was changed"):
        session.accept()
    assert np.array_equal(session.labels.data, before)
    assert session.active_object.masks


def test_clicks_correct_what_is_there_and_a_new_box_starts_anew(session: Session, propose) -> None:
    accept(session, propose, LIVER, slice(2, 6), slice(2, 9))
    accepted = session.active_object.mask(AXIAL)
    assert session.active_object.mask_to_correct(AXIAL) is None, "a box alone is no correction"
    click = BOX.replace(points_xy=[(3, 3)], point_labels=[0])
    session.prompt(AXIAL, click)
    assert np.array_equal(session.active_object.mask_to_correct(AXIAL), accepted)
    session.prompt(AXIAL, click.replace(box_xyxy=(1, 1, 12, 12)))
    assert session.active_object.mask_to_correct(AXIAL) is None


def test_a_new_outline_starts_anew_and_an_accepted_one_does_not(session: Session, propose) -> None:
    accept(session, propose, LIVER, slice(2, 6), slice(2, 9))
    outlined = BOX.replace(points_xy=[(3, 3)], point_labels=[0], outline_xy=[(2, 2), (8, 2), (8, 5), (2, 5)])
    session.prompt(AXIAL, outlined)
    assert session.active_object.mask_to_correct(AXIAL) is None
    propose(AXIAL, slice(2, 6), slice(2, 9))
    session.accept()
    accepted = session.active_object.mask(AXIAL)
    session.prompt(AXIAL, outlined.replace(points_xy=[(3, 3), (7, 4)], point_labels=[0, 1]))
    assert np.array_equal(session.active_object.mask_to_correct(AXIAL), accepted)
    session.prompt(AXIAL, outlined.replace(outline_xy=[(1, 1), (8, 2), (8, 5)]))
    assert session.active_object.mask_to_correct(AXIAL) is None


def test_a_corrected_slice_is_what_propagation_starts_from(session: Session, propose) -> None:
    accept(session, propose, LIVER, slice(2, 6), slice(2, 9))
    other = SliceView("axial", 4)
    mask = np.zeros(other.slice_shape(session.volume.shape), dtype=bool)
    mask[2:6, 2:9] = True
    object_id = session.active_object_id
    with session.begin("Carry") as change:
        change.put(carried(object_id, LIVER, other, mask))
    session.prompt(other, Prompts.from_points([(8, 5)], [0]))
    objects, masks = session.propagation_input([object_id])
    assert objects[object_id][1].keys() == masks[object_id].keys() == {AXIAL}, "not accepted: not asked"
    corrected = propose(other, slice(2, 6), slice(2, 7))
    session.accept()
    objects, masks = session.propagation_input([object_id])
    assert objects[object_id][1].keys() == masks[object_id].keys() == {AXIAL, other}
    assert np.array_equal(masks[object_id][other], corrected)


def test_the_users_own_slices_are_never_the_doubtful_ones(session: Session, propose) -> None:
    accept(session, propose, LIVER, slice(2, 6), slice(2, 9))
    item = session.active_object
    assert item.lowest is None
    mask = item.mask(AXIAL)
    with session.begin("Carry") as change:
        for index, quality in ((4, 0.95), (5, 0.9)):
            view = SliceView("axial", index)
            change.put(carried(item.object_id, LIVER, view, mask, quality=quality))
    assert session.active_object.lowest == (SliceView("axial", 5), 0.9)
    assert session.active_object.quality_text == "3 slices, lowest 0.90 at 5"
