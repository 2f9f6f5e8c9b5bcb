"""Cases files and organ names, as people write them."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from napari_sam_med.errors import ImageError, LabelError
from napari_sam_med.evaluation.cases import Case, parse_names, read_case, read_case_folder, read_cases


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two folders with a scan and labels 1 and 2 each."""
    labels = np.zeros((5, 6, 3), np.uint8)
    labels[1:3, 1:3], labels[3:, 4:] = 1, 2
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        nib.save(nib.Nifti1Image(labels.astype(np.int16) * 100, np.eye(4)), tmp_path / name / "image.nii.gz")
        nib.save(nib.Nifti1Image(labels, np.eye(4)), tmp_path / name / "labels.nii.gz")
    return tmp_path


def _write(folder: Path, text: str, encoding: str = "utf-8") -> Path:
    path = folder / "cases.csv"
    path.write_text(text, encoding=encoding)
    return path


def test_paths_are_relative_to_the_file_or_absolute(folder: Path) -> None:
    rows = (
        "image, labels, split\none/image.nii.gz,one/labels.nii.gz,test\n"
        f"{folder}/two/image.nii.gz, two/labels.nii.gz,\n"
    )
    first, second = read_cases(_write(folder, rows, "utf-8-sig"))
    assert (first.image, first.name) == ("one/image.nii.gz", "one/image.nii.gz")
    assert second.name == "two/image.nii.gz"
    for case in (first, second):
        volume, labels = read_case(case)
        assert volume.shape == labels.shape == (3, 6, 5)


