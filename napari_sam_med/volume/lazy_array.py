"""Voxels that stay on the disk: an array of which the chunks that are asked for are read, and no others."""

from __future__ import annotations

import math
import operator
import os
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from itertools import pairwise, product
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from napari_sam_med.errors import ImageError

__all__ = ["ChunkCache", "ChunkedSource", "LazyArray", "fits_memory", "sampled_blocks"]

SHARE_OF_MEMORY = 1 / 6
"""Of the machine's memory: annotating takes three times the scan, and other programs want the rest."""

_CACHE_BYTES = 1 << 30
_SHARE_FOR_CACHE = 1 / 8
_WITHOUT_SYSCONF = 8 << 30
"""Memory that is reckoned with where the system does not say how much there is."""

_SAMPLED_CHUNKS = 64
_SAMPLED_SLICES = 24


def fits_memory(n_bytes: int) -> bool:
    """Whether an array may be read as a whole: it is at most a sixth of this machine's memory."""
    return n_bytes <= SHARE_OF_MEMORY * physical_memory()


def physical_memory() -> int:
    """Memory of this machine in bytes."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # Windows has no sysconf
        return _WITHOUT_SYSCONF


class ChunkedSource(Protocol):
    """What a zarr array offers; axes beside those of space come with a fixed index."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def chunks(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> np.dtype[Any]: ...

    def __getitem__(self, key: Any) -> Any: ...


class ChunkCache:
    """Chunks that were read last, up to a number of bytes; may be shared by several arrays and threads.

    Parameters
    ----------
    n_bytes : int, optional
        1 GiB, or an eighth of the machine's memory if that is less.

    Attributes
    ----------
    n_read : int
        Chunks that were read from the disk so far.
    """

    def __init__(self, n_bytes: int | None = None) -> None:
        most = min(_CACHE_BYTES, int(_SHARE_FOR_CACHE * physical_memory()))
        self.n_bytes = most if n_bytes is None else n_bytes
        self.n_read = 0
        self._kept: OrderedDict[Any, npt.NDArray[Any]] = OrderedDict()
        self._used = 0
        self._lock = threading.Lock()

    def get(self, key: Any) -> npt.NDArray[Any] | None:
        """A chunk that is kept, or None."""
        with self._lock:
            chunk = self._kept.get(key)
            if chunk is not None:
                self._kept.move_to_end(key)
            return chunk

    def put(self, key: Any, chunk: npt.NDArray[Any]) -> None:
        """Keep a chunk that was read; those that were not asked for longest go."""
        with self._lock:
            self.n_read += 1
            if key not in self._kept and chunk.nbytes <= self.n_bytes:
                self._kept[key] = chunk
                self._used += chunk.nbytes
            while self._used > self.n_bytes:
                self._used -= self._kept.popitem(last=False)[1].nbytes


