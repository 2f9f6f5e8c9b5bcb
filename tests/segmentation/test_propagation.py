"""Propagation: order, stop reasons, key slices, partial results; a threshold stands in for the network."""

from __future__ import annotations

import numpy as np
import pytest

from napari_sam_med import Prompts, SliceView, Volume, propagate
from napari_sam_med.errors import ModelError, PromptError
from napari_sam_med.segmentation.gaps import TAPERED
from napari_sam_med.segmentation.slicewise_propagation import SlicewisePropagator
from napari_sam_med.volume.grid import Grid
from tests.segmentation.threshold_model import (
    BOX,
    DRIFT,
    WINDOW,
    ImageStore,
    ThresholdPredictor,
    carried,
    run,
    volume_of,
)


def test_finds_the_object_where_it_is_and_nowhere_else(rod):
    done, _ = run(rod, {10: BOX})
    filled = {d.view.index: d.mask for d in done if d.mask.any()}
    assert sorted(filled) == list(range(4, 16))
    for z, mask in filled.items():
        assert np.array_equal(mask, rod.data[z] > 100)


def test_nearest_slices_come_first(rod):
    done, _ = run(rod, {10: BOX})
    distances = [abs(d.view.index - 10) for d in done]
    assert distances == sorted(distances)
    assert done[0].source == "prompt"
    assert {d.source for d in done[1:]} == {"propagated"}


def test_says_why_it_stopped_in_each_direction(rod):
    done, _ = run(rod, {10: BOX})
    reasons = {d.direction: d.reason for d in done if d.reason}
    assert reasons == {"forward": "the mask vanished", "backward": "the mask vanished"}
    stops = {d.view.index for d in done if d.reason}
    assert stops == {3, 16}
    assert not any(d.mask.any() for d in done if d.reason)


def test_end_of_the_volume_is_a_reason_on_the_last_mask():
    data = np.zeros((6, 16, 16), dtype=np.uint8)
    data[:, 4:12, 4:12] = 200
    done, _ = run(volume_of(data), {2: (3, 3, 13, 13)})
    reasons = {d.view.index: d.reason for d in done if d.reason}
    assert reasons == {0: "start of the volume", 5: "end of the volume"}
    assert all(d.mask.any() for d in done)


def test_stops_where_the_mask_jumps():
    data = np.zeros((8, 32, 32), dtype=np.uint8)
    data[:5, 4:20, 4:20] = 200
    data[5:, 4:8, 4:8] = 200  # the same place, but a sixteenth of the area
    done, _ = run(volume_of(data), {2: (2, 2, 22, 22)})
    forward = [d for d in done if d.direction == "forward"]
    assert [d.view.index for d in forward if d.mask.any()] == [3, 4]
    assert forward[-1].reason == "overlap with the previous slice fell to 0.06 (limit 0.50)"


def test_limit_of_overlap_is_an_option():
    data = np.zeros((8, 32, 32), dtype=np.uint8)
    data[:5, 4:20, 4:20] = 200
    data[5:, 4:8, 4:8] = 200
    done, _ = run(volume_of(data), {2: (2, 2, 22, 22)}, min_overlap=0.05)
    assert sorted(d.view.index for d in done if d.mask.any()) == list(range(8))


def test_stops_where_the_model_does_not_trust_its_mask(rod):
    objects = {1: (6, {SliceView("axial", 10): Prompts.from_box(BOX)})}
    options = {"box_margin": DRIFT, "window": WINDOW, "store": ImageStore()}
    done = list(propagate(rod, objects, ThresholdPredictor(0.31), **options))
    assert [d.view.index for d in done if d.mask.any()] == [10]
    assert {d.reason for d in done[1:]} == {"the model's predicted IoU fell to 0.31 (limit 0.55)"}
    bold = list(propagate(rod, objects, ThresholdPredictor(0.31), min_iou_prediction=0.3, **options))
    assert sum(d.mask.any() for d in bold) == 12


def test_stops_on_tissue_of_another_brightness():
    data = np.zeros((8, 32, 32), dtype=np.uint8)
    data[:5, 4:20, 4:20] = 200
    data[5:, 4:20, 4:20] = 150
    done, _ = run(volume_of(data), {2: (2, 2, 22, 22)})
    assert sorted(d.view.index for d in done if d.mask.any()) == [0, 1, 2, 3, 4]
    (reason,) = (d.reason for d in done if d.direction == "forward" and d.reason)
    assert reason == "the mean value changed from 200 on the key slice to 150 (limit 3 standard deviations)"
    done, _ = run(volume_of(data), {2: (2, 2, 22, 22)}, max_brightness_shift=20.0, max_divergence=1.0)
    assert sorted(d.view.index for d in done) == list(range(8))


