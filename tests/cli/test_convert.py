"""``convert`` into many formats and files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from napari_sam_med import read_labels
from napari_sam_med.volume.formats.label_description import read_table
from tests.cli.cli_scan import Run, Scan

Runner = Callable[..., Run]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "out"
    path.mkdir()
    return path


def test_one_call_writes_several_formats(run: Runner, scan: Scan, folder: Path) -> None:
    outputs = [folder / name for name in ("a.nii.gz", "a.seg.nrrd", "a.stl", "a.coco.json", "a.label")]
    options = [part for output in outputs for part in ("-o", output)]
    answer = run("convert", scan.labels, *options, "--names", "btcv", "--json")
    document = json.loads(answer.out)
    assert document["labels"] == str(outputs[0])
    assert document["files"] == [str(output) for output in outputs]
    assert [row["name"] for row in document["objects"]] == ["liver"]
    assert np.array_equal(read_labels(outputs[1]).data, read_labels(scan.labels).data)
    assert read_table(outputs[4])[6].name == "liver"
    for name in ("a.stl", "a.coco.json", "a.label"):
        assert any(name in line for line in document["warnings"]), name
    assert "warning: a.coco.json is lossy" in answer.err


def test_a_pattern_gives_each_organ_its_file(run: Runner, scan: Scan, folder: Path) -> None:
    pattern = folder / "{case}_{organ}.{ending}"
    names = '{"6": "left / right lobe"}'
    answer = run("convert", scan.labels, "-o", pattern, "--endings", "nii.gz, obj", "--names", names)
    assert answer.status == 0
    first = folder / "truth_left _ right lobe.nii.gz"
    assert str(first) in answer.out
    assert sorted(path.name for path in folder.iterdir()) == [
        first.name,
        "truth_left _ right lobe.obj",
        "truth_left _ right lobe.sam-med.json",
    ]
    assert read_labels(first).class_ids() == (1,)
    assert read_labels(first).organs.name_of(1) == "left / right lobe"


@pytest.mark.parametrize(
    "table", ['6 1 2 3 1 1 1 "Leber"\n', "6 Leber 1 2 3 0\n", '{"6": "Leber"}'], ids=["snap", "lut", "json"]
)
def test_names_come_from_a_file(run: Runner, scan: Scan, folder: Path, table: str) -> None:
    names = folder / ("names.json" if table.startswith("{") else "names.txt")
    names.write_text(table, encoding="utf-8")
    assert run("convert", scan.labels, "-o", folder / "a.nii", "--names", names).status == 0
    assert read_labels(folder / "a.nii").organs.name_of(6) == "Leber"


def test_refusals_come_before_anything_is_written(run: Runner, scan: Scan, folder: Path) -> None:
    ok = ("-o", folder / "ok.nii")
    convert = ("convert", scan.labels, *ok)
    assert "written as" in run(*convert, "-o", folder / "b.png").error
    assert "which endings" in run(*convert, "-o", folder / "b.{ending}").error
    assert "both be written" in run(*convert, *ok).error
    assert "overwritten" in run(*convert, "-o", scan.labels).error
    own_name = scan.labels.with_name("{case}.nii.gz")
    assert "overwritten" in run(*convert, "-o", own_name).error
    assert "does not exist" in run(*convert, "-o", folder / "none" / "{organ}.nii").error
    assert "cannot be read" in run(*convert, "--names", folder / "none.label").error
    assert list(folder.iterdir()) == []


def test_masks_of_slices_go_back_onto_their_scan(run: Runner, scan: Scan, folder: Path) -> None:
    run("convert", scan.labels, "-o", folder / "a.coco.json", "--reference", scan.volume)
    back = ("convert", folder / "a.coco.json", "-o", folder / "b.nii.gz")
    assert "without geometry" in run(*back).error
    assert run(*back, "--reference", scan.volume).status == 0
    assert np.array_equal(read_labels(folder / "b.nii.gz").data, read_labels(scan.labels).data)


def test_segment_says_what_a_format_lacks(run: Runner, scan: Scan, folder: Path) -> None:
    options = ("-p", scan.prompts, "--no-propagate", "--json")
    answer = run("segment", scan.volume, "-o", folder / "a.coco.json", *options)
    assert any("a.coco.json is lossy" in line for line in json.loads(answer.out)["warnings"])
    assert json.loads((folder / "a.coco.json").read_bytes())["annotations"]
