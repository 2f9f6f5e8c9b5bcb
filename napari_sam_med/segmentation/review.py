"""Where to look next: which slice of a carried object most likely holds the largest error.

A slice's expected number of wrong pixels is its area times its doubt. What is proposed is the centre of a run
of slices between key slices and not the single worst one, because a correction there helps the whole run;
slices beside a key slice are left alone, because that key slice already helps them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from napari_sam_med.segmentation.gaps import TAPERED
from napari_sam_med.volume.slice_view import SliceView

__all__ = [
    "NATURAL_ENDS",
    "Proposal",
    "SliceDoubt",
    "next_doubtful",
    "proposals",
    "slice_doubts",
    "worth_a_look",
]

NATURAL_ENDS = frozenset(
    {
        "the mask vanished",
        "start of the volume",
        "end of the volume",
        "start of the chosen range",
        "end of the chosen range",
        TAPERED,
    }
)
"""Stop reasons that leave no doubt whether the object goes on."""

_LEAST_SHARE = 0.01
"""Share of an object below which an expected error is hardly worth a person's look,"""
_POOR_QUALITY = 0.5
"""unless a slice there is worse than this."""
_LEAST_DISTANCE = 2
_END_SPAN_SHARE = 0.25
"""Of the slices found so far: so many may be missing beyond a doubtful end."""
_LEAST_MISSING = 2
_END_DOUBT = 0.1
"""Chance of one fifth that the object goes on, times one half because it tapers off towards its end."""


class CarriedSlice(Protocol):
    """The part of `PropagatedSlice` and `FoundSlice` that is needed here."""

    @property
    def view(self) -> SliceView: ...
    @property
    def mask(self) -> npt.NDArray[np.bool_]: ...
    @property
    def quality(self) -> float: ...
    @property
    def source(self) -> str: ...
    @property
    def reason(self) -> str | None: ...


@dataclass(frozen=True)
class SliceDoubt:
    """What is known of one slice of one object in one plane.

    Attributes
    ----------
    index : int
        Canonical index of the slice.
    area : float
        Of the mask, in mm² or pixels, the same for all slices; 0 where a direction stopped.
    quality : float
        0 (worthless) to 1 (sure).
    disagreement : float
        1 - Dice of the forward and the backward pass, 0 to 1; 0 where there is one pass.
    is_key : bool
        Prompted, drawn or accepted by the user.
    stop_reason : str or None
        Why propagation ended here.
    """

    index: int
    area: float
    quality: float
    disagreement: float = 0.0
    is_key: bool = False
    stop_reason: str | None = None

    @property
    def expected_error(self) -> float:
        """Area that is expected to be wrong: 0 on a key slice."""
        if self.is_key:
            return 0.0
        return self.area * (0.5 * (1 - self.quality) + 0.5 * self.disagreement)


@dataclass(frozen=True)
class Proposal:
    """A slice worth a look.

    Attributes
    ----------
    index : int
        Canonical index.
    kind : {"run", "end"}
        The slice that halves the expected error of a run between key slices, or a place where propagation
        ended although the object may go on.
    expected_error : float
        Of the run, or of what may be missing beyond the end; in the unit of the areas.
    first_index, last_index : int
        The run, both inside; the slice itself for an end.
    """

    index: int
    kind: Literal["run", "end"]
    expected_error: float
    first_index: int
    last_index: int


def slice_doubts(slices: Iterable[CarriedSlice], pixel_area: float = 1.0) -> list[SliceDoubt]:
    """What a propagation said of one object, as input of `next_doubtful`.

    Parameters
    ----------
    slices : iterable of PropagatedSlice or FoundSlice
        Of one object; of several planes, those of the one that has most are taken.
    pixel_area : float
        Of a pixel, in mm², for areas in mm².

    Returns
    -------
    list of SliceDoubt
        By ascending index; of a slice that comes twice the later one counts.
    """
    given = list(slices)
    planes = [one.view.plane for one in given]
    latest = {one.view.index: one for one in given if planes.count(one.view.plane) == _most(planes)}
    return [
        SliceDoubt(
            index=index,
            area=float(np.count_nonzero(one.mask)) * pixel_area,
            quality=one.quality,
            is_key=one.source == "prompt",
            stop_reason=one.reason,
        )
        for index, one in sorted(latest.items())
    ]


def next_doubtful(
    slices: Sequence[SliceDoubt], keys: Collection[int] = (), *, n_slices: int | None = None
) -> Proposal | None:
    """The slice that is most worth a look; None when nothing is in doubt. Parameters as in `proposals`."""
    found = proposals(slices, keys, n_slices=n_slices)
    return found[0] if found else None


