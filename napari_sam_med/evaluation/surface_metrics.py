"""How far the outline of an answer lies from the true one on a slice: NSD and the 95 % Hausdorff distance.

Both follow MONAI (`compute_surface_dice`, `compute_hausdorff_distance`), and agree with it: the outline of a
mask is those of its pixels that have a neighbour (of 4) outside the mask, the image ends in background, and
distances run between the centres of such pixels, in millimetres. Here the outline of the truth is found once
for all answers to it. Definitions: Maier-Hein et al., Metrics reloaded, Nature Methods 21, 2024.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.spatial import KDTree

__all__ = ["NSD_TOLERANCE_MM", "TrueOutline"]

Mask = npt.NDArray[np.bool_]

NSD_TOLERANCE_MM = 2.0
_PERCENTILE = 95


class TrueOutline:
    """The outline of a true mask, against which answers are measured.

    Parameters
    ----------
    truth : array (H, W) bool
    spacing : (row, column)
        Millimetres.
    tolerance_mm : float
        Of the normalised surface distance.
    """

    def __init__(
        self, truth: Mask, spacing: tuple[float, float], tolerance_mm: float = NSD_TOLERANCE_MM
    ) -> None:
        self._spacing = np.asarray(spacing, dtype=np.float64)
        self._tolerance = tolerance_mm
        self._places = self._outline(truth)
        self._tree = KDTree(self._places) if len(self._places) else None

    def score(self, found: Mask) -> tuple[float, float | None]:
        """NSD and HD95 of an answer.

        Parameters
        ----------
        found : array (H, W) bool

        Returns
        -------
        nsd : float
            The share of the pixels of both outlines that lie within the tolerance of the other outline, 0 to
            1; 1 when both masks are empty, 0 when one is.
        hd95_mm : float or None
            The larger of the 95th percentiles of the distances from one outline to the other; 0 when both
            masks are empty, None when one is, for then there is no distance.
        """
        places = self._outline(found)
        if self._tree is None or not len(places):
            same = self._tree is None and not len(places)
            return (1.0, 0.0) if same else (0.0, None)
        there = np.asarray(self._tree.query(places)[0])
        back = np.asarray(KDTree(places).query(self._places)[0])
        within = np.count_nonzero(there <= self._tolerance) + np.count_nonzero(back <= self._tolerance)
        distance = max(np.percentile(there, _PERCENTILE), np.percentile(back, _PERCENTILE))
        return float(within) / (len(there) + len(back)), float(distance)

    def _outline(self, mask: Mask) -> npt.NDArray[np.float64]:
        """Centres (N, 2) of the pixels of the outline, mm."""
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        if not len(rows):
            return np.empty((0, 2))
        low = np.array([rows[0], columns[0]])
        whole = np.pad(mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1], 1)
        inside = whole[1:-1, 1:-1]
        deep = whole[:-2, 1:-1] & whole[2:, 1:-1] & whole[1:-1, :-2] & whole[1:-1, 2:]
        places: npt.NDArray[np.float64] = (np.argwhere(inside & ~deep) + low) * self._spacing
        return places
