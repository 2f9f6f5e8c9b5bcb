"""The benchmark of air and body, on one small scan."""

from __future__ import annotations

import pytest

from benchmarks.body import in_field, run
from napari_sam_med.segmentation.body import BodyBox


def test_the_sample_in_a_wide_field_is_shown_finer(capsys: pytest.CaptureFixture[str]) -> None:
    _, volume, labels = in_field(500, side=128, thinned=8)
    assert volume.shape == labels.shape == (6, 128, 128)
    box = BodyBox.of(volume)
    inside = labels.data[tuple(map(slice, box.low, box.high))]
    assert (inside > 0).sum() == (labels.data > 0).sum() > 0
    run(["--quick"])
    tables = capsys.readouterr().out.strip().split("\n\n")
    scan = [cell.strip() for cell in tables[0].splitlines()[-1].split("|")[1:-1]]
    assert scan[0] == "sample in 500 mm"
    assert float(scan[6]) > 1.4
    rows = tables[1].splitlines()[2:]
    assert len(rows) == 6  # three planes, two ways to prompt
    assert all(0 < float(cell) < 1 for row in rows for cell in row.split("|")[5:7])
    carried = tables[2].splitlines()[-1].split("|")
    assert all(0.3 < float(cell) <= 1 for cell in carried[3:5])
