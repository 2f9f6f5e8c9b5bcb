"""Embeddings of the slices that a model learns from, made once and kept while the training lasts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from napari_sam_med.errors import ModelError
from napari_sam_med.progress import Progress
from napari_sam_med.sam.embedding_store import EmbeddingStore
from napari_sam_med.sam.image_embedding import ImageEmbedding
from napari_sam_med.sam.predictor import Predictor, load_predictor
from napari_sam_med.training.finetuning import Example
from napari_sam_med.training.team import Team
from napari_sam_med.training.training_slices import TrainingSlice, without_image

__all__ = ["NO_LIMIT", "EmbeddingModel", "ViewEmbeddings"]

_MEMORY_BYTES = 2 << 30
NO_LIMIT = 1 << 60


@dataclass(frozen=True)
class EmbeddingModel:
    """The model that embeds, as `load_predictor` takes it."""

    name: str
    device: str
    precision: str


class ViewEmbeddings:
    """Makes examples of views, embedding those that are not in a store yet.

    Parameters
    ----------
    model : EmbeddingModel
        Loaded with its image encoder only when an embedding is missing.
    keys : Predictor
        Of the same model, with or without its encoder: it says under which key an embedding is kept.
    folder : Path or None
        Where embeddings are kept while the training lasts; None keeps them in memory.
    earlier : EmbeddingStore, optional
        Embeddings that are there already, such as those of the slices that were looked at in napari.
    team : Team, optional
        Processes among which the slices are shared out, by the folder; left out: this one alone.
    """

    def __init__(
        self,
        model: EmbeddingModel,
        keys: Predictor,
        folder: Path | None,
        earlier: EmbeddingStore | None = None,
        team: Team | None = None,
    ) -> None:
        self._model, self._keys, self._earlier = model, keys, earlier
        self._team = team
        memory = _MEMORY_BYTES if folder is not None else NO_LIMIT
        self._store = EmbeddingStore(folder, memory_bytes=memory, disk_bytes=NO_LIMIT)
        self._predictor: Predictor | None = None
        self.n_made = 0

    def examples(self, views: Iterable[TrainingSlice], total: int) -> Iterator[tuple[Progress, Example]]:
        """The views as examples, in order; at most ``total``, and their images are let go one by one."""
        for number, view in enumerate(views, start=1):
            key = self._keys.embedding_key(view.image, view.pixel_spacing)
            is_own = self._team is None or self._team.is_own(number)
            if is_own and key not in self._store:
                self._store.put(key, self._found(key) or self._embedded(view))
            example = Example(without_image(view), partial(self._get, key))
            yield Progress(number, total, "embedding slices"), example
        self._predictor = None  # training has no use for its encoder

    def _found(self, key: str) -> ImageEmbedding | None:
        return None if self._earlier is None else self._earlier.get(key)

    def _embedded(self, view: TrainingSlice) -> ImageEmbedding:
        if self._predictor is None:
            model = self._model
            self._predictor = load_predictor(model.name, device=model.device, precision=model.precision)
        self.n_made += 1
        return self._predictor.embed(view.image, view.pixel_spacing)

    def _get(self, key: str) -> ImageEmbedding:
        embedding = self._store.get(key)
        if embedding is None:
            raise ModelError(
                f"An embedding is gone from {self._store.directory}; nothing else may clear that folder "
                "while a model is trained. Begin again."
            )
        return embedding
