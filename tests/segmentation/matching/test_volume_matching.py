"""Matching in volumes: instances, the example's own slices, and ending early."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from napari_sam_med import Volume, load_predictor
from napari_sam_med.evaluation.metrics import dice
from napari_sam_med.sam.predictor import Predictor
from napari_sam_med.segmentation.automatic.found_objects import FoundMask, FoundObject
from napari_sam_med.segmentation.matching import volume_matching
from napari_sam_med.segmentation.matching.example import Example
from napari_sam_med.segmentation.matching.matcher import MatchedMask, Matching
from napari_sam_med.segmentation.matching.volume_matching import (
    MatchedSlice,
    match_volume,
    searched_views,
)
from napari_sam_med.volume.grid import Grid
from napari_sam_med.volume.slice_view import SliceView
from tests.segmentation.matching.scenes import Disc, disc, example_of, grey_slice, volume_of_rods

RODS = [(42.0, 38.0, 9.0), (50.0, 74.0, 9.0)]
WINDOW = (0.0, 255.0)


@pytest.fixture(scope="module")
def nano() -> Predictor:
    return load_predictor("nano", device="cpu")


def matched(
    volume: Volume, example: Example, predictor: Predictor, **options: Any
) -> tuple[list[MatchedSlice], list[FoundObject]]:
    search, yielded = match_volume(volume, example, predictor, Matching(**options), window=WINDOW), []
    while True:
        try:
            yielded.append(next(search))
        except StopIteration as end:
            return yielded, end.value


def as_array(one: FoundObject, volume: Volume) -> np.ndarray:
    filled = np.zeros(volume.shape, dtype=bool)
    one.written_into(filled)
    return filled


def test_two_rods_are_two_objects_carried_to_their_ends(nano: Predictor) -> None:
    volume = volume_of_rods(RODS)
    yielded, objects = matched(volume, example_of((40.0, 42.0, 9.0)), nano, every=3)
    assert [one.number for one in objects] == [1, 2]
    assert objects[0].score >= objects[1].score > 0.3
    for rod in RODS:
        truth = np.zeros(volume.shape, dtype=bool)
        truth[1:8] = disc(*rod)
        assert max(dice(as_array(one, volume), truth) for one in objects) > 0.85
    searched = [one for one in yielded if one.number is None]
    assert [one.view for one in searched] == searched_views(volume, Matching(every=3))
    assert {one.number for one in yielded[len(searched) :]} == {1, 2}


def test_a_search_from_the_middle_finds_the_same(nano: Predictor) -> None:
    volume, example = volume_of_rods(RODS), example_of((40.0, 42.0, 9.0))
    _, ascending = matched(volume, example, nano, every=4, propagate=False)
    search = match_volume(
        volume, example, nano, Matching(every=4, propagate=False), window=WINDOW, begin_at=5
    )
    seen = []
    while True:
        try:
            seen.append(next(search).view.index)
        except StopIteration as end:
            objects = end.value
            break
    assert seen == [4, 8, 0]
    assert [one.score for one in objects] == [one.score for one in ascending]
    assert all(
        np.array_equal(as_array(a, volume), as_array(b, volume))
        for a, b in zip(objects, ascending, strict=True)
    )


def test_without_propagation_only_searched_slices_have_masks(nano: Predictor) -> None:
    volume = volume_of_rods(RODS)
    _, objects = matched(volume, example_of((40.0, 42.0, 9.0)), nano, every=4, propagate=False)
    assert len(objects) == 2
    views = {SliceView("axial", z) for z in (0, 4, 8)}
    assert all(set(one.masks) <= views for one in objects)


def test_the_examples_own_slice_is_kept_as_it_is_and_not_searched(nano: Predictor) -> None:
    volume, view = volume_of_rods(RODS), SliceView("axial", 5)
    drawn = disc(42, 38, 8)  # a little smaller than the rod: as somebody wants it
    example = Example.of_masks(volume, [(view, drawn)], window=WINDOW)
    yielded, objects = matched(volume, example, nano, every=3)
    assert view not in [one.view for one in yielded if one.number is None]
    assert any(view in one.masks and np.array_equal(one.masks[view].mask, drawn) for one in objects)


class Surveyor:
    """Finds discs that are written down, by the grey value in the corner of a slice."""

    def __init__(self, discs: dict[int, list[tuple[Disc, float]]]) -> None:
        self.discs = discs

    def find(self, query: Any) -> list[MatchedMask]:
        return [
            MatchedMask(FoundMask.of(disc(*place), 0.9, 0.9), score)
            for place, score in self.discs.get(int(query.image[0, 0, 0]), [])
        ]


def surveyed(
    monkeypatch: pytest.MonkeyPatch, discs: dict[int, list[tuple[Disc, float]]], n_slices: int = 7
) -> Volume:
    monkeypatch.setattr(volume_matching, "matcher_of", lambda *_: Surveyor(discs))
    data = np.stack([grey_slice([RODS[0]], seed=z) for z in range(n_slices)])
    data[:, 0, 0] = np.arange(n_slices)
    return Volume(data, Grid.from_zyx(data.shape, (5.0, 1.0, 1.0)))


def test_what_was_drawn_stays_though_a_searched_slice_shows_more_or_nothing_goes_on(
    nano: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two drawn slices of one rod, and a surer look-alike on the others."""
    wide, alike = (42.0, 38.0, 9.0), (50.0, 74.0, 9.0)
    volume = surveyed(monkeypatch, {0: [(wide, 0.9)], 5: [(alike, 0.8)], 6: [(alike, 0.8)]})
    drawn = {SliceView("axial", 1): disc(42, 38, 7), SliceView("axial", 2): disc(42, 39, 7)}
    example = Example.of_masks(volume, list(drawn.items()), window=WINDOW)
    _, objects = matched(volume, example, nano, every=1)
    for view, mask in drawn.items():
        assert np.array_equal(objects[0].masks[view].mask, mask)
    lone = Example.of_masks(volume, [(SliceView("axial", 3), disc(20, 80, 4))], window=WINDOW)
    _, objects = matched(volume, lone, nano, every=1, propagate=False)
    assert [view.index for view in objects[0].masks] == [3]


