"""Memory that was freed, and does not go back to the system by itself.

The allocator of glibc keeps what was freed between things that are still used: after scans were opened and
closed, and organs were looked for, 100 to 400 MiB, and more with every round. Part of it can be given back
later; of large arrays nothing is kept if they never lie between other things.
"""

from __future__ import annotations

import ctypes
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, NamedTuple

__all__ = [
    "Allocated",
    "allocated",
    "give_back_freed_memory",
    "keep_large_arrays_apart",
    "large_arrays_reused",
]

# of malloc.h
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


class _Limits(NamedTuple):
    """From how many bytes on an array lies apart, and how many freed bytes each thread keeps at its end."""

    apart_from: int
    kept_at_the_end: int


_AT_REST = _Limits(4 << 20, 8 << 20)
"""With the first 128 KiB of `kept_at_the_end` the encoder of ``nano`` needs 1400 fresh pages an image, with
8 MiB none. 16 and 32 MiB let resident memory grow by 210 MiB in 10 minutes of 256 x 256 x 150."""
_AT_WORK = _Limits(32 << 20, 64 << 20)
"""What glibc sets by itself, once an array of 32 MiB was freed. Networks make and free the same large arrays
again and again; with those apart the encoder of MobileSAM, which then asks for fresh pages every time, takes
1.65 times as long."""

_LOCK = threading.Lock()
_at_work = 0
_is_kept_apart = False


class Allocated(NamedTuple):
    """What the allocator has from the system, in bytes.

    Attributes
    ----------
    used : int
        Was asked for and not freed.
    kept : int
        Was freed and is kept, as addresses; some of it may have gone back to the system.
    """

    used: int
    kept: int


class _MallInfo2(ctypes.Structure):
    """Of ``malloc.h``."""

    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in (
            "arena",
            "ordblks",
            "smblks",
            "hblks",
            "hblkhd",
            "usmblks",
            "fsmblks",
            "uordblks",
            "fordblks",
            "keepcost",
        )
    )


def allocated() -> Allocated | None:
    """What is used and what is kept by all threads; None where the allocator does not tell (glibc < 2.33)."""
    mallinfo2 = _glibc("mallinfo2")
    if mallinfo2 is None:
        return None
    mallinfo2.restype = _MallInfo2
    found = mallinfo2()
    return Allocated(found.uordblks + found.hblkhd, found.fordblks)


def keep_large_arrays_apart() -> bool:
    """From now on let arrays of 4 MiB and more go back to the system as soon as they are freed.

    Returns
    -------
    bool
        Whether the allocator took it; False where it is not glibc's.
    """
    global _is_kept_apart
    with _LOCK:
        _is_kept_apart = _set(_AT_WORK if _at_work else _AT_REST)
    return _is_kept_apart


@contextmanager
def large_arrays_reused() -> Generator[None]:
    """Meanwhile let what is freed be kept for the next array, also where `keep_large_arrays_apart` was asked
    for: a network runs. Of all threads: the limits are those of the process.
    """
    global _at_work
    with _LOCK:
        _at_work += 1
        if _is_kept_apart and _at_work == 1:
            _set(_AT_WORK)
    try:
        yield
    finally:
        with _LOCK:
            _at_work -= 1
            if _is_kept_apart and not _at_work:
                _set(_AT_REST)


def give_back_freed_memory() -> bool:
    """Give what was freed back to the system; takes 5 to 30 ms, so call it on a worker thread.

    Returns
    -------
    bool
        Whether there was something; False where the allocator is not glibc's.
    """
    trim = _glibc("malloc_trim")
    if trim is None:
        return False
    trim.argtypes, trim.restype = [ctypes.c_size_t], ctypes.c_int
    return bool(trim(0))


def _glibc(name: str) -> Any:
    """A function of the C library; None on systems whose library has none of that name."""
    return getattr(ctypes.CDLL(None), name, None) if sys.platform.startswith("linux") else None


def _set(limits: _Limits) -> bool:
    mallopt = _glibc("mallopt")
    if mallopt is None or _glibc("malloc_trim") is None:  # others know the name alone
        return False
    mallopt.argtypes, mallopt.restype = [ctypes.c_int, ctypes.c_int], ctypes.c_int
    is_apart = mallopt(_M_MMAP_THRESHOLD, limits.apart_from)
    return bool(is_apart and mallopt(_M_TRIM_THRESHOLD, limits.kept_at_the_end))
