"""A whole volume embedded ahead of time, into the store that everything looks embeddings up in."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Collection, Generator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy.typing as npt

from napari_sam_med.errors import ExportError
from napari_sam_med.progress import Progress
from napari_sam_med.sam.embedding_store import EmbeddingStore
from napari_sam_med.sam.image_embedding import Crop
from napari_sam_med.sam.predictor import Predictor
from napari_sam_med.sam.shared_model import SharedModel
from napari_sam_med.segmentation.body import BodyBox, is_air
from napari_sam_med.volume.intensity import resolve_window, to_rgb
from napari_sam_med.volume.reading import read_volume
from napari_sam_med.volume.slice_view import Plane, SliceView
from napari_sam_med.volume.volume import Volume

__all__ = ["EmbeddedVolume", "EmbeddingTask", "embed_on_worker", "embed_volume"]

_AT_ONCE = 4
"""Slices that are prepared together; a GPU embeds them together."""


@dataclass(frozen=True)
class EmbeddedVolume:
    """What the embeddings of a volume came to.

    Attributes
    ----------
    slices : int
        Of all planes.
    air : int
        Those of them that show nothing, see `is_air`; they are left out.
    made : int
        Those that were not in the store before; slices that look alike, such as empty ones, share one.
    bytes : int
        Of the files of all slices.
    seconds : float
    warnings : tuple of str
    """

    slices: int
    air: int
    made: int
    bytes: int
    seconds: float
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class EmbeddingTask:
    """A volume that a worker is to embed; paths are absolute, and the same for all machines.

    Attributes
    ----------
    volume : Path
    planes : tuple of {"axial", "coronal", "sagittal"}
    window : str
    model : SharedModel
    folder : Path
        Of the store.
    disk_bytes : int
        Limit of the store.
    crop_to_body : bool
        Show the model the box of the body alone, see `BodyBox`.
    """

    volume: Path
    planes: tuple[Plane, ...]
    window: str
    model: SharedModel
    folder: Path
    disk_bytes: int
    crop_to_body: bool = False

    def store(self) -> EmbeddingStore:
        """The store, on disk alone: nobody asks it again in this process."""
        return EmbeddingStore(self.folder, memory_bytes=0, disk_bytes=self.disk_bytes)


def embed_on_worker(
    task: EmbeddingTask, on_progress: Callable[[Progress], None] | None = None
) -> EmbeddedVolume:
    """Embed a volume to the end; errors are those of `read_volume`, `SharedModel.load` and `embed_volume`."""
    started = time.monotonic()
    volume = read_volume(task.volume)
    job = embed_volume(
        volume,
        task.model.load(),
        task.store(),
        planes=task.planes,
        window=task.window,
        crop=BodyBox.of(volume) if task.crop_to_body else None,
    )
    while True:
        try:
            step = next(job)
            if on_progress is not None:
                on_progress(step)
        except StopIteration as end:
            found: EmbeddedVolume = end.value
            return replace(found, seconds=time.monotonic() - started, warnings=tuple(volume.warnings))


def embed_volume(
    volume: Volume,
    predictor: Predictor,
    store: EmbeddingStore,
    *,
    planes: Sequence[Plane] = ("axial",),
    window: str = "auto",
    crop: BodyBox | None = None,
) -> Generator[Progress, None, EmbeddedVolume]:
    """Fill a store with every slice of a volume but those of air; what is stored is not embedded again.

    Parameters
    ----------
    volume : Volume
    predictor : Predictor
    store : EmbeddingStore
        With a folder, and without memory.
    planes : sequence of {"axial", "coronal", "sagittal"}
    window : str
        As for `to_rgb`; found once for the volume.
    crop : BodyBox, optional
        As for `embed_slice`.

    Raises
    ------
    ExportError
        When the disk is full or read-only, or the store's limit is below what this volume needs; what was
        stored is kept.
    DeviceMemoryError
        When the device ran out of memory.
    """
    started = time.monotonic()
    limits = resolve_window(volume, window)
    views = [
        SliceView(plane, index) for plane in planes for index in range(volume.shape[SliceView(plane, 0).axis])
    ]
    sizes: dict[str, int] = {}
    made = air = done = 0
    for start in range(0, len(views), _AT_ONCE):
        some = views[start : start + _AT_ONCE]
        shown = [view for view in some if not is_air(volume, view, limits)]
        done, air = done + len(some), air + len(some) - len(shown)
        missing: dict[tuple[tuple[float, float], Crop | None], dict[str, npt.NDArray[Any]]] = {}
        for view in shown:
            image, spacing = to_rgb(volume, view, limits), volume.pixel_spacing(view)
            part = None if crop is None else crop.on(view)
            key = predictor.embedding_key(image, spacing, part)
            sizes[key] = sizes.get(key) or store.keep(key)
            if not sizes[key]:
                missing.setdefault((spacing, part), {})[key] = image
        for seen_as, images in missing.items():
            embeddings = predictor.embed_batch(list(images.values()), *seen_as)
            for key, embedding in zip(images, embeddings, strict=True):
                store.put(key, embedding)
                sizes[key] = store.keep(key)
            made += len(images)
        _check_room(store, sizes.values(), len(views) - air)
        yield Progress(done, len(views), "embedding slices")
    return EmbeddedVolume(len(views), air, made, sum(sizes.values()), time.monotonic() - started)


def _check_room(store: EmbeddingStore, sizes: Collection[int], slices: int) -> None:
    """Refuse to go on where what is put into the store does not stay there."""
    folder = store.directory
    if folder is not None and not all(sizes):
        free = shutil.disk_usage(folder if folder.is_dir() else folder.parent).free
        raise ExportError(
            f"Embeddings cannot be kept in {folder} ({free / 1e9:.1f} GB are free); make room there, or set "
            "NAPARI_SAM_MED_HOME to a folder on a disk that has some. Those that were kept stay."
        )
    if sum(sizes) > store.disk_bytes:
        raise ExportError(
            f"The {slices} slices need more than the {store.disk_bytes / 1e9:.1f} GB that the store keeps; "
            "set NAPARI_SAM_MED_STORE_GB to a larger number, for napari too, or leave out planes."
        )
