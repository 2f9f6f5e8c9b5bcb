"""How long a run of Find still takes, said beside how far it is; it moves even while one step takes long."""

from __future__ import annotations

import time
from collections.abc import Callable

from napari_sam_med.gui.run_progress import duration
from napari_sam_med.progress import Progress

__all__ = ["FindProgress"]

_LEAST_SECONDS = 1.0
"""Of a part; what it still takes is no guess then."""


class FindProgress:
    """Words for one run, part by part: "slice 3 of 29, 40 s left".

    Parameters
    ----------
    clock : callable
        Seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._part = ""
        self._began, self._first = 0.0, 0
        self._seen = -1
        self._over_at: float | None = None

    def told(self, progress: Progress) -> Progress:
        """The progress as it is shown: with the time left, or, while nobody knows that, the time taken.

        Also one that says nothing new moves so; and what has no end shows an empty bar, since Qt writes
        nothing on one that is busy without end.
        """
        now, part = self._clock(), progress.text.split(" ")[0]
        if part != self._part:
            self._part, self._began, self._first = part, now, progress.done
            self._seen, self._over_at = progress.done, None
        elif progress.done != self._seen:
            self._seen = progress.done
            gone, done = now - self._began, progress.done - self._first
            if gone >= _LEAST_SECONDS and done > 0:
                self._over_at = now + gone / done * (progress.total - progress.done)
        return Progress(progress.done, max(1, progress.total), progress.text + self._time(now))

    def _time(self, now: float) -> str:
        if self._over_at is not None:
            return f", {duration(self._over_at - now)} left"
        gone = now - self._began
        return f", {duration(gone)}" if gone >= _LEAST_SECONDS else ""
