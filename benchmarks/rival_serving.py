"""What a process in a rival's environment does: one job after the other, each timed in it.

It is told by a line of JSON what to load, and by further lines what to do; to each it answers with a line.
Only the standard library is used here, because it runs in the rival's Python.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

__all__ = ["Answer", "Job", "serve", "timed"]

Answer = dict[str, Any]
"""Facts of a job: ``seconds`` on the clock, ``processor`` seconds, and what else it found."""
Job = Callable[..., Answer]


def timed(call: Callable[[], Any]) -> tuple[Any, Answer]:
    """What a call returns, and its seconds on the clock and on the processor."""
    wall, processor = time.perf_counter(), time.process_time()
    result = call()
    return result, {
        "seconds": time.perf_counter() - wall,
        "processor": time.process_time() - processor,
    }


def serve(package: str, load: Callable[[Answer], Mapping[str, Job]]) -> None:
    """Do jobs until there are no more lines.

    Parameters
    ----------
    package : str
        Without which there is nothing to do: the only answer is ``missing`` then, else its ``version``.
    load : callable
        Called with the settings, the first line; returns the jobs by name.
    """
    lines = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what the rival prints is no answer

    def say(**facts: Any) -> None:
        print(json.dumps(facts), file=lines, flush=True)

    try:
        found = version(package)
    except PackageNotFoundError:
        say(missing=package)
        return
    jobs = load(json.loads(sys.stdin.readline()))
    say(version=found)
    for line in sys.stdin:
        task = json.loads(line)
        say(**jobs[task.pop("job")](**task))
