"""Which slice is proposed next, by hand-computed cases and by properties that hold for all."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_sam_med.progress import Progress
from napari_sam_med.segmentation.propagation import PropagatedSlice
from napari_sam_med.segmentation.review import (
    NATURAL_ENDS,
    SliceDoubt,
    next_doubtful,
    proposals,
    slice_doubts,
    worth_a_look,
)
from napari_sam_med.volume.slice_view import SliceView

LEAK = "overlap with the previous slice fell to 0.31 (limit 0.50)"


def row(first, qualities, *, area=100.0, keys=()):
    """Neighbouring slices of one area."""
    return [SliceDoubt(i, area, q, is_key=i in keys) for i, q in enumerate(qualities, start=first)]


def test_expected_error_is_area_times_half_of_doubt_and_of_disagreement():
    assert SliceDoubt(3, 200.0, 0.6, 0.5).expected_error == pytest.approx(200 * (0.5 * 0.4 + 0.5 * 0.5))
    assert SliceDoubt(3, 200.0, 1.0).expected_error == 0
    assert SliceDoubt(3, 200.0, 0.0, 1.0, is_key=True).expected_error == 0


def test_the_run_with_the_largest_sum_wins_over_the_single_worst_slice():
    # gaps 1..9 and 11..19 around key 10: eight slices of 0.3 outweigh one of 0.9
    qualities = [1, 1, 1, 0.1, *[1] * 6, 1, 1, *[0.7] * 8, 1]
    found = next_doubtful(row(0, qualities, keys=(10,)))
    assert found is not None
    assert (found.kind, found.first_index, found.last_index) == ("run", 12, 19)
    assert found.index == 15  # half of the error lies in 12 to 15
    assert found.expected_error == pytest.approx(8 * 100 * 0.15)


def test_a_small_slice_of_poor_quality_is_worth_a_look_however_little_is_wrong_there():
    sure = row(0, [1.0] * 20, area=1000.0, keys=(10,))
    sure[0] = SliceDoubt(0, 10.0, 0.4)  # 3 of some 19,000 pixels
    assert [one.index for one in worth_a_look(sure)] == [0]
    sure[0] = SliceDoubt(0, 10.0, 0.6)
    assert worth_a_look(sure) == []
    assert [one.index for one in proposals(sure)] == [0]


def test_every_end_in_doubt_is_worth_a_look():
    slices = row(1, [1.0] * 20, area=1000.0, keys=(10,))
    slices[0] = SliceDoubt(1, 5.0, 1.0)
    slices.insert(0, SliceDoubt(0, 0.0, 0.0, stop_reason=LEAK))
    found = worth_a_look(slices)
    assert [(one.index, one.kind) for one in found] == [(0, "end")]
    assert worth_a_look(slices, keys=(0,)) == [], "the user has decided"


def test_disagreement_of_the_passes_draws_attention():
    slices = row(0, [1.0] * 21, keys=(0, 20))
    slices[12] = SliceDoubt(12, 100.0, 1.0, disagreement=0.8)
    found = next_doubtful(slices)
    assert found is not None
    assert found.index == 12


def test_the_centre_keeps_two_slices_away_from_keys():
    qualities = [1.0, 0.1, 0.2, 0.8, 0.9, 0.9, 0.9, 1.0]
    found = next_doubtful(row(0, qualities, keys=(0, 7)))
    assert found is not None
    assert found.index == 3


def test_slices_near_keys_are_proposed_when_nothing_else_is_left():
    found = next_doubtful(row(0, [1.0, 0.5, 0.4, 1.0], keys=(0, 3)))
    assert found is not None
    assert found.index in (1, 2)


def test_accepted_slices_count_as_keys():
    slices = row(0, [1.0, *[0.5] * 9], keys=(0,))
    first = next_doubtful(slices)
    assert first is not None
    again = next_doubtful(slices, keys=[first.index])
    assert again is not None
    assert abs(again.index - first.index) > 2


def test_nothing_in_doubt_nothing_proposed():
    assert next_doubtful([]) is None
    assert next_doubtful(row(0, [1.0] * 5, keys=(2,))) is None
    assert next_doubtful(row(0, [0.2, 0.2], keys=(0, 1))) is None


@pytest.mark.parametrize("reason", sorted(NATURAL_ENDS))
def test_an_end_that_is_one_is_not_proposed(reason):
    slices = [*row(0, [1.0] * 6, keys=(0,)), SliceDoubt(6, 0.0, 0.0, stop_reason=reason)]
    assert next_doubtful(slices) is None


def test_a_doubtful_end_is_proposed_where_propagation_stopped():
    slices = [*row(10, [1.0] * 12, keys=(10,)), SliceDoubt(22, 0.0, 0.0, stop_reason=LEAK)]
    found = next_doubtful(slices, n_slices=40)
    assert found is not None
    assert (found.kind, found.index) == ("end", 22)
    # a quarter of 12 slices may be missing, each with a tenth of the last area
    assert found.expected_error == pytest.approx(0.1 * 100 * 3)


@pytest.mark.parametrize(("stop", "expected"), [(11, 13), (9, 7)])
def test_an_end_beside_a_key_is_looked_for_farther_out(stop, expected):
    slices = [SliceDoubt(10, 100.0, 1.0, is_key=True), SliceDoubt(stop, 0.0, 0.0, stop_reason=LEAK)]
    found = next_doubtful(slices, n_slices=20)
    assert found is not None
    assert found.index == expected


def test_an_end_is_not_looked_for_beyond_a_slice_that_the_user_has_cleared():
    slices = [
        SliceDoubt(10, 100.0, 1.0, is_key=True),
        SliceDoubt(11, 0.0, 0.0, stop_reason=LEAK),
        SliceDoubt(13, 0.0, 1.0, is_key=True, stop_reason="the prompts gave an empty mask"),
    ]
    assert [one.index for one in proposals(slices, n_slices=20)] == [12]


def test_an_end_outside_the_volume_is_not_proposed():
    slices = [SliceDoubt(1, 100.0, 1.0, is_key=True), SliceDoubt(0, 0.0, 0.0, stop_reason=LEAK)]
    found = proposals(slices, n_slices=2)
    assert [one.index for one in found] == [0]  # too near to the key, but there is no other


@st.composite
def reviews(draw):
    n = draw(st.integers(1, 40))
    numbers = st.floats(0, 1)
    slices = [
        SliceDoubt(
            i,
            draw(st.sampled_from([0.0, 1.0, 50.0, 1000.0])),
            draw(numbers),
            draw(numbers),
            draw(st.booleans()) and draw(st.booleans()),
            draw(st.sampled_from([None, None, None, LEAK, "the mask vanished"])),
        )
        for i in range(n)
    ]
    return slices, draw(st.sets(st.integers(0, n - 1), max_size=5))


@given(reviews())
def test_proposals_lie_in_the_volume_and_never_on_a_key(case):
    slices, keys = case
    found = proposals(slices, keys, n_slices=len(slices))
    fixed = keys | {one.index for one in slices if one.is_key}
    assert all(0 <= one.index < len(slices) and one.index not in fixed for one in found)
    errors = [one.expected_error for one in found]
    assert errors == sorted(errors, reverse=True)
    for one in found:
        if one.kind == "run" and fixed:
            run = range(one.first_index, one.last_index + 1)
            farthest = max(min(abs(i - key) for key in fixed) for i in run)
            assert min(abs(one.index - key) for key in fixed) >= min(3, farthest)


@given(reviews())
def test_following_the_proposals_comes_to_an_end(case):
    slices, keys = case
    keys = set(keys)
    for _ in range(len(slices) + 1):
        found = next_doubtful(slices, keys, n_slices=len(slices))
        if found is None:
            break
        keys.add(found.index)
    assert found is None


def carried(index, source="propagated", plane="axial", filled=True, reason=None):
    mask = np.full((4, 5), filled)
    return PropagatedSlice(Progress(1, 1), 1, 1, SliceView(plane, index), mask, None, 0.5, source, reason)


def test_doubts_of_propagated_slices():
    slices = [
        carried(5, "prompt"),
        carried(6),
        carried(7, filled=False, reason=LEAK),
        carried(2, "prompt", "coronal"),
    ]
    assert slice_doubts(slices, pixel_area=0.5) == [
        SliceDoubt(5, 10.0, 0.5, is_key=True),
        SliceDoubt(6, 10.0, 0.5),
        SliceDoubt(7, 0.0, 0.5, stop_reason=LEAK),
    ]


def test_doubts_of_nothing():
    assert slice_doubts([]) == []
