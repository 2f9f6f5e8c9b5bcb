"""Objects named by the organ classifier: the same as labels are, though they may overlap or lie otherwise."""

from __future__ import annotations

import numpy as np
import pytest

from napari_sam_med.errors import ModelError
from napari_sam_med.sam.predictor import load_predictor
from napari_sam_med.sample_data import sample_labels, sample_volume
from napari_sam_med.segmentation.automatic.found_objects import FoundMask, FoundObject
from napari_sam_med.segmentation.automatic.naming import axial_masks, name_objects
from napari_sam_med.segmentation.organ_classifier import load_classifier
from napari_sam_med.segmentation.organ_objects import classify_labels
from napari_sam_med.volume.labels import LabelVolume
from napari_sam_med.volume.reading import read_labels, read_volume
from napari_sam_med.volume.slice_view import PLANES, SliceView


@pytest.fixture(scope="module")
def sample():
    """The scan, its labels with two organs on few slices, the model and the classifier."""
    volume = read_volume(sample_volume())
    truth = read_labels(sample_labels(), reference=volume)
    few = np.zeros(truth.shape, dtype=np.uint8)
    few[22:24] = np.where(np.isin(truth.data[22:24], (2, 6)), truth.data[22:24], 0)
    return volume, LabelVolume(few, truth.grid, truth.organs), load_predictor("nano"), load_classifier()


def objects_of(labels, plane="axial"):
    found = []
    for number in labels.class_ids():
        masks = {}
        for index in range(labels.shape[PLANES.index(plane)]):
            here = SliceView(plane, index).extract(labels.data) == number
            if here.any():
                masks[SliceView(plane, index)] = FoundMask.of(here, 0.9, 0.9)
        found.append(FoundObject(number, masks, 0.5))
    return found


@pytest.mark.parametrize("plane", ["axial", "sagittal"])
def test_objects_are_named_as_labels_of_the_same_voxels_are(sample, plane):
    volume, labels, predictor, classifier = sample
    named = name_objects(objects_of(labels, plane), volume, predictor, classifier, each_once=True)
    assert {one.number: one.organ for one in named} == classify_labels(volume, labels, predictor, classifier)


def test_objects_that_overlap_are_named_each_for_itself(sample):
    volume, labels, predictor, classifier = sample
    (kidney, liver) = objects_of(labels)
    twin = FoundObject(9, liver.masks, 0.4)
    alone = name_objects([kidney, liver], volume, predictor, classifier)
    three = name_objects([kidney, liver, twin], volume, predictor, classifier)
    assert [one.organ.name for one in three[:2]] == [one.organ.name for one in alone]
    assert three[2].organ.name == three[1].organ.name == "liver"
    assert three[2].organ.probability == pytest.approx(three[1].organ.probability)
    once = name_objects([kidney, liver, twin], volume, predictor, classifier, each_once=True)
    assert [one.organ.name for one in once].count("liver") == 1
    assert len(once) == 3


def test_nothing_is_named_where_nothing_is_found(sample):
    volume, _, predictor, classifier = sample
    assert name_objects([], volume, predictor, classifier) == []


def test_progress_is_told_slice_by_slice(sample):
    volume, labels, predictor, classifier = sample
    told = []
    name_objects(objects_of(labels)[:1], volume, predictor, classifier, on_progress=told.append)
    assert [(step.done, step.total) for step in told] == [(1, 2), (2, 2)]


def test_another_model_is_refused(sample):
    volume, labels, _, classifier = sample
    other = load_predictor("nano")
    other.model_hash = "0"
    with pytest.raises(ModelError, match="features of nano"):
        name_objects(objects_of(labels), volume, other, classifier)


@pytest.mark.parametrize("plane", PLANES)
def test_axial_masks_hold_the_voxels_of_the_object(sample, plane):
    _, labels, _, _ = sample
    one = objects_of(labels, plane)[0]
    drawn = np.zeros(labels.shape, dtype=bool)
    for view, found in axial_masks(one, labels.shape).items():
        assert view.plane == "axial"
        drawn[view.index] = found.mask
    assert np.array_equal(drawn, labels.data == one.number)
