"""Long work as plain generators: they yield `Progress` or results, and what they return is the outcome.

A job gets values that do not change while it runs and touches neither the session nor a layer. Closing it
between two yields ends it; nothing yielded so far is lost.
"""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable, Collection, Generator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from napari_sam_med.errors import CancelledError
from napari_sam_med.progress import Progress
from napari_sam_med.session.blank_slices import is_blank, refuse_blank
from napari_sam_med.session.preloading import preload_torch_libraries, set_imports_aside
from napari_sam_med.session.session import Preview
from napari_sam_med.session.voxel_counts import VoxelCounts
from napari_sam_med.volume.disk_labels import is_on_disk
from napari_sam_med.volume.intensity import resolve_window
from napari_sam_med.volume.labels import LabelVolume, sparse_copy

if TYPE_CHECKING:
    import numpy.typing as npt

    from napari_sam_med.sam.embedding_store import EmbeddingStore
    from napari_sam_med.sam.predictor import Predictor
    from napari_sam_med.sam.prompts import Prompts
    from napari_sam_med.segmentation.propagation import PromptedObjects, PropagatedSlice, Propagator
    from napari_sam_med.segmentation.propagation_cache import PropagationCache
    from napari_sam_med.volume.slice_view import SliceView
    from napari_sam_med.volume.volume import Volume

__all__ = [
    "LoadedModel",
    "ModelView",
    "PreparedScan",
    "ScanSeen",
    "carry",
    "export_labels",
    "fetch_model",
    "interpolate",
    "load_model",
    "open_labels",
    "predict_preview",
    "prepare_scan",
    "read_scan",
    "snap",
]

_POLL_SECONDS = 0.1


@dataclass(frozen=True, eq=False)
class PreparedScan:
    """A scan that is ready to be worked on.

    Attributes
    ----------
    volume : Volume
    labels : LabelVolume
    counts : VoxelCounts
        Of the labels.
    copy : ndarray (z, y, x)
        Of the labels, for `Session.open`.
    window, value_range : (float, float)
        In the volume's own values.
    """

    volume: Volume
    labels: LabelVolume
    counts: VoxelCounts
    copy: npt.NDArray[Any]
    window: tuple[float, float]
    value_range: tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class ScanSeen(Progress):
    """A scan that can be looked at while the rest is being prepared, and a window (low, high) for it."""

    volume: Volume
    window: tuple[float, float]


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A model that is ready, and where its embeddings are kept."""

    predictor: Predictor
    store: EmbeddingStore


@dataclass(frozen=True, eq=False)
class ModelView:
    """What a model looks at: a volume through a window, with embeddings kept in a store."""

    volume: Volume
    window: tuple[float, float]
    predictor: Predictor
    store: EmbeddingStore


def read_scan(
    path: str | os.PathLike[str], time: int | None = None, form: Literal["sform", "qform"] | None = None
) -> Generator[Progress, None, PreparedScan]:
    """Read a scan from a file, as `read_volume` does, and prepare it."""
    from napari_sam_med.volume.reading import read_volume

    yield Progress(0, 2, f"reading {Path(path).name}")
    volume = read_volume(path, time=time, form=form)
    yield Progress(1, 2, "looking at the values")
    return (yield from prepare_scan(volume))


def prepare_scan(
    volume: Volume, labels: LabelVolume | None = None, window: tuple[float, float] | None = None
) -> Generator[Progress, None, PreparedScan]:
    """Find a window and make (or count) the labels of a volume."""
    yield Progress(0, 3, "looking at the values")
    low, high = resolve_window(volume, "auto") if window is None else window
    value_range = volume.value_range
    yield ScanSeen(done=1, total=3, text="preparing the labels", volume=volume, window=(low, high))
    if labels is None:
        labels = LabelVolume.like(volume)
        if not is_on_disk(labels.data):
            labels.data[...] = 0  # takes the memory here: else the first strokes on the main thread wait
    counts = VoxelCounts(labels.data)
    labels.organs = labels.organs.covering(counts.class_ids)
    yield Progress(3, 3, "scan ready")
    copy = sparse_copy(labels.data) if is_on_disk(labels.data) else labels.data.copy()
    return PreparedScan(volume, labels, counts, copy, (float(low), float(high)), value_range)


def open_labels(path: str | os.PathLike[str], volume: Volume) -> Generator[Progress, None, LabelVolume]:
    """Read labels from a file onto a volume's grid."""
    from napari_sam_med.volume.reading import read_labels

    yield Progress(0, 1, f"reading {Path(path).name}")
    labels = read_labels(path, reference=volume)
    yield Progress(1, 1, "labels read")
    return labels


def load_model(model: str, device: str) -> Generator[Progress, None, LoadedModel]:
    """Load a model; imports torch, so never run it on the main thread."""
    yield Progress(0, 1, f"loading {model}")
    preload_torch_libraries()
    from napari_sam_med.sam.embedding_store import default_store
    from napari_sam_med.sam.predictor import load_predictor

    set_imports_aside()
    predictor = load_predictor(model, device=device)
    return LoadedModel(predictor, default_store())


