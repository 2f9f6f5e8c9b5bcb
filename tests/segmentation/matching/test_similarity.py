"""Similarity of features, with the bundled model: the organ where it moved, grew, or is there twice."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from napari_sam_med import load_predictor
from napari_sam_med.evaluation.metrics import dice
from napari_sam_med.sam.predictor import Predictor
from napari_sam_med.segmentation.matching.example import Example, ExampleSlice
from napari_sam_med.segmentation.matching.matcher import Matching
from napari_sam_med.segmentation.matching.similarity import likeness
from napari_sam_med.segmentation.matching.volume_matching import match_slice
from tests.segmentation.matching.scenes import disc, example_of, grey_slice, rgb

ORGAN = (40.0, 42.0, 9.0)
OTHER = (60.0, 70.0, 9.0)


@pytest.fixture(scope="module")
def nano() -> Predictor:
    return load_predictor("nano", device="cpu")


def masks_on(grey: np.ndarray, example: Example, predictor: Any, **options: Any) -> list[np.ndarray]:
    spacing = options.pop("pixel_spacing", (1.0, 1.0))
    found = match_slice(rgb(grey), example, predictor, Matching(**options), pixel_spacing=spacing)
    return [one.found.mask for one in found]


@pytest.mark.parametrize("place", [(55.0, 66.0, 9.0), (38.0, 60.0, 12.0), (48.0, 40.0, 7.0)])
def test_the_organ_is_found_where_it_moved_or_grew(
    nano: Predictor, place: tuple[float, float, float]
) -> None:
    other = (60.0, 48.0, 8.0) if place[1] > 50 else (50.0, 75.0, 8.0)
    masks = masks_on(grey_slice([place], [other], seed=4), example_of(ORGAN, [OTHER]), nano)
    assert dice(masks[0], disc(*place)) > 0.85


def test_two_instances_are_two(nano: Predictor) -> None:
    places = [(42.0, 38.0, 9.0), (50.0, 74.0, 9.0)]
    masks = masks_on(grey_slice(places, [(66.0, 54.0, 8.0)], seed=5), example_of(ORGAN, [OTHER]), nano)
    assert len(masks) == 2
    for place in places:
        assert max(dice(mask, disc(*place)) for mask in masks) > 0.85


def test_of_two_alike_the_nearer_to_the_examples_place_is_kept(nano: Predictor) -> None:
    places = [(42.0, 40.0, 9.0), (50.0, 74.0, 9.0)]
    masks = masks_on(grey_slice(places, seed=5), example_of(ORGAN, [OTHER]), nano, near_mm=20.0)
    assert len(masks) == 1
    assert dice(masks[0], disc(*places[0])) > 0.85


@pytest.mark.parametrize("shift", [(0, 8), (-6, 0), (5, -7)])
def test_the_answer_moves_with_the_query(nano: Predictor, shift: tuple[int, int]) -> None:
    example = example_of(ORGAN, [OTHER])
    still = masks_on(grey_slice([ORGAN], [OTHER], seed=6), example, nano)[0]
    moved = masks_on(grey_slice([ORGAN], [OTHER], shift=shift, seed=6), example, nano)[0]
    assert dice(np.roll(still, shift, axis=(0, 1)), moved) > 0.9


def test_an_example_of_other_spacing_is_brought_to_scale(nano: Predictor) -> None:
    # the same body, its example scanned with pixels half as large
    shape, organ = (192, 224), (80.0, 84.0, 18.0)
    image = rgb(grey_slice([organ], [(120.0, 140.0, 18.0)], shape=shape, seed=1))
    fine = Example((ExampleSlice(image, disc(*organ, shape), (0.5, 0.5)),))
    assert fine.area_mm2 == pytest.approx(example_of(ORGAN).area_mm2, rel=0.05)
    place = (50.0, 62.0, 9.0)
    masks = masks_on(grey_slice([place], [(40.0, 38.0, 9.0)], seed=7), fine, nano)
    assert dice(masks[0], disc(*place)) > 0.85


def test_where_nothing_looks_alike_nothing_is_found(nano: Predictor) -> None:
    assert masks_on(grey_slice([], seed=8), example_of(ORGAN, [OTHER]), nano) == []


def test_a_model_of_boxes_alone_is_asked_with_boxes(nano: Predictor) -> None:
    asked: list[Any] = []

    class BoxesOnly:
        accepts = frozenset({"box"})
        network = SimpleNamespace(input_size=nano.network.input_size)

        def embed(self, *arguments: Any) -> Any:
            return nano.embed(*arguments)

        def predict_batch(self, embedding: Any, prompts: Any, **options: Any) -> Any:
            asked.extend(prompts)
            return nano.predict_batch(embedding, prompts, **options)

    masks = masks_on(grey_slice([ORGAN], [OTHER], seed=9), example_of(ORGAN, [OTHER]), BoxesOnly())
    assert dice(masks[0], disc(*ORGAN)) > 0.85
    assert {kind for prompt in asked for kind in prompt.kinds} == {"box"}


def test_a_mask_within_more_of_the_same_is_less_likely() -> None:
    alike = np.where(disc(40, 40, 12), 0.9, 0.1).astype(np.float32)
    whole, part, more = (likeness(disc(40, 40, radius), alike) for radius in (12, 6, 20))
    assert whole > part
    assert whole > more
