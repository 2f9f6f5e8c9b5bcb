"""Slices of openly licensed scans as training images, with organs or superpixels as targets.

Superpixels of real images teach real textures where nothing is labelled, as in ScribblePrompt (Wong et al.,
ECCV 2024).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy import ndimage
from skimage.segmentation import felzenszwalb

from napari_sam_med.evaluation.cases import read_cases
from napari_sam_med.training.synthetic.scenes import SIZE
from napari_sam_med.volume.intensity import to_rgb
from napari_sam_med.volume.reading import read_labels, read_volume
from napari_sam_med.volume.slice_view import SliceView

__all__ = ["RealSlice", "read_picture_slices", "read_volume_slices"]

_SUPERPIXEL_SCALES = (60.0, 250.0)
_MIN_PIXELS = 40
_WINDOWS = ((-160.0, 240.0), (-1000.0, 300.0), (-500.0, 900.0))


@dataclass(frozen=True, eq=False)
class RealSlice:
    """A grey image and regions that may be asked for.

    Attributes
    ----------
    image : array (SIZE, SIZE) uint8
    regions : array (SIZE, SIZE) uint8
        Numbers of the regions; 0 is none.
    """

    image: npt.NDArray[np.uint8]
    regions: npt.NDArray[np.uint8]


def read_volume_slices(cases: Path) -> list[RealSlice]:
    """Axial slices of the volumes of a cases file, CTs through several windows."""
    slices: list[RealSlice] = []
    for case in read_cases(cases):
        volume = read_volume(case.image_path)
        labels = read_labels(case.labels_path, reference=volume)
        windows: tuple[Any, ...] = _WINDOWS if volume.is_hounsfield else ("auto",)
        for index in range(volume.shape[0]):
            view = SliceView("axial", index)
            spacing = volume.pixel_spacing(view)
            for window in windows:
                grey = to_rgb(volume, view, window)[..., 0]
                if np.ptp(grey) > 30:
                    slices += _with_regions(grey, view.extract(labels.data), spacing)
    return slices


def read_picture_slices(folder: Path) -> list[RealSlice]:
    """PNG slices in ``folder/images`` with masks ``folder/masks/STEM_*.png``, each mask a region."""
    slices: list[RealSlice] = []
    for path in sorted((folder / "images").glob("*.png")):
        grey = np.asarray(Image.open(path).convert("L"))
        labels = np.zeros(grey.shape, np.uint8)
        for number, mask in enumerate(sorted((folder / "masks").glob(f"{path.stem}_*.png")), start=1):
            labels[np.asarray(Image.open(mask).convert("L")) > 127] = number
        slices += _with_regions(grey, labels, (1.0, 1.0))
    return slices


def _with_regions(
    grey: npt.NDArray[np.uint8], labels: npt.NDArray[Any], spacing: tuple[float, float]
) -> Iterator[RealSlice]:
    """The slice with its labels (where it has some), and with superpixels of two sizes."""
    image, regions = _fit(grey, spacing, True), _fit(labels, spacing, False)
    numbers = np.unique(regions[regions > 0])
    if any((regions == n).sum() >= _MIN_PIXELS for n in numbers):
        compact = np.searchsorted(numbers, regions) + 1
        labelled = np.where(regions > 0, compact, 0).astype(np.uint8)
        yield RealSlice(image, labelled)
        yield RealSlice(image, labelled)  # labels as often as superpixels
    for scale in _SUPERPIXEL_SCALES:
        found = felzenszwalb(image, scale=scale, sigma=0.8, min_size=_MIN_PIXELS) + 1
        found[image < 8] = 0
        largest = np.argsort(-np.bincount(found.ravel())[1:])[:250] + 1
        order = np.zeros(found.max() + 1, np.uint8)
        order[largest] = np.arange(1, len(largest) + 1)
        yield RealSlice(image, order[found])


def _fit(pixels: npt.NDArray[Any], spacing: tuple[float, float], smooth: bool) -> npt.NDArray[np.uint8]:
    """Centred on a square of square pixels, as the predictor scales a slice."""
    height, width = pixels.shape[0] * spacing[0], pixels.shape[1] * spacing[1]
    step = max(height, width) / SIZE
    offset = (np.arange(SIZE) + 0.5 - SIZE / 2) * step
    rows = offset / spacing[0] + pixels.shape[0] / 2 - 0.5
    columns = offset / spacing[1] + pixels.shape[1] / 2 - 0.5
    grid = np.stack(np.meshgrid(rows, columns, indexing="ij"))
    blurred = pixels.astype(np.float32)
    if smooth and step > min(spacing):
        blurred = ndimage.gaussian_filter(blurred, 0.4 * step / np.array(spacing))
    fitted: npt.NDArray[Any] = ndimage.map_coordinates(
        blurred, grid, order=1 if smooth else 0, mode="constant"
    )
    return fitted.round().astype(np.uint8)
