"""Recall of organs among objects, and the regions that need no model."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from napari_sam_med.evaluation.object_recall import (
    intensity_regions,
    recall,
    recall_of_objects,
    recall_of_regions,
    supervoxels,
)
from napari_sam_med.segmentation.automatic.found_objects import FoundMask, FoundObject
from napari_sam_med.volume.grid import Grid
from napari_sam_med.volume.labels import LabelVolume
from napari_sam_med.volume.slice_view import SliceView
from napari_sam_med.volume.volume import Volume

SHAPE = (3, 12, 14)


def truth():
    labels = np.zeros(SHAPE, dtype=np.uint8)
    labels[:, 1:5, 1:5] = 6
    labels[0, 7:9, 7:9] = 1
    return LabelVolume(labels, Grid.from_zyx(SHAPE))


def object_of(mask_zyx, number=1, plane="axial"):
    masks = {}
    for index in range(SHAPE[("axial", "coronal", "sagittal").index(plane)]):
        view = SliceView(plane, index)
        if view.extract(mask_zyx).any():
            masks[view] = FoundMask.of(view.extract(mask_zyx), 1.0, 1.0)
    return FoundObject(number, masks, 0.5)


def test_the_best_object_of_each_organ_counts():
    labels = truth()
    half = np.zeros(SHAPE, dtype=bool)
    half[:, 1:5, 1:3] = True
    liver = object_of(labels.data == 6, number=7)
    rows = recall_of_objects([object_of(half), liver], labels)
    assert [(row.class_id, row.organ, row.voxels) for row in rows] == [(1, "spleen", 4), (6, "liver", 48)]
    assert [(row.best_iou, row.number) for row in rows] == [(0.0, None), (1.0, 7)]
    assert recall(rows) == 0.5
    assert recall(recall_of_objects([object_of(half)], labels), iou=0.51) == 0.0
    assert recall(recall_of_objects([object_of(half)], labels), iou=0.5) == 0.5


def test_without_objects_nothing_is_found_and_without_organs_nothing_is_said():
    assert recall(recall_of_objects([], truth())) == 0.0
    empty = LabelVolume(np.zeros(SHAPE, np.uint8), Grid.from_zyx(SHAPE))
    assert recall_of_objects([object_of(np.ones(SHAPE, bool))], empty) == []
    assert math.isnan(recall([]))


@given(
    arrays(bool, SHAPE).filter(np.any),
    st.sampled_from(("axial", "coronal", "sagittal")),
)
def test_an_object_and_a_region_of_the_same_voxels_are_worth_the_same(mask, plane):
    labels = truth()
    of_object = recall_of_objects([object_of(mask, 1, plane)], labels)
    of_region = recall_of_regions(mask.astype(np.int32), labels)
    assert of_object == of_region
    for row in of_object:
        organ = labels.data == row.class_id
        assert row.best_iou == pytest.approx((organ & mask).sum() / (organ | mask).sum())


def scan():
    """Two organs of different brightness in a body."""
    data = np.full((12, 40, 40), -1000, dtype=np.int16)
    data[:, 4:36, 4:36] = -60
    data[2:10, 8:18, 8:18] = 60
    data[2:10, 22:32, 20:32] = 160
    labels = np.where(data == 60, 6, 0) + np.where(data == 160, 1, 0)
    grid = Grid.from_zyx(data.shape, (3.0, 2.0, 2.0))
    return Volume(data, grid), LabelVolume(labels.astype(np.uint8), grid)


def test_intensity_regions_find_what_differs_in_brightness():
    volume, labels = scan()
    regions = intensity_regions(volume, (-160.0, 240.0), 10)
    assert regions.shape == volume.shape
    assert 1 <= regions.max() <= 10
    assert not regions[:, :3].any()
    assert recall(recall_of_regions(regions, labels), iou=0.4) == 1.0  # smoothing moves borders
    fewer = intensity_regions(volume, (-160.0, 240.0), 1)
    assert fewer.max() == 1
    # the largest piece stays
    assert np.array_equal(fewer > 0, regions == np.argmax(np.bincount(regions[regions > 0])))


def test_supervoxels_fill_the_body_with_about_so_many():
    volume, labels = scan()
    regions = supervoxels(volume, (-160.0, 240.0), 30)
    assert 15 <= len(np.unique(regions[regions > 0])) <= 45
    assert (regions[:, 6:34, 6:34] > 0).all()
    assert not regions[:, :3].any()
    assert all(row.best_iou > 0.1 for row in recall_of_regions(regions, labels))
