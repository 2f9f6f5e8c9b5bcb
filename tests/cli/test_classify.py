"""``classify`` and ``train-classifier``: what is written, what is said, what is refused."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from napari_sam_med.sample_data import sample_labels, sample_volume
from napari_sam_med.segmentation.organ_classifier import load_classifier
from napari_sam_med.training.class_head_cases import CLASS_RECIPES
from napari_sam_med.volume.organs import OrganTable
from tests.cli.cli_scan import Run, Scan

Runner = Callable[..., Run]

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "organ_classifier" / "README.md").read_text("utf-8")
BTCV = [organ.name for organ in OrganTable.btcv().values()]


def test_the_result_is_as_the_contract_says(run: Runner, scan: Scan, tmp_path: Path) -> None:
    out = tmp_path / "organs.json"
    answer = run("classify", scan.volume, scan.labels, "-o", out, "--json")
    assert answer.status == 0, answer.err
    document = json.loads(answer.out)
    assert json.loads(out.read_text()) == document
    (entry,) = document["objects"]
    assert set(entry) == {"label", "organ", "abstained"}
    assert entry["label"] == 6
    assert entry["organ"]["name"] in [*BTCV, "other"]
    assert 0 <= entry["organ"]["probability"] <= 1
    assert entry["abstained"] in (True, False)


def test_a_table_is_printed(run: Runner, scan: Scan) -> None:
    answer = run("classify", scan.volume, scan.labels)
    assert answer.status == 0
    for word in ("label", "organ", "probability"):
        assert word in answer.out


def test_scans_that_are_no_ct_are_warned_about(run: Runner, scan: Scan, tmp_path: Path) -> None:
    assert "Hounsfield" not in run("classify", scan.volume, scan.labels).err
    source = nib.load(scan.volume)
    pixels = (np.asarray(source.dataobj) + 1024).clip(0).astype(np.uint16)
    nib.save(nib.Nifti1Image(pixels, source.affine), tmp_path / "mr.nii.gz")
    answer = run("classify", tmp_path / "mr.nii.gz", scan.labels)
    assert answer.status == 0
    assert "Hounsfield" in answer.err


def test_refusals(run: Runner, scan: Scan, tmp_path: Path) -> None:
    none = tmp_path / "none.nii.gz"
    assert "no volume" in run("classify", none, scan.labels).error
    assert "no label file" in run("classify", scan.volume, none).error
    assert "no classifier" in run("classify", scan.volume, scan.labels, "--classifier", tmp_path / "x").error
    assert "input" in run("classify", scan.volume, scan.labels, "-o", scan.labels).error
    (tmp_path / "classifier.safetensors").write_text("text")
    answer = run("classify", scan.volume, scan.labels, "--classifier", tmp_path)
    assert "no organ classifier" in answer.error
    source = nib.load(scan.labels)
    nib.save(nib.Nifti1Image(np.zeros(source.shape, np.uint8), source.affine), tmp_path / "empty.nii.gz")
    assert "empty" in run("classify", scan.volume, tmp_path / "empty.nii.gz").error
    assert "Give its label file" in run("classify", scan.volume, scan.volume).error


def test_the_report_of_a_segmentation_names_the_organ(run: Runner, scan: Scan, tmp_path: Path) -> None:
    out, path = tmp_path / "out.nii.gz", tmp_path / "report.json"
    assert run("segment", scan.volume, "-p", scan.prompts, "-o", out, "--report", path).status == 0
    (entry,) = json.loads(path.read_text())["objects"]
    assert set(entry["organ"]) == {"name", "probability"}
    again = json.loads(run("classify", scan.volume, out, "--json").out)["objects"][0]
    assert again["organ"]["name"] == entry["organ"]["name"]


@pytest.mark.slow
def test_what_the_page_shows_is_so(run: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(sample_volume(), tmp_path / "ct.nii.gz")
    shutil.copy(sample_labels(), tmp_path / "labels.nii.gz")
    monkeypatch.chdir(tmp_path)
    (command,) = re.findall(r"^napari-sam-med (classify .* -o .*)$", PAGE, flags=re.MULTILINE)
    assert run(*command.split()).status == 0
    document = json.loads((tmp_path / "organs.json").read_text())
    names = [entry["organ"]["name"] for entry in document["objects"]]
    assert sum(name == organ for name, organ in zip(names, BTCV, strict=True)) >= 12
    for recipe in CLASS_RECIPES:
        assert f"`{recipe}`" in PAGE


@pytest.fixture
def cases(tmp_path: Path) -> Path:
    """Three patients: every seventh slice of the sample, each from another one on, with four organs."""
    volume, labels = nib.load(sample_volume()), nib.load(sample_labels())
    pixels, numbers = (np.asarray(image.dataobj) for image in (volume, labels))
    rows = ["image,labels,patient,names"]
    for first in range(3):
        few = slice(14 + first, 46, 7)
        kept = np.where(np.isin(numbers, (1, 2, 3, 6)), numbers, 0)[:, :, few]
        nib.save(nib.Nifti1Image(pixels[:, :, few], volume.affine), tmp_path / f"ct{first}.nii.gz")
        nib.save(nib.Nifti1Image(kept.astype(np.uint8), volume.affine), tmp_path / f"l{first}.nii.gz")
        rows.append(f"ct{first}.nii.gz,l{first}.nii.gz,p{first},btcv")
    path = tmp_path / "cases.csv"
    path.write_text("\n".join(rows) + "\n")
    return path


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["late-fusion", "trees"])
def test_one_trained_on_own_volumes_is_taken(run: Runner, cases: Path, tmp_path: Path, recipe: str) -> None:
    if recipe == "trees":
        pytest.importorskip("sklearn")
    folder = tmp_path / "new" / "own"
    answer = run("train-classifier", "--cases", cases, "-o", folder, "--recipe", recipe, "--json")
    assert answer.status == 0, answer.err
    summary = json.loads(answer.out)
    assert summary["organs"] == ["spleen", "right kidney", "left kidney", "liver"]
    assert summary["held_out"]["object_accuracy"] > 0.7
    assert sorted(path.name for path in folder.iterdir()) == [
        "classifier.json",
        "classifier.safetensors",
        "confusion.png",
        "reliability.png",
    ]
    card = json.loads((folder / "classifier.json").read_text())
    assert card["training"]["patients"] == 3
    assert {"slice_accuracy", "ece", "nll", "rho"} <= card["training"]["held_out"].keys()
    assert load_classifier(folder).facts.organs == tuple(summary["organs"])
    found = run("classify", tmp_path / "ct0.nii.gz", tmp_path / "l0.nii.gz", "--classifier", folder, "--json")
    names = {entry["label"]: entry["organ"]["name"] for entry in json.loads(found.out)["objects"]}
    assert names == {1: "spleen", 2: "right kidney", 3: "left kidney", 6: "liver"}


def test_an_interrupted_training_leaves_nothing(
    run: Runner, cases: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def impatient(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("napari_sam_med.training.class_head_cases.samples_of_slices", impatient)
    answer = run("train-classifier", "--cases", cases, "-o", tmp_path / "own")
    assert answer.status == 130
    assert not (tmp_path / "own").exists()


def test_refusals_of_training(run: Runner, scan: Scan, cases: Path, tmp_path: Path) -> None:
    own = tmp_path / "own"
    assert "no recipe" in run("train-classifier", "--cases", cases, "-o", own, "--recipe", "magic").error
    assert "SAM" in run("train-classifier", "--cases", cases, "-o", own, "--recipe", "btcv-class").error
    assert "no cases file" in run("train-classifier", "--cases", tmp_path / "none.csv", "-o", own).error
    assert "is a file" in run("train-classifier", "--cases", cases, "-o", cases).error
    single = tmp_path / "single.csv"
    single.write_text(f"image,labels\n{scan.volume.name},{scan.labels.name}\n")
    assert "two or more" in run("train-classifier", "--cases", single, "-o", own).error
    assert not own.exists()
