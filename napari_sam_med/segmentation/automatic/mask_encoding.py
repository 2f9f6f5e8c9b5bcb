"""Masks as run lengths in the order that COCO's tools write them: column by column, background first."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["coco_rle", "mask_of_rle", "uncompressed_rle"]

Mask = npt.NDArray[np.bool_]


def uncompressed_rle(pixels: Mask, corner: tuple[int, int], shape: tuple[int, int]) -> dict[str, Any]:
    """Run lengths of a mask that is known as the part of the slice that it takes up.

    Parameters
    ----------
    pixels : ndarray (h, w) bool
    corner : (row, column)
        First pixel of `pixels` in the slice.
    shape : (H, W)
        Of the slice.

    Returns
    -------
    dict
        ``size`` [H, W] and ``counts``, list of int.
    """
    height, width = shape
    columns = np.pad(pixels.T, ((0, 0), (1, 1))).view(np.int8)
    steps = np.diff(columns, axis=1)
    # a run ends with its column: starts and ends are found column by column
    column, first = np.nonzero(steps == 1)
    _, end = np.nonzero(steps == -1)
    offset = (column + corner[1]) * height + corner[0]
    starts, ends = first + offset, end + offset
    # ... unless it goes on at the top of the next one
    joined = starts[1:] == ends[:-1]
    starts, ends = (
        starts[np.append(True, ~joined)[: len(starts)]],
        ends[np.append(~joined, True)[: len(ends)]],
    )
    marks = np.concatenate([[0], np.stack([starts, ends], axis=1).ravel(), [height * width]])
    counts = np.diff(marks).tolist()
    if len(counts) > 1 and counts[-1] == 0:
        counts.pop()
    return {"size": [height, width], "counts": counts}


def coco_rle(rle: dict[str, Any]) -> dict[str, Any]:
    """Run lengths compressed by pycocotools, with `counts` as text, so that JSON takes them."""
    from pycocotools import mask as coco_masks

    compressed = coco_masks.frPyObjects(rle, *rle["size"])
    return {"size": compressed["size"], "counts": compressed["counts"].decode("ascii")}


def mask_of_rle(rle: dict[str, Any]) -> Mask:
    """The mask (H, W) of uncompressed run lengths."""
    height, width = rle["size"]
    values = np.arange(len(rle["counts"])) % 2 == 1
    return np.repeat(values, rle["counts"]).reshape(width, height).T.copy()
