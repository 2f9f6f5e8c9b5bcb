"""Many files at once."""

from __future__ import annotations

import json
import os
import unicodedata
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_sam_med import LabelVolume, read_labels, read_volume
from napari_sam_med.errors import ExportError
from napari_sam_med.volume.exporting import EXPORT_ENDINGS, export_labels, plan_export, safe_name
from napari_sam_med.volume.formats.label_description import read_table
from napari_sam_med.volume.organs import Organ, OrganTable
from napari_sam_med.volume.writing import SERIES_ENDINGS
from tests.volume.phantoms import affine_of, ct_like, save_nifti


@pytest.fixture
def labels(tmp_path) -> LabelVolume:
    scan = read_volume(
        save_nifti(tmp_path / "case 7.nii.gz", ct_like((5, 6, 7)), affine_of("PIR", (1.0, 2.0, 3.0)))
    )
    table = OrganTable(
        [
            Organ(1, "spleen", (1.0, 0.0, 0.0)),
            Organ(6, "Leber / groß: 名?", (0.0, 1.0, 0.0)),
            Organ(300, "absent", (0.0, 0.0, 1.0)),
        ]
    )
    labels = LabelVolume.like(scan, table)
    labels.data[1:3, 1:4, 1:3], labels.data[4, 0, 0] = 1, 6
    return labels


@pytest.fixture
def folder(tmp_path) -> Path:
    path = tmp_path / "out é 名"
    path.mkdir()
    return path


def _renamed(labels: LabelVolume, *names: str) -> LabelVolume:
    table = OrganTable(Organ(i, name, (1.0, 0.0, 0.0)) for i, name in zip((1, 6), names, strict=True))
    return LabelVolume(labels.data, labels.grid, table, header=labels.header, path=labels.path)


def test_each_organ_gets_a_file_of_its_own(labels, folder) -> None:
    """Statement 18: names with accents, spaces and what file systems refuse."""
    files = export_labels(folder / "{case}_{organ}.{ending}", labels, endings=("nii.gz", ".stl"))
    assert [file.name for file in files] == [
        "case 7_spleen.nii.gz",
        "case 7_spleen.stl",
        "case 7_Leber _ groß_ 名_.nii.gz",
        "case 7_Leber _ groß_ 名_.stl",
    ]
    for file, class_id in ((files[0], 1), (files[2], 6)):
        read = read_labels(file)
        assert np.array_equal(read.data, labels.data == class_id)
        assert read.organs == OrganTable(
            [Organ(1, labels.organs[class_id].name, labels.organs[class_id].color)]
        )
        assert np.array_equal(nib.load(file).header["srow_x"], nib.load(labels.path).header["srow_x"])


def test_one_file_holds_all_organs_where_the_pattern_names_none(labels, folder) -> None:
    endings = [ending for ending in EXPORT_ENDINGS if ending not in SERIES_ENDINGS]
    files = export_labels([folder / f"{{case}}{ending}" for ending in endings], labels, case="a.b")
    assert [file.name for file in files] == [f"a.b{ending}" for ending in endings]
    for file in files[:5]:
        assert np.array_equal(read_labels(file).data, labels.data)
    assert read_table(folder / "a.b.label").keys() == labels.organs.keys()


def test_the_sidecar_that_files_share_names_all_of_them(labels, folder) -> None:
    export_labels([folder / "x.nrrd", folder / "x.mha", folder / "x.nii"], labels)
    for name in ("x.nrrd", "x.mha"):
        assert read_labels(folder / name).organs == labels.organs
    record = json.loads((folder / "x.sam-med.json").read_bytes())
    assert (record["file"], record["also"]) == ("x.nii", ["x.mha", "x.nrrd"])
    export_labels(folder / "x.nii", _renamed(labels, "a", "b"))
    assert read_labels(folder / "x.mha").organs.name_of(1) == "label 1", "those names are of other labels"


@pytest.mark.parametrize(
    ("names", "pattern"),
    [
        (("liver", "Liver"), "{organ}.nii"),
        (("a/b", "a?b"), "{organ}.nii"),
        (("é", unicodedata.normalize("NFD", "é")), "{organ}.nii"),
        (("a", "b"), "all.nii"),
    ],
)
def test_names_that_collide_are_refused_before_anything_is_written(labels, folder, names, pattern) -> None:
    patterns = [folder / "first.nii", folder / pattern, *([folder / pattern] if pattern == "all.nii" else [])]
    with pytest.raises(ExportError, match="both be written"):
        export_labels(patterns, _renamed(labels, *names))
    assert list(folder.iterdir()) == []
    if "{organ}" in pattern:
        files = export_labels(folder / f"{{label}}_{pattern}", _renamed(labels, *names))
        assert len(files) == 2


