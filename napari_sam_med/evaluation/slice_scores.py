"""`SliceScore`: one answer to one organ on one slice, and how it is measured."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from napari_sam_med.evaluation.metrics import dice_and_iou
from napari_sam_med.evaluation.surface_metrics import TrueOutline
from napari_sam_med.sam.mask_prediction import MaskPrediction
from napari_sam_med.sam.prompts import Prompts
from napari_sam_med.volume.slice_view import SliceView

__all__ = ["AnswerMeasures", "SliceScore", "TrueMask"]

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class SliceScore:
    """One answer to one organ on one slice.

    Attributes
    ----------
    volume : str
        Name of the case.
    organ, label
        Name and number.
    view : SliceView
    strategy, model : str
        Baselines have their name for a model, and no strategy.
    dice, iou : float
        Of the mask with the highest predicted IoU, against the label.
    dice_oracle : float or None
        Best of several masks; None where one is made.
    iou_prediction : float
        The model's own estimate; NaN for a baseline.
    area_px : int
        Pixels of the organ.
    seconds : float
        Time of decoding, a share of the batch's, of all turns so far; without the embedding.
    patient : str
        Whose scan it is: answers on one patient are not independent of each other.
    seed : int
        Of the simulation.
    nsd : float or None
        Normalised surface distance (surface Dice) at 2 mm, 0 to 1; None where it was not measured.
    hd95_mm : float or None
        95th percentile of the Hausdorff distance; None where the answer is empty, or it was not measured.
    iou_oracle : float or None
        As `dice_oracle`.
    dice_single, iou_single : float or None
        Of the model's single-mask output, where it answered with several masks.
    prompts : Prompts or None
        What was asked at last, without its mask prompt; None for a baseline.
    replies : int
        How many of the last clicks were replies to an answer, each asked with the logits of that answer.
    image : str
        The scan, as it was given.
    """

    volume: str
    organ: str
    label: int
    view: SliceView
    strategy: str
    model: str
    dice: float
    iou: float
    dice_oracle: float | None
    iou_prediction: float
    area_px: int
    seconds: float
    patient: str = ""
    seed: int = 0
    nsd: float | None = None
    hd95_mm: float | None = None
    iou_oracle: float | None = None
    dice_single: float | None = None
    iou_single: float | None = None
    prompts: Prompts | None = None
    replies: int = 0
    image: str = ""


@dataclass(frozen=True)
class AnswerMeasures:
    """What is measured of an answer; the fields are those of `SliceScore`."""

    dice: float
    iou: float
    dice_oracle: float | None = None
    iou_prediction: float = float("nan")
    nsd: float | None = None
    hd95_mm: float | None = None
    iou_oracle: float | None = None
    dice_single: float | None = None
    iou_single: float | None = None


class TrueMask:
    """An organ on a slice as its label has it; measures answers against it.

    Parameters
    ----------
    mask : array (H, W) bool
        Not empty.
    spacing : (row, column), optional
        Millimetres; without them outlines are not measured.
    """

    def __init__(self, mask: Mask, spacing: tuple[float, float] | None = None) -> None:
        self.mask = mask
        self.area_px = int(np.count_nonzero(mask))
        self._outline = None if spacing is None else TrueOutline(mask, spacing)

    def measure_mask(self, drawn: Mask) -> AnswerMeasures:
        """Measures of a mask (H, W)."""
        dice, iou = dice_and_iou(drawn, self.mask)
        nsd, hd95 = (None, None) if self._outline is None else self._outline.score(drawn)
        return AnswerMeasures(dice, iou, nsd=nsd, hd95_mm=hd95)

    def measure(self, answer: MaskPrediction) -> AnswerMeasures:
        """Measures of a model's answer: of its best mask, beside the best of several and the single one."""
        chosen = self.measure_mask(answer.best_mask)
        several = len(answer.masks) > 1
        single = answer.single_mask if several else None
        dice_oracle, iou_oracle = self._best(answer.masks) if several else (None, None)
        dice_single, iou_single = (None, None) if single is None else dice_and_iou(single, self.mask)
        return AnswerMeasures(
            dice=chosen.dice,
            iou=chosen.iou,
            dice_oracle=dice_oracle,
            iou_prediction=float(answer.iou_predictions.max()),
            nsd=chosen.nsd,
            hd95_mm=chosen.hd95_mm,
            iou_oracle=iou_oracle,
            dice_single=dice_single,
            iou_single=iou_single,
        )

    def _best(self, masks: Iterable[Mask]) -> tuple[float, float]:
        # Dice and IoU rank masks alike, so both are best of one mask
        return max(dice_and_iou(mask, self.mask) for mask in masks)
