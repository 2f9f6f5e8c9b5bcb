"""DICOM SEG out and in: voxels, places, numbers and names. Statements 12, 13, 18, 20, 24, 28 and 29."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk  # noqa: N813  # the name that its own manual uses
from pydicom.sr.coding import Code
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
    generate_uid,
)

from napari_sam_med import LabelVolume, read_labels, read_volume, write_labels
from napari_sam_med.errors import ExportError, ImageError, LabelError
from napari_sam_med.volume.formats import dicom, dicom_seg_writing
from napari_sam_med.volume.organs import Organ, OrganTable
from tests.shared_data import BAD, OPEN, needs_bad, needs_open
from tests.volume.dicom_files import change, save_series
from tests.volume.phantoms import ORIENTATIONS, affine_of, ct_like, save_nifti

SHAPE = (7, 6, 5)
OBLIQUE = (0.2, -0.3, 0.1)
ORGANS = OrganTable(
    [
        Organ(3, "liver", (0.78, 0.22, 0.18)),
        Organ(7, "Magen-Darm-Übergang 胃", (0.1, 0.9, 0.4)),
        Organ(300, "a \\ long name " + "x" * 80, (0.0, 0.0, 1.0)),
    ]
)


def _labels(folder: Path, codes: str = "LPS", tilt=OBLIQUE, **tags: object) -> LabelVolume:
    """Labels 3, 7 and 300 on a series, without symmetry; first and last slices are empty of some."""
    files = save_series(folder, ct_like(SHAPE), affine_of(codes, (0.7, 1.5, 3.0), tilt), **tags)
    labels = LabelVolume.like(read_volume(files[0]), ORGANS, np.uint16)
    labels.data[...] = np.random.default_rng(5).choice([0, 3, 7, 300], labels.shape, p=[0.7, 0.1, 0.1, 0.1])
    own = labels.grid.from_canonical(labels.data)
    own[:, :, 0] = 0
    own[2, 4, -1] = 7
    return labels


@pytest.mark.parametrize("codes", ORIENTATIONS)
def test_a_round_trip_keeps_voxels_numbers_names_and_colours(codes: str, tmp_path: Path) -> None:
    """Statements 18, 20 and 24: 48 orientations, oblique, anisotropic, numbers above 255."""
    labels = _labels(tmp_path / "ct", codes)
    again = read_labels(write_labels(tmp_path / "x.dcm", labels))
    assert np.array_equal(again.data, labels.data)
    assert again.grid.same_as(labels.grid, tolerance_mm=1e-4)
    assert {i: organ.name for i, organ in again.organs.items()} == {i: o.name for i, o in ORGANS.items()}
    for number, organ in ORGANS.items():
        assert np.allclose(again.organs[number].color, organ.color, atol=1.01 / 255)
    assert again.warnings == ()


@pytest.mark.parametrize("codes", ["LPS", "RIA", "PSR"])
def test_highdicom_reads_the_same_voxels_at_the_same_places(codes: str, tmp_path: Path) -> None:
    """Statement 24: no slice is dropped, also where it is empty."""
    labels = _labels(tmp_path / "ct", codes)
    write_labels(tmp_path / "x.dcm", labels)
    seg = hd.seg.segread(tmp_path / "x.dcm")
    assert seg.segmentation_type == hd.seg.SegmentationTypeValues.BINARY
    assert seg.segment_numbers == [1, 2, 3]
    scan = hd.get_volume_from_series([pydicom.dcmread(file) for file in (tmp_path / "ct").iterdir()])
    volume = seg.get_volume(combine_segments=True, allow_missing_positions=False)
    assert volume.spatial_shape == scan.spatial_shape
    placed = volume.match_geometry(scan, tol=1e-4)
    assert np.abs(placed.affine - scan.affine).max() < 1e-4
    own = labels.grid.from_canonical(labels.data)
    lps = np.diag([-1.0, -1, 1, 1]) @ labels.grid.affine
    same = hd.Volume(own.transpose(2, 1, 0), lps[:, [2, 1, 0, 3]], "PATIENT").match_geometry(scan, tol=1e-4)
    assert np.array_equal(np.array([0, 3, 7, 300])[placed.array], same.array)


def test_itk_reads_the_frames(tmp_path: Path) -> None:
    """Statement 24: SimpleITK knows the voxels of one segment, if its frames are whole bytes."""
    array, affine = ct_like((8, 6, 5)), affine_of("LPS", (0.7, 1.5, 3.0), OBLIQUE)
    labels = LabelVolume.like(read_volume(save_series(tmp_path / "ct", array, affine)[0]))
    labels.data[1:4, 2:, 3] = 6
    image = sitk.ReadImage(str(write_labels(tmp_path / "x.dcm", labels)))
    own = labels.grid.from_canonical(labels.data)
    assert np.array_equal(sitk.GetArrayFromImage(image) != 0, own.T != 0)


def test_what_the_file_says_of_itself(tmp_path: Path) -> None:
    labels = _labels(tmp_path / "ct")
    write_labels(tmp_path / "x.seg.dcm", labels, model={"name": "nano"})
    assert (tmp_path / "x.sam-med.json").is_file()
    seg = pydicom.dcmread(tmp_path / "x.seg.dcm")
    image = pydicom.dcmread(next((tmp_path / "ct").iterdir()))
    assert str(seg.PatientName) == "Müller^Jürgen"
    assert (seg.StudyInstanceUID, seg.FrameOfReferenceUID) == (
        image.StudyInstanceUID,
        image.FrameOfReferenceUID,
    )
    assert seg.SeriesInstanceUID != image.SeriesInstanceUID
    liver = seg.SegmentSequence[0]
    code = liver.SegmentedPropertyTypeCodeSequence[0]
    assert (code.CodeValue, code.CodingSchemeDesignator) == ("10200004", "SCT")
    assert (liver.SegmentLabel, liver.TrackingID) == ("liver", "napari-sam-med label 3")
    assert liver.SegmentAlgorithmType == "SEMIAUTOMATIC"
    assert liver.SegmentAlgorithmName == "napari-sam-med nano"
    referenced = {
        item.ReferencedSOPInstanceUID for item in seg.ReferencedSeriesSequence[0].ReferencedInstanceSequence
    }
    assert len(referenced) == 5


def test_one_slice_and_a_frame_of_odd_size(tmp_path: Path) -> None:
    """Statement 28; 35 bits of a frame do not end with a byte."""
    files = save_series(tmp_path / "ct", ct_like((7, 5, 1)), affine_of("LPS", (1, 1, 3)))
    labels = LabelVolume.like(read_volume(files[0]))
    labels.data[0, 1:3, 2] = 6
    again = read_labels(write_labels(tmp_path / "x.dcm", labels), reference=read_volume(files[0]))
    assert np.array_equal(again.data, labels.data)
    assert again.warnings == ()


@pytest.mark.parametrize(
    "size", [(8, 5), (9, 9), (5, 2), (7, 5), (5, 9), (6, 5), (3, 4), (2, 7), (9, 7), (181, 217), (1, 8)]
)
def test_frames_of_any_size_are_read_as_highdicom_reads_them(size: tuple[int, int], tmp_path: Path) -> None:
    """Statements 13 and 24: frames of every remainder of bits, which begin anywhere within a byte."""
    n_columns, n_rows = size
    array, affine = ct_like((n_columns, n_rows, 9)), affine_of("LPS", (0.7, 1.5, 3.0), OBLIQUE)
    volume = read_volume(save_series(tmp_path / "ct", array, affine)[0])
    labels = LabelVolume.like(volume)
    labels.data[...] = np.random.default_rng(n_rows).integers(0, 4, labels.shape)
    labels.data[-1, -1, -1] = 3
    again = read_labels(write_labels(tmp_path / "x.dcm", labels), reference=volume)
    assert np.array_equal(again.data, labels.data)
    seg = hd.seg.segread(tmp_path / "x.dcm")
    frames = seg.get_volume(combine_segments=True, allow_missing_positions=False)
    scan = hd.get_volume_from_series([pydicom.dcmread(file) for file in (tmp_path / "ct").iterdir()])
    own = again.grid.from_canonical(again.data)
    lps = np.diag([-1.0, -1, 1, 1]) @ again.grid.affine
    same = hd.Volume(own.transpose(2, 1, 0), lps[:, [2, 1, 0, 3]], "PATIENT").match_geometry(scan, tol=1e-4)
    numbers = np.array([0, *again.class_ids()])
    assert np.array_equal(numbers[frames.match_geometry(scan, tol=1e-4).array], same.array)


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian, RLELossless])
def test_a_seg_of_another_transfer_syntax(syntax: str, tmp_path: Path) -> None:
    labels = _labels(tmp_path / "ct")
    image = pydicom.dcmread(write_labels(tmp_path / "x.dcm", labels))
    if syntax == RLELossless:  # of whole bytes a voxel
        image.PixelData, image.BitsAllocated = image.pixel_array.astype(np.uint8).tobytes(), 8
        image.BitsStored, image.HighBit = 8, 7
        image.compress(RLELossless)
    image.file_meta.TransferSyntaxUID = syntax
    image.save_as(tmp_path / "y.dcm")
    assert np.array_equal(read_labels(tmp_path / "y.dcm").data, labels.data)


def test_a_seg_that_was_cut_is_refused(tmp_path: Path) -> None:
    path = write_labels(tmp_path / "x.dcm", _labels(tmp_path / "ct"))
    change(path, PixelData=pydicom.dcmread(path).PixelData[:-10])
    with pytest.raises(ImageError, match=r"announces 79 bytes of voxels, but there are 70"):
        read_labels(path)


def test_a_seg_without_pixels_is_refused(tmp_path: Path) -> None:
    path = write_labels(tmp_path / "x.dcm", _labels(tmp_path / "ct"))
    change(path, Rows=0)
    with pytest.raises(ImageError, match="announces no pixels"):
        read_labels(path)


def test_a_gantry_tilt(tmp_path: Path) -> None:
    """Statement 27."""
    affine = affine_of("LPS", (1, 1, 3))
    affine[1, 2] = 0.8
    volume = read_volume(save_series(tmp_path / "ct", ct_like(SHAPE), affine)[0])
    labels = LabelVolume.like(volume)
    labels.data[1:3, 2:4, 3] = 5
    again = read_labels(write_labels(tmp_path / "x.dcm", labels), reference=volume)
    assert np.array_equal(again.data, labels.data)
    assert again.grid.same_as(volume.grid, tolerance_mm=1e-4)


def test_a_multi_frame_source(tmp_path: Path) -> None:
    files = save_series(tmp_path / "ct", ct_like(SHAPE), affine_of("PSR", (1, 1.5, 3), OBLIQUE))
    order = [3, 0, 4, 1, 2]
    enhanced = hd.legacy.LegacyConvertedEnhancedCTImage(
        [pydicom.dcmread(files[k]) for k in order], generate_uid(), 7, generate_uid(), 1
    )
    enhanced.save_as(tmp_path / "enhanced.dcm")
    volume = read_volume(tmp_path / "enhanced.dcm")
    labels = LabelVolume.like(volume)
    labels.data[...] = np.random.default_rng(1).integers(0, 3, labels.shape)
    again = read_labels(write_labels(tmp_path / "x.dcm", labels, source=volume), reference=volume)
    assert np.array_equal(again.data, labels.data)


def test_an_anonymised_series(tmp_path: Path) -> None:
    """Names and dates that anonymisers remove may be missing."""
    gone = dict.fromkeys(["PatientID", "PatientName", "PatientBirthDate", "StudyDate", "AccessionNumber"])
    labels = _labels(tmp_path / "ct", **gone)
    assert np.array_equal(read_labels(write_labels(tmp_path / "x.dcm", labels)).data, labels.data)


class TestNotWritten:
    """Statement 12: an error, and the previous file as it was."""

    @pytest.fixture
    def labels(self, tmp_path: Path) -> LabelVolume:
        (tmp_path / "x.dcm").write_bytes(b"previous")
        return _labels(tmp_path / "ct")

    def refused(self, folder: Path, labels: LabelVolume, says: str) -> None:
        with pytest.raises(ExportError, match=says) as caught:
            write_labels(folder / "x.dcm", labels)
        assert "\n" not in str(caught.value)
        assert (folder / "x.dcm").read_bytes() == b"previous"
        assert [path.name for path in folder.iterdir() if "partial" in path.name] == []

    def test_of_a_scan_that_is_no_dicom(self, labels: LabelVolume, tmp_path: Path) -> None:
        scan = save_nifti(tmp_path / "scan.nii", ct_like())
        other = LabelVolume.like(read_volume(scan))
        other.data[1, 1, 1] = 1
        self.refused(tmp_path, other, r"this scan is none; write .seg.nrrd or .nii.gz")

    def test_of_nothing(self, labels: LabelVolume, tmp_path: Path) -> None:
        labels.data[...] = 0
        self.refused(tmp_path, labels, "No voxel is labelled")

    def test_where_the_series_is_gone(self, labels: LabelVolume, tmp_path: Path) -> None:
        shutil.rmtree(tmp_path / "ct")
        self.refused(tmp_path, labels, "bring the series back")

    def test_where_the_series_lacks_what_it_refers_to(self, labels: LabelVolume, tmp_path: Path) -> None:
        change(tmp_path / "ct" / "IM010", FrameOfReferenceUID=None)
        self.refused(tmp_path, labels, "IM010 lacks FrameOfReferenceUID")

    def test_on_slices_that_moved_since(self, labels: LabelVolume, tmp_path: Path) -> None:
        """Statement 13: found by reading the file again."""
        save_series(tmp_path / "ct", ct_like(SHAPE), affine_of("LPS", (0.7, 1.5, 3.1), OBLIQUE))
        self.refused(tmp_path, labels, "another place")

    def test_more_than_a_file_can_hold(
        self, labels: LabelVolume, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(dicom_seg_writing, "_LARGEST", 50)
        self.refused(tmp_path, labels, "more than one file can hold")

    def test_without_the_extra(
        self, labels: LabelVolume, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(dicom, "_PACKAGES", ("no_such_package",))
        self.refused(tmp_path, labels, "pip install")

    def test_when_other_voxels_reach_the_disk(
        self, labels: LabelVolume, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Statement 13."""
        save = hd.seg.Segmentation.save_as

        def save_damaged(seg: hd.seg.Segmentation, path: Path) -> None:
            seg.PixelData = bytes(len(seg.PixelData))
            save(seg, path)

        monkeypatch.setattr(hd.seg.Segmentation, "save_as", save_damaged)
        self.refused(tmp_path, labels, "other values")

    def test_on_a_full_disk(
        self, labels: LabelVolume, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(_: int) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "fsync", full)
        self.refused(tmp_path, labels, "No space left")


