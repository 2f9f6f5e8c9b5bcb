"""Voxels on the disk: the same as in memory, and no chunk is read that nobody asked for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_sam_med.errors import ImageError
from napari_sam_med.volume import lazy_array
from napari_sam_med.volume.grid import Grid
from napari_sam_med.volume.intensity import contrast_warning, resolve_window
from napari_sam_med.volume.lazy_array import ChunkCache, LazyArray, sampled_blocks
from napari_sam_med.volume.slice_view import PLANES, SliceView
from napari_sam_med.volume.volume import Volume


class Chunked:
    """An array that answers as zarr does: no negative steps."""

    def __init__(self, data: np.ndarray, chunks: tuple[int, ...]) -> None:
        self.data, self.chunks = data, chunks
        self.shape, self.dtype = data.shape, data.dtype

    def __getitem__(self, key: Any) -> np.ndarray:
        assert all(isinstance(one, int) or one.step in (None, 1) for one in key)
        return self.data[key]


DATA = np.random.default_rng(0).integers(0, 1000, (2, 11, 13, 17)).astype(">u2")
CHUNKS = (1, 4, 5, 6)


def _lazy(cache: ChunkCache | None = None) -> LazyArray:
    return LazyArray(Chunked(DATA, CHUNKS), (1, None, None, None), cache)


_slices = st.builds(
    slice,
    st.none() | st.integers(-20, 20),
    st.none() | st.integers(-20, 20),
    st.sampled_from([None, 1, 2, 5, -1, -3]),
)
_keys = st.tuples(*[_slices | st.integers(-11, 10)] * 3)


@settings(max_examples=150, deadline=None)
@given(
    axes=st.permutations(range(3)),
    flips=st.tuples(*[st.sampled_from([slice(None), slice(None, None, -1)])] * 3),
    first=st.tuples(*[_slices] * 3),
    key=_keys,
)
def test_every_index_gives_what_numpy_gives(axes: list[int], flips: Any, first: Any, key: Any) -> None:
    lazy, data = _lazy().transpose(axes)[flips], DATA[1].transpose(axes)[flips]
    assert lazy.shape == data.shape
    assert np.array_equal(np.asarray(lazy[first]), data[first])
    assert np.array_equal(np.asarray(lazy[key]), data[key])
    assert np.asarray(lazy[key]).dtype == np.uint16


def test_only_the_chunks_of_a_slice_are_read_and_each_once() -> None:
    cache = ChunkCache()
    lazy = _lazy(cache)[::-1][:, 2:9]
    assert cache.n_read == 0
    lazy[0]
    assert cache.n_read == 2 * 3  # rows 2 to 8 lie in two rows of chunks
    lazy[1]
    assert cache.n_read == 6
    lazy[10]
    assert cache.n_read == 12


def test_a_full_cache_lets_go_of_what_was_asked_for_longest_ago() -> None:
    chunk_bytes = 4 * 5 * 6 * 2
    cache = ChunkCache(9 * chunk_bytes)
    lazy = _lazy(cache)
    lazy[0], lazy[5], lazy[0]
    assert cache.n_read > 2 * 9
    before = cache.n_read
    lazy[1]
    assert cache.n_read == before


@pytest.mark.parametrize("key", [11, -12, (0, 0, 17), (0, 0, 0, 0)])
def test_an_index_outside_is_refused(key: Any) -> None:
    with pytest.raises(IndexError):
        _lazy()[key]


def test_lists_are_no_index() -> None:
    with pytest.raises(TypeError, match="numbers and slices"):
        _lazy()[[1, 2]]


def _volume(data: Any, levels: tuple[Any, ...] = ()) -> Volume:
    return Volume(data, Grid.from_zyx(data.shape), levels=levels)


def test_all_of_what_is_larger_than_memory_is_refused_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lazy_array, "physical_memory", lambda: DATA[1].nbytes)
    lazy = _lazy()
    assert _volume(lazy).is_lazy
    assert not _volume(DATA[1]).is_lazy
    with pytest.raises(ImageError, match="single slices"):
        np.asarray(lazy)
    assert lazy.cache.n_read == 0


@pytest.mark.parametrize("plane", PLANES)
def test_slices_are_those_of_the_array_in_memory(plane: Any) -> None:
    view = SliceView(plane, 7)
    assert np.array_equal(view.extract(_lazy()), view.extract(DATA[1]))


def test_nothing_is_said_of_voxels_that_were_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    data = np.zeros((64, 64, 64), np.uint8)
    lazy = LazyArray(Chunked(data, (4, 4, 4)))
    assert "in every voxel, so there is nothing" in contrast_warning(_volume(lazy))
    monkeypatch.setattr(lazy_array, "physical_memory", lambda: data.nbytes)
    assert "in every voxel that was looked at, so there may be nothing" in contrast_warning(_volume(lazy))
    data[3, 2, 1] = 1  # in the chunk that is looked at first
    lazy = LazyArray(Chunked(data, (4, 4, 4)))
    assert contrast_warning(_volume(lazy)) == ""
    assert lazy.cache.n_read == 1


def test_a_window_is_found_in_a_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    data = np.tile(np.arange(2048, dtype=np.int16), (64, 64, 1))
    lazy = LazyArray(Chunked(data, (8, 8, 128)))
    coarse = LazyArray(Chunked(data[::8, ::8, ::8], (8, 8, 64)))
    exact = np.array(resolve_window(_volume(data)))
    monkeypatch.setattr(lazy_array, "physical_memory", lambda: data.nbytes)
    for volume in (_volume(lazy), _volume(lazy, (coarse,))):
        assert volume.is_lazy
        assert np.allclose(resolve_window(volume), exact, atol=40)
    assert lazy.cache.n_read <= 3 * 64  # of 1024: range, again for the counts, and once more
    blocks = [block.copy() for block in lazy.blocks()]
    assert all(np.array_equal(a, b) for a, b in zip(blocks, sampled_blocks(lazy), strict=True))