def test_voxels_without_a_value_do_not_stop_it():
    data = np.full((5, 16, 16), -500.0, dtype=np.float32)
    data[:, 4:12, 4:12] = 200
    data[:, 6, 6] = np.nan
    volume = Volume(data, Grid.from_zyx(data.shape))
    done, _ = run(volume, {2: (3, 3, 13, 13)})
    assert sum(d.mask.any() for d in done) == 5


def test_key_slices_are_answered_once_and_the_nearer_key_wins(rod):
    done, _ = run(rod, {5: BOX, 12: BOX})
    indices = [d.view.index for d in done if d.mask.any()]
    assert len(indices) == len(set(indices))
    by_index = {d.view.index: d for d in done}
    assert by_index[5].source == by_index[12].source == "prompt"
    assert by_index[7].direction == "forward"
    assert by_index[10].direction == "backward"
    assert all(by_index[z].reason is None for z in range(4, 13))


def test_between_keys_the_interpolation_stands_in_where_nothing_is_found():
    data = np.zeros((12, 32, 32), dtype=np.uint8)
    data[1, 4:20, 4:20] = 200
    data[3:11, 4:20, 4:20] = 200  # slice 2 is dark
    done, _ = run(volume_of(data), {1: (2, 2, 22, 22), 9: (2, 2, 22, 22)})
    by_index = {d.view.index: d for d in done if d.mask.any()}
    assert sorted(by_index) == list(range(1, 11))
    assert by_index[2].source == "interpolated"
    assert np.array_equal(by_index[2].mask, data[1] > 100)
    assert by_index[2].quality < 0.3 < min(by_index[z].quality for z in (3, 4, 5))


def test_next_prompt_is_the_previous_box_and_logits(rod):
    _, predictor = run(rod, {10: BOX}, directions=("forward",), prompt="mask")
    carried = predictor.prompts[1]
    columns = np.flatnonzero((rod.data[10] > 100).any(axis=0))
    assert carried.box_xyxy[0] <= columns[0] < columns[-1] <= carried.box_xyxy[2]
    assert carried.mask_input is not None
    assert carried.mask_input.max() > 0 > carried.mask_input.min()


def test_boxes_alone_for_a_model_that_takes_only_boxes(rod):
    predictor = ThresholdPredictor()
    predictor.accepts = frozenset({"box"})
    objects = {1: (6, {SliceView("axial", 10): Prompts.from_box(BOX)})}
    done = list(propagate(rod, objects, predictor, window=WINDOW, store=ImageStore(), box_margin=DRIFT))
    assert all(p.kinds == {"box"} for p in predictor.prompts)
    assert sum(d.mask.any() for d in done) == 12


def test_directions_and_range_limit_what_is_filled(rod):
    done, _ = run(rod, {10: BOX}, first_index=8, last_index=12)
    assert sorted(d.view.index for d in done) == [8, 9, 10, 11, 12]
    assert {d.reason for d in done if d.reason} == {"start of the chosen range", "end of the chosen range"}
    done, _ = run(rod, {10: BOX}, directions=("backward",))
    assert max(d.view.index for d in done) == 10


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ({"first_index": 6, "last_index": 7}, r"6 to 7 does not touch a key slice \(9, 12\)"),
        ({"first_index": 14}, "14 on does not touch"),
        ({"last_index": 7}, "0 to 7 does not touch"),
    ],
)
def test_a_range_away_from_the_key_slices_is_refused(rod, limits, words):
    with pytest.raises(PromptError, match=words):
        run(rod, {9: BOX, 12: BOX}, **limits)


@pytest.mark.parametrize("limits", [{"first_index": 11}, {"last_index": 9}, {"first_index": 10}])
def test_a_range_beside_a_key_slice_is_filled(rod, limits):
    done, _ = run(rod, {10: BOX}, **limits)
    assert sum(d.mask.any() for d in done) > 1


def test_drawn_key_masks_are_taken_as_they_are(rod):
    drawn = np.zeros((32, 32), dtype=bool)
    drawn[9:17, 10:20] = True
    view = SliceView("axial", 10)
    objects = {1: (6, {view: Prompts.from_box(BOX)})}
    predictor = ThresholdPredictor()
    done = list(
        propagate(
            rod,
            objects,
            predictor,
            window=WINDOW,
            store=ImageStore(),
            box_margin=DRIFT,
            masks={1: {view: drawn}},
        )
    )
    assert np.array_equal(done[0].mask, drawn)
    assert done[0].quality == 1.0
    assert sum(d.mask.any() for d in done) == 12


