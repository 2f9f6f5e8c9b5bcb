"""What a word means, and which object comes first."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from napari_sam_med.errors import ModelError, PromptError
from napari_sam_med.sam.embedding_store import EmbeddingStore
from napari_sam_med.sam.predictor import load_predictor
from napari_sam_med.segmentation.automatic.found_objects import FoundMask, FoundObject
from napari_sam_med.segmentation.automatic.labelled_objects import objects_of
from napari_sam_med.segmentation.automatic.words import (
    RankedObject,
    clear_winner,
    organ_chances,
    organs_called,
    rank_by_organ,
)
from napari_sam_med.segmentation.organ_classifier import ClassifierFacts
from napari_sam_med.segmentation.organ_features import GEOMETRY
from napari_sam_med.volume.grid import Grid
from napari_sam_med.volume.labels import LabelVolume
from napari_sam_med.volume.organs import OrganTable
from napari_sam_med.volume.slice_view import SliceView
from napari_sam_med.volume.volume import Volume

KNOWN = (*(organ.name for organ in OrganTable.btcv().values()), "other")


@pytest.mark.parametrize(
    ("word", "organ"),
    [
        ("Liver", "liver"),
        ("  SPLEEN ", "spleen"),
        ("oesophagus", "esophagus"),
        ("Œsophagus", "esophagus"),
        ("gall bladder", "gallbladder"),
        ("gall-bladder", "gallbladder"),
        ("IVC", "inferior vena cava"),
        ("inferior_vena_cava", "inferior vena cava"),
        ("kidney_left", "left kidney"),
        ("right kidneys", "right kidney"),
        ("R kidney", "right kidney"),
        ("left adrenal gland", "left adrenal"),
        ("adrenal_gland_right", "right adrenal"),
        ("right suprarenal gland", "right adrenal"),
        ("portal vein", "portal and splenic veins"),
        ("portal_vein_and_splenic_vein", "portal and splenic veins"),
        ("the aorta", "aorta"),
        ("pancreas", "pancreas"),
    ],
)
def test_spellings_of_one_organ(word, organ):
    meaning = organs_called(word, KNOWN)
    assert meaning.organs == (organ,)
    assert meaning.exact


@pytest.mark.parametrize("name", KNOWN[:-1])
def test_each_name_means_itself(name):
    assert organs_called(name, KNOWN).organs == (name,)
    assert organs_called(name.upper(), KNOWN).organs == (name,)


def test_a_word_without_a_side_means_both():
    assert organs_called("kidneys", KNOWN).organs == ("right kidney", "left kidney")
    assert organs_called("adrenal", KNOWN).organs == ("right adrenal", "left adrenal")


@pytest.mark.parametrize(
    ("word", "organ"), [("splen", "spleen"), ("oesophagous", "esophagus"), ("left kidny", "left kidney")]
)
def test_a_slip_of_the_finger_is_taken_and_said(word, organ):
    meaning = organs_called(word, KNOWN)
    assert (meaning.organs, meaning.exact) == ((organ,), False)


@pytest.mark.parametrize("word", ["brain", "bladder", "colon", "other", "", "left", "?"])
def test_what_is_no_known_organ_is_refused_with_the_names(word):
    with pytest.raises(PromptError, match=r"spleen, right kidney.*give one of these") as refusal:
        organs_called(word, KNOWN)
    assert "other" not in str(refusal.value).split("it knows")[1]


def test_a_classifier_of_other_names_is_asked_by_them():
    assert organs_called("left kidney", ("kidney_left", "tumour", "other")).organs == ("kidney_left",)
    assert organs_called("Tumor", ("kidney_left", "tumor")).organs == ("tumor",)


SHAPE = (4, 40, 48)
STORE = EmbeddingStore(None)
PLACES = {1: (slice(1, 4), slice(6, 16), slice(5, 15)), 2: (slice(0, 4), slice(20, 34), slice(26, 40))}


@pytest.fixture
def scan():
    data = np.full(SHAPE, -80, dtype=np.int16)
    data[:, 0, 0] = -1000
    for number, place in PLACES.items():
        data[place] = 60 * number
    return Volume(data, Grid.from_zyx(SHAPE, (3.0, 2.0, 2.0)))


@pytest.fixture
def labels(scan):
    found = LabelVolume.like(scan)
    for number, place in PLACES.items():
        found.data[place] = number
    return found


@pytest.fixture(scope="module")
def nano():
    return load_predictor("nano", device="cpu")


class BySide:
    """Takes what lies on the patient's right for a liver with 0.9, all else for a spleen with 0.8."""

    def __init__(self, predictor):
        self.facts = ClassifierFacts(
            "late_fusion", ("liver", "spleen", "other"), "nano", predictor.model_hash
        )

    def log_probabilities(self, objects):
        is_right = objects.geometry[:, GEOMETRY.index("centre_x")] < 0.5
        rows = np.where(is_right[:, None], [[0.9, 0.05, 0.05]], [[0.1, 0.8, 0.1]])
        return np.log(rows)


