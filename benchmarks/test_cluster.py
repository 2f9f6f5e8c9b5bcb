"""The benchmark of workers: every slice of its volumes is embedded once, into the store that it names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.cluster import embed_all, made_up_volume
from napari_sam_med.sam.embedding_store import EmbeddingStore
from napari_sam_med.sam.shared_model import SharedModel


class _Here:
    """In place of workers."""

    def each(self, function: Any, items: Any) -> Any:
        yield from enumerate(map(function, items))


def test_all_slices_are_embedded_once(tmp_path: Path) -> None:
    volumes = [made_up_volume(tmp_path / f"{seed}.nii.gz", slices=2, side=32, seed=seed) for seed in (0, 1)]
    found = embed_all(_Here(), volumes, SharedModel.of("nano", "cpu"), tmp_path / "store")
    assert found.slices == len(EmbeddingStore(tmp_path / "store")) == 4
    assert found.seconds >= found.busy > 0
