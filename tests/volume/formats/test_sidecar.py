"""The JSON file beside exported labels."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from napari_sam_med.volume.formats import sidecar
from napari_sam_med.volume.formats.sidecar import Origin
from napari_sam_med.volume.grid import Grid
from napari_sam_med.volume.organs import OrganTable

GRID = Grid(np.eye(4), (4, 5, 6))


@pytest.mark.parametrize(
    ("name", "beside"),
    [
        ("liver.nii.gz", "liver.sam-med.json"),
        ("liver.seg.nrrd", "liver.sam-med.json"),
        ("a.b c.NII.GZ", "a.b c.sam-med.json"),
        ("名前.mha", "名前.sam-med.json"),
    ],
)
def test_it_lies_beside_the_labels(name: str, beside: str) -> None:
    assert sidecar.path_beside(Path("x") / name) == Path("x") / beside


def test_the_table_comes_back_for_a_file_of_that_shape_alone(tmp_path) -> None:
    labels = tmp_path / "liver.mha"
    assert sidecar.read_organs(labels, GRID) == (None, [])
    content = sidecar.content(labels, GRID, OrganTable.btcv(), Origin(None, {"name": "nano"}))
    sidecar.path_beside(labels).write_bytes(content)
    assert sidecar.read_organs(labels, GRID) == (OrganTable.btcv(), [])
    assert sidecar.read_organs(labels, Grid(np.eye(4), (4, 5, 7))) == (None, [])
    assert sidecar.read_organs(tmp_path / "liver.nrrd", GRID) == (None, []), "of another file of this stem"
    assert sidecar.read_organs(tmp_path / "liver.seg.nrrd", GRID) == (None, [])
    assert json.loads(content)["source"] is None


def test_a_pair_renamed_together_stays_one(tmp_path) -> None:
    content = sidecar.content(tmp_path / "liver.mha", GRID, OrganTable.btcv(), Origin())
    sidecar.path_beside(tmp_path / "leber.MHA").write_bytes(content)
    assert sidecar.read_organs(tmp_path / "leber.MHA", GRID) == (OrganTable.btcv(), [])


def test_the_origin_comes_back_wherever_the_next_labels_lie(tmp_path) -> None:
    labels, scan = tmp_path / "liver.mha", tmp_path / "ct.nii"
    assert sidecar.read_origin(labels, GRID) == Origin()
    scan.write_bytes(b"x")
    known = Origin.of(scan, {"name": "nano"})
    sidecar.path_beside(labels).write_bytes(sidecar.content(labels, GRID, OrganTable(), known))
    assert json.loads(sidecar.path_beside(labels).read_bytes())["source"]["path"] == "ct.nii"
    assert sidecar.read_origin(labels, GRID) == known
    (tmp_path / "other").mkdir()
    elsewhere = json.loads(sidecar.content(tmp_path / "other" / "liver.nrrd", GRID, OrganTable(), known))
    assert elsewhere["source"]["path"] == str(scan.resolve())
    assert Origin.of(None, {"name": "own"}).completed_by(known) == Origin(known.source, {"name": "own"})


@pytest.mark.parametrize(
    "change", [{"source": "ct.nii"}, {"source": {}}, {"model": 3}, {"schema_version": 9}]
)
def test_a_damaged_origin_is_none(tmp_path, change) -> None:
    labels = tmp_path / "liver.mha"
    record = json.loads(sidecar.content(labels, GRID, OrganTable(), Origin()))
    sidecar.path_beside(labels).write_text(json.dumps(record | change))
    assert sidecar.read_origin(labels, GRID) == Origin()


def test_a_source_elsewhere_is_named_by_its_whole_path(tmp_path) -> None:
    scan = tmp_path / "scans" / "ct.nii.gz"
    scan.parent.mkdir()
    scan.write_bytes(b"x")
    record = json.loads(sidecar.content(tmp_path / "liver.mha", GRID, OrganTable(), Origin.of(scan, None)))
    assert record["source"]["path"] == str(scan.resolve())
    assert record["model"] is None
