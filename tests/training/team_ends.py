"""How work of several processes ends badly; apart, as each process imports what it is given."""

from __future__ import annotations

import os
import signal

from napari_sam_med.errors import ModelError
from napari_sam_med.training.team import Team


def fail_in_the_second(team: Team) -> None:
    """An error in one of two processes, for which the other waits."""
    if team.is_first:
        team.joined([1])  # waits for the other
    raise ModelError("the weights of the second are gone")


def be_killed(team: Team) -> None:
    """Ended from outside, as where memory runs out."""
    os.kill(os.getpid(), signal.SIGKILL)
