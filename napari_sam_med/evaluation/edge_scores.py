"""How well edge maps find the borders of labels, as BSDS500 counts it: ODS, OIS, AP and R50.

Arbelaez et al., Contour detection and hierarchical image segmentation, TPAMI 2011; R50 as in Dollar and
Zitnick, TPAMI 2015. An edge map is cut at 99 thresholds, each cut thinned, and its pixels matched one to one
with those of the true borders within a share of the image's diagonal. The benchmark's matching is one of
least cost in which a pair always costs less than two single pixels, so the number of its pairs, which alone
is counted, is that of a largest matching; that is what is computed here, exactly (Hopcroft and Karp 1973).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import maximum_bipartite_matching

from napari_sam_med.segmentation.automatic.edges import sobel_gradient, suppress_non_maxima

__all__ = [
    "MAX_DISTANCES",
    "PUBLISHED",
    "THRESHOLDS",
    "EdgeCounts",
    "EdgeMeter",
    "EdgeScores",
    "canny_edges",
    "count_edges",
    "label_boundaries",
    "score_edges",
    "sobel_edges",
]

Mask = npt.NDArray[np.bool_]
FloatImage = npt.NDArray[np.float32]

THRESHOLDS = np.arange(1, 100) / 100
MAX_DISTANCES = (0.0075, 0.011)
"""Shares of the diagonal within which pixels match: BSDS500's, and that usual for NYUDv2."""

#: ODS, OIS, AP and R50 on BSDS500 as printed in table 3 of the SAM paper (arXiv 2304.02643).
PUBLISHED: dict[str, tuple[float | None, ...]] = {
    "SAM (ViT-H)": (0.768, 0.786, 0.794, 0.928),
    "Canny": (0.600, 0.640, 0.580, None),
    "Sobel filter": (0.539, None, None, None),
}

_RECALLS = np.arange(1, 101) / 100
_CANNY_SIGMA = 1.0
_CANNY_LOW = 0.4
"""Low threshold of the hysteresis by the high one, as in MATLAB's detector."""


@dataclass(frozen=True, eq=False)
class EdgeCounts:
    """Pixels of one image at each threshold.

    Attributes
    ----------
    matched, found : ndarray (T,) int
        Edge pixels with a partner, and all.
    true : int
        Pixels of the true borders.
    """

    matched: npt.NDArray[np.int64]
    found: npt.NDArray[np.int64]
    true: int


@dataclass(frozen=True)
class EdgeScores:
    """The four figures of BSDS500, 0..1.

    Attributes
    ----------
    ods : float
        Best F measure with one threshold for all images.
    ois : float
        With the best threshold of each image.
    ap : float or None
        Mean precision at the recalls 0.01 to 1.00, 0 where a recall is not reached; None for a map of two
        values, which has no curve.
    r50 : float
        Recall at a precision of one half.
    threshold : float
        That of `ods`.
    """

    ods: float
    ois: float
    ap: float | None
    r50: float
    threshold: float


def label_boundaries(labels_hw: npt.NDArray[Any]) -> Mask:
    """Borders (H, W) between labels (H, W) of numbers, one pixel wide.

    A pixel is on a border where its right, lower or lower right neighbour has another number, as in the
    benchmark's ground truth; the border is then thinned.
    """
    from skimage.morphology import thin

    labels = np.pad(labels_hw, ((0, 1), (0, 1)), mode="edge")
    own = labels[:-1, :-1]
    border = (own != labels[:-1, 1:]) | (own != labels[1:, :-1]) | (own != labels[1:, 1:])
    thinned: Mask = thin(border)
    return thinned


def count_edges(
    edges: FloatImage,
    truth: Mask,
    max_distance: float = MAX_DISTANCES[0],
    thresholds: npt.NDArray[np.float64] = THRESHOLDS,
) -> EdgeCounts:
    """Match an edge map with true borders at every threshold.

    Parameters
    ----------
    edges : ndarray (H, W) float32
        0..1.
    truth : ndarray (H, W) bool
    max_distance : float
        Share of the image's diagonal within which two pixels match.
    thresholds : ndarray (T,)
        Ascending.
    """
    return _counted(_cuts(edges, thresholds), truth, max_distance)


