"""What looks wrong though it runs: labels given as the volume, and objects that are hardly what was meant."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from napari_sam_med.volume.volume import Volume

__all__ = ["doubtful_objects", "looks_like_labels"]

_SAMPLED_SLICES = 12
_MOST_LABELS = 64
_LEAST_FLATNESS = 0.5
"""Share of neighbours that are equal where either is above 0: about 0.9 in label maps, below 0.3 in scans."""

_POOR_QUALITY = 0.3
_FAIR_QUALITY = 0.6
_MOST_FILLED = 0.5
"""Share of the volume that an organ may fill before an object that nothing stopped is doubted."""
_LEAST_SLICES = 4
_ENDS = {"start of the volume", "end of the volume"}


def looks_like_labels(volume: Volume) -> bool:
    """Whether a sample of the volume holds a few small whole numbers in flat patches, as label maps do."""
    n_slices = volume.shape[0]
    chosen = np.unique(np.linspace(0, n_slices - 1, min(n_slices, _SAMPLED_SLICES)).astype(int))
    values: set[float] = set()
    equal, pairs = 0, 0
    for index in chosen:
        image = np.asarray(volume.data[int(index)])
        found = np.unique(image)
        if len(found) > _MOST_LABELS or found[0] < 0 or (found != np.floor(found)).any():  # NaN too
            return False
        values.update(found.tolist())
        before, after = image[:, :-1], image[:, 1:]
        inside = (before > 0) | (after > 0)
        pairs += int(np.count_nonzero(inside))
        equal += int(np.count_nonzero(inside & (before == after)))
    return 2 <= len(values) <= _MOST_LABELS and equal >= _LEAST_FLATNESS * max(pairs, 1)


def doubtful_objects(report: dict[str, Any], shape_zyx: tuple[int, ...]) -> list[str]:
    """One line for each object of a report that a person should look at.

    Parameters
    ----------
    report : dict
        See `report_of`.
    shape_zyx : tuple of int
        Of the volume.

    Returns
    -------
    list of str
    """
    said = (_doubt(entry, math.prod(shape_zyx)) for entry in report["objects"])
    return [line for line in said if line]


def _doubt(entry: dict[str, Any], n_voxels: int) -> str | None:
    qualities = [row["quality"] for row in entry["slices"]]
    if not entry["voxels"]:
        return None  # empty objects are told of already
    quality = sum(qualities) / len(qualities)
    name = f"{entry['name']} (label {entry['label']})"
    if quality < _POOR_QUALITY:
        return (
            f"{name} is of poor quality ({quality:.2f} on average); look at it, and prompt it more tightly "
            "or on another slice"
        )
    endless = len(qualities) >= _LEAST_SLICES and _ENDS.issuperset(entry["stop_reasons"].values())
    if endless and (quality < _FAIR_QUALITY or entry["voxels"] > _MOST_FILLED * n_voxels):
        return (
            f"{name} fills every slice of the volume: nothing stopped it; look at it, and prompt it where "
            "it begins and ends"
        )
    return None
