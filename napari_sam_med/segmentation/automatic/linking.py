"""Masks of neighbouring slices linked to objects of the volume, by how much they overlap.

The masks of a slice may nest: a kidney, its cortex and its pelvis are three of them. Between two slices each
mask is given at most one partner, by the assignment with the largest sum of IoUs (Kuhn 1955; as SORT does
between frames, Bewley et al., arXiv 1602.00763, and Cellpose between slices, Stringer et al., Nature Methods
2021). A part and its whole differ in size, so that each finds its own like on the next slice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment

from napari_sam_med.segmentation.automatic.found_objects import FoundMask, FoundObject
from napari_sam_med.volume.slice_view import SliceView

__all__ = ["Chain", "LinkRules", "Linker", "object_iou", "without_duplicates"]

Box = tuple[int, int, int, int, int, int]


@dataclass(frozen=True)
class LinkRules:
    """What counts as one object.

    Attributes
    ----------
    min_iou : float
        Least IoU of two masks that are linked, 0..1.
    most_bridged : int
        Searched slices that may lack an object between two that show it.
    min_slices : int
        Searched slices that an object must be found on; fewer where fewer were searched.
    min_voxels : int
        Voxels that it must have, those between searched slices counted in.
    max_shared : float
        Of two objects with a larger IoU in 3-D the one with the lower score goes.
    """

    min_iou: float = 0.5
    most_bridged: int = 1
    min_slices: int = 2
    min_voxels: int = 64
    max_shared: float = 0.7


@dataclass(eq=False)
class Chain:
    """An object as far as it is linked.

    Attributes
    ----------
    found : dict of SliceView to FoundMask
        Where the model was asked, in the order of slices.
    filled : dict of SliceView to FoundMask
        In between; set by whoever fills gaps.
    ious : list of float
        Of the found masks that follow each other.
    at : int
        Which of the searched slices is the last one, from 0.
    """

    found: dict[SliceView, FoundMask]
    at: int
    filled: dict[SliceView, FoundMask] = field(default_factory=dict)
    ious: list[float] = field(default_factory=list)

    @property
    def last(self) -> tuple[SliceView, FoundMask]:
        """The last slice that shows it, with its mask."""
        view = next(reversed(self.found))
        return view, self.found[view]

    @property
    def score(self) -> float:
        """How sure the object is, 0..1: how good its masks are, times how well they go on.

        Good: predicted IoU (at most 1) times stability, averaged over the found masks by area. Going on: the
        sum of the IoUs of masks that follow each other, plus 1, by the number of masks plus 1. The two ends
        count one half each; so an object on one slice reaches one half, and a long one its mean IoU.
        """
        areas = np.array([mask.area_px for mask in self.found.values()], dtype=np.float64)
        good = [_unit(mask.predicted_iou) * _unit(mask.stability_score) for mask in self.found.values()]
        going_on = (1.0 + sum(self.ious)) / (len(self.found) + 1)
        return float(np.average(good, weights=areas)) * going_on

    def as_object(self, number: int) -> FoundObject:
        """The object, its slices in ascending order."""
        masks = dict(sorted({**self.found, **self.filled}.items(), key=lambda item: item[0].index))
        return FoundObject(number, masks, self.score)


class Linker:
    """Links masks slice by slice, so that what it holds after each is a correct partial result.

    Parameters
    ----------
    rules : LinkRules
    """

    def __init__(self, rules: LinkRules) -> None:
        self.rules = rules
        self.chains: list[Chain] = []
        self.n_slices = 0

    def add(self, view: SliceView, masks: Sequence[FoundMask]) -> list[tuple[Chain, SliceView]]:
        """Take the masks of the next searched slice.

        Parameters
        ----------
        view : SliceView
            After those added before, in the same plane.
        masks : sequence of FoundMask
            In any order.

        Returns
        -------
        list of (Chain, SliceView)
            The chains that go on here, each with the slice that it came from.
        """
        free = sorted(masks, key=_rank)  # equal sums are then settled the same way, whatever the order was
        joined = []
        for bridged in range(self.rules.most_bridged + 1):
            waiting = [chain for chain in self.chains if chain.at == self.n_slices - 1 - bridged]
            for chain, mask, iou in self._matched(waiting, free):
                joined.append((chain, chain.last[0]))
                chain.found[view], chain.at = mask, self.n_slices
                chain.ious.append(iou)
                free = [one for one in free if one is not mask]
        self.chains += [Chain({view: mask}, self.n_slices) for mask in free]
        self.n_slices += 1
        self._let_go()
        return joined

    def _let_go(self) -> None:
        """Forget chains that ended too short: on many slices they are most of all masks."""
        rules = self.rules
        least_slices = min(rules.min_slices, self.n_slices)
        self.chains = [
            chain
            for chain in self.chains
            if len(chain.found) >= least_slices or chain.at >= self.n_slices - 1 - rules.most_bridged
        ]

    def objects(self) -> list[FoundObject]:
        """What was found so far by the rules, by falling score, numbered from 1."""
        rules = self.rules
        least_slices = min(rules.min_slices, self.n_slices)
        long_enough = [chain for chain in self.chains if len(chain.found) >= least_slices]
        large = [chain.as_object(number) for number, chain in enumerate(long_enough, start=1)]
        large = [one for one in large if one.voxels >= rules.min_voxels]
        return FoundObject.renumbered(without_duplicates(large, rules.max_shared))

    def _matched(
        self, chains: Sequence[Chain], masks: Sequence[FoundMask]
    ) -> list[tuple[Chain, FoundMask, float]]:
        if not chains or not masks:
            return []
        gains = _ious([chain.last[1] for chain in chains], masks, max(self.rules.min_iou, 1e-9))
        rows, columns = linear_sum_assignment(gains, maximize=True)
        return [
            (chains[row], masks[column], float(gains[row, column]))
            for row, column in zip(rows.tolist(), columns.tolist(), strict=True)
            if gains[row, column] > 0
        ]


def without_duplicates(objects: Sequence[FoundObject], max_shared: float) -> list[FoundObject]:
    """The objects without those that share more than an IoU with one of a higher score, by falling score."""
    ranked = sorted(objects, key=lambda one: (-one.score, one.number))
    boxes = [_box_of(one) for one in ranked]
    voxels = [one.voxels for one in ranked]
    kept: list[int] = []
    for index, one in enumerate(ranked):
        rivals = (
            other
            for other in kept
            # an IoU is at most the smaller volume by the larger one
            if min(voxels[index], voxels[other]) > max_shared * max(voxels[index], voxels[other])
            and _meet(boxes[index], boxes[other])
        )
        if not any(object_iou(one, ranked[other]) > max_shared for other in rivals):
            kept.append(index)
    return [ranked[index] for index in kept]


def object_iou(one: FoundObject, other: FoundObject) -> float:
    """Intersection over union of two objects of one plane, in voxels."""
    both = sum(mask.overlap_px(other.masks[view]) for view, mask in one if view in other.masks)
    return both / (one.voxels + other.voxels - both)


def _ious(ones: Sequence[FoundMask], others: Sequence[FoundMask], least: float) -> npt.NDArray[np.float64]:
    """IoU of each of the N with each of the M masks, 0 where it is below `least`."""
    boxes, other_boxes = (np.array([mask.box_xyxy for mask in masks]) for masks in (ones, others))
    low = np.maximum(boxes[:, None, :2], other_boxes[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], other_boxes[None, :, 2:])
    areas, other_areas = (np.array([mask.area_px for mask in masks]) for masks in (ones, others))
    # masks have no more in common than their boxes, and than the smaller one has at all
    most = np.minimum((high - low + 1).clip(min=0).prod(axis=2), np.minimum.outer(areas, other_areas))
    either = np.add.outer(areas, other_areas) - most
    ious = np.zeros(most.shape)
    for i, j in np.argwhere(most >= 0.999 * least * either).tolist():
        ious[i, j] = ones[i].iou(others[j])
    ious[ious < least] = 0.0
    return ious


def _unit(value: float) -> float:
    return min(1.0, max(0.0, value))


def _rank(mask: FoundMask) -> tuple[object, ...]:
    """An order of masks that depends on nothing but themselves."""
    return (
        -mask.area_px,
        mask.corner,
        mask.pixels.shape,
        mask.pixels.tobytes(),
        -mask.predicted_iou,
        -mask.stability_score,
        mask.point_xy or (-1.0, -1.0),
    )


def _box_of(one: FoundObject) -> Box:
    """First and last slice, column and row."""
    corners = np.array([mask.box_xyxy for mask in one.masks.values()])
    indices = [view.index for view in one.masks]
    x0, y0 = corners[:, :2].min(axis=0).tolist()
    x1, y1 = corners[:, 2:].max(axis=0).tolist()
    return min(indices), y0, x0, max(indices), y1, x1


def _meet(one: Box, other: Box) -> bool:
    return all(one[i] <= other[i + 3] and other[i] <= one[i + 3] for i in range(3))
