"""What the benchmark of a long session reckons with; the session itself is for the machine at hand."""

from __future__ import annotations

import tempfile
import threading
import weakref

import numpy as np
import pytest

from benchmarks.heartbeat import Gap, calls_of
from benchmarks.long_session import slope


def test_a_slope_is_told_for_ten_minutes() -> None:
    seconds = np.arange(0, 1800, 1.0)
    assert slope(seconds, 1500 + 0.01 * seconds) == pytest.approx(6.0)
    assert slope(seconds, np.full_like(seconds, 1500)) == pytest.approx(0.0, abs=1e-9)


def test_a_gap_is_divided_into_work_queueing_and_waiting() -> None:
    gap = Gap(at=3.0, wall=0.21, own=0.08, queued=0.05, doing="accept", stacks=())
    assert gap.asleep == pytest.approx(0.07)
    assert Gap(0.0, 0.03, 0.03, 0.0, "", ()).asleep == 0.0


def test_looking_at_a_thread_tells_its_calls_and_keeps_nothing_of_them_alive() -> None:
    class Painter:
        pass

    is_painting, may_end = threading.Event(), threading.Event()
    known: list[weakref.ref[Painter]] = []

    def paint() -> None:
        painter = Painter()
        known.append(weakref.ref(painter))
        is_painting.set()
        may_end.wait(60)

    thread = threading.Thread(target=paint)
    thread.start()
    is_painting.wait(60)
    with tempfile.TemporaryFile() as notes:
        told = [calls_of(thread.ident, notes) for _ in range(2)]
        may_end.set()
        thread.join()
        assert known[0]() is None
        assert calls_of(thread.ident, notes) == ""
    assert told[0] == told[1]
    here, then = (told[0].index(name) for name in (" paint", " wait"))
    assert "benchmarks/test_long_session.py:" in told[0]
    assert here < then
