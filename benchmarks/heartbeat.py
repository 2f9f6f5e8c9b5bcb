"""How long the main thread is away from its event loop, and why.

A timer beats on the main thread. A gap between two beats is a time in which no click is answered; it is told
apart what the main thread itself worked meanwhile, how long it waited for a processor that other programs or
threads had, and how long it slept: it waited for a lock (Python's own, while another thread held it) or a
file. A second thread notes where the main thread is while a beat is late.
"""

from __future__ import annotations

import faulthandler
import re
import tempfile
import threading
import time
from pathlib import Path
from typing import IO, NamedTuple

from qtpy.QtCore import Qt, QTimer

__all__ = ["Gap", "Heartbeat", "calls_of"]

_BEAT_MS = 10
_LATE_SECONDS = 0.06
_LOOK_SECONDS = 0.03
_MOST_LOOKS = 6
_FRAMES = 14
_THREAD = re.compile(r"(?:Current thread|Thread) 0x([0-9a-f]+)")
_CALL = re.compile(r'\s*File "(.*)", line (\d+) in (.*)')


class Gap(NamedTuple):
    """A time without an event loop, in seconds.

    Attributes
    ----------
    at : float
        Since the first beat.
    wall : float
        Between two beats.
    own : float
        Of the processor, by the main thread.
    queued : float
        That the main thread could have worked, but had no processor; 0 where the system does not say.
    doing : str
        The step of the script.
    stacks : tuple of str
        Where the main thread was, as looked at from outside.
    """

    at: float
    wall: float
    own: float
    queued: float
    doing: str
    stacks: tuple[str, ...]

    @property
    def asleep(self) -> float:
        """Neither working nor queued: waiting for a lock or a file."""
        return max(0.0, self.wall - self.own - self.queued - _BEAT_MS / 1000)


class Heartbeat:
    """Beats until it is stopped; made and stopped on the main thread.

    Parameters
    ----------
    noted_from : float
        Seconds; shorter gaps are counted but not kept.

    Attributes
    ----------
    doing : str
        What is going on, to be kept with every gap.
    gaps : list of Gap
    beats : int
    """

    def __init__(self, noted_from: float = 0.03) -> None:
        self.doing = ""
        self.gaps: list[Gap] = []
        self.beats = 0
        self._noted_from = noted_from
        self._start = time.perf_counter()
        self._main = threading.get_ident()
        self._stacks: list[str] = []
        self._is_over = threading.Event()
        self._note_now()
        self._timer = QTimer()
        self._timer.setTimerType(Qt.TimerType.PreciseTimer)
        self._timer.setInterval(_BEAT_MS)
        self._timer.timeout.connect(self._beat)
        self._timer.start()
        self._watch = threading.Thread(target=self._look, name="heartbeat", daemon=True)
        self._watch.start()

    def stop(self) -> None:
        """Beat no more."""
        self._timer.stop()
        self._is_over.set()
        self._watch.join()

    def skip(self) -> None:
        """What the main thread did since the last beat was the measuring itself."""
        self._stacks.clear()
        self._note_now()

    def _note_now(self) -> None:
        self._last, self._own, self._queued = time.perf_counter(), time.thread_time(), _queued_seconds()

    def _beat(self) -> None:
        now, own, queued = time.perf_counter(), time.thread_time(), _queued_seconds()
        wall = now - self._last
        self.beats += 1
        if wall >= self._noted_from:
            stacks, self._stacks = tuple(self._stacks), []
            at = self._last - self._start
            self.gaps.append(Gap(at, wall, own - self._own, queued - self._queued, self.doing, stacks))
        self._stacks.clear()
        self._last, self._own, self._queued = now, own, queued

    def _look(self) -> None:
        with tempfile.TemporaryFile("w+b") as notes:
            while not self._is_over.wait(_LOOK_SECONDS):
                late = time.perf_counter() - self._last
                if late > _LATE_SECONDS and len(self._stacks) < _MOST_LOOKS:
                    self._stacks.append(calls_of(self._main, notes))


def calls_of(thread: int, notes: IO[bytes]) -> str:
    """The innermost Python calls of a thread, outermost first; noted in a file in between.

    Not by `sys._current_frames`: whoever holds a frame keeps what its function held after that has ended.
    A painter of Qt that outlives its ``paintEvent`` is destroyed by the one who looks while the next one
    paints: "QBackingStore::endPaint() called with active painter", then a segmentation fault.

    Parameters
    ----------
    thread : int
        As `threading.get_ident` tells it.
    notes : file
        Open for reading and writing, binary; overwritten.
    """
    notes.seek(0)
    notes.truncate()
    faulthandler.dump_traceback(notes, all_threads=True)
    notes.seek(0)
    for block in notes.read().decode(errors="replace").split("\n\n"):
        head = _THREAD.search(block)
        if head is not None and int(head[1], 16) == thread:
            return " > ".join(map(_told, reversed([*_CALL.finditer(block)][:_FRAMES])))
    return ""


def _told(call: re.Match[str]) -> str:
    path, line, name = call.groups()
    return f"{'/'.join(Path(path).parts[-2:])}:{line} {name}"


def _queued_seconds() -> float:
    """Seconds for which this process' first thread was ready and had no processor; Linux alone knows."""
    try:
        return int(Path("/proc/self/schedstat").read_text(encoding="ascii").split()[1]) / 1e9
    except (OSError, ValueError, IndexError):
        return 0.0
