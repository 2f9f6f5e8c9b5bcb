"""What is in doubt of a carried object, and what the user takes for right; each is one undo step."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from napari_sam_med import propagate
from napari_sam_med.errors import LockedError, PromptError
from napari_sam_med.sam.prompts import Prompts
from napari_sam_med.session.objects import Stop
from napari_sam_med.session.review import (
    accept_slice,
    doubtful_slices,
    plane_of,
    use_labels_as_key,
    with_confirmed_ends,
)
from napari_sam_med.session.session import Session
from napari_sam_med.volume.slice_view import SliceView
from tests.segmentation.threshold_model import WINDOW, ImageStore, ThresholdPredictor, volume_of

LIVER, SPLEEN = 6, 1
BLOCK = (slice(4, 12), slice(4, 12))


def axial(index: int) -> SliceView:
    return SliceView("axial", index)


@pytest.fixture
def liver(session: Session, propose: Callable) -> int:
    """An object accepted on axial slice 0 and carried to slice 6, least sure on slice 3."""
    session.select_organ(LIVER)
    session.prompt(axial(0), Prompts.from_box((4, 4, 11, 11)))
    propose(axial(0), *BLOCK)
    session.accept()
    object_id = session.active_object_id
    assert object_id is not None
    mask = np.zeros(axial(0).slice_shape(session.labels.shape), dtype=bool)
    mask[BLOCK] = True
    with session.begin("Carry") as change:
        for index in range(1, 7):
            change.put_mask(object_id, axial(index), mask, "propagated", 0.3 if index == 3 else 0.8)
    return object_id


def stop(session: Session, object_id: int, index: int, reason: str) -> None:
    item = session.objects[object_id].with_stop("forward", Stop(axial(index), reason))
    session.objects = {**session.objects, object_id: item}


def test_the_slice_that_halves_the_expected_error_of_a_run_is_in_doubt(session: Session, liver: int) -> None:
    [found] = doubtful_slices(session, liver)
    # expected errors of slices 1 to 6, in shares of a slice: .1 .1 .35 .1 .1 .1; half of .85 is reached at 3
    assert found.view == axial(3)
    assert "expected on slices 1 to 6" in found.text
    assert "Quality 0.30 here, the lowest." in found.text


def test_a_large_slice_comes_before_the_one_of_lowest_quality_and_both_are_told(
    session: Session, liver: int
) -> None:
    small = np.zeros(axial(0).slice_shape(session.labels.shape), dtype=bool)
    small[4:6, 4:6] = True
    with session.begin("Carry") as change:
        change.put_mask(liver, axial(3), session.objects[liver].mask(axial(2)), "propagated", 0.7)
        change.put_mask(liver, axial(6), small, "propagated", 0.2)
    [found] = doubtful_slices(session, liver)
    assert found.view == axial(3)
    assert "Quality 0.70 here, lowest 0.20 on slice 6." in found.text


def test_what_is_hardly_wrong_anywhere_is_not_in_doubt(session: Session, liver: int) -> None:
    mask = session.objects[liver].mask(axial(3))
    with session.begin("Carry") as change:
        for index in range(1, 7):
            change.put_mask(liver, axial(index), mask, "propagated", 0.99)
    assert doubtful_slices(session, liver) == []


def test_a_stop_for_no_natural_reason_is_in_doubt_until_it_is_confirmed(session: Session, liver: int) -> None:
    stop(session, liver, 7, "the mask vanished")
    assert all(one.view.index < 7 for one in doubtful_slices(session, liver))
    stop(session, liver, 7, "the model was not sure")
    end = next(one for one in doubtful_slices(session, liver) if one.view == axial(7))
    assert "the model was not sure" in end.text
    before = session.labels.data.copy()
    change = accept_slice(session, liver, axial(7))
    assert change is not None
    assert change.label == "End liver at slice 7"
    assert np.array_equal(session.labels.data, before)
    assert all(one.view.index < 7 for one in doubtful_slices(session, liver))
    assert accept_slice(session, liver, axial(7)) is None
    session.undo()
    assert any(one.view == axial(7) for one in doubtful_slices(session, liver))


def test_an_accepted_slice_is_a_key_slice_as_it_stands(session: Session, liver: int) -> None:
    before = session.labels.data.copy()
    mask = session.objects[liver].mask(axial(3))
    assert accept_slice(session, liver, axial(3)) is not None
    assert np.array_equal(session.labels.data, before)
    _, masks = session.propagation_input([liver])
    assert masks[liver].keys() == {axial(0), axial(3)}
    assert np.array_equal(masks[liver][axial(3)], mask)
    assert accept_slice(session, liver, axial(3)) is None, "it is one already"
    session.undo()
    assert not session.objects[liver].masks[axial(3)].is_key


def test_what_another_organ_took_since_is_not_part_of_the_key_slice(session: Session, liver: int) -> None:
    session.labels.data[3, 4:12, 4:8] = SPLEEN
    session.select_organ(SPLEEN)
    session.record_stroke()
    session.select_object(liver)
    with session.begin("as carrying left it") as change:
        change.put_mask(liver, axial(3), session.objects[liver].mask(axial(3)), "propagated", 0.5)
    accept_slice(session, liver, axial(3))
    assert (session.labels.data[3, 4:12, 4:8] == SPLEEN).all()
    assert session.objects[liver].mask(axial(3)).sum() == 8 * 4


def test_open_prompts_are_accepted_or_dropped_first(session: Session, liver: int) -> None:
    session.prompt(axial(3), Prompts.from_points([(5, 5)], [0]))
    with pytest.raises(PromptError, match="not accepted yet; press Enter or Escape first"):
        accept_slice(session, liver, axial(3))


def test_a_slice_without_the_object_is_refused(session: Session, liver: int) -> None:
    with pytest.raises(PromptError, match="liver is not on slice 7"):
        accept_slice(session, liver, axial(7))


def test_a_locked_organ_has_no_new_key_slices(session: Session, liver: int) -> None:
    organ = session.organs[LIVER]
    session.set_organ(organ.__class__(LIVER, organ.name, organ.color, locked=True))
    with pytest.raises(LockedError):
        accept_slice(session, liver, axial(3))
    with pytest.raises(LockedError):
        use_labels_as_key(session, axial(3))


def test_labels_of_no_object_become_a_key_slice_of_a_new_one(session: Session) -> None:
    session.select_organ(LIVER)
    session.labels.data[2][BLOCK] = LIVER
    session.record_stroke()
    assert not session.objects
    change = use_labels_as_key(session, axial(2))
    assert change is not None
    [item] = session.objects.values()
    assert session.active_object is item
    assert item.name == "liver"
    assert (item.masks[axial(2)].source, item.masks[axial(2)].area_px) == ("edited", 64)
    assert use_labels_as_key(session, axial(2)) is None
    session.undo()
    assert not session.objects
    assert (session.labels.data[2][BLOCK] == LIVER).all()


def test_what_is_another_objects_stays_its_own(session: Session, liver: int) -> None:
    session.new_object()
    session.labels.data[3, 14:16, 4:8] = LIVER
    session.record_stroke()
    use_labels_as_key(session, axial(3))
    assert session.active_object_id != liver
    assert session.active_object.mask(axial(3)).sum() == 2 * 4
    assert session.objects[liver].mask(axial(3)).sum() == 64


def test_the_plane_of_an_object_is_that_of_most_of_its_slices(session: Session, liver: int) -> None:
    assert plane_of(session.objects[liver]) == "axial"
    session.new_object()
    session.labels.data[:, 18, 4:8] = LIVER
    session.record_stroke()
    use_labels_as_key(session, SliceView("coronal", 18))
    assert plane_of(session.active_object) == "coronal"


def test_locked_voxels_are_those_of_locked_organs(session: Session, liver: int) -> None:
    assert session.locked_voxels() is None
    organ = session.organs[LIVER]
    session.set_organ(organ.__class__(LIVER, organ.name, organ.color, locked=True))
    assert np.array_equal(session.locked_voxels(), session.labels.data == LIVER)


def confirmed(session: Session, object_id: int, index: int) -> None:
    """Carrying ended before a slice, and the user said that this is right."""
    with session.begin("Carry") as change:
        change.clear_slice(object_id, axial(index))
    stop(session, object_id, index, "overlap with the previous slice fell to 0.30 (limit 0.50)")
    accept_slice(session, object_id, axial(index))


def given(session: Session, object_id: int, *directions: str) -> dict[int, dict[SliceView, np.ndarray]]:
    objects, masks = session.propagation_input([object_id])
    return with_confirmed_ends(session, objects, masks, directions or ("forward", "backward"))


def test_carrying_is_told_where_the_user_said_that_the_object_ends(session: Session, liver: int) -> None:
    assert set(given(session, liver)[liver]) == {axial(0)}
    confirmed(session, liver, 7)
    told = given(session, liver)[liver]
    assert set(told) == {axial(0), axial(7)}
    assert told[axial(0)].any()
    assert not told[axial(7)].any()
    assert set(given(session, liver, "forward")[liver]) == {axial(0), axial(7)}
    assert set(given(session, liver, "backward")[liver]) == {axial(0)}, "nothing ahead is to be filled"
    session.undo()
    assert set(given(session, liver)[liver]) == {axial(0)}


def test_an_end_with_a_key_slice_beyond_it_is_one_no_more(session: Session, liver: int) -> None:
    confirmed(session, liver, 5)
    accept_slice(session, liver, axial(6))
    assert set(given(session, liver)[liver]) == {axial(0), axial(6)}


def test_nothing_is_carried_past_an_end_that_the_user_confirmed(session: Session, liver: int) -> None:
    confirmed(session, liver, 4)
    objects, _ = session.propagation_input([liver])
    bright = np.zeros(session.volume.shape, dtype=np.uint8)
    bright[:, 4:12, 4:12] = 200
    done = propagate(
        volume_of(bright), objects, ThresholdPredictor(), window=WINDOW, store=ImageStore(),
        masks=given(session, liver),
    )  # fmt: skip
    assert {one.view.index for one in done if one.mask.any()} == {0, 1, 2, 3}
