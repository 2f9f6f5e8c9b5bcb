"""What looks wrong though it runs: told in one line, and not told of good runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from napari_sam_med import read_volume
from napari_sam_med.cli.doubts import doubtful_objects, looks_like_labels
from napari_sam_med.sample_data import sample_labels, sample_volume
from napari_sam_med.volume.volume import Grid, Volume
from tests.cli.cli_scan import Run, Scan, box, write_prompts

Runner = Callable[..., Run]
SHAPE = (10, 32, 32)


def volume_of(data: np.ndarray) -> Volume:
    return Volume(data, Grid(np.eye(4), data.shape[::-1]))


def test_labels_look_like_labels_and_scans_do_not(scan: Scan) -> None:
    assert looks_like_labels(read_volume(sample_labels()))
    assert looks_like_labels(read_volume(scan.labels))
    assert not looks_like_labels(read_volume(sample_volume()))
    assert not looks_like_labels(read_volume(scan.volume))


@pytest.mark.parametrize(
    "data",
    [
        np.random.default_rng(0).integers(0, 40, SHAPE).astype(np.uint8),  # a scan of few grey values
        np.zeros(SHAPE, dtype=np.uint8),
        np.full(SHAPE, np.nan, dtype=np.float32),
        np.repeat([[[0.0], [0.5]]], 16, axis=2).astype(np.float32),
    ],
)
def test_odd_scans_do_not_look_like_labels(data: np.ndarray) -> None:
    assert not looks_like_labels(volume_of(data))


def entry_of(quality: float, n_slices: int = 10, share: float = 0.1, **fields: Any) -> dict[str, Any]:
    reasons = {"forward": "end of the volume", "backward": "start of the volume"}
    return {
        "name": "liver",
        "label": 6,
        "voxels": int(share * np.prod(SHAPE)),
        "slices": [{"quality": quality}] * n_slices,
        "stop_reasons": reasons,
    } | fields


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        (entry_of(0.9), ""),  # a vessel runs through the whole scan
        (entry_of(0.2), "poor quality"),
        (entry_of(0.5), "every slice"),
        (entry_of(0.5, stop_reasons={"forward": "the mask vanished", "backward": "x"}), ""),
        (entry_of(0.9, share=0.7), "every slice"),
        (entry_of(0.5, n_slices=1, share=0.7), ""),
        (entry_of(0.0, share=0), ""),  # empty: told of elsewhere
    ],
)
def test_objects_are_doubted(entry: dict[str, Any], says: str) -> None:
    lines = doubtful_objects({"objects": [entry]}, SHAPE)
    assert len(lines) == bool(says)
    for line in lines:
        assert says in line
        assert "liver (label 6)" in line


def test_labels_as_the_volume_are_told_and_segmented(run: Runner, scan: Scan, tmp_path: Any) -> None:
    answer = run("segment", scan.labels, "-p", scan.prompts, "-o", tmp_path / "out.nii.gz", "--no-propagate")
    assert answer.status == 0
    (line,) = [line for line in answer.err.splitlines() if "looks like labels" in line]
    assert line.startswith("warning: truth.nii.gz ")
    assert (tmp_path / "out.nii.gz").exists()


def test_where_each_direction_ended_is_shown(run: Runner, scan: Scan, tmp_path: Any) -> None:
    arguments = ("segment", scan.volume, "-p", scan.prompts, "-o", tmp_path / "out.nii.gz")
    carried = run(*arguments)
    assert "liver: forward to slice" in carried.out
    assert max(len(line) for line in carried.out.splitlines()) <= 100
    alone = run(*arguments, "--no-propagate")
    assert "forward" not in alone.out
    (row,) = [line for line in alone.out.splitlines() if "liver" in line]
    assert row.split()[3] == "4"
    assert " to " not in row


def test_touching_objects_are_noted_in_the_report_alone(
    run: Runner, scan: Scan, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import json

    monkeypatch.setattr("napari_sam_med.segmentation.from_prompts._SLIGHT_OVERLAP", 2.0)
    prompts = write_prompts(tmp_path / "p.json", box(6), box(7, name="stomach"))
    out = tmp_path / "out.nii.gz"
    answer = run("segment", scan.volume, "-p", prompts, "-o", out, "--no-propagate", "--json")
    assert answer.err == ""
    assert any("overlap" in line for line in json.loads(answer.out)["warnings"])
