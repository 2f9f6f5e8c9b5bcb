"""Which labels layer belongs to which image layer; noted in the layers, since they outlive the panel."""

from __future__ import annotations

import weakref
from collections.abc import Container, Sequence
from pathlib import Path

import numpy as np
from napari.layers import Image, Labels, Layer

from napari_sam_med.volume.labels import LabelVolume
from napari_sam_med.volume.volume import Volume

__all__ = ["labels_of_work", "note_work", "said_of_orphan"]

_FILE = "sam_med_work"
"""In the metadata of labels: the file of the scan that they were worked on with, or None."""
_IMAGE = "sam_med_image"
"""In the metadata of labels: a weak reference to the image layer that they were worked on with last."""
_LABELS = "sam_med_labels"
"""In the metadata of an image: a weak reference to the labels layer that was worked on with it last."""


def note_work(image: Image, labels: Labels, file: Path | None) -> None:
    """Labels are worked on with an image, which was read from a file or not."""
    labels.metadata = {**labels.metadata, _FILE: file, _IMAGE: weakref.ref(image)}
    image.metadata = {**image.metadata, _LABELS: weakref.ref(labels)}


def labels_of_work(labels: Sequence[Labels], image: Image, layers: Container[Layer]) -> Labels | None:
    """The one of some labels that was worked on with an image last; else one that fits it, and belongs to no
    other image among the layers of the viewer.
    """
    volume = image.metadata.get("sam_med")
    last = image.metadata.get(_LABELS, lambda: None)()
    for layer in sorted(labels, key=lambda layer: layer is not last):
        known = layer.metadata.get("sam_med")
        if _FILE not in layer.metadata or not isinstance(known, LabelVolume) or known.data is not layer.data:
            continue
        own = layer.metadata.get(_IMAGE, lambda: None)()
        if own is image:
            return layer
        if own is not None and own in layers:
            continue
        if isinstance(volume, Volume):
            files = {layer.metadata[_FILE], volume.path} - {None}
            if len(files) < 2 and known.grid.same_voxels_as(volume.grid):
                return layer
        elif layer.data.shape == image.data.shape and np.allclose(
            layer.data_to_world(layer.data.shape), image.data_to_world(layer.data.shape)
        ):
            return layer
    return None


def said_of_orphan(labels: Labels, layers: Container[Layer]) -> str:
    """That labels were worked on with an image that is not in the viewer any more; else empty, as where they
    were never worked on.
    """
    if _IMAGE not in labels.metadata or labels.metadata[_IMAGE]() in layers:
        return ""
    file: Path | None = labels.metadata.get(_FILE)
    of = "" if file is None else f" of {file.name}"
    return f'"{labels.name}"{of} is hidden, as its image is not in the viewer any more.'