def test_an_object_that_one_slice_does_not_show_is_one_in_the_end(
    nano: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = [(RODS[0], 0.8)]
    volume = surveyed(monkeypatch, {0: seen, 1: seen, 3: seen, 4: seen}, 5)
    yielded, objects = matched(volume, example_of((40.0, 42.0, 9.0)), nano, every=1)
    assert {one.number for one in yielded if one.number is not None} == {1, 2}
    assert [one.number for one in objects] == [1]
    assert len(objects[0].masks) == 5


def test_nothing_alike_gives_no_object(nano: Predictor) -> None:
    yielded, objects = matched(volume_of_rods([]), example_of((40.0, 42.0, 9.0)), nano, every=3)
    assert objects == []
    assert [one.masks for one in yielded] == [()] * 3


def test_a_search_that_is_closed_early_searched_no_more(nano: Predictor) -> None:
    asked: list[Any] = []

    class Counting:
        def __getattr__(self, name: str) -> Any:
            return getattr(nano, name)

        def embed(self, image: Any, *where: Any) -> Any:
            asked.append(image)
            return nano.embed(image, *where)

    search = match_volume(
        volume_of_rods(RODS),
        example_of((40.0, 42.0, 9.0)),
        Counting(),  # type: ignore[arg-type]  # a predictor that counts
        Matching(every=1),
        window=WINDOW,
    )
    first = next(search)
    assert first.progress.done == 1
    assert first.progress.total == 9
    search.close()
    assert len(asked) == 2  # the slice and the example
    with pytest.raises(StopIteration):
        next(search)


def test_slices_are_searched_some_10_mm_apart_unless_told_otherwise() -> None:
    volume = volume_of_rods(RODS)  # 5 mm slices
    assert [view.index for view in searched_views(volume, Matching())] == [0, 2, 4, 6, 8]
    assert [view.index for view in searched_views(volume, Matching(every=6))] == [1, 7]
    assert len(searched_views(volume, Matching(plane="sagittal"))) == 12
