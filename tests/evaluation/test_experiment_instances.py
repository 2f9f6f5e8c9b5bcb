"""Experiments with the boxes of a detector: rows and instances, carried on, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from napari_sam_med.errors import ExportError, PromptError
from napari_sam_med.evaluation.detections import Detection, write_detections
from napari_sam_med.evaluation.experiment import run_experiment
from napari_sam_med.evaluation.results_file import read_results
from napari_sam_med.sam.predictor import Predictor, load_predictor
from napari_sam_med.volume.slice_view import SliceView
from tests.evaluation.experiment_cases import small_experiment, write_cases


@pytest.fixture(scope="module")
def nano() -> Predictor:
    return load_predictor("nano", device="cpu")


def _write_boxes(path: Path, score: float = 0.9, case: str = "case 0", index: int = 5) -> str:
    view = SliceView("axial", index)
    write_detections(
        path,
        [
            Detection(case, view, (8, 6, 23, 19), score, organ="liver"),
            Detection(case, SliceView("axial", 0), (0, 0, 9, 9), 0.1, label=2),  # a slice without organs
        ],
    )
    return f"boxes:{path}"


def _run(folder: Path, strategy: str, nano: Predictor, count: int = 1) -> dict[str, Any]:
    experiment = small_experiment(folder, count, strategy)
    steps = list(run_experiment(experiment, folder / "out", load=lambda _: nano, pages=False))
    assert steps[-1].summary is not None
    assert [step.progress.text for step in steps if "instances" in step.progress.text] != []
    return steps[-1].summary


def test_rows_and_instances_are_measured_and_carried_on(tmp_path: Path, nano: Predictor) -> None:
    write_cases(tmp_path, 1)
    strategy = _write_boxes(tmp_path / "found.csv")
    summary = _run(tmp_path, strategy, nano)
    rows = read_results(tmp_path / "out" / "results.csv")
    seen = [row for row in rows if row.prompts is not None]
    assert {(row.view.index, row.organ) for row in seen} == {(5, "liver")}
    assert min(row.dice for row in seen) > 0.5
    assert {row.dice for row in rows if row.prompts is None} == {0.0}
    means = summary["models"]["nano"][strategy]
    assert means["slices"] == len(rows) == 2 * (8 + 4)
    agreement = means["iou_prediction"]
    assert agreement["mean"] == pytest.approx(seen[0].iou_prediction, abs=1e-6), (
        "of the answers that have one"
    )
    instances = summary["instances"]["nano"][strategy]
    assert (instances["detections"], instances["left_out"]) == (2, 0)
    assert instances["instances"]["all"] == 8 + 4
    # 1 of 8 livers: 13 of 101 points of recall; none of 4 others
    assert instances["organs"]["liver"]["ap50"] == pytest.approx(13 / 101)
    assert instances["ap50"] == pytest.approx(13 / 202)
    document = json.loads((tmp_path / "out" / "instances.json").read_text())
    assert [image["slice"] for image in document["images"]] == [0, *range(1, 9)]
    again = _run(tmp_path, strategy, nano)
    assert again["instances"] == summary["instances"]
    assert len(read_results(tmp_path / "out" / "results.csv")) == len(rows)


def test_boxes_beside_everything_that_is_measured_are_told(tmp_path: Path, nano: Predictor) -> None:
    write_cases(tmp_path, 1)
    strategy = _write_boxes(tmp_path / "found.csv", index=9)  # the liver ends on slice 8
    (warning,) = _run(tmp_path, strategy, nano)["warnings"]
    assert warning.startswith(f"{strategy} has no box of these organs on any slice that was measured")
    hit = _write_boxes(tmp_path / "hit.csv")
    (tmp_path / "out2").mkdir()
    experiment = small_experiment(tmp_path, 1, hit)
    *_, last = run_experiment(experiment, tmp_path / "out2", load=lambda _: nano, pages=False)
    assert last.summary is not None
    assert last.summary["warnings"] == []


def test_rows_of_other_boxes_are_not_carried_on(tmp_path: Path, nano: Predictor) -> None:
    write_cases(tmp_path, 1)
    strategy = _write_boxes(tmp_path / "found.csv")
    _run(tmp_path, strategy, nano)
    _write_boxes(tmp_path / "found.csv", score=0.5)
    with pytest.raises(ExportError, match="boxes_sha256"):
        _run(tmp_path, strategy, nano)


def test_boxes_of_other_scans_and_slices_are_refused_at_once(tmp_path: Path, nano: Predictor) -> None:
    write_cases(tmp_path, 2)
    strategy = _write_boxes(tmp_path / "found.csv")
    with pytest.raises(PromptError, match="those of case 1"):
        _run(tmp_path, strategy, nano, count=2)
    assert not (tmp_path / "out").exists()
    with pytest.raises(PromptError, match="axial slice 10 of case 0, which has 10"):
        _run(tmp_path, _write_boxes(tmp_path / "found.csv", index=10), nano)
