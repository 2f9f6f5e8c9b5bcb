"""Small OME-Zarr images, written with zarr alone, as other programs write them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import zarr

__all__ = ["WORDS_LPS", "write_image"]

WORDS_LPS = ("inferior-to-superior", "anterior-to-posterior", "right-to-left")


def write_image(
    path: Path,
    levels: Sequence[np.ndarray],
    *,
    version: str = "0.5",
    names: str = "zyx",
    scale: Sequence[float] = (2.0, 1.5, 1.0),
    translation: Sequence[float] | None = (-30.0, 20.0, 10.0),
    unit: str | None = "millimeter",
    words: Sequence[str] | None = WORDS_LPS,
    chunks: tuple[int, ...] | None = None,
    more: dict[str, Any] | None = None,
) -> Path:
    """Write levels, of which each is half as fine as the one before."""
    kinds = {"t": "time", "c": "channel"}
    axes: list[dict[str, Any]] = [{"name": name, "type": kinds.get(name, "space")} for name in names]
    space = [axis for axis in axes if axis["type"] == "space"]
    for number, axis in enumerate(space):
        if unit is not None:
            axis["unit"] = unit
        if words is not None:
            axis["orientation"] = {"type": "anatomical", "value": words[number]}
    group = zarr.open_group(path, mode="w", zarr_format=3 if version == "0.5" else 2)
    datasets = []
    others = [1.0] * (len(names) - len(space))
    for number, data in enumerate(levels):
        factor = levels[0].shape[-1] / data.shape[-1]
        steps: list[dict[str, Any]] = [{"type": "scale", "scale": others + [factor * s for s in scale]}]
        if translation is not None:
            steps.append({"type": "translation", "translation": [0.0] * len(others) + list(translation)})
        datasets.append({"path": str(number), "coordinateTransformations": steps})
        array = group.create_array(
            str(number), shape=data.shape, dtype=data.dtype, chunks=chunks or data.shape
        )
        array[...] = data
    image: dict[str, Any] = {"axes": axes, "datasets": datasets, **(more or {})}
    if version == "0.5":
        group.attrs["ome"] = {"version": version, "multiscales": [image]}
    else:
        group.attrs["multiscales"] = [{"version": version, **image}]
    return path
