"""Slices to learn from: what is taken, what is held out, and views that image and labels share."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from napari_sam_med.errors import LabelError
from napari_sam_med.evaluation.measuring import SliceChoice
from napari_sam_med.training.training_slices import (
    PackedLabels,
    TrainingSlice,
    augmented_view,
    hold_out,
    read_training_slices,
)
from tests.training.ring_cases import DISC, RING, write_case


@pytest.fixture
def slices(tmp_path: Path) -> list[TrainingSlice]:
    cases = [write_case(tmp_path, seed, depth=7) for seed in (1, 2)]
    return [one for _, found, _ in read_training_slices(cases, SliceChoice(min_area=20)) for one in found]


def test_background_slices_are_left_out_and_counted(tmp_path: Path) -> None:
    cases = [write_case(tmp_path, seed) for seed in (1, 2)]
    steps = list(read_training_slices(cases, SliceChoice(min_area=20)))
    assert [(p.done, p.total) for p, _, _ in steps] == [(1, 2), (2, 2)]
    for case, (_, found, counts) in zip(cases, steps, strict=True):
        assert (counts.case, counts.used, counts.background) == (case, 5, 1)
        assert [one.view.index for one in found] == [1, 2, 3, 4, 5]
        for one in found:
            assert one.label_ids == (RING, DISC)
            assert one.names == {RING: "ring", DISC: "disc"}
            assert one.image.shape == (*one.labels.shape, 3)
            assert one.pixel_spacing == pytest.approx((1.2, 1.2))
            assert np.array_equal(one.masks[1], one.labels == DISC)
    with pytest.raises(LabelError, match="scan1 has no slice"):
        list(read_training_slices(cases, SliceChoice(min_area=5000)))


def test_labels_are_kept_in_few_bytes_and_come_back_exactly(slices: list[TrainingSlice]) -> None:
    one = slices[-1]
    assert len(one.packed.content) < one.labels.nbytes / 5
    many = np.random.default_rng(1).integers(0, 3000, (31, 17)).astype(np.uint16).T
    back = PackedLabels.of(many).unpacked()
    assert back.dtype == many.dtype
    assert np.array_equal(back, many)


def test_slices_held_out_lie_side_by_side_in_every_case(slices: list[TrainingSlice]) -> None:
    learned, held = hold_out(slices, 0.34)
    assert len(learned) + len(held) == len(slices) == 12
    for name in ("scan1", "scan2"):
        out = [one.view.index for one in held if one.case.name == name]
        assert out == [3, 4]
        assert not set(out) & {one.view.index for one in learned if one.case.name == name}
    assert hold_out(slices, 0) == (slices, [])
    assert hold_out(slices[:2], 0.5) == (slices[:2], [])


def test_views_move_image_and_labels_together(slices: list[TrainingSlice]) -> None:
    source = slices[-1]
    views = [augmented_view(source, 7, number) for number in range(1, 9)]
    for view in views:
        assert view.image.shape == source.image.shape
        assert view.labels.dtype == source.labels.dtype
        grey = view.image[..., 0].astype(int)
        disc, ring = view.labels == DISC, view.labels == RING
        core = ring & (grey > grey[ring].mean())
        assert grey[core].mean() > grey[disc].mean() > grey[ring & ~core].mean()
    again = augmented_view(source, 7, 3)
    assert np.array_equal(again.image, views[2].image)
    assert np.array_equal(again.labels, views[2].labels)
    assert len({view.image.tobytes() for view in views}) == 8


def test_left_and_right_stay_where_classes_are_learned(slices: list[TrainingSlice]) -> None:
    source = slices[-1]
    for number in range(1, 25):
        view = augmented_view(source, 3, number, mirror=False)
        ring, disc = (np.argwhere(view.labels == label).mean(0) for label in (RING, DISC))
        assert ring[1] < disc[1]
    mirrored = [augmented_view(source, 3, number) for number in range(1, 25)]
    sides = {
        bool(np.argwhere(v.labels == RING).mean(0)[1] < np.argwhere(v.labels == DISC).mean(0)[1])
        for v in mirrored
    }
    assert sides == {True, False}


def test_an_organ_that_leaves_the_picture_is_not_asked_for(slices: list[TrainingSlice]) -> None:
    edge = slices[0]
    labels = np.zeros_like(edge.labels)
    labels[0:3, 0:8] = DISC
    labels[20:40, 20:40] = RING
    packed = PackedLabels.of(labels)
    corner = TrainingSlice(edge.case, edge.view, edge.image, packed, (RING, DISC), (1.0, 1.0), edge.names)
    kept = [augmented_view(corner, 1, number).label_ids for number in range(1, 21)]
    assert (RING,) in kept
    for number, ids in enumerate(kept, start=1):
        view = augmented_view(corner, 1, number)
        assert all((view.labels == label).sum() >= 20 for label in ids)
