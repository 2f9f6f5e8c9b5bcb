"""From a slice to the square that a network sees, and back: the only place that scales coordinates."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch.nn import functional as F

from napari_sam_med.errors import ImageError

__all__ = [
    "PREPROCESSINGS",
    "PREPROCESSING_VERSION",
    "SquareFit",
    "normalised_square",
    "upsample_logits",
]

PREPROCESSINGS = ("sam", "medsam", "nano")
PREPROCESSING_VERSION = 1
"""Raise it whenever the same image would give other squares: stored embeddings are then made anew."""

_SAM_MEAN = (123.675, 116.28, 103.53)
_SAM_STD = (58.395, 57.12, 57.375)


@dataclass(frozen=True)
class SquareFit:
    """How an image of (H, W) pixels lies in the padded square of a network: top left, resized, padded.

    Attributes
    ----------
    image_size : tuple of int
        (H, W) of the image, or of the crop of it that is shown to the network.
    resized_size : tuple of int
        (h, w) that the image takes up in the square.
    side : int
        Side of the square.
    """

    image_size: tuple[int, int]
    resized_size: tuple[int, int]
    side: int

    @classmethod
    def of(
        cls, image_size: tuple[int, int], pixel_spacing: tuple[float, float], side: int, *, stretch: bool
    ) -> SquareFit:
        """Fit with physically square pixels, or over the whole square when `stretch`.

        Parameters
        ----------
        image_size : (H, W)
        pixel_spacing : (row, column)
            Millimetres; for equal spacing the result is that of SAM's ResizeLongestSide.
        """
        if stretch:
            return cls(image_size, (side, side), side)
        smallest = min(pixel_spacing)
        height = image_size[0] * (pixel_spacing[0] / smallest)
        width = image_size[1] * (pixel_spacing[1] / smallest)
        factor = side * 1.0 / max(height, width)
        resized = (max(1, int(height * factor + 0.5)), max(1, int(width * factor + 0.5)))
        return cls(image_size, resized, side)

    @property
    def scale_xy(self) -> tuple[float, float]:
        """Pixels of the square per pixel of the image."""
        return self.resized_size[1] / self.image_size[1], self.resized_size[0] / self.image_size[0]

    def to_square(self, xy: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """Image coordinates x, y (..., 2) in the square; Meta's prompt encoder adds the half pixel itself."""
        scaled: npt.NDArray[np.float32] = (xy.astype(np.float64) * self.scale_xy).astype(np.float32)
        return scaled


def checked_image(image: npt.ArrayLike) -> npt.NDArray[np.uint8]:
    """The image as an array, after checking that it is (H, W, 3) uint8.

    Raises
    ------
    ImageError
        When it is not.
    """
    array = np.asarray(image)
    if not hasattr(image, "dtype") and array.dtype.kind == "i" and array.size:  # nested lists know no dtype
        array = array.astype(np.uint8) if array.min() >= 0 and array.max() <= 255 else array
    if array.ndim != 3 or array.shape[2] != 3 or array.dtype != np.uint8 or 0 in array.shape:
        raise ImageError(
            f"The model takes images of shape (H, W, 3) and dtype uint8, got {array.shape} {array.dtype}; "
            "make one with `to_rgb(volume, view)`."
        )
    return array


def checked_spacing(pixel_spacing: npt.ArrayLike) -> tuple[float, float]:
    """Pixel spacing (row, column) in mm as floats, after checking that both are finite and positive."""
    spacing = np.asarray(pixel_spacing, dtype=np.float64).reshape(-1)
    if spacing.shape != (2,) or not all(math.isfinite(mm) and mm > 0 for mm in spacing):
        raise ImageError(
            f"The pixel spacing must be two positive numbers (row, column) in mm, got {spacing.tolist()}; "
            "use (1, 1) where it is unknown."
        )
    return float(spacing[0]), float(spacing[1])


