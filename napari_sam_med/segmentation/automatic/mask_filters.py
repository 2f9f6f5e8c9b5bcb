"""Which masks are worth keeping: by box overlap, by the edge of a crop, by size; and mending small faults."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

__all__ = ["best_of_overlapping", "touches_crop_edge", "without_small_regions"]

Mask = npt.NDArray[np.bool_]

_EDGE_PIXELS = 20.0
_EIGHT_NEIGHBOURS = np.ones((3, 3), dtype=bool)


def best_of_overlapping(
    boxes_xyxy: npt.NDArray[Any], scores: npt.NDArray[Any], iou_thresh: float
) -> npt.NDArray[np.intp]:
    """Non-maximum suppression: go by falling score, and drop what overlaps a box that was kept.

    Parameters
    ----------
    boxes_xyxy : ndarray (N, 4)
        Corners in pixels; a box is as wide as they lie apart.
    scores : ndarray (N,)
        Of equal ones the first goes first.
    iou_thresh : float
        Boxes that overlap by more (intersection over union) are dropped.

    Returns
    -------
    ndarray (K,) of int
        Indices of the boxes kept, by falling score.
    """
    boxes = boxes_xyxy.astype(np.float32).reshape(-1, 4)
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    left = np.argsort(-scores, kind="stable")
    kept: list[np.intp] = []
    while len(left):
        best, left = left[0], left[1:]
        kept.append(best)
        low = np.maximum(boxes[best, :2], boxes[left, :2])
        high = np.minimum(boxes[best, 2:], boxes[left, 2:])
        both = (high - low).clip(min=0).prod(axis=1)
        either = areas[best] + areas[left] - both
        # two boxes without area share nothing
        iou = np.divide(both, either, out=np.zeros_like(both), where=either > 0)
        left = left[iou.astype(np.float64) <= iou_thresh]
    return np.array(kept, dtype=np.intp)


def touches_crop_edge(
    box_xyxy: npt.NDArray[np.int64], crop_xyxy: tuple[int, int, int, int], image_size: tuple[int, int]
) -> bool:
    """Whether a box, in pixels of the image, ends within 20 pixels of where its crop was cut out of more."""
    height, width = image_size
    near_crop = np.abs(box_xyxy - np.array(crop_xyxy)) <= _EDGE_PIXELS
    near_image = np.abs(box_xyxy - np.array([0, 0, width, height])) <= _EDGE_PIXELS
    return bool((near_crop & ~near_image).any())


def without_small_regions(mask: Mask, min_area: float) -> Mask:
    """A mask (H, W) with holes of fewer than `min_area` pixels filled, and then such islands taken away.

    Regions hang together over corners, too. When all islands are too small the largest stays. The mask
    itself comes back when nothing was to be done.
    """
    return _without_small_islands(_without_small_holes(mask, min_area), min_area)


def _without_small_holes(mask: Mask, min_area: float) -> Mask:
    holes, sizes = _regions(~mask)
    small = np.flatnonzero(sizes < min_area) + 1
    return mask | np.isin(holes, small) if len(small) else mask


def _without_small_islands(mask: Mask, min_area: float) -> Mask:
    islands, sizes = _regions(mask)
    if not (sizes < min_area).any():
        return mask
    large = np.flatnonzero(sizes >= min_area) + 1
    kept: Mask = np.isin(islands, large if len(large) else [int(np.argmax(sizes)) + 1])
    return kept


def _regions(mask: Mask) -> tuple[npt.NDArray[np.integer[Any]], npt.NDArray[np.integer[Any]]]:
    """Regions of a mask numbered from 1, and the pixels of each."""
    regions, _ = ndimage.label(mask, _EIGHT_NEIGHBOURS)
    return regions, np.bincount(regions.ravel())[1:]
