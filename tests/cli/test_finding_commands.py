"""``edges`` and ``proposals``: what they write, print and refuse."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np

from napari_sam_med import SliceView
from napari_sam_med.evaluation.detections import read_detections
from napari_sam_med.evaluation.detector_boxes import read_boxes
from tests.cli.cli_scan import CENTRE, SHAPE, Run, Scan

Runner = Callable[..., Run]
FEW = ("--grid", "3")


def test_edges_lie_on_the_scan(run: Runner, scan: Scan, tmp_path: Path) -> None:
    output, scores = tmp_path / "edges.nii.gz", tmp_path / "scores.json"
    answer = run(
        *("edges", scan.volume, "-o", output, "--slices", "3-4,6", *FEW),
        *("--labels", scan.labels, "--scores", scores, "--json"),
    )
    assert answer.status == 0, answer.err
    document = json.loads(answer.out)
    assert document == json.loads(scores.read_text())
    assert document["slices"] == [3, 4, 6]
    assert document["edges"] == str(output)
    measured = document["scores"]
    assert measured["slices"] == 3
    assert set(measured["max_distance"]) == {"0.0075", "0.011"}
    figures = measured["max_distance"]["0.011"]
    assert {"nano", "canny", "sobel", "pixels"} == set(figures)
    assert 0 <= figures["nano"]["ods"] <= figures["nano"]["ois"] <= 1
    written = nib.load(output)
    assert np.array_equal(written.affine, nib.load(scan.volume).affine)
    assert written.shape == SHAPE
    edges = np.asarray(written.dataobj)
    assert [k for k in range(SHAPE[2]) if edges[..., k].any()] == [3, 4, 6], "along the file's own axis"
    assert 0 <= edges.min() <= edges.max() == 1.0


def test_tables_lay_published_figures_beside(run: Runner, scan: Scan, tmp_path: Path) -> None:
    edges = run("edges", scan.volume, "-o", tmp_path / "e.mha", "--slice", "4", *FEW, "--labels", scan.labels)
    assert edges.status == 0, edges.err
    for words in ("axial slice 4", "canny", "sobel", "SAM (ViT-H)", "0.768", "BSDS500", "0.0075 of the diag"):
        assert words in edges.out, words
    proposals = run(
        "proposals", scan.volume, "-o", tmp_path / "p.csv", "--slice", "4", *FEW, "--labels", scan.labels
    )
    assert proposals.status == 0, proposals.err
    for words in ("AR@1000", "nano, single output", "random boxes", "segments", "LVIS v1", "0.593"):
        assert words in proposals.out, words
    assert "on 1 slice (" in proposals.out
    assert "in the volume" not in proposals.out
    solid = tmp_path / "solid.json"
    linked = run(
        "proposals", scan.volume, "-o", tmp_path / "p.csv", "--slice", "4", *FEW, "--volume-boxes", solid
    )
    assert f"{solid}: " in linked.out
    assert "in the volume" in linked.out


def test_proposals_are_boxes_that_evaluate_reads(run: Runner, scan: Scan, tmp_path: Path) -> None:
    output, solid = tmp_path / "boxes.json", tmp_path / "solid.json"
    command = ("proposals", scan.volume, "--slices", "3-5", "--grid", "4", "--organ", "liver")
    answer = run(*command, "-o", output, "--volume-boxes", solid, "--json")
    assert answer.status == 0, answer.err
    document = json.loads(answer.out)
    read = read_detections(output)
    assert len(read.detections) == document["proposals"] > 0
    assert {one.organ for one in read.detections} == {"liver"}
    assert {one.view for one in read.detections} == {SliceView("axial", i) for i in (3, 4, 5)}
    on_slice = [one.score for one in read.detections if one.view.index == 4]
    assert on_slice == sorted(on_slice, reverse=True)
    boxes = read_boxes(str(output)).on_slice("ct.nii.gz", SliceView("axial", 4))
    assert [one.score for one in boxes] == on_slice
    csv = tmp_path / "boxes.csv"
    assert run(*command, "-o", csv).status == 0
    assert len(read_detections(csv).detections) == document["proposals"]
    assert document["scores"] is None
    solids = json.loads(solid.read_text())
    assert solids["space"] == "voxel"
    assert len(solids["boxes"]) == document["volume_boxes"] > 0
    for box in solids["boxes"]:
        assert all(0 <= low <= high < n for low, high, n in zip(box["from"], box["to"], SHAPE, strict=True))
        # slices 3 to 5 of the canonical axis lie at 5 to 3 of this file, whose k axis runs down
        assert 3 <= box["from"][2] <= box["to"][2] <= 5
    holding = [
        b
        for b in solids["boxes"]
        if all(f <= c <= t for f, c, t in zip(b["from"], CENTRE, b["to"], strict=True))
    ]
    assert holding


def test_bad_input_is_refused_in_one_line(run: Runner, scan: Scan, tmp_path: Path) -> None:
    edges = ("edges", scan.volume, "-o", tmp_path / "e.nii.gz", *FEW)
    proposals = ("proposals", scan.volume, "-o", tmp_path / "p.csv", *FEW)
    assert "There is no volume" in run("edges", tmp_path / "none.nii", *edges[2:]).error
    assert "edges are written as" in run("edges", scan.volume, "-o", tmp_path / "e.png").error
    assert "boxes are written as" in run("proposals", scan.volume, "-o", tmp_path / "p.txt").error
    assert "would be overwritten" in run("edges", scan.volume, "-o", scan.volume).error
    assert "does not exist" in run("edges", scan.volume, "-o", tmp_path / "none" / "e.nii").error
    empty = tmp_path / "empty.nii"
    nib.save(nib.Nifti1Image(np.zeros(SHAPE, dtype=np.uint8), nib.load(scan.volume).affine), empty)
    for command in (edges, proposals):
        assert "--scores needs --labels" in run(*command, "--scores", tmp_path / "s.json").error
        assert "There is no label file" in run(*command, "--labels", tmp_path / "none.nii").error
        assert "no axial slices 9" in run(*command, "--slices", "9").error
        assert 'no slices "x"' in run(*command, "--slices", "x").error
        assert "no plane" in run(*command, "--plane", "oblique").error
        assert "overlap by 2" in run(*command, "--nms", "2").error
        assert "no label on the slices" in run(*command, "--labels", empty).error
    twice = run(*proposals, "--volume-boxes", tmp_path / "p.csv").error
    assert "written twice" in twice
    assert not [*tmp_path.glob("e.*"), *tmp_path.glob("p.*")]
