"""What a fine-tuning minimises: weighted terms of predicted masks and predicted IoU."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch

from napari_sam_med.training.recipes import LossTerm

__all__ = ["MaskLoss", "mask_loss"]

_REST_SHARE = 0.1
"""Weight of the two worse masks of three: enough that they follow, too little to blur the best one."""
_SURROUNDINGS = 2.25
"""Area that the cross-entropy of an object is divided by, in areas of its box."""


class MaskLoss(NamedTuple):
    """Loss to be minimised, and the Dice (P,) of each prompt's best mask at logit 0."""

    loss: torch.Tensor
    dice: torch.Tensor


def mask_loss(
    logits: torch.Tensor,
    iou_predictions: torch.Tensor,
    targets: torch.Tensor,
    terms: Sequence[tuple[LossTerm, float]],
) -> MaskLoss:
    """Mean over prompts of the weighted sum of terms.

    Of several masks the best one counts, as a click may mean any of them (Kirillov et al., Segment Anything,
    ICCV 2023, section 3), and the others a little.

    Parameters
    ----------
    logits : tensor (P, C, H, W)
        In pixels of the image.
    iou_predictions : tensor (P, C)
    targets : tensor (P, H, W)
        0 or 1; not empty.
    terms : sequence of (name, weight)
        ``dice``, ``focal`` (gamma 2, alpha 0.25) and ``mse`` of the sigmoid, ``cross_entropy`` (over all
        pixels, per area of 2.25 boxes), ``iou`` (squared error of the predicted IoU).
    """
    expanded = targets[:, None].expand_as(logits)
    areas = _box_areas(targets)
    per_mask = torch.zeros(logits.shape[:2], device=logits.device)
    with torch.no_grad():
        iou, dice = _overlaps(logits > 0, expanded > 0.5)
    for name, weight in terms:
        if name != "iou":
            per_mask = per_mask + weight * _TERMS[name](logits, expanded, areas)
    best = per_mask.detach().argmin(1, keepdim=True)
    loss = per_mask.gather(1, best)[:, 0]
    if logits.shape[1] > 1:
        loss = (1 - _REST_SHARE) * loss + _REST_SHARE * per_mask.mean(1)
    # of every mask: the predicted IoU has to tell the good one from the others
    loss = loss + dict(terms).get("iou", 0.0) * ((iou_predictions - iou) ** 2).mean(1)
    return MaskLoss(loss.mean(), dice.amax(1))


def _dice(logits: torch.Tensor, targets: torch.Tensor, areas: torch.Tensor) -> torch.Tensor:
    from monai.losses import DiceLoss

    del areas
    loss: Any = DiceLoss(sigmoid=True, reduction="none", smooth_nr=1.0, smooth_dr=1.0)
    return _flat(loss, logits, targets)


def _focal(logits: torch.Tensor, targets: torch.Tensor, areas: torch.Tensor) -> torch.Tensor:
    from monai.losses import FocalLoss

    del areas
    loss: Any = FocalLoss(gamma=2.0, alpha=0.25, reduction="none")
    return _flat(loss, logits, targets)


def _flat(loss: Any, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """A MONAI loss (N, 1, H, W), or of one value each, as its mean (P, C) over pixels."""
    values: torch.Tensor = loss(logits.flatten(0, 1)[:, None], targets.flatten(0, 1)[:, None])
    return values.flatten(1).mean(1).view(logits.shape[:2])


def _cross_entropy(logits: torch.Tensor, targets: torch.Tensor, areas: torch.Tensor) -> torch.Tensor:
    values = torch.nn.functional.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    return values.sum((2, 3)) / (_SURROUNDINGS * areas[:, None])


def _mse(logits: torch.Tensor, targets: torch.Tensor, areas: torch.Tensor) -> torch.Tensor:
    del areas
    return ((torch.sigmoid(logits) - targets) ** 2).mean((2, 3))


_TERMS: dict[str, Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "dice": _dice,
    "focal": _focal,
    "cross_entropy": _cross_entropy,
    "mse": _mse,
}


def _box_areas(targets: torch.Tensor) -> torch.Tensor:
    """Area (P,) of each target's bounding box, pixels."""
    rows, columns = (targets > 0.5).any(2), (targets > 0.5).any(1)
    return _extent(rows) * _extent(columns)


def _extent(line: torch.Tensor) -> torch.Tensor:
    position = torch.arange(line.shape[1], device=line.device, dtype=torch.float32)
    last = torch.where(line, position, -torch.inf).amax(1)
    first = torch.where(line, position, torch.inf).amin(1)
    return (last - first + 1).clamp(min=1)


def _overlaps(masks: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """IoU and Dice (P, C)."""
    shared = (masks & targets).sum((2, 3)).float()
    both = masks.sum((2, 3)).float() + targets.sum((2, 3)).float()
    return shared / (both - shared).clamp(min=1), 2 * shared / both.clamp(min=1)
