"""Runs of slices between key slices, and the fronts that work their way into them."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from napari_sam_med.segmentation.slice_evidence import Appearance
from napari_sam_med.volume.slice_view import Plane, SliceView

if TYPE_CHECKING:
    from napari_sam_med.segmentation.interpolation import ShapePrior
    from napari_sam_med.segmentation.object_masks import FoundSlice
    from napari_sam_med.volume.volume import Volume

__all__ = ["TAPERED", "Front", "Gap", "Key", "gaps_between"]

TAPERED = "the areas of the key slices fall to nothing here"
"""Reason of an end that several key slices foretell."""
_FALLING = 0.9
_CONFIDENT = 0.8
"""Quality of an answer that outweighs the foretold end: leaks beyond it had less on the tuning cases."""
_LEAST_BASE = 3
_LEAST_PIXELS = 4
_LEAST_SHARE = 0.02
"""An object of less than this share of its largest area has vanished."""

Way = Literal["forward", "backward"]


@dataclass(frozen=True, eq=False)
class Key:
    """A key slice: a mask that propagation starts from and never changes.

    Attributes
    ----------
    view : SliceView
    mask : ndarray (H, W) of bool
    logits : ndarray (h, w) of float32 or None
        None where the mask is empty.
    quality : float
    iou_prediction : float or None
        None for a mask drawn by hand.
    reason : str or None
        Why nothing starts here.
    appearance : Appearance
    """

    view: SliceView
    mask: npt.NDArray[np.bool_]
    logits: npt.NDArray[np.float32] | None
    quality: float
    iou_prediction: float | None
    reason: str | None
    appearance: Appearance


@dataclass(eq=False)
class Front:
    """The last slice that one direction reached in a gap, and how the mask moved on the way there.

    Attributes
    ----------
    direction : {"forward", "backward"}
    key : Key
        Where it started.
    index : int
    mask, logits
        As on that slice.
    velocity_xy : ndarray (2,) of float64
        Motion of the centroid in pixels a slice, smoothed.
    largest_px : int
        Largest area so far.
    doubts : list of (SliceView, str)
        Slices stepped over since, each with what spoke against its mask.
    """

    direction: Way
    key: Key
    index: int
    mask: npt.NDArray[np.bool_]
    logits: npt.NDArray[np.float32] | None
    velocity_xy: npt.NDArray[np.float64] = field(default_factory=lambda: np.zeros(2))
    largest_px: int = 0
    doubts: list[tuple[SliceView, str]] = field(default_factory=list)
    active: bool = True

    @classmethod
    def at(cls, key: Key, direction: Way) -> Front:
        """Start at a key slice."""
        area = int(np.count_nonzero(key.mask))
        return cls(direction, key, key.view.index, key.mask, key.logits, largest_px=area)

    @property
    def least_px(self) -> float:
        """An object of less area has vanished."""
        return max(_LEAST_PIXELS, _LEAST_SHARE * self.largest_px)

    @property
    def step(self) -> int:
        return 1 if self.direction == "forward" else -1

    @property
    def ahead(self) -> int:
        """Index of the next slice to answer."""
        return self.index + self.step * (len(self.doubts) + 1)


@dataclass(eq=False)
class Gap:
    """Slices between two key slices, or between one and the end of the range.

    Attributes
    ----------
    indices : range
    low, high : Key or None
        Key slices at its ends; None at the end of the range.
    fronts : list of Front
    end_reason : str or None
        Said on the last slice of an open gap.
    prior : ShapePrior or None
        Shape expected between two key slices.
    done : set of int
    replay : deque of FoundSlice or None
        What is known of it from an earlier run.
    foretold_end : int or None
        Slice where the areas of the key slices fall to nothing; only sure answers lead beyond it.
    cache_key : str or None
        Under which its slices are remembered; None where they depend on other objects of the run.
    """

    plane: Plane
    indices: range
    low: Key | None
    high: Key | None
    fronts: list[Front]
    end_reason: str | None
    prior: ShapePrior | None = None
    done: set[int] = field(default_factory=set)
    replay: deque[FoundSlice] | None = None
    foretold_end: int | None = None
    cache_key: str | None = None

    @property
    def is_closed(self) -> bool:
        """Whether the object is known at both ends."""
        return len(self.fronts) == 2

    @property
    def n_remaining(self) -> int:
        """Slices that may still come."""
        if self.replay is not None:
            return len(self.replay)
        return len(self.indices) - len(self.done) if any(f.active for f in self.fronts) else 0

    def is_past_end(self, front: Front, index: int) -> bool:
        """Whether a front that reaches this slice is where the key slices foretell the end, or beyond."""
        return self.foretold_end is not None and (index - self.foretold_end) * front.step >= 0

    def ends_at(self, front: Front, quality: float) -> str | None:
        """Why a front goes no further than the slice it is on, given its quality; None when it goes on."""
        if front.index + front.step not in self.indices:
            return self.end_reason
        is_sure = quality >= _CONFIDENT and np.count_nonzero(front.mask) <= np.count_nonzero(front.key.mask)
        return TAPERED if self.is_past_end(front, front.index) and not is_sure else None

    def next_steps(self) -> Iterator[tuple[Front, SliceView]]:
        """The fronts that go on, each with its next slice; every slice once."""
        taken: set[int] = set()
        for front in self.fronts:
            index = front.ahead
            if not front.active or index in taken:
                continue
            if index not in self.indices or index in self.done:
                front.active = False
                continue
            taken.add(index)
            yield front, SliceView(self.plane, index)

    def fraction(self, index: int) -> float:
        """Where a slice lies between the two key slices, 0..1."""
        assert self.low is not None  # asked for closed gaps alone
        assert self.high is not None
        low, high = self.low.view.index, self.high.view.index
        return (index - low) / (high - low)


def gaps_between(
    keys: list[Key],
    volume: Volume,
    limits: tuple[int | None, int | None],
    directions: Collection[str],
    taper: float = 0.0,
) -> list[Gap]:
    """Runs of slices to fill from the key slices of one plane (in order of index), with their fronts.

    Parameters
    ----------
    keys : list of Key
    volume : Volume
    limits : (int or None, int or None)
        First and last slice that may be filled.
    directions : collection of {"forward", "backward"}
        Which way to leave the outermost key slices.
    taper : float
        Where the areas of the two outermost key slices fall, go on so many times as far as the line through
        them takes to reach nothing, and beyond by confident answers no larger than the mask of their
        key slice; 0 for no such limit.
    """
    plane = keys[0].view.plane
    n_slices = volume.shape[keys[0].view.axis]
    first = max(0, limits[0] if limits[0] is not None else 0)
    last = min(n_slices - 1, limits[1] if limits[1] is not None else n_slices - 1)

    def fronts(key: Key | None, direction: Way) -> list[Front]:
        return [] if key is None or not key.mask.any() else [Front.at(key, direction)]

    def gap(low: Key | None, high: Key | None, end_reason: str | None) -> Gap:
        after = -1 if low is None else low.view.index
        before = n_slices if high is None else high.view.index
        indices = range(max(first, after + 1), min(last + 1, before))
        return Gap(plane, indices, low, high, fronts(low, "forward") + fronts(high, "backward"), end_reason)

    gaps = []
    if "backward" in directions:
        reason = "start of the volume" if first == 0 else "start of the chosen range"
        gaps.append(_tapered(gap(None, keys[0], reason), keys, taper))
    gaps += [gap(before, after, None) for before, after in pairwise(keys)]
    if "forward" in directions:
        reason = "end of the volume" if last == n_slices - 1 else "end of the chosen range"
        gaps.append(_tapered(gap(keys[-1], None, reason), keys[::-1], taper))
    return gaps


def _tapered(gap: Gap, keys: Sequence[Key], taper: float) -> Gap:
    """An open gap, with the end that the areas of its key slices foretell, outermost first."""
    if len(keys) < 2 or not taper:
        return gap
    outer, inner = (int(np.count_nonzero(key.mask)) for key in keys[:2])
    if not 0 < outer < _FALLING * inner:
        return gap
    distance = abs(keys[1].view.index - keys[0].view.index)
    if distance < _LEAST_BASE:  # too near to each other to tell where the line goes
        return gap
    reach = max(1, round(taper * distance * outer / (inner - outer)))
    if reach < len(gap.indices):
        gap.foretold_end = gap.indices[reach - 1 if gap.high is None else -reach]
    return gap
