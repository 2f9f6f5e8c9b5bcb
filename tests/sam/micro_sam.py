"""A SAM small enough for tests, with weights large enough that its masks are neither empty nor full."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from segment_anything.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder, Sam, TwoWayTransformer
from torch import nn

from napari_sam_med.sam.architectures.meta import SamNetwork
from napari_sam_med.sam.model_registry import ModelRecord
from napari_sam_med.sam.predictor import Predictor

MICRO_SIDE = 128
MICRO_RECORD = ModelRecord(name="micro", title="Micro SAM", architecture="vit_b", input_size=MICRO_SIDE)


def build_micro_sam(seed: int = 0, side: int = MICRO_SIDE) -> Sam:
    """Meta's own `Sam` with a tiny encoder and random weights, everything else as in SAM."""
    torch.manual_seed(seed)
    grid = side // 16
    encoder = ImageEncoderViT(
        img_size=side,
        patch_size=16,
        embed_dim=32,
        depth=2,
        num_heads=2,
        out_chans=256,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
        use_rel_pos=True,
        window_size=3,
        global_attn_indexes=(1,),
    )
    prompts = PromptEncoder(
        embed_dim=256,
        image_embedding_size=(grid, grid),
        input_image_size=(side, side),
        mask_in_chans=16,
    )
    decoder = MaskDecoder(
        num_multimask_outputs=3,
        transformer=TwoWayTransformer(depth=2, embedding_dim=256, mlp_dim=256, num_heads=8),
        transformer_dim=256,
        iou_head_depth=3,
        iou_head_hidden_dim=256,
    )
    sam = Sam(encoder, prompts, decoder)
    enliven(sam)
    return sam.eval()


def enliven(sam: Any, seed: int = 1) -> None:
    """Make random weights answer with masks that change with image and prompt (SAM's initial ones do not)."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in sam.named_parameters():
            if "rel_pos" in name or "pos_embed" in name:
                parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
            elif "output_hypernetworks_mlps" in name and parameter.ndim == 2:
                parameter.mul_(4.0)
            elif "mask_tokens" in name or "point_embeddings" in name or "no_mask_embed" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator))


def predictor_over(sam: Sam, record: ModelRecord = MICRO_RECORD, **options: Any) -> Predictor:
    """Our predictor over the very modules of a `Sam`."""
    network = SamNetwork(sam.image_encoder, sam.prompt_encoder, sam.mask_decoder)
    return Predictor(network, record, model_hash="0" * 64, **options)


def random_image(height: int, width: int, seed: int = 0) -> npt.NDArray[np.uint8]:
    """Smooth blobs and noise, three unlike channels."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    image = rng.integers(0, 60, (height, width, 3))
    for channel in range(3):
        for _ in range(4):
            cy, cx, r = rng.uniform(0, height), rng.uniform(0, width), rng.uniform(0.1, 0.3) * height
            image[..., channel] += ((y - cy) ** 2 + (x - cx) ** 2 < r * r) * int(rng.integers(20, 60))
    return np.clip(image, 0, 255).astype(np.uint8)