def score_edges(
    counts: Sequence[EdgeCounts], thresholds: npt.NDArray[np.float64] = THRESHOLDS
) -> EdgeScores | None:
    """The figures of a set of images; None where none has a border."""
    true = sum(one.true for one in counts)
    if not true:
        return None
    matched, found = sum(one.matched for one in counts), sum(one.found for one in counts)
    precision, recall = _shares(np.asarray(matched), np.asarray(found)), np.asarray(matched) / true
    f_measures = _f_measure(precision, recall)
    best = [int(np.argmax(_f_measure(_shares(one.matched, one.found), one.matched / max(one.true, 1))))
            for one in counts]  # fmt: skip
    own_matched = sum(int(one.matched[i]) for one, i in zip(counts, best, strict=True))
    own_found = sum(int(one.found[i]) for one, i in zip(counts, best, strict=True))
    return EdgeScores(
        ods=float(f_measures.max()),
        ois=2 * own_matched / (own_found + true),
        ap=_average_precision(precision, recall),
        r50=_recall_at_half(precision, recall),
        threshold=float(thresholds[int(np.argmax(f_measures))]),
    )


def sobel_edges(grey: npt.NDArray[Any]) -> FloatImage:
    """Edges 0..1 of an image (H, W) by the Sobel filter, thinned by non-maximum suppression."""
    return _thinned(sobel_gradient(grey))


def canny_edges(grey: npt.NDArray[Any]) -> FloatImage:
    """Edges 0..1 of an image (H, W) by Canny's detector: the highest threshold at which a pixel is an edge.

    Gaussian smoothing of one pixel, Sobel filter, non-maximum suppression, and hysteresis whose low threshold
    is 0.4 of the high one.
    """
    smooth = ndimage.gaussian_filter(np.asarray(grey, dtype=np.float32), _CANNY_SIGMA, mode="nearest")
    ridges = _thinned(sobel_gradient(smooth))
    edges = np.zeros_like(ridges)
    for threshold in THRESHOLDS:
        parts, count = ndimage.label(ridges >= _CANNY_LOW * threshold, np.ones((3, 3)))
        is_kept = np.zeros(count + 1, dtype=bool)
        is_kept[parts[ridges >= threshold]] = True
        edges[is_kept[parts]] = threshold
    return edges


class EdgeMeter:
    """Measures a model's edges slice by slice, with the Sobel filter and Canny's detector beside it.

    Parameters
    ----------
    model : str
        Its name in the results.
    """

    def __init__(self, model: str) -> None:
        self._methods = (model, "canny", "sobel")
        self._counts: dict[tuple[float, str], list[EdgeCounts]] = {}
        self._reach_px: dict[float, set[float]] = {}
        self.n_slices = 0

    def add(self, edges: FloatImage, image: npt.NDArray[np.uint8], labels_hw: npt.NDArray[Any]) -> bool:
        """Measure one slice; False where its labels have no border, and it does not count.

        Parameters
        ----------
        edges : ndarray (H, W) float32
            The model's, 0..1.
        image : ndarray (H, W, 3) uint8
            What the model saw.
        labels_hw : ndarray (H, W) of int
        """
        truth = label_boundaries(labels_hw)
        if not truth.any():
            return False
        grey = image.mean(axis=2, dtype=np.float32)
        maps = dict(zip(self._methods, (edges, canny_edges(grey), sobel_edges(grey)), strict=True))
        cuts = {method: _cuts(one, THRESHOLDS) for method, one in maps.items()}
        for distance in MAX_DISTANCES:
            reach = round(distance * float(np.hypot(*truth.shape)), 2)
            self._reach_px.setdefault(distance, set()).add(reach)
            for method, one in cuts.items():
                self._counts.setdefault((distance, method), []).append(_counted(one, truth, distance))
        self.n_slices += 1
        return True

    def summary(self) -> dict[str, Any]:
        """Plain values for JSON: ``slices``, and under ``max_distance`` by share of the diagonal ``pixels``
        and, by method, ``ods``, ``ois``, ``ap``, ``r50`` and ``threshold``; ``published`` beside.
        """
        by_distance: dict[str, Any] = {}
        for (distance, method), counts in self._counts.items():
            scores = score_edges(counts)
            entry = by_distance.setdefault(f"{distance:g}", {"pixels": sorted(self._reach_px[distance])})
            entry[method] = None if scores is None else _plain(scores)
        published = {
            name: dict(zip(("ods", "ois", "ap", "r50"), figures, strict=True))
            for name, figures in PUBLISHED.items()
        }
        return {"slices": self.n_slices, "max_distance": by_distance, "published": {"BSDS500": published}}


