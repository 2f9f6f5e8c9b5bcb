"""What a box alone says, without any model: a model that does not beat these is a toy."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["filled_box", "inscribed_ellipse", "tight_box"]

_Bool = npt.NDArray[np.bool_]


def tight_box(mask: npt.ArrayLike) -> npt.NDArray[np.float32]:
    """Box x_min, y_min, x_max, y_max of a mask (H, W), both corners inside.

    Raises
    ------
    ValueError
        When the mask is empty.
    """
    rows, columns = np.nonzero(np.asarray(mask))
    if not len(rows):
        raise ValueError("An empty mask has no box; leave its slice out.")
    return np.array([columns.min(), rows.min(), columns.max(), rows.max()], dtype=np.float32)


def filled_box(box_xyxy: npt.ArrayLike, shape: tuple[int, int]) -> _Bool:
    """Mask (H, W) of all pixels whose centres lie in the box."""
    x0, y0, x1, y1 = np.asarray(box_xyxy, dtype=np.float64)
    y, x = np.ogrid[: shape[0], : shape[1]]
    inside: _Bool = (x >= x0) & (x <= x1) & (y >= y0) & (y <= y1)
    return inside


def inscribed_ellipse(box_xyxy: npt.ArrayLike, shape: tuple[int, int]) -> _Bool:
    """Mask (H, W) of the ellipse that touches the outer edges of the box's pixels."""
    x0, y0, x1, y1 = np.asarray(box_xyxy, dtype=np.float64)
    y, x = np.ogrid[: shape[0], : shape[1]]
    half_x, half_y = (x1 - x0 + 1) / 2, (y1 - y0 + 1) / 2
    inside: _Bool = ((x - (x0 + x1) / 2) / half_x) ** 2 + ((y - (y0 + y1) / 2) / half_y) ** 2 <= 1
    return inside
