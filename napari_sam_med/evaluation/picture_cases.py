"""Pictures as scans of one slice: PNG, JPEG, TIFF or BMP with a picture of labels of the same size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from napari_sam_med.errors import ImageError, LabelError
from napari_sam_med.volume.grid import Grid
from napari_sam_med.volume.labels import LabelVolume
from napari_sam_med.volume.organs import OrganTable
from napari_sam_med.volume.volume import Volume

__all__ = ["is_picture", "read_picture_case"]

_ENDINGS = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff"})
_WHITE = 255


def is_picture(path: Path) -> bool:
    """Whether a file is read as a picture, by its name."""
    return path.suffix.lower() in _ENDINGS


def read_picture_case(image: Path, labels: Path) -> tuple[Volume, LabelVolume]:
    """A grey picture as a volume (1, H, W) with pixels of 1 mm, and its labels.

    Colours become grey, with a warning. Labels are whole numbers; a mask of 0 and 255 becomes 0 and 1.

    Raises
    ------
    ImageError
        When a file is missing, damaged or no picture.
    LabelError
        When the label picture has colours, or another size.
    """
    pixels, is_coloured = _grey(image)
    warnings = ("the picture's colours are taken as grey",) if is_coloured else ()
    grid = Grid.from_zyx((1, *pixels.shape), (1.0, 1.0, 1.0))
    volume = Volume(pixels[None], grid, path=image, warnings=warnings)
    numbers, is_coloured = _grey(labels)
    if is_coloured:
        raise LabelError(
            f"{labels.name} has colours; labels are a grey picture whose values are their numbers."
        )
    if numbers.shape != pixels.shape:
        raise LabelError(
            f"{labels.name} has {numbers.shape[1]} x {numbers.shape[0]} pixels, its picture {image.name} "
            f"{pixels.shape[1]} x {pixels.shape[0]}; give labels of the same size."
        )
    if set(np.unique(numbers).tolist()) <= {0, _WHITE}:
        numbers = (numbers > 0).astype(np.uint8)
    dtype = np.uint8 if numbers.max() <= _WHITE else np.uint16
    drawn = LabelVolume.like(volume, OrganTable.from_names({}), dtype)
    drawn.data[0] = numbers
    return volume, drawn


def _grey(path: Path) -> tuple[npt.NDArray[Any], bool]:
    """Grey values (H, W) of a picture, and whether it has colours."""
    try:
        with Image.open(path) as picture:
            if picture.mode in ("1", "P"):  # of a palette the numbers, not the colours
                return np.asarray(picture.convert("L") if picture.mode == "1" else picture), False
            if picture.mode in ("L", "I;16", "I"):
                return np.asarray(picture), False
            array = np.asarray(picture.convert("RGB"))
            is_coloured = bool((array != array[..., :1]).any())
            return (np.asarray(picture.convert("L")) if is_coloured else array[..., 0]), is_coloured
    except FileNotFoundError:
        raise ImageError(f"There is no file {path}; check the path.") from None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ImageError(f"{path.name} is damaged or no picture ({error}); give another file.") from None
