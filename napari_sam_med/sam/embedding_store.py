"""Embeddings kept for later: in memory, then on disk, each within a number of bytes.

A slice takes seconds to embed and milliseconds to read back. Features are rounded to half precision before
anything is answered from them, so that entries are small and a second run answers exactly as the first. An
entry that is partial or damaged is made anew.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import logging
import os
import threading
from collections import OrderedDict
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy.typing as npt
import torch

from napari_sam_med.errors import ModelError
from napari_sam_med.sam.image_embedding import ImageEmbedding
from napari_sam_med.sam.predictor import Predictor
from napari_sam_med.sam.store_folder import PARTIAL, StoreFolder, embeddings_folder

__all__ = ["EmbeddingStore", "as_kept", "default_store"]

_LOG = logging.getLogger(__name__)
_FORMAT = 3
_ARCHITECTURES = "napari_sam_med.sam.architectures"
_GIB = 1 << 30
# Of the limit: how much eviction frees at once, and how much is written at most before the folder, which
# other processes fill too, is measured again.
_EVICTION_SHARE = 1 / 16


class EmbeddingStore:
    """Embeddings by key (see `Predictor.embedding_key`); safe to use from several threads and processes.

    Parameters
    ----------
    directory : path or None
        Where files lie, made when needed; None keeps embeddings in memory alone.
    memory_bytes, disk_bytes : int
        Limits; what was not used for longest goes first.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str] | None,
        memory_bytes: int = 1 * _GIB,
        disk_bytes: int = 8 * _GIB,
    ) -> None:
        self.directory = None if directory is None else Path(directory)
        self.memory_bytes = memory_bytes
        self.disk_bytes = disk_bytes
        self._memory: OrderedDict[str, ImageEmbedding] = OrderedDict()
        self._memory_used = 0
        self._unmeasured_room = 0.0  # bytes that may be written before the folder is measured again
        self._lock = threading.RLock()
        self._being_made: dict[str, threading.Lock] = {}
        if (folder := self._folder) is not None:
            folder.remove_orphans()

    @property
    def _folder(self) -> StoreFolder | None:
        return None if self.directory is None else StoreFolder(self.directory)

    def __repr__(self) -> str:
        return f"EmbeddingStore({str(self.directory)!r}, {len(self._memory)} in memory)"

    def __contains__(self, key: str) -> bool:
        with self._lock:
            if key in self._memory:
                return True
        path = self._path(key)
        return path is not None and path.is_file()

    def get(self, key: str) -> ImageEmbedding | None:
        """The embedding of a key, on the cpu; None when it is not there, or its file is damaged."""
        with self._lock:
            if key in self._memory:
                self._memory.move_to_end(key)
                return self._memory[key]
        path = self._path(key)
        if path is None:
            return None
        embedding = _read(path)
        if embedding is not None:
            self._remember(key, embedding)
        return embedding

    def keep(self, key: str) -> int:
        """Bytes of an entry on disk, which counts as used just now; 0 when it is not there."""
        path = self._path(key)
        if path is None:
            return 0
        try:
            os.utime(path)
            return path.stat().st_size
        except OSError:  # not there, or another process has just removed it
            return 0

    def release(self, key: str) -> None:
        """Let an entry go from memory that lies on disk as well: it is read again when it is asked for."""
        path = self._path(key)
        if path is not None and path.is_file():
            with self._lock:
                released = self._memory.pop(key, None)
                if released is not None:
                    self._memory_used -= released.nbytes

    def put(self, key: str, embedding: ImageEmbedding) -> ImageEmbedding:
        """Keep an embedding. A disk that is full or read-only is logged, and memory goes on alone.

        Returns
        -------
        ImageEmbedding
            What was kept and `get` gives: on the cpu, features rounded to half precision (a tensor with
            values that half precision cannot hold stays as it is).
        """
        kept = as_kept(embedding)
        self._remember(key, kept)
        folder = self._folder
        path = None if folder is None else folder.file(key)
        if folder is None or path is None:
            return kept
        try:
            self._make_room(folder, _write(path, kept))
        except OSError as error:
            _LOG.warning("The embedding could not be kept in %s: %s", path.parent, error)
        return kept

    def get_or_embed(
        self,
        predictor: Predictor,
        image: npt.ArrayLike,
        pixel_spacing: npt.ArrayLike = (1.0, 1.0),
        crop_xyxy: npt.ArrayLike | None = None,
    ) -> ImageEmbedding:
        """The embedding of an image, from here or else made by the predictor and kept.

        It is the same, in half precision, the first time as ever after. Parameters and errors are those of
        `Predictor.embed`. Threads that ask for the same image wait for one.
        """
        key = predictor.embedding_key(image, pixel_spacing, crop_xyxy)
        embedding = self.get(key)
        if embedding is not None:
            return embedding
        with self._lock:
            making = self._being_made.setdefault(key, threading.Lock())
        try:
            with making:
                embedding = self.get(key)
                if embedding is None:
                    embedding = self.put(key, predictor.embed(image, pixel_spacing, crop_xyxy))
                return embedding
        finally:
            with self._lock:
                self._being_made.pop(key, None)

    def clear(self) -> None:
        """Forget everything, in memory and on disk."""
        with self._lock:
            self._memory.clear()
            self._memory_used = 0
        if (folder := self._folder) is not None:
            folder.clear()

    def size_bytes(self) -> int:
        """Bytes on disk; in memory for a store without a directory."""
        if (folder := self._folder) is None:
            with self._lock:
                return self._memory_used
        return folder.size_bytes()

    def __len__(self) -> int:
        """Number of embeddings on disk; in memory for a store without a directory."""
        if (folder := self._folder) is None:
            with self._lock:
                return len(self._memory)
        return len(folder.files())

    def _path(self, key: str) -> Path | None:
        folder = self._folder
        return None if folder is None else folder.file(key)

    def _remember(self, key: str, embedding: ImageEmbedding) -> None:
        with self._lock:
            replaced = self._memory.pop(key, None)
            if replaced is not None:
                self._memory_used -= replaced.nbytes
            if embedding.nbytes > self.memory_bytes:
                return
            self._memory[key] = embedding
            self._memory_used += embedding.nbytes
            while self._memory_used > self.memory_bytes:
                _, oldest = self._memory.popitem(last=False)
                self._memory_used -= oldest.nbytes

    def _make_room(self, folder: StoreFolder, written: int) -> None:
        """Count bytes that were written; now and then measure the folder, and evict what is too much."""
        with self._lock:
            self._unmeasured_room -= written
            if self._unmeasured_room >= 0:
                return
            files = folder.files()
            used = sum(stat.st_size for _, stat in files)
            share = self.disk_bytes * _EVICTION_SHARE
            wanted = self.disk_bytes if used <= self.disk_bytes else self.disk_bytes - share
            for path, stat in files:
                if used <= wanted:
                    break
                path.unlink(missing_ok=True)
                used -= stat.st_size
            self._unmeasured_room = min(share, self.disk_bytes - used)


