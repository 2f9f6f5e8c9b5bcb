"""What torch answers to the prompts that an ONNX file is checked with: by the way that predictions take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from napari_sam_med.sam.architectures.base import Architecture, PromptBatch
from napari_sam_med.sam.architectures.meta import EMBEDDING_CHANNELS, PATCH_SIZE, SamFeatures
from napari_sam_med.sam.architectures.nano import Nano, NanoFeatures
from napari_sam_med.sam.model_registry import ModelRecord
from napari_sam_med.sam.onnx_decoders import OnnxPrompts
from napari_sam_med.sam.square import SquareFit, upsample_logits

__all__ = ["Case", "answers_of_torch", "cases", "example_features"]

_SEED = 0


@dataclass(frozen=True, eq=False)
class Case:
    """Prompts of one object: ``points`` and ``labels``, a ``box`` and a ``mask`` or None, in pixels of the
    square, and the size of the ``image``.
    """

    name: str
    points: tuple[tuple[float, float], ...]
    labels: tuple[int, ...]
    box: tuple[float, float, float, float] | None
    mask: torch.Tensor
    has_mask: bool
    image: tuple[int, int]

    def prompts(self) -> OnnxPrompts:
        """As the file takes them: without a box SAM is given a point that is none."""
        points, labels = list(self.points), [float(label) for label in self.labels]
        if self.box is not None:
            points += [self.box[:2], self.box[2:]]
            labels += [2.0, 3.0]
        else:
            points, labels = [*points, (0.0, 0.0)], [*labels, -1.0]
        return OnnxPrompts(
            torch.tensor([points], dtype=torch.float32),
            torch.tensor([labels], dtype=torch.float32),
            self.mask,
            torch.tensor([float(self.has_mask)]),
            torch.tensor(self.image, dtype=torch.float32),
        )

    def batch(self, scale_xy: tuple[float, float]) -> PromptBatch:
        """As the network takes them."""
        has_points = bool(self.points)
        return PromptBatch(
            torch.tensor([self.points], dtype=torch.float32) if has_points else None,
            torch.tensor([self.labels]) if has_points else None,
            None if self.box is None else torch.tensor([self.box], dtype=torch.float32),
            self.mask if self.has_mask else None,
            scale_xy,
        )


def cases(side: int, mask_side: int) -> list[Case]:
    """Prompts of each structure, on images of different shapes."""
    y, x = torch.meshgrid(torch.arange(mask_side), torch.arange(mask_side), indexing="ij")
    from_middle = ((x / mask_side - 0.45) ** 2 + (y / mask_side - 0.4) ** 2).sqrt()
    disc = ((0.15 - from_middle) * 40).clamp(-8, 8)[None, None]
    none = torch.zeros_like(disc)
    click = (0.45 * side, 0.4 * side)
    others = ((0.3 * side, 0.3 * side), (0.6 * side, 0.2 * side))
    box = (0.3 * side, 0.25 * side, 0.6 * side, 0.55 * side)
    wide, high = (90, 120), (130, 70)
    return [
        Case("a point", (click,), (1,), None, none, False, wide),
        Case("three points", (click, *others), (1, 1, 0), None, none, False, high),
        Case("a box", (), (), box, none, False, wide),
        Case("a box and a point", (click,), (0,), box, none, False, high),
        Case("a mask and a point", (click,), (1,), None, disc, True, wide),
        Case("a mask and a box", (), (), box, disc, True, wide),
    ]


def example_features(network: nn.Module) -> tuple[torch.Tensor, ...]:
    """Features of a picture for nano, random ones of the right size for SAM."""
    generator = torch.Generator().manual_seed(_SEED)
    if isinstance(network, Nano):
        with torch.inference_mode():
            features = network.encode(_picture(network.input_size, generator))
        return tuple(tensor.clone() for tensor in features)
    side = int(cast("Any", network).input_size) // PATCH_SIZE
    return (torch.randn(1, EMBEDDING_CHANNELS, side, side, generator=generator) * 0.3,)


def _picture(side: int, generator: torch.Generator) -> torch.Tensor:
    """Discs on noise (1, 1, side, side), 0..1."""
    y, x = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    picture = 0.2 + 0.05 * torch.rand(side, side, generator=generator)
    for cx, cy, radius, value in ((0.45, 0.4, 0.15, 0.4), (0.7, 0.7, 0.1, 0.3), (0.47, 0.42, 0.05, 0.2)):
        picture += value * ((x / side - cx) ** 2 + (y / side - cy) ** 2 < radius**2)
    return picture[None, None].clamp(0, 1)


def answers_of_torch(
    network: nn.Module,
    record: ModelRecord,
    features: Sequence[torch.Tensor],
    case: Case,
    *,
    multimask: bool,
) -> list[npt.NDArray[np.float32]]:
    """Masks, predicted IoU and low-resolution masks, as the file is to give them."""
    decoder = cast("Architecture", network)
    fit = SquareFit.of(case.image, (1.0, 1.0), decoder.input_size, stretch=record.stretch)
    is_nano = isinstance(network, Nano)
    kind: Any = NanoFeatures if is_nano else SamFeatures
    with torch.inference_mode():
        three, single = decoder.decode_both(kind(*features), case.batch(fit.scale_xy))
        logits = torch.cat([single.low_res_logits, three.low_res_logits], 1)
        iou = torch.cat([single.iou_predictions, three.iou_predictions], 1)
        if not multimask:
            n_points = case.prompts().point_labels.shape[1]
            takes_best = not is_nano and record.multimask and n_points < 3  # as segment_anything's export
            place = 1 + int(iou[0, 1:].argmax()) if takes_best else 0
            logits, iou = logits[:, place : place + 1], iou[:, place : place + 1]
        masks = upsample_logits(logits, fit, direct=False)
    return [tensor.numpy() for tensor in (masks, iou, logits)]
