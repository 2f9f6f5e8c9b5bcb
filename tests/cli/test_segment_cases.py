"""``segment --cases``: the labels of single runs, with workers too, and only those that are missing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from tests.cli.cli_scan import Run, Scan
from tests.dask_here import scheduler_here

Runner = Callable[..., Run]


@pytest.fixture
def cases(scan: Scan, tmp_path: Path) -> Path:
    """A cases file of two scans, and of one whose prompts are broken between them."""
    (tmp_path / "broken.json").write_text("{}")
    rows = [
        (scan.prompts, "one.nii.gz"),
        (tmp_path / "broken.json", "none.nii.gz"),
        (scan.prompts, "two.nrrd"),
    ]
    lines = ["image,prompts,output", *(f"{scan.volume},{prompts},{output}" for prompts, output in rows)]
    (tmp_path / "cases.csv").write_text("\n".join(lines) + "\n")
    return tmp_path / "cases.csv"


def test_cases_get_the_labels_of_single_runs(run: Runner, scan: Scan, cases: Path, tmp_path: Path) -> None:
    run("segment", scan.volume, "--prompts", scan.prompts, "-o", tmp_path / "single.nii.gz")
    answer = run("segment", "--cases", cases, "--json", "--report", tmp_path / "report.json")
    document = json.loads(answer.out)
    assert answer.status == 2
    assert answer.err.startswith(f"error: {scan.volume}: ")
    assert len(answer.err.splitlines()) == 1
    assert document == json.loads((tmp_path / "report.json").read_text())
    assert ["error" in one for one in document["cases"]] == [False, True, False]
    labels = [np.asarray(nib.load(tmp_path / f"{name}.nii.gz").dataobj) for name in ("single", "one")]
    np.testing.assert_array_equal(*labels)
    assert (tmp_path / "two.nrrd").exists()
    assert not (tmp_path / "none.nii.gz").exists()


def test_resuming_makes_only_what_is_missing(run: Runner, cases: Path, tmp_path: Path) -> None:
    (tmp_path / "one.nii.gz").write_bytes(b"labels of an earlier run")
    answer = run("segment", "--cases", cases, "--resume")
    assert (tmp_path / "one.nii.gz").read_bytes() == b"labels of an earlier run"
    assert (tmp_path / "two.nrrd").exists()
    assert "1 were there already" in answer.out


def test_workers_write_the_same_labels(
    run: Runner, scan: Scan, cases: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with scheduler_here(2) as here:
        monkeypatch.chdir(tmp_path)
        answer = run("segment", "--cases", cases.name, "--scheduler", here.scheduler_address)
    assert answer.status == 2, "one case has no prompts"
    first, *errors = answer.err.splitlines()
    assert first.startswith("dashboard: http")
    assert len(errors) == 1
    assert np.asarray(nib.load(tmp_path / "one.nii.gz").dataobj).any()
    assert (tmp_path / "two.nrrd").exists()


def test_two_rows_with_one_output_are_refused(run: Runner, scan: Scan, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    for again in ("out.nii.gz", "folder/../out.nii.gz"):
        rows = [f"{scan.volume},{scan.prompts},{output}" for output in ("out.nii.gz", again)]
        (tmp_path / "cases.csv").write_text("\n".join(["image,prompts,output", *rows]))
        assert "output of 2 rows" in run("segment", "--cases", tmp_path / "cases.csv").error


def test_a_report_in_the_place_of_labels_is_refused(run: Runner, cases: Path, tmp_path: Path) -> None:
    for name in ("one.nii.gz", "two.sam-med.json"):
        assert "is written for labels" in run("segment", "--cases", cases, "--report", tmp_path / name).error


def test_options_of_one_and_of_many_do_not_mix(run: Runner, scan: Scan, cases: Path, tmp_path: Path) -> None:
    assert "leave out the others" in run("segment", scan.volume, "--cases", cases).error
    refused = run("segment", scan.volume, "-p", scan.prompts, "-o", tmp_path / "o.nii.gz", "--workers", "2")
    assert "are for --cases" in refused.error