def test_cases_have_distinct_names(folder: Path) -> None:
    one, two = (f"{name}/image.nii.gz,{name}/labels.nii.gz" for name in ("one", "two"))

    def names(*rows: str) -> list[str]:
        text = "\n".join(("name,image,labels", *rows))
        return [case.name for case in read_cases(_write(folder, text))]

    assert names(f"A,{one}", f"A,{two}", f",{one}") == ["A (1)", "A (2)", "one/image.nii.gz"]
    assert names(f",{one}", f"B,{one}") == ["one/image.nii.gz", "B"]
    assert names(f",{one}") == ["image.nii.gz"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a,b\nc,d\n", 'header "image,labels"'),
        ("image,labels\n", "at least one row"),
        ("", "header"),
        ("image,labels\none/image.nii.gz,\n", "Row 1 .* has no labels"),
        ("image,labels\none/image.nii.gz\n", "Row 1 .* has no labels"),
        ("image,labels\none/image.nii.gz,one/labels.nii.gz\nx.nii,y.nii\n", "Row 2 .* no scan x.nii"),
        ("image,labels\none/image.nii.gz,y.nii\n", "no label file y.nii"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused(folder: Path, text: str, says: str) -> None:
    with pytest.raises(ImageError, match=says):
        read_cases(_write(folder, text))


def test_what_is_no_csv_text_is_refused(folder: Path) -> None:
    with pytest.raises(ImageError, match="There is no cases file"):
        read_cases(folder / "none.csv")
    with pytest.raises(ImageError, match="no CSV text"):
        read_cases(folder / "one" / "image.nii.gz")


def test_names_come_from_the_row_else_from_the_call_else_from_the_file(folder: Path) -> None:
    (folder / "organs.json").write_text(json.dumps({"0": "background", "1": "lung"}))
    pair = "one/image.nii.gz,one/labels.nii.gz"
    path = _write(folder, f"image,labels,names\n{pair},organs.json\n{pair},\n{pair},btcv\n")

    def names(case: Case) -> list[str]:
        _, labels = read_case(case)
        return [labels.organs.name_of(i) for i in labels.class_ids()]

    by_row, by_call, btcv = (names(case) for case in read_cases(path, '{"2": "heart"}'))
    assert by_row == ["lung", "label 2"]
    assert by_call == ["label 1", "heart"]
    assert btcv == ["spleen", "right kidney"]


@pytest.mark.parametrize("text", ["btvc", "{", "[1]", '{"a": "b"}', '{"1": "x"}}'])
def test_names_that_cannot_be_read_are_refused(tmp_path: Path, text: str) -> None:
    if text == "[1]":
        (tmp_path / "list.json").write_text(text)
        text = str(tmp_path / "list.json")
    with pytest.raises(LabelError, match="btcv"):
        parse_names(text)


def test_splits_and_patients_are_read_and_no_patient_is_on_both_sides(folder: Path) -> None:
    one, two = (f"{name}/image.nii.gz,{name}/labels.nii.gz" for name in ("one", "two"))
    header = "image,labels,split,patient\n"
    first, second = read_cases(_write(folder, f"{header}{one},Train,P1\n{two},val,\n"))
    assert (first.split, first.patient) == ("train", "P1")
    assert (second.split, second.patient) == ("val", "two/image.nii.gz")
    with pytest.raises(ImageError, match=r'"P1".*one split'):
        read_cases(_write(folder, f"{header}{one},train,P1\n{two},val,P1\n"))
    assert (
        len(read_cases(_write(folder, f"{header}{one},train,P1\n{two},,P1\n"))) == 2
    )  # both are learned from
    with pytest.raises(ImageError, match=r'"P1".*one split'):
        read_cases(_write(folder, f"{header}{one},test,P1\n{two},,P1\n"))
    with pytest.raises(ImageError, match=r"Row 1.*training.*train, val, test"):
        read_cases(_write(folder, f"{header}{one},training,P1\n"))


def _data_set(folder: Path, names: dict[str, str], labels: str = "labelsTr") -> Path:
    """A data set with empty files: image names by label names."""
    for place in ("imagesTr", labels):
        (folder / place).mkdir(parents=True)
    for label, image in names.items():
        (folder / labels / label).touch()
        (folder / "imagesTr" / image).touch()
    (folder / "imagesTr" / "._hidden.nii.gz").touch()
    return folder


def test_published_layouts_are_recognised(tmp_path: Path) -> None:
    btcv = _data_set(tmp_path / "btcv", {f"label000{i}.nii.gz": f"img000{i}.nii.gz" for i in (2, 1)})
    assert [(c.name, c.image, c.labels_path.name, c.names) for c in read_cases(btcv)] == [
        (f"img000{i}", f"imagesTr/img000{i}.nii.gz", f"label000{i}.nii.gz", "btcv") for i in (1, 2)
    ]
    nnunet = _data_set(tmp_path / "nnunet", {"liver_7.nii.gz": "liver_7_0000.nii.gz"})
    (nnunet / "imagesTr" / "liver_7_0001.nii.gz").touch()
    (nnunet / "dataset.json").write_text(
        '{"labels": {"background": 0, "liver": 1, "whole": [1, 2]}, "file_ending": ".nii.gz"}'
    )
    (case,) = read_case_folder(nnunet)
    assert case.image == "imagesTr/liver_7_0000.nii.gz"
    assert parse_names(case.names) == {1: "liver"}
    decathlon = _data_set(tmp_path / "decathlon", {"spleen_2.nii.gz": "spleen_2.nii.gz"})
    (decathlon / "dataset.json").write_text('{"labels": {"0": "background", "1": "spleen"}}')
    assert parse_names(read_case_folder(decathlon)[0].names) == {1: "spleen"}
    assert read_case_folder(decathlon, "btcv")[0].names == "btcv"
    numbered = _data_set(tmp_path / "numbered", {f"p_000{i}.nii.gz": f"p_000{i}.nii.gz" for i in (1, 2)})
    assert [case.image_path.name for case in read_case_folder(numbered)] == ["p_0001.nii.gz", "p_0002.nii.gz"]


def test_odd_folders_are_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="imagesTr and labelsTr"):
        read_cases(tmp_path)
    lonely = _data_set(tmp_path / "lonely", {"a.nii.gz": "a.nii.gz"})
    (lonely / "labelsTr" / "b.nii.gz").touch()
    with pytest.raises(ImageError, match=r"b\.nii\.gz has no image"):
        read_cases(lonely)
    (lonely / "labelsTr" / "b.nii.gz").unlink()
    (lonely / "dataset.json").write_text("[1]")
    with pytest.raises(ImageError, match="no description"):
        read_cases(lonely)
    with pytest.raises(ImageError, match="no label files"):
        read_cases(_data_set(tmp_path / "empty", {}))


def test_what_lies_beside_the_volumes_of_a_data_set_is_no_case(tmp_path: Path) -> None:
    folder = _data_set(tmp_path, {"a.nii.gz": "a.nii.gz"})
    for name in ("labelsTr/a.sam-med.json", "labelsTr/sam-med-work-list.json", "imagesTr/a.json"):
        (folder / name).write_text("{}")
    (case,) = read_cases(folder)
    assert (case.image_path.name, case.labels_path.name) == ("a.nii.gz", "a.nii.gz")


def test_deep_json_and_long_names_are_refused_in_one_line(tmp_path: Path) -> None:
    names = tmp_path / "names.json"
    names.write_text("[" * 100_000)
    with pytest.raises(LabelError, match=r"cannot be read"):
        parse_names(str(names))
    folder = _data_set(tmp_path / "set", {"a.nii.gz": "a.nii.gz"})
    (folder / "dataset.json").write_text("[" * 100_000)
    with pytest.raises(ImageError, match="no description"):
        read_cases(folder)
    table = tmp_path / "cases.csv"
    table.write_text(f"image,labels\n{'x' * 5000},l.nii.gz\n")
    with pytest.raises(ImageError, match="there is no scan"):
        read_cases(table)
