"""How many of the true objects are among the first N proposals: average recall, as COCO counts it.

Hosang et al., What makes for effective detection proposals?, TPAMI 2016; COCO's AR. Proposals are taken in
their order; each takes the free true object that it overlaps most, if by the IoU asked for. The recall is
the share of objects taken, averaged over the IoUs 0.50, 0.55 ... 0.95. Classes do not matter.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from napari_sam_med.segmentation.automatic.found_objects import FoundMask

__all__ = [
    "COUNTS",
    "IOU_THRESHOLDS",
    "PUBLISHED",
    "SIZES",
    "Overlaps",
    "RecallMeter",
    "average_recall",
    "overlaps_of",
    "random_boxes",
    "segment_proposals",
    "true_masks",
]

FloatArray = npt.NDArray[np.float64]

IOU_THRESHOLDS: FloatArray = np.linspace(0.5, 0.95, 10)
COUNTS = (10, 100, 1000)
#: Pixels of an object by size; COCO counts both ends in.
SIZES: dict[str, tuple[float, float]] = {
    "all": (0, 1e10),
    "small": (0, 32**2),
    "medium": (32**2, 96**2),
    "large": (96**2, 1e10),
}
#: Mask AR@1000 on LVIS v1 by size, as printed in table 4 of the SAM paper (arXiv 2304.02643).
PUBLISHED: dict[str, dict[str, float]] = {
    "SAM (ViT-H)": {"all": 0.593, "small": 0.455, "medium": 0.816, "large": 0.869},
    "SAM (ViT-H), single output": {"all": 0.549, "small": 0.428, "medium": 0.767, "large": 0.744},
    "ViTDet-H, trained on LVIS": {"all": 0.630, "small": 0.517, "medium": 0.808, "large": 0.870},
}

_NEIGHBOURS = np.ones((3, 3), dtype=bool)
#: Scales of the segments, coarse first, as scikit-image counts them.
_SEGMENT_SCALES = (800, 400, 200, 100, 50, 20)


@dataclass(frozen=True, eq=False)
class Overlaps:
    """Of one image the IoUs of N proposals, best first, with G true objects.

    Attributes
    ----------
    boxes, masks : ndarray (N, G) float64
        Of tangent boxes, and of masks.
    areas : ndarray (G,) int
        Pixels of the true objects.
    """

    boxes: FloatArray
    masks: FloatArray
    areas: npt.NDArray[np.int64]


def true_masks(labels_hw: npt.NDArray[Any], min_area: int = 1) -> list[FoundMask]:
    """The connected pieces (8 neighbours) of the labels above 0 of a slice (H, W), from `min_area` pixels."""
    found = []
    for label in np.unique(labels_hw[labels_hw > 0]).tolist():
        parts, count = ndimage.label(labels_hw == label, _NEIGHBOURS)
        pieces = (parts == part for part in range(1, count + 1))
        found += [FoundMask.of(piece, 1.0, 1.0) for piece in pieces if np.count_nonzero(piece) >= min_area]
    return found


def overlaps_of(found: Sequence[FoundMask], truths: Sequence[FoundMask]) -> Overlaps:
    """The IoUs of proposals, best first, with the true objects of one image."""
    masks = np.array([[one.iou(truth) for truth in truths] for one in found], dtype=np.float64)
    return Overlaps(
        _box_ious(_edges(found), _edges(truths)),
        masks.reshape(len(found), len(truths)),
        np.array([truth.area_px for truth in truths], dtype=np.int64),
    )


def average_recall(
    ious: Iterable[FloatArray],
    areas: Iterable[npt.NDArray[np.int64]],
    most: int,
    size: str = "all",
) -> float | None:
    """Average recall of a set of images.

    Parameters
    ----------
    ious : iterable of ndarray (N, G)
        By image, proposals in the order of their rank.
    areas : iterable of ndarray (G,)
        Pixels of the true objects.
    most : int
        Proposals of an image that count.
    size : {"all", "small", "medium", "large"}
        Of the true objects that are asked for.

    Returns
    -------
    float or None
        0..1; None where there is no such object.
    """
    low, high = SIZES[size]
    taken = np.zeros(len(IOU_THRESHOLDS))
    asked = 0
    for overlaps, pixels in zip(ious, areas, strict=True):
        chosen = overlaps[:most, (pixels >= low) & (pixels <= high)]
        asked += chosen.shape[1]
        taken += [_n_taken(chosen, threshold) for threshold in IOU_THRESHOLDS]
    return float(taken.mean() / asked) if asked else None


def random_boxes(shape: tuple[int, int], count: int, rng: np.random.Generator) -> list[FoundMask]:
    """Filled boxes with corners anywhere on an image (H, W): what needs neither model nor image."""
    corners = np.sort(rng.integers(0, np.array(shape), size=(count, 2, 2)), axis=1)
    found = []
    for (top, left), (bottom, right) in corners.tolist():
        pixels = np.ones((bottom + 1 - top, right + 1 - left), dtype=bool)
        found.append(FoundMask(shape, (top, left), pixels, 0.0, 0.0))
    return found


def segment_proposals(image: npt.NDArray[np.uint8]) -> list[FoundMask]:
    """Segments by Felzenszwalb and Huttenlocher (IJCV 2004) at six scales of an image (H, W, 3), large first.

    They need no model, and are what selective search starts from.
    """
    from skimage.segmentation import felzenszwalb

    seen: dict[tuple[tuple[int, int], bytes], FoundMask] = {}
    for scale in _SEGMENT_SCALES:
        segments = felzenszwalb(image, scale=scale, sigma=0.8, min_size=20)
        for place, number in zip(ndimage.find_objects(segments + 1), range(segments.max() + 1), strict=True):
            pixels = segments[place] == number
            corner = (place[0].start, place[1].start)
            shape = (image.shape[0], image.shape[1])
            seen.setdefault((corner, pixels.tobytes()), FoundMask(shape, corner, pixels, 0.0, 0.0))
    return sorted(seen.values(), key=lambda one: -one.area_px)


class RecallMeter:
    """Measures proposals slice by slice, with two baselines beside: random boxes and segments.

    Parameters
    ----------
    min_area : int
        Pixels that a true object must have.
    seed : int
        Of the random boxes.
    """

    def __init__(self, min_area: int = 1, seed: int = 0) -> None:
        self._min_area = min_area
        self._rng = np.random.default_rng(seed)
        self._overlaps: dict[str, list[Overlaps]] = {}
        self._found: dict[str, int] = {}
        self.n_slices = 0

    def add(
        self,
        proposals: Mapping[str, Sequence[FoundMask]],
        image: npt.NDArray[np.uint8],
        labels_hw: npt.NDArray[Any],
    ) -> bool:
        """Measure one slice; False where its labels show nothing, and it does not count.

        Parameters
        ----------
        proposals : mapping of str to sequence of FoundMask
            By the name of the method, best first.
        image : ndarray (H, W, 3) uint8
            What the model saw.
        labels_hw : ndarray (H, W) of int
        """
        truths = true_masks(labels_hw, self._min_area)
        if not truths:
            return False
        shape = (image.shape[0], image.shape[1])
        baselines = {
            "segments": segment_proposals(image),
            "random boxes": random_boxes(shape, max(COUNTS), self._rng),
        }
        for method, found in (*proposals.items(), *baselines.items()):
            self._overlaps.setdefault(method, []).append(overlaps_of(found, truths))
            self._found[method] = self._found.get(method, 0) + len(found)
        self.n_slices += 1
        return True

    def summary(self) -> dict[str, Any]:
        """Plain values for JSON: ``slices``, ``objects`` by size, and by method ``proposals`` (mean of a
        slice), ``boxes`` and ``masks`` with ``ar@10``, ``ar@100``, ``ar@1000`` and the last by size.
        """
        first = next(iter(self._overlaps.values()), [])
        areas = np.concatenate([np.empty(0, dtype=np.int64), *(one.areas for one in first)])
        methods = {
            method: {
                "proposals": self._found[method] / self.n_slices,
                "boxes": _recalls([one.boxes for one in overlaps], [one.areas for one in overlaps]),
                "masks": _recalls([one.masks for one in overlaps], [one.areas for one in overlaps]),
            }
            for method, overlaps in self._overlaps.items()
        }
        return {
            "slices": self.n_slices,
            "objects": {
                size: int(np.count_nonzero((areas >= low) & (areas <= high)))
                for size, (low, high) in SIZES.items()
            },
            "methods": methods,
            "published": {"LVIS v1, mask AR@1000": PUBLISHED},
        }


def _recalls(ious: Sequence[FloatArray], areas: Sequence[npt.NDArray[np.int64]]) -> dict[str, float | None]:
    by_count = {f"ar@{most}": average_recall(ious, areas, most) for most in COUNTS}
    by_size = {
        f"ar@{COUNTS[-1]}_{size}": average_recall(ious, areas, COUNTS[-1], size)
        for size in SIZES
        if size != "all"
    }
    return by_count | by_size


def _n_taken(ious: FloatArray, threshold: float) -> int:
    """True objects that the proposals take, one after the other; of equal overlaps the last, as COCO does."""
    least = min(threshold, 1 - 1e-10)
    free = ious[(ious >= least).any(axis=1)].copy()
    taken = 0
    for row in range(len(free)):
        best = free.shape[1] - 1 - int(np.argmax(free[row, ::-1]))
        if free[row, best] >= least:
            free[:, best] = -1.0
            taken += 1
    return taken


def _edges(found: Sequence[FoundMask]) -> FloatArray:
    """Outer edges (N, 4) of the tangent boxes: x_min, y_min, x_max, y_max."""
    corners = np.array([one.box_xyxy for one in found], dtype=np.float64).reshape(-1, 4)
    edges: FloatArray = corners + np.array([0, 0, 1, 1])
    return edges


def _box_ious(one: FloatArray, other: FloatArray) -> FloatArray:
    low = np.maximum(one[:, None, :2], other[None, :, :2])
    high = np.minimum(one[:, None, 2:], other[None, :, 2:])
    both = np.prod(np.clip(high - low, 0, None), axis=2)
    areas = [np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) for boxes in (one, other)]
    ious: FloatArray = both / (areas[0][:, None] + areas[1][None] - both)
    return ious
