"""Clean-up, filling between slices and erasing: one undo step each, and nothing of other organs."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from napari_sam_med.errors import LockedError, PromptError
from napari_sam_med.sam.prompts import Prompts
from napari_sam_med.segmentation.propagation import PropagatedSlice
from napari_sam_med.session import jobs
from napari_sam_med.session.clean_up import clean_up, erase, fill_between, interpolation_input
from napari_sam_med.session.session import Session
from napari_sam_med.volume.slice_view import SliceView

LIVER, SPLEEN = 6, 1
BOX = Prompts.from_box((2, 2, 9, 9))


def axial(index: int) -> SliceView:
    return SliceView("axial", index)


@pytest.fixture
def paint(session: Session) -> Callable[..., None]:
    """Paint a block of the active organ, as a stroke."""

    def put(z: slice, y: slice, x: slice, class_id: int | None = None) -> None:
        session.labels.data[z, y, x] = session.active_class_id if class_id is None else class_id
        session.record_stroke()

    return put


@pytest.fixture
def liver(session: Session, propose: Callable) -> int:
    """An object accepted on axial slice 3, rows and columns 4 to 15."""
    return accepted(session, propose, 3, slice(4, 16), slice(4, 16))


def accepted(session: Session, propose: Callable, index: int, rows: slice, columns: slice) -> int:
    if session.active_class_id != LIVER:
        session.select_organ(LIVER)
    session.prompt(axial(index), BOX)
    propose(axial(index), rows, columns)
    session.accept()
    assert session.active_object_id is not None
    return session.active_object_id


def assert_masks_are_labels(session: Session) -> None:
    """Every object's slice masks say what stands in the labels."""
    for item in session.objects.values():
        for view, mask in item.masks.items():
            assert (view.extract(session.labels.data)[mask.unpack()] == item.class_id).all()
            assert mask.unpack().any()


def slices(session: Session, object_id: int) -> list[int]:
    return sorted(view.index for view in session.objects[object_id].masks)


# clean-up


def test_the_largest_component_stays_and_it_is_one_step(
    session: Session, liver: int, paint: Callable
) -> None:
    paint(slice(3, 4), slice(20, 22), slice(28, 30))
    paint(slice(6, 7), slice(0, 1), slice(0, 1))
    before, steps = session.labels.data.copy(), len(session.undo_stack)
    change = clean_up(session, liver, "largest_component", keep_key_slices=False)
    assert change is not None
    assert change.label == "Keep the largest component of liver"
    assert session.voxel_count(LIVER) == np.count_nonzero(session.labels.data) == 144
    assert slices(session, liver) == [3]
    assert_masks_are_labels(session)
    assert len(session.undo_stack) == steps + 1
    session.undo()
    assert np.array_equal(session.labels.data, before)
    assert slices(session, liver) == [3, 6]
    session.redo()
    assert session.voxel_count(LIVER) == 144


def test_components_on_key_slices_stay_unless_told_otherwise(
    session: Session, liver: int, paint: Callable
) -> None:
    paint(slice(6, 7), slice(0, 2), slice(0, 2))
    assert clean_up(session, liver, "largest_component") is None
    assert slices(session, liver) == [3, 6]


def test_islands_go_by_volume(session: Session, liver: int, paint: Callable) -> None:
    paint(slice(6, 7), slice(0, 2), slice(0, 2))  # 4 voxels of 6 mm3
    assert clean_up(session, liver, "remove_islands", min_volume_mm3=24.0) is None
    assert clean_up(session, liver, "remove_islands", min_volume_mm3=24.5) is not None
    assert slices(session, liver) == [3]


def test_a_slice_stays_what_it_was(session: Session, liver: int) -> None:
    clicked = BOX.replace(points_xy=[(5, 5)], point_labels=[1])
    session.prompt(axial(3), clicked)  # newer than the mask
    before = session.objects[liver].masks[axial(3)]
    assert clean_up(session, liver, "smooth", radius_mm=3.0) is not None
    item = session.objects[liver]
    after = item.masks[axial(3)]
    assert after.packed != before.packed
    assert (after.source, after.quality) == ("prompt", 0.8)
    assert item.has_newer_prompts(axial(3))


