"""``auto``: what is written, what is said, what is refused."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from napari_sam_med.cli import auto
from napari_sam_med.segmentation.automatic import volume_search
from napari_sam_med.segmentation.automatic.found_objects import FoundMask
from napari_sam_med.volume.formats.coco import mask_of
from tests.cli.cli_scan import CENTRE, SHAPE, Run, Scan

Runner = Callable[..., Run]

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "automatic.md").read_text("utf-8")
FEW = ("--spacing-mm", "18", "--min-iou", "0.2", "--min-stability", "0.2")
SAM_COLUMNS = (
    "id,area,bbox_x0,bbox_y0,bbox_w,bbox_h,point_input_x,point_input_y,"
    "predicted_iou,stability_score,crop_box_x0,crop_box_y0,crop_box_w,crop_box_h"
)


def rows_of(folder: Path) -> list[dict[str, str]]:
    """Of the table in a folder of masks."""
    return list(csv.DictReader((folder / "metadata.csv").read_text().splitlines()))


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Masks of what is bright, and of its lower half, without asking the model."""

    def find(image: Any, *_: Any, where: Any, **__: Any) -> list[FoundMask]:
        bright = (image[..., 0] > 150) & where
        half = bright & (np.arange(len(bright)) >= SHAPE[1] - 1 - CENTRE[1])[:, None]
        return [FoundMask.of(mask, 0.9, 0.9) for mask in (bright, half) if mask.sum() > 20]

    monkeypatch.setattr(volume_search, "find_masks", find)


@pytest.fixture
def searched(run: Runner, scan: Scan, tmp_path: Path, quick: None) -> tuple[Run, Path, Path]:
    """Every second slice of the scan searched, with records."""
    labels, records = tmp_path / "found.nii.gz", tmp_path / "found.json"
    answer = run("auto", scan.volume, "-o", labels, "--every", "2", "--records", records, "--json")
    return answer, labels, records


def test_labels_records_and_names_agree(searched: tuple[Run, Path, Path], scan: Scan) -> None:
    answer, labels, records = searched
    assert answer.status == 0, answer.err
    document = json.loads(answer.out)
    assert json.loads(records.read_text()) == document
    assert document["slices_searched"] == [
        8,
        6,
        4,
        2,
        0,
    ]  # the file counts from the head, the volume from the feet
    objects = document["objects"]
    assert [entry["number"] for entry in objects] == list(range(1, len(objects) + 1))
    source, written = nib.load(scan.volume), nib.load(labels)
    assert np.allclose(source.affine, written.affine)
    numbers = np.asarray(written.dataobj)
    assert set(np.unique(numbers)) - {0} <= {entry["number"] for entry in objects}
    assert len(objects) == 2
    part = min(objects, key=lambda entry: entry["voxels"])  # nothing lies over the smaller one
    seen = numbers == part["number"]
    k = np.flatnonzero(seen.any(axis=(0, 1)))
    assert (k[0], k[-1]) == (part["first_slice"], part["last_slice"])
    assert np.count_nonzero(seen) == part["voxels"]
    assert part["volume_ml"] == pytest.approx(part["voxels"] * 1.5 * 1.5 * 3 / 1000, abs=1e-3)
    assert {"organ", "abstained", "score", "plane", "best_slice", "name"} <= set(part)
    organ = np.asarray(nib.load(scan.labels).dataobj) > 0
    both = numbers > 0
    assert (both & organ).sum() / (both | organ).sum() > 0.7  # the first and last slice show too little
    sidecar = json.loads((labels.parent / "found.sam-med.json").read_text())
    assert {row["name"] for row in sidecar["labels"]} == {entry["name"] for entry in objects}


