"""Classifiers go to disk and back, refuse what does not fit, and say when they are unsure."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from napari_sam_med.errors import ModelError
from napari_sam_med.sam.predictor import Predictor, load_predictor
from napari_sam_med.sample_data import sample_labels, sample_volume
from napari_sam_med.segmentation.organ_classifier import (
    BUNDLED_CLASSIFIER,
    ClassifierFacts,
    LateFusionClassifier,
    OrganClassifier,
    load_classifier,
    log_softmax,
    with_facts,
    write_classifier,
)
from napari_sam_med.segmentation.organ_features import GEOMETRY, ScanFrame, SliceObjects
from napari_sam_med.segmentation.organ_network import LateFusion
from napari_sam_med.segmentation.organ_objects import classify_labels, decide, slice_votes
from napari_sam_med.segmentation.organ_token import ClassTokenClassifier, ClassTokenHead, sam_network
from napari_sam_med.segmentation.organ_trees import TreesClassifier
from napari_sam_med.volume.labels import LabelVolume
from napari_sam_med.volume.reading import read_labels, read_volume
from napari_sam_med.volume.slice_view import SliceView
from napari_sam_med.volume.volume import Volume
from tests.sam.micro_sam import build_micro_sam, predictor_over

ORGANS = ("liver", "spleen", "other")


@pytest.fixture(scope="module")
def nano() -> Predictor:
    return load_predictor("nano", device="cpu")


@pytest.fixture(scope="module")
def phantom() -> tuple[Volume, LabelVolume]:
    volume = read_volume(sample_volume())
    return volume, read_labels(sample_labels(), reference=volume)


def _facts(predictor: Predictor, kind: str) -> ClassifierFacts:
    return ClassifierFacts(kind, ORGANS, predictor.record.name, predictor.model_hash, 1.3, 0.7, 0.4)


def _objects(predictor: Predictor, phantom: tuple[Volume, LabelVolume]) -> SliceObjects:
    volume, labels = phantom
    masks = np.stack([labels.data[30] == number for number in (6, 1)])
    return SliceObjects(volume, ScanFrame.of(volume), SliceView("axial", 30), masks, predictor)


def _classifiers(nano: Predictor) -> list[OrganClassifier]:
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    fusion = LateFusion({"geometry": len(GEOMETRY), "pooled": 144, "tokens": 289}, len(ORGANS))
    features = rng.normal(size=(60, len(GEOMETRY))).astype(np.float16).astype(np.float32)
    classes = np.arange(60) % 2
    return [
        LateFusionClassifier(_facts(nano, "late_fusion"), fusion.eval()),
        TreesClassifier(_facts(nano, "trees"), features, classes),
    ]


@pytest.mark.parametrize("kind", [0, 1])
def test_round_trip(kind: int, nano: Predictor, phantom: tuple[Volume, LabelVolume], tmp_path: Path) -> None:
    classifier = _classifiers(nano)[kind]
    path = write_classifier(tmp_path / "classifier.safetensors", classifier)
    assert [file.name for file in tmp_path.iterdir()] == ["classifier.safetensors"]
    (tmp_path / "other").touch()
    assert path.stat().st_mode == (tmp_path / "other").stat().st_mode, (
        "whoever may read the folder's files may"
    )
    objects = _objects(nano, phantom)
    said = classifier.log_probabilities(objects)
    assert said.shape == (2, 3)
    np.testing.assert_allclose(np.exp(said).sum(axis=1), 1)
    for place in (path, tmp_path):
        back = load_classifier(place)
        assert back.facts == classifier.facts
        np.testing.assert_allclose(back.log_probabilities(objects), said, atol=0.02)


def test_a_class_token_goes_round_and_leaves_the_masks_alone(
    phantom: tuple[Volume, LabelVolume], tmp_path: Path
) -> None:
    predictor = predictor_over(build_micro_sam())
    objects = _objects(predictor, phantom)
    before = objects.answers[0].low_res_logits
    head = ClassTokenHead.beside(sam_network(predictor), len(ORGANS)).eval()
    classifier = ClassTokenClassifier(_facts(predictor, "class_token"), head)
    said = classifier.log_probabilities(objects)
    write_classifier(tmp_path / "classifier.safetensors", classifier)
    back = load_classifier(tmp_path)
    np.testing.assert_allclose(back.log_probabilities(objects), said, atol=0.02)
    with torch.no_grad():
        head.token += 1
    assert np.abs(classifier.log_probabilities(objects) - said).max() > 1e-4
    again = _objects(predictor, phantom).answers[0].low_res_logits
    np.testing.assert_array_equal(again, before)


def test_a_class_token_needs_sams_decoder(nano: Predictor) -> None:
    with pytest.raises(ModelError, match="late-fusion"):
        sam_network(nano)


def test_files_that_are_no_classifier_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="There is no classifier"):
        load_classifier(tmp_path / "none")
    (tmp_path / "text.safetensors").write_text("no classifier")
    save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors")
    for name in ("text", "other"):
        with pytest.raises(ModelError, match="no organ classifier"):
            load_classifier(tmp_path / f"{name}.safetensors")


def test_weights_that_do_not_fit_are_refused(nano: Predictor, tmp_path: Path) -> None:
    classifier = with_facts(_classifiers(nano)[0], organs=("liver", "spleen"))
    write_classifier(tmp_path / "classifier.safetensors", classifier)
    with pytest.raises(ModelError, match="does not hold"):
        load_classifier(tmp_path)
    strange = with_facts(_classifiers(nano)[0], geometry=("centre_x",))
    write_classifier(tmp_path / "classifier.safetensors", strange)
    with pytest.raises(ModelError, match="another version"):
        load_classifier(tmp_path)


def test_another_model_is_refused(nano: Predictor, phantom: tuple[Volume, LabelVolume]) -> None:
    other = with_facts(_classifiers(nano)[0], model="mobile_sam", model_sha256="0" * 64)
    with pytest.raises(ModelError, match="--model mobile_sam"):
        classify_labels(*phantom, nano, other)


def test_temperature_softens() -> None:
    sharp, soft = (np.exp(log_softmax([[2.0, 0.0, 0.0]], t)) for t in (1.0, 4.0))
    assert sharp.max() > soft.max() > 1 / 3
    np.testing.assert_allclose([sharp.sum(), soft.sum()], 1)


@pytest.fixture(scope="module")
def bundled() -> OrganClassifier:
    return load_classifier()


@pytest.mark.slow
def test_the_bundled_one_names_the_organs_of_the_sample(
    bundled: OrganClassifier, nano: Predictor, phantom: tuple[Volume, LabelVolume]
) -> None:
    volume, labels = phantom
    found = classify_labels(volume, labels, nano, bundled)
    assert list(found) == list(range(1, 14))
    right = [number for number, guess in found.items() if guess.name == labels.organs.name_of(number)]
    assert len(right) >= 12
    assert all(0 < guess.probability <= 1 for guess in found.values())


@pytest.mark.slow
def test_numbers_and_names_of_labels_play_no_part(
    bundled: OrganClassifier, nano: Predictor, phantom: tuple[Volume, LabelVolume]
) -> None:
    volume, labels = phantom
    numbers = np.array([0, 40, 3, 9, 200, 7, 1, 13, 2, 5, 77, 6, 31, 8], dtype=np.uint8)
    few = labels.data * (np.arange(len(labels.data)) % 4 == 0)[:, None, None].astype(np.uint8)
    plain = classify_labels(volume, LabelVolume(few, labels.grid), nano, bundled)
    other = classify_labels(volume, LabelVolume(numbers[few], labels.grid), nano, bundled)
    for number, guess in plain.items():
        assert other[int(numbers[number])].name == guess.name
        assert other[int(numbers[number])].probability == pytest.approx(guess.probability, abs=1e-4)


@pytest.mark.slow
def test_it_abstains_below_its_threshold(
    bundled: OrganClassifier, nano: Predictor, phantom: tuple[Volume, LabelVolume]
) -> None:
    volume, labels = phantom
    two = LabelVolume(np.where(np.isin(labels.data, (5, 6)), labels.data, 0).astype(np.uint8), labels.grid)
    votes = slice_votes(volume, two, nano, bundled)
    for threshold in (0.0, 1.1):
        guesses = decide(votes, with_facts(bundled, threshold=threshold)).values()
        assert {guess.abstained for guess in guesses} == {threshold > 1}
        assert {guess.name for guess in guesses} == {"esophagus", "liver"}, "the best guess is named anyway"


def test_the_bundled_one_is_small_and_says_how_it_was_made(bundled: OrganClassifier, nano: Predictor) -> None:
    assert BUNDLED_CLASSIFIER.stat().st_size < 1_000_000
    facts = bundled.facts
    assert len(facts.organs) == 14
    assert facts.model_sha256 == nano.model_hash
    assert {"data", "recipe", "seed", "held_out"} <= facts.training.keys()
