"""Real slices as training images: their labels and superpixels as regions, on the predictor's square."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from napari_sam_med.training.nano_batches import ScenePool
from napari_sam_med.training.real_slices import RealSlice, read_picture_slices, read_volume_slices
from napari_sam_med.training.synthetic.scenes import SIZE


@pytest.fixture
def picture_folder(tmp_path: Path) -> Path:
    """One slice, twice as wide as high, with a bright square that has a mask."""
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
    grey = np.random.default_rng(0).integers(60, 90, (64, 128)).astype(np.uint8)
    mask = np.zeros_like(grey)
    mask[20:40, 30:50] = 255
    grey[mask > 0] = 200
    Image.fromarray(grey).save(tmp_path / "images" / "case.png")
    Image.fromarray(mask).save(tmp_path / "masks" / "case_liver_000.png")
    return tmp_path


def test_pictures_come_with_labels_and_superpixels(picture_folder: Path) -> None:
    slices = read_picture_slices(picture_folder)
    assert all(s.image.shape == s.regions.shape == (SIZE, SIZE) for s in slices)
    labelled = [s for s in slices if set(np.unique(s.regions)) == {0, 1}]
    assert labelled
    # twice as large on the square, centred from above and below
    rows, columns = np.nonzero(labelled[0].regions)
    assert (rows.min(), rows.max()) == pytest.approx((64 + 40, 64 + 79), abs=1)
    assert (columns.min(), columns.max()) == pytest.approx((60, 99), abs=1)
    superpixels = [s for s in slices if len(np.unique(s.regions)) > 2]
    inside = superpixels[0].regions[110:138, 66:94]
    assert np.bincount(inside.ravel()).max() > 0.8 * inside.size  # the square is one of them


def test_volumes_give_slices_in_several_windows(tmp_path: Path) -> None:
    data = np.full((40, 40, 3), -1000, np.int16)
    data[8:32, 8:32] = np.random.default_rng(0).integers(0, 80, (24, 24, 3))
    labels = np.zeros(data.shape, np.uint8)
    labels[12:22, 12:24] = 4
    for name, array in (("ct", data), ("labels", labels)):
        nib.Nifti1Image(array, np.eye(4)).to_filename(tmp_path / f"{name}.nii.gz")
    cases = tmp_path / "cases.csv"
    cases.write_text("image,labels\nct.nii.gz,labels.nii.gz\n")
    slices = read_volume_slices(cases)
    assert len({s.image.tobytes() for s in slices}) == 3 * 3
    assert any(set(np.unique(s.regions)) == {0, 1} for s in slices)


def test_a_batch_shows_real_slices_now_and_then() -> None:
    regions = np.zeros((SIZE, SIZE), np.uint8)
    regions[60:200, 60:200] = 1
    stripes = np.where(np.arange(SIZE) % 64 < 32, 250, 120).astype(np.uint8)
    real = RealSlice(np.tile(stripes, (SIZE, 1)), regions)
    with_real, without = ScenePool(3, 1, real_slices=[real]), ScenePool(3, 1)
    batches = [with_real.batch(number, 8, 1) for number in range(3)]
    assert all(float(b.images.max()) <= 1 for b in batches)
    assert any(not np.array_equal(b.images, without.batch(n, 8, 1).images) for n, b in enumerate(batches))
    again = with_real.batch(1, 8, 1)
    assert np.array_equal(again.images, batches[1].images)
    assert np.array_equal(again.sampled.targets, batches[1].sampled.targets)
