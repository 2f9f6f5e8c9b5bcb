"""The steps that are measured, on a CT of any size made of the bundled sample."""

from __future__ import annotations

import functools
import gzip
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from napari_sam_med import (
    LabelVolume,
    Prompts,
    SliceView,
    Volume,
    load_predictor,
    propagate,
    read_volume,
    to_rgb,
    write_labels,
)
from napari_sam_med.sam.embedding_store import EmbeddingStore
from napari_sam_med.sam.predictor import Predictor
from napari_sam_med.sample_data import sample_labels, sample_volume
from napari_sam_med.segmentation.slicewise import box_of_mask, embed_slice

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


@functools.cache
def nano() -> Predictor:
    """The bundled model, in memory."""
    return load_predictor("nano", device="cpu")


class Bench:
    """A CT opened for work, with its liver's box on the slice that shows most of it."""

    def __init__(self, ct: Ct) -> None:
        self.ct = ct
        self.volume: Volume = read_volume(ct.path)
        self.truth = self.volume.grid.to_canonical(ct.labels)
        areas = (self.truth == LIVER).sum(axis=(1, 2))
        self.view = SliceView("axial", int(areas.argmax()))
        self.mask = self.view.extract(self.truth) == LIVER
        self.prompts = Prompts.from_box(box_of_mask(self.mask))
        self.store = EmbeddingStore(None)
        self.labels = LabelVolume.like(self.volume)

    def read(self) -> Any:
        """Read the file."""
        return read_volume(self.ct.path)

    def image(self) -> np.ndarray:
        """Window one slice."""
        return to_rgb(self.volume, self.view)

    def embed(self) -> Any:
        """Run the encoder on one slice."""
        return nano().embed(self.image(), self.volume.pixel_spacing(self.view))

    def predict(self) -> Any:
        """Answer one box from the embedding in the store."""
        return nano().predict(self.embedded(), self.prompts)

    def embedded(self) -> Any:
        """The slice's embedding, from the store after the first call."""
        return embed_slice(self.volume, self.view, nano(), store=self.store)

    def click_to_mask(self) -> None:
        """All that lies between a click and the painted mask, save the network itself."""
        self.embedded()
        Prompts.from_points([(float(self.mask.shape[1] // 2), float(self.mask.shape[0] // 2))])
        change = self.labels.assign(self.view, self.mask, LIVER)
        self.labels.revert(change)

    def propagate(self, n_slices: int) -> int:
        """Carry the liver over some slices; returns how many were done."""
        first = max(0, self.view.index - n_slices // 2)
        objects = {1: (LIVER, {self.view: self.prompts})}
        options = {"first_index": first, "last_index": first + n_slices - 1}
        done: Iterator[Any] = propagate(self.volume, objects, nano(), min_overlap=0.0, **options)
        return sum(1 for _ in done)

    def export(self, path: Path) -> None:
        """Write the true labels of all organs, read them again and compare."""
        labels = LabelVolume.like(self.volume)
        labels.data[:] = self.truth
        write_labels(path, labels, source=self.volume)


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
        "import sys; from pathlib import Path; from benchmarks.steps import peak_of_this_process; "
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


def nibabel_read(ct: Ct) -> Callable[[], Any]:
    """The plain reading of the same file, to compare with."""
    return lambda: np.asarray(nib.load(ct.path).dataobj)


def nibabel_write(bench: Bench, path: Path) -> Callable[[], Any]:
    """The plain writing of the same labels, to compare with."""
    return lambda: nib.save(nib.Nifti1Image(bench.ct.labels, bench.volume.affine), path)
