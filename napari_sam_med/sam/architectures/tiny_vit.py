"""MobileSAM: SAM's decoder behind a TinyViT encoder, which timm provides.

Zhang et al., Faster Segment Anything, 2023, https://arxiv.org/abs/2306.14289
Wu et al., TinyViT, 2022, https://arxiv.org/abs/2207.10666
"""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import nn

from napari_sam_med.sam.architectures.meta import (
    EMBEDDING_CHANNELS,
    SamNetwork,
    build_mask_decoder,
    build_prompt_encoder,
)
from napari_sam_med.sam.native_imports import import_segment_anything, import_timm

__all__ = ["TinyVitEncoder", "build_mobile_sam", "from_mobile_sam_keys", "fuse_batch_norm"]

_TINY_VIT = "tiny_vit_5m_224"
_ENCODER = "image_encoder."
_BACKBONE = f"{_ENCODER}backbone."


class TinyVitEncoder(nn.Module):
    """TinyViT-5M as MobileSAM uses it: (B, 3, 1024, 1024) to (B, 256, 64, 64)."""

    def __init__(self) -> None:
        super().__init__()
        import_segment_anything()
        from segment_anything.modeling.common import LayerNorm2d

        self.img_size = 1024
        self.backbone: Any = import_timm().create_model(_TINY_VIT, pretrained=False, num_classes=0)
        # MobileSAM merges patches with stride 1 before its last stage, so its grid stays at 1/16
        self.backbone.stages[3].downsample.conv2.conv.stride = (1, 1)
        del self.backbone.head
        width = 320
        self.neck = nn.Sequential(
            nn.Conv2d(width, EMBEDDING_CHANNELS, kernel_size=1, bias=False),
            LayerNorm2d(EMBEDDING_CHANNELS),
            nn.Conv2d(EMBEDDING_CHANNELS, EMBEDDING_CHANNELS, kernel_size=3, padding=1, bias=False),
            LayerNorm2d(EMBEDDING_CHANNELS),
        )

    def forward(self, squares: torch.Tensor) -> torch.Tensor:
        """Features of normalised squares."""
        x = squares.contiguous(memory_format=torch.channels_last)
        x = self.backbone.patch_embed(x)
        x = self.backbone.stages(x)
        features: torch.Tensor = self.neck(x)
        return features.contiguous()


def fuse_batch_norm(encoder: nn.Module) -> None:
    """Fold batch normalisation into the convolutions, in place: the same function in half the time."""
    for name, child in encoder.named_children():
        fuse: Any = getattr(child, "fuse", None)
        if fuse is not None:
            setattr(encoder, name, fuse())
        else:
            fuse_batch_norm(child)
    encoder.to(memory_format=torch.channels_last)


def from_mobile_sam_keys(state_dict: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A MobileSAM state dict with its encoder's keys as timm spells them; other keys are left alone.

    MobileSAM's classifier head and the normalisation before it are never used and are left out.
    """
    renamed = {}
    for key, value in state_dict.items():
        if not key.startswith(_ENCODER) or key.startswith((f"{_ENCODER}neck.", _BACKBONE)):
            renamed[key] = value
            continue
        inner = key.removeprefix(_ENCODER)
        if inner.startswith(("norm_head.", "head.")) or inner.endswith("attention_bias_idxs"):
            continue
        renamed[_BACKBONE + _timm_key(inner)] = value
    return renamed


def _timm_key(key: str) -> str:
    key = key.replace("patch_embed.seq.0.", "patch_embed.conv1.").replace(
        "patch_embed.seq.2.", "patch_embed.conv2."
    )
    key = key.replace(".c.", ".conv.")
    # the merging stands at the end of a stage at Microsoft, and at the start of the next one in timm
    key = re.sub(r"^layers\.(\d+)\.downsample\.", lambda m: f"stages.{int(m[1]) + 1}.downsample.", key)
    return re.sub(r"^layers\.(\d+)\.", r"stages.\1.", key)


def build_mobile_sam() -> SamNetwork:
    """MobileSAM, weights not yet loaded, in eval mode."""
    return SamNetwork(TinyVitEncoder(), build_prompt_encoder(), build_mask_decoder()).eval()
