"""Masks of neighbouring slices become objects: what must hold for any of them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from napari_sam_med.segmentation.automatic.found_objects import FoundMask, FoundObject
from napari_sam_med.segmentation.automatic.linking import Linker, LinkRules, object_iou, without_duplicates
from napari_sam_med.volume.slice_view import SliceView

SHAPE = (24, 30)
LAX = LinkRules(min_voxels=1)


def square(row, column, side, iou=0.9, stability=0.9):
    mask = np.zeros(SHAPE, dtype=bool)
    mask[row : row + side, column : column + side] = True
    return FoundMask.of(mask, iou, stability)


def linked(slices, rules=LAX, plane="axial"):
    """Objects of a list of lists of masks."""
    linker = Linker(rules)
    for index, masks in enumerate(slices):
        linker.add(SliceView(plane, index), masks)
    return linker.objects()


def voxels_of(one):
    return frozenset((view.index, *map(int, pixel)) for view, mask in one for pixel in np.argwhere(mask.mask))


squares = st.builds(
    square,
    st.integers(0, 12),
    st.integers(0, 18),
    st.integers(1, 12),
    st.floats(0, 1.2),
    st.floats(0, 1),
)
stacks = st.lists(st.lists(squares, max_size=5), min_size=1, max_size=6)


@given(st.integers(0, 8), st.integers(0, 8), st.integers(6, 12), st.lists(st.integers(0, 1), max_size=8))
def test_one_thing_that_moves_a_little_is_one_object(row, column, side, steps):
    columns = column + np.cumsum([0, *steps])
    (found,) = linked([[square(row, int(at), side)] for at in columns])
    assert [view.index for view in found.masks] == list(range(len(columns)))
    assert found.voxels == side * side * len(columns)


@given(st.integers(0, 4), st.integers(3, 9), st.integers(2, 6))
def test_two_things_apart_stay_two_objects(row, side, n_slices):
    pair = [square(row, 0, side), square(row, side + 1, side)]
    found = linked([pair] * n_slices)
    assert {voxels_of(one) for one in found} == {
        frozenset((z, *map(int, p)) for z in range(n_slices) for p in np.argwhere(mask.mask)) for mask in pair
    }


@settings(max_examples=60)
@given(stacks, st.randoms(use_true_random=False))
def test_the_order_of_the_masks_of_a_slice_changes_nothing(stack, random):
    shuffled = [random.sample(masks, len(masks)) for masks in stack]
    rules = LinkRules(min_iou=0.2, min_voxels=1, min_slices=1)
    one, other = linked(stack, rules), linked(shuffled, rules)
    assert [(found.score, voxels_of(found)) for found in one] == [
        (found.score, voxels_of(found)) for found in other
    ]


@settings(max_examples=60)
@given(stacks)
def test_every_mask_is_in_one_object_before_any_is_dropped(stack):
    everything = LinkRules(min_iou=0.3, min_slices=1, min_voxels=1, max_shared=1.0)
    found = linked(stack, everything)
    assert sum(len(one.masks) for one in found) == sum(len(masks) for masks in stack)
    assert [one.number for one in found] == list(range(1, len(found) + 1))
    assert all(0 <= one.score <= 1 for one in found)
    assert [one.score for one in found] == sorted((one.score for one in found), reverse=True)


@settings(max_examples=60)
@given(stacks, st.floats(0, 0.9))
def test_no_two_objects_share_more_than_is_allowed(stack, max_shared):
    found = linked(stack, LinkRules(min_iou=0.2, min_slices=1, min_voxels=1, max_shared=max_shared))
    for one in found:
        for other in found:
            assert one is other or object_iou(one, other) <= max_shared


def test_a_part_goes_on_as_a_part_and_its_whole_as_the_whole():
    whole, part = square(2, 2, 12), square(4, 4, 6)
    found = linked([[whole, part], [part, whole], [whole, part]])
    assert sorted(one.voxels for one in found) == [3 * 36, 3 * 144]


@settings(max_examples=60)
@given(
    st.lists(squares, min_size=1, max_size=5), st.lists(squares, min_size=1, max_size=5), st.floats(0.05, 1)
)
def test_the_links_of_two_slices_have_the_largest_sum_of_ious(before, after, min_iou):
    linker = Linker(LinkRules(min_iou=min_iou))
    linker.add(SliceView("axial", 0), before)
    linker.add(SliceView("axial", 1), after)
    ious = np.array([[one.iou(other) for other in after] for one in before])
    ious[ious < min_iou] = 0
    rows, columns = linear_sum_assignment(ious, maximize=True)
    assert sum(sum(chain.ious) for chain in linker.chains) == pytest.approx(ious[rows, columns].sum())


@settings(max_examples=60)
@given(stacks, st.integers(1, 4), st.integers(0, 2))
def test_what_is_forgotten_on_the_way_is_no_object_in_the_end(stack, min_slices, most_bridged):
    rules = {"min_iou": 0.3, "most_bridged": most_bridged, "min_voxels": 1, "max_shared": 1.0}
    found = linked(stack, LinkRules(min_slices=min_slices, **rules))
    everything = linked(stack, LinkRules(min_slices=1, **rules))
    least = min(min_slices, len(stack))
    assert [(one.score, voxels_of(one)) for one in found] == [
        (one.score, voxels_of(one)) for one in everything if len(one.masks) >= least
    ]


def test_chains_that_ended_too_short_are_not_kept():
    linker = Linker(LinkRules(most_bridged=1, min_slices=2))
    for index in range(9):
        linker.add(SliceView("axial", index), [square(0, 6 * (index % 3), 5)])  # each alone
    assert len(linker.chains) == 2  # those that may still go on


def test_what_overlaps_too_little_is_not_linked():
    stack = [[square(0, 0, 10)], [square(0, 5, 10)]]  # IoU 1/3
    single = {"min_slices": 1, "min_voxels": 1}
    assert len(linked(stack, LinkRules(min_iou=0.4, **single))) == 2
    assert len(linked(stack, LinkRules(min_iou=0.3, **single))) == 1


def test_so_many_slices_are_bridged_and_no_more():
    mask = square(3, 3, 8)
    stack = [[mask], [mask], [], [], [mask], [mask]]
    assert len(linked(stack, LinkRules(most_bridged=2, min_voxels=1))) == 1
    assert len(linked(stack, LinkRules(most_bridged=1, min_voxels=1))) == 2


def test_a_mask_follows_the_slice_before_rather_than_an_earlier_one():
    near, far = square(0, 2, 10), square(0, 0, 10)
    (found, rest) = linked([[far, near], [near], [near]], LinkRules(min_slices=1, min_voxels=1))
    assert len(found.masks) == 3
    assert found.masks[SliceView("axial", 0)] is near
    assert len(rest.masks) == 1


def test_small_and_short_objects_are_dropped():
    long_one, short_one, small_one = square(0, 0, 9), square(0, 12, 9), square(14, 0, 2)
    stack = [[long_one, short_one, small_one], [long_one, small_one], [long_one, small_one]]
    (found,) = linked(stack, LinkRules(min_slices=2, min_voxels=13))
    assert found.voxels == 3 * 81


def test_a_single_slice_has_objects_too():
    (found,) = linked([[square(0, 0, 9)]], LinkRules(min_slices=3))
    assert found.score == pytest.approx(0.9 * 0.9 / 2)


def test_the_score_is_what_its_text_says():
    before, after = square(0, 0, 10, 1.0, 0.8), square(0, 0, 5, 1.4, 0.4)  # IoU 1/4
    (found,) = linked([[before], [after]], LinkRules(min_iou=0.2))
    good = (100 * 0.8 + 25 * 0.4) / 125
    assert found.score == pytest.approx(good * (1 + 0.25) / 3)


def test_of_duplicates_the_surer_one_stays():
    views = [SliceView("coronal", index) for index in range(3)]
    low = FoundObject(1, {view: square(0, 0, 10) for view in views}, 0.4)
    high = FoundObject(2, {view: square(0, 1, 10) for view in views}, 0.8)
    part = FoundObject(3, {views[0]: square(0, 0, 10)}, 0.3)
    assert without_duplicates([low, high, part], 0.7) == [high, part]
    assert without_duplicates([low, high, part], 0.9) == [high, low, part]