def proposals(
    slices: Sequence[SliceDoubt], keys: Collection[int] = (), *, n_slices: int | None = None
) -> list[Proposal]:
    """Slices worth a look, the one with the largest expected error first.

    Nothing within 2 slices of a key slice is proposed, unless a run is too short for anything else.

    Parameters
    ----------
    slices : sequence of SliceDoubt
        Of one object in one plane.
    keys : collection of int
        Indices of further key slices, such as slices that the user has accepted since.
    n_slices : int, optional
        Number of slices of the volume: what lies outside is not proposed.

    Returns
    -------
    list of Proposal
        At most one a run and one an end.
    """
    by_index = {one.index: one for one in slices}
    fixed = {*keys, *(one.index for one in slices if one.is_key)}
    found = [*_runs(by_index, fixed), *_ends(by_index, fixed, n_slices)]
    return sorted(found, key=lambda one: (-one.expected_error, one.index))


def worth_a_look(
    slices: Sequence[SliceDoubt], keys: Collection[int] = (), *, n_slices: int | None = None
) -> list[Proposal]:
    """The proposals that a person should see before an object counts as done; parameters as in `proposals`.

    All ends that are in doubt, and runs in which a hundredth of the object or more is expected to be wrong or
    a slice is of poor quality.
    """
    least = _LEAST_SHARE * sum(one.area for one in slices)
    quality = {one.index: one.quality for one in slices if not one.is_key and one.index not in keys}

    def is_worth_it(found: Proposal) -> bool:
        run = range(found.first_index, found.last_index + 1)
        worst = min((quality[i] for i in run if i in quality), default=1.0)
        return found.kind == "end" or found.expected_error >= least or worst < _POOR_QUALITY

    return [found for found in proposals(slices, keys, n_slices=n_slices) if is_worth_it(found)]


def _runs(by_index: dict[int, SliceDoubt], keys: set[int]) -> Iterator[Proposal]:
    """Runs of neighbouring slices between key slices, at the slice that halves their expected error."""
    errors = {i: one.expected_error for i, one in by_index.items() if i not in keys}
    for run in _contiguous(sorted(i for i, error in errors.items() if error > 0)):
        own = np.array([errors[i] for i in run])
        centre = run[int(np.searchsorted(np.cumsum(own), own.sum() / 2))]
        distance = min(_LEAST_DISTANCE, max(_from_key(i, keys) for i in run) - 1)
        free = [i for i in run if _from_key(i, keys) > distance]
        index = min(free, key=lambda i: (abs(i - centre), i))
        yield Proposal(index, "run", float(own.sum()), run[0], run[-1])


def _ends(by_index: dict[int, SliceDoubt], keys: set[int], n_slices: int | None) -> Iterator[Proposal]:
    """Where propagation ended for a reason that does not say that the object has ended."""
    filled = sorted(i for i, one in by_index.items() if one.area > 0)
    for one in by_index.values():
        if one.stop_reason is None or one.stop_reason in NATURAL_ENDS or one.index in keys or not filled:
            continue
        last = min(filled, key=lambda i: abs(i - one.index))
        step = 1 if one.index >= last else -1
        ahead = min(((key - one.index) * step for key in keys if (key - one.index) * step > 0), default=None)
        outside = _least_outside(step, n_slices) if ahead is None else one.index + ahead * step
        index = one.index
        while _from_key(index, keys) <= _LEAST_DISTANCE and index + step not in (outside, *filled):
            index += step  # away from the key slice that it ended beside
        missing = max(_LEAST_MISSING, _END_SPAN_SHARE * (filled[-1] - filled[0] + 1))
        missing = missing if ahead is None else min(missing, ahead)
        yield Proposal(index, "end", _END_DOUBT * by_index[last].area * missing, index, index)


def _least_outside(step: int, n_slices: int | None) -> int | None:
    """The first index beyond the volume."""
    return -1 if step < 0 else n_slices


def _from_key(index: int, keys: set[int]) -> float:
    """Slices to the nearest key slice."""
    return min((abs(index - key) for key in keys), default=np.inf)


def _contiguous(indices: Sequence[int]) -> Iterator[list[int]]:
    run: list[int] = []
    for index in indices:
        if run and index != run[-1] + 1:
            yield run
            run = []
        run.append(index)
    if run:
        yield run


def _most(planes: Sequence[str]) -> int:
    return max((planes.count(plane) for plane in planes), default=0)
