"""What every network offers to the predictor: encode once a slice, decode once a prompt."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch

__all__ = [
    "Architecture",
    "BelievedMasks",
    "ClickDecoder",
    "DecodedMasks",
    "PlainClickDecoder",
    "PromptBatch",
]


class DecodedMasks(NamedTuple):
    """Answer of a decoder for P prompts with C masks each.

    Attributes
    ----------
    low_res_logits : tensor (P, C, h, w)
        Mask logits over the padded input square.
    iou_predictions : tensor (P, C)
        The network's own estimate of each mask's IoU with the truth.
    tokens : tensor (P, C, D)
        One descriptor per mask (for SAM: IoU token and mask token, concatenated), for classifiers.
    """

    low_res_logits: torch.Tensor
    iou_predictions: torch.Tensor
    tokens: torch.Tensor

    def best(self) -> DecodedMasks:
        """Of each prompt the mask with the highest predicted IoU, so that C = 1."""
        if len(self.iou_predictions) == 1:  # a click: parts of what is there, without gathering
            index = int(self.iou_predictions.float().cpu().numpy().argmax())  # sooner than torch finds it
            return DecodedMasks(*(values[:, index : index + 1] for values in self))
        best = self.iou_predictions.argmax(1)
        rows = torch.arange(len(self.iou_predictions), device=self.iou_predictions.device)
        return DecodedMasks(*(values[rows, best][:, None] for values in self))


@dataclass(frozen=True)
class PromptBatch:
    """P prompts of one structure (same number of points; all or none with a box, with a mask).

    Attributes
    ----------
    points_xy : tensor (P, N, 2) or None
        In pixels of the padded input square (Meta's convention, the encoder adds the half pixel).
    point_labels : tensor (P, N) or None
        1 foreground, 0 background.
    boxes_xyxy : tensor (P, 4) or None
        In pixels of the padded input square.
    mask_inputs : tensor (P, 1, h, w) or None
        Logits on the grid of `Architecture.mask_input_size`.
    scale_xy : (float, float)
        Pixels of the square per pixel of the slice, for networks that place the edges of pixels exactly.
    """

    points_xy: torch.Tensor | None = None
    point_labels: torch.Tensor | None = None
    boxes_xyxy: torch.Tensor | None = None
    mask_inputs: torch.Tensor | None = None
    scale_xy: tuple[float, float] = (1.0, 1.0)


class Architecture(Protocol):
    """A promptable segmenter of square images. Implementations are `torch.nn.Module` s."""

    input_size: int
    """Side of the padded input square, pixels."""
    mask_input_size: int
    """Side of the grid of low-resolution logits and of mask prompts."""
    prompts_at_once: int
    """Prompts that are decoded together on a processor: more would leave its cache, fewer cost more calls."""
    parts: Mapping[str, str]
    """How the names of the weights of each part begin: ``image_encoder``, ``mask_decoder``, and others."""

    def encode(self, squares: torch.Tensor) -> Any:
        """Features, a named tuple of tensors (B, C, h, w), of normalised squares (B, 3, S, S)."""
        ...

    def decode(self, features: Any, prompts: PromptBatch, multimask: bool) -> DecodedMasks:
        """Masks of P prompts on one image (features with B = 1); C is 3 when `multimask`, else 1."""
        ...

    def decode_both(self, features: Any, prompts: PromptBatch) -> tuple[DecodedMasks, DecodedMasks]:
        """What `decode` answers with `multimask` and without, in one pass."""
        ...


class BelievedMasks(NamedTuple):
    """Of the three masks of each of P clicks those, M in all, whose predicted IoU is high enough.

    Attributes
    ----------
    prompts : tensor (M,) int64
        Which click, 0..P-1, in ascending order; masks of one click from small to large.
    iou_predictions : tensor (M,)
    low_res_logits : tensor (M, h, w)
    """

    prompts: torch.Tensor
    iou_predictions: torch.Tensor
    low_res_logits: torch.Tensor


class ClickDecoder(Protocol):
    """Answers many lone clicks on one image; a network may offer one of its own, as `click_decoder`."""

    def decode(self, clicks: PromptBatch, iou_above: float) -> BelievedMasks:
        """The masks of P prompts of one point each whose predicted IoU exceeds `iou_above`."""
        ...


class PlainClickDecoder:
    """A `ClickDecoder` that decodes everything and then chooses.

    Parameters
    ----------
    network : Architecture
    features : named tuple of tensors (1, C, h, w)
    """

    def __init__(self, network: Architecture, features: Any) -> None:
        self._network = network
        self._features = features

    def decode(self, clicks: PromptBatch, iou_above: float) -> BelievedMasks:
        """See `ClickDecoder`."""
        decoded = self._network.decode(self._features, clicks, True)
        prompts, masks = (decoded.iou_predictions > iou_above).nonzero(as_tuple=True)
        return BelievedMasks(
            prompts, decoded.iou_predictions[prompts, masks], decoded.low_res_logits[prompts, masks]
        )