class LazyArray:
    """Three axes of a chunked array on disk, permuted, flipped and cut as asked; never changed.

    Slices alone, and `transpose`, give another view and read nothing, which napari counts on; an index with
    a number in it reads, and so does `numpy.asarray`.

    Parameters
    ----------
    source : ChunkedSource
        Such as a zarr array.
    where : sequence of (int or None)
        For each axis of the source its index, None for the three axes of space.
    cache : ChunkCache, optional
    """

    ndim = 3

    def __init__(
        self,
        source: ChunkedSource,
        where: Sequence[int | None] = (None, None, None),
        cache: ChunkCache | None = None,
    ) -> None:
        self.cache = ChunkCache() if cache is None else cache
        self.dtype = np.dtype(source.dtype).newbyteorder("=")
        self._source = source
        self._where = tuple(where)
        self._space = [axis for axis, index in enumerate(self._where) if index is None]
        self._axes = [0, 1, 2]  # of space, that each axis of this array runs along
        self._ranges = [range(int(source.shape[axis])) for axis in self._space]  # indices there

    @property
    def shape(self) -> tuple[int, int, int]:
        """Number of voxels along each axis."""
        a, b, c = map(len, self._ranges)
        return a, b, c

    @property
    def chunks(self) -> tuple[int, int, int]:
        """Shape of a chunk along the same axes."""
        a, b, c = (int(self._source.chunks[self._space[axis]]) for axis in self._axes)
        return a, b, c

    @property
    def size(self) -> int:
        """Number of voxels."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes that all of it would take."""
        return self.size * self.dtype.itemsize

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        return f"LazyArray(shape={self.shape}, dtype={self.dtype.name}, chunks={self.chunks})"

    def transpose(self, axes: Sequence[int]) -> LazyArray:
        """View with other axes; reads nothing."""
        return self._view([self._axes[axis] for axis in axes], [self._ranges[axis] for axis in axes])

    def __getitem__(self, key: Any) -> Any:
        """A view for slices alone; voxels as an ndarray where there is a number among them.

        Raises
        ------
        TypeError
            On an index that is no number and no slice.
        IndexError
            On a number outside the array, or too many of them.
        """
        keys = _completed(key)
        wanted = [_cut(own, one) for own, one in zip(self._ranges, keys, strict=True)]
        if all(isinstance(one, slice) for one in keys):
            return self._view(self._axes, wanted)
        return self._read(wanted)[tuple(slice(None) if isinstance(one, slice) else 0 for one in keys)]

    def _view(self, axes: list[int], ranges: list[range]) -> LazyArray:
        view = LazyArray(self._source, self._where, self.cache)
        view._axes, view._ranges = axes, ranges
        return view

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> npt.NDArray[Any]:
        if not fits_memory(self.nbytes):
            raise ImageError(
                f"All voxels of this scan are {self.nbytes / 2**30:.1f} GiB, which are not read into memory "
                f"({physical_memory() / 2**30:.1f} GiB in this machine) at once; work on single slices, or "
                "crop or downsample the scan."
            )
        whole = self._read(self._ranges)
        return whole if dtype is None else whole.astype(dtype)

    def blocks(self, most: int = _SAMPLED_CHUNKS) -> Iterator[npt.NDArray[Any]]:
        """At most so many chunks, spread evenly over the array: always the same ones."""
        counts = [-(-size // chunk) for size, chunk in zip(self.shape, self.chunks, strict=True)]
        n_chunks = math.prod(counts)
        chosen = np.unique(np.linspace(0, n_chunks - 1, min(n_chunks, most)).round().astype(np.int64))
        # neighbours in the order of the numbers lie in one row of chunks: a stride spreads them over all axes
        stride = next(
            n for n in range(round(n_chunks**0.618), 2 * n_chunks + 2) if math.gcd(n, n_chunks) == 1
        )
        for number in chosen.tolist():
            place = np.unravel_index(number * stride % n_chunks, counts)
            yield self._read(
                [
                    own[int(at) * chunk : (int(at) + 1) * chunk]
                    for own, at, chunk in zip(self._ranges, place, self.chunks, strict=True)
                ]
            )

    def _read(self, wanted: Sequence[range]) -> npt.NDArray[Any]:
        """Voxels at indices of the source, given along each axis of this array."""
        own = [wanted[self._axes.index(axis)] for axis in range(3)]
        return self._read_source(own).transpose(self._axes)

    def _read_source(self, wanted: Sequence[range]) -> npt.NDArray[Any]:
        """Voxels at the indices along each axis of space of the source, chunk by chunk."""
        chunks = [int(self._source.chunks[axis]) for axis in self._space]
        result = np.empty([len(one) for one in wanted], dtype=self.dtype)
        if not result.size:
            return result
        spans = [_spans(one, chunk) for one, chunk in zip(wanted, chunks, strict=True)]
        for first, second in product(*spans[:2]):
            row = self._row((first[0], second[0]), [number for number, _, _ in spans[2]], chunks)
            for number, here, inside in spans[2]:
                result[first[1], second[1], here] = row[number][first[2], second[2], inside]
        return result

    def _row(
        self, place: tuple[int, int], numbers: Sequence[int], chunks: Sequence[int]
    ) -> dict[int, npt.NDArray[Any]]:
        """Chunks of one row; those that are not at hand are read together, which zarr does side by side."""
        found = {n: self.cache.get((id(self._source), self._where, *place, n)) for n in numbers}
        missing = [n for n, chunk in found.items() if chunk is None]
        if missing:
            first, last = min(missing), max(missing)
            region = [slice(n * chunk, (n + 1) * chunk) for n, chunk in zip(place, chunks, strict=False)]
            region.append(slice(first * chunks[2], (last + 1) * chunks[2]))
            spaces = iter(region)
            key = tuple(next(spaces) if index is None else index for index in self._where)
            voxels = self._from_disk(key).astype(self.dtype, copy=False)
            for n in missing:
                start = (n - first) * chunks[2]
                chunk = voxels[:, :, start : start + chunks[2]].copy()
                found[n] = chunk
                self.cache.put((id(self._source), self._where, *place, n), chunk)
        return {n: chunk for n, chunk in found.items() if chunk is not None}

    def _from_disk(self, key: tuple[Any, ...]) -> npt.NDArray[Any]:
        try:
            return np.asarray(self._source[key])
        except Exception as error:  # codecs and stores raise a dozen kinds for damaged chunks
            raise ImageError(
                f"A part of the scan cannot be read from the disk ({error}); copy or download it again."
            ) from error


def sampled_blocks(data: Any, coarsest: Any = None) -> Iterator[npt.NDArray[Any]]:
    """Some voxels of an array-like (z, y, x) that is not to be read as a whole; always the same ones.

    Of the coarsest level of a pyramid all of them, where that fits into memory; else chunks or slices that
    are spread evenly.
    """
    if coarsest is not None and fits_memory(coarsest.size * np.dtype(coarsest.dtype).itemsize * 4):
        yield from (np.asarray(coarsest[index]) for index in range(coarsest.shape[0]))
    elif isinstance(data, LazyArray):
        yield from data.blocks()
    else:
        n_slices = int(data.shape[0])
        for index in np.unique(np.linspace(0, n_slices - 1, min(n_slices, _SAMPLED_SLICES)).astype(int)):
            yield np.asarray(data[int(index)])


def _completed(key: Any) -> list[Any]:
    keys = list(key) if isinstance(key, tuple) else [key]
    if any(one is Ellipsis for one in keys):
        at = next(number for number, one in enumerate(keys) if one is Ellipsis)
        keys[at : at + 1] = [slice(None)] * (4 - len(keys))
    keys += [slice(None)] * (3 - len(keys))
    if len(keys) != 3:
        raise IndexError(f"A scan has three axes, got {len(keys)} indices.")
    return keys


def _cut(own: range, one: Any) -> range:
    """What an index leaves of the indices along an axis."""
    if isinstance(one, slice):
        return own[one]
    try:
        index = operator.index(one)
    except TypeError:
        kind = type(one).__name__
        raise TypeError(f"Voxels on disk are indexed by numbers and slices, got {kind}.") from None
    if not -len(own) <= index < len(own):
        raise IndexError(f"Index {index} is outside an axis of {len(own)}.")
    return range(own[index], own[index] + 1)


def _spans(wanted: range, chunk: int) -> list[tuple[int, slice, npt.NDArray[np.intp] | slice]]:
    """For each chunk along an axis that is touched: its number, where it goes, and what of it is wanted."""
    indices = np.arange(wanted.start, wanted.stop, wanted.step)
    numbers = indices // chunk
    starts = [0, *(np.flatnonzero(np.diff(numbers)) + 1).tolist(), len(indices)]
    spans: list[tuple[int, slice, npt.NDArray[np.intp] | slice]] = []
    for start, stop in pairwise(starts):
        number = int(numbers[start])
        first, last = int(indices[start]) - number * chunk, int(indices[stop - 1]) - number * chunk
        end = last + (1 if wanted.step > 0 else -1)
        spans.append((number, slice(start, stop), slice(first, None if end < 0 else end, wanted.step)))
    return spans
