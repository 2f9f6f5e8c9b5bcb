"""A predictor whose images are embedded by workers elsewhere, while prompts are answered here."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from napari_sam_med.cluster.workers import Cluster
from napari_sam_med.errors import CancelledError, ClusterError, ImageError, ModelError
from napari_sam_med.sam.checkpoints import FOLDER_CHECKPOINT
from napari_sam_med.sam.embedding_store import as_kept
from napari_sam_med.sam.image_embedding import ImageEmbedding
from napari_sam_med.sam.interruption import is_given_up
from napari_sam_med.sam.model_registry import MODELS
from napari_sam_med.sam.predictor import Predictor
from napari_sam_med.sam.shared_model import SharedModel

__all__ = ["EncodingTask", "RemotePredictor", "encode_on_worker"]

_LOG = logging.getLogger(__name__)
_IMAGES_AT_ONCE_ON_GPU = 4
"""Sent together; a processor takes four times as long for them, and an answer is not waited for long."""


@dataclass(frozen=True, eq=False)
class EncodingTask:
    """Images that a worker is to embed.

    Attributes
    ----------
    model : SharedModel
        In the precision of the machine that asks, so that embeddings are what their keys say.
    images : tuple of ndarray (H, W, 3) uint8
    pixel_spacing : (row, column)
        Millimetres.
    crop_xyxy : array-like (4,) or None
        As for `Predictor.embed`.
    """

    model: SharedModel
    images: tuple[npt.NDArray[Any], ...]
    pixel_spacing: npt.ArrayLike
    crop_xyxy: npt.ArrayLike | None


def encode_on_worker(task: EncodingTask, weights: bytes | None = None) -> list[ImageEmbedding]:
    """What a worker does: embeddings as the store keeps them, their features as arrays.

    Parameters
    ----------
    task : EncodingTask
    weights : bytes, optional
        Content of the model's file, where workers do not have it.

    Raises
    ------
    ImageError, DeviceMemoryError
        As from `Predictor.embed`.
    ModelError, DeviceError
        As from `SharedModel.load`.
    """
    predictor = task.model.load() if weights is None else _loaded_from(task.model, weights)
    if task.crop_xyxy is None:
        found = predictor.embed_batch(task.images, task.pixel_spacing)
    else:
        found = [predictor.embed(image, task.pixel_spacing, task.crop_xyxy) for image in task.images]
    return [_with_features(as_kept(embedding), lambda tensor: tensor.numpy()) for embedding in found]


_LOADED: dict[SharedModel, Predictor] = {}
"""The model that was sent to this process last."""


def _loaded_from(model: SharedModel, weights: bytes) -> Predictor:
    predictor = _LOADED.get(model)
    if predictor is None:
        with TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            path = Path(folder) / FOLDER_CHECKPOINT
            path.write_bytes(weights)
            predictor = replace(model, model=str(path)).load()
        _LOADED.clear()
        _LOADED[model] = predictor
    return predictor


class RemotePredictor(Predictor):
    """A predictor that has its images embedded by workers, and embeds them here once those are lost.

    Keys, embeddings (in half precision) and answers are those of the predictor that it is made of.

    Parameters
    ----------
    here : Predictor
    model : str
        Name or path that it was loaded by. Workers have a model of the registry themselves; a file of one's
        own is sent to those that do not see it.
    cluster : Cluster
    on_lost : callable
        Called once, on the thread that found out, with why images are embedded here from now on.
    """

    def __init__(
        self, here: Predictor, model: str, cluster: Cluster, on_lost: Callable[[str], object]
    ) -> None:
        network: Any = here.network
        super().__init__(
            network, here.record, device=here.device, precision=here.precision, model_hash=here.model_hash
        )
        self._model = SharedModel.of_loaded(model, here, cluster.device)
        self._is_own = model not in MODELS
        self._cluster = cluster
        self._on_lost = on_lost
        self._is_lost = False
        self._weights: Any = None
        self._lock = threading.Lock()

    def embed(
        self,
        image: npt.ArrayLike,
        pixel_spacing: npt.ArrayLike = (1.0, 1.0),
        crop_xyxy: npt.ArrayLike | None = None,
    ) -> ImageEmbedding:
        """As `Predictor.embed`, on a worker."""
        found = self._from_worker([image], pixel_spacing, crop_xyxy)
        return super().embed(image, pixel_spacing, crop_xyxy) if found is None else found[0]

    def embed_batch(
        self,
        images: Sequence[npt.ArrayLike],
        pixel_spacing: npt.ArrayLike = (1.0, 1.0),
        crop_xyxy: npt.ArrayLike | None = None,
    ) -> list[ImageEmbedding]:
        """As `Predictor.embed_batch`, on a worker."""
        at_once = _IMAGES_AT_ONCE_ON_GPU if self._cluster.wants_gpu else 1
        embeddings: list[ImageEmbedding] = []
        while len(embeddings) < len(images):
            some = images[len(embeddings) : len(embeddings) + at_once]
            found = self._from_worker(some, pixel_spacing, crop_xyxy)
            embeddings += super().embed_batch(some, pixel_spacing, crop_xyxy) if found is None else found
        return embeddings

    def _from_worker(
        self,
        images: Sequence[npt.ArrayLike],
        pixel_spacing: npt.ArrayLike,
        crop_xyxy: npt.ArrayLike | None,
    ) -> list[ImageEmbedding] | None:
        """Embeddings, or None where no worker makes them any more."""
        if self._is_lost:
            return None
        task = EncodingTask(self._model, tuple(map(np.asarray, images)), pixel_spacing, crop_xyxy)
        try:
            found = self._ask(task)
        except (ImageError, CancelledError):
            raise  # it would not do here, or is not wanted any more
        except Exception as error:  # noqa: BLE001  whatever is wrong there, no prompt goes unanswered
            _LOG.info("Embedding on %s failed", self._cluster.address, exc_info=True)
            self._give_up(error)
            return None
        return [
            _with_features(embedding, lambda array: torch.tensor(array).to(self.device).float())
            for embedding in found
        ]

    def _ask(self, task: EncodingTask) -> list[ImageEmbedding]:
        if self._weights is None:
            try:
                return self._cluster.ask(encode_on_worker, task, should_stop=is_given_up)
            except ModelError:
                if not self._is_own:
                    raise
        weights = self._shared_weights()
        try:
            return self._cluster.ask(encode_on_worker, task, weights, should_stop=is_given_up)
        except ClusterError:
            if self._cluster.holds(weights):
                raise
        # lost with the workers that had it, which may have been started again
        return self._cluster.ask(encode_on_worker, task, self._shared_weights(), should_stop=is_given_up)

    def _shared_weights(self) -> Any:
        with self._lock:
            if self._weights is None or not self._cluster.holds(self._weights):
                path = Path(self._model.model)
                file = path / FOLDER_CHECKPOINT if path.is_dir() else path
                self._weights = self._cluster.share(file.read_bytes())
            return self._weights

    def _give_up(self, error: Exception) -> None:
        with self._lock:
            was_lost, self._is_lost = self._is_lost, True
        if not was_lost:
            self._on_lost(f"{self._reason(error)}; computing on this machine.")

    def _reason(self, error: Exception) -> str:
        text = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
        if isinstance(error, ClusterError):
            return text
        address = self._cluster.address
        if isinstance(error, ModelError) and not self._is_own:
            name = self.record.name
            remedy = f"napari-sam-med models fetch {name}, there"
            return f"{address} does not have {name} with these weights ({remedy})"
        return f"A worker at {address} failed ({text})"


def _with_features(embedding: ImageEmbedding, change: Callable[[Any], Any]) -> ImageEmbedding:
    features = type(embedding.features)(*map(change, embedding.features))
    return replace(embedding, features=features)
