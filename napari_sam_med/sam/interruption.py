"""Giving an encoder up in its middle: it may take seconds, and a click must not wait behind it."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any

from torch.overrides import TorchFunctionMode

from napari_sam_med.errors import CancelledError

__all__ = ["encoding", "interruptible", "is_given_up"]

_SHOULD_STOP: ContextVar[Callable[[], bool] | None] = ContextVar("should_stop", default=None)
"""A value of its own for every thread."""


@contextmanager
def interruptible(should_stop: Callable[[], bool]) -> Generator[None]:
    """Let `Predictor.embed` be given up on this thread; other threads are not touched.

    Parameters
    ----------
    should_stop : callable
        Asked before every operation of the encoder; one that has begun is finished (on two cores the longest
        takes 0.6 of the 16 seconds of a ViT-B).

    Raises
    ------
    CancelledError
        When it should stop.
    """
    token = _SHOULD_STOP.set(should_stop)
    try:
        yield
    finally:
        _SHOULD_STOP.reset(token)


def is_given_up() -> bool:
    """Whether what this thread embeds is to be given up, for who embeds without an encoder of ours."""
    should_stop = _SHOULD_STOP.get()
    return should_stop is not None and should_stop()


def encoding() -> AbstractContextManager[Any]:
    """The context in which an encoder runs, as long as nothing asks to give it up."""
    should_stop = _SHOULD_STOP.get()
    return nullcontext() if should_stop is None else _Asking(should_stop)


class _Asking(TorchFunctionMode):
    """Asks before every operation of this thread: torch keeps a stack of modes for each."""

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
