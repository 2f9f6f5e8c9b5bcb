"""The CT of the memory benchmark, and its sampler; the whole of it is run by hand: it opens a window."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.memory import make_ct, make_large
from napari_sam_med import read_volume

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")


def test_the_ct_is_the_sample_with_a_liver_in_the_box(tmp_path: Path) -> None:
    key, (i0, j0, i1, j1) = make_ct(tmp_path / "ct.nii", (60, 50, 40))
    volume = read_volume(tmp_path / "ct.nii")
    assert volume.shape == (40, 50, 60)
    assert volume.is_hounsfield
    array_ijk = volume.grid.from_canonical(volume.data)
    assert np.median(array_ijk[i0 : i1 + 1, j0 : j1 + 1, key]) > 20


HOLD_AND_LET_GO = """
import json
import numpy as np
from benchmarks.memory import Memory, resident, system_peak
memory = Memory()
before = memory.end()
held = np.ones(60 << 20, dtype=np.uint8)
for _ in range(2):  # the first sample may have begun before
    memory.sampled.clear()
    assert memory.sampled.wait(60)
del held
print(json.dumps([before, memory.end(), memory.peak, max(system_peak(), resident()[0])]))
"""


def test_memory_that_was_let_go_of_is_seen_all_the_same() -> None:
    """In a process of its own, where nothing else lets go of memory meanwhile."""
    command = [sys.executable, "-c", HOLD_AND_LET_GO]
    done = subprocess.run(command, cwd=Path(__file__).parents[1], stdout=subprocess.PIPE, check=True)
    before, after, peak, system = json.loads(done.stdout)
    assert after[0] - before[0] > 50 << 20
    assert after[1] - before[1] > 50 << 20
    assert after[0] <= peak[0] <= system + (1 << 20)


def test_the_large_ct_shows_the_same_in_coarser_levels(tmp_path: Path) -> None:
    key, (i0, j0, i1, j1) = make_large(tmp_path / "ct.ome.zarr", (40, 64, 48))
    volume = read_volume(tmp_path / "ct.ome.zarr")
    assert volume.shape == (40, 64, 48)
    assert not volume.warnings
    array_ijk = volume.grid.from_canonical(volume.data)
    assert np.median(array_ijk[i0 : i1 + 1, j0 : j1 + 1, key]) > 20
