"""Every odd or broken file goes through the command line: it works on its own grid, or is refused."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import unicodedata
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from napari_sam_med import read_volume
from napari_sam_med.cli import main
from napari_sam_med.volume.grid import Grid
from tests.shared_data import BAD, needs_bad

pytestmark = needs_bad

QUIET = ""  # works, and there is nothing to say about it

WORKS = {
    "d01_crop_good.nii.gz": QUIET,
    "d03_not_gzipped.nii.gz": "not gzipped",
    "d04_gzipped.nii": "gzipped",
    "d07_sform_qform_disagree.nii.gz": "sform is used",
    "d08_oblique25.nii.gz": QUIET,
    "d09_sheared.nii.gz": "right angles",
    "d10_detneg_LAS.nii.gz": QUIET,
    "d11_PIR_axes.nii.gz": QUIET,
    "d12_label_int64.nii.gz": "looks like labels",
    "d13_label_float_noise.nii.gz": QUIET,
    "d14_label_0_255.nii.gz": "nothing to see",
    "d15_label_half_grid.nii.gz": "looks like labels",
    "d16_scl_slope.nii.gz": QUIET,
    "d17_nan_inf.nii.gz": QUIET,
    "d18_all_nan.nii.gz": "nothing to see",
    "d19_constant.nii.gz": "nothing to see",
    "d20_2d.nii.gz": QUIET,
    "d21_one_slice_3d.nii.gz": QUIET,
    "d22_5d.nii.gz": "the first is used",
    "d23_4d_single.nii.gz": QUIET,
    "d24_no_orientation.nii.gz": "no orientation",
    "d25_pixdim_zero_neg.nii": "impossible",
    "d26_nan_affine.nii": "damaged",
    "d27_uint16_12bit.nii.gz": QUIET,
    "d28_analyze75.hdr": "no orientation",
    "d28_analyze75.img": "no orientation",
    "d29_nifti_pair.hdr": QUIET,
    "d29_nifti_pair.img": QUIET,
    "d30_nifti2_3d.nii.gz": QUIET,
    "d31_bigendian_ct.nii.gz": QUIET,
    "d32_float64.nii.gz": QUIET,
    "d33_label_negative.nii.gz": QUIET,
    "d34_accented_naïve_名前.nii.gz": QUIET,
    "r01_4d_oblique.nii.gz": "the first is used",
    "r02_nifti2_4d.nii.gz": "the first is used",
    "r03_bigendian_int16_detneg.nii": QUIET,
    "r04_bigendian_float32.nii": QUIET,
    "r05_nan_3slices.nii": QUIET,
    "r06_4d_sclslope.nii": "the first is used",
    "r07_oblique17_3mm.nii.gz": QUIET,
    "r08_tiny_4x5x7.nii.gz": QUIET,
    "r17_sform_shear_label.nii.gz": "looks like labels",
    "r18_ct_pitch_16deg.nii.gz": QUIET,
    "r19_ct_scl_slope.nii.gz": QUIET,
    "r23_label_other_grid/image_122x102x112.nii.gz": QUIET,
    "r23_label_other_grid/label_heart_233x167x191.nii.gz": "looks like labels",
    "r23_label_other_grid/label_ok_122x102x112.nii.gz": QUIET,
    "r24_same_shape_other_affine/seg_LPS_origin-239.nii.gz": "looks like labels",
    "r24_same_shape_other_affine/seg_identity_affine_float64.nii.gz": "looks like labels",
    "r26_dicom_seg_labelmap.dcm": "looks like labels",
    "r27_overlapping.seg.nrrd": "the first is used",
    "r28_dicom_decimal_rescale.dcm": "nothing to see",
    "r29_dicom_empty_slicethickness.dcm": "1 mm is taken",
    "r31_two_series_dicom/0.dcm": QUIET,
    "r30_kits_ipl_axes.nii.gz": "looks like labels",
}

REFUSED = {
    "d02_truncated.nii.gz": "truncated",
    "d05_empty.nii.gz": "empty",
    "d06_header_only.nii": "truncated",
    "r09_header_only_nifti1.hdr": "r09_header_only_nifti1.img",
    "r10_header_only_nifti2.hdr": "r10_header_only_nifti2.img",
    "r11_header_only_analyze.hdr": "r11_header_only_analyze.img",
    "r12_cifti_dconn.nii": "CIFTI",
    "r13_mgh_4d.mgz": "FreeSurfer",
    "r14_minc.mnc": "MINC",
    "r15_afni_bad_datatype+orig.HEAD": "AFNI",
    "r16_rgb_10x10x4.nii.gz": "RGB",
    "r20_gitlfs_pointer.nrrd": "Git LFS",
    "r21_gitlfs_pointer.nii.gz": "Git LFS",
    "r22_appledouble/._seg.nii.gz": "AppleDouble",
    "r25_dicom_seg_overlapping.dcm": "overlapping segments",
    "r31_two_series_dicom": "2 series",
    "r32_missing_slice_dicom": "not evenly spaced",
}

_IMAGE = "r23_label_other_grid/image_122x102x112.nii.gz"
CONVERTED = [
    # labels, reference, ending, voxels of each label afterwards, what is said
    ("d12_label_int64.nii.gz", None, ".nii.gz", {9: 54}, QUIET),
    ("d13_label_float_noise.nii.gz", None, ".seg.nrrd", {9: 54}, QUIET),
    ("d14_label_0_255.nii.gz", None, ".nrrd", {}, "no labelled voxel"),
    ("d15_label_half_grid.nii.gz", None, ".mha", {9: 6}, QUIET),
    ("d15_label_half_grid.nii.gz", "d01_crop_good.nii.gz", ".nii.gz", {9: 48}, "placed by its affine"),
    ("d33_label_negative.nii.gz", None, ".nii", {}, "negative"),
    ("r08_tiny_4x5x7.nii.gz", None, ".seg.nrrd", {1: 30}, "0 and 255"),
    ("r17_sform_shear_label.nii.gz", None, ".nii.gz", {1: 141}, QUIET),
    ("r26_dicom_seg_labelmap.dcm", None, ".seg.nrrd", {1: 630}, QUIET),
    ("r23_label_other_grid/label_ok_122x102x112.nii.gz", _IMAGE, ".seg.nrrd", {1: 253}, QUIET),
    ("r23_label_other_grid/label_heart_233x167x191.nii.gz", _IMAGE, ".nii.gz", {1: 198176}, "another grid"),
]
NOT_CONVERTED = [
    ("d01_crop_good.nii.gz", None, "is this the scan"),
    ("d18_all_nan.nii.gz", None, "whole numbers"),
    ("r01_4d_oblique.nii.gz", None, "one label"),
    ("r27_overlapping.seg.nrrd", None, "overlapping"),
    ("r25_dicom_seg_overlapping.dcm", None, "overlapping segments"),
    ("r26_dicom_seg_labelmap.dcm", "d01_crop_good.nii.gz", "none of it lies inside"),
    ("d12_label_int64.nii.gz", "r07_oblique17_3mm.nii.gz", "another grid"),
    (
        "r24_same_shape_other_affine/seg_identity_affine_float64.nii.gz",
        "r24_same_shape_other_affine/seg_LPS_origin-239.nii.gz",
        "another place",
    ),
]


def file_of(name: str) -> Path:
    """Path of a file of the pack, however its file system composes accents."""
    for form in ("NFC", "NFD"):
        path = BAD / unicodedata.normalize(form, name)
        if path.exists():
            return path
    return BAD / name


def _box_on_middle_slice(grid: Grid, path: Path) -> Path:
    """Prompts: a box over the middle half of the middle axial slice."""
    low = [n // 4 for n in grid.shape_ijk]
    high = [max(3 * n // 4, start) for n, start in zip(grid.shape_ijk, low, strict=True)]
    axis = grid.file_axis("axial")
    low[axis] = high[axis] = grid.shape_ijk[axis] // 2
    entry = {"label": 6, "name": "liver", "boxes": [{"from": low, "to": high}]}
    path.write_text(json.dumps({"version": 1, "objects": [entry]}))
    return path


def _refusal(err: str) -> str:
    """The one line ``error: ...`` that a refused file gets."""
    lines = [line for line in err.splitlines() if not line.startswith("warning: ")]
    assert len(lines) == 1, err
    assert lines[0].startswith("error: ")
    return lines[0]


def test_the_table_names_every_file_of_the_pack() -> None:
    listed = {unicodedata.normalize("NFC", name) for name in WORKS | REFUSED}
    there = {
        unicodedata.normalize("NFC", path.relative_to(BAD).as_posix())
        for path in BAD.rglob("*")
        if path.is_file() and path.name != "README.md"
    }
    unnamed = {name for name in there - listed if name.split("/")[0] not in listed}
    assert unnamed == set()


@pytest.mark.parametrize("name", WORKS)
def test_odd_files_are_segmented_on_their_own_grid(
    name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    volume = read_volume(file_of(name))
    prompts = _box_on_middle_slice(volume.grid, tmp_path / "prompts.json")
    out = tmp_path / "labels.nii.gz"
    status = main(["segment", str(file_of(name)), "-p", str(prompts), "-o", str(out), "--no-propagate"])
    said = capfd.readouterr().err
    assert status == 0, said
    assert all(line.startswith("warning: ") for line in said.splitlines())
    assert WORKS[name] in said
    of_the_file = [line for line in said.splitlines() if "(label 6)" not in line]  # not of what was found
    assert bool(of_the_file) == bool(WORKS[name]), said
    _assert_on_grid_of(out, volume.grid, file_of(name))


def _assert_on_grid_of(labels: Path, grid: Grid, source: Path) -> None:
    written = nib.load(labels)
    # NIfTI stores affines as float32
    assert np.allclose(written.affine, grid.affine, rtol=0, atol=1e-4 * max(1.0, np.abs(grid.affine).max()))
    assert written.shape[:2] == grid.shape_ijk[:2]
    assert np.prod(written.shape) == np.prod(grid.shape_ijk)
    assert written.get_data_dtype() in (np.uint8, np.uint16)
    if source.name.endswith((".nii", ".nii.gz")) and "gzipped" not in source.name:
        original = nib.load(source)
        if np.isfinite(original.affine).all() and np.linalg.det(original.affine):
            assert np.array_equal(written.affine, original.affine)


@pytest.mark.parametrize("name", REFUSED)
def test_broken_files_are_refused_in_one_line(
    name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    prompts = tmp_path / "prompts.json"
    prompts.write_text('{"version": 1, "objects": [{"label": 1, "points": [{"at": [0, 0, 0]}]}]}')
    out = tmp_path / "labels.nii.gz"
    assert main(["segment", str(file_of(name)), "-p", str(prompts), "-o", str(out)]) == 2
    message = _refusal(capfd.readouterr().err)
    assert REFUSED[name] in message
    assert file_of(name).name in message
    assert list(tmp_path.glob("labels*")) == []


@pytest.mark.parametrize(("name", "reference", "ending", "voxels", "says"), CONVERTED)
def test_odd_labels_are_converted(
    name: str,
    reference: str | None,
    ending: str,
    voxels: dict[int, int],
    says: str,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / f"out{ending}"
    options = [] if reference is None else ["--reference", str(file_of(reference))]
    status = main(["convert", str(file_of(name)), "-o", str(out), "--json", *options])
    said = capfd.readouterr()
    assert status == 0, said.err
    assert says in said.err
    assert bool(said.err) == bool(says)
    assert {row["label"]: row["voxels"] for row in json.loads(said.out)["objects"]} == voxels
    written, grid = read_volume(out), read_volume(file_of(reference or name)).grid
    assert written.grid.same_as(grid, tolerance_mm=1e-3)
    assert np.count_nonzero(written.data) == sum(voxels.values())


@pytest.mark.parametrize(("name", "reference", "says"), NOT_CONVERTED)
def test_what_is_no_label_map_is_not_converted(
    name: str, reference: str | None, says: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    options = [] if reference is None else ["--reference", str(file_of(reference))]
    assert main(["convert", str(file_of(name)), "-o", str(tmp_path / "out.nii.gz"), *options]) == 2
    assert says in _refusal(capfd.readouterr().err)
    assert list(tmp_path.glob("out*")) == []


EVALUATED = [
    # scan, labels, what is said
    ("d01_crop_good.nii.gz", "d12_label_int64.nii.gz", QUIET),
    ("d01_crop_good.nii.gz", "d13_label_float_noise.nii.gz", QUIET),
    ("d10_detneg_LAS.nii.gz", "d12_label_int64.nii.gz", QUIET),
    ("d11_PIR_axes.nii.gz", "d12_label_int64.nii.gz", QUIET),
    ("d07_sform_qform_disagree.nii.gz", "d12_label_int64.nii.gz", "sform is used"),
    ("d01_crop_good.nii.gz", "d15_label_half_grid.nii.gz", "placed by its affine"),
    (_IMAGE, "r23_label_other_grid/label_ok_122x102x112.nii.gz", QUIET),
]
NOT_EVALUATED = [
    ("d01_crop_good.nii.gz", "d14_label_0_255.nii.gz", "pixels of an organ"),
    ("d01_crop_good.nii.gz", "d18_all_nan.nii.gz", "whole numbers"),
    ("d01_crop_good.nii.gz", "r25_dicom_seg_overlapping.dcm", "overlapping segments"),
    ("d01_crop_good.nii.gz", "r26_dicom_seg_labelmap.dcm", "none of it lies inside"),
    ("d01_crop_good.nii.gz", "r27_overlapping.seg.nrrd", "overlapping"),
    ("r07_oblique17_3mm.nii.gz", "d12_label_int64.nii.gz", "another grid"),
    (
        "r24_same_shape_other_affine/seg_LPS_origin-239.nii.gz",
        "r24_same_shape_other_affine/seg_identity_affine_float64.nii.gz",
        "another place",
    ),
]


def _evaluate(scan: str, labels: str, out: Path) -> int:
    """Status of measuring the bundled model with a box an organ and slice."""
    arguments = ["--image", str(file_of(scan)), "--labels", str(file_of(labels)), "-o", str(out)]
    return main(["evaluate", *arguments, "--strategies", "bound_box"])


@pytest.mark.parametrize(("scan", "labels", "says"), EVALUATED)
def test_odd_labels_are_evaluated(
    scan: str, labels: str, says: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    status = _evaluate(scan, labels, tmp_path / "out")
    said = capfd.readouterr().err
    assert status == 0, said
    assert says in said
    assert (tmp_path / "out" / "results.csv").exists()


@pytest.mark.parametrize(
    ("scan", "labels", "says"),
    [
        *NOT_EVALUATED,
        *((name, "d12_label_int64.nii.gz", REFUSED[name]) for name in REFUSED),
        *(("d01_crop_good.nii.gz", name, REFUSED[name]) for name in REFUSED),
    ],
)
def test_what_cannot_be_evaluated_is_refused_in_one_line(
    scan: str, labels: str, says: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert _evaluate(scan, labels, tmp_path / "out") == 2
    assert re.search(says, _refusal(capfd.readouterr().err))


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("command", ["segment", "convert"])
def test_a_broken_file_leaves_the_previous_output(
    command: str, name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Statement 7: a load that failed writes nothing, empty or not."""
    out = tmp_path / "out.nii.gz"
    assert main(["convert", str(file_of("d12_label_int64.nii.gz")), "-o", str(out)]) == 0
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    prompts = tmp_path / "prompts.json"
    prompts.write_text('{"version": 1, "objects": [{"label": 1, "points": [{"at": [0, 0, 0]}]}]}')
    before[prompts.name] = prompts.read_bytes()
    capfd.readouterr()
    more = ["-p", str(prompts)] if command == "segment" else []
    assert main([command, str(file_of(name)), "-o", str(out), *more]) == 2
    assert REFUSED[name] in _refusal(capfd.readouterr().err)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize(
    ("name", "status"),
    [("d02_truncated.nii.gz", 2), ("r21_gitlfs_pointer.nii.gz", 2), ("d26_nan_affine.nii", 0)],
)
def test_a_real_process_says_the_same(name: str, status: int, tmp_path: Path) -> None:
    """Libraries write to the process's own standard error as well; nothing of theirs may come through."""
    prompts = tmp_path / "prompts.json"
    prompts.write_text(
        '{"version": 1, "objects": [{"label": 1, "boxes": [{"from": [9, 9, 9], "to": [30, 30, 9]}]}]}'
    )
    out = tmp_path / "labels.nii.gz"
    finished = subprocess.run(
        [sys.executable, "-m", "napari_sam_med.cli", "segment", str(file_of(name)), "-p", str(prompts),
         "-o", str(out), "--no-propagate"],
        capture_output=True, text=True, encoding="utf-8", timeout=240, check=False,
        env=os.environ | {"PYTHONIOENCODING": "utf-8"},
    )  # fmt: skip
    assert finished.returncode == status, finished.stderr
    for line in finished.stderr.splitlines():
        assert line.startswith(("error: ", "warning: "))
    assert finished.stderr.count("error: ") == (1 if status else 0)
    assert out.exists() == (status == 0)
