"""SAM's decoder for many lone clicks on one image: the same operations, fewer of them.

What depends on the image alone is computed once; masks are made only for clicks whose predicted IoU is high
enough, since it is known before them; and one click's mask is made after the other, so that it stays in the
cache. Each number still comes from Meta's operations in Meta's order, so rounding is Meta's as well.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from napari_sam_med.sam.architectures.base import BelievedMasks, PromptBatch
from napari_sam_med.sam.architectures.meta import (
    attend,
    attend_in_heads,
    in_heads,
    no_autocast,
    two_way_block,
)

if TYPE_CHECKING:
    from napari_sam_med.sam.architectures.meta import SamFeatures, SamNetwork

__all__ = ["SamClickDecoder"]


class SamClickDecoder:
    """A `ClickDecoder` over the modules of a `SamNetwork`; it keeps the image's share of the first layer.

    Parameters
    ----------
    network : SamNetwork
    features : SamFeatures
        Of one image.
    """

    def __init__(self, network: SamNetwork, features: SamFeatures) -> None:
        self._network = network
        _, no_mask = network.prompt_encoder(points=None, boxes=None, masks=None)
        image = features.image + no_mask
        self._size = image.shape[-2:]
        keys, key_pe = (x.flatten(2).permute(0, 2, 1) for x in (image, network.image_pe))
        first: Any = network.mask_decoder.transformer.layers[0]
        to_image, from_image = first.cross_attn_token_to_image, first.cross_attn_image_to_token
        keys_with_pe = keys + key_pe
        self._k = in_heads(to_image, to_image.k_proj(keys_with_pe))
        self._v = in_heads(to_image, to_image.v_proj(keys))
        self._q = in_heads(from_image, from_image.q_proj(keys_with_pe))
        # laid out token by token, as what is added to them is
        self._keys, self._key_pe = keys.contiguous(), key_pe.contiguous()

    def decode(self, clicks: PromptBatch, iou_above: float) -> BelievedMasks:
        """See `ClickDecoder`."""
        network = self._network
        sparse, _ = network.embed_prompts(clicks)
        tokens, keys = self._transform(network.tokens_of(sparse))
        decoder = network.mask_decoder
        iou_predictions = decoder.iou_prediction_head(tokens[:, 0, :]).float()[:, 1:]
        weights = network.mask_weights(tokens[:, 1 : 1 + int(decoder.num_mask_tokens), :]).float()
        believed = iou_predictions > iou_above
        prompts, masks = believed.nonzero(as_tuple=True)
        side = network.mask_input_size
        logits = [keys.new_empty((0, side, side), dtype=torch.float32)]
        if keys.device.type == "cpu":
            for i in believed.any(1).nonzero()[:, 0].tolist():
                one = slice(i, i + 1)
                logits.append(self._masks(keys[one], weights[one])[:, 1:][believed[one]])
        elif len(prompts):
            some = believed.any(1)
            logits.append(self._masks(keys[some], weights[some])[:, 1:][believed[some]])
        return BelievedMasks(prompts, iou_predictions[prompts, masks], torch.cat(logits))

    def _masks(self, keys: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        """All four masks (P, 4, 4 h, 4 w) from the image after the transformer and the masks' weights."""
        first, *others = self._network.mask_decoder.output_upscaling
        upscaled: torch.Tensor = first(keys.transpose(1, 2).view(len(keys), -1, *self._size))
        # of a lone image torch turns the layout round here, and sums over channels are rounded otherwise then
        upscaled = upscaled.contiguous(memory_format=torch.channels_last)
        for layer in others:
            upscaled = layer(upscaled)
        with no_autocast(upscaled):
            logits = weights @ upscaled.flatten(2).float()
        return logits.view(*logits.shape[:2], *upscaled.shape[-2:])

    def _transform(self, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Meta's TwoWayTransformer: tokens (P, N, 256) and the image (P, h * w, 256) after it."""
        transformer: Any = self._network.mask_decoder.transformer
        first, *others = transformer.layers
        to_image, from_image = first.cross_attn_token_to_image, first.cross_attn_image_to_token
        queries = first.norm1(attend(first.self_attn, tokens, tokens, tokens))
        q = in_heads(to_image, to_image.q_proj(queries + tokens))
        queries = first.norm2(queries + attend_in_heads(to_image, q, self._k, self._v))
        queries = first.norm3(queries + first.mlp(queries))
        k = in_heads(from_image, from_image.k_proj(queries + tokens))
        v = in_heads(from_image, from_image.v_proj(queries))
        keys = first.norm4(self._keys + attend_in_heads(from_image, self._q, k, v))
        for layer in others:
            queries, keys = two_way_block(layer, queries, keys, tokens, self._key_pe)
        last = transformer.final_attn_token_to_image
        attended = attend(last, queries + tokens, keys + self._key_pe, keys)
        return transformer.norm_final_attn(queries + attended), keys
