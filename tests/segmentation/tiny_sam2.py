"""SAM 2 small enough for tests: a video model with few channels, and the names and shapes of Meta's files."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

SIDE = 64
HIDDEN = 128


def tiny_video_model(object_score: float = 3.0, seed: int = 0) -> Any:
    """A Sam2VideoModel with random weights that sees the object on every slice, or on none."""
    from transformers import (
        Sam2HieraDetConfig,
        Sam2VideoConfig,
        Sam2VideoMaskDecoderConfig,
        Sam2VideoModel,
        Sam2VideoPromptEncoderConfig,
        Sam2VisionConfig,
    )

    grid = SIDE // 16
    backbone = Sam2HieraDetConfig(
        hidden_size=8,
        embed_dim_per_stage=[8, 16, 32, 64],
        blocks_per_stage=[1, 1, 2, 1],
        window_size_per_stage=[8, 4, 4, 2],
        global_attention_blocks=[3],
        image_size=[SIDE, SIDE],
        window_positional_embedding_background_size=[2, 2],
    )
    config = Sam2VideoConfig(
        vision_config=Sam2VisionConfig(
            backbone_config=backbone,
            backbone_channel_list=[64, 32, 16, 8],
            backbone_feature_sizes=[[4 * grid] * 2, [2 * grid] * 2, [grid] * 2],
            fpn_hidden_size=HIDDEN,
        ),
        prompt_encoder_config=Sam2VideoPromptEncoderConfig(hidden_size=HIDDEN, image_size=SIDE),
        mask_decoder_config=Sam2VideoMaskDecoderConfig(
            hidden_size=HIDDEN, mlp_dim=32, iou_head_hidden_dim=32, num_attention_heads=2
        ),
        image_size=SIDE,
        memory_attention_hidden_size=HIDDEN,
        memory_attention_num_layers=1,
        memory_attention_feed_forward_hidden_size=32,
        memory_attention_rope_feat_sizes=[grid, grid],
        memory_encoder_hidden_size=HIDDEN,
        mask_downsampler_embed_dim=HIDDEN,
        memory_fuser_embed_dim=HIDDEN,
        memory_fuser_intermediate_dim=32,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = Sam2VideoModel(config).eval()
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if parameter.ndim < 2 or "encoding" in name or "embed" in name:
                    parameter.add_(torch.randn_like(parameter) * 0.1)
            model.mask_decoder.pred_obj_score_head.proj_out.weight.zero_()
            model.mask_decoder.pred_obj_score_head.proj_out.bias.fill_(object_score)
    return model


def write_folder(folder: Any, model: Any) -> None:
    """What transformers' save_pretrained writes, without its progress bar."""
    from safetensors.torch import save_file

    folder.mkdir(exist_ok=True)
    model.config.to_json_file(folder / "config.json", use_diff=False)
    state_dict = {key: value.contiguous().clone() for key, value in model.state_dict().items()}
    save_file(state_dict, folder / "model.safetensors")


