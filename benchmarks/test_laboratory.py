"""The three ways to measure an experiment give the same scores."""

from __future__ import annotations

from benchmarks.laboratory import AGREEMENT, compare_ways


def test_batches_and_loops_agree() -> None:
    assert compare_ways("nano", 1, 1) <= AGREEMENT
