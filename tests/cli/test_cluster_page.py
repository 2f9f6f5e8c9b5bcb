"""The commands that docs/cluster.md shows are run, at the address of workers in this process."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from napari_sam_med.evaluation.experiment_folder import ExperimentFolder
from tests.cli.cli_scan import Run, Scan
from tests.dask_here import scheduler_here

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "cluster.md").read_text(encoding="utf-8")
ADDRESS = "tcp://10.0.0.5:8786"


def test_the_commands_of_the_page_run(
    run: Callable[..., Run], scan: Scan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("distributed")
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    # the reports take most of the time, and are tested elsewhere
    monkeypatch.setattr(ExperimentFolder, "write_pages", lambda *_: None)
    for name in ("ct.nii.gz", "mr.nii.gz"):
        shutil.copy(scan.volume, name)
    shutil.copy(scan.labels, "labels.nii.gz")
    shutil.copy(scan.prompts, "prompts.json")
    Path("scans.csv").write_text("image,labels\nct.nii.gz,labels.nii.gz\nmr.nii.gz,labels.nii.gz\n")
    Path("prompts.csv").write_text("image,prompts,output\nct.nii.gz,prompts.json,found.nii.gz\n")
    commands = re.findall(rf"^napari-sam-med (.*{re.escape(ADDRESS)})$", PAGE, flags=re.MULTILINE)
    assert {command.split()[0] for command in commands} == {"embed", "segment", "evaluate"}
    with scheduler_here(2) as here:
        for command in commands:
            answer = run(*command.replace(ADDRESS, here.scheduler_address).split())
            assert answer.status == 0, answer.err
            assert answer.err.startswith("dashboard: http")
    assert Path("found.nii.gz").exists()
    assert Path("report.json").exists()
    assert Path("evaluation/summary.json").exists()
