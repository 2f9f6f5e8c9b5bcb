"""The files of stored embeddings: listing, measuring and removing them takes no torch."""

from __future__ import annotations

import os
import time
from pathlib import Path

from napari_sam_med.sam.model_registry import user_folder

__all__ = ["PARTIAL", "StoreFolder", "embeddings_folder"]

PARTIAL = ".partial"
"""End of the name of a file that is being written."""
_SUFFIX = ".safetensors"
_ORPHAN_AGE_S = 3600.0


def embeddings_folder() -> Path:
    """Where the store that all commands and windows share lies; NAPARI_SAM_MED_HOME moves it."""
    return user_folder("cache") / "embeddings"


class StoreFolder:
    """Embeddings as files of a folder, which other processes fill and empty too.

    Parameters
    ----------
    path : Path
        Made by who writes into it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def file(self, key: str) -> Path | None:
        """Where an entry lies; None for what is no key."""
        # keys are hexadecimal digests; anything else must not become a path
        return self.path / f"{key}{_SUFFIX}" if key.isalnum() else None

    def files(self) -> list[tuple[Path, os.stat_result]]:
        """Entries and their state, the one not used for longest first."""
        if not self.path.is_dir():
            return []
        files = []
        for path in self.path.glob(f"*{_SUFFIX}"):
            try:
                files.append((path, path.stat()))
            except FileNotFoundError:  # another process removed it
                continue
        return sorted(files, key=lambda entry: entry[1].st_mtime_ns)

    def size_bytes(self) -> int:
        """Bytes of all entries."""
        return sum(stat.st_size for _, stat in self.files())

    def clear(self) -> None:
        """Remove all entries."""
        for path, _ in self.files():
            path.unlink(missing_ok=True)

    def remove_orphans(self) -> None:
        """Remove what a killed process left half-written."""
        if not self.path.is_dir():
            return
        for path in self.path.glob(f"*{PARTIAL}"):
            try:
                if time.time() - path.stat().st_mtime > _ORPHAN_AGE_S:
                    path.unlink()
            except OSError:
                continue