def test_holes_are_filled_but_not_with_other_organs(session: Session, liver: int, paint: Callable) -> None:
    paint(slice(3, 4), slice(6, 8), slice(6, 8), 0)
    paint(slice(3, 4), slice(11, 13), slice(11, 13), SPLEEN)
    assert clean_up(session, liver, "fill_holes") is None  # open above and below
    clean_up(session, liver, "fill_holes", plane="axial")
    assert session.voxel_count(LIVER) == 140
    assert session.voxel_count(SPLEEN) == 4
    assert np.count_nonzero(session.objects[liver].mask(axial(3))) == 140
    assert_masks_are_labels(session)


def test_smoothing_takes_nothing_from_other_organs(session: Session, liver: int, paint: Callable) -> None:
    paint(slice(3, 4), slice(4, 16), slice(16, 20), SPLEEN)
    paint(slice(3, 4), slice(9, 10), slice(0, 4))  # a thorn
    clean_up(session, liver, "smooth", radius_mm=2.0)
    assert session.voxel_count(SPLEEN) == 48
    assert not session.labels.data[3, 9, 0]
    assert set(np.unique(np.nonzero(session.labels.data == LIVER)[0])) == {3}
    assert_masks_are_labels(session)


def test_smoothing_stays_on_the_slices_when_there_are_gaps(
    session: Session, liver: int, propose: Callable
) -> None:
    accepted(session, propose, 6, slice(4, 16), slice(4, 16))
    clean_up(session, liver, "smooth", radius_mm=6.0)
    counts = np.count_nonzero(session.labels.data, axis=(1, 2))
    assert np.flatnonzero(counts).tolist() == [3, 6]
    assert (counts[[3, 6]] > 130).all()
    assert_masks_are_labels(session)


def test_an_object_is_cleaned_alone(session: Session, liver: int, propose: Callable) -> None:
    session.new_object()
    other = accepted(session, propose, 3, slice(14, 20), slice(14, 20))
    clean_up(session, other, "largest_component")
    clean_up(session, liver, "remove_islands", min_volume_mm3=1e6)
    assert set(session.objects) >= {other}
    assert np.count_nonzero(session.objects[other].mask(axial(3))) == 36
    assert session.voxel_count(LIVER) == 36
    assert_masks_are_labels(session)


def test_a_whole_organ_includes_voxels_of_no_object(session: Session, liver: int, paint: Callable) -> None:
    session.new_object()
    paint(slice(6, 7), slice(20, 22), slice(20, 22))
    paint(slice(7, 8), slice(0, 1), slice(0, 1))
    session.select_organ(LIVER)
    clean_up(session, None, "remove_islands", min_volume_mm3=24.0)
    assert session.voxel_count(LIVER) == 148
    clean_up(session, None, "largest_component")
    assert session.voxel_count(LIVER) == 144
    assert slices(session, liver) == [3]
    assert_masks_are_labels(session)


def test_nothing_to_clean_up_is_said(session: Session) -> None:
    session.select_organ(LIVER)
    with pytest.raises(PromptError, match="liver has no voxels yet"):
        clean_up(session, None, "largest_component")
    with pytest.raises(PromptError, match="That object is gone"):
        clean_up(session, 99, "largest_component")


def test_without_a_scan_it_says_so() -> None:
    with pytest.raises(PromptError, match="open one first"):
        clean_up(Session(), None, "largest_component")


@pytest.mark.parametrize(
    "action",
    [
        lambda session, i: clean_up(session, i, "smooth", radius_mm=2.0),
        lambda session, i: erase(session, i, axial(3)),
        lambda session, i: erase(session, i),
        lambda session, i: erase(session, None),
        lambda session, i: fill_between(session, [i]),
    ],
)
def test_locked_organs_are_refused(session: Session, liver: int, action: Callable) -> None:
    session.set_organ(replace(session.organs[LIVER], locked=True))
    before, steps = session.labels.data.copy(), len(session.undo_stack)
    with pytest.raises(LockedError, match="liver is locked"):
        action(session, liver)
    assert np.array_equal(session.labels.data, before)
    assert len(session.undo_stack) == steps


