"""What the allocator has, and gives back."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from napari_sam_med.freed_memory import (
    allocated,
    give_back_freed_memory,
    keep_large_arrays_apart,
)

_MIB = 1 << 20


def test_what_is_used_is_told_and_less_of_it_is_used_later() -> None:
    before = allocated()
    if before is None:
        pytest.skip("this system's allocator does not tell")
    array = np.ones(64 * _MIB, dtype=np.uint8)
    during = allocated()
    del array
    after = allocated()
    assert during.used - before.used > 60 * _MIB
    assert during.used - after.used > 60 * _MIB


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc alone keeps what was freed so long")
def test_memory_between_what_is_used_goes_back() -> None:
    code = """
import os
import numpy as np
from napari_sam_med.freed_memory import allocated, give_back_freed_memory
if allocated() is None:
    raise SystemExit  # not glibc
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE") >> 20
arrays = [np.ones(3000) for _ in range(10_000)]  # 229 MiB
used = arrays[::50]
arrays.clear()
before = resident()
assert give_back_freed_memory()
assert before - resident() > 150, (before, resident())
assert all((array == 1).all() for array in used)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc alone keeps what was freed so long")
def test_large_arrays_go_back_when_they_are_freed() -> None:
    code = """
import os
import numpy as np
from napari_sam_med.freed_memory import allocated, keep_large_arrays_apart
if allocated() is None:
    raise SystemExit  # not glibc
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE") >> 20
del_me = np.ones(30 << 20, dtype=np.uint8)
del del_me  # from here on glibc would lay arrays of 30 MiB among the others
assert keep_large_arrays_apart()
arrays, between = [], []
for _ in range(20):
    arrays.append(np.ones(10 << 20, dtype=np.uint8))
    between.append(np.ones(100_000, dtype=np.uint8))
before = resident()
arrays.clear()
assert before - resident() > 180, (before, resident())
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc alone keeps what was freed so long")
def test_a_network_that_runs_reuses_its_large_arrays_and_afterwards_they_go_back() -> None:
    code = """
import ctypes
import numpy as np
from napari_sam_med.freed_memory import _glibc, _MallInfo2, allocated
from napari_sam_med.freed_memory import keep_large_arrays_apart, large_arrays_reused
if allocated() is None:
    raise SystemExit  # not glibc
mallinfo2 = _glibc("mallinfo2")
mallinfo2.restype = _MallInfo2
def lies_apart(mib):
    before = mallinfo2().hblkhd  # bytes that go back when they are freed
    array = np.ones(mib << 20, dtype=np.uint8)
    return mallinfo2().hblkhd - before >= array.nbytes
with large_arrays_reused():
    assert keep_large_arrays_apart()
    assert not lies_apart(10), "asked for while a network runs"
assert lies_apart(20)  # for one of 10 there is room among what the network has freed
with large_arrays_reused():
    with large_arrays_reused():
        assert not lies_apart(21)
    assert not lies_apart(22), "the outer one is not over"
try:
    with large_arrays_reused():
        raise ValueError
except ValueError:
    pass
assert lies_apart(30)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_where_the_allocator_is_another_nothing_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert allocated() is None
    assert not give_back_freed_memory()
    assert not keep_large_arrays_apart()