def normalised_square(
    image: npt.NDArray[np.uint8], fit: SquareFit, preprocessing: str, device: torch.device
) -> torch.Tensor:
    """What the network sees of an image (H, W, 3) uint8: (3, side, side) float32, padded with 0.

    ``sam``: Meta's resize, mean and standard deviation. ``medsam``: bicubic resize, the slice's own minimum
    to maximum as 0..1. ``nano``: 0..1. (MedSAM: Ma et al., Nature Communications 2024.)
    """
    resized = (
        _bicubic(image, fit.resized_size) if preprocessing == "medsam" else _bilinear(image, fit.resized_size)
    )
    pixels = torch.from_numpy(resized).to(device).permute(2, 0, 1).float()
    if preprocessing == "sam":
        pixels = (pixels - _column(_SAM_MEAN, device)) / _column(_SAM_STD, device)
    elif preprocessing == "medsam":
        low, high = pixels.min(), pixels.max()
        pixels = (pixels - low) / (high - low).clamp(min=1e-8)  # a constant slice becomes 0, not NaN
    else:
        pixels = pixels / 255.0
    height, width = fit.resized_size
    return F.pad(pixels, (0, fit.side - width, 0, fit.side - height))


def upsample_logits(low_res_logits: torch.Tensor, fit: SquareFit, *, direct: bool) -> torch.Tensor:
    """Logits (..., C, h, w) over the padded square as logits (..., C, H, W) of the image.

    Meta's way, first to the square and then to the image, unless `direct`: one step from the low resolution,
    which is several times faster and the same up to rounding where the image has half the square's side.
    """
    if direct:
        return _upsample_directly(low_res_logits, fit)
    square = low_res_logits
    if square.shape[-2:] != (fit.side, fit.side):
        square = F.interpolate(square, (fit.side, fit.side), mode="bilinear", align_corners=False)
    square = square[..., : fit.resized_size[0], : fit.resized_size[1]]
    return F.interpolate(square, fit.image_size, mode="bilinear", align_corners=False)


def _upsample_directly(low_res_logits: torch.Tensor, fit: SquareFit) -> torch.Tensor:
    """Sample the low-resolution grid bilinearly at each pixel centre of the image."""
    if low_res_logits.device.type == "mps":  # where no test has seen this kernel with scales of its own
        low_res_logits = low_res_logits.cpu()
    grid = low_res_logits.reshape(-1, *low_res_logits.shape[-3:])
    cells = grid.shape[-2:]
    # pixels per cell; sizes do not say it, since the image may end within a cell
    scales = (
        pixels * fit.side / (resized * count)
        for pixels, resized, count in zip(fit.image_size, fit.resized_size, cells, strict=True)
    )
    enlarged: torch.Tensor = torch.ops.aten.upsample_bilinear2d(grid, fit.image_size, False, *scales)
    return enlarged.view(*low_res_logits.shape[:-2], *fit.image_size)


def _bilinear(image: npt.NDArray[np.uint8], size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """Meta's ResizeLongestSide resizes with torchvision on PIL images; this is the call that it ends in."""
    if image.shape[:2] == size:
        return np.array(image)
    resized = Image.fromarray(np.ascontiguousarray(image)).resize(
        (size[1], size[0]), Image.Resampling.BILINEAR
    )
    return np.array(resized)


def _bicubic(image: npt.NDArray[np.uint8], size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """MedSAM's own resize, which is scikit-image's."""
    from skimage.transform import resize

    is_grey = bool((image == image[..., :1]).all())
    planes = image[..., :1] if is_grey else image  # three equal channels need one resize
    resized = resize(planes, size, order=3, preserve_range=True, anti_aliasing=True).astype(np.uint8)
    return np.repeat(resized, 3, axis=2) if is_grey else resized


def _column(values: tuple[float, ...], device: torch.device) -> torch.Tensor:
    return torch.tensor(values, device=device).view(-1, 1, 1)