def test_one_sidecar_for_two_contents_is_refused(labels, folder) -> None:
    with pytest.raises(ExportError, match="sidecar"):
        export_labels([folder / "{organ}.nii", folder / "spleen.mha"], labels)
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    ("pattern", "endings", "says"),
    [
        ("{organ}.png", (), "written as"),
        ("{organ}", (), "written as"),
        ("{organ}.{ending}", (), "which endings"),
        ("{organ}.{ending}", ("nii", "a/b"), "written as"),
        ("{case}.nrrd", (), "another format"),
    ],
)
def test_patterns_of_no_format_are_refused_before_anything_is_written(
    labels, folder, pattern, endings, says
) -> None:
    with pytest.raises(ExportError, match=says):
        export_labels([folder / "first.nii", folder / pattern], labels, case="x.seg", endings=endings)
    assert list(folder.iterdir()) == []


def test_endings_without_their_field_are_refused_before_anything_is_written(labels, folder) -> None:
    with pytest.raises(ExportError, match=r"\(nii\.gz, stl\), but no name has the field \{ending\}"):
        export_labels([folder / "a.nii", folder / "{organ}.nii"], labels, endings=("nii.gz", "stl"))
    assert list(folder.iterdir()) == []
    files = export_labels([folder / "a.nii", folder / "b.{ending}"], labels, endings=("nii", "stl"))
    assert [file.name for file in files] == ["a.nii", "b.nii", "b.stl"]


def test_the_scan_is_refused_before_anything_is_written(labels, folder) -> None:
    """Statement 15."""
    before = labels.path.read_bytes()
    with pytest.raises(ExportError, match="scan itself"):
        export_labels([folder / "first.nii", labels.path.with_name("{case}.nii.gz")], labels)
    assert list(folder.iterdir()) == []
    assert labels.path.read_bytes() == before


def test_other_braces_stay(labels, folder) -> None:
    assert export_labels(folder / "{0}{name}.nii", labels)[0].name == "{0}{name}.nii"


def test_no_organ_makes_no_file(labels, folder) -> None:
    labels.data[...] = 0
    with pytest.raises(ExportError, match="stands for no file"):
        export_labels(folder / "{organ}.nii", labels)


def test_a_failure_half_way_leaves_whole_files_and_says_which(labels, folder, monkeypatch) -> None:
    """Statements 12 and 17."""
    files = export_labels(folder / "{organ}.nii", labels)
    before = files[1].read_bytes()
    labels.data[0] = 6
    labels.data[3] = 1
    replace = os.replace

    def full_on_the_second(source, target) -> None:
        if Path(target) == files[1]:
            raise OSError(28, "No space left on device")
        replace(source, target)

    monkeypatch.setattr(os, "replace", full_on_the_second)
    with pytest.raises(ExportError, match=r"名_\.nii could not be written: No space.*before it: spleen\.nii"):
        export_labels(folder / "{organ}.nii", labels)
    assert files[1].read_bytes() == before
    assert np.array_equal(read_labels(files[0]).data, labels.data == 1)
    assert not list(folder.glob(".sam-med*"))


@given(st.text(max_size=120))
def test_safe_names_are_one_part_of_a_path_everywhere(text) -> None:
    name = safe_name(text)
    assert name
    assert not set(name) & set('<>:"/\\|?*\0\n')
    assert len(name.encode()) <= 81
    assert name not in ("con", "CON", "nul")
    assert Path(f"{name}.nii").name == f"{name}.nii"
    assert safe_name(name) == name


@pytest.mark.parametrize(
    ("text", "name"),
    [("", "_"), ("nul", "nul_"), ("a/b", "a_b"), ("L. kidney", "L. kidney"), ("\udcff", "_")],
)
def test_odd_names(text, name) -> None:
    assert safe_name(text) == name


def test_the_plan_is_what_is_written(labels, folder) -> None:
    plan = plan_export(folder / "{label}.mha", labels, case="x")
    assert [(planned.path.name, planned.class_id) for planned in plan] == [("1.mha", 1), ("6.mha", 6)]
    assert list(folder.iterdir()) == []
    assert export_labels(folder / "{label}.mha", labels) == [planned.path for planned in plan]
