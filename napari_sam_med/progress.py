"""Progress of a job, as plain data that a terminal bar and a Qt bar can both show."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Progress"]


@dataclass(frozen=True)
class Progress:
    """How far a job has come.

    Attributes
    ----------
    done, total : int
        Steps finished and steps expected; ``total`` may shrink when a job ends early.
    text : str
        What is being done, for people.
    """

    done: int
    total: int
    text: str = ""

    @property
    def fraction(self) -> float:
        """Share done, in 0..1 (1 for an empty job)."""
        return 1.0 if self.total <= 0 else min(1.0, self.done / self.total)
