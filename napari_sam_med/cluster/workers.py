"""Workers that share out the items of a job, by dask.distributed: here or at a scheduler's address."""

from __future__ import annotations

import asyncio
import logging
import os
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent import futures
from concurrent.futures import CancelledError as LostFutureError
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import uuid4

from napari_sam_med.cluster.scheduler_address import PATIENCE_S, client_at
from napari_sam_med.cluster.versions import check_versions, first_line
from napari_sam_med.errors import CancelledError, ClusterError, DeviceError

if TYPE_CHECKING:
    from distributed import Client, Future

__all__ = ["INSTALL", "Cluster", "connect", "connected", "is_installed", "local_workers"]

INSTALL = 'pip install "napari-sam-med[cluster]"'

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

_LOCAL_PATIENCE_S = 180
"""On this machine they import torch first, which a slow disk takes long over."""
_ALLOWED_DEATHS = 2
"""Workers that may die over one task before it is given up: most often it needs more memory than there is."""
_FAREWELL_S = 5
_POLL_S = 0.5
"""While one answer is waited for, how often it is asked whether anybody is there who can give it."""
_GLANCE_S = 0.05
"""And how often whether it is still wanted."""
_LIFE_SIGN_S = 10
"""Seconds that a scheduler may take to say so."""
_WITHOUT_WORKERS_S = 5
"""That it may be without any: killed ones are started again."""
_LONGEST_ANSWER_S = 120
"""Among it, for the first answer: importing torch and loading a model."""


