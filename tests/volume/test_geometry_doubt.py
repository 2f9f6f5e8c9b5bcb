"""Statement 27 without a window: doubts are found, warned of, settled by default, and recorded."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from napari_sam_med import LabelVolume, read_labels, read_volume, write_labels
from napari_sam_med.cli import main
from napari_sam_med.volume.geometry_doubt import GeometryDoubt
from tests.volume.phantoms import affine_of, ct_like

SPACING = (1.0, 2.0, 3.0)
SHEARED = np.array([[1.0, 0.1, 0, 0], [0, 2, 0, 0], [0, 0, 3, 0], [0, 0, 0, 1]])


def _saved(path: Path, **header: object) -> Path:
    """A scan with fields of its header overwritten on disk, whatever nibabel thinks of them."""
    image = nib.Nifti1Image(ct_like(), affine_of("LPS", SPACING, (0.1, 0.0, 0.2)))
    image.set_sform(image.affine, code=1)
    image.set_qform(image.affine, code=1)
    nib.save(image, path)
    raw = nib.load(path).header.copy()
    for key, value in header.items():
        raw[key] = value
    raw["vox_offset"] = 352
    path.write_bytes(raw.binaryblock + path.read_bytes()[348:])
    return path


def _forms(affine: np.ndarray) -> dict[str, object]:
    return {"srow_x": affine[0], "srow_y": affine[1], "srow_z": affine[2]}


NO_FORMS = {"sform_code": 0, "qform_code": 0}
DOUBTS = [
    (_forms(affine_of("RAS", SPACING)), "sform", ("qform",), "apart"),
    (NO_FORMS, "voxel sizes", (), "no orientation"),
    (_forms(np.zeros((4, 4))), "qform", (), "sform is damaged"),
    (_forms(np.full((4, 4), np.nan)), "qform", (), "sform is damaged"),
    (_forms(np.diag([1.0, 2.0, 0.0, 1.0])), "qform", (), "sform is damaged"),
    (_forms(np.ones((4, 4))), "qform", (), "sform is damaged"),
    ({"sform_code": 0, "quatern_b": np.nan}, "voxel sizes", (), "qform is damaged"),
    (NO_FORMS | {"pixdim": [1, 0, 2, 3, 1, 1, 1, 1]}, "voxel sizes", (), "voxel sizes are impossible"),
    (_forms(SHEARED) | {"qform_code": 0}, "matrix", (), "right angles"),
    (_forms(SHEARED), "sform", ("qform",), "right angles"),
]


@pytest.mark.parametrize(("header", "used", "others", "says"), DOUBTS)
def test_a_doubt_is_found_warned_of_and_recorded(
    tmp_path: Path, header: dict[str, object], used: str, others: tuple[str, ...], says: str
) -> None:
    """Statement 27."""
    volume = read_volume(_saved(tmp_path / "scan.nii", **header))
    doubt = volume.grid.doubt
    assert doubt is not None
    assert (doubt.used, doubt.others) == (used, others)
    assert any(says in fact for fact in doubt.facts)
    assert volume.warnings
    assert np.isfinite(volume.affine).all()
    assert min(volume.spacing) > 0
    labels = LabelVolume.like(volume)
    labels.data[1:3, 2:4, 1:3] = 7
    out = write_labels(tmp_path / "labels.nii.gz", labels)
    assert json.loads((tmp_path / "labels.sam-med.json").read_text())["geometry"]["used"] == used
    assert np.array_equal(read_labels(out, reference=volume).data, labels.data)


@pytest.mark.parametrize("shear", [0.0, 5e-6, 2e-5])
def test_shear_beyond_a_hundred_thousandth_is_told(tmp_path: Path, shear: float) -> None:
    """Statement 27."""
    affine = np.eye(4)
    affine[0, 1] = shear
    image = nib.Nifti1Image(ct_like(), affine)
    image.set_qform(None, code=0)
    nib.save(image, tmp_path / "scan.nii")
    volume = read_volume(tmp_path / "scan.nii")
    assert (volume.grid.doubt is not None) == (shear > 1e-5)
    assert bool(volume.warnings) == (shear > 1e-5)


@pytest.mark.parametrize("form", ["sform", "qform"])
def test_either_form_can_be_chosen_and_labels_keep_both(tmp_path: Path, form: str) -> None:
    """Statements 22 and 27."""
    path = _saved(tmp_path / "scan.nii", **_forms(affine_of("RAS", SPACING)))
    volume = read_volume(path, form=form)
    source = nib.load(path).header
    assert np.array_equal(volume.affine, source.get_sform() if form == "sform" else source.get_qform())
    assert f"the {form} is used" in volume.warnings[0]
    labels = LabelVolume.like(volume)
    labels.data[1:3, 2:4, 1:3] = 7
    for name in ("labels.nii", "labels.nrrd", "labels.seg.nrrd"):
        out = write_labels(tmp_path / name, labels)
        assert np.array_equal(read_labels(out, reference=volume).data, labels.data)
        if name.endswith(".nii"):
            written = nib.load(out).header
            assert np.array_equal(written.get_sform(), source.get_sform())
            assert np.array_equal(written.get_qform(), source.get_qform())


@pytest.mark.parametrize(
    "header",
    [
        b"NRRD0004\ntype: short\ndimension: 3\nsizes: 3 4 5\nspacings: 1 2 3\nencoding: raw\n"
        b"endian: little\n\n",
        b"ObjectType = Image\nNDims = 3\nDimSize = 3 4 5\nElementType = MET_SHORT\nElementSpacing = 1 2 3\n"
        b"ElementDataFile = LOCAL\n",
    ],
    ids=["nrrd", "mha"],
)
def test_other_formats_without_orientation_are_in_doubt(tmp_path: Path, header: bytes) -> None:
    """Statement 27."""
    path = tmp_path / ("scan.nrrd" if header.startswith(b"NRRD") else "scan.mha")
    path.write_bytes(header + np.arange(60, dtype="<i2").tobytes())
    volume = read_volume(path)
    assert volume.grid.doubt is not None
    assert volume.grid.doubt.used == "voxel sizes"
    assert "no orientation" in volume.warnings[0]


def test_the_command_line_takes_the_default_with_a_warning(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Statement 27: the sform, the qform, the voxel sizes, in this order; one line each, and status 0."""
    prompts = tmp_path / "p.json"
    box = {"from": [0, 0, 1], "to": [2, 2, 1]}
    prompts.write_text(json.dumps({"version": 1, "objects": [{"label": 1, "boxes": [box]}]}))
    for header, used, _, _ in DOUBTS[:3]:
        path = _saved(tmp_path / "scan.nii", **header)
        out = tmp_path / "labels.nii"
        assert main(["segment", str(path), "-p", str(prompts), "-o", str(out), "--no-propagate"]) == 0
        said = capfd.readouterr().err.splitlines()
        assert any(
            line.startswith("warning: ") and ("form" in line or "orientation" in line) for line in said
        )
        assert json.loads((tmp_path / "labels.sam-med.json").read_text())["geometry"]["used"] == used


def test_a_question_is_one_sentence() -> None:
    doubt = GeometryDoubt(("its sform is damaged", "its voxel sizes are impossible"), "qform")
    sheared = doubt.with_fact("its axes lean", "with its slices shown straight")
    assert sheared.question("a.nii") == (
        "a.nii: its sform is damaged and its voxel sizes are impossible and its axes lean; open it by its "
        "qform with its slices shown straight?"
    )
