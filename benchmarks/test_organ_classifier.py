"""The benchmark's own arithmetic, and that it runs on the sample."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.organ_classifier import FIRST, LAST, expected_vote, main
from napari_sam_med.sample_data import sample_labels, sample_volume


def test_a_vote_helps_less_when_slices_fail_together() -> None:
    """The figures of the published table of simulated votes (13 classes, 0.8331 per slice, 10 slices)."""
    assert expected_vote(0.8331, 0.1, [10], 13) == pytest.approx(0.988, abs=0.02)
    assert expected_vote(0.8331, 0.5, [10], 13) == pytest.approx(0.904, abs=0.02)
    assert expected_vote(0.8331, 0.0, [1], 13) == pytest.approx(0.8331, abs=0.02)


@pytest.mark.slow
def test_it_writes_figures_pictures_and_page(tmp_path: Path) -> None:
    cases = tmp_path / "cases.csv"
    cases.write_text(f"image,labels\n{sample_volume()},{sample_labels()}\n")
    page = tmp_path / "page.md"
    page.write_text(f"before {FIRST} old {LAST} after")
    main([str(cases), "-o", str(tmp_path / "out"), "--page", str(page)])
    document = json.loads((tmp_path / "out" / "figures.json").read_text())
    assert set(document) == {"bundled, labels", "bundled, predicted"}
    assert document["bundled, labels"]["objects"] == 13
    assert sum(path.suffix == ".png" for path in (tmp_path / "out").iterdir()) == 6
    text = page.read_text()
    assert text.startswith("before")
    assert text.endswith("after")
    assert "old" not in text.split(FIRST)[1].split(LAST)[0].split()
