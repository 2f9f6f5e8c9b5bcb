"""What is embedded ahead, in which order, and what stops it; without threads, but for the interruption."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from napari_sam_med.errors import DeviceMemoryError
from napari_sam_med.sam.architectures.meta import SamFeatures
from napari_sam_med.sam.embedding_store import EmbeddingStore
from napari_sam_med.sam.image_embedding import ImageEmbedding
from napari_sam_med.sam.interruption import encoding
from napari_sam_med.sam.prompts import Prompts
from napari_sam_med.session import embedding_ahead, jobs
from napari_sam_med.session.embedding_ahead import EmbeddedStack, EmbeddingAhead, by_distance
from napari_sam_med.session.jobs import ModelView
from napari_sam_med.volume.intensity import to_rgb
from napari_sam_med.volume.slice_view import SliceView
from napari_sam_med.volume.volume import Volume

WINDOW = (-160.0, 240.0)
N_BYTES = 2048
"""Of an embedding in half precision."""


class Encoder:
    """Stands in for a `Predictor`: encodes in two steps, and says which images it has finished."""

    def __init__(self) -> None:
        self.finished: list[bytes] = []
        self.in_the_middle: Callable[[], object] = lambda: None

    def embedding_key(self, image: np.ndarray, pixel_spacing: Any = None, crop_xyxy: Any = None) -> str:
        return hashlib.sha256(image.tobytes()).hexdigest()

    def embed(self, image: np.ndarray, pixel_spacing: Any, crop_xyxy: Any) -> ImageEmbedding:
        with encoding():
            features = torch.ones(1, 1, 32, 32) * 2
            self.in_the_middle()
            features = features + 1
        self.finished.append(image.tobytes())
        return ImageEmbedding(SamFeatures(features), image.shape[:2], image.shape[:2], None, "0", (1, 1), "p")


@pytest.fixture
def encoder() -> Encoder:
    return Encoder()


@pytest.fixture
def sight(volume: Volume, encoder: Encoder, tmp_path: Path) -> ModelView:
    predictor: Any = encoder
    return ModelView(volume, WINDOW, predictor, EmbeddingStore(tmp_path / "store"))


def axial(index: int) -> SliceView:
    return SliceView("axial", index)


def made(sight: ModelView) -> list[SliceView]:
    """The slices that were encoded, in their order."""
    encoder: Any = sight.predictor
    views = [SliceView(plane, i) for plane, n in (("axial", 8), ("coronal", 24)) for i in range(n)]
    names = {to_rgb(sight.volume, view, sight.window).tobytes(): view for view in views}
    return [names[image] for image in encoder.finished]


def last(steps: Iterator[EmbeddedStack]) -> EmbeddedStack:
    return list(steps)[-1]


def test_the_nearest_come_first_on_both_sides(sight: ModelView) -> None:
    assert list(by_distance(2, 6)) == [2, 3, 1, 4, 0, 5]
    assert list(by_distance(0, 3)) == [0, 1, 2]
    steps = list(EmbeddingAhead(sight, axial(5)).run())
    assert made(sight) == [axial(i) for i in (5, 6, 4, 7, 3, 2, 1, 0)]
    assert [len(step.ready) for step in steps] == list(range(9))
    assert (steps[3].progress.done, steps[3].progress.total) == (3, 8)
    assert steps[3].ready == {5, 6, 4}


def test_who_moves_is_followed_and_nothing_is_made_twice(sight: ModelView) -> None:
    ahead = EmbeddingAhead(sight, axial(1))
    steps = ahead.run()
    list(islice(steps, 3))
    ahead.look_at(axial(6))
    list(islice(steps, 2))
    ahead.look_at(SliceView("coronal", 3))
    stack = next(steps)
    assert (stack.plane, stack.n_slices, stack.ready) == ("coronal", 24, {3})
    ahead.look_at(axial(6))
    assert last(steps).ready == set(range(8))
    assert made(sight)[:4] == [axial(1), axial(2), axial(6), axial(7)]
    assert made(sight)[4].plane == "coronal"
    assert len(set(made(sight))) == len(made(sight))


def test_who_moves_to_a_plane_that_is_all_there_is_told_of_it(sight: ModelView) -> None:
    ahead = EmbeddingAhead(sight, axial(5))
    list(ahead.run())
    ahead.look_at(SliceView("coronal", 3))
    steps = ahead.run()
    next(steps)
    ahead.look_at(axial(2))  # while it is paused
    stack = last(steps)
    assert (stack.plane, stack.ready) == ("axial", set(range(8)))


def test_who_moves_to_another_plane_while_a_slice_is_chosen_is_followed(sight: ModelView) -> None:
    ahead = EmbeddingAhead(sight, axial(5))
    steps = ahead.run()
    next(steps)

    class Moving(dict):
        def __getitem__(self, plane):
            ahead.look_at(SliceView("coronal", 20))  # another thread may do so between any two steps
            return super().__getitem__(plane)

    ahead._ready = Moving(ahead._ready)
    stack = last(steps)
    assert (stack.plane, stack.ready) == ("coronal", set(range(24)))


def test_what_lies_on_disk_is_not_made_again_in_the_next_session(sight: ModelView, tmp_path: Path) -> None:
    list(islice(EmbeddingAhead(sight, axial(2)).run(), 5))
    of_the_first = list(made(sight))
    assert len(of_the_first) == 4
    anew = ModelView(sight.volume, WINDOW, sight.predictor, EmbeddingStore(tmp_path / "store"))
    assert last(EmbeddingAhead(anew, axial(7)).run()).ready == set(range(8))
    assert made(sight)[4:] == [axial(i) for i in (7, 6, 5, 0)]


def test_a_full_store_loses_nothing_near(sight: ModelView) -> None:
    sight.store.disk_bytes = 8 * 3000  # half of it takes four
    ahead = EmbeddingAhead(sight, axial(0))
    stack = last(ahead.run())
    assert stack.ready == {0, 1, 2, 3}
    assert (stack.room, stack.progress.fraction) == (4, 1.0)
    for index in (7, 0, 7):
        ahead.look_at(axial(index))
        last(ahead.run())
        keys = [sight.predictor.embedding_key(to_rgb(sight.volume, axial(i), WINDOW)) for i in range(8)]
        near = range(4) if index == 0 else range(4, 8)
        assert all(keys[i] in sight.store for i in near)
    assert made(sight) == [axial(i) for i in (0, 1, 2, 3, 7, 6, 5, 4)], "the store has room for twice as many"


def test_what_lies_on_disk_takes_memory_only_where_it_is_near(
    sight: ModelView, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedding_ahead, "_NEAR", 1)
    ahead = EmbeddingAhead(sight, axial(4))
    last(ahead.run())
    keys = [sight.predictor.embedding_key(to_rgb(sight.volume, axial(i), WINDOW)) for i in range(8)]
    assert all(sight.store.get(key) is not None for key in keys)  # read again, into memory
    ahead.look_at(axial(7))
    last(ahead.run())
    sight.store.directory = None  # memory alone
    assert [i for i in range(8) if keys[i] in sight.store] == [6, 7]


def test_without_a_disk_memory_is_the_bound(sight: ModelView) -> None:
    sight.store.directory, sight.store.memory_bytes = None, 6 * N_BYTES
    assert last(EmbeddingAhead(sight, axial(4)).run()).ready == {4, 5, 3}
    sight.store.memory_bytes = 0
    assert not last(EmbeddingAhead(sight, axial(0)).run()).ready


def test_what_the_store_lost_is_made_again(sight: ModelView) -> None:
    ahead = EmbeddingAhead(sight, axial(4))
    last(ahead.run())
    sight.store.clear()
    assert not ahead.has_moved
    ahead.look_at(axial(3))
    assert ahead.has_moved
    assert last(ahead.run()).ready == set(range(8))
    assert made(sight)[8:] == [axial(i) for i in (3, 4, 2, 5, 1, 6, 0, 7)]


def test_closed_between_two_slices_it_has_ended(sight: ModelView) -> None:
    steps = EmbeddingAhead(sight, axial(4)).run()
    list(islice(steps, 3))
    steps.close()
    assert made(sight) == [axial(4), axial(5)]
    assert list(steps) == []


def test_a_slice_is_given_up_in_its_middle_unless_it_is_the_one_waited_for(
    sight: ModelView, encoder: Encoder
) -> None:
    ahead = EmbeddingAhead(sight, axial(4))
    steps = ahead.run()
    next(steps)
    encoder.in_the_middle = ahead.interrupt
    assert next(steps).ready == frozenset()
    assert encoder.finished == []
    ahead.go_on()
    encoder.in_the_middle = lambda: ahead.interrupt(spared=axial(4))
    assert next(steps).ready == {4}
    encoder.in_the_middle = lambda: None
    ahead.go_on()
    assert last(steps).ready == set(range(8))


def test_air_is_left_out(make_volume: Callable[..., Volume], sight: ModelView) -> None:
    volume = make_volume()
    volume.data[5:] = -1000
    sight = ModelView(volume, WINDOW, sight.predictor, sight.store)
    stack = last(EmbeddingAhead(sight, axial(6)).run())
    assert (stack.ready, stack.air) == (set(range(5)), {5, 6, 7})
    assert stack.progress.total == 5


def test_an_error_of_the_device_ends_it(sight: ModelView, encoder: Encoder) -> None:
    def fail() -> None:
        raise DeviceMemoryError("full")

    encoder.in_the_middle = fail
    with pytest.raises(DeviceMemoryError):
        list(EmbeddingAhead(sight, axial(4)).run())


def test_a_click_elsewhere_ends_the_embedding_of_a_slice(sight: ModelView, encoder: Encoder) -> None:
    asked: list[bool] = []
    encoder.in_the_middle = lambda: asked.append(True)
    job = jobs.predict_preview(sight, axial(2), Prompts.from_box((2, 2, 9, 9)), None, lambda: bool(asked))
    next(job)
    with pytest.raises(StopIteration) as end:
        next(job)
    assert end.value.value is None
    assert encoder.finished == []
