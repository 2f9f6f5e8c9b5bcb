"""Digests of files: how checkpoints are recognised."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

__all__ = ["digests_of", "sha256_of"]

_CHUNK = 1 << 20


def sha256_of(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file, hexadecimal."""
    return digests_of(path, ("sha256",))["sha256"]


def digests_of(path: str | os.PathLike[str], algorithms: Iterable[str]) -> dict[str, str]:
    """Digests of a file, hexadecimal, by algorithm (``sha256``, ``md5``, ``xxh128``), in one pass."""
    hashers = {algorithm: _hasher(algorithm) for algorithm in algorithms}
    with Path(path).open("rb") as file:
        while chunk := file.read(_CHUNK):
            for hasher in hashers.values():
                hasher.update(chunk)
    return {algorithm: hasher.hexdigest() for algorithm, hasher in hashers.items()}


def _hasher(algorithm: str) -> Any:
    if algorithm == "xxh128":
        import xxhash

        return xxhash.xxh128()
    return hashlib.new(algorithm, usedforsecurity=False)