def _foreign_seg(folder: Path, array: np.ndarray, kind: str = "BINARY", **options: object) -> Path:
    """A SEG of another program on the series in `folder`/ct; `array` (slices, rows, columns[, segments])."""
    files = sorted((folder / "ct").iterdir(), key=lambda p: pydicom.dcmread(p).InstanceNumber)
    images = [pydicom.dcmread(file) for file in files]
    n_segments = array.shape[3] if array.ndim == 4 else int(array.max())
    organ = Code("113343008", "SCT", "Organ")
    rows = [
        hd.seg.SegmentDescription(n, f"part {n}", organ, organ, hd.seg.SegmentAlgorithmTypeValues.MANUAL)
        for n in range(1, n_segments + 1)
    ]
    seg = hd.seg.Segmentation(
        images, array, kind, rows, hd.UID(), 9, hd.UID(), 1, "somebody", "x", "1", "2", **options
    )
    seg.save_as(folder / "foreign.dcm")
    return folder / "foreign.dcm"


@pytest.mark.parametrize("kind", ["BINARY", "LABELMAP"])
def test_a_seg_of_another_program_without_its_empty_slices(kind: str, tmp_path: Path) -> None:
    """Placed by the positions of its frames, never by their count."""
    labels = _labels(tmp_path / "ct")
    array = np.zeros(SHAPE[::-1], np.uint8)
    array[1, 2:4, 3], array[3, 1, 1:5] = 1, 2
    path = _foreign_seg(tmp_path, array, kind, omit_empty_frames=True)
    volume = read_volume(tmp_path / "ct")
    read = read_labels(path, reference=volume)
    expected = volume.grid.to_canonical(array.T)
    assert read.grid is volume.grid
    assert np.array_equal(read.data, expected)
    assert read.organs.name_of(2) == "part 2"
    assert labels.grid.same_as(read.grid)


