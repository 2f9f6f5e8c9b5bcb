"""A CT of any size made of the bundled sample, and the memory that reading or exporting it takes.

Imports no torch, so that processes that measure memory start without it.
"""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np

from napari_sam_med.sample_data import sample_labels, sample_volume

__all__ = ["LIVER", "Ct", "make_ct", "peak_memory", "peak_of_this_process"]

LIVER = 6


@dataclass(frozen=True)
class Ct:
    """A CT on disk and its true labels in memory, file axes (i, j, k)."""

    path: Path
    labels: np.ndarray

    @property
    def array_bytes(self) -> int:
        """Bytes of the scan as int16."""
        return int(self.labels.size * 2)


def make_ct(folder: Path, shape: tuple[int, int, int]) -> Ct:
    """Write the bundled sample, blown up to `shape` (i, j, k), as a gzipped NIfTI file."""
    sample, labels = nib.load(sample_volume()), nib.load(sample_labels())
    picked = [np.arange(n) * size // n for n, size in zip(shape, sample.shape, strict=True)]
    big = np.asarray(sample.dataobj)[np.ix_(*picked)]
    affine = sample.affine.copy()
    affine[:3, :3] *= np.array(sample.shape) / np.array(shape)
    image = nib.Nifti1Image(big, affine, dtype=np.int16)
    path = folder / "ct.nii.gz"
    with gzip.open(path, "wb", compresslevel=1) as stream:
        image.to_stream(stream)
    return Ct(path, np.asarray(labels.dataobj)[np.ix_(*picked)])


def peak_memory(step: str, ct: Path) -> int:
    """Bytes that a process needs at most to ``read`` or ``export`` a CT, beyond what it needs to start."""
    codes: dict[str, str] = {
        "start": "pass",
        "read": "volume = read_volume(path)",
        "export": "volume = read_volume(path); labels = LabelVolume.like(volume); "
        "labels.data[:] = volume.data > 0; write_labels(path.with_name('out.nii.gz'), labels, source=volume)",
    }
    return _peak_of(codes[step], ct) - _peak_of(codes["start"], ct)


def _peak_of(code: str, ct: Path) -> int:
    program = (
        "import sys; from pathlib import Path; from benchmarks.ct import peak_of_this_process; "
        "from napari_sam_med import LabelVolume, read_volume, write_labels; "
        f"path = Path(sys.argv[1]); {code}; print(peak_of_this_process())"
    )
    finished = subprocess.run(
        [sys.executable, "-c", program, os.fspath(ct)],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[1],
    )
    return int(finished.stdout)


def peak_of_this_process() -> int:
    """Largest resident memory of this process so far, bytes."""
    status = Path("/proc/self/status")
    if status.exists():  # on Linux getrusage also counts the parent that this process was forked from
        (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
