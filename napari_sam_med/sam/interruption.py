"""Giving a computation up in the middle: an encoder may take seconds, and a click must not wait behind it."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from torch.overrides import TorchFunctionMode

from napari_sam_med.errors import CancelledError

__all__ = ["interruptible"]


@contextmanager
def interruptible(should_stop: Callable[[], bool]) -> Generator[None]:
    """Give up what torch computes on this thread as soon as it should stop; other threads are not touched.

    Parameters
    ----------
    should_stop : callable
        Asked before every operation; one that has begun is finished (under a second of an encoder's sixteen
        on two cores).

    Raises
    ------
    CancelledError
        When it should stop; nothing half-made is left.
    """
    with _Asking(should_stop):  # torch keeps a stack of these for every thread
        yield


class _Asking(TorchFunctionMode):
    """Asks before every operation."""

    def __init__(self, should_stop: Callable[[], bool]) -> None:
        super().__init__()
        self._should_stop = should_stop

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if self._should_stop():
            raise CancelledError("It was given up for something more urgent.")
        return func(*args, **(kwargs or {}))
