"""That both ways of every row of the speed of networks say the same."""

from __future__ import annotations

import pytest

from benchmarks.speed_networks import rows


@pytest.mark.slow
def test_both_ways_answer_alike() -> None:
    exact, half, tiny, click, nano, preview, loop = rows("cpu", quick=True)
    assert "differ by 0.0e+00" in exact.note, "attention on a processor is Meta's bit for bit"
    for row in (half, tiny):
        apart = float(row.note.split("differ by ")[1].split(";")[0])
        assert 0 < apart < 0.03
    assert float(click.note.rsplit(" ", 1)[1]) < 1e-3
    assert preview.note.startswith("0 pixels differ")
    assert all(float(part.split()[-1]) > 0.995 for part in preview.note.split(";")[1].split(","))
    assert all(row.ours > 0 and row.theirs > 0 for row in (nano, loop))
