"""Words for how far a run of training has come, and how long it still takes."""

from __future__ import annotations

import time

from napari_sam_med.progress import Progress

__all__ = ["RunProgress", "duration"]


class RunProgress:
    """Words for how far a run has come, and how long its present part still takes."""

    def __init__(self) -> None:
        self._part = ""
        self._since = (0.0, 0)

    def text(self, progress: Progress, epochs: int) -> str:
        """What is done, such as ``epoch 3 of 20``; ask for it before `left`."""
        part = progress.text.split(" ")[0]
        if part != self._part:
            self._part, self._since = part, (time.monotonic(), progress.done)
        return f"{progress.text} of {epochs}" if part == "epoch" else progress.text

    def left(self, progress: Progress) -> str:
        """Time left of this part, once a little of it is done."""
        since, first = self._since
        done = progress.done - first
        if done < 2 or progress.total <= progress.done:
            return ""
        return f" · {duration((time.monotonic() - since) / done * (progress.total - progress.done))} left"


def duration(seconds: float) -> str:
    """Seconds in words, such as ``40 s`` or ``12 min``."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    if seconds < 5400:
        return f"{round(seconds / 60)} min"
    return f"{seconds / 3600:.1f} h"
