"""Workers: each item comes back once, also where a worker dies, and what is wrong is said in one line."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import warnings
from collections import Counter
from pathlib import Path

import pytest

from napari_sam_med.cluster import versions
from napari_sam_med.cluster import workers as module
from napari_sam_med.cluster.workers import Cluster, connected, local_workers
from napari_sam_med.errors import CancelledError, ClusterError, DeviceError
from tests.dask_here import scheduler_here

distributed = pytest.importorskip("distributed")


@pytest.fixture
def threads():
    """A scheduler and two workers in this process."""
    with scheduler_here(2) as here:
        yield here


def test_a_killed_worker_costs_only_the_task_it_was_at(tmp_path: Path) -> None:
    def stamp(number: int) -> int:
        with (tmp_path / "begun.txt").open("a") as file:
            file.write(f"{number}\n")
        if number == 2 and not (tmp_path / "killed").exists():
            (tmp_path / "killed").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return number * 10

    with local_workers(2) as workers:
        found = list(workers.each(stamp, range(8)))
    assert sorted(found) == [(number, number * 10) for number in range(8)]
    begun = Counter(int(line) for line in (tmp_path / "begun.txt").read_text().split())
    assert begun[2] == 2
    assert sum(begun.values()) <= 10, (
        "beside that task at most one that had not been fetched from the dead worker"
    )


def test_what_a_task_refuses_is_raised_here_and_the_rest_is_given_up(threads) -> None:
    def refuse(number: int) -> int:
        from napari_sam_med.errors import PromptError

        if number == 1:
            raise PromptError("no prompt")
        return number

    from napari_sam_med.errors import PromptError

    with connected(threads.scheduler_address) as workers, pytest.raises(PromptError, match="no prompt"):
        list(workers.each(refuse, range(100)))


def test_a_lost_scheduler_is_one_line_that_says_what_is_kept(threads) -> None:
    with connected(threads.scheduler_address) as workers:
        found = workers.each(abs, range(1000))
        next(found)
        threads.close()
        with pytest.raises(ClusterError, match="was lost; 1 of the cases"):
            next(found)


def test_tasks_ask_for_a_gpu_where_a_worker_says_that_it_has_one(threads) -> None:
    address = threads.scheduler_address
    with connected(address, device="auto") as workers:
        assert not workers.wants_gpu
    with pytest.raises(DeviceError, match="GPU=1"), connected(address, device="cuda"):
        pass
    with (
        scheduler_here(1, {"GPU": 1}) as one,
        connected(one.scheduler_address) as workers,
    ):
        assert workers.wants_gpu
        assert sorted(workers.each(abs, [-1, 2])) == [(0, 1), (1, 2)]


def test_a_worker_with_other_versions_is_refused(threads, monkeypatch: pytest.MonkeyPatch) -> None:
    real = versions.metadata.version
    # the worker asks in this process, too: other names for the two sides
    monkeypatch.setattr(versions, "metadata", _Versions(real))
    with (
        pytest.raises(ClusterError, match=r"has torch .* \(here 0\.0\)"),
        connected(threads.scheduler_address),
    ):
        pass


class _Versions:
    def __init__(self, real) -> None:
        self._real = real

    def version(self, name: str) -> str:
        return "0.0" if name == "torch" else self._real(name)


class Unpacked:
    """Counts how often it is unpickled in this process."""

    times = 0

    def __reduce__(self):
        return _unpacked, ()


def _unpacked() -> Unpacked:
    Unpacked.times += 1
    return Unpacked()


def unpacked_times(item: Unpacked) -> int:
    return item.times


def test_a_scheduler_does_not_read_what_is_sent_through_it(threads) -> None:
    """It would have to have all of our packages, and is silent while it imports them."""
    item = Unpacked()
    with connected(threads.scheduler_address) as workers:
        assert workers.ask(unpacked_times, item) == 1
        assert [result for _, result in workers.each(unpacked_times, [item])] == [2]


def test_one_question_is_answered_or_what_is_wrong_is_raised(threads) -> None:
    with connected(threads.scheduler_address) as workers:
        assert workers.ask(abs, -3) == 3
        assert workers.ask(_with_bytes, "of ", workers.share(b"abc")) == "of abc"
        with pytest.raises(TimeoutError, match="its own"):
            workers.ask(_too_late, None)
        assert workers.is_connected
        assert workers.count() == (2, 0)
        threads.close()
        lost = f"The connection to {workers.address} was lost"
        with pytest.raises(ClusterError, match=lost):
            workers.ask(abs, -3)
        assert not workers.is_connected
        with pytest.raises(ClusterError, match=lost):
            workers.count()


def test_an_answer_may_take_long_on_its_way(threads, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_POLL_S", 0.05)
    gather = threads.scheduler.gather

    async def slowly(*keys, **options):
        await asyncio.sleep(0.3)
        return await gather(*keys, **options)

    threads.scheduler.handlers["gather"] = slowly
    with connected(threads.scheduler_address) as workers:
        assert workers.ask(abs, -3) == 3


def test_large_slices_are_sent_without_advice_of_the_library(threads) -> None:
    with warnings.catch_warnings(record=True) as said, connected(threads.scheduler_address) as workers:
        assert workers.ask(len, bytes(11_000_000)) == 11_000_000
    assert [str(one.message) for one in said if "large graph" in str(one.message)] == []


_may_go_on = threading.Event()


def _held(_: None) -> None:
    _may_go_on.wait(30)


def test_what_is_not_wanted_any_more_is_not_waited_for(threads) -> None:
    with connected(threads.scheduler_address) as workers:
        try:
            with pytest.raises(CancelledError):
                workers.ask(_held, None, should_stop=lambda: True)
            assert workers.ask(abs, -3) == 3
        finally:
            _may_go_on.set()


def _with_bytes(item: str, content: bytes) -> str:
    return item + content.decode()


def _too_late(_: None) -> None:
    raise TimeoutError("its own")


def test_the_dashboard_has_an_address(threads) -> None:
    with distributed.Client(threads, set_as_default=False) as client:
        assert Cluster(client).dashboard.startswith("http")
