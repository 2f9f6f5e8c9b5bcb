"""docs/detector_boxes.md: its commands and Python are run, and every key is explained."""

from __future__ import annotations

import csv
import json
import re
import shutil
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from pycocotools.coco import COCO

from napari_sam_med.cli import main
from napari_sam_med.evaluation.detections import read_detections
from napari_sam_med.sample_data import sample_labels, sample_volume

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "detector_boxes.md").read_text(encoding="utf-8")


def _blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The sample under the names of the page, with what a detector and TotalSegmentator made of it."""
    monkeypatch.setenv("NAPARI_SAM_MED_HOME", str(tmp_path / "home"))
    shutil.copy(sample_volume(), tmp_path / "ct.nii.gz")
    shutil.copy(sample_labels(), tmp_path / "labels.nii.gz")
    shutil.copy(sample_labels(), tmp_path / "total.nii.gz")
    (tmp_path / "segmentations").mkdir()
    labels = nib.load(sample_labels())
    for number, name in ((6, "liver"), (3, "left_kidney")):
        mask = np.asarray(labels.dataobj) == number
        nib.save(
            nib.Nifti1Image(mask.astype(np.uint8), labels.affine),
            tmp_path / "segmentations" / f"{name}.nii.gz",
        )
    (tmp_path / "cases.csv").write_text("image,labels\nct.nii.gz,labels.nii.gz\n")
    (found,) = _blocks("csv")
    (tmp_path / "found.csv").write_text(found)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
def test_the_commands_run_and_every_key_is_explained(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    commands = re.findall(r"^napari-sam-med (evaluate .*)$", PAGE, flags=re.MULTILINE)
    assert len(commands) == 2
    for command in commands:
        assert main([*command.split(), "--every", "12", "--min-area", "20"]) == 0, command
        printed = capsys.readouterr().out
        assert "Detections as instances" in printed
        assert "instances.json" in printed
    assert "Detections as instances" in (folder / "detector" / "report.html").read_text(encoding="utf-8")
    with (folder / "detector" / "results.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["strategy"] == "boxes:found.csv"]
    livers = {row["slice"]: row for row in rows if row["organ"] == "liver"}
    # the surer one of the two on slice 24, and none on slice 12
    assert json.loads(livers["24"]["prompts"])["box"] == [24, 43, 94, 110]
    assert float(livers["24"]["dice"]) > 0.5
    assert (livers["12"]["dice"], livers["12"]["prompts"], livers["12"]["iou_prediction"]) == (
        "0.000000",
        "",
        "nan",
    )
    summary = json.loads((folder / "detector" / "summary.json").read_text())
    assert summary["models"]["nano"]["boxes:found.csv"]["slices"] == len(rows)
    instances = summary["instances"]["nano"]["boxes:found.csv"]
    assert instances["detections"] == 4
    for key in instances:
        assert f"`{key}`" in PAGE, key
    document = json.loads((folder / "detector" / "instances.json").read_text())
    truth = COCO()
    truth.dataset = document
    truth.createIndex()
    results = document["results"]["nano"]["boxes:found.csv"]
    assert len(truth.loadRes(results).getAnnIds()) == 4
    total = json.loads((folder / "total" / "summary.json").read_text())
    assert set(total["instances"]["nano"]) == {"boxes:segmentations", "boxes:total.nii.gz:2"}
    perfect = total["models"]["nano"]["bound_box"]["organs"]["liver"]
    assert total["models"]["nano"]["boxes:segmentations"]["organs"]["liver"] == perfect


@pytest.mark.slow
def test_the_python_runs(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    boxes, instances = _blocks("python")
    names: dict[str, Any] = {}
    exec(compile(boxes, "detector_boxes.md", "exec"), names)
    read = read_detections(folder / "all.csv")
    assert read.images == ("ct.nii.gz", "other.nii.gz")
    assert {one.organ for one in read.detections if one.image == "other.nii.gz"} == {"left_kidney", "liver"}
    exec(compile(instances, "detector_boxes.md", "exec"), names)
    assert 0 < float(capsys.readouterr().out) < 0.5, "four boxes are a small part of the organs"