def default_store() -> EmbeddingStore:
    """The store in the user's cache folder, one a process.

    NAPARI_SAM_MED_HOME moves it, and NAPARI_SAM_MED_STORE_GB says how many gigabytes it keeps on disk.

    Raises
    ------
    ModelError
        When that is no number of gigabytes.
    """
    return _store_in(embeddings_folder(), _disk_bytes())


def _disk_bytes() -> int:
    """Limit on disk: what the user says, else 8 GiB."""
    text = os.environ.get("NAPARI_SAM_MED_STORE_GB", "")
    try:
        gigabytes = float(text) if text else 8 * _GIB / 1e9
    except ValueError:
        gigabytes = 0.0
    if not 0.0 < gigabytes < 1e9:
        raise ModelError(
            f'NAPARI_SAM_MED_STORE_GB is "{text}"; set it to a number of gigabytes, such as 100.'
        )
    return round(gigabytes * 1e9)


@functools.cache
def _store_in(directory: Path, disk_bytes: int) -> EmbeddingStore:
    return EmbeddingStore(directory, disk_bytes=disk_bytes)


def as_kept(embedding: ImageEmbedding) -> ImageEmbedding:
    """An embedding as the store keeps it: on the cpu, in half precision where that holds its values."""
    features = type(embedding.features)(*(_rounded(tensor.detach()).cpu() for tensor in embedding.features))
    return replace(embedding, features=features)


def _rounded(tensor: torch.Tensor) -> torch.Tensor:
    half = tensor.to(torch.float16)
    return half if bool(half.isfinite().all()) else tensor


def _write(path: Path, embedding: ImageEmbedding) -> int:
    """Write an embedding whole or not at all; returns the bytes written."""
    from safetensors.torch import save

    feature_type = type(embedding.features)
    tensors = {
        name: tensor.contiguous()
        for name, tensor in zip(feature_type._fields, embedding.features, strict=True)
    }
    facts = {
        "format": _FORMAT,
        "feature_type": [feature_type.__module__.removeprefix(f"{_ARCHITECTURES}."), feature_type.__name__],
        "original_size": embedding.original_size,
        "input_size": embedding.input_size,
        "crop_xyxy": embedding.crop_xyxy,
        "model_hash": embedding.model_hash,
        "preprocessing": embedding.preprocessing,
        "pixel_spacing": embedding.pixel_spacing,
        "sha256": _digest_of(tensors),
    }
    content = save(tensors, metadata={"embedding": json.dumps(facts)})
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.stem}.{os.getpid()}-{threading.get_ident()}{PARTIAL}")
    try:
        partial.write_bytes(content)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    return len(content)


def _read(path: Path) -> ImageEmbedding | None:
    """The embedding in a file; None, and the file is removed, when anything about it is not right."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        content = path.read_bytes()
    except OSError:
        return None
    try:
        tensors = load(content)
        facts = json.loads(_metadata(content)["embedding"])
        if facts["format"] != _FORMAT or facts["sha256"] != _digest_of(tensors):
            raise ValueError("format or digest")
        embedding = _embedding(facts, tensors)
    except (SafetensorError, ValueError, LookupError, TypeError, AttributeError, ImportError) as error:
        _LOG.info("Removed the damaged embedding %s: %s", path, error)
        path.unlink(missing_ok=True)
        return None
    with contextlib.suppress(OSError):
        os.utime(path)  # the modification time orders eviction
    return embedding


def _metadata(content: bytes) -> Any:
    """Free text in the header of a safetensors file: a length of 8 bytes, then JSON."""
    length = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + length])["__metadata__"]


def _embedding(facts: Any, tensors: dict[str, torch.Tensor]) -> ImageEmbedding:
    module, name = facts["feature_type"]
    feature_type = getattr(import_module(f"{_ARCHITECTURES}.{module}"), name)
    features = feature_type(**tensors)
    crop = facts["crop_xyxy"]
    return ImageEmbedding(
        features=features,
        original_size=tuple(facts["original_size"]),
        input_size=tuple(facts["input_size"]),
        crop_xyxy=None if crop is None else tuple(crop),
        model_hash=facts["model_hash"],
        pixel_spacing=tuple(facts["pixel_spacing"]),
        preprocessing=facts["preprocessing"],
    )


def _digest_of(tensors: dict[str, torch.Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].numpy().tobytes())
    return digest.hexdigest()
