"""Loss of `nano` on the regions' grids: cross-entropy, soft Dice, and the error of the predicted IoU."""

from __future__ import annotations

from typing import NamedTuple

import torch

from napari_sam_med.sam.architectures.nano import Nano, NanoFeatures, RegionMasks
from napari_sam_med.sam.architectures.nano_region import CELLS, Region, RegionPrompts, paste, resample
from napari_sam_med.training.prompt_sampling import SampledPrompts, correction_clicks

__all__ = ["LossTerms", "corrected_prompts", "nano_loss", "region_targets"]


class LossTerms(NamedTuple):
    """Mean loss to be minimised, and per prompt (P,) the true and the predicted IoU."""

    loss: torch.Tensor
    iou: torch.Tensor
    iou_prediction: torch.Tensor


def region_targets(targets: torch.Tensor, region: Region) -> torch.Tensor:
    """Share (P, G, G) of each cell that the targets (P, S, S) cover."""
    return resample(targets[:, None], region, CELLS)[:, 0].clamp(0, 1)


def nano_loss(masks: RegionMasks, sampled: SampledPrompts, region: Region) -> LossTerms:
    """Loss of the masks for these prompts.

    The IoU counts what of the target lies outside the region as missed, so the predicted IoU learns to rank
    the regions tried for a click.
    """
    cover = region_targets(sampled.targets, region)
    logits = masks.logits
    cross_entropy = torch.nn.functional.binary_cross_entropy_with_logits(logits, cover, reduction="none")
    probability = torch.sigmoid(logits)
    overlap = (probability * cover).sum((1, 2))
    dice = 1 - (2 * overlap + 1) / (probability.sum((1, 2)) + cover.sum((1, 2)) + 1)
    with torch.no_grad():
        predicted = (logits > 0).float()
        area = sampled.targets.sum((1, 2)) / (region.sides / CELLS) ** 2
        shared = (predicted * cover).sum((1, 2))
        iou = shared / (predicted.sum((1, 2)) + area - shared).clamp(min=1e-3)
    iou_prediction = torch.sigmoid(masks.iou_logits)
    # clicks say little about what is meant: they shall not outweigh the boxes
    known = sampled.prompts.has_box | sampled.prompts.has_mask
    weight = torch.where(known, 1.0, 0.5)
    terms = 2 * cross_entropy.mean((1, 2)) + dice + (iou_prediction - iou) ** 2
    return LossTerms((weight * terms).sum() / weight.sum(), iou, iou_prediction.detach())


def corrected_prompts(sampled: SampledPrompts, masks: RegionMasks, region: Region) -> SampledPrompts:
    """The next round of a dialogue: one more click where the answer is wrong, and that answer as mask
    prompt.
    """
    cover = region_targets(sampled.targets, region)
    logits = masks.logits.detach()
    unit = (torch.arange(CELLS) + 0.5) / CELLS - 0.5
    cells_to_xy = region.centres[:, :, None] + region.sides[:, None, None] * unit
    point, label = correction_clicks(logits, cover, cells_to_xy)
    old = sampled.prompts
    prompts = RegionPrompts(
        boxes=old.boxes,
        has_box=old.has_box,
        points=torch.cat([old.points, point[:, None]], 1),
        labels=torch.cat([old.labels, label[:, None]], 1),
        masks=paste(logits, region),
        has_mask=torch.ones_like(old.has_mask),
    )
    return sampled._replace(prompts=prompts)


def forward(network: Nano, features: NanoFeatures, sampled: SampledPrompts) -> tuple[RegionMasks, Region]:
    """Masks of the sampled prompts and the regions they were sought in."""
    region = sampled.prompts.region(sampled.point_sides)
    return network.decode_regions(features, sampled.prompts, region), region
