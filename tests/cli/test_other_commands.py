"""``convert``, ``models``, ``cache`` and ``demo``."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from napari_sam_med import read_labels
from napari_sam_med.cli import demo
from napari_sam_med.sam.checkpoints import read_checkpoint, write_checkpoint
from napari_sam_med.sam.model_registry import MODELS, NANO_WEIGHTS
from tests.cli.cli_scan import Run, Scan

Runner = Callable[..., Run]


def test_convert_keeps_names_and_voxels(run: Runner, scan: Scan, tmp_path: Path) -> None:
    run("segment", scan.volume, "-p", scan.prompts, "-o", tmp_path / "a.nii.gz", "--no-propagate")
    answer = run("convert", tmp_path / "a.nii.gz", "-o", tmp_path / "b.seg.nrrd", "--json")
    (row,) = json.loads(answer.out)["objects"]
    assert (row["label"], row["name"]) == (6, "liver")
    back = run("convert", tmp_path / "b.seg.nrrd", "-o", tmp_path / "c.nii.gz", "--reference", scan.volume)
    assert back.status == 0
    assert "liver" in back.out
    first, last = nib.load(tmp_path / "a.nii.gz"), nib.load(tmp_path / "c.nii.gz")
    assert np.array_equal(np.asarray(first.dataobj), np.asarray(last.dataobj))
    assert np.array_equal(first.affine, last.affine)
    assert read_labels(tmp_path / "c.nii.gz").organs.name_of(6) == "liver"


def test_convert_keeps_where_labels_came_from(run: Runner, scan: Scan, tmp_path: Path) -> None:
    run("segment", scan.volume, "-p", scan.prompts, "-o", tmp_path / "a.nii.gz", "--no-propagate")
    (tmp_path / "other").mkdir()
    run("convert", tmp_path / "a.nii.gz", "-o", tmp_path / "other" / "b.nrrd")
    first, second = (
        json.loads((tmp_path / name).read_text()) for name in ("a.sam-med.json", "other/b.sam-med.json")
    )
    assert first["model"]["name"] == "nano"
    assert second["model"] == first["model"]
    assert second["source"]["sha256"] == first["source"]["sha256"]
    assert Path(second["source"]["path"]).samefile(scan.volume)
    assert "scan itself" in run("convert", tmp_path / "a.nii.gz", "-o", scan.volume).error


def test_convert_refuses_scans_and_own_inputs(run: Runner, scan: Scan, tmp_path: Path) -> None:
    assert "overwritten" in run("convert", scan.labels, "-o", scan.labels).error
    assert "ct.nii.gz" in run("convert", scan.volume, "-o", tmp_path / "out.nii.gz").error
    assert "no label file" in run("convert", tmp_path / "none.nii", "-o", tmp_path / "out.nii.gz").error
    assert not (tmp_path / "out.nii.gz").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="needs a right to make links")
def test_convert_writes_through_links(run: Runner, scan: Scan, tmp_path: Path) -> None:
    stored, link = tmp_path / "store" / "blob.nii.gz", tmp_path / "link.nii.gz"
    link.symlink_to(stored)
    assert "does not exist" in run("convert", scan.labels, "-o", link).error
    stored.parent.mkdir()
    assert run("convert", scan.labels, "-o", link).status == 0
    assert link.is_symlink()
    assert read_labels(stored).class_ids() == read_labels(scan.labels).class_ids()


def test_models_list(run: Runner) -> None:
    answer = run("models", "list")
    assert answer.status == 0
    listed = json.loads(run("models", "list", "--json").out)
    assert [entry["name"] for entry in listed["models"]] == list(MODELS)
    for name in MODELS:
        assert name in answer.out
    assert {entry["name"] for entry in listed["models"] if entry["available"]} == {"nano"}
    assert run("models").out == answer.out
    sizes = {entry["name"]: entry["size_bytes"] for entry in listed["models"]}
    assert sizes["nano"] == NANO_WEIGHTS.stat().st_size
    assert "~375 MB" in answer.out
    assert all(record.note for record in MODELS.values())


@pytest.mark.parametrize("group", [("cache", "info"), ("cache", "clear"), ("models", "list")])
def test_json_may_stand_at_the_group_or_the_command(run: Runner, group: tuple[str, str]) -> None:
    answers = [json.loads(run(*argv).out) for argv in ((group[0], "--json", group[1]), (*group, "--json"))]
    assert answers[0] == answers[1]


def test_models_verify(run: Runner, tmp_path: Path) -> None:
    facts = json.loads(run("models", "verify", "nano", "--json").out)
    assert facts["name"] == "nano"
    assert len(facts["found_sha256"]) == 64
    assert facts["known"]
    assert run("models", "verify", "nano").out.startswith(f"nano is whole (sha256 {facts['found_sha256']})")
    own = tmp_path / "nano"
    checkpoint = read_checkpoint("nano")
    write_checkpoint(own, {key: value + 1 for key, value in checkpoint.state_dict.items()}, checkpoint.record)
    assert not json.loads(run("models", "verify", own, "--json").out)["known"]
    broken = tmp_path / "sam.pth"
    broken.write_bytes(b"not a checkpoint")
    assert "sam.pth" in run("models", "verify", broken).error
    assert "fetch" in run("models", "verify", "sam_vit_b").error


def test_models_fetch_refuses_names_it_does_not_know(run: Runner) -> None:
    assert "sam_vit_b" in run("models", "fetch", "giant").error


def test_cache_fills_and_clears(run: Runner, scan: Scan, tmp_path: Path) -> None:
    assert json.loads(run("cache", "info", "--json").out)["bytes"] == 0
    run("segment", scan.volume, "-p", scan.prompts, "-o", tmp_path / "a.nii.gz", "--no-propagate")
    filled = json.loads(run("cache", "--json").out)
    assert filled["bytes"] > 0
    assert filled["folder"].startswith(str(tmp_path / "home"))
    assert json.loads(run("cache", "clear", "--json").out)["removed_bytes"] == filled["bytes"]
    assert "0 B" in run("cache", "info").out


def test_a_cache_that_cannot_be_written_is_told_once(
    run: Runner, scan: Scan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "no_folder").write_text("")
    monkeypatch.setenv("NAPARI_SAM_MED_HOME", str(tmp_path / "no_folder"))
    answer = run("segment", scan.volume, "-p", scan.prompts, "-o", tmp_path / "out.nii.gz")
    assert answer.status == 0
    (line,) = answer.err.splitlines()
    assert line.startswith("warning: The embedding could not be kept")


@pytest.fixture
def _small_sample(monkeypatch: pytest.MonkeyPatch, scan: Scan) -> None:
    monkeypatch.setattr(demo, "sample_volume", lambda: scan.volume)
    monkeypatch.setattr(demo, "sample_labels", lambda: scan.labels)
    monkeypatch.setattr(demo, "sample_prompts", lambda: scan.prompts)


@pytest.mark.usefixtures("_small_sample")
@pytest.mark.parametrize("options", [["--headless"], []])
def test_demo_without_a_display_writes_files(
    run: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str]
) -> None:
    monkeypatch.setattr(demo, "has_display", lambda: False)
    out = tmp_path / "made" / "here"
    answer = run("demo", "--output", out, *options)
    assert answer.status == 0
    assert "Dice" in answer.out
    assert "clinical" in answer.out
    assert ("no display" in answer.err) == (not options)
    report = json.loads((out / "report.json").read_text())
    assert 0 <= report["objects"][0]["dice"] <= 1
    assert np.asarray(nib.load(out / "labels.nii.gz").dataobj).any()
    for plane in ("axial", "coronal", "sagittal"):
        with Image.open(out / f"{plane}.png") as picture:
            assert picture.mode == "RGB"
            colors = picture.getcolors(maxcolors=1 << 24)
            assert colors is not None
            assert any(max(pixel) - min(pixel) > 80 for _, pixel in colors)  # something is drawn in colour


@pytest.mark.usefixtures("_small_sample")
def test_demo_with_a_display_opens_the_sample(
    run: Runner, scan: Scan, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    opened: list[tuple[object, ...]] = []

    def record(*arguments: object) -> int:
        opened.append(arguments)
        return 0

    monkeypatch.setattr(demo, "has_display", lambda: True)
    monkeypatch.setattr(demo, "open_in_napari", record)
    assert run("demo", "--output", tmp_path / "unused").status == 0
    assert opened == [(scan.volume, None, "nano", "auto")]


@pytest.mark.usefixtures("_small_sample")
def test_demo_refuses_a_folder_that_cannot_be_made(run: Runner, scan: Scan) -> None:
    assert "--output" in run("demo", "--headless", "--output", scan.volume / "inside").error
