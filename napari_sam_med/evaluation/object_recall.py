"""How many organs are among the objects that were found without a prompt, in 3-D.

As for proposals, recall says what a person would find in the list, not how long the list is: the number of
objects stands beside it, and so do regions of the same number that need no model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from skimage.segmentation import slic

from napari_sam_med.segmentation.automatic.prompt_area import body_mask

if TYPE_CHECKING:
    from napari_sam_med.segmentation.automatic.found_objects import FoundObject
    from napari_sam_med.volume.labels import LabelVolume
    from napari_sam_med.volume.volume import Volume

__all__ = [
    "OrganRecall",
    "intensity_regions",
    "recall",
    "recall_of_objects",
    "recall_of_regions",
    "supervoxels",
]

Regions = npt.NDArray[np.int32]

_BANDS = 8
"""Of the window; 50 HU each in the usual one of the abdomen."""
_SMOOTHING_MM = 2.0
"""Standard deviation: without it the noise of thin slices tears every band to crumbs."""
_COMPACTNESS = 0.1


@dataclass(frozen=True)
class OrganRecall:
    """One organ, and the object that covers it best.

    Attributes
    ----------
    class_id : int
    organ : str
    voxels : int
        Of the organ.
    best_iou : float
        0..1, in 3-D; 0 where no object meets it.
    number : int or None
        Of that object or region.
    """

    class_id: int
    organ: str
    voxels: int
    best_iou: float
    number: int | None


def recall(rows: Sequence[OrganRecall], iou: float = 0.5) -> float:
    """Share of organs that an object covers with at least this IoU; NaN without organs."""
    return float(np.mean([row.best_iou >= iou for row in rows])) if rows else float("nan")


def recall_of_objects(objects: Sequence[FoundObject], labels: LabelVolume) -> list[OrganRecall]:
    """Best object of each organ that is there, ascending by the organ's number.

    Parameters
    ----------
    objects : sequence of FoundObject
        They may overlap.
    labels : LabelVolume
        The truth, on the same grid.
    """
    n_classes = int(labels.data.max()) + 1
    common: dict[int, npt.NDArray[np.int64]] = {}
    for one in objects:
        common[one.number] = np.zeros(n_classes, dtype=np.int64)
        for view, found in one:
            under = view.window_on(labels.data)[found.place][found.pixels]
            common[one.number] += np.bincount(under, minlength=n_classes)
    return _best(common, labels)


def recall_of_regions(regions_zyx: npt.NDArray[np.integer[Any]], labels: LabelVolume) -> list[OrganRecall]:
    """Best region of each organ; regions are numbers (z, y, x), 0 is none."""
    n_classes, n_regions = int(labels.data.max()) + 1, int(regions_zyx.max()) + 1
    pairs = regions_zyx.astype(np.int64) * n_classes + labels.data
    table = np.bincount(pairs.ravel(), minlength=n_regions * n_classes).reshape(n_regions, n_classes)
    return _best({number: table[number] for number in range(1, n_regions)}, labels)


def intensity_regions(volume: Volume, window: tuple[float, float], n_regions: int) -> Regions:
    """The largest connected pieces (z, y, x) of bands of values within the body; no model.

    The scan is smoothed by a Gaussian of 2 mm and its window cut into 8 equal bands.
    """
    low, high = window
    smooth = ndimage.gaussian_filter(
        np.asarray(volume.data, dtype=np.float32), [_SMOOTHING_MM / step for step in volume.spacing]
    )
    bands = np.clip((smooth - low) / (high - low) * _BANDS, -1, _BANDS).astype(np.int32)
    bands[~body_mask(volume)] = -1
    pieces = np.zeros(volume.shape, dtype=np.int32)
    n_pieces = 0
    for band in range(_BANDS):
        found, count = ndimage.label(bands == band)
        pieces[found > 0] = found[found > 0] + n_pieces
        n_pieces += count
    sizes = np.bincount(pieces.ravel(), minlength=n_pieces + 1)
    sizes[0] = 0
    largest = np.argsort(-sizes, kind="stable")[: min(n_regions, n_pieces)]
    renumbered = np.zeros(n_pieces + 1, dtype=np.int32)
    renumbered[largest] = np.arange(1, len(largest) + 1)
    return np.asarray(renumbered[pieces])


def supervoxels(volume: Volume, window: tuple[float, float], n_regions: int) -> Regions:
    """SLIC supervoxels (z, y, x) of the body in a window (Achanta et al., 2012); about so many, no model."""
    low, high = window
    shown = np.clip((np.asarray(volume.data, dtype=np.float32) - low) / (high - low), 0, 1)
    return np.asarray(
        slic(
            shown,
            n_segments=n_regions,
            compactness=_COMPACTNESS,
            spacing=volume.spacing,
            mask=body_mask(volume),
            channel_axis=None,
            start_label=1,
        ),
        dtype=np.int32,
    )


def _best(common: Mapping[int, npt.NDArray[np.int64]], labels: LabelVolume) -> list[OrganRecall]:
    """Of each class the row with the largest IoU; `common` has voxels by class for each region."""
    sizes = np.bincount(labels.data.ravel())
    numbers = list(common)
    table = np.array([common[number] for number in numbers], dtype=np.float64).reshape(-1, len(sizes))
    ious = table / np.maximum(table.sum(axis=1, keepdims=True) + sizes - table, 1)
    rows = []
    for class_id in labels.class_ids():
        best = int(np.argmax(ious[:, class_id])) if numbers else None
        iou = 0.0 if best is None else float(ious[best, class_id])
        rows.append(
            OrganRecall(
                class_id,
                labels.organs.name_of(class_id),
                int(sizes[class_id]),
                iou,
                numbers[best] if best is not None and iou > 0 else None,
            )
        )
    return rows
