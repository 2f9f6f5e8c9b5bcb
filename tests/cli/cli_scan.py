"""A small scan with one bright organ, stored as awkwardly as real ones, and a way to run commands on it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from napari_sam_med.cli import main

SHAPE = (40, 36, 9)
CENTRE = (16, 20, 4)


@dataclass(frozen=True)
class Scan:
    """Paths of a small CT-like scan, its labels, and prompts for its organ."""

    volume: Path
    labels: Path
    prompts: Path


@dataclass(frozen=True)
class Run:
    """What a command answered."""

    status: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """The one line on standard error of a command that refused."""
        lines = self.err.splitlines()
        assert self.status == 2, self.err
        assert [line for line in lines if not line.startswith("warning: ")] == lines[-1:]
        assert lines[-1].startswith("error: ")
        assert "Traceback" not in self.err
        assert self.out == ""
        return lines[-1]


@pytest.fixture(autouse=True)
def _own_folders(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Keep the user's own cache and models out of the tests."""
    monkeypatch.setenv("NAPARI_SAM_MED_HOME", str(tmp_path / "home"))


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Callable[..., Run]:
    """Run a command in this process."""

    def call(*argv: str | Path) -> Run:
        capfd.readouterr()
        status = main([str(argument) for argument in argv])
        said = capfd.readouterr()
        return Run(status, said.out, said.err)

    return call


def write_prompts(path: Path, *objects: dict[str, object]) -> Path:
    """A prompts file of the given objects."""
    path.write_text(json.dumps({"version": 1, "objects": list(objects)}))
    return path


def box(label: int = 6, k: int = CENTRE[2], **fields: object) -> dict[str, object]:
    """An object with one box around the organ on slice k."""
    return {"label": label, "name": "liver", "boxes": [{"from": [7, 11, k], "to": [25, 29, k]}]} | fields


@pytest.fixture
def scan(tmp_path: Path) -> Scan:
    """An organ of 120 HU in a body of -80 HU, in a tilted LAI file with 3 mm slices."""
    return make_scan(tmp_path)


def make_scan(folder: Path) -> Scan:
    """Write the scan into a folder."""
    i, j, k = np.ogrid[: SHAPE[0], : SHAPE[1], : SHAPE[2]]
    organ = ((i - CENTRE[0]) / 9) ** 2 + ((j - CENTRE[1]) / 9) ** 2 + ((k - CENTRE[2]) / 4) ** 2 <= 1
    noise = np.random.default_rng(0).normal(0, 8, SHAPE)
    hounsfield = np.where(organ, 120, -80) + noise
    hounsfield[0, 0] = -1000
    turn = np.deg2rad(6)
    tilt = np.array([[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = tilt @ np.diag([-1.5, 1.5, -3.0])
    affine[:3, 3] = (31, -17, 112)
    volume, labels = folder / "ct.nii.gz", folder / "truth.nii.gz"
    nib.save(nib.Nifti1Image(hounsfield.astype(np.int16), affine), volume)
    nib.save(nib.Nifti1Image((6 * organ).astype(np.uint8), affine), labels)
    return Scan(volume, labels, write_prompts(folder / "prompts.json", box()))


def in_wide_field(scan: Scan) -> None:
    """Put air around a scan: its voxels (i, j, k) become (i + 30, j + 40, k)."""
    aside = ((30, 30), (40, 40), (0, 0))
    for path, air in ((scan.volume, -1000), (scan.labels, 0)):
        file = nib.load(path)
        wide = np.pad(np.asarray(file.dataobj), aside, constant_values=air)
        nib.save(nib.Nifti1Image(wide, file.affine), path)
