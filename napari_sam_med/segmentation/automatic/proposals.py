"""Ranked boxes of whatever may be an object (SAM paper, arXiv 2304.02643, appendix D.3), and boxes in 3-D.

A grid of foreground points is asked, three masks each, on the whole image; nothing is filtered by predicted
IoU or stability. Of masks whose boxes overlap by more than 0.9 the one with the highest predicted IoU stays;
the rest are ranked by the average of predicted IoU and stability score, and the first 1000 kept. The paper
asks 64 x 64 points, here the default is 32 x 32: a quarter of the time. One mask a point (its "single
output") is an option; the paper takes 128 x 128 points and 0.95 for that.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from napari_sam_med.progress import Progress
from napari_sam_med.segmentation.automatic.found_objects import FoundMask, FoundObject
from napari_sam_med.segmentation.automatic.grid_answers import (
    answers_on_grid,
    check_grid,
    of_all_slices,
    refuse_without_points,
)
from napari_sam_med.segmentation.automatic.linking import Linker, LinkRules
from napari_sam_med.segmentation.automatic.mask_filters import best_of_overlapping
from napari_sam_med.segmentation.automatic.prompt_area import PromptArea
from napari_sam_med.segmentation.slicewise import Window, embed_slice

if TYPE_CHECKING:
    from napari_sam_med.sam.embedding_store import EmbeddingStore
    from napari_sam_med.sam.predictor import ImageEmbedding, Predictor
    from napari_sam_med.volume.slice_view import SliceView
    from napari_sam_med.volume.volume import Volume

__all__ = [
    "Proposal",
    "ProposalOptions",
    "ProposedSlice",
    "VolumeBox",
    "boxes_of_objects",
    "propose",
    "search_proposals",
]


@dataclass(frozen=True)
class ProposalOptions:
    """How objects are proposed.

    Attributes
    ----------
    points_per_side : int
        Of the grid.
    box_nms_thresh : float
        Of two masks whose boxes have a larger IoU the one with the lower predicted IoU goes.
    multimask : bool
        Three masks a point, or one.
    most : int
        Proposals that are kept of an image.

    Raises
    ------
    PromptError
        When there are no points, or the overlap is no share.
    """

    points_per_side: int = 32
    box_nms_thresh: float = 0.9
    multimask: bool = True
    most: int = 1000

    def __post_init__(self) -> None:
        check_grid(self.points_per_side, self.box_nms_thresh)


@dataclass(frozen=True, eq=False)
class Proposal:
    """What may be an object.

    Attributes
    ----------
    rank : int
        From 1, by falling score.
    found : FoundMask
    """

    rank: int
    found: FoundMask

    @property
    def score(self) -> float:
        """Average of predicted IoU and stability score."""
        return (self.found.predicted_iou + self.found.stability_score) / 2

    @property
    def box_xyxy(self) -> tuple[int, int, int, int]:
        """First and last column and row (x_min, y_min, x_max, y_max), both inside."""
        return self.found.box_xyxy


@dataclass(frozen=True, eq=False)
class ProposedSlice:
    """The proposals on one slice of a volume, and what they make of it so far.

    Attributes
    ----------
    progress : Progress
        Slices done.
    view : SliceView
    proposals : list of Proposal
    linker : Linker
        Holds the objects of the slices up to this one: ``boxes_of_objects(step.linker.objects())``.
    """

    progress: Progress
    view: SliceView
    proposals: list[Proposal]
    linker: Linker


@dataclass(frozen=True)
class VolumeBox:
    """A box in a volume: first and last voxel (z, y, x), both inside, and its score 0..1."""

    first_zyx: tuple[int, int, int]
    last_zyx: tuple[int, int, int]
    score: float


def propose(
    image: npt.ArrayLike,
    predictor: Predictor,
    options: ProposalOptions | None = None,
    *,
    pixel_spacing: npt.ArrayLike = (1.0, 1.0),
    embedding: ImageEmbedding | None = None,
    where: npt.NDArray[np.bool_] | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> list[Proposal]:
    """What may be objects on an image, the likeliest first.

    Parameters
    ----------
    image : array-like (H, W, 3) uint8
    predictor : Predictor
        Of a model that takes points.
    options : ProposalOptions, optional
    pixel_spacing : (row, column)
        Millimetres.
    embedding : ImageEmbedding, optional
        Of the image, where it is there already; image and spacing are then not looked at.
    where : ndarray (H, W) bool, optional
        Points elsewhere are not asked; masks may reach beyond it.
    on_progress : callable, optional
        Told after each batch of points; an error that it raises ends the search.

    Raises
    ------
    PromptError
        When the model takes no points.
    ImageError
        When the image is not of this form.
    """
    refuse_without_points(predictor)
    options = options or ProposalOptions()
    if embedding is None:
        embedding = predictor.embed(image, pixel_spacing)
    found = [
        FoundMask.of(mask, float(iou), float(stability), point)
        for point, answer in answers_on_grid(
            embedding,
            predictor,
            options.points_per_side,
            multimask=options.multimask,
            where=where,
            on_progress=on_progress,
        )
        for mask, iou, stability in zip(
            answer.masks, answer.iou_predictions, answer.stability_scores, strict=True
        )
        if mask.any()
    ]
    return _ranked(found, options)


def search_proposals(
    volume: Volume,
    predictor: Predictor,
    views: Sequence[SliceView],
    options: ProposalOptions | None = None,
    *,
    window: Window = "auto",
    store: EmbeddingStore | None = None,
    body_only: bool = False,
    rules: LinkRules | None = None,
    on_points: Callable[[Progress], None] | None = None,
) -> Generator[ProposedSlice, None, None]:
    """Proposals on slices of a volume, one slice at a time; closing it ends it.

    Parameters
    ----------
    volume : Volume
    predictor : Predictor
        Of a model that takes points.
    views : sequence of SliceView
        Of one plane; in ascending order where boxes of the volume are wanted.
    options : ProposalOptions, optional
    window : str or (low, high)
        Preset name or limits in the volume's own values.
    store : EmbeddingStore, optional
    body_only : bool
        Ask at points in the body alone, see `body_mask`.
    rules : LinkRules, optional
        How masks of neighbouring slices become one box of the volume.
    on_points : callable, optional
        Told after each slice in which the body is looked for (text `BODY`), and after each batch of points,
        as of those of all slices; an error that it raises ends the search.

    Yields
    ------
    ProposedSlice
        In the order of `views`.

    Raises
    ------
    PromptError
        When the model takes no points.
    """
    refuse_without_points(predictor)
    linker = Linker(rules or LinkRules())
    area = PromptArea(volume, body_only=body_only, on_progress=on_points)
    for done, view in enumerate(views, start=1):
        tell = of_all_slices(on_points, done - 1, len(views), f"slice {view.index}")
        embedding = embed_slice(volume, view, predictor, window=window, store=store)
        proposals = propose(
            np.empty(0), predictor, options, embedding=embedding, where=area.on(view), on_progress=tell
        )
        linker.add(view, [one.found for one in proposals])
        yield ProposedSlice(Progress(done, len(views), f"slice {view.index}"), view, proposals, linker)


def boxes_of_objects(objects: Sequence[FoundObject], shape_zyx: tuple[int, int, int]) -> list[VolumeBox]:
    """The boxes of objects in a volume of a shape (z, y, x), in their order."""
    return [_box_of(one, shape_zyx) for one in objects]


def _ranked(found: Sequence[FoundMask], options: ProposalOptions) -> list[Proposal]:
    # the outer edges of the pixels: a box of one pixel has an area, too
    boxes = np.array([one.box_xyxy for one in found]).reshape(-1, 4) + np.array([0, 0, 1, 1])
    scores = np.array([one.predicted_iou for one in found], dtype=np.float32)
    kept = best_of_overlapping(boxes, scores, options.box_nms_thresh)
    distinct = sorted((Proposal(0, found[i]) for i in kept), key=lambda one: -one.score)
    return [Proposal(rank, one.found) for rank, one in enumerate(distinct[: options.most], start=1)]


def _box_of(one: FoundObject, shape_zyx: tuple[int, int, int]) -> VolumeBox:
    corners = np.array(
        [
            view.index_zyx(corner, shape_zyx)
            for view, mask in one
            for corner in (mask.box_xyxy[:2], mask.box_xyxy[2:])
        ]
    )
    first, last = (tuple(int(v) for v in ends) for ends in (corners.min(axis=0), corners.max(axis=0)))
    return VolumeBox((first[0], first[1], first[2]), (last[0], last[1], last[2]), one.score)
