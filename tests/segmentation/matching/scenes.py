"""Slices of an invented body with bright round organs and a darker one beside them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from napari_sam_med import Volume
from napari_sam_med.segmentation.matching.example import Example, ExampleSlice
from napari_sam_med.volume.grid import Grid

SHAPE = (96, 112)
Disc = tuple[float, float, float]
"""Row, column and radius, pixels."""


def disc(row: float, column: float, radius: float, shape: tuple[int, int] = SHAPE) -> np.ndarray:
    """A round mask (H, W)."""
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    return (rows - row) ** 2 + (columns - column) ** 2 <= radius**2


def grey_slice(
    organs: Sequence[Disc],
    others: Sequence[Disc] = (),
    *,
    shape: tuple[int, int] = SHAPE,
    shift: tuple[int, int] = (0, 0),
    seed: int = 0,
) -> np.ndarray:
    """Grey values (H, W) of a body with bright organs and darker others, all of it moved by `shift`."""
    rng = np.random.default_rng(seed)
    height, width = shape
    rows, columns = np.ogrid[:height, :width]
    centre = (height / 2 + shift[0], width / 2 + shift[1])
    body = ((rows - centre[0]) / (0.4 * height)) ** 2 + ((columns - centre[1]) / (0.4 * width)) ** 2 <= 1
    grey = np.where(body, 95.0, 0.0)
    for level, discs in ((55.0, others), (190.0, organs)):
        for row, column, radius in discs:
            grey[disc(row + shift[0], column + shift[1], radius, shape)] = level
    return np.clip(grey + rng.normal(0, 4, shape), 0, 255).astype(np.uint8)


def rgb(grey: np.ndarray) -> np.ndarray:
    """The slice as models take it."""
    return np.repeat(grey[..., None], 3, axis=2)


def example_of(
    organ: Disc, others: Sequence[Disc] = (), spacing: tuple[float, float] = (1.0, 1.0)
) -> Example:
    """An example that shows one organ."""
    image = rgb(grey_slice([organ], others, seed=1))
    return Example((ExampleSlice(image, disc(*organ), spacing),))


def volume_of_rods(rods: Sequence[Disc], n_slices: int = 9, first: int = 1, last: int = 7) -> Volume:
    """Straight rods in slices `first` to `last`, 5 mm apart."""
    data = np.stack([grey_slice(rods if first <= z <= last else [], seed=z) for z in range(n_slices)])
    return Volume(data, Grid.from_zyx(data.shape, (5.0, 1.0, 1.0)))