def fetch_model(name: str) -> Generator[Progress, None, Path]:
    """Download a model's checkpoint; closing the job ends the download."""
    from napari_sam_med.sam.checkpoints import fetch
    from napari_sam_med.sam.model_registry import get_record

    messages: queue.Queue[tuple[str, Any]] = queue.Queue()
    cancelled = threading.Event()
    title = get_record(name).title

    def run() -> None:
        try:
            path = fetch(name, progress=lambda p: messages.put(("progress", p)), cancelled=cancelled.is_set)
            messages.put(("done", path))
        except BaseException as error:  # noqa: BLE001  it is raised again on the job's own thread
            messages.put(("error", error))

    threading.Thread(target=run, name="sam-med fetch", daemon=True).start()
    try:
        yield Progress(0, 1, f"downloading {title}")
        while True:
            try:
                kind, value = messages.get(timeout=_POLL_SECONDS)
            except queue.Empty:
                continue
            if kind == "done":
                return Path(value)
            if kind == "error":
                raise value
            yield value
    finally:
        cancelled.set()


def predict_preview(
    sight: ModelView,
    view: SliceView,
    prompts: Prompts,
    mask: npt.NDArray[np.bool_] | None = None,
    gives_up: Callable[[], bool] = lambda: False,
) -> Generator[Progress, None, Preview | None]:
    """Answer one prompted slice; with a mask (H, W) that the object has there, the prompts put that right.

    Embedding the slice ends as soon as ``gives_up`` says so; the outcome is None then. On a slice without any
    number the mask is empty.
    """
    from napari_sam_med.sam.interruption import interruptible
    from napari_sam_med.segmentation.slicewise import corrected_prompts, embed_slice

    yield Progress(0, 2, f"embedding {view.plane} slice {view.index}")
    if is_blank(sight.volume, view):
        return Preview(view, np.zeros(view.slice_shape(sight.volume.shape), dtype=bool), 0.0)
    try:
        with interruptible(gives_up):
            embedding = embed_slice(
                sight.volume, view, sight.predictor, window=sight.window, store=sight.store
            )
    except CancelledError:
        return None
    yield Progress(1, 2, f"segmenting {view.plane} slice {view.index}")
    if mask is not None:
        prompts = corrected_prompts(prompts, mask, embedding, sight.predictor)
    # seen at once: one mask, enlarged once; three of them in Meta's two steps take twenty times as long
    prediction = sight.predictor.predict(embedding, prompts, direct_upsampling=True, best_only=True)
    quality = float(prediction.iou_predictions[prediction.best_index])
    return Preview(view, prediction.best_mask, quality)


def carry(
    sight: ModelView,
    objects: PromptedObjects,
    masks: Mapping[int, Mapping[SliceView, npt.NDArray[np.bool_]]],
    *,
    directions: Collection[str] = ("forward", "backward"),
    first_index: int | None = None,
    last_index: int | None = None,
    engine: Propagator | None = None,
    cache: PropagationCache | None = None,
    locked: npt.NDArray[np.bool_] | None = None,
) -> Generator[PropagatedSlice, None, None]:
    """Carry objects from their key slices through the volume, a slice at a time, with any engine.

    ``cache`` and ``locked`` (z, y, x) are for the slice-wise engine: what is known from earlier runs, and
    voxels that no object may take.

    Raises
    ------
    PromptError
        If no voxel of a prompted slice has a number; or as `propagate` does.
    """
    from napari_sam_med.segmentation.propagation import propagate

    refuse_blank(sight.volume, objects)
    slicewise = {"cache": cache, "locked": locked} if engine is None else {}
    yield from propagate(
        sight.volume,
        objects,
        sight.predictor,
        window=sight.window,
        store=sight.store,
        masks=masks,
        directions=directions,
        first_index=first_index,
        last_index=last_index,
        engine=engine,
        **slicewise,
    )


def interpolate(
    volume: Volume,
    objects: PromptedObjects,
    masks: Mapping[int, Mapping[SliceView, npt.NDArray[np.bool_]]],
    *,
    first_index: int | None = None,
    last_index: int | None = None,
) -> Generator[PropagatedSlice, None, None]:
    """Fill between the objects' key slices by shape, a slice at a time; no model is needed."""
    from napari_sam_med.segmentation.interpolation import InterpolatingPropagator

    yield from InterpolatingPropagator().propagate(
        volume, objects, masks=masks, first_index=first_index, last_index=last_index
    )


def snap(
    sight: ModelView,
    objects: PromptedObjects,
    masks: Mapping[int, Mapping[SliceView, npt.NDArray[np.bool_]]],
    *,
    first_index: int | None = None,
    last_index: int | None = None,
) -> Generator[PropagatedSlice, None, None]:
    """Fill between the objects' key slices by shape and let the model refine, a slice at a time."""
    from napari_sam_med.segmentation.snapping import SnappingPropagator

    yield from carry(
        sight, objects, masks, first_index=first_index, last_index=last_index, engine=SnappingPropagator()
    )


def export_labels(
    path: str | os.PathLike[str],
    labels: LabelVolume,
    volume: Volume,
    model: Mapping[str, Any] | None = None,
) -> Generator[Progress, None, Path]:
    """Write labels to a file; pass a copy of labels that may change meanwhile."""
    from napari_sam_med.volume.writing import write_labels

    yield Progress(0, 1, f"writing {Path(path).name}")
    written = write_labels(path, labels, source=volume, model=None if model is None else dict(model))
    yield Progress(1, 1, f"{written.name} written and verified")
    return written
