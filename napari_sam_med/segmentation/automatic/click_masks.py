"""What a click found, before it is known whether it stays: small enough to keep thousands of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_sam_med.segmentation.automatic.found_objects import FoundMask
from napari_sam_med.segmentation.automatic.mask_encoding import coco_rle, uncompressed_rle
from napari_sam_med.segmentation.automatic.mask_filters import touches_crop_edge, without_small_regions

if TYPE_CHECKING:
    import torch

    from napari_sam_med.sam.click_answers import ClickAnswers
    from napari_sam_med.sam.image_embedding import ImageEmbedding
    from napari_sam_med.sam.predictor import Predictor
    from napari_sam_med.segmentation.automatic.crop_layers import ImageCrop
    from napari_sam_med.segmentation.automatic.everything import EverythingOptions, OutputMode

__all__ = ["ClickMask", "click_masks_of"]

Mask = npt.NDArray[np.bool_]

_MASK_THRESHOLD = 0.0
_MASKS_AT_ONCE_ON_GPU = 32
"""A processor takes one at a time, which stays in its cache."""
_NOTHING = (0, 0, 0, 0)
"""The box of an empty mask, as SAM has it."""


@dataclass(frozen=True, eq=False)
class ClickMask:
    """A mask on a slice, one bit a pixel of its tangent box.

    Attributes
    ----------
    shape : (H, W)
        Of the slice.
    box_xyxy : tuple of int
        First and last column and row, in pixels of the slice; for an empty mask the crop's first pixel.
    bits : ndarray of uint8
        The pixels (h, w) of the box, packed; none for an empty mask.
    predicted_iou, stability_score : float
    point_xy : (x, y)
        The click, in pixels of the slice.
    crop_xyxy : tuple of int
        The part of the slice that the model saw.
    """

    shape: tuple[int, int]
    box_xyxy: tuple[int, int, int, int]
    bits: npt.NDArray[np.uint8]
    predicted_iou: float
    stability_score: float
    point_xy: tuple[float, float]
    crop_xyxy: tuple[int, int, int, int]

    @property
    def corner(self) -> tuple[int, int]:
        """Row and column of the first pixel of the box."""
        return self.box_xyxy[1], self.box_xyxy[0]

    @property
    def pixels(self) -> Mask:
        """The mask (h, w) within its box; (0, 0) when it is empty."""
        if not len(self.bits):
            return np.zeros((0, 0), dtype=bool)
        x_min, y_min, x_max, y_max = self.box_xyxy
        height, width = y_max - y_min + 1, x_max - x_min + 1
        return np.unpackbits(self.bits, count=height * width).reshape(height, width).view(bool)

    @property
    def mask(self) -> Mask:
        """The mask (H, W) of the whole slice."""
        whole = np.zeros(self.shape, dtype=bool)
        (row, column), pixels = self.corner, self.pixels
        whole[row : row + pixels.shape[0], column : column + pixels.shape[1]] = pixels
        return whole

    @property
    def area_px(self) -> int:
        """Pixels of the mask."""
        return int(np.bitwise_count(self.bits).sum())

    @property
    def crop_area(self) -> int:
        """Pixels of the part that the model saw."""
        x_min, y_min, x_max, y_max = self.crop_xyxy
        return (x_max - x_min) * (y_max - y_min)

    def without_small_regions(self, min_area: int) -> ClickMask:
        """With small holes filled and small islands taken away; itself when there were none."""
        before = self.mask
        after = without_small_regions(before, min_area)
        if after is before:
            return self
        box, bits = _packed(after)
        return replace(self, box_xyxy=box, bits=bits)

    def found_mask(self) -> FoundMask:
        """As what finders hand on; the mask must not be empty."""
        height, width = self.shape
        return FoundMask(
            self.shape,
            self.corner,
            self.pixels,
            self.predicted_iou,
            self.stability_score,
            self.point_xy,
            None if self.crop_xyxy == (0, 0, width, height) else self.crop_xyxy,
        )

    def record(self, output_mode: OutputMode) -> dict[str, Any]:
        """As SAM's automatic mask generator writes it."""
        segmentation: Any = self.mask
        if output_mode != "binary_mask":
            segmentation = uncompressed_rle(self.pixels, self.corner, self.shape)
        if output_mode == "coco_rle":
            segmentation = coco_rle(segmentation)
        return {
            "segmentation": segmentation,
            "area": self.area_px,
            "bbox": _xywh(self.box_xyxy),
            "predicted_iou": self.predicted_iou,
            "point_coords": [list(self.point_xy)],
            "stability_score": self.stability_score,
            "crop_box": _xywh(self.crop_xyxy),
        }


