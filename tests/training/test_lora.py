"""LoRA on a SAM encoder: it starts as nothing, learns through the encoder, and ends as plain weights."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

from napari_sam_med.errors import ModelError
from napari_sam_med.evaluation.measuring import SliceChoice
from napari_sam_med.sam.architectures.meta import SamNetwork
from napari_sam_med.training import lora
from napari_sam_med.training.finetuning import Example, Tuner
from napari_sam_med.training.lora import add_lora, embed_with_gradient, is_lora, merged_encoder
from napari_sam_med.training.recipes import named_recipe
from napari_sam_med.training.training_slices import TrainingSlice, read_training_slices
from tests.sam.micro_sam import MICRO_RECORD, build_micro_sam
from tests.training.ring_cases import write_case

pytestmark = pytest.mark.skipif(find_spec("peft") is None, reason="the extra lora is not installed")


@pytest.fixture
def network() -> SamNetwork:
    sam = build_micro_sam()
    return SamNetwork(sam.image_encoder, sam.prompt_encoder, sam.mask_decoder).eval()


@pytest.fixture
def slices(tmp_path: Path) -> list[TrainingSlice]:
    case = write_case(tmp_path, 1, depth=3)
    return [one for _, found, _ in read_training_slices([case], SliceChoice(min_area=20)) for one in found]


def test_it_starts_as_nothing_and_ends_as_plain_weights(network: SamNetwork) -> None:
    before = {name: value.clone() for name, value in network.state_dict().items()}
    squares = torch.rand(1, 3, 128, 128, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        plain = network.encode(squares).image
        add_lora(network, seed=3)
        assert torch.equal(network.encode(squares).image, plain)
        for name, parameter in network.named_parameters():
            if is_lora(name):
                parameter.add_(0.05)
        moved = network.encode(squares).image
        assert not torch.allclose(moved, plain, atol=1e-3)
        merged = merged_encoder(network)
        assert torch.allclose(network.encode(squares).image, moved, atol=1e-4)
    assert set(merged) == {name for name in before if name.startswith("image_encoder.")}
    changed = {name for name, value in merged.items() if not torch.equal(value, before[name])}
    assert changed
    assert all(name.endswith("attn.qkv.weight") for name in changed)


def _tuner(network: SamNetwork) -> Tuner:
    add_lora(network, seed=0)
    recipe = named_recipe("default", trains=("mask_decoder", "lora"), epochs=2, warm_up=0.0)
    return Tuner(network, MICRO_RECORD, recipe)


def test_gradients_reach_the_matrices_and_nothing_else_of_the_encoder(
    network: SamNetwork, slices: list[TrainingSlice]
) -> None:
    tuner = _tuner(network)
    before = {name: p.detach().clone() for name, p in tuner.network.named_parameters()}
    examples = [Example(one, lambda one=one: embed_with_gradient(tuner.predictor, one)) for one in slices]  # type: ignore[misc]  # bound now
    score = tuner.score(examples)
    assert 0 <= score <= 1
    assert all(taken for _, _, taken in tuner.train_epoch(examples))
    changed = {name for name, p in tuner.network.named_parameters() if not torch.equal(p, before[name])}
    in_encoder = {name for name in changed if name.startswith("image_encoder.")}
    assert in_encoder
    assert all(is_lora(name) for name in in_encoder)
    assert any(name.startswith("mask_decoder.") for name in changed)


def test_the_gradient_is_that_of_one_pass_through_the_encoder(
    network: SamNetwork, slices: list[TrainingSlice]
) -> None:
    tuner = _tuner(network)
    seed = (1, 2, 3)
    example = Example(slices[0], lambda: embed_with_gradient(tuner.predictor, slices[0]))

    def gradients() -> Iterator[torch.Tensor]:
        for name, p in tuner.trained.items():
            if is_lora(name) and p.grad is not None:
                yield p.grad.clone()
                p.grad = None

    for loss, _ in tuner._losses(example, seed):
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
    found = list(gradients())
    assert len(found) == 4
    assert sum(float(g.abs().sum()) for g in found) > 0
    for loss, _ in tuner._losses(example, seed):
        loss.backward()  # type: ignore[no-untyped-call]  # as above
    for one, again in zip(found, gradients(), strict=True):
        assert np.allclose(one, again, atol=1e-6)


def test_models_without_a_vit_and_machines_without_peft_are_told_so(
    network: SamNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    network.image_encoder = torch.nn.Identity()
    with pytest.raises(ModelError, match="ViT encoders"):
        add_lora(network, seed=0)
    monkeypatch.setattr(lora, "find_spec", lambda name: None)
    with pytest.raises(ModelError, match=r"napari-sam-med\[lora\]"):
        add_lora(network, seed=0)