def test_several_objects_keep_their_class_and_share_the_round():
    data = np.zeros((9, 40, 40), dtype=np.uint8)
    data[2:7, 4:14, 4:14] = 200
    data[3:8, 24:36, 24:36] = 200
    objects = {
        7: (1, {SliceView("axial", 4): Prompts.from_box((2, 2, 16, 16))}),
        9: (1, {SliceView("axial", 5): Prompts.from_box((22, 22, 38, 38))}),
    }
    done = list(
        propagate(
            volume_of(data),
            objects,
            ThresholdPredictor(),
            window=WINDOW,
            store=ImageStore(),
            box_margin=DRIFT,
        )
    )
    for object_id, slices in ((7, range(2, 7)), (9, range(3, 8))):
        assert sorted(d.view.index for d in done if d.object_id == object_id and d.mask.any()) == list(slices)
    assert {d.class_id for d in done} == {1}


def test_progress_grows_and_ends_complete(rod):
    done, _ = run(rod, {5: BOX, 12: BOX})
    steps = [d.progress.done for d in done]
    assert steps == list(range(1, len(done) + 1))
    assert all(d.progress.done <= d.progress.total for d in done)
    assert done[-1].progress.fraction == 1.0


def test_closing_keeps_what_was_done_and_stops_the_work(rod):
    predictor = ThresholdPredictor()
    objects = {1: (6, {SliceView("axial", 10): Prompts.from_box(BOX)})}
    job = propagate(rod, objects, predictor, window=WINDOW, store=ImageStore(), box_margin=DRIFT)
    first = [next(job) for _ in range(3)]
    job.close()
    assert [d.view.index for d in first] == [10, 9, 11]
    assert len(predictor.prompts) == 3


@pytest.mark.parametrize("plane", ["coronal", "sagittal"])
def test_every_plane(rod, plane):
    data = np.moveaxis(rod.data, 0, SliceView(plane, 0).axis)
    volume = volume_of(data)
    view = SliceView(plane, 10)
    height, width = view.slice_shape(volume.shape)
    objects = {1: (6, {view: Prompts.from_box((0, 0, width - 1, height - 1))})}
    done = list(
        propagate(volume, objects, ThresholdPredictor(), window=WINDOW, store=ImageStore(), box_margin=DRIFT)
    )
    filled = {d.view: d.mask for d in done if d.mask.any()}
    assert sorted(v.index for v in filled) == list(range(4, 16))
    for v, mask in filled.items():
        assert np.array_equal(mask, v.extract(volume.data) > 100)


def test_key_slices_of_another_plane_are_answered_but_not_carried(rod):
    axial = {SliceView("axial", z): Prompts.from_box(BOX) for z in (9, 11)}
    coronal = {SliceView("coronal", 12): Prompts.from_box((0, 0, 31, 19))}
    objects = {1: (6, {**coronal, **axial})}
    done = list(
        propagate(rod, objects, ThresholdPredictor(), window=WINDOW, store=ImageStore(), box_margin=DRIFT)
    )
    assert [d.view.plane for d in done if d.source == "prompt"] == ["axial", "axial", "coronal"]
    assert {d.view.plane for d in done if d.source == "propagated"} == {"axial"}


def test_an_empty_key_mask_says_so_and_fills_nothing(rod):
    done, _ = run(rod, {10: (0, 20, 5, 30)})
    assert len(done) == 1
    assert done[0].reason == "the prompts gave an empty mask"


def test_one_slice_volume():
    data = np.zeros((1, 16, 16), dtype=np.uint8)
    data[:, 4:12, 4:12] = 200
    done, _ = run(volume_of(data), {0: (3, 3, 13, 13)})
    assert [d.view.index for d in done] == [0]


@pytest.mark.parametrize(
    ("objects", "words"),
    [
        ({}, "nothing to carry"),
        ({1: (6, {})}, "no key slice"),
        ({1: (0, {SliceView("axial", 1): Prompts.from_box(BOX)})}, "count from 1"),
        ({1: (6, {SliceView("axial", 20): Prompts.from_box(BOX)})}, "axial slices 0 to 19"),
    ],
)
def test_what_cannot_be_propagated_is_refused(rod, objects, words):
    with pytest.raises(PromptError, match=words):
        list(
            propagate(rod, objects, ThresholdPredictor(), window=WINDOW, store=ImageStore(), box_margin=DRIFT)
        )


