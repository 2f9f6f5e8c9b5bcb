"""Masks from low-resolution logits, enlarged only where they may lie."""

from __future__ import annotations

import functools

import numpy as np
import numpy.typing as npt
import torch

from napari_sam_med.sam.square import SquareFit, upsample_logits

__all__ = ["upsample_above"]

_LARGE_SHARE = 0.25
"""Of a slice: more of its logits take longer to gather than all of them to be interpolated."""


def upsample_above(
    low_res_logits: torch.Tensor, fit: SquareFit, level: float
) -> tuple[torch.Tensor, slice, slice]:
    """Logits (C, h, w) over the padded square, on the cpu, as those of the image that may lie above a level.

    What `upsample_logits` gives in one step, up to rounding, but only where it counts: a value between four
    cells is above a level only where one of these is, and a mask takes up little of its slice.

    Returns
    -------
    tensor (C, n, m) of float32
    rows, columns : slice
        Where they lie in the image; nothing outside is above the level.
    """
    each: npt.NDArray[np.bool_] = low_res_logits.numpy() > level
    above = each[0] if len(each) == 1 else np.any(each, axis=0)
    neighbours, where = [], []
    for axis, (pixels, resized) in enumerate(zip(fit.image_size, fit.resized_size, strict=True)):
        lower, upper, weight = _neighbours(pixels, resized, fit.side, above.shape[axis])
        cells = np.flatnonzero(above.any(axis=1 - axis))
        first, stop = 0, 0
        if len(cells):
            first = int(np.searchsorted(upper.numpy(), cells[0]))
            stop = int(np.searchsorted(lower.numpy(), cells[-1], side="right"))
        seen = slice(first, stop)
        where.append(seen)
        neighbours.append((lower[seen], upper[seen], weight[seen]))
    rows, columns = where
    height, width = fit.image_size
    if (rows.stop - rows.start) * (columns.stop - columns.start) > _LARGE_SHARE * height * width:
        whole = upsample_logits(low_res_logits, fit, direct=True)
        return whole, slice(0, height), slice(0, width)
    across, beyond, weight = neighbours[1]
    if len(across):  # no more columns of cells than are needed
        left, right = int(across[0]), int(beyond[-1]) + 1
        low_res_logits = low_res_logits[..., left:right]
        neighbours[1] = (across - left, beyond - left, weight)
    part = _interpolated(_interpolated(low_res_logits, neighbours[0], -2), neighbours[1], -1)
    return part, rows, columns


@functools.lru_cache(maxsize=64)
def _neighbours(
    pixels: int, resized: int, side: int, count: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Of each pixel of an axis the cells below and above its centre, and the weight of the latter.

    Kept, since a scan has slices of three sizes; it takes longer than enlarging a mask.
    """
    with torch.inference_mode(False):  # kept tensors are of use everywhere
        return _new_neighbours(pixels, resized, side, count)


def _new_neighbours(
    pixels: int, resized: int, side: int, count: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    centres = torch.arange(pixels, dtype=torch.float32) + 0.5
    at = centres * (2.0 * resized / (pixels * side)) - 1.0  # edges of the outer cells are at -1 and 1
    position = ((at + 1.0) * (count / 2.0) - 0.5).clamp(0, count - 1)
    lower = position.floor().long().clamp(max=max(count - 2, 0))
    return lower, (lower + 1).clamp(max=count - 1), position - lower


def _interpolated(
    values: torch.Tensor, neighbours: tuple[torch.Tensor, torch.Tensor, torch.Tensor], axis: int
) -> torch.Tensor:
    """Values between neighbouring cells along an axis, -2 or -1."""
    lower, upper, weight = neighbours
    if axis == -2:
        weight = weight[:, None]
    return torch.lerp(values.index_select(axis, lower), values.index_select(axis, upper), weight)
