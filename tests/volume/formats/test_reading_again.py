"""What was written beside what is read again."""

from __future__ import annotations

import gzip
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from napari_sam_med.errors import ImageError
from napari_sam_med.volume.formats.reading_again import are_equal, compare_nifti


@pytest.fixture
def array_ijk() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 9, (5, 4, 3)).astype(np.uint8)


@pytest.fixture
def file(array_ijk: np.ndarray, tmp_path: Path) -> Path:
    image = nib.Nifti1Image(array_ijk, np.diag([-2.0, -1.0, 3.0, 1.0]))
    nib.save(image, tmp_path / "labels.nii.gz")
    return tmp_path / "labels.nii.gz"


def test_the_same_voxels_are_equal_whatever_the_layout(file: Path, array_ijk: np.ndarray) -> None:
    found = compare_nifti(file, np.ascontiguousarray(array_ijk[::-1])[::-1], None)
    assert found.is_equal
    assert found.affine.tolist() == np.diag([-2.0, -1.0, 3.0, 1.0]).tolist()


def test_one_other_voxel_another_type_and_another_shape_are_not(file: Path, array_ijk: np.ndarray) -> None:
    other = array_ijk.copy()
    other[4, 3, 2] += 1
    for expected in (other, array_ijk.astype(np.uint16), array_ijk[:4]):
        assert not compare_nifti(file, expected, None).is_equal


def test_a_damaged_end_is_found_where_the_voxels_before_it_differ_too(
    file: Path, array_ijk: np.ndarray
) -> None:
    file.write_bytes(gzip.compress(gzip.decompress(file.read_bytes()))[:-8])
    with pytest.raises(ImageError):
        compare_nifti(file, np.zeros_like(array_ijk), None)


def test_arrays_are_compared_in_slices_of_any_layout(array_ijk: np.ndarray) -> None:
    other = np.asfortranarray(array_ijk)
    assert are_equal(array_ijk, other)
    other[0, 0, 0] += 1
    assert not are_equal(array_ijk, other)
    assert not are_equal(array_ijk, array_ijk.astype(np.int8))