def test_drawn_masks_of_another_shape_are_refused(rod):
    masks = {1: {SliceView("axial", 10): np.ones((32, 31), dtype=bool)}}
    with pytest.raises(PromptError, match="axial slices are"):
        propagate(rod, {1: (6, {})}, ThresholdPredictor(), masks=masks)


def test_a_slice_without_an_answer_is_stepped_over_and_filled():
    data = np.zeros((12, 32, 32), dtype=np.uint8)
    data[2:10, 4:20, 4:20] = 200
    data[6] = 0
    data[6, 4:20, 4:9] = 200  # a third of it, as a metal streak leaves
    done, _ = run(volume_of(data), {4: (2, 2, 22, 22)})
    by_index = {d.view.index: d for d in done if d.mask.any()}
    assert sorted(by_index) == list(range(2, 10))
    assert by_index[6].source == "interpolated"
    assert np.array_equal(by_index[6].mask, data[5] > 100)
    alone, _ = run(volume_of(data), {4: (2, 2, 22, 22)}, most_bridged=0)
    assert max(d.view.index for d in alone if d.mask.any()) == 5


def test_a_leak_ends_the_direction():
    data = np.zeros((10, 64, 64), dtype=np.uint8)
    data[:, 24:40, 24:40] = 200
    data[6:, 8:56, 8:56] = 200
    done, _ = run(volume_of(data), {2: (20, 20, 44, 44)}, box_margin=2.0, min_overlap=0.05, max_growth=1.5)
    assert max(d.view.index for d in done if d.mask.any()) == 5
    assert "leak" in next(d.reason for d in done if d.reason and d.direction == "forward")


def test_an_object_that_loses_all_to_another_ends_with_a_reason():
    data = np.zeros((6, 32, 32), dtype=np.uint8)
    data[:, 8:24, 8:24] = 200
    view = SliceView("axial", 2)
    outer, inner = (
        (6, {view: Prompts.from_box((6, 6, 26, 26))}),
        (3, {view: Prompts.from_box((12, 12, 18, 18))}),
    )
    done, _ = carried(volume_of(data), {1: outer, 2: inner}, None)
    reasons = {d.direction: d.reason for d in done if d.object_id == 2 and d.reason}
    assert reasons == dict.fromkeys(("forward", "backward"), "another object took its place")
    assert all(d.mask.any() for d in done if d.object_id == 1)


def test_a_key_slice_that_crosses_and_denies_a_thin_object_ends_nothing_with_a_traceback():
    data = np.zeros((9, 32, 32), dtype=np.uint8)
    data[:, :, 15] = 200
    thin = data[0] > 100
    masks = {SliceView("axial", 0): thin, SliceView("axial", 8): thin}
    masks[SliceView("sagittal", 15)] = np.zeros((9, 32), dtype=bool)
    done, _ = carried(volume_of(data), {1: (6, {})}, None, masks={1: masks})
    assert {d.view.index for d in done if d.view.plane == "axial"} == set(range(9))


def test_a_click_outside_the_slice_is_refused_in_words(rod):
    view = SliceView("axial", 10)
    objects = {1: (6, {view: Prompts.from_points([(40, 40)], [0])})}
    masks = {1: {view: rod.data[10] > 100}}
    with pytest.raises(PromptError, match="outside"):
        carried(rod, objects, None, masks=masks)


def test_the_slice_wise_engine_needs_a_predictor(rod):
    objects = {1: (6, {SliceView("axial", 10): Prompts.from_box(BOX)})}
    with pytest.raises(ModelError, match="no model"):
        next(propagate(rod, objects, None, engine=SlicewisePropagator()))


def test_locked_voxels_are_never_taken(rod):
    locked = np.zeros(rod.shape, dtype=bool)
    locked[:, 8:12] = True
    done, _ = run(rod, {10: BOX}, locked=locked)
    carried = [d for d in done if d.direction != "key" and d.mask.any()]
    assert carried
    assert not any((d.mask & locked[d.view.index]).any() for d in carried)