class Cluster:
    """Workers that are ready; made by `connect`, `connected` and `local_workers`.

    Parameters
    ----------
    client : distributed.Client
    device : str
        That the workers compute on, as for `load_predictor`.
    wants_gpu : bool
        Whether tasks ask for the resource ``GPU``, of which each takes one.

    Attributes
    ----------
    address : str
        Of the scheduler.
    dashboard : str
        Address of the page that shows what the workers do; empty where there is none.
    """

    def __init__(self, client: Client, *, device: str = "auto", wants_gpu: bool = False) -> None:
        self._client = client
        self.device = device
        self.wants_gpu = wants_gpu
        self.address = str(client.scheduler.address)
        self.dashboard = client.dashboard_link or ""

    @property
    def is_connected(self) -> bool:
        """Whether the scheduler is there, as far as is known without asking it."""
        return bool(self._client.status == "running")

    def count(self) -> tuple[int, int]:
        """How many workers there are now, and how many of them say that they have a GPU.

        Raises
        ------
        ClusterError
            When the scheduler is lost, or does not answer within seconds.
        """
        self._check_connected()
        try:
            state = self._client.sync(
                self._client.scheduler.identity, n_workers=-1, callback_timeout=_LIFE_SIGN_S
            )
        except Exception as error:  # dask has no class for what it raises when it is cut off
            raise ClusterError(f"The connection to {self.address} was lost.") from error
        workers = state["workers"].values()
        return len(workers), sum(map(_has_gpu, workers))

    def share(self, content: bytes) -> Future:
        """Send bytes to all workers once, to be handed to `ask` as long as one of them `holds` them.

        Raises
        ------
        ClusterError
            When the scheduler is lost, or has no worker for seconds.
        """
        until = time.monotonic() + _WITHOUT_WORKERS_S
        while True:
            try:
                return self._client.scatter(content, broadcast=True, hash=False, timeout=_WITHOUT_WORKERS_S)
            except Exception as error:  # dask has no class for what it raises when it is cut off
                if not self.is_connected or time.monotonic() > until:
                    raise ClusterError(
                        f"{len(content) / 1e6:.0f} MB could not be sent to {self.address} "
                        f"({first_line(error)})."
                    ) from error
            time.sleep(_POLL_S)  # one may have been killed that the scheduler still counts on

    def holds(self, shared: Future) -> bool:
        """Whether workers have what was shared: it is lost with the last one of those it was sent to."""
        return bool(shared.status == "finished")

    def ask(
        self,
        function: Callable[..., _Result],
        item: object,
        *shared: Future,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> _Result:
        """Call a function on a worker and wait for what it returns; from any thread.

        Parameters
        ----------
        function : callable
            Of a module that workers have; called with the item, and with the bytes that were shared.
        item : object
            Can be pickled.
        *shared
            From `share`.
        should_stop : callable
            Whether the answer is not wanted any more; asked on this thread, while it is waited for.

        Raises
        ------
        ClusterError
            When the scheduler is lost or silent, no worker is there any more that could do it, it ended
            several of them, or took longer than two minutes.
        CancelledError
            When it should stop. What a worker has begun it finishes, for nobody.
        Exception
            That the function raised.
        """
        from distributed import KilledWorker

        future = None
        try:
            self._check_connected()
            # before what others have waiting: somebody waits for this one
            future = self._submit(function, item, *shared, priority=1)
            # never cancelled in its middle: dask has answers to several threads come together
            answer = asyncio.run_coroutine_threadsafe(
                self._client.gather(future, asynchronous=True), self._client.loop.asyncio_loop
            )
            self._wait_for(answer, should_stop)
            result: _Result = answer.result()
            return result
        except KilledWorker:
            raise ClusterError(
                f"What was asked of {self.address} ended several workers, most often for want of memory."
            ) from None
        except (ClusterError, CancelledError):
            raise
        except Exception as error:  # dask has no class for what it raises when it is cut off
            if future is not None and future.status == "error":
                raise  # the function's own
            raise ClusterError(f"The connection to {self.address} was lost.") from error
        finally:
            if future is not None:
                with suppress(Exception):  # nothing to be given up where the scheduler is lost
                    future.cancel()

    def _check_connected(self) -> None:
        if not self.is_connected:
            raise ClusterError(f"The connection to {self.address} was lost.")

    def _wait_for(self, answer: futures.Future[Any], should_stop: Callable[[], bool]) -> None:
        started = able_at = looked_at = time.monotonic()
        while not futures.wait([answer], timeout=_GLANCE_S).done:
            if should_stop():
                raise CancelledError("It was given up for something more urgent.")
            if time.monotonic() - looked_at < _POLL_S:
                continue
            workers, gpus = self.count()
            now = looked_at = time.monotonic()
            if gpus if self.wants_gpu else workers:
                able_at = now
            elif now - able_at > _WITHOUT_WORKERS_S:
                raise ClusterError(
                    f"No worker {'with a GPU ' if self.wants_gpu else ''}is left at {self.address}."
                )
            if now - started > _LONGEST_ANSWER_S:
                raise ClusterError(f"{self.address} did not answer within {_LONGEST_ANSWER_S} s.")

    def close(self) -> None:
        """Leave the workers; takes up to seconds where they do not answer."""
        _close(self._client)

    def each(
        self, function: Callable[[_Item], _Result], items: Iterable[_Item]
    ) -> Iterator[tuple[int, _Result]]:
        """Call a function for every item on the workers; every item comes back once, as it is finished.

        A worker that dies costs the task it was at, which another one begins again. Closing the generator
        gives up what is not finished. Items are sent a few at a time, so that many large ones may follow.

        Parameters
        ----------
        function : callable
            Of a module that workers have; writes files whole or not at all, as it may be called again.
        items : iterable
            Can be pickled.

        Yields
        ------
        (int, result)
            Number of the item, from 0, and what the function returned.

        Raises
        ------
        ClusterError
            When the scheduler is lost, or one task has ended too many workers.
        Exception
            That the function raised for an item.
        """
        from distributed import as_completed

        waiting = iter(enumerate(items))
        running: dict[Future, int] = {}
        finished = 0
        try:
            arriving = as_completed(loop=self._client.loop)
            self._send(function, waiting, running, arriving)
            while running:
                future = next(arriving)
                result = self._result_of(future, running[future])
                number = running.pop(future)
                future.release()
                self._send(function, waiting, running, arriving)
                finished += 1
                yield number, result
        except (LostFutureError, OSError) as error:  # OSError has the failures of connections among it
            if isinstance(error, OSError) and self._client.status == "running":
                raise  # the function's own
            raise ClusterError(
                f"The connection to the scheduler {self.address} was lost; {finished} of the cases were "
                "finished and are kept: start the scheduler again and give the same command once more, with "
                "--resume where it has that."
            ) from None
        finally:
            with suppress(Exception):  # nothing to be given up where the scheduler is lost
                self._client.cancel(list(running), asynchronous=False)

    def _submit(
        self, function: Callable[..., Any], item: object, *shared: Future, priority: int = 0
    ) -> Future:
        """Hand a task in, pickled here: a scheduler reads what it passes on, and would import torch for it,
        silent for seconds, or not have it.
        """
        from distributed.protocol.pickle import dumps

        def call(pickled: bytes, *shared: bytes) -> Any:
            # within a function it is sent as code, so that the scheduler needs nothing of ours; dask's own
            # loading, as of every task: whoever reaches a worker may run any code there
            from distributed.protocol.pickle import loads

            function, item = loads(pickled)
            return function(item, *shared)

        return self._client.submit(
            call,
            dumps((function, item)),
            *shared,
            key=f"{function.__name__}-{uuid4()}",
            priority=priority,
            resources={"GPU": 1} if self.wants_gpu else None,
        )

    def _send(
        self,
        function: Callable[[_Item], _Result],
        waiting: Iterator[tuple[int, _Item]],
        running: dict[Future, int],
        arriving: Any,
    ) -> None:
        """Have two tasks for every thread under way."""
        wanted = 2 * max(1, sum(self._client.nthreads().values()))
        while len(running) < wanted:
            entry = next(waiting, None)
            if entry is None:
                return
            number, item = entry
            future = self._submit(function, item)
            running[future] = number
            arriving.add(future)

    def _result_of(self, future: Future, number: int) -> Any:
        from distributed import KilledWorker

        try:
            return future.result()
        except KilledWorker:
            raise ClusterError(
                f"Case {number + 1} ended several workers, most often for want of memory: "
                "give a worker more of it, or start fewer on one machine. What was finished is kept."
            ) from None


@contextmanager
def connected(address: str, *, device: str = "auto") -> Iterator[Cluster]:
    """Context in which the workers of a running scheduler are there; as `connect`."""
    cluster = connect(address, device=device)
    try:
        yield cluster
    finally:
        cluster.close()


def connect(address: str, *, device: str = "auto") -> Cluster:
    """The workers of a running scheduler; whoever asks for them closes them.

    Parameters
    ----------
    address : str
        Such as ``tcp://10.0.0.5:8786``, or ``tls://...``; certificates come from dask's own configuration.
    device : str
        With ``auto`` tasks go to workers that say that they have a GPU, where there are any; ``cuda`` refuses
        to go on without them, and ``cpu`` leaves it open.

    Raises
    ------
    ClusterError
        When nobody answers, no worker is there, or a worker has other versions than this process.
    DeviceError
        When a GPU was asked for and no worker has one.
    """
    client = client_at(address, _distributed().Client)
    try:
        _wait_for_workers(client, 1, PATIENCE_S, f"start one with dask worker {address}")
        check_versions(client)
        return Cluster(client, device=device, wants_gpu=_asks_for_gpu(client, device))
    except BaseException:
        _close(client)
        raise


@contextmanager
def local_workers(count: int | None = None, *, device: str = "auto") -> Iterator[Cluster]:
    """Context in which processes of this machine, of one thread each, are there for a job.

    Parameters
    ----------
    count : int, optional
        One for each core that this process may use when left out.
    device : str
        All of them compute on.

    Raises
    ------
    ClusterError
        When they do not start.
    """
    from dask import config

    distributed = _distributed()
    wanted = count or _cores()
    try:
        with config.set({"distributed.scheduler.allowed-failures": _ALLOWED_DEATHS}):
            processes = distributed.LocalCluster(
                n_workers=wanted,
                threads_per_worker=1,
                memory_limit=0,  # a scan may take more than its share for a moment, and be killed for it
                dashboard_address=":0",  # any free port
                silence_logs=logging.CRITICAL,
            )
    except (OSError, RuntimeError) as error:
        raise ClusterError(
            f"{wanted} {'workers' if wanted > 1 else 'worker'} did not start ({first_line(error)}); give "
            "fewer --workers."
        ) from None
    client = None
    try:
        client = distributed.Client(processes, set_as_default=False)
        _wait_for_workers(client, wanted, _LOCAL_PATIENCE_S, "give fewer --workers")
        yield Cluster(client, device=device)
    finally:
        if client is not None:
            _close(client)
        with suppress(Exception):  # a farewell that fails must not hide why we leave
            processes.close(timeout=_FAREWELL_S)


def _cores() -> int:
    """Those that this process may use, where the system tells."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def is_installed() -> bool:
    """Whether the library is there; it is not loaded for that."""
    return find_spec("distributed") is not None


def _distributed() -> Any:
    """The library, kept from speaking on its own."""
    try:
        import distributed
    except ImportError:
        raise ClusterError(f"Workers need dask.distributed, which is not installed; run {INSTALL}.") from None
    for name in ("distributed", "distributed.client", "distributed.core", "tornado", "tornado.application"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    # a few large slices: there is nothing that the user could do otherwise
    warnings.filterwarnings("ignore", message="Sending large graph", category=UserWarning)
    return distributed


def _wait_for_workers(client: Client, count: int, seconds: float, remedy: str) -> None:
    from distributed import TimeoutError as TooLateError

    try:
        client.wait_for_workers(count, timeout=seconds)
    except (TooLateError, OSError):
        there = len(client.nthreads())
        raise ClusterError(
            f"{count} {'workers were' if count > 1 else 'worker was'} waited for {seconds:g} s, and there "
            f"{'is' if there == 1 else 'are'} {there}; {remedy}."
        ) from None


def _asks_for_gpu(client: Client, device: str) -> bool:
    if device not in ("auto", "cuda") and not device.startswith("cuda:"):
        return False
    workers = client.scheduler_info(n_workers=-1)["workers"].values()
    if any(map(_has_gpu, workers)):
        return True
    if device == "auto":
        return False
    raise DeviceError(
        'No worker says that it has a GPU; start one with dask worker ADDRESS --resources "GPU=1", or give '
        "--device cpu."
    )


def _has_gpu(worker: dict[str, Any]) -> bool:
    return bool(worker.get("resources", {}).get("GPU", 0) >= 1)


def _close(client: Client) -> None:
    with suppress(Exception):  # a farewell that fails must not hide why we leave
        client.close(timeout=_FAREWELL_S)
