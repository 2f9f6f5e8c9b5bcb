"""Workers of dask in the process of the tests, where their tasks can be watched."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest

__all__ = ["scheduler_here"]


@contextmanager
def scheduler_here(n_workers: int, resources: Mapping[str, int] | None = None) -> Iterator[Any]:
    """Context of a scheduler and workers of one thread each; the test is skipped without the library.

    Parameters
    ----------
    n_workers : int
    resources : mapping, optional
        That each worker says it has, such as ``{"GPU": 1}``.

    Yields
    ------
    distributed.LocalCluster
    """
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(
        n_workers=n_workers,
        threads_per_worker=1,
        processes=False,
        dashboard_address=":0",  # any free port
        protocol="tcp://",
        resources=dict(resources or {}),
    ) as here:
        yield here
