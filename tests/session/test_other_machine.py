"""Another machine is reached as a job, and left by it where nobody waits for it any more."""

from __future__ import annotations

import threading

import pytest

from napari_sam_med.errors import ClusterError
from napari_sam_med.session import other_machine
from napari_sam_med.session.other_machine import reach


class FakeCluster:
    """Stands in for a `Cluster`, and says when it is left."""

    dashboard = ""

    def __init__(self) -> None:
        self.error: ClusterError | None = None
        self.is_left = threading.Event()

    def count(self) -> tuple[int, int]:
        if self.error is not None:
            raise self.error
        return 2, 1

    def close(self) -> None:
        self.is_left.set()


def test_one_that_is_lost_while_it_is_reached_is_left_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = FakeCluster()
    cluster.error = ClusterError("The connection was lost.")
    monkeypatch.setattr(other_machine, "connect", lambda address: cluster)
    with pytest.raises(ClusterError, match="was lost"):
        list(reach("tcp://there:1"))
    assert cluster.is_left.is_set()


def test_one_that_answers_when_nobody_waits_any_more_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster, may_answer = FakeCluster(), threading.Event()

    def connect(address: str) -> FakeCluster:
        may_answer.wait(10)
        return cluster

    monkeypatch.setattr(other_machine, "connect", connect)
    job = reach("tcp://there:1")
    next(job)
    job.close()
    may_answer.set()
    assert cluster.is_left.wait(10)
