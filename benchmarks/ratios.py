"""What a row of the table of ratios is, and how two ways of doing one thing are timed beside each other."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

__all__ = ["Ratio", "seconds_in_turn", "table_of"]


@dataclass(frozen=True)
class Ratio:
    """One thing done in two ways in one run.

    Attributes
    ----------
    what, against : str
        Ours, and what it is compared with.
    ours, theirs : float
        Seconds, or another measure of which less is better.
    target : float
    sense : str
        ``faster``: theirs / ours is to be at least the target; ``cost``: ours / theirs at most.
    note : str
        What else was found: whether both gave the same, how far from the machine's peak.
    """

    what: str
    against: str
    ours: float
    theirs: float
    target: float
    sense: Literal["faster", "cost"]
    note: str = ""

    @property
    def value(self) -> float:
        """The ratio, in the sense of its target."""
        return self.theirs / self.ours if self.sense == "faster" else self.ours / self.theirs

    @property
    def is_reached(self) -> bool:
        """Whether the target is."""
        return self.value >= self.target if self.sense == "faster" else self.value <= self.target


def seconds_in_turn(
    ways: Sequence[Callable[[], Any]],
    repeats: int,
    *,
    warm_up: bool = True,
    before: Callable[[], Any] | None = None,
) -> list[float]:
    """Least seconds of each way, run in turn: other programs can only make a run slower.

    What is to run before each way, as in use, is not timed: short ways take longer when the processor's
    caches hold something else.
    """
    if warm_up:
        for way in ways:
            way()
    best = [float("inf")] * len(ways)
    for _ in range(repeats):
        for number, way in enumerate(ways):
            if before is not None:
                before()
            start = time.perf_counter()
            way()
            best[number] = min(best[number], time.perf_counter() - start)
    return best


def table_of(rows: Sequence[Ratio]) -> str:
    """The rows as a table in Markdown."""
    lines = [
        "| what | | against | | ratio | target | reached | |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        target = f"at {'least' if row.sense == 'faster' else 'most'} {row.target:g}"
        reached = "yes" if row.is_reached else "no"
        lines.append(
            f"| {row.what} | {_time(row.ours)} | {row.against} | {_time(row.theirs)} | {row.value:.2f} "
            f"| {target} | {reached} | {row.note} |"
        )
    return "\n".join(lines)


def _time(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1000:.1f} ms"
