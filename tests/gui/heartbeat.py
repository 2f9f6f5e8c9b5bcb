"""How long the main thread works at a stretch, with no click answered meanwhile."""

from __future__ import annotations

import time
from collections.abc import Callable

from qtpy.QtCore import QTimer

__all__ = ["MOST_SECONDS", "Heartbeat", "longest_turns"]

MOST_SECONDS = 0.1
_RUNS = 4


class Heartbeat:
    """A timer on the main thread; each beat notes the processor time of the main thread since the last one.

    Processor time and not the clock: what other processes of the machine do is not the widget's fault.
    """

    def __init__(self) -> None:
        self.gaps: list[float] = []
        self.longest: dict[str, float] = {}
        self._last = time.thread_time()
        self._timer = QTimer()
        self._timer.setInterval(5)
        self._timer.timeout.connect(self._beat)
        self._timer.start()

    def _beat(self) -> None:
        now = time.thread_time()
        self.gaps.append(now - self._last)
        self._last = now

    def end(self, step: str) -> None:
        """The turns since the last step ended are this one's."""
        self.longest[step] = max(self.gaps)
        self.gaps.clear()

    def skip(self) -> None:
        """The turns since the last step ended do not count."""
        self.gaps.clear()

    def stop(self) -> None:
        self._timer.stop()


def longest_turns(work: Callable[[Heartbeat], None]) -> dict[str, float]:
    """Processor seconds of the main thread's longest turn, by step.

    A virtual machine counts the time for which its own processor was taken away as work, now and then a
    quarter of a second: where a turn is too long, all is done once more, and the least time of each step
    counts. What a step does itself it does every time.

    Parameters
    ----------
    work : callable
        Does the steps, and ends each when it is done and drawn.
    """
    least: dict[str, float] = {}
    for _ in range(_RUNS):
        heart = Heartbeat()
        work(heart)
        heart.stop()
        least = {step: min(longest, least.get(step, longest)) for step, longest in heart.longest.items()}
        if max(least.values()) < MOST_SECONDS:
            break
    return least
