"""Slices searched from one of them outwards: what a person looks at comes first, the objects are the same.

Which masks of neighbouring slices are linked depends on these slices alone (see `Linker`), so that gaps can
be filled as soon as both their ends are searched. The objects are then linked in the order of slices, as a
search in that order does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from napari_sam_med.segmentation.automatic.found_objects import FoundMask, FoundObject
from napari_sam_med.segmentation.automatic.gap_filling import GapFiller
from napari_sam_med.segmentation.automatic.linking import Chain, Linker, LinkRules
from napari_sam_med.volume.slice_view import SliceView

__all__ = ["AscendingLinks", "OutwardLinks", "outwards"]

_Pair = tuple[int, int]
"""The identities of the two masks beside a gap, which live as long as the links."""


def outwards(views: Sequence[SliceView], index: int) -> list[SliceView]:
    """Slices from the nearest to an index to the furthest, the higher one of two first."""
    return sorted(views, key=lambda view: (abs(view.index - index), -view.index))


class AscendingLinks:
    """Links and fills slices that come in ascending order.

    Parameters
    ----------
    rules : LinkRules
    filler : GapFiller
    """

    def __init__(self, rules: LinkRules, filler: GapFiller) -> None:
        self._linker, self._filler = Linker(rules), filler

    def add(self, view: SliceView, masks: Sequence[FoundMask]) -> None:
        """Take the masks of the next slice, and fill up to it."""
        self._filler.fill(dict(self._linker.add(view, masks)), view)

    def objects_so_far(self) -> list[FoundObject]:
        """The objects of the slices that were added."""
        return self._linker.objects()

    def objects(self) -> list[FoundObject]:
        """The objects of all slices."""
        return self._linker.objects()


class OutwardLinks:
    """Links and fills slices that come in the order of `outwards`; parameters as of `AscendingLinks`."""

    def __init__(self, rules: LinkRules, filler: GapFiller) -> None:
        self._rules, self._filler = rules, filler
        self._masks: dict[SliceView, Sequence[FoundMask]] = {}
        self._filled: dict[_Pair, Mapping[SliceView, FoundMask]] = {}

    def add(self, view: SliceView, masks: Sequence[FoundMask]) -> None:
        """Take the masks of the next slice beside those that are there, and fill between."""
        masks_on = {**self._masks, view: masks}
        ordered = sorted(masks_on, key=lambda one: one.index)
        at, reach = ordered.index(view), self._rules.most_bridged + 2
        near = Linker(self._rules)
        for one in ordered[max(0, at - reach + 1) : at + reach]:
            joined = near.add(one, masks_on[one])
            self._fill([(chain, start) for chain, start in joined if view in (start, one)], one)
        self._masks = masks_on  # last: a slice within which the search is given up is none of it

    def objects_so_far(self) -> list[FoundObject]:
        """The objects of the slices that were added."""
        return self._linked(fills=False)

    def objects(self) -> list[FoundObject]:
        """The objects of all slices: those that `AscendingLinks` makes of them."""
        return self._linked(fills=True)

    def _linked(self, *, fills: bool) -> list[FoundObject]:
        linker = Linker(self._rules)
        for view in sorted(self._masks, key=lambda one: one.index):
            joined = linker.add(view, self._masks[view])
            if fills:  # of equal links others may have been taken before
                self._fill([one for one in joined if _pair(*one, view) not in self._filled], view)
            for chain, start in joined:
                chain.filled.update(self._filled.get(_pair(chain, start, view), {}))
        return linker.objects()

    def _fill(self, joined: Sequence[tuple[Chain, SliceView]], view: SliceView) -> None:
        between = {
            Chain({start: chain.found[start], view: chain.found[view]}, chain.at): (chain, start)
            for chain, start in joined
        }
        self._filler.fill({gap: start for gap, (_, start) in between.items()}, view)
        for gap, (chain, start) in between.items():
            self._filled[_pair(chain, start, view)] = gap.filled


def _pair(chain: Chain, start: SliceView, view: SliceView) -> _Pair:
    return id(chain.found[start]), id(chain.found[view])