def test_objects_of_a_slice_are_decoded_together_and_do_not_overlap():
    data = np.zeros((6, 32, 64), dtype=np.uint8)
    data[:, 8:24, 4:50] = 200
    views = {SliceView("axial", 2): Prompts.from_box((2, 6, 30, 26))}
    other = {SliceView("axial", 2): Prompts.from_box((25, 6, 52, 26))}
    predictor = ThresholdPredictor()
    done = list(
        propagate(
            volume_of(data), {1: (6, views), 2: (3, other)}, predictor, window=WINDOW, store=ImageStore()
        )
    )
    assert set(predictor.batches) == {2}
    for z in (0, 1, 3, 4, 5):
        first, second = (d.mask for d in done if d.view.index == z)
        assert first.any()
        assert second.any()
        assert not (first & second).any()


def test_a_background_click_holds_on_the_slices_nearby(rod):
    predictor = ThresholdPredictor()
    prompts = Prompts([(30.0, 30.0)], [0], BOX)
    objects = {1: (6, {SliceView("axial", 10): prompts})}
    list(propagate(rod, objects, predictor, window=WINDOW, store=ImageStore(), box_margin=DRIFT))
    with_click = [p for p in predictor.prompts[1:] if 0 in p.point_labels]
    assert len(with_click) == 6  # three slices on either side
    assert all(p.points_xy.tolist() == [[30.0, 30.0]] for p in with_click)


@pytest.mark.parametrize("plane", ["coronal", "sagittal"])
def test_a_key_slice_of_another_plane_holds_where_it_crosses(rod, plane):
    crossing = SliceView(plane, 12)
    drawn = np.zeros(crossing.slice_shape(rod.shape), dtype=bool)
    crossing_truth = crossing.extract(rod.data) > 100
    drawn[crossing_truth] = True
    drawn[:, -3:] = True  # the user says that the object reaches there
    view = SliceView("axial", 10)
    predictor = ThresholdPredictor()
    done = list(
        propagate(
            rod,
            {1: (6, {view: Prompts.from_box(BOX), SliceView("axial", 9): Prompts.from_box(BOX)})},
            predictor,
            masks={1: {crossing: drawn}},
            window=WINDOW,
            store=ImageStore(),
            box_margin=DRIFT,
            min_overlap=0.1,
        )
    )
    carried = [d for d in done if d.direction != "key" and d.mask.any()]
    assert carried
    for one in carried:
        line = one.mask[one.view.line_of(crossing, rod.shape)]
        assert np.array_equal(line, drawn[crossing.line_of(one.view, rod.shape)])


def test_the_box_alone_is_the_next_prompt_by_default(rod):
    _, predictor = run(rod, {10: BOX}, directions=("forward",))
    carried = predictor.prompts[1]
    assert carried.box_xyxy is not None
    assert carried.mask_input is None


def test_falling_areas_of_key_slices_foretell_the_end():
    data = np.zeros((30, 64, 64), dtype=np.uint8)
    data[:, 8:56, 8:56] = 200
    keys = {10: (6, 6, 57, 57), 14: (20, 20, 44, 44)}  # the user says that it is smaller there
    done, _ = run(volume_of(data), keys, min_overlap=0.0, max_growth=99.0)
    areas = {d.view.index: int(d.mask.sum()) for d in done}
    reach = round(4 * areas[14] / (areas[10] - areas[14]))
    last = max(z for z, area in areas.items() if area)
    assert last == 14 + max(1, reach)
    assert next(d.reason for d in done if d.view.index == last) == TAPERED
    assert min(z for z, area in areas.items() if area) == 0  # the other way they rise
    free, _ = run(volume_of(data), keys, min_overlap=0.0, max_growth=99.0, taper=0.0)
    assert max(d.view.index for d in free if d.mask.any()) == 29


@pytest.mark.parametrize(("iou_prediction", "last"), [(0.9, 25), (0.56, 15)])
def test_confident_answers_outweigh_the_foretold_end(iou_prediction, last):
    data = np.zeros((30, 64, 64), dtype=np.uint8)
    data[:12, 8:56, 8:56] = 200
    data[12:26, 24:40, 24:40] = 200  # a tail that tapers no further; the areas of the keys foretell slice 15
    boxes = {8: (6, 6, 57, 57), 14: (22, 22, 42, 42)}
    objects = {1: (6, {SliceView("axial", z): Prompts.from_box(box) for z, box in boxes.items()})}
    options = {"window": WINDOW, "store": ImageStore()}
    done = list(propagate(volume_of(data), objects, ThresholdPredictor(iou_prediction), **options))
    assert max(d.view.index for d in done if d.mask.any()) == last
    assert (TAPERED in [d.reason for d in done]) == (last == 15)
