"""Regular grids of points over the unit square."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["Points", "lie_in", "point_grid", "point_grids"]

Points = npt.NDArray[np.float64]
"""(N, 2) x, y."""


def point_grid(points_per_side: int) -> Points:
    """Centres of n x n equal cells of the unit square, as (n * n, 2) x, y, row by row."""
    margin = 1 / (2 * points_per_side)
    centres = np.linspace(margin, 1 - margin, points_per_side)
    y, x = np.meshgrid(centres, centres, indexing="ij")
    return np.stack([x.ravel(), y.ravel()], axis=1)


def point_grids(points_per_side: int, crop_n_layers: int, downscale_factor: int) -> list[Points]:
    """Grids for the whole image and for each layer of crops, each coarser by `downscale_factor`."""
    return [
        point_grid(max(1, points_per_side // downscale_factor**layer)) for layer in range(crop_n_layers + 1)
    ]


def lie_in(points_xy: Points, where: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Which points (N, 2) x, y, in pixels, have a nearest pixel that is True in `where` (H, W)."""
    limits = np.array([where.shape[1], where.shape[0]]) - 1
    x, y = np.clip(np.rint(points_xy).astype(int), 0, limits).T
    inside: npt.NDArray[np.bool_] = where[y, x]
    return inside
