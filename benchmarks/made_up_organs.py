"""A made-up CT in which thirteen organs run through every slice, to carry their masks as far as is wanted."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from napari_sam_med import Prompts, SliceView, Volume
from napari_sam_med.segmentation.slicewise import box_of_mask
from napari_sam_med.volume.grid import Grid

__all__ = ["MadeUpOrgans"]

_BODY_HU, _AIR_HU, _NOISE_HU = -60.0, -1000.0, 6.0
_PLACES = (
    # centre (x, y) and radii (x, y) as shares of the side, Hounsfield units
    (0.27, 0.45, 0.110, 0.140, 110),
    (0.76, 0.42, 0.065, 0.090, 130),
    (0.32, 0.70, 0.055, 0.060, 170),
    (0.68, 0.70, 0.055, 0.060, 175),
    (0.43, 0.24, 0.030, 0.026, 10),
    (0.53, 0.24, 0.022, 0.022, 60),
    (0.61, 0.31, 0.050, 0.060, 80),
    (0.55, 0.60, 0.024, 0.024, 210),
    (0.45, 0.62, 0.026, 0.020, 120),
    (0.46, 0.33, 0.022, 0.018, 150),
    (0.52, 0.43, 0.045, 0.022, 90),
    (0.45, 0.52, 0.022, 0.018, 120),
    (0.60, 0.51, 0.022, 0.018, 110),
)
"""About as wide as liver, spleen, kidneys, gallbladder, oesophagus, stomach, vessels, pancreas, adrenals."""


@dataclass(frozen=True, eq=False)
class MadeUpOrgans:
    """The scan and what is truly in it.

    Attributes
    ----------
    volume : Volume
        Of `n_slices` axial slices, 3 mm apart, on a body 400 mm wide.
    truth : ndarray (z, y, x) of uint8
        1 to 13.
    """

    volume: Volume
    truth: npt.NDArray[np.uint8]

    @classmethod
    def of(cls, n_slices: int, side: int, seed: int = 0) -> MadeUpOrgans:
        """Make one of slices of ``side`` x ``side`` pixels."""
        rows, columns = np.mgrid[:side, :side].astype(np.float32) / side
        random = np.random.default_rng(seed)
        phases = random.uniform(0, 2 * np.pi, (len(_PLACES), 3))
        truth = np.zeros((n_slices, side, side), dtype=np.uint8)
        data = np.empty(truth.shape, dtype=np.int16)
        body = ((columns - 0.5) / 0.46) ** 2 + ((rows - 0.5) / 0.38) ** 2 < 1
        for z in range(n_slices):
            values = np.where(body, _BODY_HU, _AIR_HU).astype(np.float32)
            for number, ((x, y, wide, high, hounsfield), phase) in enumerate(
                zip(_PLACES, phases, strict=True), start=1
            ):
                turn = 2 * np.pi * z / 100
                dx, dy = 0.012 * np.sin(turn + phase[0]), 0.012 * np.sin(turn + phase[1])
                size = 1 + 0.15 * np.sin(turn + phase[2])
                inside = ((columns - x - dx) / (wide * size)) ** 2 + (
                    (rows - y - dy) / (high * size)
                ) ** 2 < 1
                truth[z][inside], values[inside] = number, hounsfield
            values = ndimage.gaussian_filter(values, side / 512)
            data[z] = np.rint(values + random.normal(0, _NOISE_HU, values.shape))
        grid = Grid(np.diag([-400 / side, -400 / side, 3.0, 1.0]), (side, side, n_slices))
        return cls(Volume(data, grid), truth)

    @property
    def labels(self) -> range:
        """Numbers of the organs."""
        return range(1, len(_PLACES) + 1)

    def box(self, label: int, index: int, margin: float = 0.0) -> dict[SliceView, Prompts]:
        """A box around an organ on one axial slice, as a key slice; wider by a share of its sides."""
        return {SliceView("axial", index): Prompts.from_box(box_of_mask(self.truth[index] == label, margin))}
