"""The baselines do what is said of them, no less: they are what our propagator is measured against."""

from __future__ import annotations

import numpy as np
import pytest

from napari_sam_med import Prompts, SliceView, propagate
from napari_sam_med.evaluation.propagation_baselines import BoxCopyPropagator, PreviousMaskPropagator
from tests.evaluation.bright_rods import WINDOW, BrightPixels, ImageStore, rod, volume_of

BOX = (8, 8, 19, 17)  # tangent to the rod


def run(engine, data, keys, model=None, **options):
    """Masks by slice index, and everything that was yielded."""
    prompts = {SliceView("axial", z): Prompts.from_box(box) for z, box in keys.items()}
    done = list(
        propagate(
            volume_of(data),
            {3: (7, prompts)},
            model or BrightPixels(),
            engine=engine,
            window=WINDOW,
            store=ImageStore(),
            **options,
        )
    )
    assert {(one.object_id, one.class_id) for one in done} == {(3, 7)}
    assert len({one.view for one in done}) == len(done)
    return {one.view.index: one.mask for one in done}, done


def areas(masks):
    return {z: int(mask.sum()) for z, mask in sorted(masks.items()) if mask.any()}


def test_the_box_is_asked_on_every_slice_of_the_volume():
    model = BrightPixels()
    masks, done = run(BoxCopyPropagator(), rod(), {10: BOX}, model)
    assert sorted(masks) == list(range(20))
    assert areas(masks) == dict.fromkeys(range(4, 16), 120)
    assert len(model.asked) == 20
    assert all(np.array_equal(prompts.box_xyxy, BOX) for prompts in model.asked)
    distances = [abs(one.view.index - 10) for one in done]
    assert distances == sorted(distances)


def test_the_nearest_of_several_boxes_is_copied():
    masks, _ = run(BoxCopyPropagator(), rod(range(20)), {4: (8, 8, 11, 17), 14: BOX})
    assert {z: int(mask.sum()) for z, mask in masks.items()} == {z: 40 if z <= 9 else 120 for z in range(20)}


def test_the_box_stays_in_the_range():
    masks, _ = run(BoxCopyPropagator(), rod(), {10: BOX}, first_index=8, last_index=11)
    assert sorted(masks) == [8, 9, 10, 11]


def test_previous_mask_ends_where_masks_overlap_too_little():
    data = rod(range(20))
    data[14:, 8:18, 12:20] = 0  # from 14 on a third as wide: IoU 1/3
    masks, done = run(PreviousMaskPropagator("box", 0.8), data, {10: BOX})
    assert areas(masks) == dict.fromkeys(range(14), 120)
    assert [(one.view.index, one.direction, one.reason) for one in done if one.reason] == [
        (14, "forward", "overlap with the previous slice fell to 0.33 (limit 0.80)")
    ]
    masks, _ = run(PreviousMaskPropagator("box", 0.3), data, {10: BOX})
    assert sorted(areas(masks)) == list(range(20))


def test_previous_mask_ends_where_the_object_does():
    masks, done = run(PreviousMaskPropagator("box", 0.5), rod(), {10: BOX})
    assert areas(masks) == dict.fromkeys(range(4, 16), 120)
    assert {one.view.index: one.reason for one in done if one.reason} == {
        3: "the mask vanished",
        16: "the mask vanished",
    }


def test_box_extension_lets_the_mask_follow_a_drift():
    data = np.zeros((8, 32, 32), dtype=np.uint8)
    for z in range(8):
        data[z, 8:18, 4 + z : 14 + z] = 200
    keys = {0: (4, 8, 13, 17)}
    tight, _ = run(PreviousMaskPropagator("box", 0.5, 0.0), data, keys)
    wide, _ = run(PreviousMaskPropagator("box", 0.5, 0.1), data, keys)
    assert areas(wide) == dict.fromkeys(range(8), 100)
    assert areas(tight)[3] == 70  # loses a column a slice