def _cuts(edges: FloatImage, thresholds: npt.NDArray[np.float64]) -> list[Mask]:
    """What is left of an edge map at each threshold, thinned; equal cuts are one and the same array."""
    from skimage.morphology import thin

    cuts: list[Mask] = []
    last = -1
    for threshold in thresholds:
        cut = edges >= np.float32(threshold)  # a map of thresholds reaches each of them
        size = int(np.count_nonzero(cut))
        cuts.append(cuts[-1] if size == last else thin(cut))  # cuts nest: as many pixels are the same pixels
        last = size
    return cuts


def _counted(cuts: Sequence[Mask], truth: Mask, max_distance: float) -> EdgeCounts:
    reach = max_distance * float(np.hypot(*truth.shape))
    matched: list[int] = []
    for number, lines in enumerate(cuts):
        is_known = number > 0 and lines is cuts[number - 1]
        matched.append(matched[-1] if is_known else _pairs(lines, truth, reach))
    found = [int(np.count_nonzero(lines)) for lines in cuts]
    return EdgeCounts(np.array(matched), np.array(found), int(np.count_nonzero(truth)))


def _plain(scores: EdgeScores) -> dict[str, float | None]:
    return {
        "ods": scores.ods,
        "ois": scores.ois,
        "ap": scores.ap,
        "r50": scores.r50,
        "threshold": scores.threshold,
    }


def _thinned(gradient: FloatImage) -> FloatImage:
    strength: FloatImage = np.hypot(*gradient)
    highest = float(strength.max())
    return suppress_non_maxima(strength / np.float32(highest) if highest > 0 else strength, gradient)


def _pairs(found: Mask, truth: Mask, reach: float) -> int:
    """Pairs of a largest one-to-one matching of pixels that lie no farther apart than `reach`."""
    n_found, n_true = int(np.count_nonzero(found)), int(np.count_nonzero(truth))
    if not n_found or not n_true:
        return 0
    steps = int(reach)
    numbers = np.full((truth.shape[0], truth.shape[1]), -1, dtype=np.int32)
    numbers[truth] = np.arange(n_true)
    numbers = np.pad(numbers, steps, constant_values=-1)
    rows, columns = np.nonzero(found)
    near = [
        (y, x)
        for y in range(-steps, steps + 1)
        for x in range(-steps, steps + 1)
        if y * y + x * x <= reach * reach
    ]
    partners = np.stack([numbers[rows + steps + y, columns + steps + x] for y, x in near], axis=1)
    of, which = np.nonzero(partners >= 0)
    links = csr_matrix((np.ones(len(of), dtype=bool), (of, partners[of, which])), shape=(n_found, n_true))
    return int(np.count_nonzero(maximum_bipartite_matching(links, perm_type="column") >= 0))


def _shares(part: npt.NDArray[Any], whole: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    shares: npt.NDArray[np.float64] = part / np.maximum(whole, 1)
    return shares


def _f_measure(
    precision: npt.NDArray[np.float64], recall: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    total = precision + recall
    f: npt.NDArray[np.float64] = 2 * precision * recall / np.where(total > 0, total, 1)
    return f


def _average_precision(precision: npt.NDArray[np.float64], recall: npt.NDArray[np.float64]) -> float | None:
    """The curve drawn through its points, the highest precision of equal recalls."""
    points = sorted({r: max(precision[recall == r]) for r in recall.tolist()}.items())
    if len(points) < 2:
        return None
    x, y = np.array(points).T
    return float(np.interp(_RECALLS, x, y, left=0.0, right=0.0).mean())


def _recall_at_half(precision: npt.NDArray[np.float64], recall: npt.NDArray[np.float64]) -> float:
    """Interpolated between precisions; the recall of the lowest where all are higher, 0 where none is."""
    points = sorted({p: max(recall[precision == p]) for p in precision.tolist()}.items())
    x, y = np.array(points).T
    return 0.0 if x[-1] < 0.5 else float(np.interp(max(0.5, x[0]), x, y))