# erasing


def test_erasing_here_takes_mask_and_prompts_of_the_slice(
    session: Session, liver: int, propose: Callable
) -> None:
    accepted(session, propose, 5, slice(4, 10), slice(4, 10))
    propose(axial(3), slice(0, 2), slice(0, 2))
    erase(session, liver, axial(3))
    item = session.objects[liver]
    assert slices(session, liver) == [5]
    assert set(item.key_slices) == {axial(5)}
    assert session.preview is None
    assert session.voxel_count(LIVER) == np.count_nonzero(session.labels.data) == 36
    assert session.undo() == "Erase liver on axial slice 3"
    assert session.voxel_count(LIVER) == 180
    assert session.objects[liver].key_slices[axial(3)] == BOX


def test_erasing_here_takes_what_other_planes_put_there(
    session: Session, liver: int, propose: Callable
) -> None:
    other = SliceView("sagittal", 6)
    session.prompt(other, BOX)
    propose(other, slice(0, 8), slice(5, 9))
    session.accept()
    assert session.labels.data[6, 5:9, 6].all()
    erase(session, liver, axial(6))
    assert not session.labels.data[6].any()
    assert session.labels.data[5, 5:9, 6].all()
    assert_masks_are_labels(session)
    assert other in session.objects[liver].key_slices


def test_erasing_the_only_slice_ends_the_object(session: Session, liver: int) -> None:
    erase(session, liver, axial(3))
    assert not session.objects
    assert session.active_object_id is None
    assert not session.labels.data.any()
    session.undo()
    assert session.active_object_id == liver


def test_erasing_where_nothing_is_is_no_step(session: Session, liver: int) -> None:
    steps = len(session.undo_stack)
    assert erase(session, liver, axial(0)) is None
    assert len(session.undo_stack) == steps


def test_erasing_everywhere_leaves_the_organ_and_the_other_objects(
    session: Session, liver: int, propose: Callable
) -> None:
    session.new_object()
    other = accepted(session, propose, 3, slice(14, 20), slice(14, 20))
    erase(session, liver)
    assert set(session.objects) == {other}
    assert session.voxel_count(LIVER) == 36
    assert LIVER in session.organs
    assert session.undo() == "Erase liver everywhere"
    assert session.voxel_count(LIVER) == 176


def test_erasing_an_organ_takes_imported_voxels_too(session: Session, liver: int, paint: Callable) -> None:
    session.new_object()
    paint(slice(7, 8), slice(0, 3), slice(0, 3))
    paint(slice(7, 8), slice(5, 7), slice(5, 7), SPLEEN)
    erase(session, None, axial(7))
    assert session.voxel_count(LIVER) == 144
    erase(session, None)
    assert session.voxel_count(LIVER) == 0
    assert session.voxel_count(SPLEEN) == 4
    assert not session.objects


# filling between slices


@pytest.fixture
def two_keys(session: Session, liver: int, propose: Callable) -> int:
    """The object on slice 3 is on slice 7 too, moved by four pixels."""
    return accepted(session, propose, 7, slice(8, 20), slice(8, 20))


def test_filling_is_one_step_and_leaves_keys_and_other_organs(
    session: Session, two_keys: int, paint: Callable
) -> None:
    paint(slice(5, 6), slice(6, 10), slice(6, 10), SPLEEN)
    before = session.labels.data.copy()
    change = fill_between(session, [two_keys])
    assert change is not None
    assert change.label == "Fill liver between slices"
    data, item = session.labels.data, session.objects[two_keys]
    assert np.array_equal(data[[3, 7]], before[[3, 7]])
    assert session.voxel_count(SPLEEN) == 16
    middle = np.zeros(data.shape[1:], dtype=bool)
    middle[6:18, 6:18] = True
    assert np.array_equal(data[5] == LIVER, middle & (before[5] == 0))
    assert {v.index: m.source for v, m in item.masks.items()} == {
        3: "prompt",
        4: "interpolated",
        5: "interpolated",
        6: "interpolated",
        7: "prompt",
    }
    assert not item.stop_reasons
    assert item.lowest is not None
    assert item.lowest[0] == axial(5)
    assert_masks_are_labels(session)
    session.undo()
    assert np.array_equal(session.labels.data, before)


