"""Labels through every format that carries voxels, re-read by programs that are not ours."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import nibabel as nib
import nrrd
import numpy as np
import numpy.typing as npt
import pytest
import SimpleITK as sitk  # noqa: N813
import slicerio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from napari_sam_med import LabelVolume, read_labels, read_volume, write_labels
from napari_sam_med.errors import LabelError
from napari_sam_med.volume.grid import Grid
from napari_sam_med.volume.writing import remarks
from tests.volume.phantoms import CODE_PAIRS, ORIENTATIONS, affine_of, affines, ct_like, save_nifti, shapes

ENDINGS = [".nii", ".nii.gz", ".nrrd", ".seg.nrrd", ".mha"]
RAS_FROM_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
TOLERANCE_MM = 1e-4
FIELD_OF_VIEW_MM = 500.0  # NIfTI's 32-bit numbers are as exact as this far from the first voxel

in_one_folder = settings(
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@dataclass(frozen=True)
class Reading:
    """What another program reads: voxels (i, j, k), and voxel to RAS mm."""

    array: npt.NDArray[np.generic]
    affine: npt.NDArray[np.float64]


def _by_simpleitk(path: Path) -> Reading:
    image = sitk.ReadImage(str(path))
    lps = np.eye(4)
    lps[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * image.GetSpacing()
    lps[:3, 3] = image.GetOrigin()
    return Reading(sitk.GetArrayFromImage(image).transpose(2, 1, 0), RAS_FROM_LPS @ lps)


def _by_nibabel(path: Path) -> Reading:
    image = nib.load(path)
    return Reading(np.asarray(image.dataobj), image.affine)


def _by_slicerio(path: Path) -> Reading:
    segmentation = slicerio.read_segmentation(str(path))
    return Reading(segmentation["voxels"], RAS_FROM_LPS @ segmentation["ijkToLPS"])


def _by_pynrrd(path: Path) -> Reading:
    array, header = nrrd.read(str(path))
    lps = np.eye(4)
    lps[:3, :3] = header["space directions"].T
    lps[:3, 3] = header["space origin"]
    assert header["space"] == "left-posterior-superior"
    return Reading(array, RAS_FROM_LPS @ lps)


READERS: dict[str, list[Callable[[Path], Reading]]] = {
    ".nii": [_by_simpleitk, _by_nibabel],
    ".nii.gz": [_by_simpleitk, _by_nibabel],
    ".nrrd": [_by_simpleitk, _by_pynrrd],
    ".seg.nrrd": [_by_simpleitk, _by_pynrrd, _by_slicerio],
    ".mha": [_by_simpleitk],
}


def _farthest_mm(affine: npt.NDArray[np.float64], other: npt.NDArray[np.float64]) -> float:
    """Distance of the places that two affines give to the corners of a whole body part."""
    counts = FIELD_OF_VIEW_MM / np.linalg.norm(affine[:3, :3], axis=0)
    corners = np.array([(*np.array(corner) * counts, 1.0) for corner in product((0, 1), repeat=3)])
    return float(np.linalg.norm(corners @ (affine - other)[:3].T, axis=1).max())


def _phantom(grid: Grid, seed: int = 0) -> LabelVolume:
    """Random labels 0 to 12 and one voxel of 13, on the array as a file stores it."""
    rng = np.random.default_rng(seed)
    array = rng.integers(0, 13, grid.shape_ijk, dtype=np.uint8)
    array[tuple(rng.integers(0, grid.shape_ijk))] = 13
    return LabelVolume(np.ascontiguousarray(grid.to_canonical(array)), grid)


def _check(folder: Path, labels: LabelVolume, ending: str) -> None:
    stored = labels.grid.from_canonical(labels.data)
    landmark = np.argwhere(stored == 13)[0]
    place_ras = labels.grid.affine[:3, :3] @ landmark + labels.grid.affine[:3, 3]
    # ITK, asked for x.nii.gz, reads an x.nii beside it: each format has its own name here
    path = write_labels(folder / f"labels_{ending.replace('.', '')}{ending}", labels)
    for read in READERS[ending]:
        reading = read(path)
        assert reading.array.dtype == np.uint8, read.__name__
        assert np.array_equal(reading.array.reshape(stored.shape), stored), read.__name__
        assert _farthest_mm(labels.grid.affine, reading.affine) < TOLERANCE_MM, read.__name__
        index = np.linalg.solve(reading.affine[:3, :3], place_ras - reading.affine[:3, 3])
        assert np.allclose(index, landmark, atol=1e-3), read.__name__


@pytest.mark.parametrize("codes", ORIENTATIONS)
def test_other_programs_read_the_same_voxels_at_the_same_places(tmp_path, codes: str) -> None:
    """Statements 22, 23 and 24: 48 orientations, straight and oblique, anisotropic, in every format."""
    for tilt in ((0.0, 0.0, 0.0), (0.3, -0.2, 0.4)):
        affine = affine_of(codes, (0.7421875, 1.5, 5.0), tilt, (123.25, -210.5, 87.125))
        for ending in ENDINGS:
            _check(tmp_path, _phantom(Grid(affine, (4, 5, 6))), ending)


@given(affine=affines, shape=shapes, ending=st.sampled_from(ENDINGS), seed=st.integers(0, 999))
@settings(parent=in_one_folder, max_examples=150)
def test_so_they_do_for_random_geometry(tmp_path, affine, shape, ending, seed) -> None:
    """Statements 22, 23 and 24."""
    if shape == (1, 1, 1) and ending == ".seg.nrrd":  # refused: it would be an empty segmentation
        return
    _check(tmp_path, _phantom(Grid(affine, shape), seed), ending)


@given(affine=affines, shape=shapes, codes=st.sampled_from(CODE_PAIRS), ending=st.sampled_from(ENDINGS[:2]))
@settings(parent=in_one_folder, max_examples=60)
def test_what_other_programs_make_of_a_nifti_scan_they_make_of_its_labels(
    tmp_path, affine, shape, codes, ending
) -> None:
    """Statements 22 and 23: to the last bit, however its sform and qform disagree."""
    name = ending.replace(".", "")
    scan = save_nifti(tmp_path / f"scan_{name}{ending}", ct_like(shape), affine, codes)
    labels = LabelVolume.like(read_volume(scan))
    written = write_labels(tmp_path / f"labels_{name}{ending}", labels)
    for read in READERS[ending]:
        assert np.array_equal(read(written).affine, read(scan).affine), read.__name__


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("highest", [255, 256, 65535])
def test_numbers_are_stored_as_they_are(tmp_path, ending, highest) -> None:
    """Statements 20 and 21: uint8 or uint16, slope 1 and intercept 0."""
    grid = Grid(affine_of("PIR", (1.0, 2.0, 3.0)), (3, 4, 5))
    array = np.zeros((3, 4, 5), np.uint8 if highest < 256 else np.uint16)
    array[0, 0, 0], array[2, 3, 4] = 1, highest
    labels = LabelVolume(np.ascontiguousarray(grid.to_canonical(array)), grid)
    path = write_labels(tmp_path / f"labels{ending}", labels)
    for read in READERS[ending]:
        stored = read(path).array
        assert stored.dtype == array.dtype
        assert np.array_equal(stored, array)
    if ending.startswith(".nii"):
        assert nib.load(path).dataobj.slope == 1
        assert nib.load(path).dataobj.inter == 0


def _turned(
    labels: LabelVolume, order: tuple[int, ...], flips: tuple[bool, ...], crop: list[slice]
) -> Reading:
    """Part of the labels in other axes, with the affine that goes with it."""
    stored = labels.grid.from_canonical(labels.data)[tuple(crop)]
    matrix = np.eye(4)
    matrix[:3, 3] = [side.start for side in crop]
    turn = np.zeros((4, 4))
    turn[3, 3] = 1.0
    for new_axis, (axis, flip) in enumerate(zip(order, flips, strict=True)):
        turn[axis, new_axis] = -1.0 if flip else 1.0
        turn[axis, 3] = stored.shape[axis] - 1.0 if flip else 0.0
    array = stored.transpose(order)[tuple(slice(None, None, -1 if flip else 1) for flip in flips)]
    return Reading(array, labels.grid.affine @ matrix @ turn)


@given(
    affine=affines,
    shape=st.tuples(*[st.integers(2, 6)] * 3),
    order=st.permutations([0, 1, 2]),
    flips=st.tuples(*[st.booleans()] * 3),
    data=st.data(),
)
@settings(parent=in_one_folder, max_examples=60)
def test_labels_in_other_axes_or_cropped_are_placed_by_their_affine(
    tmp_path, affine, shape, order, flips, data
) -> None:
    """Statement 26: turned, flipped, cropped; every voxel where it was, never by its index."""
    scan = read_volume(save_nifti(tmp_path / "scan.nii", ct_like(shape), affine))
    labels = _phantom(scan.grid)
    crop = []
    for n in shape:
        start = data.draw(st.integers(0, n - 1))
        crop.append(slice(start, data.draw(st.integers(start + 1, n))))
    part = _turned(labels, tuple(order), flips, crop)
    expected = np.zeros(shape, np.uint8)
    expected[tuple(crop)] = scan.grid.from_canonical(labels.data)[tuple(crop)]
    path = tmp_path / "part.nii"
    nib.save(nib.Nifti1Image(np.ascontiguousarray(part.array), part.affine), path)
    if not expected.any():
        return
    placed = read_labels(path, reference=scan)
    assert np.array_equal(scan.grid.from_canonical(placed.data), expected)
    assert placed.grid is scan.grid
    written = write_labels(tmp_path / "placed.nii", placed, source=scan)
    assert np.array_equal(np.asarray(nib.load(written).dataobj), expected)


def test_labels_of_another_patient_are_refused_with_a_way_out(tmp_path) -> None:
    """Statement 26: the same shape is no reason to take them by index."""
    scan = read_volume(save_nifti(tmp_path / "scan.nii", ct_like((4, 5, 6)), np.eye(4)))
    elsewhere = np.eye(4)
    elsewhere[:3, 3] = 100.0
    path = save_nifti(tmp_path / "labels.nii", np.ones((4, 5, 6), np.uint8), elsewhere)
    with pytest.raises(LabelError, match="none of it lies inside the scan; give the scan"):
        read_labels(path, reference=scan)
    labels = read_labels(path)
    with pytest.raises(LabelError, match=r"another grid .*read_labels\(path, reference=volume\)"):
        write_labels(tmp_path / "out.nii", labels, source=replace(scan))


def test_a_file_that_itk_would_read_instead_is_told(tmp_path) -> None:
    """Statement 23: ITK, asked for x.nii.gz, reads an x.nii beside it."""
    grid = Grid(np.eye(4), (2, 3, 4))
    labels = LabelVolume(np.full(grid.shape_zyx, 4, np.uint8), grid)
    write_labels(tmp_path / "x.nii", labels)
    labels.data[...] = 9
    packed = write_labels(tmp_path / "x.nii.gz", labels)
    assert (_by_simpleitk(packed).array == 4).all(), "ITK has mended it: the remark can go"
    assert remarks(packed) == remarks(tmp_path / "x.nii")
    assert remarks(packed)[0].startswith("x.nii and x.nii.gz lie side by side: 3D Slicer")
    (tmp_path / "x.nii").unlink()
    assert remarks(packed) == ()
    assert (_by_simpleitk(packed).array == 9).all()