def test_the_likeliest_object_comes_first_and_knows_what_it_is_taken_for(scan, labels, nano):
    objects = objects_of(labels)
    seen = []
    ranked = rank_by_organ(objects, "Spleen", scan, nano, BySide(nano), store=STORE, on_progress=seen.append)
    assert [one.object.voxels for one in ranked] == [4 * 14 * 14, 3 * 10 * 10]
    assert [one.object.organ.name for one in ranked] == ["spleen", "liver"]
    assert ranked[0].score > 0.8 > 0.1 > ranked[1].score
    assert [progress.done for progress in seen] == list(range(1, seen[-1].total + 1))
    assert (
        rank_by_organ(objects, "liver", scan, nano, BySide(nano), store=STORE)[0].object.voxels == 3 * 10 * 10
    )


def test_asked_once_all_words_are_answered(scan, labels, nano):
    chances = organ_chances(objects_of(labels), scan, nano, BySide(nano), store=STORE)
    np.testing.assert_allclose(chances.probabilities.sum(axis=1), 1)
    for word in ("liver", "spleen"):
        once = [(one.object.number, one.score) for one in chances.ranked(word)]
        again = rank_by_organ(objects_of(labels), word, scan, nano, BySide(nano), store=STORE)
        assert once == [(one.object.number, one.score) for one in again]


def test_the_plane_that_objects_were_found_in_makes_no_difference(scan, labels, nano):
    def cut(plane, number):
        axis = ("axial", "coronal", "sagittal").index(plane)
        masks = {}
        for index in range(SHAPE[axis]):
            view = SliceView(plane, index)
            here = view.extract(labels.data) == number
            if here.any():
                masks[view] = FoundMask.of(here, 1.0, 1.0)
        return FoundObject(number, masks, 1.0)

    scores = [
        [
            one.score
            for one in rank_by_organ([cut(plane, 1), cut(plane, 2)], "liver", scan, nano, BySide(nano))
        ]
        for plane in ("axial", "coronal", "sagittal")
    ]
    np.testing.assert_allclose(scores[1:], [scores[0]] * 2)


def test_refusals(scan, labels, nano):
    with pytest.raises(PromptError, match="it knows liver, spleen"):
        rank_by_organ(objects_of(labels), "heart", scan, nano, BySide(nano))
    foreign = BySide(SimpleNamespace(model_hash="other"))
    with pytest.raises(ModelError, match="--model nano"):
        rank_by_organ(objects_of(labels), "liver", scan, nano, foreign)
    assert rank_by_organ([], "liver", scan, nano, BySide(nano)) == []


def ranked(*scores, apart=True):
    """Objects of these probabilities, all apart or all in one place."""
    found = []
    for number, score in enumerate(scores, start=1):
        mask = np.zeros((30, 30), dtype=bool)
        place = 3 * number if apart else 3
        mask[place : place + 3, place : place + 3] = True
        one = FoundObject(number, {SliceView("axial", 0): FoundMask.of(mask, 1.0, 1.0)}, 1.0)
        found.append(RankedObject(one, score))
    return found


def test_a_winner_is_clear_only_when_likely_and_alone():
    assert clear_winner([], 0.6) is None
    alone = ranked(0.9, 0.3, 0.2)
    assert clear_winner(alone, 0.6) is alone[0]
    assert clear_winner(ranked(0.9, 0.8, 0.1), 0.6) is None
    assert clear_winner(ranked(0.5, 0.1), 0.6) is None
    twice = ranked(0.9, 0.8, 0.1, apart=False)
    assert clear_winner(twice, 0.6) is twice[0]
