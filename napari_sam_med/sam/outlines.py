"""Outlines: polygons (N, 2) of corners x, y in pixels of a slice, closed by themselves."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["mask_of_outline", "simplified_outline"]

_TOLERANCE_PX = 0.5
"""A corner that changes the outline by less than this tells a model nothing."""


def mask_of_outline(outline_xy: npt.NDArray[Any], shape: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """Pixels (H, W) whose centres lie inside an outline (N, 2), or on it.

    What lies outside the slice is left out. Where the outline goes around twice, as the overlapping ends of a
    lasso do, is inside as well.
    """
    from skimage.draw import polygon2mask

    (x0, y0), (x1, y1) = outline_xy.T, np.roll(outline_xy, -1, axis=0).T
    rows = np.arange(shape[0])[:, None]
    turn = ((y0 <= rows) & (rows < y1)).astype(int) - ((y1 <= rows) & (rows < y0))  # down or up across a row
    row, edge = np.nonzero(turn)
    x = x0[edge] + (row - y0[edge]) * ((x1 - x0)[edge] / (y1 - y0)[edge])
    turns = np.zeros((shape[0], shape[1] + 1), dtype=int)
    np.add.at(turns, (row, np.clip(np.ceil(x), 0, shape[1]).astype(int)), turn[row, edge])
    inside: npt.NDArray[np.bool_] = turns.cumsum(axis=1)[:, :-1] != 0
    inside |= polygon2mask(shape, outline_xy[:, ::-1])  # which has the pixels on the edges too
    return inside


def simplified_outline(outline_xy: npt.NDArray[Any]) -> npt.NDArray[Any] | None:
    """An outline by the fewest of its own corners, to half a pixel; None when no area is left of it.

    Simplified again it stays as it is. Ramer, Douglas and Peucker's rule, which scikit-image has too; but
    loading that takes 0.7 s, after the user's first lasso.
    """
    ring = np.concatenate([outline_xy, outline_xy[:1]])
    kept, open_parts = {0}, [(0, len(outline_xy))]
    while open_parts:
        first, last = open_parts.pop()
        away = _distance_to_line(ring[first + 1 : last], ring[first], ring[last])
        if len(away) and away.max() > _TOLERANCE_PX:
            farthest = first + 1 + int(away.argmax())
            kept.add(farthest)
            open_parts += [(first, farthest), (farthest, last)]
    return outline_xy[sorted(kept)] if len(kept) >= 3 else None


def _distance_to_line(
    points: npt.NDArray[Any], start: npt.NDArray[Any], end: npt.NDArray[Any]
) -> npt.NDArray[np.float64]:
    """Distances (N,) of points (N, 2) to the nearest place between two points."""
    way = end - start
    share = np.clip((points - start) @ way / max(float(way @ way), 1e-12), 0, 1)
    distance: npt.NDArray[np.float64] = np.linalg.norm(points - start - share[:, None] * way, axis=1)
    return distance
