"""What of the user's scans lies on disk, how large it is, and how it goes away: jobs for workers."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from napari_sam_med.progress import Progress
from napari_sam_med.sam.model_registry import user_folder
from napari_sam_med.session.journal_folder import default_folder
from napari_sam_med.session.preloading import preload_torch_libraries

if TYPE_CHECKING:
    from napari_sam_med.sam.embedding_store import EmbeddingStore

__all__ = ["DiskUse", "clear_earlier_work", "clear_embeddings", "embeddings_folder", "keep_within", "measure"]


@dataclass(frozen=True)
class DiskUse:
    """Bytes of journals (earlier work and the work under way) and of embeddings."""

    journal_bytes: int
    embedding_bytes: int


def embeddings_folder() -> Path:
    """Where `default_store` keeps embeddings."""
    return user_folder("cache") / "embeddings"


def measure() -> Generator[Progress, None, DiskUse]:
    """Add everything up."""
    yield Progress(0, 1, "measuring what is kept on disk")
    preload_torch_libraries()
    from napari_sam_med.sam.embedding_store import EmbeddingStore

    return DiskUse(default_folder().size_bytes(), EmbeddingStore(embeddings_folder()).size_bytes())


def clear_embeddings(live: EmbeddingStore | None) -> Generator[Progress, None, int]:
    """Remove all embeddings, also from the memory of the store in use; answers bytes of the files."""
    yield Progress(0, 1, "removing embeddings")
    preload_torch_libraries()
    from napari_sam_med.sam.embedding_store import EmbeddingStore

    store = EmbeddingStore(embeddings_folder())
    before = store.size_bytes()
    store.clear()
    if live is not None:
        live.clear()
    return before


def clear_earlier_work() -> Generator[Progress, None, int]:
    """Remove the journals of all images that no window works on; answers bytes."""
    yield Progress(0, 1, "removing earlier work")
    return default_folder().clear()


def keep_within(limit_bytes: int) -> Generator[Progress, None, int]:
    """Remove the oldest journals that nobody needs, down to a limit; answers bytes."""
    yield Progress(0, 1, "making room")
    return default_folder().prune(limit_bytes)
