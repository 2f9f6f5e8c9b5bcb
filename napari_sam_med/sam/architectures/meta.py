"""SAM over Meta's own modules and weights, with our own forward of the mask decoder.

Meta's forward drops the decoder's output tokens and repeats the whole image for each prompt. This one returns
the tokens (the organ classifier needs them) and computes what depends on the image alone once for all
prompts. For one prompt in fp32 every operation is Meta's, in Meta's order, so results are equal bit for bit.

Kirillov et al., Segment Anything, 2023, https://arxiv.org/abs/2304.02643
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import nn

from napari_sam_med.sam.architectures.base import ClickDecoder, DecodedMasks, PromptBatch
from napari_sam_med.sam.native_imports import import_segment_anything

__all__ = [
    "PreparedFeatures",
    "SamFeatures",
    "SamNetwork",
    "build_mask_decoder",
    "build_prompt_encoder",
    "build_sam_decoder",
    "build_sam_vit",
]

EMBEDDING_CHANNELS = 256
PATCH_SIZE = 16
# width, depth, heads, blocks with global attention
_VIT_SIZES: dict[str, tuple[int, int, int, tuple[int, ...]]] = {
    "vit_b": (768, 12, 12, (2, 5, 8, 11)),
    "vit_l": (1024, 24, 16, (5, 11, 17, 23)),
    "vit_h": (1280, 32, 16, (7, 15, 23, 31)),
}


class SamFeatures(NamedTuple):
    """What SAM's image encoder makes of an image: ``image`` (B, 256, 64, 64)."""

    image: torch.Tensor


class PreparedFeatures(NamedTuple):
    """Features of one image with the decoder's share in them that no prompt changes, unless it is a mask.

    Attributes
    ----------
    image : tensor (1, 256, h, w)
        The features themselves.
    keys, key_pe : tensor (1, h * w, 256)
        With what stands for no mask prompt, and the positional encoding; laid out token by token.
    k, v, q : tensor (1, heads, h * w, C / heads)
        The image's side of both attentions between image and tokens in the first layer.
    weights : tuple
        Of which weights, in which state.
    """

    image: torch.Tensor
    keys: torch.Tensor
    key_pe: torch.Tensor
    k: torch.Tensor
    v: torch.Tensor
    q: torch.Tensor
    weights: tuple[tuple[int, int], ...]


