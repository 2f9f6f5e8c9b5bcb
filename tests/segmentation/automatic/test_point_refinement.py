"""A point beside a word: what holds it, and what is asked when nothing does."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_sam_med.errors import ModelError, PromptError
from napari_sam_med.sam.predictor import load_predictor
from napari_sam_med.segmentation.automatic.found_objects import FoundMask, FoundObject
from napari_sam_med.segmentation.automatic.point_refinement import (
    checked_point,
    holds_point,
    objects_at_point,
    ranked_at_point,
)
from napari_sam_med.segmentation.automatic.words import RankedObject
from napari_sam_med.volume.grid import Grid
from napari_sam_med.volume.slice_view import PLANES, SliceView
from napari_sam_med.volume.volume import Volume
from tests.segmentation.automatic.point_model import PointModel

SHAPE = (7, 48, 56)
BALL = (slice(1, 6), slice(14, 30), slice(20, 38))


def object_of(voxels, plane="axial", number=1, score=0.5):
    masks = {}
    for index in range(voxels.shape[PLANES.index(plane)]):
        view = SliceView(plane, index)
        here = view.extract(voxels)
        if here.any():
            masks[view] = FoundMask.of(here, 0.9, 0.9)
    return FoundObject(number, masks, score)


@pytest.fixture
def scan():
    rng = np.random.default_rng(0)
    data = rng.normal(-80, 4, SHAPE)
    data[BALL] += 180
    data[:, 0, 0] = -1000
    return Volume(data.astype(np.int16), Grid.from_zyx(SHAPE, (3.0, 2.0, 2.0)))


@pytest.fixture(scope="module")
def nano():
    return load_predictor("nano", device="cpu")


def by_size(objects):
    """The largest first, as if that were what the word meant."""
    ranking = sorted(objects, key=lambda one: -one.voxels)
    return [RankedObject(one, one.voxels / 2000) for one in ranking]


@given(st.tuples(st.integers(0, 4), st.integers(0, 5), st.integers(0, 6)), st.sampled_from(PLANES))
def test_an_object_holds_just_its_own_voxels(point, plane):
    voxels = np.random.default_rng(1).random((5, 6, 7)) < 0.4
    assert holds_point(object_of(voxels, plane), point, voxels.shape) == voxels[point]


def test_a_point_is_given_in_indices_of_the_file():
    affine = np.diag([-2.0, 3.0, 4.0, 1.0])  # i runs to the left as x does, j and k to the back and up
    grid = Grid(affine, (5, 6, 7))
    volume = Volume(np.zeros(grid.shape_zyx, dtype=np.int16), grid)
    for point in ((0, 0, 0), (4, 5, 6), (1, 2, 3)):
        z, y, x = checked_point(point, volume)
        assert tuple(round(v) for v in grid.ijk_from_index_zyx((z, y, x))) == point
    for outside in ((5, 0, 0), (0, 6, 0), (0, 0, 7), (-1, 0, 0), (4.6, 0, 0)):
        with pytest.raises(PromptError, match="below 5, 6, 7"):
            checked_point(outside, volume)


def test_objects_that_hold_the_point_are_ranked_alone(scan):
    whole, part = np.zeros(SHAPE, dtype=bool), np.zeros(SHAPE, dtype=bool)
    whole[BALL] = True
    part[1:6, 14:20, 20:30] = True
    elsewhere = np.zeros(SHAPE, dtype=bool)
    elsewhere[:, 30:, 38:] = True
    objects = [object_of(v, number=n) for n, v in enumerate((elsewhere, part, whole), start=1)]
    model = PointModel()  # asks nothing, as one of them is likely enough
    ranked = ranked_at_point(objects, (3, 16, 22), by_size, scan, model, sure=0.6)
    assert [one.object.number for one in ranked] == [3, 2]
    assert model.asked == []
    boxes_only = PointModel(accepts=("box",))
    ranked = ranked_at_point(objects, (3, 16, 22), by_size, scan, boxes_only, sure=0.99)
    assert [one.object.number for one in ranked] == [3, 2]
    with pytest.raises(ModelError, match="box prompts only"):
        ranked_at_point(objects, (3, 2, 2), by_size, scan, boxes_only, sure=0.6)


def test_where_no_object_holds_the_point_the_model_is_asked(scan, nano):
    beside = np.zeros(SHAPE, dtype=bool)
    beside[2:5, 14:30, 20:27] = True  # the left part of the ball, as a search may find it
    point = (3, 22, 33)
    seen = []
    ranked = ranked_at_point(
        [object_of(beside)], point, by_size, scan, nano, sure=0.6, on_progress=seen.append
    )
    assert ranked
    assert all(holds_point(one.object, point, SHAPE) for one in ranked)
    assert seen
    truth = np.zeros(SHAPE, dtype=bool)
    truth[BALL] = True
    ious = []
    for one in ranked:
        voxels = np.zeros(SHAPE, dtype=bool)
        one.object.written_into(voxels)
        ious.append((voxels & truth).sum() / (voxels | truth).sum())
    assert max(ious) > 0.7


def test_answers_are_unlike_each_other_and_carried_to_other_slices(scan, nano):
    found = objects_at_point(scan, (3, 22, 28), nano)
    assert 1 <= len(found) <= 3
    assert [one.number for one in found] == list(range(1, len(found) + 1))
    assert max(len(one.masks) for one in found) >= 4
    view = SliceView("axial", 3)
    for number, one in enumerate(found):
        assert all(one.masks[view].iou(other.masks[view]) < 0.9 for other in found[:number])


def test_where_the_model_finds_nothing_that_is_said(scan, monkeypatch, nano):
    monkeypatch.setattr(
        "napari_sam_med.segmentation.automatic.point_refinement.objects_at_point", lambda *_, **__: []
    )
    with pytest.raises(PromptError, match="no object at the point"):
        ranked_at_point([], (3, 2, 2), by_size, scan, nano, sure=0.6)
