"""Memory that was freed, and does not go back to the system by itself.

The allocator of glibc keeps what was freed between things that are still used: after scans were opened and
closed, and organs were looked for, 100 to 400 MiB, and more with every round. Part of it can be given back
later; of large arrays nothing is kept if they never lie between other things.
"""

from __future__ import annotations

import ctypes
import sys
from typing import Any, NamedTuple

__all__ = ["Allocated", "allocated", "give_back_freed_memory", "keep_large_arrays_apart"]

# of malloc.h
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3

_APART_FROM = 4 << 20
"""Bytes. By itself glibc raises this to 32 MiB, once an array of that size was freed. The encoder of ``nano``
is as fast with this one, 21 ms on one core, and that of ViT-B; that of MobileSAM took 12 to 60 % longer in
trials, since large arrays then need fresh pages. With 16 and 32 MiB it took up to 5 % longer, but resident
memory grew by 210 MiB in 10 minutes of 256 x 256 x 150."""
_KEPT_AT_THE_END = 8 << 20
"""Bytes, for every thread. glibc raises this with the other, to 64 MiB, and `give_back_freed_memory` does not
reach what threads keep so. With its first 128 KiB the encoder of ``nano`` needs 1400 fresh pages an image,
with this one none."""


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
    mallopt = _glibc("mallopt")
    if mallopt is None or _glibc("malloc_trim") is None:  # others know the name alone
        return False
    mallopt.argtypes, mallopt.restype = [ctypes.c_int, ctypes.c_int], ctypes.c_int
    return bool(mallopt(_M_MMAP_THRESHOLD, _APART_FROM) and mallopt(_M_TRIM_THRESHOLD, _KEPT_AT_THE_END))


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