class SamNetwork(nn.Module):
    """An image encoder with Meta's prompt encoder and mask decoder; the keys of its state dict are Meta's.

    Parameters
    ----------
    image_encoder : nn.Module
        Maps (B, 3, S, S) to (B, 256, S/16, S/16).
    prompt_encoder, mask_decoder : nn.Module
        `segment_anything.modeling.PromptEncoder` and `MaskDecoder`.
    """

    prompts_at_once = 4  # on two cores 16 take 1.6 times as long each
    image_pe: torch.Tensor
    parts: Mapping[str, str] = MappingProxyType(
        {name: f"{name}." for name in ("image_encoder", "prompt_encoder", "mask_decoder")}
    )

    def __init__(self, image_encoder: nn.Module, prompt_encoder: Any, mask_decoder: Any) -> None:
        super().__init__()
        self.image_encoder = image_encoder
        self.prompt_encoder = prompt_encoder
        self.mask_decoder = mask_decoder
        self.input_size = int(prompt_encoder.input_image_size[0])
        self.mask_input_size = int(prompt_encoder.mask_input_size[0])
        self.register_buffer("image_pe", self._image_pe(), persistent=False)
        refresh: Any = self.register_load_state_dict_post_hook  # torch leaves it untyped
        refresh(lambda network, _: network._refresh_image_pe())

    def encode(self, squares: torch.Tensor) -> SamFeatures:
        """Features of normalised squares (B, 3, S, S)."""
        return SamFeatures(self.image_encoder(squares))

    def prepare(self, features: SamFeatures) -> PreparedFeatures:
        """Features of one image (B = 1) that prompts are answered from in three quarters of the time."""
        _, no_mask = self.prompt_encoder(points=None, boxes=None, masks=None)
        keys, key_pe = (x.flatten(2).permute(0, 2, 1) for x in (features.image + no_mask, self.image_pe))
        first: Any = self.mask_decoder.transformer.layers[0]
        to_image, from_image = first.cross_attn_token_to_image, first.cross_attn_image_to_token
        keys_with_pe = keys + key_pe
        return PreparedFeatures(
            features.image,
            keys.contiguous(),
            key_pe.contiguous(),
            in_heads(to_image, to_image.k_proj(keys_with_pe)),
            in_heads(to_image, to_image.v_proj(keys)),
            in_heads(from_image, from_image.q_proj(keys_with_pe)),
            self._preparing_weights(),
        )

    def is_current(self, prepared: PreparedFeatures) -> bool:
        """Whether the weights are still those that `prepared` was made with."""
        return prepared.weights == self._preparing_weights()

    def _preparing_weights(self) -> tuple[tuple[int, int], ...]:
        first: Any = self.mask_decoder.transformer.layers[0]
        to_image, from_image = first.cross_attn_token_to_image, first.cross_attn_image_to_token
        modules = (self.prompt_encoder.no_mask_embed, to_image.k_proj, to_image.v_proj, from_image.q_proj)
        return tuple((id(weight), weight._version) for part in modules for weight in part.parameters())

    def decode(
        self, features: SamFeatures | PreparedFeatures, prompts: PromptBatch, multimask: bool
    ) -> DecodedMasks:
        """Masks of P prompts on one image (`features` with B = 1); C is 3 when `multimask`, else 1."""
        three, single = self.decode_both(features, prompts)
        return three if multimask else single

    def decode_both(
        self, features: SamFeatures | PreparedFeatures, prompts: PromptBatch
    ) -> tuple[DecodedMasks, DecodedMasks]:
        """The three masks and the single one of P prompts: the decoder makes all four in one pass."""
        decoder = self.mask_decoder
        if isinstance(features, PreparedFeatures) and prompts.mask_inputs is None:
            tokens = self.tokens_of(self.embed_prompts(prompts)[0])
            tokens_out, image_out = two_way_prepared(decoder.transformer, features, tokens)
        else:
            image, tokens = self._decoder_input(features, prompts)
            tokens_out, image_out = _two_way(decoder.transformer, image, self.image_pe, tokens)

        n_masks = int(decoder.num_mask_tokens)
        iou_token, mask_tokens = tokens_out[:, 0, :], tokens_out[:, 1 : 1 + n_masks, :]
        height, width = features.image.shape[-2:]
        image_out = image_out.transpose(1, 2).view(len(tokens), -1, height, width)
        upscaled = decoder.output_upscaling(image_out)
        weights = self.mask_weights(mask_tokens)
        with no_autocast(upscaled):
            logits = weights.float() @ upscaled.flatten(2).float()
        logits = logits.unflatten(2, upscaled.shape[-2:])
        iou_predictions = decoder.iou_prediction_head(iou_token).float()

        pairs = torch.cat((iou_token[:, None].expand_as(mask_tokens), mask_tokens), dim=-1).float()
        three, single = (
            DecodedMasks(logits[:, wanted], iou_predictions[:, wanted], pairs[:, wanted])
            for wanted in (slice(1, None), slice(0, 1))
        )
        return three, single

    def click_decoder(self, features: SamFeatures) -> ClickDecoder:
        """A decoder of many lone clicks on one image (`features` with B = 1); for inference only."""
        from napari_sam_med.sam.architectures.meta_clicks import SamClickDecoder

        return SamClickDecoder(self, features)

    def decode_class_token(
        self, features: SamFeatures, prompts: PromptBatch, class_token: torch.Tensor, transformer: nn.Module
    ) -> torch.Tensor:
        """What becomes (P, 256) of a token (1, 256) of a class head, put beside the IoU and mask tokens.

        Parameters
        ----------
        features, prompts
            As in `decode`.
        class_token : tensor (1, 256)
        transformer : nn.Module
            A `TwoWayTransformer` in place of the mask decoder's own, which stays as it is.
        """
        image, tokens = self._decoder_input(features, prompts, class_token)
        tokens_out, _ = _two_way(transformer, image, self.image_pe, tokens)
        return tokens_out[:, 1 + int(self.mask_decoder.num_mask_tokens)]

    def mask_weights(self, mask_tokens: torch.Tensor) -> torch.Tensor:
        """Weights (P, 4, 32) that make each mask out of the enlarged image, from tokens (P, 4, 256)."""
        mlps = self.mask_decoder.output_hypernetworks_mlps
        return torch.stack([mlps[i](mask_tokens[:, i, :]) for i in range(mask_tokens.shape[1])], dim=1)

    def _decoder_input(
        self, features: SamFeatures | PreparedFeatures, prompts: PromptBatch, *extra_tokens: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Image (1 or P, 256, h, w) and tokens (P, N, 256): IoU, masks, extra ones, prompts."""
        sparse, dense = self.embed_prompts(prompts)
        if prompts.mask_inputs is None:  # the image side is the same for all prompts: keep it (1, C, h, w)
            dense = dense[:1]
        image = features.image.to(dense.dtype) + dense
        return image, self.tokens_of(sparse, *extra_tokens)

    def tokens_of(self, sparse: torch.Tensor, *extra_tokens: torch.Tensor) -> torch.Tensor:
        """Tokens (P, N, 256): IoU, masks, extra ones, and the embedded prompts (P, n, 256)."""
        decoder = self.mask_decoder
        own_tokens = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight, *extra_tokens], dim=0)
        return torch.cat((own_tokens.unsqueeze(0).expand(sparse.size(0), -1, -1), sparse), dim=1)

    def embed_prompts(self, prompts: PromptBatch) -> tuple[torch.Tensor, torch.Tensor]:
        """Points and boxes (P, n, 256), and masks (P, 256, h, w), as the decoder takes them."""
        points = None
        if prompts.points_xy is not None:
            points = (prompts.points_xy, prompts.point_labels)
        # random Fourier features of coordinates in bf16 would be off by pixels
        with no_autocast(self.image_pe):
            sparse, dense = self.prompt_encoder(
                points=points, boxes=prompts.boxes_xyxy, masks=prompts.mask_inputs
            )
        return sparse, dense

    def _image_pe(self) -> torch.Tensor:
        with torch.no_grad():
            pe: torch.Tensor = self.prompt_encoder.get_dense_pe()
        return pe

    def _refresh_image_pe(self) -> None:
        self.image_pe = self._image_pe().to(self.image_pe.device)


def no_autocast(tensor: torch.Tensor) -> torch.autocast:
    return torch.autocast(tensor.device.type, enabled=False)


def _two_way(
    transformer: Any, image: torch.Tensor, image_pe: torch.Tensor, tokens: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Meta's TwoWayTransformer over its own modules; `image` may have B = 1 for all P prompts of `tokens`."""
    keys = image.flatten(2).permute(0, 2, 1)
    key_pe = image_pe.flatten(2).permute(0, 2, 1)
    queries = tokens
    for layer in transformer.layers:
        queries, keys = two_way_block(layer, queries, keys, tokens, key_pe)
    attended = attend(transformer.final_attn_token_to_image, queries + tokens, keys + key_pe, keys)
    return transformer.norm_final_attn(queries + attended), keys


def two_way_prepared(
    transformer: Any, image: PreparedFeatures, tokens: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """The same of tokens (P, N, 256) and what was prepared of one image: tokens, and the image (P, h * w,
    256).
    """
    first, *others = transformer.layers
    to_image, from_image = first.cross_attn_token_to_image, first.cross_attn_image_to_token
    queries = first.norm1(attend(first.self_attn, tokens, tokens, tokens))
    q = in_heads(to_image, to_image.q_proj(queries + tokens))
    queries = first.norm2(queries + attend_in_heads(to_image, q, image.k, image.v))
    queries = first.norm3(queries + first.mlp(queries))
    k = in_heads(from_image, from_image.k_proj(queries + tokens))
    v = in_heads(from_image, from_image.v_proj(queries))
    keys = first.norm4(image.keys + attend_in_heads(from_image, image.q, k, v))
    for layer in others:
        queries, keys = two_way_block(layer, queries, keys, tokens, image.key_pe)
    last = transformer.final_attn_token_to_image
    attended = attend(last, queries + tokens, keys + image.key_pe, keys)
    return transformer.norm_final_attn(queries + attended), keys


def two_way_block(
    layer: Any, queries: torch.Tensor, keys: torch.Tensor, query_pe: torch.Tensor, key_pe: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    if layer.skip_first_layer_pe:
        queries = attend(layer.self_attn, queries, queries, queries)
    else:
        q = queries + query_pe
        queries = queries + attend(layer.self_attn, q, q, queries)
    queries = layer.norm1(queries)
    keys_with_pe = keys + key_pe
    queries = queries + attend(layer.cross_attn_token_to_image, queries + query_pe, keys_with_pe, keys)
    queries = layer.norm2(queries)
    queries = layer.norm3(queries + layer.mlp(queries))
    keys = keys + attend(layer.cross_attn_image_to_token, keys_with_pe, queries + query_pe, queries)
    return queries, layer.norm4(keys)


def attend(attention: Any, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Meta's decoder attention; a batch of 1 on either side is broadcast after its projection."""
    q, k, v = (
        in_heads(attention, x) for x in (attention.q_proj(q), attention.k_proj(k), attention.v_proj(v))
    )
    return attend_in_heads(attention, q, k, v)


def in_heads(attention: Any, projected: torch.Tensor) -> torch.Tensor:
    """Projected (P, N, C) as (P, heads, N, C / heads)."""
    prompts, tokens, _ = projected.shape
    return projected.reshape(prompts, tokens, attention.num_heads, -1).transpose(1, 2)


def attend_in_heads(attention: Any, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """What is left of the attention once all three are projected."""
    weights = torch.softmax(q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1]), dim=-1)
    out: torch.Tensor = attention.out_proj((weights @ v).transpose(1, 2).flatten(2))
    return out


def build_prompt_encoder(input_size: int = 1024) -> Any:
    """Meta's prompt encoder as SAM has it, for squares of `input_size` pixels."""
    import_segment_anything()
    from segment_anything.modeling import PromptEncoder

    grid = input_size // PATCH_SIZE
    return PromptEncoder(
        embed_dim=EMBEDDING_CHANNELS,
        image_embedding_size=(grid, grid),
        input_image_size=(input_size, input_size),
        mask_in_chans=16,
    )


def build_mask_decoder() -> Any:
    """Meta's mask decoder as SAM has it."""
    import_segment_anything()
    from segment_anything.modeling import MaskDecoder, TwoWayTransformer

    transformer = TwoWayTransformer(depth=2, embedding_dim=EMBEDDING_CHANNELS, mlp_dim=2048, num_heads=8)
    return MaskDecoder(
        num_multimask_outputs=3,
        transformer=transformer,
        transformer_dim=EMBEDDING_CHANNELS,
        iou_head_depth=3,
        iou_head_hidden_dim=256,
    )


def build_sam_decoder() -> SamNetwork:
    """SAM without an image encoder, weights not yet loaded, in eval mode."""
    return SamNetwork(nn.Identity(), build_prompt_encoder(), build_mask_decoder()).eval()


def build_sam_vit(architecture: str) -> SamNetwork:
    """SAM with a ViT encoder (``vit_b``, ``vit_l``, ``vit_h``), weights not yet loaded, in eval mode."""
    import_segment_anything()
    from segment_anything.modeling import ImageEncoderViT

    width, depth, heads, global_blocks = _VIT_SIZES[architecture]
    encoder = ImageEncoderViT(
        depth=depth,
        embed_dim=width,
        img_size=1024,
        mlp_ratio=4,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
        num_heads=heads,
        patch_size=PATCH_SIZE,
        qkv_bias=True,
        use_rel_pos=True,
        global_attn_indexes=global_blocks,
        window_size=14,
        out_chans=EMBEDDING_CHANNELS,
    )
    return SamNetwork(encoder, build_prompt_encoder(), build_mask_decoder()).eval()
