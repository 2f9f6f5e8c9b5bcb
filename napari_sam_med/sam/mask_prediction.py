"""`MaskPrediction`: what a decoder answered to one object's prompts, as masks in pixels of the image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from napari_sam_med.sam.architectures.base import DecodedMasks
from napari_sam_med.sam.image_embedding import ImageEmbedding
from napari_sam_med.sam.mask_upsampling import upsample_above
from napari_sam_med.sam.square import SquareFit, upsample_logits

__all__ = ["AnswerForm", "MaskPrediction", "mask_of_logits", "masks_in_image"]

MASK_THRESHOLD = 0.0
STABILITY_OFFSET = 1.0
_LEVELS = (MASK_THRESHOLD - STABILITY_OFFSET, MASK_THRESHOLD, MASK_THRESHOLD + STABILITY_OFFSET)


@dataclass(frozen=True, eq=False)
class MaskPrediction:
    """Masks of one object, C of them: one, or three of different extent for an ambiguous prompt.

    Attributes
    ----------
    masks : ndarray (C, H, W) bool
    iou_predictions : ndarray (C,) float32
        The network's own estimate of each mask's IoU with the truth.
    low_res_logits : ndarray (C, h, w) float32
        Over the padded square; one of them may be the `mask_input` of the next prompt.
    stability_scores : ndarray (C,) float32
        IoU of the masks at logits above 1 and above -1, in 0..1; 0 where both are empty.
    tokens : ndarray (C, D) float32
        The decoder's descriptor of each mask, for classifiers.
    single_mask : ndarray (H, W) bool or None
        Beside three masks, what the model says when asked for one; see `Predictor.predict_batch`.
    """

    masks: npt.NDArray[np.bool_]
    iou_predictions: npt.NDArray[np.float32]
    low_res_logits: npt.NDArray[np.float32]
    stability_scores: npt.NDArray[np.float32]
    tokens: npt.NDArray[np.float32]
    single_mask: npt.NDArray[np.bool_] | None = None

    def __repr__(self) -> str:
        count, height, width = self.masks.shape
        ious = ", ".join(f"{iou:.2f}" for iou in self.iou_predictions)
        return f"MaskPrediction({count} of {height} x {width} pixels, predicted IoU {ious})"

    @property
    def best_index(self) -> int:
        """Index of the mask with the highest predicted IoU."""
        return int(np.argmax(self.iou_predictions))

    @property
    def best_mask(self) -> npt.NDArray[np.bool_]:
        """(H, W) bool, the mask with the highest predicted IoU."""
        best: npt.NDArray[np.bool_] = self.masks[self.best_index]
        return best

    @property
    def best_low_res_logits(self) -> npt.NDArray[np.float32]:
        """(h, w) float32, the logits of `best_mask`."""
        best: npt.NDArray[np.float32] = self.low_res_logits[self.best_index]
        return best


class AnswerForm(NamedTuple):
    """What is made of a decoder's answer.

    Attributes
    ----------
    direct : bool
        Enlarge in one step instead of Meta's two.
    best_only : bool
        Only the mask with the highest predicted IoU.
    single_beside : bool
        A `MaskPrediction.single_mask` beside three masks.
    """

    direct: bool = False
    best_only: bool = False
    single_beside: bool = False


def masks_in_image(
    decoded: DecodedMasks,
    embedding: ImageEmbedding,
    fit: SquareFit,
    form: AnswerForm,
    single: DecodedMasks | None = None,
) -> list[MaskPrediction]:
    """What the decoder said of P prompts as P predictions in pixels of the whole image.

    Parameters
    ----------
    decoded : DecodedMasks
    embedding : ImageEmbedding
        That was decoded.
    fit : SquareFit
        How the image, or its crop, lies in the square.
    form : AnswerForm
    single : DecodedMasks, optional
        What the decoder says of the same prompts with one mask each.
    """
    direct = form.direct
    if form.best_only:
        decoded = decoded.best()
    low_res = decoded.low_res_logits.float()
    low_res_out = low_res.cpu().numpy()
    iou_predictions = decoded.iou_predictions.float().cpu().numpy()
    tokens = decoded.tokens.float().cpu().numpy()
    predictions = []
    for i in range(len(low_res)):
        masks, stability_scores = _masks_and_stability(low_res[i], fit, direct)
        predictions.append(
            MaskPrediction(
                masks=_in_whole_image(masks, embedding),
                iou_predictions=iou_predictions[i],
                low_res_logits=low_res_out[i],
                stability_scores=stability_scores,
                tokens=tokens[i],
                single_mask=None
                if single is None
                else _one_mask(single.low_res_logits[i], embedding, fit, direct),
            )
        )
    return predictions


def mask_of_logits(
    low_res_logits: torch.Tensor, embedding: ImageEmbedding, fit: SquareFit
) -> npt.NDArray[np.bool_]:
    """Mask (H, W) of low-resolution logits (h, w) on the cpu, enlarged in one step."""
    masks, _ = _masks_in_part(low_res_logits[None], fit, MASK_THRESHOLD)
    mask: npt.NDArray[np.bool_] = _in_whole_image(masks, embedding)[0]
    return mask


def _masks_and_stability(
    low_res_logits: torch.Tensor, fit: SquareFit, direct: bool
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.float32]]:
    """Masks (C, H, W) of logits (C, h, w), and their stability scores (C,)."""
    if not direct or low_res_logits.device.type != "cpu":
        logits = upsample_logits(low_res_logits[None], fit, direct=direct)[0]
        below, masks, above = ((logits > level).cpu().numpy() for level in _LEVELS)
        return masks, _stability_scores(above, below)
    masks, values = _masks_in_part(low_res_logits, fit, _LEVELS[0])
    return masks, _stability_scores(values > _LEVELS[2], values > _LEVELS[0])


def _masks_in_part(
    low_res_logits: torch.Tensor, fit: SquareFit, level: float
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.float32]]:
    """Masks (C, H, W) of logits (C, h, w), and the enlarged logits where they may be above a level."""
    values, rows, columns = upsample_above(low_res_logits.numpy(), fit, level)
    masks = np.zeros((len(values), *fit.image_size), dtype=bool)
    np.greater(values, MASK_THRESHOLD, out=masks[:, rows, columns])
    return masks, values


def _one_mask(
    low_res_logits: torch.Tensor, embedding: ImageEmbedding, fit: SquareFit, direct: bool
) -> npt.NDArray[np.bool_]:
    masks, _ = _masks_and_stability(low_res_logits.float(), fit, direct)
    mask: npt.NDArray[np.bool_] = _in_whole_image(masks, embedding)[0]
    return mask


def _stability_scores(above: npt.NDArray[np.bool_], below: npt.NDArray[np.bool_]) -> npt.NDArray[np.float32]:
    """SAM's stability score (C,) of masks (C, H, W) at a level above the threshold and one below."""
    # numpy counts truth values several times as fast as torch, which widens them first
    inner, outer = (
        np.array([np.count_nonzero(one) for one in masks], np.float32) for masks in (above, below)
    )
    return np.divide(inner, np.maximum(outer, 1), dtype=np.float32)


def _in_whole_image(masks: npt.NDArray[np.bool_], embedding: ImageEmbedding) -> npt.NDArray[np.bool_]:
    if embedding.crop_xyxy is None:
        return masks
    x_min, y_min, x_max, y_max = embedding.crop_xyxy
    whole = np.zeros((len(masks), *embedding.original_size), dtype=bool)
    whole[:, y_min:y_max, x_min:x_max] = masks
    return whole
