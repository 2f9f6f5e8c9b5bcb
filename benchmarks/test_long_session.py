"""What the benchmark of a long session reckons with; the session itself is for the machine at hand."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.heartbeat import Gap
from benchmarks.long_session import slope


def test_a_slope_is_told_for_ten_minutes() -> None:
    seconds = np.arange(0, 1800, 1.0)
    assert slope(seconds, 1500 + 0.01 * seconds) == pytest.approx(6.0)
    assert slope(seconds, np.full_like(seconds, 1500)) == pytest.approx(0.0, abs=1e-9)


def test_a_gap_is_divided_into_work_queueing_and_waiting() -> None:
    gap = Gap(at=3.0, wall=0.21, own=0.08, queued=0.05, doing="accept", stacks=())
    assert gap.asleep == pytest.approx(0.07)
    assert Gap(0.0, 0.03, 0.03, 0.0, "", ()).asleep == 0.0
