"""NRRD, .seg.nrrd and MHA."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from napari_sam_med import LabelVolume, read_labels, read_volume, write_labels
from napari_sam_med.errors import ExportError, ImageError, LabelError
from napari_sam_med.volume.organs import Organ, OrganTable
from napari_sam_med.volume.reading import volume_times
from tests.shared_data import OPEN, needs_open
from tests.volume.phantoms import affines, ct_like, save_nifti, shapes

ENDINGS = [".nrrd", ".seg.nrrd", ".mha"]


def _image(array: np.ndarray, is_vector: bool = False) -> sitk.Image:
    image = sitk.GetImageFromArray(array, isVector=is_vector)
    n = image.GetDimension()
    image.SetSpacing([0.5, 0.75, 3.0, 1.0][:n])
    image.SetOrigin([1.5, -2.5, 3.0, 0.0][:n])
    return image


@pytest.mark.parametrize("ending", [".nrrd", ".mha"])
@pytest.mark.parametrize("is_packed", [True, False])
def test_scans_lie_where_itk_places_them(tmp_path, ending, is_packed) -> None:
    image = _image(ct_like((4, 5, 6)))
    image.SetDirection([0, 1, 0, 1, 0, 0, 0, 0, -1])
    path = tmp_path / f"scan{ending}"
    sitk.WriteImage(image, str(path), useCompression=is_packed)
    volume = read_volume(path)
    assert volume.warnings == ()
    assert volume.data.dtype == np.int16
    for ijk in ((0, 0, 0), (5, 0, 0), (1, 2, 3)):
        index = tuple(int(i) for i in volume.grid.index_zyx_from_ijk(ijk))
        lps = np.array(image.TransformIndexToPhysicalPoint(ijk))
        assert np.allclose(volume.grid.world_ras_from_index_zyx(index), lps * [-1, -1, 1])
        assert volume.data[index] == image[ijk]


@given(affine=affines, shape=shapes, ending=st.sampled_from(ENDINGS))
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_labels_come_back_in_every_orientation(tmp_path, affine, shape, ending) -> None:
    """Statements 22 to 24."""
    if ending == ".seg.nrrd" and shape == (1, 1, 1):
        return
    volume = read_volume(save_nifti(tmp_path / "scan.nii", ct_like(shape), affine))
    labels = LabelVolume.like(volume)
    labels.data[...] = np.random.default_rng(1).integers(0, 14, volume.shape)
    read = read_labels(write_labels(tmp_path / f"labels{ending}", labels), reference=volume)
    assert np.array_equal(read.data, labels.data)
    assert read.organs == labels.organs
    assert read.warnings == ()


def test_a_sheared_grid_survives(tmp_path) -> None:
    affine = np.diag([1.0, 2.0, 3.0, 1.0])
    affine[1, 2] = 0.9
    volume = read_volume(save_nifti(tmp_path / "scan.nii", ct_like(), affine, (1, 0)))
    for ending in ENDINGS:
        read = read_labels(write_labels(tmp_path / f"labels{ending}", LabelVolume.like(volume)))
        assert read.grid.same_as(volume.grid, tolerance_mm=1e-3)


def test_segments_are_written_as_slicer_writes_them(tmp_path) -> None:
    """Statement 18: names with accents, separators and quotes."""
    volume = read_volume(save_nifti(tmp_path / "scan.nii", ct_like((5, 6, 7))))
    name = 'Läsion é 名前 "a|b~c^d&e"'
    labels = LabelVolume.like(
        volume, OrganTable([Organ(300, name, (0.1, 0.25, 1.0)), Organ(7, "empty", (1, 0, 0))])
    )
    labels.data = labels.data.astype(np.uint16)
    labels.grid.from_canonical(labels.data)[1:3, 2:5, 4] = 300
    path = write_labels(tmp_path / "a b é.seg.nrrd", labels)
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    reader.ReadImageInformation()
    assert reader.GetMetaData("Segment1_Name") == name
    assert reader.GetMetaData("Segment1_Extent") == "1 2 2 4 4 4"
    assert reader.GetMetaData("Segment0_Extent") == "0 -1 0 -1 0 -1"
    assert reader.GetMetaData("Segment1_LabelValue") == "300"
    assert reader.GetMetaData("Segment1_Color") == "0.1 0.25 1"
    assert 'Läsion é 名前 "a b c d e"' in reader.GetMetaData("Segment1_Tags")
    assert reader.GetMetaData("Segmentation_MasterRepresentation") == "Binary labelmap"
    header = path.read_bytes().split(b"\n\n")[0].decode()
    assert "space: left-posterior-superior" in header
    assert "kinds: domain domain domain" in header
    assert "encoding: gzip" in header
    assert read_labels(path).organs == labels.organs


@needs_open
def test_slicers_own_segments_are_read() -> None:
    labels = read_labels(OPEN / "ct_chest_segnrrd" / "Segmentation.seg.nrrd")
    assert labels.organs.name_of(1) == "ribs"
    assert labels.organs[1].color == pytest.approx((0.992157, 0.909804, 0.619608))
    assert labels.voxel_count(1) == 8487
    scan = read_volume(OPEN / "ct_chest_segnrrd" / "CTChest4.nrrd")
    assert scan.is_hounsfield
    assert scan.grid.same_as(labels.grid)


@needs_open
def test_overlapping_segments_are_refused_as_labels() -> None:
    with pytest.raises(LabelError, match="overlapping"):
        read_labels(OPEN / "ct_chest_segnrrd" / "SegmentationOverlapping.seg.nrrd")


def test_a_single_voxel_is_no_segmentation(tmp_path) -> None:
    labels = LabelVolume.like(read_volume(save_nifti(tmp_path / "scan.nii", ct_like((1, 1, 1)))))
    with pytest.raises(ExportError, match="single voxel"):
        write_labels(tmp_path / "labels.seg.nrrd", labels)


def test_further_axes_are_volumes_to_choose_from(tmp_path) -> None:
    array = ct_like((3, 4, 5, 6))
    for path in (tmp_path / "scan.nrrd", tmp_path / "scan.mha"):
        sitk.WriteImage(_image(array), str(path))
        assert volume_times(path) == 3
        assert any("3 volumes" in line for line in read_volume(path).warnings)
        volume = read_volume(path, time=2)
        assert np.array_equal(volume.grid.from_canonical(volume.data).transpose(2, 1, 0), array[2])
        with pytest.raises(ImageError, match="time 3"):
            read_volume(path, time=3)
    sitk.WriteImage(_image(ct_like((4, 5))), str(tmp_path / "flat.nrrd"))
    assert read_volume(tmp_path / "flat.nrrd").shape[0] == 1


def test_colours_are_refused(tmp_path) -> None:
    path = tmp_path / "scan.nrrd"
    sitk.WriteImage(_image(np.zeros((4, 5, 6, 3), dtype=np.uint8), is_vector=True), str(path))
    whole = path.read_bytes()
    assert b"kinds: vector domain" in whole
    path.write_bytes(whole.replace(b"kinds: vector", b"kinds: RGB-color"))
    with pytest.raises(ImageError, match="RGB"):
        read_volume(path)


def test_missing_orientation_is_said(tmp_path) -> None:
    path = tmp_path / "scan.nrrd"
    path.write_bytes(
        b"NRRD0004\ntype: uchar\ndimension: 3\nsizes: 2 3 4\nspacings: 1 2 3\nencoding: raw\n\n" + bytes(24)
    )
    volume = read_volume(path)
    assert volume.spacing == (3.0, 2.0, 1.0)
    assert "no orientation" in volume.warnings[0]


@pytest.mark.parametrize("ending", [".nrrd", ".mha"])
@pytest.mark.parametrize("is_packed", [True, False])
def test_truncated_and_damaged_files_are_image_errors(tmp_path, ending, is_packed) -> None:
    path = tmp_path / f"scan{ending}"
    sitk.WriteImage(_image(ct_like((4, 5, 6))), str(path), useCompression=is_packed)
    whole = path.read_bytes()
    for length in range(0, len(whole), 29):
        path.write_bytes(whole[:length])
        with pytest.raises(ImageError):
            read_volume(path)
    if not is_packed:
        return  # nothing in an uncompressed file tells a flipped bit
    expected = read_volume(_written(path, whole)).data
    start = whole.index(b"\n\n") + 12 if ending == ".nrrd" else whole.index(b"LOCAL\n") + 6
    for position in range(start, len(whole), 5):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << (position % 8)
        try:
            read = read_volume(_written(path, bytes(damaged))).data
        except ImageError:
            continue
        assert np.array_equal(read, expected)


def test_announced_sizes_are_checked_before_memory_is_taken(tmp_path) -> None:
    path = tmp_path / "scan.nrrd"
    header = (
        b"NRRD0004\ntype: double\ndimension: 3\nsizes: 32767 32767 32767\nendian: little\nencoding: gzip\n\n"
    )
    with pytest.raises(ImageError, match="truncated"):
        read_volume(_written(path, header + bytes(100)))
    path.write_bytes(b"NRRD0004\nnonsense")
    with pytest.raises(ImageError):
        read_volume(path)


def _written(path, content: bytes):
    path.write_bytes(content)
    return path
