"""Layouts of state dicts: wrappers that programs put around weights, and what the names in them say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from napari_sam_med.errors import ModelError
from napari_sam_med.sam.model_registry import NANO_WEIGHTS

__all__ = ["StateDict", "detect_architecture", "unwrap"]

StateDict = dict[str, torch.Tensor]

_POSITIONS = "image_encoder.pos_embed"
_TINY_STEM = "image_encoder.patch_embed.seq.0.c.weight"
_OWN_TINY_STEM = "image_encoder.backbone.patch_embed.conv1.conv.weight"
_VIT_WIDTHS = {768: "vit_b", 1024: "vit_l", 1280: "vit_h"}
_SUPPORTED = "supported are SAM ViT-B, -L and -H, MobileSAM, nano, and models fine-tuned from them"
# micro-sam wraps in "model_state", training scripts in "model" or "state_dict"
_WRAPPERS = ("model_state", "model", "state_dict")
# DistributedDataParallel, torch_em, Lightning
_PREFIXES = ("module.", "sam.", "model.")


def unwrap(content: Any, name: str) -> StateDict:
    """The state dict inside what a file holds, without wrappers and without a prefix that all names share.

    Parameters
    ----------
    content
        What the file holds.
    name : str
        Of the file, for the message.

    Raises
    ------
    ModelError
        When there are no weights by name in it, or other things among them.
    """
    remedy = "save the model's state_dict() alone and load that"
    for wrapper in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
            break
    if not isinstance(content, Mapping) or not content:
        raise ModelError(f"{name} holds no weights by name; {remedy}.")
    if not all(isinstance(value, torch.Tensor) for value in content.values()):
        raise ModelError(f"{name} holds other things among its weights; {remedy}.")
    weights = {str(key): value for key, value in content.items()}
    for prefix in _PREFIXES:
        if all(key.startswith(prefix) for key in weights):
            weights = {key.removeprefix(prefix): value for key, value in weights.items()}
    return weights


def detect_architecture(state_dict: Mapping[str, torch.Tensor]) -> str:
    """Architecture that weights belong to, by their names and shapes.

    Returns
    -------
    str
        ``vit_b``, ``vit_l``, ``vit_h``, ``tiny_vit`` or ``nano``.

    Raises
    ------
    ModelError
        When they belong to a model that is not supported, or to an unknown one; the text says which.
    """
    foreign = _foreign_model(state_dict)
    if foreign:
        hint = " It carries masks as --engine (see the README)." if "SAM 2" in foreign else ""
        raise ModelError(f"This is {foreign}, which is not supported as a model; {_SUPPORTED}.{hint}")
    if _TINY_STEM in state_dict or _OWN_TINY_STEM in state_dict:
        return "tiny_vit"
    if _POSITIONS in state_dict:
        shape = tuple(state_dict[_POSITIONS].shape)
        if shape[:3] == (1, 64, 64) and shape[-1] in _VIT_WIDTHS:
            return _VIT_WIDTHS[shape[-1]]
        raise ModelError(f"This is a SAM of another size, with position embedding {shape}; {_SUPPORTED}.")
    if _is_nano(state_dict):
        return "nano"
    first = min(state_dict, default="none")
    raise ModelError(f'These are weights of an unknown model (first name "{first}"); {_SUPPORTED}.')


def _foreign_model(state_dict: Mapping[str, torch.Tensor]) -> str | None:
    """Name of a known relative of SAM that needs other code than ours."""
    if any(key.startswith("vision_encoder.") for key in state_dict):
        return "a SAM in the layout of Hugging Face transformers"
    if any(key.startswith("mask_decoder.hf_") for key in state_dict):
        return "a SAM-HQ checkpoint (another decoder)"
    if any(".Adapter." in key for key in state_dict):
        return "a SAM-Med2D checkpoint (adapters in the encoder)"
    if any(key.startswith(("memory_attention.", "image_encoder.trunk.")) for key in state_dict):
        return "a SAM 2 checkpoint"
    stem = state_dict.get(_TINY_STEM)
    if stem is not None and tuple(stem.shape) != (32, 3, 3, 3):
        return "a LiteMedSAM checkpoint (another stem than MobileSAM's)"
    return None


_FITTED_TO_CLICKS = {"point_sides", "click_passes"}


def _is_nano(state_dict: Mapping[str, torch.Tensor]) -> bool:
    """Whether the names are exactly those of the bundled weights, but for what fine-tuning adds."""
    from safetensors import safe_open

    if not NANO_WEIGHTS.is_file():
        return False
    with safe_open(NANO_WEIGHTS, framework="pt") as bundled:
        return set(bundled.keys()) - _FITTED_TO_CLICKS == set(state_dict) - _FITTED_TO_CLICKS