def test_filling_keeps_what_was_carried_beyond_the_keys(session: Session, two_keys: int, liver: int) -> None:
    with session.begin("Carry") as change:
        for index in (1, 2, 4):
            change.put_mask(liver, axial(index), session.objects[liver].mask(axial(3)), "propagated", 0.5)
    fill_between(session, [liver])
    sources = {v.index: m.source for v, m in session.objects[liver].masks.items()}
    assert sources[1] == sources[2] == "propagated"
    assert sources[4] == "interpolated"


def test_one_key_slice_is_not_enough(session: Session, liver: int, propose: Callable) -> None:
    with pytest.raises(PromptError, match="liver: there is nothing between key slices"):
        fill_between(session, [liver])
    accepted(session, propose, 4, slice(4, 16), slice(4, 16))
    with pytest.raises(PromptError, match="two slices that lie apart"):
        interpolation_input(session, [liver])


def test_prompts_that_are_not_accepted_need_a_model(session: Session, two_keys: int) -> None:
    session.prompt(axial(5), BOX)
    with pytest.raises(PromptError, match="prompted on axial slice 5 and not accepted"):
        fill_between(session, [two_keys])
    objects, masks = interpolation_input(session, [two_keys], with_model=True)
    assert axial(5) in objects[two_keys][1]
    assert masks[two_keys].keys() == {axial(3), axial(7)}


def run(job: Generator[PropagatedSlice, None, None], session: Session, label: str) -> list[PropagatedSlice]:
    yielded = []
    with session.begin(label) as change:
        for done in job:
            change.put(done)
            yielded.append(done)
    return yielded


def test_as_a_job_it_streams_into_an_open_change(session: Session, two_keys: int) -> None:
    objects, masks = interpolation_input(session, [two_keys])
    done = run(jobs.interpolate(session.volume, objects, masks, last_index=4), session, "Fill")
    assert [d.view.index for d in done] == [3, 7, 4]
    streamed = session.objects[two_keys].mask(axial(4))
    session.undo()
    fill_between(session, [two_keys], last_index=4)
    assert np.array_equal(session.objects[two_keys].mask(axial(4)), streamed)


class SureModel:
    """Stands in for a model: answers every prompt with one rectangle."""

    accepts = frozenset({"box", "mask"})
    network = SimpleNamespace(input_size=32, mask_input_size=16)

    def get_or_embed(self, predictor, image, pixel_spacing, crop_xyxy=None):
        return SimpleNamespace(input_size=(32, 32), crop_xyxy=None)

    def predict(self, embedding, prompts, multimask=None, *, direct_upsampling=False):
        mask = np.zeros((24, 32), dtype=bool)
        mask[6:18, 5:18] = True
        return SimpleNamespace(
            best_mask=mask,
            best_index=0,
            iou_predictions=np.array([0.9]),
            stability_scores=np.array([0.9]),
            best_low_res_logits=np.zeros((16, 16), dtype=np.float32),
        )


def test_snapping_as_a_job_takes_nothing_from_other_organs(
    session: Session, two_keys: int, paint: Callable
) -> None:
    paint(slice(5, 6), slice(6, 10), slice(5, 7), SPLEEN)
    objects, masks = interpolation_input(session, [two_keys], with_model=True)
    model = SureModel()
    sight = jobs.ModelView(session.volume, session.window, model, model)
    done = run(jobs.snap(sight, objects, masks), session, "Snap")
    assert {d.view.index: d.source for d in done}[5] == "propagated"
    assert session.voxel_count(SPLEEN) == 8
    assert np.count_nonzero(session.objects[two_keys].mask(axial(5))) == 12 * 13 - 8
    assert_masks_are_labels(session)