def test_a_slice_is_written_as_sam_writes_it(run: Runner, scan: Scan, tmp_path: Path) -> None:
    folder, rle = tmp_path / "masks", tmp_path / "masks.json"
    k = str(CENTRE[2])
    answer = run("auto", scan.volume, "-o", folder, "--format", "masks", "--slice", k, "--not-named", *FEW)
    assert answer.status == 0, answer.err
    assert (folder / "metadata.csv").read_text().splitlines()[0] == SAM_COLUMNS
    rows = rows_of(folder)
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        [*(f"{number}.png" for number in range(len(rows))), "metadata.csv"]
    )
    masks = [np.asarray(Image.open(folder / f"{row['id']}.png")) for row in rows]
    assert {value for mask in masks for value in np.unique(mask)} == {0, 255}
    assert [int(row["area"]) for row in rows] == [np.count_nonzero(mask) for mask in masks]
    scores = [float(row["predicted_iou"]) for row in rows]
    assert scores == sorted(scores, reverse=True)

    run("auto", scan.volume, "-o", rle, "--format", "coco", "--slice", k, "--not-named", *FEW)
    records = json.loads(rle.read_text())
    assert [record["area"] for record in records] == [int(row["area"]) for row in rows]
    for record, row, mask in zip(records, rows, masks, strict=True):
        assert record["segmentation"]["size"] == list(mask.shape)
        assert np.array_equal(mask_of(record["segmentation"], mask.shape), mask > 0)
        assert record["bbox"] == [int(row[f"bbox_{side}"]) for side in ("x0", "y0", "w", "h")]
        assert record["point_coords"] == [[float(row["point_input_x"]), float(row["point_input_y"])]]


def test_objects_of_a_slice_know_their_masks(run: Runner, scan: Scan, tmp_path: Path) -> None:
    folder = tmp_path / "masks"
    asked = (
        "auto",
        scan.volume,
        "--format",
        "masks",
        "--slice",
        CENTRE[2],
        "--min-voxels",
        150,
        "--not-named",
    )
    answer = run(*map(str, asked), *FEW, "-o", folder, "--json")
    assert answer.status == 0, answer.err
    objects, rows = json.loads(answer.out)["objects"], rows_of(folder)
    assert 0 < len(objects) < len(rows)
    assert [one["voxels"] for one in objects] == [int(rows[one["mask"]]["area"]) for one in objects]
    told = run(*map(str, asked), *FEW, "-o", tmp_path / "again").out
    assert f"has all {len(rows)} masks of the slice, from 0 on" in " ".join(told.split())


def test_what_lies_under_smaller_objects_is_said(
    searched: tuple[Run, Path, Path], run: Runner, scan: Scan
) -> None:
    answer, labels, _ = searched
    objects = json.loads(answer.out)["objects"]
    ml, numbers = 1.5 * 1.5 * 3 / 1000, np.asarray(nib.load(labels).dataobj)
    for one in objects:
        assert one["ml_written"] == pytest.approx(np.count_nonzero(numbers == one["number"]) * ml, abs=1e-3)
    whole = max(objects, key=lambda one: one["voxels"])
    assert whole["ml_written"] < 0.9 * whole["volume_ml"]
    common = ("auto", scan.volume, "--every", "2", "--not-named")
    told = " ".join(run(*common, "-o", labels).out.split())
    hidden = f"{whole['number']} ({whole['ml_written']:.1f} of {whole['volume_ml']:.1f} ml)"
    assert f"1 object with fewer voxels in the file, as smaller ones lie on top: {hidden};" in told
    apart = run(*common, "-o", labels.parent / "apart", "--format", "masks").out
    assert "fewer voxels" not in apart


@pytest.mark.usefixtures("quick")
def test_objects_are_written_apart_with_their_overlaps(run: Runner, scan: Scan, tmp_path: Path) -> None:
    folder, rle = tmp_path / "objects", tmp_path / "objects.json"
    common = ("auto", scan.volume, "--every", "2", "--not-named")
    answer = run(*common, "-o", folder, "--format", "masks")
    assert answer.status == 0, answer.err
    rows = rows_of(folder)
    assert len(rows) == 2
    assert run(*common, "-o", rle, "--format", "coco").status == 0
    objects = json.loads(rle.read_text())["objects"]
    for row, record in zip(rows, objects, strict=True):
        mask = np.asarray(nib.load(folder / row["file"]).dataobj)
        assert np.count_nonzero(mask) == int(row["voxels"]) == record["voxels"]
        assert (
            sum(mask_of(one["segmentation"], (SHAPE[1], SHAPE[0])).sum() for one in record["masks"])
            == record["voxels"]
        )
        shown = [one["slice"] for one in record["masks"]]
        assert sorted(shown) == np.flatnonzero(mask.any(axis=(0, 1))).tolist()