def test_a_single_point_lies_in_the_middle_of_the_previous_mask():
    model = BrightPixels()
    data = rod(range(3, 8), columns=slice(8, 19))
    masks, _ = run(PreviousMaskPropagator("single_point", 0.5), data, {5: (8, 8, 18, 17)}, model)
    assert areas(masks) == dict.fromkeys(range(3, 8), 110)
    for prompts in model.asked[1:]:
        assert prompts.is_lone_point
        (x, y), (label,) = prompts.points_xy[0], prompts.point_labels
        assert label == 1
        assert abs(x - 13) <= 1
        assert y in (12, 13)


def test_between_keys_it_marches_from_both_to_the_middle_without_a_stop():
    data = rod(range(11), depth=11)
    data[3:8, 8:18, 12:] = 0  # the waist would end it outside of the keys
    masks, done = run(PreviousMaskPropagator("box", 0.8), data, {0: BOX, 10: BOX})
    assert areas(masks) == {**dict.fromkeys(range(11), 120), **dict.fromkeys(range(3, 8), 40)}
    directions = {one.view.index: one.direction for one in done}
    assert [directions[z] for z in (1, 4, 6, 9)] == ["forward", "forward", "backward", "backward"]
    assert not any(one.reason for one in done)


@pytest.mark.parametrize("gap", [1, 3])
def test_the_exact_middle_is_asked_with_the_union_of_its_neighbours(gap):
    data = np.zeros((gap + 2, 32, 32), dtype=np.uint8)
    data[: gap // 2 + 1, 8:18, 4:10] = 200
    data[-(gap // 2 + 1) :, 8:18, 20:28] = 200
    data[gap // 2 + 1] = 200
    model = BrightPixels()
    keys = {0: (4, 8, 9, 17), gap + 1: (20, 8, 27, 17)}
    run(PreviousMaskPropagator("box", 0.8), data, keys, model)
    assert np.array_equal(model.asked[-1].box_xyxy, (4, 8, 27, 17))


def test_an_even_gap_has_no_exact_middle():
    model = BrightPixels()
    masks, _ = run(PreviousMaskPropagator("box", 0.8), rod(range(6), 6), {0: BOX, 5: BOX}, model)
    assert sorted(masks) == list(range(6))
    assert len(model.asked) == 6


@pytest.mark.parametrize("engine", [BoxCopyPropagator(), PreviousMaskPropagator("box", 0.1)])
def test_drawn_masks_are_key_slices(engine):
    data = rod(range(20))
    drawn = np.zeros((32, 32), dtype=bool)
    drawn[8:18, 8:14] = True
    view = SliceView("axial", 10)
    masks, done = run(engine, data, {}, masks={3: {view: drawn}})
    assert np.array_equal(masks[10], drawn)
    assert areas(masks) == dict.fromkeys(range(20), 60)
    assert done[0].source == "prompt"


def test_an_empty_drawn_mask_ends_the_march_but_not_the_other_key():
    data = rod(range(20))
    empty = {SliceView("axial", z): np.zeros((32, 32), dtype=bool) for z in (2, 14)}
    masks, _ = run(PreviousMaskPropagator("box", 0.5), data, {8: BOX}, masks={3: empty})
    assert sorted(areas(masks)) == list(range(3, 14))


def test_keys_of_another_plane_are_answered_but_not_carried():
    prompts = {
        SliceView("axial", 8): Prompts.from_box(BOX),
        SliceView("axial", 12): Prompts.from_box(BOX),
        SliceView("coronal", 10): Prompts.from_box((0, 0, 31, 19)),
    }
    done = list(
        propagate(
            volume_of(rod()),
            {1: (1, prompts)},
            BrightPixels(),
            engine=PreviousMaskPropagator("box", 0.5),
            window=WINDOW,
            store=ImageStore(),
        )
    )
    assert [one.view for one in done if one.source == "prompt"] == sorted(
        prompts, key=lambda view: (view.plane, view.index)
    )
    assert {one.view.plane for one in done if one.source == "propagated"} == {"axial"}
