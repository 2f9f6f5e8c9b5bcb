"""Boxes that an annotator would draw around an object: tangent to it, too large, too small, unsteady."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from napari_sam_med.evaluation.prompt_target import PromptTarget
from napari_sam_med.sam.prompts import Prompts

__all__ = ["bound_box", "jittered_box", "larger_box", "random_margin_box"]


def bound_box(target: PromptTarget, rng: np.random.Generator) -> Prompts:
    """The box tangent to the mask, both corners inside.

    Source: the "tight box" of Kirillov et al., Segment Anything, ICCV 2023, and of Mazurowski et al., Medical
    Image Analysis 89, 2023.
    """
    del rng
    return Prompts.from_box(target.box_xyxy)


def jittered_box(target: PromptTarget, rng: np.random.Generator, fraction: float) -> Prompts:
    """The tangent box with every side moved by uniform noise, clipped to the image.

    Each side moves by up to ``fraction`` of the box's extent (pixels) along that axis, in either direction.
    Source: the noisy boxes of Kirillov et al., Segment Anything, ICCV 2023, appendix A (there normal noise of
    10 %), with the uniform noise of Ma et al., MedSAM, Nature Communications 15, 2024 (there 0 to 20 pixels).
    """
    box = target.box_xyxy.astype(np.float64)
    sides = box[2:] - box[:2] + 1
    box += rng.uniform(-fraction, fraction, 4) * np.tile(sides, 2)
    return _clipped(box, target)


def larger_box(target: PromptTarget, rng: np.random.Generator, pixels: int = 5) -> Prompts:
    """The tangent box with every side moved out by so many pixels, clipped to the image.

    Source: a term project on SAM with the BTCV abdomen set, where it is 5 pixels.
    """
    del rng
    return _clipped(target.box_xyxy + np.array([-pixels, -pixels, pixels, pixels]), target)


def random_margin_box(target: PromptTarget, rng: np.random.Generator, margin: int) -> Prompts:
    """The tangent box, each side moved by a random number of pixels, clipped to the image.

    The number is uniform over 0 to ``|margin|``, outwards for a positive margin and inwards for a negative
    one; sides that pass each other change places. Source: a study of prompts for SAM on brain tumours in MR,
    which sweeps the margin from -20 to 40 in steps of 10.
    """
    moved = np.sign(margin) * rng.integers(0, abs(margin) + 1, 4)
    return _clipped(target.box_xyxy + moved * np.array([-1, -1, 1, 1]), target)


def _clipped(box: npt.NDArray[Any], target: PromptTarget) -> Prompts:
    # the two sides of a small box may pass each other
    box = np.concatenate([np.minimum(box[:2], box[2:]), np.maximum(box[:2], box[2:])])
    height, width = target.mask.shape
    return Prompts.from_box(np.clip(box, 0, [width - 1, height - 1, width - 1, height - 1]))
