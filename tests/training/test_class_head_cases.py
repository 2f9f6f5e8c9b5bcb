"""Classifiers from a user's own volumes: who is held out, what is trained, what is written."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from napari_sam_med.errors import LabelError, ModelError
from napari_sam_med.evaluation.cases import read_cases
from napari_sam_med.sam.predictor import Predictor
from napari_sam_med.segmentation.organ_classifier import load_classifier
from napari_sam_med.training.class_head_cases import train_on_cases, write_trained
from napari_sam_med.training.class_head_token import TokenRecipe
from tests.sam.micro_sam import build_micro_sam, predictor_over


@pytest.fixture
def micro() -> Predictor:
    return predictor_over(build_micro_sam())


def _write_cases(folder: Path, splits: list[str], depth: int = 6) -> Path:
    """Scans with a bright organ on the right and a dim one on the left."""
    rows = ["image,labels,split,names"]
    for number, split in enumerate(splits):
        rng = np.random.default_rng(number)
        pixels = np.full((48, 40, depth), -1000.0)
        pixels[4:44, 4:36] = rng.normal(20, 8, (40, 32, depth))
        labels = np.zeros(pixels.shape, dtype=np.uint8)
        labels[8 + number : 18, 10:20, 1:5] = 7
        labels[28:38, 14:24, 1:5] = 2
        pixels[labels == 7] += 120
        pixels[labels == 2] -= 110
        affine = np.diag([-4.0, -4.0, 5.0, 1.0])
        nib.save(nib.Nifti1Image(pixels.astype(np.int16), affine), folder / f"s{number}.nii.gz")
        nib.save(nib.Nifti1Image(labels, affine), folder / f"l{number}.nii.gz")
        names = '"{""7"": ""Liver"", ""2"": ""my cyst""}"'
        rows.append(f"s{number}.nii.gz,l{number}.nii.gz,{split},{names}")
    path = folder / "cases.csv"
    path.write_text("\n".join(rows) + "\n")
    return path


def test_a_class_token_is_trained_and_written(
    micro: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "napari_sam_med.training.class_head_cases.TokenRecipe",
        lambda: TokenRecipe(epochs=12, learning_rate=1e-3),
    )
    cases = read_cases(_write_cases(tmp_path, ["train", "train", "val", "test"]))
    trained = train_on_cases(cases, micro, "btcv-class")
    facts = trained.classifier.facts
    assert (facts.kind, set(facts.organs)) == ("class_token", {"liver", "my cyst"})
    assert facts.training["patients"] == 3, "those for testing are left alone"
    assert facts.training["held_out"]["masks"] == 8, "two organs on four slices of one patient"
    assert trained.warnings == ()
    paths = write_trained(tmp_path / "out", trained)
    assert [path.name for path in paths][-1] == "classifier.safetensors"
    assert load_classifier(tmp_path / "out").facts.organs == facts.organs


@pytest.mark.parametrize("recipe", ["trees", "btcv-class"])
def test_one_patient_is_measured_on_slices_between_with_a_warning(
    micro: Predictor, tmp_path: Path, recipe: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("napari_sam_med.training.class_head_cases.TokenRecipe", lambda: TokenRecipe(epochs=2))
    monkeypatch.setattr("napari_sam_med.training.class_head_samples._LEAST_DICE", 0.0)  # an untrained model
    cases = read_cases(_write_cases(tmp_path, ["train"]))
    trained = train_on_cases(cases, micro, recipe)
    assert "one patient" in trained.warnings[0]
    assert trained.classifier.facts.training["warnings"] == list(trained.warnings)
    assert len(trained.log_probabilities) == len(trained.classes) > 0


def test_every_patient_is_held_out_once(
    micro: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("napari_sam_med.training.class_head_samples._LEAST_DICE", 0.0)  # an untrained model
    cases = read_cases(_write_cases(tmp_path, ["", "", ""]))
    trained = train_on_cases(cases, micro, "trees")
    assert len(trained.classes) == trained.classifier.facts.training["masks"]
    assert trained.measured.object_accuracy == 1.0
    assert trained.classifier.facts.organs[0] in ("liver", "my cyst")


def test_what_is_odd_about_a_file_is_told(
    micro: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("napari_sam_med.training.class_head_samples._LEAST_DICE", 0.0)  # an untrained model
    cases = read_cases(_write_cases(tmp_path, ["", ""]))
    scan = nib.load(cases[1].image_path)
    nib.save(nib.Nifti1Image(np.full(scan.shape, 7, np.int16), scan.affine), cases[1].image_path)
    (warning,) = train_on_cases(cases, micro, "trees").warnings
    assert warning.startswith(f"{cases[1].name}: ")
    assert "nothing to see" in warning


def test_refusals(micro: Predictor, tmp_path: Path) -> None:
    cases = read_cases(_write_cases(tmp_path, ["test", "test"]))
    with pytest.raises(ModelError, match="late-fusion"):
        train_on_cases(cases, micro, "magic")
    with pytest.raises(LabelError, match="two or more"):
        train_on_cases(cases, micro, "trees")
    cases = read_cases(_write_cases(tmp_path, ["val", "val"]))
    with pytest.raises(LabelError, match="nothing to learn from"):
        train_on_cases(cases, micro, "btcv-class")
    cases = read_cases(_write_cases(tmp_path, ["train"], depth=2))
    with pytest.raises(LabelError, match="One labelled slice"):
        train_on_cases(cases, micro, "btcv-class")


def test_two_scans_of_one_patient_may_show_one_organ_each(
    micro: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("napari_sam_med.training.class_head_samples._LEAST_DICE", 0.0)  # an untrained model
    cases = read_cases(_write_cases(tmp_path, ["train", "train", "val", "val"]))
    cases = [replace(case, patient=who) for case, who in zip(cases, "aabb", strict=True)]
    for case in cases[2:]:
        labels = nib.load(case.labels_path)
        livers = np.where(np.asarray(labels.dataobj) == 7, 7, 0).astype(np.uint8)
        nib.save(nib.Nifti1Image(livers, labels.affine), case.labels_path)
    trained = train_on_cases(cases, micro, "trees")
    assert trained.classifier.facts.training["patients"] == 2
    assert len(trained.measured.true) == 2
    assert trained.measured.object_accuracy == 1.0  # a liver on each, though no scan has two


def test_an_organ_that_nothing_is_learned_of_is_told(
    micro: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("napari_sam_med.training.class_head_cases.TokenRecipe", lambda: TokenRecipe(epochs=1))
    cases = read_cases(_write_cases(tmp_path, ["train", "train", "val"]))
    cases[2] = replace(cases[2], names='{"7": "liver", "2": "their cyst"}')
    trained = train_on_cases(cases, micro, "btcv-class")
    assert any("shows their cyst" in warning for warning in trained.warnings)