def test_overlapping_segments_are_refused_by_name(tmp_path: Path) -> None:
    _labels(tmp_path / "ct")
    array = np.zeros((*SHAPE[::-1], 2), np.uint8)
    array[2, 2:4, 3, 0] = array[2, 3:5, 3, 1] = 1
    with pytest.raises(LabelError, match=r"overlapping segments \(part 1 and part 2 share 1 voxels"):
        read_labels(_foreign_seg(tmp_path, array))


def test_probabilities_are_refused(tmp_path: Path) -> None:
    _labels(tmp_path / "ct")
    array = np.full(SHAPE[::-1], 0.5, np.float32)
    path = _foreign_seg(tmp_path, np.concatenate([array[..., None]], -1), "FRACTIONAL")
    with pytest.raises(LabelError, match="FRACTIONAL"):
        read_labels(path)


def test_a_seg_of_another_patient_is_refused(tmp_path: Path) -> None:
    path = write_labels(tmp_path / "x.dcm", _labels(tmp_path / "ct"))
    far = affine_of("LPS", (0.7, 1.5, 3.0), OBLIQUE, origin=(400, 0, 0))
    other = read_volume(save_series(tmp_path / "other", ct_like(SHAPE), far)[0])
    with pytest.raises(LabelError, match="another place"):
        read_labels(path, reference=other)


