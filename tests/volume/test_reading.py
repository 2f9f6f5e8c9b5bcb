"""Every odd and broken file of the shared pack: it works with a warning line, or is refused in one line."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from napari_sam_med import LabelVolume, SliceView, read_labels, read_volume, to_rgb, write_labels
from napari_sam_med.errors import ImageError, LabelError, SamMedError
from napari_sam_med.volume.reading import volume_times
from tests.shared_data import BAD, needs_bad
from tests.volume.phantoms import affine_of, ct_like, save_nifti

CROP = (20, 60, 80)

# file: shape (z, y, x), dtype, what each warning must say
OPENS: dict[str, tuple[tuple[int, int, int], str, tuple[str, ...]]] = {
    "r01_4d_oblique.nii.gz": ((24, 96, 128), "int16", ("2 volumes",)),
    "r02_nifti2_4d.nii.gz": ((12, 20, 32), "int16", ("2 volumes",)),
    "r03_bigendian_int16_detneg.nii": ((25, 41, 33), "int16", ()),
    "r04_bigendian_float32.nii": ((22, 26, 21), "float32", ()),
    "r05_nan_3slices.nii": ((3, 21, 17), "float32", ()),
    "r06_4d_sclslope.nii": ((3, 21, 17), "float32", ("20 volumes",)),
    "r07_oblique17_3mm.nii.gz": ((33, 61, 53), "float32", ()),
    "r08_tiny_4x5x7.nii.gz": ((7, 5, 4), "uint8", ()),
    "r17_sform_shear_label.nii.gz": ((16, 141, 131), "float32", ()),
    "r18_ct_pitch_16deg.nii.gz": ((58, 248, 175), "uint8", ()),
    "r19_ct_scl_slope.nii.gz": ((154, 242, 256), "float32", ()),
    "r26_dicom_seg_labelmap.dcm": ((3, 38, 24), "uint8", ()),
    "r27_overlapping.seg.nrrd": ((34, 128, 128), "uint8", ("2 volumes",)),
    "r28_dicom_decimal_rescale.dcm": ((1, 96, 128), "int16", ("nothing to see",)),
    "r29_dicom_empty_slicethickness.dcm": ((384, 384, 1), "uint16", ("1 mm is taken",)),
    "r31_two_series_dicom/0.dcm": ((1, 256, 256), "uint16", ()),
    "d01_crop_good.nii.gz": (CROP, "int16", ()),
    "d03_not_gzipped.nii.gz": (CROP, "int16", ("not gzipped",)),
    "d04_gzipped.nii": (CROP, "int16", ("is gzipped",)),
    "d07_sform_qform_disagree.nii.gz": (CROP, "int16", ("sform and qform",)),
    "d08_oblique25.nii.gz": (CROP, "int16", ()),
    "d09_sheared.nii.gz": (CROP, "int16", ("right angles .shear 0.32",)),
    "d10_detneg_LAS.nii.gz": (CROP, "int16", ()),
    "d11_PIR_axes.nii.gz": (CROP, "int16", ()),
    "d12_label_int64.nii.gz": (CROP, "int64", ()),
    "d13_label_float_noise.nii.gz": (CROP, "float32", ()),
    "d14_label_0_255.nii.gz": (CROP, "uint8", ("nothing to see",)),
    "d15_label_half_grid.nii.gz": ((10, 30, 40), "uint8", ()),
    "d16_scl_slope.nii.gz": (CROP, "float32", ()),
    "d17_nan_inf.nii.gz": (CROP, "float32", ()),
    "d18_all_nan.nii.gz": ((8, 16, 16), "float32", ("nothing to see",)),
    "d19_constant.nii.gz": ((8, 32, 32), "int16", ("nothing to see",)),
    "d20_2d.nii.gz": ((1, 60, 80), "int16", ()),
    "d21_one_slice_3d.nii.gz": ((1, 60, 80), "int16", ()),
    "d22_5d.nii.gz": (CROP, "int16", ("2 volumes .5-D",)),
    "d23_4d_single.nii.gz": (CROP, "int16", ()),
    "d24_no_orientation.nii.gz": (CROP, "int16", ("no orientation",)),
    "d25_pixdim_zero_neg.nii": (CROP, "int16", ("voxel sizes 0 x 3 x -3",)),
    "d26_nan_affine.nii": (CROP, "int16", ("sform is damaged", "check left and right")),
    "d27_uint16_12bit.nii.gz": (CROP, "uint16", ()),
    "d28_analyze75.hdr": (CROP, "int16", ("no orientation",)),
    "d28_analyze75.img": (CROP, "int16", ("no orientation",)),
    "d29_nifti_pair.hdr": (CROP, "int16", ()),
    "d29_nifti_pair.img": (CROP, "int16", ()),
    "d30_nifti2_3d.nii.gz": (CROP, "int16", ()),
    "d31_bigendian_ct.nii.gz": (CROP, "float32", ()),
    "d32_float64.nii.gz": (CROP, "float64", ()),
    "d33_label_negative.nii.gz": (CROP, "int16", ()),
    "d34_accented_naïve_名前.nii.gz": (CROP, "int16", ()),
    "r23_label_other_grid/image_122x102x112.nii.gz": ((112, 102, 122), "int16", ()),
}
REFUSED: dict[str, str] = {
    "r09_header_only_nifti1.hdr": "r09_header_only_nifti1.img is missing",
    "r10_header_only_nifti2.hdr": "r10_header_only_nifti2.img is missing",
    "r11_header_only_analyze.hdr": "r11_header_only_analyze.img is missing",
    "r12_cifti_dconn.nii": "not a voxel image",
    "r13_mgh_4d.mgz": "not supported",
    "r14_minc.mnc": "not supported",
    "r15_afni_bad_datatype+orig.HEAD": "not supported",
    "r16_rgb_10x10x4.nii.gz": "RGB",
    "r20_gitlfs_pointer.nrrd": "Git LFS pointer",
    "r21_gitlfs_pointer.nii.gz": "Git LFS pointer",
    "r22_appledouble/._seg.nii.gz": "AppleDouble",
    "r31_two_series_dicom": "2 series",
    "r32_missing_slice_dicom": "4 mm from -782.5 to -778.5",
    "d02_truncated.nii.gz": "truncated",
    "d05_empty.nii.gz": "empty",
    "d06_header_only.nii": "truncated",
    "README.md": "no scan",
    "no such file.nii": "does not exist",
}
# file, scan that it is laid on: class numbers, what each warning must say
LABELS: dict[tuple[str, str | None], tuple[tuple[int, ...], tuple[str, ...]]] = {
    ("d12_label_int64.nii.gz", "d01_crop_good.nii.gz"): ((9,), ()),
    ("d12_label_int64.nii.gz", "d11_PIR_axes.nii.gz"): ((9,), ()),
    ("d12_label_int64.nii.gz", "d10_detneg_LAS.nii.gz"): ((9,), ()),
    ("d13_label_float_noise.nii.gz", "d01_crop_good.nii.gz"): ((9,), ()),
    ("d14_label_0_255.nii.gz", None): ((), ()),  # its mask is empty
    ("d15_label_half_grid.nii.gz", "d01_crop_good.nii.gz"): ((9,), ("another grid",)),
    ("d33_label_negative.nii.gz", None): ((), ("negative labels .-1",)),
    ("r08_tiny_4x5x7.nii.gz", None): ((1,), ("0 and 255",)),
    ("r17_sform_shear_label.nii.gz", None): ((1,), ()),
    ("r26_dicom_seg_labelmap.dcm", None): ((1,), ()),
    (
        "r23_label_other_grid/label_ok_122x102x112.nii.gz",
        "r23_label_other_grid/image_122x102x112.nii.gz",
    ): ((1,), ()),
    (
        "r23_label_other_grid/label_heart_233x167x191.nii.gz",
        "r23_label_other_grid/image_122x102x112.nii.gz",
    ): ((1,), ("another grid",)),
}
LABELS_REFUSED: dict[tuple[str, str | None], str] = {
    ("d01_crop_good.nii.gz", None): "is this the scan",
    ("d16_scl_slope.nii.gz", None): "whole numbers",
    ("d18_all_nan.nii.gz", None): "whole numbers",
    ("r01_4d_oblique.nii.gz", None): "2 volumes",
    ("r25_dicom_seg_overlapping.dcm", None): "overlapping",
    ("r26_dicom_seg_labelmap.dcm", "d01_crop_good.nii.gz"): "none of it lies inside",
    ("r27_overlapping.seg.nrrd", None): "overlapping",
    ("r20_gitlfs_pointer.nrrd", None): "Git LFS",
    ("d12_label_int64.nii.gz", "r07_oblique17_3mm.nii.gz"): "none of it lies inside",
    (
        "r24_same_shape_other_affine/seg_identity_affine_float64.nii.gz",
        "r24_same_shape_other_affine/seg_LPS_origin-239.nii.gz",
    ): "shape of the scan but another place",
}


@needs_bad
@pytest.mark.parametrize("name", OPENS)
def test_odd_scans_open_with_a_line_about_what_is_odd(name: str, tmp_path) -> None:
    shape, dtype, warnings = OPENS[name]
    volume = read_volume(BAD / name)
    assert (volume.shape, volume.data.dtype.name) == (shape, dtype)
    assert len(volume.warnings) == len(warnings), volume.warnings
    for line, pattern in zip(volume.warnings, warnings, strict=True):
        assert "\n" not in line
        assert re.search(pattern, line)
    assert np.isfinite(volume.affine).all()
    assert min(volume.spacing) > 0
    image = to_rgb(volume, SliceView("axial", volume.shape[0] // 2))
    assert image.shape == (*volume.shape[1:], 3)
    labels = LabelVolume.like(volume)
    labels.assign(SliceView("coronal", 0), np.ones(SliceView("coronal", 0).slice_shape(shape)), 6)
    again = read_labels(write_labels(tmp_path / f"{volume.path.stem} é.nii.gz", labels), reference=volume)
    assert np.array_equal(again.data, labels.data)


@needs_bad
@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_scan_is_refused_in_one_line(name: str) -> None:
    for read in (read_volume, read_labels, volume_times):
        if read is volume_times and name in ("d02_truncated.nii.gz",):
            continue  # its header is sound, and only the header is read
        with pytest.raises(ImageError, match=REFUSED[name]) as raised:
            read(BAD / name)  # type: ignore[operator]
        assert "\n" not in str(raised.value)


@needs_bad
@pytest.mark.parametrize(("name", "scan"), LABELS)
def test_odd_labels_are_whole_numbers_on_the_grid_of_the_scan(name: str, scan: str | None) -> None:
    class_ids, warnings = LABELS[name, scan]
    reference = None if scan is None else read_volume(BAD / scan)
    labels = read_labels(BAD / name, reference=reference)
    assert labels.class_ids() == class_ids
    assert labels.data.dtype == np.uint8
    assert len(labels.warnings) == len(warnings), labels.warnings
    for line, pattern in zip(labels.warnings, warnings, strict=True):
        assert re.search(pattern, line)
    if reference is not None:
        assert labels.grid is reference.grid
        assert labels.path == reference.path


@needs_bad
@pytest.mark.parametrize(("name", "scan"), LABELS_REFUSED)
def test_what_cannot_be_labels_is_refused(name: str, scan: str | None) -> None:
    reference = None if scan is None else read_volume(BAD / scan)
    with pytest.raises((LabelError, ImageError), match=LABELS_REFUSED[name, scan]):
        read_labels(BAD / name, reference=reference)


@needs_bad
def test_the_whole_pack_is_in_these_tables() -> None:
    known = {Path(name).parts[0] for name in [*OPENS, *REFUSED]} | {
        Path(a).parts[0] for a, _ in LABELS_REFUSED
    }
    pairs = {"d28_analyze75.img", "d29_nifti_pair.img"}
    large = {"r30_kits_ipl_axes.nii.gz"}  # in a test of its own
    assert set(os.listdir(BAD)) <= known | pairs | large


@needs_bad
@pytest.mark.slow
def test_a_volume_whose_first_axis_is_head_foot_is_cut_by_its_affine() -> None:
    volume = read_volume(BAD / "r30_kits_ipl_axes.nii.gz")
    assert volume.shape == (611, 512, 512)
    assert volume.spacing == pytest.approx((0.5, 0.9199, 0.9199), abs=1e-3)
    assert volume.grid.file_axis("axial") == 0


@needs_bad
def test_the_same_anatomy_in_other_axes_is_the_same_volume() -> None:
    good = read_volume(BAD / "d01_crop_good.nii.gz")
    for name in (
        "d10_detneg_LAS.nii.gz",
        "d11_PIR_axes.nii.gz",
        "d03_not_gzipped.nii.gz",
        "d30_nifti2_3d.nii.gz",
    ):
        other = read_volume(BAD / name)
        assert np.array_equal(other.data, good.data)
        assert other.grid.same_voxels_as(good.grid)
    scaled = read_volume(BAD / "d16_scl_slope.nii.gz")
    assert np.allclose(scaled.data, 2.5 * np.array(good.data, dtype=float) - 100, atol=1.0)
    assert good.is_hounsfield
    assert not read_volume(BAD / "d27_uint16_12bit.nii.gz").is_hounsfield
    assert not read_volume(BAD / "r18_ct_pitch_16deg.nii.gz").is_hounsfield


@needs_bad
def test_labels_placed_by_affine_lie_at_the_same_millimetres() -> None:
    reference = read_volume(BAD / "d01_crop_good.nii.gz")
    placed = read_labels(BAD / "d15_label_half_grid.nii.gz", reference=reference)
    coarse = read_labels(BAD / "d15_label_half_grid.nii.gz")
    for index in np.argwhere(coarse.data == 9):
        there = reference.grid.index_zyx_from_world_ras(coarse.grid.world_ras_from_index_zyx(index))
        assert placed.data[tuple(round(i) for i in there)] == 9


def _labels_file(path: Path, values: np.ndarray) -> Path:
    return save_nifti(path, values, affine_of("LPS", (1.0, 1.0, 2.0)))


@pytest.mark.parametrize(
    ("values", "dtype", "expected"),
    [
        ([0, 1, 255], np.uint8, [0, 1, 255]),
        ([0, 0, 255], np.uint8, [0, 0, 1]),
        ([0, 0, 255], np.float32, [0, 0, 1]),
        ([0, 7, 256], np.int32, [0, 7, 256]),
        ([0, 7, 65535], np.float64, [0, 7, 65535]),
        ([-1, -2, 3], np.int16, [0, 0, 3]),
        ([1.0004, 1.9996, 3], np.float32, [1, 2, 3]),
    ],
)
def test_values_become_the_smallest_whole_numbers(tmp_path, values, dtype, expected) -> None:
    labels = read_labels(
        _labels_file(tmp_path / "labels.nii", np.array(values, dtype=dtype).reshape(3, 1, 1))
    )
    assert labels.data.ravel().tolist() == expected
    assert labels.data.dtype == (np.uint8 if max(expected) < 256 else np.uint16)


@pytest.mark.parametrize(
    "values",
    [
        np.array([0, 0.5, 1], dtype=np.float32),
        np.array([0, 65536, 1], dtype=np.int32),
        np.array([0, np.inf, 1], dtype=np.float32),
        np.array([0, 1e30, 1], dtype=np.float32),
        np.arange(-6, 0, dtype=np.int16),
    ],
)
def test_values_that_are_no_labels_are_refused(tmp_path, values) -> None:
    with pytest.raises(LabelError):
        read_labels(_labels_file(tmp_path / "labels.nii", values.reshape(-1, 1, 1)))


@pytest.mark.parametrize("noise_mm", [0.0, 1e-9, -1e-9])
def test_outer_label_voxels_are_placed_whole(tmp_path, noise_mm: float) -> None:
    """A coarse label voxel covers the fine ones beyond its centre, too, and rounding loses no outer slice."""
    scan = read_volume(save_nifti(tmp_path / "scan.nii", ct_like((8, 8, 8)), np.eye(4)))
    coarse = np.diag([2.0, 2.0, 2.0, 1.0])
    coarse[:3, 3] = 0.5 + noise_mm
    numbers = np.arange(1, 65, dtype=np.uint8).reshape(4, 4, 4)
    labels = read_labels(save_nifti(tmp_path / "labels.nii", numbers, coarse), reference=scan)
    expected = numbers.repeat(2, 0).repeat(2, 1).repeat(2, 2)
    assert np.array_equal(scan.grid.from_canonical(labels.data), expected)


def test_labels_outside_the_scan_are_counted(tmp_path) -> None:
    scan = read_volume(save_nifti(tmp_path / "scan.nii", ct_like((8, 8, 8)), np.eye(4)))
    shifted = np.eye(4)
    shifted[0, 3] = 4
    path = save_nifti(tmp_path / "labels.nii", np.ones((8, 8, 8), dtype=np.uint8), shifted)
    labels = read_labels(path, reference=scan)
    assert labels.voxel_count(1) == 256
    assert "50.0% of the labelled voxels lie outside" in labels.warnings[0]
    assert "shape of the scan but another place" in labels.warnings[0]


def test_a_sidecar_names_labels_that_cannot_name_themselves(tmp_path) -> None:
    scan = read_volume(save_nifti(tmp_path / "scan.nii", ct_like()))
    labels = LabelVolume.like(scan)
    labels.data[0] = 6
    path = write_labels(tmp_path / "labels.mha", labels)
    assert read_labels(path).organs.name_of(6) == "liver"
    beside = tmp_path / "labels.sam-med.json"
    for content in (b"{", b"[]", b'{"schema_version": 9}', b'{"schema_version": 1}', b"\xff"):
        beside.write_bytes(content)
        named = read_labels(path)
        assert named.organs.name_of(6) == "label 6"
        assert "labels.sam-med.json" in named.warnings[0]
    beside.unlink()
    assert read_labels(path).warnings == ()


def test_paths_are_strings_or_path_like_and_pairs_open_from_either_half(tmp_path) -> None:
    path = save_nifti(tmp_path / "scan.img", ct_like())
    assert np.array_equal(read_volume(str(path)).data, read_volume(path.with_suffix(".hdr")).data)
    shutil.move(path, tmp_path / "elsewhere.img")
    with pytest.raises(ImageError, match=r"scan\.img is missing"):
        read_volume(path.with_suffix(".hdr"))
    with pytest.raises(ImageError, match=r"elsewhere\.hdr is missing"):
        read_volume(tmp_path / "elsewhere.img")


def test_unreadable_files_name_the_reason(tmp_path, monkeypatch) -> None:
    path = save_nifti(tmp_path / "scan.nii", ct_like())

    def deny(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", deny)
    with pytest.raises(SamMedError, match="Permission denied"):
        read_volume(path)