def _linear(name: str, n_out: int, n_in: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{name}.weight", (n_out, n_in)
    yield f"{name}.bias", (n_out,)


def _conv(name: str, *shape: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{name}.weight", shape
    yield f"{name}.bias", shape[:1]


def _norm(name: str, n: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{name}.weight", (n,)
    yield f"{name}.bias", (n,)


def _attention(name: str, inner: int, n_kv: int = 256) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield from _linear(f"{name}.q_proj", inner, 256)
    yield from _linear(f"{name}.k_proj", inner, n_kv)
    yield from _linear(f"{name}.v_proj", inner, n_kv)
    yield from _linear(f"{name}.out_proj", 256, inner)


def _mlp(name: str, *widths: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    for i in range(len(widths) - 1):
        yield from _linear(f"{name}.layers.{i}", widths[i + 1], widths[i])


def _image_encoder(stages: tuple[int, ...], width: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    trunk = "image_encoder.trunk"
    yield f"{trunk}.pos_embed", (1, width, 7, 7)
    yield f"{trunk}.pos_embed_window", (1, width, 8, 8)
    yield from _conv(f"{trunk}.patch_embed.proj", width, 3, 7, 7)
    before, index = width, 0
    for stage, n_blocks in enumerate(stages):
        after = width * 2**stage
        for _ in range(n_blocks):
            block = f"{trunk}.blocks.{index}"
            yield from _norm(f"{block}.norm1", before)
            yield from _linear(f"{block}.attn.qkv", 3 * after, before)
            yield from _linear(f"{block}.attn.proj", after, after)
            yield from _norm(f"{block}.norm2", after)
            yield from _mlp(f"{block}.mlp", after, 4 * after, after)
            if before != after:
                yield from _linear(f"{block}.proj", after, before)
            before, index = after, index + 1
    for level in range(4):
        yield from _conv(f"image_encoder.neck.convs.{level}.conv", 256, width * 2 ** (3 - level), 1, 1)


def _memory() -> Iterator[tuple[str, tuple[int, ...]]]:
    for i in range(4):
        layer = f"memory_attention.layers.{i}"
        yield from _attention(f"{layer}.self_attn", 256)
        yield from _attention(f"{layer}.cross_attn_image", 256, 64)
        yield from _linear(f"{layer}.linear1", 2048, 256)
        yield from _linear(f"{layer}.linear2", 256, 2048)
        for norm in (1, 2, 3):
            yield from _norm(f"{layer}.norm{norm}", 256)
    yield from _norm("memory_attention.norm", 256)
    downsampler = "memory_encoder.mask_downsampler.encoder"
    for i, (before, after) in enumerate(((1, 4), (4, 16), (16, 64), (64, 256))):
        yield from _conv(f"{downsampler}.{3 * i}", after, before, 3, 3)
        yield from _norm(f"{downsampler}.{3 * i + 1}", after)
    yield from _conv(f"{downsampler}.12", 256, 256, 1, 1)
    yield from _conv("memory_encoder.pix_feat_proj", 256, 256, 1, 1)
    for i in range(2):
        layer = f"memory_encoder.fuser.layers.{i}"
        yield f"{layer}.gamma", (256,)
        yield from _conv(f"{layer}.dwconv", 256, 1, 7, 7)
        yield from _norm(f"{layer}.norm", 256)
        yield from _linear(f"{layer}.pwconv1", 1024, 256)
        yield from _linear(f"{layer}.pwconv2", 256, 1024)
    yield from _conv("memory_encoder.out_proj", 64, 256, 1, 1)


def _heads() -> Iterator[tuple[str, tuple[int, ...]]]:
    prompts = "sam_prompt_encoder"
    yield f"{prompts}.pe_layer.positional_encoding_gaussian_matrix", (2, 128)
    for i in range(4):
        yield f"{prompts}.point_embeddings.{i}.weight", (1, 256)
    yield f"{prompts}.not_a_point_embed.weight", (1, 256)
    yield f"{prompts}.no_mask_embed.weight", (1, 256)
    yield from _conv(f"{prompts}.mask_downscaling.0", 4, 1, 2, 2)
    yield from _norm(f"{prompts}.mask_downscaling.1", 4)
    yield from _conv(f"{prompts}.mask_downscaling.3", 16, 4, 2, 2)
    yield from _norm(f"{prompts}.mask_downscaling.4", 16)
    yield from _conv(f"{prompts}.mask_downscaling.6", 256, 16, 1, 1)
    decoder = "sam_mask_decoder"
    for i in range(2):
        layer = f"{decoder}.transformer.layers.{i}"
        yield from _attention(f"{layer}.self_attn", 256)
        yield from _attention(f"{layer}.cross_attn_token_to_image", 128)
        yield from _attention(f"{layer}.cross_attn_image_to_token", 128)
        yield from _mlp(f"{layer}.mlp", 256, 2048, 256)
        for norm in (1, 2, 3, 4):
            yield from _norm(f"{layer}.norm{norm}", 256)
    yield from _attention(f"{decoder}.transformer.final_attn_token_to_image", 128)
    yield from _norm(f"{decoder}.transformer.norm_final_attn", 256)
    yield f"{decoder}.iou_token.weight", (1, 256)
    yield f"{decoder}.mask_tokens.weight", (4, 256)
    yield f"{decoder}.obj_score_token.weight", (1, 256)
    yield f"{decoder}.output_upscaling.0.weight", (256, 64, 2, 2)
    yield f"{decoder}.output_upscaling.0.bias", (64,)
    yield from _norm(f"{decoder}.output_upscaling.1", 64)
    yield f"{decoder}.output_upscaling.3.weight", (64, 32, 2, 2)
    yield f"{decoder}.output_upscaling.3.bias", (32,)
    yield from _conv(f"{decoder}.conv_s0", 32, 256, 1, 1)
    yield from _conv(f"{decoder}.conv_s1", 64, 256, 1, 1)
    for i in range(4):
        yield from _mlp(f"{decoder}.output_hypernetworks_mlps.{i}", 256, 256, 256, 32)
    yield from _mlp(f"{decoder}.iou_prediction_head", 256, 256, 256, 4)
    yield from _mlp(f"{decoder}.pred_obj_score_head", 256, 256, 256, 1)


def meta_shapes(stages: tuple[int, ...] = (1, 2, 7, 2), width: int = 96) -> dict[str, tuple[int, ...]]:
    """Names and shapes of every tensor in Meta's sam2.1_hiera_tiny.pt, hence in MedSAM2's files."""
    own = {
        "maskmem_tpos_enc": (7, 1, 1, 64),
        "no_mem_embed": (1, 1, 256),
        "no_mem_pos_enc": (1, 1, 256),
        "no_obj_ptr": (1, 256),
        "no_obj_embed_spatial": (1, 64),
        "mask_downsample.weight": (1, 1, 4, 4),
        "mask_downsample.bias": (1,),
    }
    rest = (
        *_image_encoder(stages, width),
        *_memory(),
        *_heads(),
        *_mlp("obj_ptr_proj", 256, 256, 256, 256),
        *_linear("obj_ptr_tpos_proj", 64, 256),
    )
    return own | dict(rest)
