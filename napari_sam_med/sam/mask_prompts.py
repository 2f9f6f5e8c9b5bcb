"""Mask prompts for a network: from a drawn mask, a signed distance, or the user's outline."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from napari_sam_med.sam.outlines import mask_of_outline

if TYPE_CHECKING:
    from napari_sam_med.sam.image_embedding import ImageEmbedding
    from napari_sam_med.sam.predictor import Predictor
    from napari_sam_med.sam.prompts import Prompts

__all__ = [
    "grid_per_pixel",
    "logits_of_distance",
    "logits_of_mask",
    "outline_as_box_and_mask",
]

_LOGIT_LIMIT = 8.0
"""Logits beyond this say nothing more, and mask prompts were trained within it."""


def outline_as_box_and_mask(prompts: Prompts, embedding: ImageEmbedding, predictor: Predictor) -> Prompts:
    """What a model is asked in place of an outline: its tangent box and, where it takes masks, its area.

    A box or a mask that was given as well stands for the outline's own.

    Raises
    ------
    PromptError
        When the outline lies outside the image.
    """
    outline = prompts.outline_xy
    if outline is None:
        return prompts
    box, logits = prompts.extent_within(embedding.original_size), prompts.mask_input
    if logits is None and "mask" in predictor.accepts:
        mask = mask_of_outline(outline, embedding.original_size)
        logits = logits_of_mask(mask, embedding, predictor) if mask.any() else None
    return prompts.replace(box_xyxy=box, mask_input=logits, outline_xy=None)


def logits_of_mask(
    mask: npt.NDArray[np.bool_], embedding: ImageEmbedding, predictor: Predictor
) -> npt.NDArray[np.float32]:
    """Mask prompt (h, w) that stands for a drawn mask (H, W): its signed distance on the low-resolution grid.

    Networks expect logits that fade across the border, not a step; the distance in grid pixels, limited to
    +-8, has that shape. The part of the padded square that lies outside the image stays strongly negative.
    """
    on_grid = _on_grid(mask, embedding, predictor)
    side = predictor.network.mask_input_size
    small = np.zeros((side, side), dtype=bool)
    small[: on_grid.shape[0], : on_grid.shape[1]] = on_grid
    inside = ndimage.distance_transform_edt(small)
    outside = ndimage.distance_transform_edt(~small) if small.any() else np.full(small.shape, _LOGIT_LIMIT)
    distance = np.where(small, inside - 0.5, 0.5 - outside)
    return np.clip(2.0 * distance, -_LOGIT_LIMIT, _LOGIT_LIMIT).astype(np.float32)


def logits_of_distance(
    distance_px: npt.NDArray[np.float32], embedding: ImageEmbedding, predictor: Predictor
) -> npt.NDArray[np.float32]:
    """Mask prompt (h, w) that stands for a signed distance (H, W) in pixels, negative inside; sampled at the
    centres of the low-resolution grid.
    """
    on_grid = _on_grid(distance_px, embedding, predictor)
    side = predictor.network.mask_input_size
    logits = np.full((side, side), -_LOGIT_LIMIT, dtype=np.float32)
    _, rows_per_pixel = grid_per_pixel(distance_px.shape, embedding, predictor)
    steepness = np.float32(-2.0 * rows_per_pixel)
    logits[: on_grid.shape[0], : on_grid.shape[1]] = np.clip(on_grid * steepness, -_LOGIT_LIMIT, _LOGIT_LIMIT)
    return logits


def _on_grid(image: npt.NDArray[Any], embedding: ImageEmbedding, predictor: Predictor) -> npt.NDArray[Any]:
    """The part of an image (H, W) that was embedded, at the cell centres of the low-resolution grid."""
    scale = predictor.network.mask_input_size / predictor.network.input_size
    left, top, right, bottom = embedding.crop_xyxy or (0, 0, image.shape[1], image.shape[0])
    crop = image[int(top) : int(bottom), int(left) : int(right)]
    cells = [max(1, round(size * scale)) for size in embedding.input_size]
    rows, columns = (
        np.minimum(((np.arange(n) + 0.5) * pixels / n).astype(int), pixels - 1)
        for n, pixels in zip(cells, crop.shape, strict=True)
    )
    return crop[np.ix_(rows, columns)]


def grid_per_pixel(
    shape: tuple[int, ...], embedding: ImageEmbedding, predictor: Predictor
) -> npt.NDArray[np.float64]:
    """Pixels (x, y) of the mask prompt's grid for one of the slice."""
    scale = predictor.network.mask_input_size / predictor.network.input_size
    left, top, right, bottom = embedding.crop_xyxy or (0, 0, shape[1], shape[0])
    height, width = embedding.input_size
    return np.array([width * scale / (right - left), height * scale / (bottom - top)])
