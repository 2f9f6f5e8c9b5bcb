"""`ImageEmbedding`: what a network made of one image, and which part of the image it saw."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_sam_med.errors import ImageError

__all__ = ["Crop", "ImageEmbedding", "checked_crop"]

Crop = tuple[int, int, int, int]
"""x_min, y_min (inside), x_max, y_max (just outside), pixels."""


@dataclass(frozen=True, eq=False)
class ImageEmbedding:
    """What a network made of one image; prompts are answered from it.

    Attributes
    ----------
    features : named tuple of tensors (1, C, h, w)
    original_size : tuple of int
        (H, W) of the image; prompts and masks are in its pixels, also with a crop.
    input_size : tuple of int
        (h, w) that the image, or its crop, takes up in the network's square.
    crop_xyxy : tuple of int or None
        The part that was embedded: x_min, y_min (inside), x_max, y_max (just outside).
    model_hash : str
        SHA-256 of the checkpoint.
    pixel_spacing : tuple of float
        (row, column) in mm.
    preprocessing : str
        How the image was prepared, see `Predictor.preprocessing`.
    """

    features: Any
    original_size: tuple[int, int]
    input_size: tuple[int, int]
    crop_xyxy: Crop | None
    model_hash: str
    pixel_spacing: tuple[float, float] = (1.0, 1.0)
    preprocessing: str = ""

    def __repr__(self) -> str:
        height, width = self.original_size
        crop = "" if self.crop_xyxy is None else f", crop_xyxy={self.crop_xyxy}"
        return f"ImageEmbedding({height} x {width} pixels{crop}, model {self.model_hash[:8]})"

    @property
    def nbytes(self) -> int:
        """Bytes that the features take in memory."""
        return sum(int(tensor.nbytes) for tensor in self.features)

    @property
    def crop_size(self) -> tuple[int, int]:
        """(H, W) of the part that was embedded."""
        if self.crop_xyxy is None:
            return self.original_size
        x_min, y_min, x_max, y_max = self.crop_xyxy
        return y_max - y_min, x_max - x_min


def checked_crop(crop_xyxy: npt.ArrayLike, image_size: tuple[int, int]) -> Crop:
    """The crop as integers, after checking that it lies in an image of (H, W) pixels and is not empty.

    Raises
    ------
    ImageError
        When it is not so.
    """
    crop = np.asarray(crop_xyxy)
    height, width = image_size
    if crop.shape == (4,) and np.isfinite(crop).all():
        x_min, y_min, x_max, y_max = (int(value) for value in crop)
        if 0 <= x_min < x_max <= width and 0 <= y_min < y_max <= height:
            return x_min, y_min, x_max, y_max
    raise ImageError(
        f"A crop is x_min, y_min, x_max, y_max with 0 <= min < max <= ({width}, {height}), "
        f"got {crop.tolist()}; clip it to the image."
    )
