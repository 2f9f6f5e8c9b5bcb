"""Where in a volume anything is asked: in the body, and in a range of values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from napari_sam_med.errors import PromptError
from napari_sam_med.progress import Progress
from napari_sam_med.segmentation.organ_features import ScanFrame, not_air
from napari_sam_med.volume.slice_view import SliceView

if TYPE_CHECKING:
    from napari_sam_med.volume.volume import Volume

__all__ = ["BODY", "PromptArea", "body_mask"]

Mask = npt.NDArray[np.bool_]

BODY = "looking for the body"
"""Text of the progress of that."""
_BODIES: WeakKeyDictionary[Volume, npt.NDArray[np.uint8]] = WeakKeyDictionary()
"""Bits of each volume's body, for the next search of it: 512 x 512 x 300 voxels take 4 s, and 10 MB here."""


@dataclass(frozen=True, eq=False)
class PromptArea:
    """Which pixels of a slice may be clicked on.

    Attributes
    ----------
    volume : Volume
    body_only : bool
        Only pixels of `body`.
    values : (low, high) or None
        The volume's own values that are asked about, both inside; None for all.
    on_progress : callable or None
        Told while the body is looked for, see `body_mask`.

    Raises
    ------
    PromptError
        When the range of values is empty or no number.
    """

    volume: Volume
    body_only: bool = True
    values: tuple[float, float] | None = None
    on_progress: Callable[[Progress], None] | None = None

    def __post_init__(self) -> None:
        if self.values is not None and not self.values[0] < self.values[1]:
            low, high = self.values
            raise PromptError(f"The range {low:g} to {high:g} holds no value; give the lower one first.")

    @cached_property
    def body(self) -> Mask:
        """See `body_mask`; looked for once for each volume."""
        shape = self.volume.shape
        packed = _BODIES.get(self.volume)
        if packed is None:
            packed = _BODIES[self.volume] = np.packbits(body_mask(self.volume, self.on_progress))
        return np.unpackbits(packed, count=int(np.prod(shape))).reshape(shape).view(np.bool_)

    def on(self, view: SliceView) -> Mask:
        """The pixels (H, W) of a slice that may be clicked on."""
        inside = np.ones(view.slice_shape(self.volume.shape), dtype=bool)
        if self.body_only:
            inside &= view.window_on(self.body)
        if self.values is not None:
            pixels: npt.NDArray[Any] = view.extract(self.volume.data)
            inside &= (pixels >= self.values[0]) & (pixels <= self.values[1])
        return inside


def body_mask(volume: Volume, on_progress: Callable[[Progress], None] | None = None) -> Mask:
    """The largest connected thing of a volume that is not air.

    What is air is told by Hounsfield units, or, where a scan has none, by the window: see `ScanFrame`. Things
    thinner than a couch top are left out, and air inside the body belongs to it; so lungs are asked about,
    and a range of values is what keeps clicks out of them.

    Parameters
    ----------
    volume : Volume
    on_progress : callable, optional
        Told after each slice, with the text `BODY`; an error that it raises ends it.

    Returns
    -------
    ndarray (z, y, x) of bool
        All of the volume where nothing in it is brighter than air.
    """
    frame = ScanFrame.of(volume)
    n_slices = volume.shape[0]
    tell = (lambda done: None) if on_progress is None else _telling(on_progress, 2 * n_slices)
    body = np.zeros(volume.shape, dtype=bool)
    pieces = _Pieces()
    for z in range(n_slices):  # slice by slice, so that a search for it can be followed and ended
        body[z] = not_air(SliceView("axial", z).extract(volume.data), frame)
        pieces.add(body[z])
        tell(z + 1)
    of_largest = pieces.largest()
    if of_largest is None:
        return np.ones(volume.shape, dtype=bool)
    for z, axial in enumerate(body):
        axial[...] = ndimage.binary_fill_holes(of_largest[z][ndimage.label(axial)[0]])
        tell(n_slices + z + 1)
    return body


def _telling(on_progress: Callable[[Progress], None], total: int) -> Callable[[int], None]:
    return lambda done: on_progress(Progress(done, total, BODY))


class _Pieces:
    """The pieces of slices, and which of them touch from slice to slice: voxels that share a face."""

    def __init__(self) -> None:
        self._sizes: list[npt.NDArray[np.int64]] = []
        self._touching: list[npt.NDArray[np.int64]] = []
        self._last: npt.NDArray[np.int64] | None = None
        self._n_pieces = 0

    def add(self, mask: Mask) -> None:
        """The next slice (H, W)."""
        found, count = ndimage.label(mask)
        sizes = np.bincount(found.ravel(), minlength=count + 1)
        sizes[0] = 0  # what is no piece
        numbers = found + np.int64(self._n_pieces)
        numbers[found == 0] = -1
        if self._last is not None:
            both = (numbers >= 0) & (self._last >= 0)
            pairs = np.stack([self._last[both], numbers[both]])
            begins = np.ones(pairs.shape[1], dtype=bool)  # of runs of the same pair: far fewer to sort
            begins[1:] = (pairs[:, 1:] != pairs[:, :-1]).any(axis=0)
            self._touching.append(np.unique(pairs[:, begins], axis=1))
        self._sizes.append(sizes)
        self._last = numbers
        self._n_pieces += count + 1

    def largest(self) -> list[Mask] | None:
        """For each slice which of its pieces, by their number there, are of the largest thing; None where
        there is no piece.
        """
        sizes = np.concatenate(self._sizes)
        if not sizes.any():
            return None
        first, second = np.concatenate([np.empty((2, 0), dtype=np.int64), *self._touching], axis=1)
        links = coo_array((np.ones(len(first), dtype=bool), (first, second)), shape=(len(sizes), len(sizes)))
        count, things = connected_components(links, directed=False)
        largest = int(np.argmax(np.bincount(things, weights=sizes, minlength=count)))
        ends = np.cumsum([len(one) for one in self._sizes])[:-1]
        return list(np.split((things == largest) & (sizes > 0), ends))
