"""The benchmark of propagation runs with nano on a small phantom, and its tables say what its rows do."""

from __future__ import annotations

import csv
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from benchmarks.propagation import main
from benchmarks.propagation_tables import first_reaching, macro_mean, markdown


@pytest.fixture
def cases(tmp_path: Path) -> Path:
    """A CT of 9 slices with a bright ellipsoid of 7, and a label too small to count."""
    k = np.arange(9)
    i, j = np.indices((48, 48))
    radius2 = 1 - ((k - 4) / 4) ** 2
    organ = ((i[..., None] - 24) / 14) ** 2 + ((j[..., None] - 22) / 11) ** 2 < radius2
    noise = np.random.default_rng(0).normal(0, 8, organ.shape)
    labels = organ.astype(np.uint8)
    labels[2:5, 2:5, 2:5] = 2
    affine = np.diag([-1.5, -1.5, 4.0, 1.0])
    nib.save(nib.Nifti1Image((noise + 140 * organ).astype(np.float32), affine), tmp_path / "ct.nii.gz")
    nib.save(nib.Nifti1Image(labels, affine), tmp_path / "labels.nii.gz")
    path = tmp_path / "cases.csv"
    path.write_text("name,image,labels\nsmall,ct.nii.gz,labels.nii.gz\n")
    return path


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_every_engine_is_measured_on_every_protocol(
    cases: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    main(
        ["--cases", str(cases), "-o", str(out), "--keys", "3", "--quick", "--device", "cpu", "--robot",
         "--orders", "suggested,even-true", "--max-slices", "3", "--variant", 'short={"last_index": 4}']
    )  # fmt: skip
    rows = read(out / "propagation.csv")
    engines = {row["engine"] for row in rows}
    assert engines >= {
        "ours",
        "short",
        "box copied",
        "micro-sam box .8",
        "micro-sam point .5",
        "interpolation",
    }
    assert {(row["protocol"], row["engine"]) for row in rows} == {
        (protocol, engine) for protocol in ("largest", "3 keys") for engine in engines
    }
    assert len(rows) == 2 * len(engines)
    assert {(row["organ"], row["slices_true"]) for row in rows} == {("label 1", "7")}
    largest = {row["engine"]: row for row in rows if row["protocol"] == "largest"}
    assert float(largest["ours"]["dice"]) > 0.6
    assert int(largest["box copied"]["slices_found"]) >= int(largest["ours"]["slices_found"])
    assert int(largest["short"]["slices_found"]) <= 5
    robot = read(out / "robot.csv")
    assert {row["order"] for row in robot} == {"suggested", "even-true"}
    assert max(int(row["slices_prompted"]) for row in robot) <= 3
    printed = capsys.readouterr().out
    assert (out / "propagation.md").read_text() in printed
    assert f"{float(largest['ours']['dice']):.3f}" in printed


def test_the_mean_counts_volumes_not_organs() -> None:
    rows = [{"case": "a", "dice": d} for d in (0.2, 0.4, 0.6)] + [{"case": "b", "dice": 0.8}]
    assert macro_mean(rows, "dice") == pytest.approx(0.6)
    assert macro_mean([*rows, {"case": "b", "dice": float("inf")}], "dice") == pytest.approx(0.6)


def test_the_first_slice_count_that_reaches_a_target() -> None:
    run = [{"slices_prompted": n, "dice": d} for n, d in ((1, 0.5), (2, 0.86), (3, 0.84))]
    assert first_reaching(run, 0.85) == 2
    assert first_reaching(run, 0.9) is None


def test_tables_are_markdown() -> None:
    assert (
        markdown(["Dice", "ours"], [["liver", "0.9"]]) == "| Dice | ours |\n| --- | ---: |\n| liver | 0.9 |\n"
    )
