"""What was found before: a corrected key slice is asked anew and changes the gaps beside it, and no other."""

from __future__ import annotations

import hashlib
from collections import OrderedDict, deque
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_sam_med.volume.slice_view import SliceView

if TYPE_CHECKING:
    from napari_sam_med.sam.prompts import Prompts
    from napari_sam_med.segmentation.gaps import Gap, Key
    from napari_sam_med.segmentation.object_masks import FoundSlice

__all__ = ["PropagationCache", "gap_key", "key_slice_key"]

_MOST_GAPS = 512
_MOST_KEY_SLICES = 128
"""Half a megabyte each on slices of 512 x 512."""


class PropagationCache:
    """Answered key slices and slices of filled gaps of one volume; the oldest are forgotten first."""

    def __init__(self, most_gaps: int = _MOST_GAPS) -> None:
        self._most_gaps = most_gaps
        self._gaps: OrderedDict[str, tuple[FoundSlice, ...]] = OrderedDict()
        self._key_slices: OrderedDict[str, Key] = OrderedDict()

    def __len__(self) -> int:
        return len(self._gaps)

    def replay(self, key: str) -> deque[FoundSlice] | None:
        """The slices of a gap in the order in which they were found; None for a gap that is not known."""
        found = self._gaps.get(key)
        if found is None:
            return None
        self._gaps.move_to_end(key)
        return deque(found)

    def keep(self, key: str, slices: Iterable[FoundSlice]) -> None:
        """Remember a gap that was filled to its end."""
        self._gaps[key] = tuple(slices)
        self._gaps.move_to_end(key)
        while len(self._gaps) > self._most_gaps:
            self._gaps.popitem(last=False)

    def key_slice(self, key: str) -> Key | None:
        """A key slice that was answered before; None for one that is not known."""
        known = self._key_slices.get(key)
        if known is None:
            return None
        self._key_slices.move_to_end(key)
        return replace(known, mask=known.mask.copy())

    def keep_key_slice(self, key: str, answered: Key) -> None:
        """Remember an answered key slice."""
        self._key_slices[key] = replace(answered, mask=answered.mask.copy())
        if len(self._key_slices) > _MOST_KEY_SLICES:
            self._key_slices.popitem(last=False)

    def clear(self) -> None:
        """Forget everything, for another volume."""
        self._gaps.clear()
        self._key_slices.clear()


def key_slice_key(view: SliceView, prompts: Prompts | None, drawn: npt.ArrayLike | None, facts: Any) -> str:
    """Digest of everything that a key slice depends on: its prompts or drawn mask, and `facts` by `repr`."""
    given: list[Any] = [drawn]
    if drawn is None and prompts is not None:
        given = [
            prompts.points_xy,
            prompts.point_labels,
            prompts.box_xyxy,
            prompts.mask_input,
            prompts.outline_xy,
        ]
    digest = hashlib.blake2b(repr((view, facts)).encode(), digest_size=20)
    for part in given:
        array = None if part is None else np.ascontiguousarray(part)
        digest.update(repr(None if array is None else (array.shape, array.dtype)).encode())
        digest.update(b"" if array is None else array.tobytes())
    return digest.hexdigest()


def gap_key(gap: Gap, across: Sequence[Key], facts: Any, locked: npt.NDArray[np.bool_] | None) -> str:
    """Digest of everything that the slices of a gap depend on.

    Parameters
    ----------
    gap : Gap
    across : sequence of Key
        Key slices of other planes.
    facts : any
        Whatever else counts; its `repr` tells it apart.
    locked : ndarray (z, y, x) of bool, optional
        Voxels that are not taken; only those on the slices of the gap count.
    """
    given = (gap.plane, gap.indices, gap.end_reason, gap.foretold_end, facts)
    digest = hashlib.blake2b(repr(given).encode(), digest_size=20)
    for key in (gap.low, gap.high, *across):
        digest.update(b"|" if key is None else _key_bytes(key))
    digest.update(repr([(front.direction, front.key.view) for front in gap.fronts]).encode())
    for index in gap.indices if locked is not None else ():
        here = SliceView(gap.plane, index).window_on(locked)
        digest.update(np.packbits(here).tobytes() if here.any() else b"-")
    return digest.hexdigest()


def _key_bytes(key: Key) -> bytes:
    """A key slice; a drawn mask has other logits than the same mask as the model's answer."""
    return repr((key.view, key.iou_prediction is None)).encode() + np.packbits(key.mask).tobytes()
