"""The steps that are measured, on a CT of `benchmarks.ct`."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from benchmarks.ct import LIVER, Ct
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
from napari_sam_med.segmentation.slicewise import box_of_mask, embed_slice


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


def nibabel_read(ct: Ct) -> Callable[[], Any]:
    """The plain reading of the same file, to compare with."""
    return lambda: np.asarray(nib.load(ct.path).dataobj)


def nibabel_write(bench: Bench, path: Path) -> Callable[[], Any]:
    """The plain writing of the same labels, to compare with."""
    return lambda: nib.save(nib.Nifti1Image(bench.ct.labels, bench.volume.affine), path)
