"""What a run will take is told before it begins, from what is really there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from napari_sam_med.errors import LabelError, ModelError
from napari_sam_med.sam.embedding_store import EmbeddingStore
from napari_sam_med.sam.predictor import load_predictor
from napari_sam_med.training.recipes import named_recipe
from napari_sam_med.training.training_slices import read_training_slices
from napari_sam_med.training.tuning_cost import TuningCost, estimate
from napari_sam_med.training.tuning_run import TuningRequest
from tests.training.ring_cases import write_case


def _cost(request: TuningRequest) -> TuningCost:
    costs = [step.cost for step in estimate(request) if step.cost is not None]
    assert len(costs) == 1
    return costs[0]


def test_slices_views_and_embeddings_are_counted_and_nothing_is_written(tmp_path: Path) -> None:
    cases = [
        write_case(tmp_path / "data", 1, depth=6),
        write_case(tmp_path / "data", 2, depth=3, split="val"),
    ]
    store = EmbeddingStore(tmp_path / "store")
    request = TuningRequest(
        cases, tmp_path / "model", named_recipe("default", epochs=2, views=2), earlier=store
    )
    before = sorted(tmp_path.rglob("*"))
    cost = _cost(request)
    assert sorted(tmp_path.rglob("*")) == before
    assert (cost.learned, cost.held_out, cost.judged) == (4, 1, 2)
    assert cost.views == 4 * 3
    assert cost.embeddings == 4 * 3 + 1 + 2
    assert cost.seconds(2) > cost.seconds(1) > cost.embeddings * cost.embedding_seconds > 0
    nano_bytes = 15 * 48 * 64 * 64 * 2
    assert cost.disk_bytes > nano_bytes

    predictor = load_predictor("nano")
    for _, found, _ in read_training_slices(cases, request.choice):
        for one in found:
            store.get_or_embed(predictor, one.image, one.pixel_spacing)
    assert _cost(request).embeddings == 4 * 2  # only the augmented views are to be made


def test_what_cannot_be_learned_from_is_refused_as_the_run_would(tmp_path: Path) -> None:
    cases = [write_case(tmp_path, 1, depth=3, split="val")]
    request = TuningRequest(cases, tmp_path / "model", named_recipe("default"))
    with pytest.raises(LabelError, match="nothing to learn from"):
        _cost(request)
    with pytest.raises(ModelError, match="trains the image encoder"):
        _cost(replace(request, recipe=named_recipe("default", trains=("lora",))))
