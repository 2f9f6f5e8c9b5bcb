"""Masks from low-resolution logits, enlarged only where they may lie."""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from napari_sam_med.sam.square import SquareFit, upsample_logits

__all__ = ["upsample_above"]

_LARGE_SHARE = 0.25
"""Of a slice: more of its logits take longer to gather than all of them to be interpolated."""

Float32 = npt.NDArray[np.float32]


def upsample_above(low_res_logits: Float32, fit: SquareFit, level: float) -> tuple[Float32, slice, slice]:
    """Logits (C, h, w) over the padded square as those of the image that may lie above a level.

    What `upsample_logits` gives in one step, up to rounding, but only where it counts: a value between four
    cells is above a level only where one of these is, and a mask takes up little of its slice. In numpy:
    there is little to reckon, and torch's calls take longer.

    Returns
    -------
    array (C, n, m) of float32
    rows, columns : slice
        Where they lie in the image; nothing outside is above the level.
    """
    each: npt.NDArray[np.bool_] = low_res_logits > level
    above = each[0] if len(each) == 1 else np.any(each, axis=0)
    down, across = (
        _cells(pixels, resized, fit.side, count)
        for pixels, resized, count in zip(fit.image_size, fit.resized_size, above.shape, strict=True)
    )
    rows, columns = down.pixels(above.any(axis=1)), across.pixels(above.any(axis=0))
    if rows.start >= rows.stop or columns.start >= columns.stop:
        return np.zeros((len(each), 0, 0), np.float32), slice(0, 0), slice(0, 0)
    height, width = fit.image_size
    if (rows.stop - rows.start) * (columns.stop - columns.start) > _LARGE_SHARE * height * width:
        whole: Float32 = upsample_logits(torch.from_numpy(low_res_logits), fit, direct=True).numpy()
        return whole, slice(0, height), slice(0, width)
    # no more columns of cells than are needed
    part = down.interpolated(low_res_logits[..., across.cells(columns)], rows, axis=1)
    part = across.interpolated(part, columns, axis=2, start=across.cells(columns).start)
    return part, rows, columns


class _Cells(NamedTuple):
    """Of each pixel of an axis the cells below and above its centre, and the weight of the latter.

    Attributes
    ----------
    lower, upper : array (pixels,)
    weight : array (pixels,)
    first, stop : array (cells,)
        Of each cell the first pixel for which it counts, and the first after the last.
    """

    lower: npt.NDArray[np.intp]
    upper: npt.NDArray[np.intp]
    weight: Float32
    first: npt.NDArray[np.intp]
    stop: npt.NDArray[np.intp]

    def pixels(self, which: npt.NDArray[np.bool_]) -> slice:
        """From the first to the last pixel for which any of some cells count; empty where none does."""
        cells = which.nonzero()[0]
        return slice(int(self.first[cells[0]]), int(self.stop[cells[-1]])) if len(cells) else slice(0, 0)

    def cells(self, pixels: slice) -> slice:
        """Those that count for pixels, of which there is at least one."""
        return slice(int(self.lower[pixels.start]), int(self.upper[pixels.stop - 1]) + 1)

    def interpolated(self, values: Float32, pixels: slice, axis: int, start: int = 0) -> Float32:
        """Values (C, n, m) at pixels along axis 1 or 2, from those of the cells from `start`."""
        weight = self.weight[pixels, None] if axis == 1 else self.weight[pixels]
        low = values.take(self.lower[pixels] - start, axis=axis)
        high: Float32 = values.take(self.upper[pixels] - start, axis=axis)
        high -= low
        high *= weight
        high += low
        return high


@functools.lru_cache(maxsize=64)
def _cells(pixels: int, resized: int, side: int, count: int) -> _Cells:
    """Kept, since a scan has slices of three sizes; it takes longer than enlarging a mask."""
    centres = np.arange(pixels, dtype=np.float32) + np.float32(0.5)
    cells_per_pixel = np.float32(count * resized / (side * pixels))
    position = np.clip(centres * cells_per_pixel - np.float32(0.5), 0, count - 1)
    lower = np.floor(position).astype(np.intp)
    upper = np.minimum(lower + 1, count - 1)
    every = np.arange(count)
    first, stop = np.searchsorted(upper, every), np.searchsorted(lower, every, side="right")
    return _Cells(lower, upper, (position - lower).astype(np.float32), first, stop)
