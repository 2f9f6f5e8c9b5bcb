"""Images on the grid of a scan: written, read again and put in place, or refused."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from napari_sam_med import read_volume
from napari_sam_med.errors import ExportError
from napari_sam_med.volume.image_writing import IMAGE_ENDINGS, write_image
from tests.cli.cli_scan import make_scan


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    """A tilted LAI scan."""
    return make_scan(tmp_path).volume


def numbers(shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(0).random(shape, dtype=np.float32)


@pytest.mark.parametrize("ending", IMAGE_ENDINGS)
def test_numbers_come_back_where_they_were(scan: Path, tmp_path: Path, ending: str) -> None:
    volume = read_volume(scan)
    data = numbers(volume.shape)
    target = write_image(tmp_path / f"edges{ending}", data, volume)
    again = read_volume(target)
    assert again.data.dtype == np.float32
    assert np.array_equal(again.data, data)
    assert again.grid.same_as(volume.grid, tolerance_mm=1e-3)
    assert not again.warnings
    assert sorted(path.name for path in tmp_path.glob("edges*")) == [target.name]


def test_nifti_keeps_the_header_of_the_scan(scan: Path, tmp_path: Path) -> None:
    volume = read_volume(scan)
    target = write_image(tmp_path / "edges.nii.gz", numbers(volume.shape), volume)
    before, after = nib.load(scan), nib.load(target)
    assert np.array_equal(before.affine, after.affine)
    assert nib.aff2axcodes(after.affine) == nib.aff2axcodes(before.affine)
    assert after.header.get_intent()[0] == "none"
    assert not after.header.extensions
    assert after.get_data_dtype() == np.float32
    packed = target.read_bytes()
    write_image(target, numbers(volume.shape), volume)
    assert target.read_bytes() == packed


def test_what_cannot_be_written_is_refused(scan: Path, tmp_path: Path) -> None:
    volume = read_volume(scan)
    data = numbers(volume.shape)
    before = scan.read_bytes()
    with pytest.raises(ExportError, match="is the scan itself"):
        write_image(scan, data, volume)
    assert scan.read_bytes() == before
    for name in ("edges.png", "edges.seg.nrrd"):
        with pytest.raises(ExportError, match="no ending of an image"):
            write_image(tmp_path / name, data, volume)
    with pytest.raises(ExportError, match="does not fit"):
        write_image(tmp_path / "edges.nii", data[1:], volume)
    with pytest.raises(ExportError, match=r"The folder .*none does not exist; make it, or write elsewhere"):
        write_image(tmp_path / "none" / "edges.nii", data, volume)
    with pytest.raises(ExportError, match=r"ct.*\.nii.* is a file, not a folder; write elsewhere"):
        write_image(scan / "edges.nii", data, volume)
    with pytest.raises(ExportError, match=r"could not be written: File name too long"):
        write_image(tmp_path / f"{'x' * 300}.nii", data, volume)
