"""A job (a plain generator) as a thread with progress and cancel; the only place where threads meet Qt."""

from __future__ import annotations

import atexit
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Generator
from contextlib import suppress
from typing import Any
from weakref import WeakSet

from qtpy.QtCore import QObject, Qt, Signal

__all__ = ["Job", "Workers"]

_MOST_UNDELIVERED = 4
"""Results that may wait for the main thread: a fast job must not bury the user's clicks under its events."""
_STOP_SECONDS = 5.0
_BACKGROUND_NICENESS = 10
_leaving: WeakSet[Job] = WeakSet()
"""Jobs that were discarded as their widget was closed; their threads keep them to the end."""


class Job(QObject):
    """One generator running on a thread of its own; its signals arrive on the main thread.

    Cancelling takes effect between two yields: the generator is closed, and what it yielded stays.
    """

    yielded = Signal(object)
    returned = Signal(object)
    failed = Signal(object)
    finished = Signal()
    _posted = Signal()

    def __init__(self, generator: Generator[Any, None, Any], name: str, is_background: bool = False) -> None:
        super().__init__()
        self._is_background = is_background
        self.name = name
        self.was_cancelled = False
        self._generator = generator
        self._is_discarded = False
        self._is_silent = False
        self._cancel = threading.Event()
        self._ended = threading.Event()
        self._may_run = threading.Event()
        self._may_run.set()
        self._room = threading.Semaphore(_MOST_UNDELIVERED)
        self._thread = threading.Thread(target=self._run, name=f"sam-med {name}", daemon=True)
        self._messages: deque[tuple[str, object]] = deque()
        self._posted.connect(self._deliver_next, Qt.ConnectionType.QueuedConnection)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    @property
    def is_running(self) -> bool:
        """Whether the thread is alive."""
        return self._thread.is_alive()

    @property
    def was_discarded(self) -> bool:
        """Whether its results are outdated."""
        return self._is_discarded

    def cancel(self) -> None:
        """End at the next yield; what was yielded before is still delivered."""
        self.was_cancelled = True
        self._cancel.set()
        self._may_run.set()

    def discard(self) -> None:
        """Cancel, and deliver nothing any more: the results are outdated."""
        self._is_discarded = True
        self.cancel()

    def pause(self) -> None:
        """Wait at the next yield until `resume`."""
        if not self._cancel.is_set():
            self._may_run.clear()

    def resume(self) -> None:
        """Go on after `pause`."""
        self._may_run.set()

    def join(self, timeout: float) -> None:
        """Wait for the thread, at most `timeout` seconds."""
        self._thread.join(timeout)

    def deliver_within(self, seconds: float) -> None:
        """Wait for the end, at most some seconds, and deliver what has come by then; on the main thread."""
        self._ended.wait(seconds)
        while self._messages:
            self._deliver_next()

    def _run(self) -> None:
        if self._is_background:
            _give_way()
        try:
            while True:
                self._may_run.wait()
                if self._cancel.is_set():
                    self._generator.close()
                    break
                try:
                    value = next(self._generator)
                except StopIteration as stop:
                    self._post("returned", stop.value)
                    break
                self._post("yielded", value)
        except Exception as error:  # noqa: BLE001  every failure is shown to the user, on the main thread
            self._post("failed", error)
        finally:
            self._post("finished", None)
            self._ended.set()

    def _post(self, kind: str, value: object) -> None:
        while kind == "yielded" and not self._room.acquire(timeout=0.05):
            if self._cancel.is_set():
                break
        self._messages.append((kind, value))
        try:
            self._posted.emit()
        except RuntimeError:  # the Qt object is gone with the application; nobody is left to tell
            self._cancel.set()

    def silence(self) -> None:
        """Discard, and do not even tell that it has finished: whoever would listen is going."""
        self._is_silent = True
        self.discard()

    def _deliver_next(self) -> None:
        if not self._messages:
            return  # `deliver_within` was there before this call came through the event loop
        kind, value = self._messages.popleft()
        if self._is_silent:
            return
        if kind == "yielded":
            self._room.release()
        if kind == "finished":
            self.finished.emit()
        elif not self._is_discarded:
            getattr(self, kind).emit(value)


class Workers(QObject):
    """Every job of one widget, so that all can be stopped with it."""

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._jobs: set[Job] = set()
        self._is_stopped = False

    def start(
        self,
        generator: Generator[Any, None, Any],
        name: str,
        *,
        is_background: bool = False,
        yielded: Callable[[Any], None] | None = None,
        returned: Callable[[Any], None] | None = None,
        failed: Callable[[Exception], None] | None = None,
        finished: Callable[[], None] | None = None,
    ) -> Job:
        """Run a generator on a thread; the callbacks come on the main thread, ``finished`` always last.

        One in the background lets everything else have the processor first.
        """
        job = Job(generator, name, is_background)
        for signal, callback in (
            (job.yielded, yielded),
            (job.returned, returned),
            (job.failed, failed),
            (job.finished, finished),
        ):
            if callback is not None:
                signal.connect(callback)
        job.finished.connect(lambda: self._jobs.discard(job))
        self._jobs.add(job)
        if not self._is_stopped:
            job.start()
        return job

    @property
    def running(self) -> list[Job]:
        """Jobs whose thread is alive."""
        return [job for job in self._jobs if job.is_running]

    def stop(self, *, waits: bool = True) -> None:
        """Discard every job; nothing is started afterwards.

        Parameters
        ----------
        waits : bool
            Wait a moment for their threads, and for those that were not waited for before, as the application
            may end now. Otherwise they end by themselves; only the end of Python waits for them.
        """
        self._is_stopped = True
        for job in self._jobs:
            job.silence()
        _leaving.update(self._jobs)
        self._jobs.clear()
        if waits:
            _wait_for_leaving()


@atexit.register  # torch aborts the process where Python ends under one of its threads
def _wait_for_leaving() -> None:
    """Wait a moment for the threads of discarded jobs."""
    deadline = time.monotonic() + _STOP_SECONDS
    for job in list(_leaving):
        if job.is_running:
            job.join(max(0.0, deadline - time.monotonic()))


def _give_way() -> None:
    """Let other threads go first; the threads that torch starts for this one inherit it. Linux alone has
    priorities of threads.
    """
    if sys.platform == "linux":
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _BACKGROUND_NICENESS)
