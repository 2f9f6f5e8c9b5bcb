"""The head learns, its probabilities are calibrated on others, and left stays left."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from napari_sam_med.sam.predictor import Predictor, load_predictor
from napari_sam_med.sam.prompts import Prompts
from napari_sam_med.segmentation.organ_classifier import ClassifierFacts
from napari_sam_med.segmentation.organ_features import GEOMETRY
from napari_sam_med.training.class_head import HeadRecipe, calibrated, logits_of, measure, train_head
from napari_sam_med.training.class_head_bodies import IGNORED, KINDS, OBJECTS, Body, phantom_body, read_bodies
from napari_sam_med.training.class_head_calibration import (
    calibration_error,
    error_correlation,
    fitted_temperature,
    reliability_of,
    selective_threshold,
)
from napari_sam_med.training.class_head_samples import Samples, samples_of_slices
from napari_sam_med.training.class_head_scans import invent_scan
from napari_sam_med.training.class_head_token import TokenRecipe, TokenSlice, token_logits, train_class_token
from tests.sam.micro_sam import build_micro_sam, predictor_over
from tests.shared_data import OPEN, needs_open


@pytest.fixture(scope="module")
def body() -> Body:
    return phantom_body()


@pytest.fixture(scope="module")
def nano() -> Predictor:
    return load_predictor("nano", device="cpu")


def _samples(n: int, seed: int, n_classes: int = 3) -> Samples:
    """Masks whose class shows in two features of the geometry, with overlap; nothing else says anything."""
    rng = np.random.default_rng(seed)
    classes = rng.integers(n_classes, size=n)
    geometry = rng.normal(size=(n, len(GEOMETRY))).astype(np.float32)
    geometry[:, 0] = classes + rng.normal(0, 0.3, n)
    geometry[:, 7] = -classes + rng.normal(0, 0.3, n)
    pooled, tokens = (rng.normal(size=(n, width)).astype(np.float32) for width in (9, 5))
    ones = np.ones(n, dtype=np.float32)
    return Samples(
        {"geometry": geometry, "pooled": pooled, "tokens": tokens},
        classes,
        np.arange(n) // 10,
        np.arange(n) // 2,
        ones,
        ones,
    )


def test_the_head_learns_and_is_the_same_again() -> None:
    recipe = HeadRecipe(steps=150, batch=64)
    samples, others = _samples(400, 0), _samples(300, 1)
    one, again = (train_head(samples, 3, recipe, seed=4) for _ in range(2))
    logits = logits_of(one, others)
    assert (logits.argmax(axis=1) == others.classes).mean() > 0.85
    np.testing.assert_array_equal(logits, logits_of(again, others))
    assert np.abs(logits - logits_of(train_head(samples, 3, recipe, seed=5), others)).max() > 1e-3


def test_rare_classes_are_not_forgotten() -> None:
    samples = _samples(600, 0)
    rare = np.flatnonzero(samples.classes == 2)[:25]
    few = samples.where(np.concatenate([np.flatnonzero(samples.classes != 2), rare]))
    others = _samples(300, 1)
    logits = logits_of(train_head(few, 3, HeadRecipe(steps=150, batch=64), seed=0), others)
    assert (logits.argmax(axis=1) == 2)[others.classes == 2].mean() > 0.5


def test_temperature_makes_confidence_what_is_right_on_average() -> None:
    rng = np.random.default_rng(0)
    true_logits = rng.normal(0, 1.5, (4000, 4))
    shares = np.exp(true_logits) / np.exp(true_logits).sum(axis=1, keepdims=True)
    classes = np.array([rng.choice(4, p=row) for row in shares])
    assert fitted_temperature(3.0 * true_logits, classes) == pytest.approx(3.0, rel=0.1)
    boastful, honest = (
        np.log(np.exp(k * true_logits) / np.exp(k * true_logits).sum(axis=1, keepdims=True))
        for k in (3.0, 1.0)
    )
    assert calibration_error(honest, classes) < 0.03 < 0.1 < calibration_error(boastful, classes)
    found = reliability_of(honest, classes)
    assert found.counts.sum() == 4000
    filled = found.counts > 100
    np.testing.assert_allclose(found.accuracy[filled], found.confidence[filled], atol=0.08)


def test_the_threshold_gives_the_accuracy_asked_for() -> None:
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.3, 1.0, 3000)
    right = rng.random(3000) < confidence
    threshold = selective_threshold(confidence, right, 0.9)
    assert right[confidence >= threshold].mean() == pytest.approx(0.9, abs=0.01)
    assert selective_threshold([0.9, 0.8], [True, True]) == 0.6


def test_correlation_of_errors() -> None:
    rng = np.random.default_rng(0)
    objects = np.repeat(np.arange(300), 10)
    assert error_correlation(np.repeat(rng.random(300) < 0.8, 10), objects) == pytest.approx(1.0)
    assert error_correlation(rng.random(3000) < 0.8, objects) < 0.03
    half = np.repeat(rng.beta(2, 2, 300), 10)
    assert error_correlation(rng.random(3000) < half, objects) == pytest.approx(0.2, abs=0.05)
    assert error_correlation([True, False], [1, 2]) == 0.0


def test_what_is_measured_of_objects() -> None:
    samples = _samples(40, 0)
    pairs = samples.where(np.repeat(np.arange(0, 40, 2), 2))
    table = np.full((40, 3), np.log(0.1))
    table[np.arange(40), pairs.classes] = np.log(0.8)
    table[:2] = table[:2, [1, 2, 0]]  # the first object is taken for another organ
    found = measure(table, pairs, ("a", "b", "c"), rho=0.3, each_once=False)
    assert (len(found.true), found.slice_accuracy, found.object_accuracy) == (20, 38 / 40, 19 / 20)
    assert found.rho == pytest.approx(1.0)
    facts = ClassifierFacts("late_fusion", ("a", "b", "c"), "nano", "0")
    known, _, honest = calibrated(facts, 5 * table, pairs)
    assert known.temperature > 1
    assert known.rho == pytest.approx(1.0)
    np.testing.assert_allclose(np.exp(honest).sum(axis=1), 1)


def test_samples_are_kept_on_disk(tmp_path: Path) -> None:
    samples = _samples(12, 0)
    samples.save(tmp_path / "a.npz")
    back = Samples.load(tmp_path / "a.npz")
    np.testing.assert_array_equal(back.classes, samples.classes)
    np.testing.assert_array_equal(back.features["tokens"], samples.features["tokens"])


def test_the_phantom_is_a_whole_body(body: Body) -> None:
    assert set(range(1, 14)) <= set(np.unique(body.objects).tolist())
    assert {OBJECTS["vertebra"], OBJECTS["lung"], OBJECTS["bowel"]} <= set(np.unique(body.objects).tolist())
    assert IGNORED not in body.objects
    assert body.tissue.max() < len(KINDS)
    assert not body.tissue[:, 0].any(), "air in front of it"


@needs_open
def test_what_a_label_map_lacks_is_not_taught_from_it() -> None:
    maps = OPEN / "labelmaps_only"
    phantom, amos, spl = read_bodies(
        {"amos": maps / "amos_0013_15organs.nii.gz", "spl": maps / "spl_abdominal_atlas_seg.nrrd"}
    )
    found = {body.name: set(np.unique(body.objects).tolist()) for body in (phantom, amos, spl)}
    assert set(range(1, 14)) - found["amos"] == {10}, "AMOS has no portal vein"
    assert set(range(1, 14)) - found["spl"] == {5, 7}, "no oesophagus, and a stomach with the duodenum"
    assert IGNORED in found["spl"]
    for body in (phantom, amos, spl):
        liver, spleen = (body.middle_of(number) for number in (6, 1))
        assert liver is not None
        assert spleen is not None
        assert liver[2] < spleen[2], "the liver is on the right, where x is small"
        assert 600 < (body.objects == 6).sum() * 0.027 < 2600, "ml"


@pytest.mark.parametrize("seed", range(6))
def test_left_and_right_are_never_exchanged(body: Body, seed: int) -> None:
    scan = invent_scan(body, np.random.default_rng(seed), n_slices=12, rearranged=seed % 2)
    columns = np.arange(scan.objects.shape[2])
    places = {
        number: float(
            (columns * (scan.objects == number).sum(axis=(0, 1))).sum() / (scan.objects == number).sum()
        )
        for number in (1, 2, 3, 6, 8)
        if (scan.objects == number).any()
    }
    for right, left in ((2, 3), (6, 1), (2, 8), (6, 8), (8, 3), (8, 1)):
        if right in places and left in places:
            assert places[right] < places[left]


def test_scans_differ_but_for_the_seed(body: Body) -> None:
    one, again, other = (invent_scan(body, np.random.default_rng(seed)) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one.volume.data, again.volume.data)
    assert one.volume.data.shape != other.volume.data.shape or (one.volume.data != other.volume.data).any()
    assert len(one.slices) == 6
    filled = [z for z in range(len(one.objects)) if np.ptp(one.volume.data[z])]
    assert filled == list(one.slices)


def test_rearranging_moves_organs_one_by_one(body: Body) -> None:
    def places(rearranged: float) -> dict[int, np.ndarray]:
        scans = [
            invent_scan(body, np.random.default_rng(seed), 12, rearranged=rearranged) for seed in range(6)
        ]
        return {
            number: np.array([np.argwhere(scan.objects == number)[:, 1:].mean(0) for scan in scans])
            for number in (6, 8)
            if all((scan.objects == number).any() for scan in scans)
        }

    plain, moved = places(0.0), places(1.0)
    gap = [np.diff([found[6], found[8]], axis=0) for found in (plain, moved)]
    assert np.abs(gap[0] - gap[1]).mean() > 1


def test_samples_are_masks_of_the_model_not_the_true_ones(body: Body, nano: Predictor) -> None:
    scan = invent_scan(body, np.random.default_rng(3), n_slices=2)
    class_of = {6: 0, 1: 1, 2: 2, 3: 2}
    found = samples_of_slices(
        scan.volume, scan.objects, scan.slices, class_of, nano, np.random.default_rng(0), patient=7, repeats=2
    )
    assert found is not None
    assert set(found.classes.tolist()) <= {0, 1, 2}
    assert set(found.patients.tolist()) == {7}
    pixel = float(np.prod(scan.volume.spacing[1:]))
    true_areas = {
        float((scan.objects[z] == number).sum() * pixel) for z in scan.slices for number in class_of
    }
    same = [any(abs(area - true) < 1e-3 for true in true_areas) for area in found.areas.tolist()]
    assert sum(same) < len(same) / 2


def test_a_class_token_learns() -> None:
    predictor = predictor_over(build_micro_sam())
    rng = np.random.default_rng(0)
    image = rng.integers(0, 255, (64, 64, 3), dtype=np.uint8)
    embedding = predictor.embed(image)
    prompts = [Prompts.from_box((4, 4, 20, 20)), Prompts.from_box((40, 40, 60, 60))]
    slices = [TokenSlice(embedding, prompts, np.array([0, 1]))]
    torch.manual_seed(0)
    before = predictor.predict(embedding, prompts[0]).low_res_logits
    head = train_class_token(slices, 2, predictor, TokenRecipe(epochs=25, learning_rate=1e-3), seed=0)
    assert token_logits(head, predictor, slices).argmax(axis=1).tolist() == [0, 1]
    np.testing.assert_array_equal(predictor.predict(embedding, prompts[0]).low_res_logits, before)
