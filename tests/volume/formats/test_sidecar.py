"""The JSON file beside exported labels."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from napari_sam_med.volume.formats import sidecar
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
    content = sidecar.content(labels, GRID, OrganTable.btcv(), None, {"name": "nano"})
    sidecar.path_beside(labels).write_bytes(content)
    assert sidecar.read_organs(labels, GRID) == (OrganTable.btcv(), [])
    assert sidecar.read_organs(labels, Grid(np.eye(4), (4, 5, 7))) == (None, [])
    assert json.loads(content)["source"] is None


def test_a_source_elsewhere_is_named_by_its_whole_path(tmp_path) -> None:
    scan = tmp_path / "scans" / "ct.nii.gz"
    scan.parent.mkdir()
    scan.write_bytes(b"x")
    record = json.loads(sidecar.content(tmp_path / "liver.mha", GRID, OrganTable(), scan, None))
    assert record["source"]["path"] == str(scan.resolve())
    assert record["model"] is None
