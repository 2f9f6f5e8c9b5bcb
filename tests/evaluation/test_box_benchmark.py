"""The box benchmark: means over slices, organs and volumes; the bundled model on a drawn scan."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest

from napari_sam_med.errors import ImageError
from napari_sam_med.evaluation.box_benchmark import SliceScore, macro_dice, main, read_cases


def _write_case(folder: Path) -> Path:
    """A bright ball and a dark rod in noise, with their labels; returns the cases file."""
    z, y, x = np.mgrid[:6, :48, :48]
    labels = np.zeros((6, 48, 48), dtype=np.uint8)
    labels[(x - 16) ** 2 + (y - 20) ** 2 + (3 * (z - 3)) ** 2 < 100] = 1
    labels[(np.abs(x - 36) < 5) & (np.abs(y - 30) < 8)] = 2
    grey = np.array([0, 150, -120])[labels] + np.random.default_rng(0).normal(0, 20, labels.shape)
    affine = np.diag([1.0, 1.0, 3.0, 1.0])
    nibabel.save(nibabel.Nifti1Image(grey.T.astype(np.int16), affine), folder / "image.nii.gz")
    nibabel.save(nibabel.Nifti1Image(labels.T, affine), folder / "labels.nii.gz")
    cases = folder / "cases.csv"
    cases.write_text("name,image,labels\nball,image.nii.gz,labels.nii.gz\n")
    return cases


def test_the_table_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["--cases", str(_write_case(tmp_path)), "--organs", "--every", "2"])
    lines = capsys.readouterr().out.splitlines()
    ball = next(line for line in lines if line.startswith("| ball | 2 |"))
    model, ellipse, box = (float(cell) for cell in ball.split("|")[4:7])
    assert 0.6 < model <= 1
    assert ellipse > 0.8
    assert 0 < box < 1
    assert any(line.startswith("| **mean of volumes** |") for line in lines)


def test_organs_count_alike_however_many_slices_they_have() -> None:
    def score(class_id: int, model: float) -> SliceScore:
        return SliceScore("v", class_id, 0, 50, model, 0.5, 0.25, 0.9)

    scores = [score(1, 0.8)] * 9 + [score(2, 0.4)]
    assert macro_dice(scores) == pytest.approx({"model": 0.6, "ellipse": 0.5, "box": 0.25})


def test_cases_file_without_header_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "cases.csv"
    path.write_text("a,b\nc,d\n")
    with pytest.raises(ImageError, match="header"):
        read_cases(path)