@pytest.mark.usefixtures("quick")
def test_a_table_is_printed_and_what_is_left_out_is_said(run: Runner, scan: Scan, tmp_path: Path) -> None:
    out = tmp_path / "one.nii.gz"
    answer = run("auto", scan.volume, "-o", out, "--every", "2", "--most", "1", "--not-named")
    assert answer.status == 0
    for word in ("object", "organ", "score", "ml", "1 object on 5 axial slices"):
        assert word in answer.out
    assert " left out, th" in answer.err
    assert np.unique(np.asarray(nib.load(out).dataobj)).tolist() == [0, 1]


def test_where_nothing_is_asked_nothing_is_found(run: Runner, scan: Scan, tmp_path: Path) -> None:
    out = tmp_path / "none.nii.gz"
    answer = run("auto", scan.volume, "-o", out, "--range", "5000,6000")
    assert answer.status == 0
    assert "nothing was found" in answer.out
    assert not np.asarray(nib.load(out).dataobj).any()


@pytest.mark.usefixtures("quick")
def test_what_the_page_shows_runs(
    run: Runner, scan: Scan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # where the scan is ct.nii.gz
    commands = re.findall(r"^napari-sam-med (auto .*)$", PAGE, flags=re.MULTILINE)
    assert len(commands) == 3
    for command in commands:
        answer = run(*command.replace("--slice 57", f"--slice {CENTRE[2]}").split())
        assert answer.status == 0, answer.err
    assert json.loads(Path("objects.json").read_text())["objects"]
    assert Path("masks", "metadata.csv").is_file()
    assert json.loads(Path("masks.json").read_text())
    (block,) = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    names: dict[str, Any] = {}
    exec(block, names)
    assert len(names["objects"]) == 2


def test_refusals(run: Runner, scan: Scan, tmp_path: Path) -> None:
    out, full = tmp_path / "out.nii.gz", tmp_path / "full"
    full.mkdir()
    (full / "file").touch()
    assert "no volume" in run("auto", tmp_path / "none.nii.gz", "-o", out).error
    assert "labels are written as" in run("auto", scan.volume, "-o", tmp_path / "out.png").error
    assert "an input" in run("auto", scan.volume, "-o", scan.volume).error
    assert "does not exist" in run("auto", scan.volume, "-o", tmp_path / "no" / "out.nii.gz").error
    assert "no empty folder" in run("auto", scan.volume, "-o", full, "--format", "masks").error
    assert "as .json" in run("auto", scan.volume, "-o", out, "--format", "coco").error
    records = tmp_path / "out.sam-med.json"
    assert "another name" in run("auto", scan.volume, "-o", out, "--records", records).error
    assert "no range" in run("auto", scan.volume, "-o", out, "--range", "5").error
    assert "holds no value" in run("auto", scan.volume, "-o", out, "--range", "5,5").error
    assert "apart" in run("auto", scan.volume, "-o", out, "--spacing-mm", "0").error
    assert f"Index {SHAPE[2]}" in run("auto", scan.volume, "-o", out, "--slice", str(SHAPE[2])).error
    assert "window" in run("auto", scan.volume, "-o", out, "--window", "5").error.lower()
    assert "no model" in run("auto", scan.volume, "-o", out, "--model", "none").error.lower()
    assert not out.exists()


@pytest.mark.parametrize("as_format", ["labels", "masks"])
def test_an_interrupted_search_leaves_nothing(
    run: Runner, scan: Scan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, as_format: str
) -> None:
    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    before = sorted(tmp_path.iterdir())
    out = tmp_path / ("out.nii.gz" if as_format == "labels" else "out")
    monkeypatch.setattr(volume_search, "find_masks", interrupt)
    answer = run("auto", scan.volume, "-o", out, "--format", as_format)
    assert answer.status == 130
    assert "interrupted" in answer.err
    left = [path for path in tmp_path.iterdir() if path.name != "home"]
    assert sorted(left) == before


def test_more_objects_than_labels_can_number_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("napari_sam_med.volume.organs.MAX_CLASS_ID", 2)
    request = auto.AutoRequest(Path("ct.nii.gz"), Path("out.nii.gz"))
    found, said = auto._limited(request, auto._Found(["a", "b", "c"], {}))  # type: ignore[list-item]  # any will do
    assert found.objects == ["a", "b"]
    assert said == ["1 of 3 objects is left out, that of the lowest score"]
