"""Options of the commands that can share out their cases to workers, written once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from napari_sam_med.cli.console import note
from napari_sam_med.errors import ClusterError

if TYPE_CHECKING:
    from napari_sam_med.cluster.workers import Cluster

__all__ = ["Scheduler", "Workers", "device_here", "is_shared", "workers_of"]

Scheduler = Annotated[
    str,
    typer.Option(
        "--scheduler", metavar="ADDRESS", help="Share out the cases to the workers of this dask scheduler."
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(
        "--workers", min=0, metavar="N", help="Or to N processes on this machine; 0: one for each core."
    ),
]


def is_shared(scheduler: str, workers: int | None) -> bool:
    """Whether cases are shared out; else this process does them all."""
    return bool(scheduler) or workers is not None


def device_here(device: str, scheduler: str) -> str:
    """The device that this process takes: the one asked for is that of the scheduler's workers."""
    return "auto" if scheduler else device


@contextmanager
def workers_of(scheduler: str, workers: int | None, device: str) -> Iterator[Cluster | None]:
    """Context in which the workers asked for are there; None where none were.

    Raises
    ------
    ClusterError, DeviceError
        When they cannot be had.
    """
    from napari_sam_med.cluster.workers import connected, local_workers

    if not is_shared(scheduler, workers):
        yield None
        return
    if scheduler and workers is not None:
        raise ClusterError("--scheduler has workers of its own; leave out --workers.")
    there = (
        connected(scheduler, device=device) if scheduler else local_workers(workers or None, device=device)
    )
    with there as cluster:
        note("dashboard", cluster.dashboard)
        yield cluster