def test_a_seg_beside_its_series_is_no_second_series(tmp_path: Path) -> None:
    labels = _labels(tmp_path / "ct")
    write_labels(tmp_path / "ct" / "x.dcm", labels)
    assert read_volume(tmp_path / "ct").shape == labels.shape


@needs_open
def test_a_real_seg_on_its_real_series(tmp_path: Path) -> None:
    folder = OPEN / "dicom_seg_liver_3slice"
    volume = read_volume(folder / "01.dcm")
    liver = read_labels(folder / "liver.dcm", reference=volume)
    truth = read_labels(folder / "liver_spine_seg.nrrd", reference=volume)
    assert np.array_equal(liver.data == 1, truth.data == 1)
    assert liver.organs[1].name == "Liver"
    again = read_labels(write_labels(tmp_path / "x.dcm", truth, source=volume), reference=volume)
    assert np.array_equal(again.data, truth.data)
    with pytest.raises(LabelError, match="overlapping"):
        read_labels(folder / "partial_overlaps.dcm", reference=volume)


@needs_bad
def test_the_segs_of_the_pack() -> None:
    labels = read_labels(BAD / "r26_dicom_seg_labelmap.dcm")
    assert (labels.shape, labels.organs.name_of(1)) == ((3, 38, 24), "Liver")
    assert not labels.data[1].any()
    with pytest.raises(LabelError, match="GREEN and ORANGE"):
        read_labels(BAD / "r25_dicom_seg_overlapping.dcm")
