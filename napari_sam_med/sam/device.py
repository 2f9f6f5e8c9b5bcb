"""Where a network runs and in which precision; and what is said when the memory there is full."""

from __future__ import annotations

import functools
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Literal, TypeVar

import torch
from threadpoolctl import ThreadpoolController

from napari_sam_med.errors import DeviceError, DeviceMemoryError
from napari_sam_med.freed_memory import large_arrays_reused

__all__ = [
    "Precision",
    "network_runs",
    "on_one_core",
    "resolve_device",
    "resolve_precision",
    "side_by_side",
]

T = TypeVar("T")
R = TypeVar("R")
Precision = Literal["fp32", "bf16"]
# as torch says it on mps, and of cpu memory on Linux and on Windows
_FULL = ("out of memory", "can't allocate memory", "not enough memory")


def resolve_device(device: str | torch.device = "auto") -> torch.device:
    """Device to compute on.

    Parameters
    ----------
    device : str or torch.device
        ``auto`` (cuda, else mps, else cpu), ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.

    Raises
    ------
    DeviceError
        When the device is not of these, or this machine does not have it. Nothing else is taken instead.
    """
    text = str(device)
    if text == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        wanted = torch.device(text)
    except RuntimeError:
        wanted = None
    if wanted is None or wanted.type not in ("cpu", "cuda", "mps"):
        raise DeviceError(f'There is no device "{text}": give auto, cpu, cuda, cuda:N or mps.')
    if wanted.type == "cuda":
        _check_cuda(wanted, text)
    if wanted.type == "mps" and not torch.backends.mps.is_available():
        raise DeviceError('This machine has no device "mps"; use "cpu", or "auto" to take the best there is.')
    return wanted


def _check_cuda(wanted: torch.device, text: str) -> None:
    if not torch.cuda.is_available():
        raise DeviceError(
            f'Device "{text}" was asked for, but torch finds no CUDA GPU here; use "cpu" or "auto", or '
            "install a driver and a torch build that match the GPU."
        )
    count = torch.cuda.device_count()
    if wanted.index is not None and wanted.index >= count:
        raise DeviceError(
            f'Device "{text}" was asked for, but there are {count} GPUs, cuda:0 to cuda:{count - 1}.'
        )


def resolve_precision(precision: str, device: torch.device) -> Precision:
    """Precision of the network: ``auto`` is fp32 on cpu and mps, and bf16 autocast on cuda.

    Raises
    ------
    DeviceError
        When `precision` is none of ``auto``, ``fp32``, ``bf16``, or mps is asked for bf16.
    """
    if precision == "auto":
        return "bf16" if device.type == "cuda" else "fp32"
    if precision not in ("fp32", "bf16"):
        raise DeviceError(f'There is no precision "{precision}": give auto, fp32 or bf16.')
    if precision == "bf16" and device.type == "mps":
        raise DeviceError('Precision "bf16" is not offered on mps; use "fp32".')
    return "bf16" if precision == "bf16" else "fp32"


@contextmanager
def network_runs(device: torch.device, model: str) -> Iterator[None]:
    """What holds while a network runs: it reuses the memory of large arrays, and running out of memory is a
    `DeviceMemoryError` that names the ways out; nothing switches by itself.

    Parameters
    ----------
    device : torch.device
        Where the work runs; its cache is freed.
    model : str
        Name of the model, for the message.
    """
    try:
        with large_arrays_reused():
            yield
    except torch.OutOfMemoryError as error:
        _free_memory(device, error)
        raise DeviceMemoryError(_explain(device, model)) from error
    except RuntimeError as error:  # mps and cpu have no class of their own for it
        if not any(text in str(error) for text in _FULL):
            raise
        _free_memory(device, error)
        raise DeviceMemoryError(_explain(device, model)) from error
    except MemoryError as error:
        raise DeviceMemoryError(_explain(device, model)) from error


def _free_memory(device: torch.device, error: BaseException) -> None:
    traceback.clear_frames(error.__traceback__)  # where it failed, the tensors are still held
    if device.type == "cuda" and torch.cuda.is_available():
        torch.cuda.empty_cache()
    elif device.type == "mps" and torch.backends.mps.is_available():
        torch.mps.empty_cache()


def _explain(device: torch.device, model: str) -> str:
    remedy = "close other programs" if device.type == "cpu" else 'choose device "cpu"'
    return (
        f'Device "{device}" ran out of memory while running {model}; prompts and finished slices are kept, '
        f'and nothing was switched. Either {remedy}, or choose a smaller model such as "nano" or '
        '"mobile_sam".'
    )


def on_one_core() -> AbstractContextManager[Any]:
    """Let torch compute on the calling thread alone while the context lasts; other threads are not touched.

    For work so small that waking the other cores for every layer costs more than they save.
    """
    torch.get_num_threads()  # a thread's first call sets its cores to all: not after they are limited here
    limits: AbstractContextManager[Any] = _openmp().limit(limits=1)
    return limits


@functools.cache
def _openmp() -> ThreadpoolController:
    return ThreadpoolController().select(user_api="openmp")


def side_by_side(call: Callable[[T], R], items: Sequence[T]) -> list[R]:
    """`call` of each item, in their order, on as many threads as torch computes with, a core for each.

    For work on the processor that is cut into equal parts: they wait for one another once, where a network
    spread over the cores does so in every layer. An error of one, or being interrupted, keeps what has not
    begun from beginning, and is raised when the rest has ended.
    """
    n_cores = torch.get_num_threads()
    if n_cores < 2 or len(items) < 2:
        return [call(item) for item in items]
    pending = [_pool(n_cores).submit(call, item) for item in items]
    try:
        return [one.result() for one in pending]
    finally:
        for one in pending:
            one.cancel()
        wait(pending)


@functools.cache
def _pool(n_threads: int) -> ThreadPoolExecutor:
    # the limit is never left: it holds as long as the thread
    return ThreadPoolExecutor(n_threads, "sam-med decode", initializer=on_one_core)
