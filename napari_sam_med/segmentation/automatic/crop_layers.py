"""The parts of an image that are searched one by one: the whole, its quarters, their quarters.

Kirillov et al., Segment Anything, 2023, appendix B, https://arxiv.org/abs/2304.02643
"""

from __future__ import annotations

import math
from dataclasses import dataclass

__all__ = ["ImageCrop", "crops_of"]


@dataclass(frozen=True)
class ImageCrop:
    """A part of an image.

    Attributes
    ----------
    layer : int
        0 for the whole image, 1 for its 2 x 2 parts, 2 for its 4 x 4 parts.
    xyxy : tuple of int
        x_min, y_min (inside), x_max, y_max (just outside), pixels.
    """

    layer: int
    xyxy: tuple[int, int, int, int]

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) in pixels."""
        x_min, y_min, x_max, y_max = self.xyxy
        return y_max - y_min, x_max - x_min


def crops_of(image_size: tuple[int, int], n_layers: int, overlap_ratio: float) -> list[ImageCrop]:
    """The whole image and, layer by layer, its overlapping crops, column by column.

    Parameters
    ----------
    image_size : (H, W)
    n_layers : int
        Layers of crops; layer i has 2**i crops a side.
    overlap_ratio : float
        Overlap of the first layer's crops as a share of the shorter side; half as much in each layer below.
    """
    height, width = image_size
    crops = [ImageCrop(0, (0, 0, width, height))]
    for layer in range(1, n_layers + 1):
        per_side = 2**layer
        overlap = int(overlap_ratio * min(image_size) * (2 / per_side))
        # a small image divided often leaves nothing for the last crops of a side
        columns, rows = (_spans(length, per_side, overlap) for length in (width, height))
        crops += [ImageCrop(layer, (x0, y0, x1, y1)) for x0, x1 in columns for y0, y1 in rows]
    return crops


def _spans(length: int, count: int, overlap: int) -> list[tuple[int, int]]:
    """`count` spans of equal size that cover 0..length, each overlapping the next."""
    size = math.ceil((overlap * (count - 1) + length) / count)
    starts = (i * (size - overlap) for i in range(count))
    return [(start, min(start + size, length)) for start in starts if start < length]
