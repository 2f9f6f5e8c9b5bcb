"""An encoder is given up between two operations, on its own thread alone."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import count

import pytest
import torch

from napari_sam_med.errors import CancelledError
from napari_sam_med.sam.embedding_store import EmbeddingStore
from napari_sam_med.sam.interruption import interruptible
from napari_sam_med.sam.predictor import Predictor
from tests.sam.micro_sam import random_image


@pytest.mark.parametrize("name", ["micro", "nano"])
def test_what_is_not_interrupted_comes_out_the_same(name: str, request: pytest.FixtureRequest) -> None:
    predictor: Predictor = request.getfixturevalue(name)
    image = random_image(70, 80)
    with interruptible(lambda: False):
        asked = predictor.embed(image)
    for one, other in zip(asked.features, predictor.embed(image).features, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("name", ["micro", "nano"])
def test_an_encoder_stops_in_its_middle_and_can_be_asked_again(
    name: str, request: pytest.FixtureRequest
) -> None:
    predictor: Predictor = request.getfixturevalue(name)
    image = random_image(70, 80)
    store = EmbeddingStore(None)
    steps = count()
    with interruptible(lambda: next(steps) < 0):
        predictor.embed(image)
    n_steps = next(steps)
    left = iter(range(n_steps // 2))
    with pytest.raises(CancelledError), interruptible(lambda: next(left, None) is None):
        store.get_or_embed(predictor, image)
    assert len(store) == 0
    assert store.get_or_embed(predictor, image) is not None  # no lock is left behind either


def test_other_threads_are_not_touched(micro: Predictor) -> None:
    with interruptible(lambda: True), ThreadPoolExecutor(1) as other:
        assert other.submit(micro.embed, random_image(70, 80)).result(60).original_size == (70, 80)
        with pytest.raises(CancelledError):
            micro.embed(random_image(70, 80))
