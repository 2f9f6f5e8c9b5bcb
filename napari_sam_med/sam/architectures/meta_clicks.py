"""SAM's decoder for many lone clicks on one image: the same operations, fewer of them.

What depends on the image alone is computed once; masks are made only for clicks whose predicted IoU is high
enough, since it is known before them; and one click's mask is made after the other, so that it stays in the
cache. Each number still comes from Meta's operations in Meta's order, so rounding is Meta's as well.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from napari_sam_med.sam.architectures.base import BelievedMasks, PromptBatch
from napari_sam_med.sam.architectures.meta import no_autocast, two_way_prepared

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
        self._image = network.prepare(features)

    def decode(self, clicks: PromptBatch, iou_above: float) -> BelievedMasks:
        """See `ClickDecoder`."""
        network = self._network
        sparse, _ = network.embed_prompts(clicks)
        decoder = network.mask_decoder
        tokens, keys = two_way_prepared(decoder.transformer, self._image, network.tokens_of(sparse))
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
        upscaled: torch.Tensor = first(
            keys.transpose(1, 2).view(len(keys), -1, *self._image.image.shape[-2:])
        )
        # of a lone image torch turns the layout round here, and sums over channels are rounded otherwise then
        upscaled = upscaled.contiguous(memory_format=torch.channels_last)
        for layer in others:
            upscaled = layer(upscaled)
        with no_autocast(upscaled):
            logits = weights @ upscaled.flatten(2).float()
        return logits.view(*logits.shape[:2], *upscaled.shape[-2:])
