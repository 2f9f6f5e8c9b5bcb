"""Candidates: what lies where, which organ they go to, and taking one in one undo step."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import replace

import numpy as np
import pytest

from napari_sam_med.errors import LockedError, PromptError
from napari_sam_med.sam.prompts import Prompts
from napari_sam_med.segmentation.automatic.found_objects import FoundMask, FoundObject
from napari_sam_med.segmentation.organ_objects import OrganGuess
from napari_sam_med.session.changes import Change
from napari_sam_med.session.found import Found, FoundBox, Taken, taking, use_box
from napari_sam_med.session.session import Session
from napari_sam_med.volume.labels import LabelVolume
from napari_sam_med.volume.organs import Organ
from napari_sam_med.volume.slice_view import SliceView
from napari_sam_med.volume.volume import Volume

SPLEEN, LIVER, STOMACH = 1, 6, 7
SHAPE = (24, 32)


def mask(rows: slice, columns: slice, quality: float = 0.8) -> FoundMask:
    whole = np.zeros(SHAPE, dtype=bool)
    whole[rows, columns] = True
    return FoundMask.of(whole, quality, 0.9)


def axial(index: int) -> SliceView:
    return SliceView("axial", index)


SMALL, LARGE = mask(slice(6, 9), slice(6, 9)), mask(slice(2, 20), slice(3, 25))
KIDNEY = FoundObject(
    1,
    {axial(2): mask(slice(4, 8), slice(4, 9)), axial(3): mask(slice(3, 9), slice(3, 10))},
    0.9,
    OrganGuess("left kidney", 0.91, abstained=False),
)


@pytest.fixture
def found(session: Session) -> Found:
    made = Found(session)
    made.replace([KIDNEY])
    return made


def take(session: Session, one: FoundObject, organ: Organ, **options) -> Change | None:
    taken = _end_of(taking(session, one, organ, **options))
    return None if taken is None else taken.change


def _end_of(work: Generator[None, None, Taken | None]) -> Taken | None:
    while True:
        try:
            next(work)
        except StopIteration as stop:
            return stop.value


def test_the_smallest_of_nested_candidates_comes_first(found: Found) -> None:
    found.clear()
    found.add(axial(2), [LARGE, SMALL])
    assert found.under(axial(2), (7.4, 6.6)) == [2, 1]
    assert found.under(axial(2), (20, 3)) == [1]
    assert found.under(axial(2), (30, 3)) == []
    assert found.under(axial(3), (7, 7)) == []


def test_a_candidate_becomes_an_object_with_its_largest_slice_as_key(session: Session) -> None:
    change = take(session, KIDNEY, session.organs[LIVER], model="nano")
    assert change.label == "Take found object into liver"
    item = session.active_object
    assert (item.class_id, item.name) == (LIVER, "liver")
    assert {view: one.source for view, one in item.masks.items()} == {
        axial(3): "prompt",
        axial(2): "propagated",
    }
    assert item.made_by == {"nano": 2}
    for view, expected in KIDNEY:
        assert np.array_equal(view.extract(session.labels.data) == LIVER, expected.mask)
    _, keys = session.propagation_input([item.object_id])  # it can be carried on
    assert list(keys[item.object_id]) == [axial(3)]
    session.prompt(axial(3), Prompts.from_points([(5, 5)], [0]))  # and be put right
    assert np.array_equal(session.active_object.mask_to_correct(axial(3)), KIDNEY.masks[axial(3)].mask)


def test_one_undo_brings_the_candidate_back_and_redo_takes_it_again(session: Session, found: Found) -> None:
    found.note_taken(1, take(session, KIDNEY, session.organs[LIVER]))
    assert found.taken == {1}
    assert found.on_slice(axial(3)) == []
    session.undo()
    assert not session.labels.data.any()
    assert not session.objects
    assert found.taken == set()
    assert found.under(axial(3), (5, 5)) == [1]
    session.redo()
    assert found.taken == {1}


def test_a_locked_organ_is_not_touched(session: Session) -> None:
    session.set_organ(Organ(LIVER, "liver", (1, 0, 0), locked=True))
    with pytest.raises(LockedError, match="liver is locked"):
        take(session, KIDNEY, session.organs[LIVER])
    assert not session.labels.data.any()
    assert not session.objects


def test_other_organs_keep_their_voxels(session: Session) -> None:
    session.labels.data[3, :6] = SPLEEN
    take(session, KIDNEY, session.organs[LIVER])
    assert (session.labels.data[3, :6] == SPLEEN).all()
    assert np.array_equal(session.labels.data[2] == LIVER, KIDNEY.masks[axial(2)].mask)
    session.undo()
    session.labels.data[:] = SPLEEN
    with pytest.raises(PromptError, match="All of this object is spleen already, so nothing was taken"):
        take(session, KIDNEY, session.organs[LIVER])
    assert session.organs[LIVER].name == "liver"
    assert not session.objects


def test_what_other_organs_keep_of_it_is_told(session: Session) -> None:
    session.set_organ(Organ(STOMACH, "stomach", (1, 0, 0), locked=True))
    labels = session.labels.data
    labels[3, 3:5, 3:10] = SPLEEN  # 14 of 42 pixels
    labels[2, 4, 4:9] = STOMACH  # 5 of 20
    labels[2, 5, 4] = LIVER  # its own
    work = taking(session, KIDNEY, session.organs[LIVER])
    before = labels.copy()
    taken = _end_of(work)
    assert (taken.n_voxels, dict(taken.kept)) == (62, {SPLEEN: 14, STOMACH: 5})
    assert taken.told(session.organs) == "stomach (locked) keeps 8 % of it, spleen 23 %"
    for number in (SPLEEN, STOMACH):
        assert np.array_equal(labels == number, before == number)
    assert (labels == LIVER).sum() == 62 - 14 - 5


def test_more_organs_than_fit_a_line_are_summed_up(session: Session) -> None:
    def told(kept: dict[int, int]) -> str:
        change = Change("Take", (), session.annotations, session.annotations)
        return Taken(change, 1000, kept).told(session.organs)

    assert (
        told({SPLEEN: 1, 2: 300, 3: 200, 4: 100, 5: 49})
        == "right kidney keeps 30 % of it, left kidney 20 %, gallbladder 10 %, other organs 5 %"
    )
    assert told({SPLEEN: 1}) == "spleen keeps under 1 % of it"
    assert told({SPLEEN: 999}) == "spleen keeps over 99 % of it"
    assert told({}) == ""


def test_what_a_locked_organ_has_all_of_is_refused_with_its_name(session: Session) -> None:
    session.labels.data[:] = SPLEEN
    session.set_organ(replace(session.organs[SPLEEN], locked=True))
    with pytest.raises(PromptError, match=r"is spleen \(locked\) already.*unlock spleen and erase there"):
        take(session, KIDNEY, session.organs[LIVER])


def test_a_second_candidate_is_another_object_or_joins_the_first(session: Session) -> None:
    take(session, KIDNEY, session.organs[LIVER])
    more = FoundObject(2, {axial(3): mask(slice(12, 15), slice(4, 9)), axial(4): SMALL}, 0.7)
    take(session, more, session.organs[LIVER])
    assert [item.name for item in session.objects.values()] == ["liver", "liver 2"]
    session.undo()
    take(session, more, session.organs[LIVER], joins=True)
    [item] = session.objects.values()
    assert sorted(view.index for view in item.masks) == [2, 3, 4]
    assert item.masks[axial(3)].source == "prompt"
    both = KIDNEY.masks[axial(3)].mask | more.masks[axial(3)].mask
    assert np.array_equal(item.mask(axial(3)), both)


def test_ending_it_half_way_leaves_nothing(session: Session) -> None:
    work = taking(session, KIDNEY, session.organs[LIVER])
    while not session.labels.data.any():
        next(work)
    work.close()
    assert not session.labels.data.any()
    assert not len(session.undo_stack)


@pytest.mark.parametrize("is_closed", [False, True])
@pytest.mark.parametrize("n_steps", [1, 3])
def test_leaving_the_scan_ends_it_and_the_next_one_gets_nothing_of_it(
    session: Session, volume: Volume, is_closed: bool, n_steps: int
) -> None:
    """Also before its first slice is written."""
    work = taking(session, KIDNEY, session.organs[LIVER])
    for _ in range(n_steps):
        next(work)
    ends: list[Taken | None] = []

    def finish(_: object) -> None:  # as the chooser does
        ends.append(_end_of(work))

    session.events.volume.connect(finish)
    if is_closed:
        session.close()
    session.open(volume if is_closed else replace(volume), LabelVolume.like(volume), (-160.0, 240.0))
    session.events.volume.disconnect(finish)
    assert ends[0] is None
    assert session.voxel_count(LIVER) == 0
    assert not session.objects
    assert not len(session.undo_stack)
    assert not session.labels.data.any()


def test_the_organ_is_the_chosen_one_the_suggested_one_or_a_new_one(session: Session, found: Found) -> None:
    session.select_organ(LIVER)
    assert found.organ_for(1, "active").name == "liver"
    assert found.organ_for(1, "suggested").name == "left kidney"
    new = found.organ_for(1, "new")
    assert new.class_id not in session.organs
    take(session, KIDNEY, new)
    assert session.organs[new.class_id].name == new.name
    session.undo()
    assert new.class_id not in session.organs


@pytest.mark.parametrize(
    "guess", [None, OrganGuess("liver", 0.3, abstained=True), OrganGuess("other", 0.9, False)]
)
def test_what_looks_like_nothing_is_not_guessed(session: Session, guess: OrganGuess | None) -> None:
    found = Found(session)
    found.replace([KIDNEY.with_organ(guess)])
    assert found.guess(1) == ""
    session.select_organ(LIVER)
    assert found.organ_for(1, "suggested").name == "liver", "nothing looks like an organ here"
    named = FoundObject(2, KIDNEY.masks, 0.5, OrganGuess("spleen", 0.9, abstained=False))
    found.replace([KIDNEY.with_organ(guess), named])
    with pytest.raises(PromptError, match="choose its organ"):
        found.organ_for(1, "suggested")


def test_what_is_named_at_the_end_of_a_run_is_not_guessed_before(session: Session) -> None:
    found = Found(session)
    session.select_organ(LIVER)
    found.awaits_names = True
    found.add(axial(4), [SMALL])
    with pytest.raises(PromptError, match="told when all is searched; choose its organ"):
        found.organ_for(1, "suggested")
    assert found.organ_for(1, "active").name == "liver"
    found.replace([FoundObject(1, {axial(4): SMALL}, 0.5)])
    assert found.organ_for(1, "suggested").name == "liver", "nothing looks like an organ here"


def test_the_surest_organ_comes_first_and_what_looks_like_none_by_its_score(session: Session) -> None:
    found = Found(session)
    guesses = [
        None,
        OrganGuess("liver", 0.7, abstained=False),
        None,
        OrganGuess("aorta", 0.9, abstained=False),
    ]
    found.replace(
        FoundObject(number, {axial(4): SMALL}, score, guess)
        for number, (score, guess) in enumerate(zip([0.3, 0.8, 0.6, 0.1], guesses, strict=True), start=1)
    )
    assert found.ranked == [4, 2, 3, 1]


def test_boxes_are_numbered_slice_by_slice_whatever_slice_came_first(session: Session) -> None:
    found = Found(session)
    boxes = {
        i: [FoundBox(1, axial(i), (0, 0, i, i), 0.5), FoundBox(2, axial(i), (0, 0, 1, 1), 0.4)]
        for i in (2, 4)
    }
    found.add_boxes(axial(4), boxes[4])
    found.add_boxes(axial(2), boxes[2])
    found.point_at(2)
    found.put_boxes_in_order()
    assert [(box.number, box.view.index, box.score) for box in found.boxes.values()] == [
        (1, 2, 0.5),
        (2, 2, 0.4),
        (3, 4, 0.5),
        (4, 4, 0.4),
    ]
    assert [box.number for box in found.boxes_on(axial(4))] == [3, 4]
    assert found.pointed == 4, "the same box as before"


def test_a_ranking_keeps_what_is_taken(session: Session, found: Found, ranked: Callable) -> None:
    other = FoundObject(2, {axial(4): SMALL}, 0.5)
    found.replace([KIDNEY, other])
    found.note_taken(1, take(session, KIDNEY, session.organs[LIVER]))
    found.rank(
        [ranked(FoundObject(1, other.masks, 0.5), 0.8), ranked(FoundObject(2, KIDNEY.masks, 0.9), 0.1)],
        "liver",
    )
    assert found.ranked == [1, 2]
    assert (found.is_ranked, found.is_nothing_like_it, found.score(1)) == (True, False, 0.8)
    assert found.taken == {2}
    session.undo()
    assert found.taken == set()


def test_an_order_of_what_is_ruled_out_is_none(found: Found, ranked: Callable) -> None:
    other = FoundObject(1, {axial(4): SMALL}, 0.95)
    found.rank([ranked(replace(KIDNEY, number=2), 0.01), ranked(other, 0.0)], "spleen")
    assert (found.word, found.is_nothing_like_it, found.is_ranked) == ("spleen", True, False)
    assert found.ranked == [2, 1], "what looks like an organ first, as without a word"
    assert found.score(1) == 0.95
    found.clear()
    assert not found.is_nothing_like_it


@pytest.fixture
def ranked() -> Callable:
    from napari_sam_med.segmentation.automatic.words import RankedObject

    return RankedObject


def test_a_box_is_a_prompt_of_the_active_object(session: Session) -> None:
    session.select_organ(LIVER)
    session.prompt(axial(3), Prompts.from_points([(5, 5)]))
    use_box(session, FoundBox(1, axial(3), (2, 3, 8, 9), 0.7))
    prompts = session.active_object.key_slices[axial(3)]
    assert prompts.box_xyxy.tolist() == [2, 3, 8, 9]
    assert prompts.points_xy.tolist() == [[5, 5]]
    session.undo()
    assert session.active_object.key_slices[axial(3)].box_xyxy is None
