"""Low-rank adaptation of SAM's image encoder: it learns as well, and no embedding can be made beforehand.

Hu et al., LoRA: Low-Rank Adaptation of Large Language Models, ICLR 2022; on SAM's query, key and value
projections as in Zhang and Liu, SAMed, arXiv:2304.13785. Through peft (extra ``lora``).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

import torch
from torch import nn

from napari_sam_med.errors import ModelError
from napari_sam_med.sam.image_embedding import ImageEmbedding
from napari_sam_med.sam.predictor import Predictor
from napari_sam_med.sam.square import SquareFit, normalised_square
from napari_sam_med.training.training_slices import TrainingSlice

__all__ = ["add_lora", "embed_with_gradient", "is_lora", "merged_encoder"]

_RANK = 4
_PART = "lora_"


def add_lora(network: Any, seed: int) -> None:
    """Put low-rank matrices of rank 4 beside the attention's projections of a SAM ViT encoder, in place.

    The network answers as before: the matrices start as a product of zero.

    Raises
    ------
    ModelError
        When peft is not there, or the model has no ViT encoder.
    """
    if find_spec("peft") is None:
        raise ModelError(
            'LoRA needs peft, which is not installed; install it with pip install "napari-sam-med[lora]", or '
            "train the mask decoder."
        )
    encoder = getattr(network, "image_encoder", None)
    if not any(name.endswith("attn.qkv") for name, _ in _modules(encoder)):
        raise ModelError("LoRA is for SAM's ViT encoders, which this model has not; train its mask decoder.")
    from peft import LoraConfig, LoraModel

    config = LoraConfig(r=_RANK, lora_alpha=_RANK, target_modules=["qkv"], lora_dropout=0.0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        adapted: Any = LoraModel(encoder, config, "default")
    network.image_encoder = adapted
    network.parts = {**network.parts, "lora": "image_encoder."}


def _modules(encoder: Any) -> Iterator[tuple[str, nn.Module]]:
    return iter(()) if encoder is None else encoder.named_modules()


def is_lora(parameter_name: str) -> bool:
    """Whether a parameter is one of the matrices that `add_lora` put in."""
    return _PART in parameter_name


def merged_encoder(network: Any) -> dict[str, torch.Tensor]:
    """Weights of the encoder with the matrices multiplied in, by the names that they had before; at the end.

    The network has a plain encoder afterwards.
    """
    network.image_encoder = network.image_encoder.merge_and_unload()
    state: dict[str, torch.Tensor] = network.image_encoder.state_dict()
    return {f"image_encoder.{name}": value.detach().cpu().clone() for name, value in state.items()}


def embed_with_gradient(predictor: Predictor, view: TrainingSlice) -> ImageEmbedding:
    """The embedding of a slice through which gradients reach the encoder."""
    network: Any = predictor.network
    size = (view.image.shape[0], view.image.shape[1])
    stretch = predictor.record.stretch
    fit = SquareFit.of(size, view.pixel_spacing, network.input_size, stretch=stretch)
    square = normalised_square(view.image, fit, predictor.record.preprocessing, predictor.device)
    with _autocast(predictor):
        features = network.encode(square[None])
    return ImageEmbedding(
        type(features)(*(tensor.float() for tensor in features)),
        size,
        fit.resized_size,
        None,
        predictor.model_hash,
        view.pixel_spacing,
        predictor.preprocessing,
    )


@contextmanager
def _autocast(predictor: Predictor) -> Iterator[None]:
    mixed = predictor.precision == "bf16"
    with torch.autocast(predictor.device.type, dtype=torch.bfloat16, enabled=mixed):
        yield