def click_masks_of(
    answers: ClickAnswers,
    embedding: ImageEmbedding,
    predictor: Predictor,
    crop: ImageCrop,
    points_xy: npt.NDArray[np.float64],
    options: EverythingOptions,
) -> list[ClickMask]:
    """The stable ones of some clicks' masks that do not end where the crop was cut.

    Parameters
    ----------
    answers : ClickAnswers
    embedding : ImageEmbedding
        That was asked.
    predictor : Predictor
    crop : ImageCrop
        That was embedded.
    points_xy : ndarray (N, 2) float64
        All clicks on the crop, in its pixels.
    options : EverythingOptions
    """
    from napari_sam_med.sam.click_answers import enlarged

    found = []
    x, y = crop.xyxy[:2]
    at_once = 1 if predictor.device.type == "cpu" else _MASKS_AT_ONCE_ON_GPU
    for start in range(0, len(answers.clicks), at_once):
        logits = enlarged(predictor, embedding, answers.low_res_logits[start : start + at_once])
        stability = _stability_scores(logits, options.stability_score_offset)
        stays = np.ones(len(stability), dtype=bool)
        if options.stability_score_thresh > 0:
            stays = stability >= np.float32(options.stability_score_thresh)
        for i in np.flatnonzero(stays):
            box, bits = _packed((logits[i] > _MASK_THRESHOLD).cpu().numpy())
            box = (box[0] + x, box[1] + y, box[2] + x, box[3] + y)
            if touches_crop_edge(np.array(box), crop.xyxy, embedding.original_size):
                continue
            point = points_xy[answers.clicks[start + i]]
            found.append(
                ClickMask(
                    embedding.original_size,
                    box,
                    bits,
                    float(answers.iou_predictions[start + i]),
                    float(stability[i]),
                    (float(point[0] + x), float(point[1] + y)),
                    crop.xyxy,
                )
            )
    return found


def _stability_scores(logits: torch.Tensor, offset: float) -> npt.NDArray[np.float32]:
    """IoU (M,) of the masks above a raised and a lowered cut-off, of logits (M, H, W); NaN where both are
    empty.
    """
    inner, outer = (_areas(logits > _MASK_THRESHOLD + shift) for shift in (offset, -offset))
    with np.errstate(invalid="ignore"):
        return inner / outer


def _areas(masks: torch.Tensor) -> npt.NDArray[np.float32]:
    if masks.device.type != "cpu":
        counts: npt.NDArray[np.float32] = masks.flatten(1).sum(1).cpu().numpy().astype(np.float32)
        return counts
    # numpy counts truth values several times as fast as torch, which widens them first
    return np.array([np.count_nonzero(mask) for mask in masks.numpy()], dtype=np.float32)


def _packed(mask: Mask) -> tuple[tuple[int, int, int, int], npt.NDArray[np.uint8]]:
    """Box and bits of a mask (H, W)."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return _NOTHING, np.zeros(0, dtype=np.uint8)
    box = (int(columns[0]), int(rows[0]), int(columns[-1]), int(rows[-1]))
    return box, np.packbits(mask[box[1] : box[3] + 1, box[0] : box[2] + 1])


def _xywh(xyxy: tuple[int, int, int, int]) -> list[int]:
    x_min, y_min, x_max, y_max = xyxy
    return [x_min, y_min, x_max - x_min, y_max - y_min]
