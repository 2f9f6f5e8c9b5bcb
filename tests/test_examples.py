"""The examples do what they say."""

from __future__ import annotations

import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from napari_sam_med.sample_data import sample_volume

Run = Callable[..., None]
EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


@pytest.fixture
def run_example(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    def run(name: str, *arguments: str) -> None:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", [name, *arguments])
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")

    return run


def test_every_example_is_tested() -> None:
    assert {path.name for path in EXAMPLES.glob("*.py")} == {"quickstart.py", "propagate_and_export.py"}


def test_quickstart(run_example: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_example("quickstart.py")
    labels = nib.load(tmp_path / "abdomen_liver.nii.gz")
    assert np.array_equal(labels.affine, nib.load(sample_volume()).affine)
    per_slice = (np.asarray(labels.dataobj) == 6).sum(axis=(0, 1))
    assert np.flatnonzero(per_slice).tolist() == [26]
    assert "ml on one slice" in capsys.readouterr().out


@pytest.mark.slow
def test_propagate_and_export(run_example: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_example("propagate_and_export.py", str(tmp_path))
    labels = np.asarray(nib.load(tmp_path / "organs.nii.gz").dataobj)
    assert {1, 8} <= set(np.unique(labels))
    assert (labels.any(axis=(0, 1))).sum() > 5
    assert (tmp_path / "organs.seg.nrrd").exists()
    assert "Dice" in capsys.readouterr().out
