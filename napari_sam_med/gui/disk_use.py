"""What of the user's scans lies on disk, how large it is, and how it goes away: jobs for workers."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from napari_sam_med.progress import Progress
from napari_sam_med.sam.store_folder import StoreFolder, embeddings_folder
from napari_sam_med.session.journal_folder import default_folder
from napari_sam_med.training import own_models

if TYPE_CHECKING:
    from napari_sam_med.sam.embedding_store import EmbeddingStore

__all__ = [
    "DiskUse",
    "clear_earlier_work",
    "clear_embeddings",
    "clear_learning",
    "clear_own_models",
    "embeddings_folder",
    "keep_within",
    "measure",
]


@dataclass(frozen=True)
class DiskUse:
    """Bytes of what lies on disk.

    Attributes
    ----------
    journal_bytes : int
        Of earlier work and of the work under way.
    embedding_bytes : int
    model_bytes : int
        Of own models.
    learning_bytes : int
        Of stopped runs, the list of volumes to learn from and copies of their labels.
    """

    journal_bytes: int
    embedding_bytes: int
    model_bytes: int = 0
    learning_bytes: int = 0


def measure() -> Generator[Progress, None, DiskUse]:
    """Add everything up."""
    yield Progress(0, 1, "measuring what is kept on disk")
    return DiskUse(
        default_folder().size_bytes(),
        StoreFolder(embeddings_folder()).size_bytes(),
        own_models.models_bytes(),
        own_models.learning_bytes(),
    )


def clear_embeddings(live: EmbeddingStore | None) -> Generator[Progress, None, int]:
    """Remove all embeddings, also from the memory of the store in use; answers bytes of the files."""
    yield Progress(0, 1, "removing embeddings")
    folder = StoreFolder(embeddings_folder())
    before = folder.size_bytes()
    folder.clear()
    if live is not None:
        live.clear()
    return before


def clear_own_models() -> Generator[Progress, None, tuple[list[Path], int]]:
    """Remove the user's own models; answers their folders and bytes."""
    yield Progress(0, 1, "removing own models")
    return own_models.clear_models()


def clear_learning() -> Generator[Progress, None, int]:
    """Remove what learning keeps besides models; answers bytes."""
    yield Progress(0, 1, "removing what was kept to learn from")
    return own_models.clear_learning()


def clear_earlier_work() -> Generator[Progress, None, int]:
    """Remove the journals of all images that no window works on; answers bytes."""
    yield Progress(0, 1, "removing earlier work")
    return default_folder().clear()


def keep_within(limit_bytes: int) -> Generator[Progress, None, int]:
    """Remove the oldest journals that nobody needs, down to a limit; answers bytes."""
    yield Progress(0, 1, "making room")
    return default_folder().prune(limit_bytes)
