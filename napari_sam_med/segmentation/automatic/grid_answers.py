"""A regular grid of foreground points, and what a model answers to each: where edges and proposals start."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from napari_sam_med.errors import PromptError
from napari_sam_med.progress import Progress
from napari_sam_med.sam.prompts import Prompts
from napari_sam_med.segmentation.automatic.point_grids import lie_in, point_grid

if TYPE_CHECKING:
    from napari_sam_med.sam.mask_prediction import MaskPrediction
    from napari_sam_med.sam.predictor import ImageEmbedding, Predictor

__all__ = ["answers_on_grid", "check_grid", "of_all_slices", "refuse_without_points"]

_AT_ONCE = 64
"""Points whose masks are held at a time, as in SAM's own generator."""
_MOST_POINTS_PER_SIDE = 256
_STEPS_PER_SLICE = 1000


def answers_on_grid(
    embedding: ImageEmbedding,
    predictor: Predictor,
    points_per_side: int,
    *,
    multimask: bool = True,
    where: npt.NDArray[np.bool_] | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> Iterator[tuple[tuple[float, float], MaskPrediction]]:
    """The point (x, y) and its masks for every point of a grid, row by row.

    The points are those of SAM's generator: the middles of ``points_per_side`` x ``points_per_side`` equal
    parts of the image.

    Parameters
    ----------
    embedding : ImageEmbedding
    predictor : Predictor
    points_per_side : int
    multimask : bool
        Three masks a point, or one.
    where : ndarray (H, W) bool, optional
        Points elsewhere are not asked.
    on_progress : callable, optional
        Told after each batch of points; an error that it raises ends the search.

    Raises
    ------
    PromptError
        When the model takes no points.
    """
    refuse_without_points(predictor)
    height, width = embedding.original_size
    grid = point_grid(points_per_side) * np.array([width, height])
    chosen = grid if where is None else grid[lie_in(grid, where)]
    points = [(float(x), float(y)) for x, y in chosen]
    for start in range(0, len(points), _AT_ONCE):
        chunk = points[start : start + _AT_ONCE]
        prompts = [Prompts.from_points([point], [1]) for point in chunk]
        answers = predictor.predict_batch(embedding, prompts, multimask, direct_upsampling=True)
        yield from zip(chunk, answers, strict=True)
        if on_progress is not None:
            on_progress(Progress(start + len(chunk), len(points), "points"))


def of_all_slices(
    on_points: Callable[[Progress], None] | None, number: int, count: int, text: str
) -> Callable[[Progress], None] | None:
    """What tells of the points of slice `number` (from 0) of `count` as of those of all slices."""
    if on_points is None:
        return None

    def tell(points: Progress) -> None:  # slices have more and fewer points
        done = round((number + points.fraction) * _STEPS_PER_SLICE)
        on_points(Progress(done, count * _STEPS_PER_SLICE, text))

    return tell


def check_grid(points_per_side: int, box_nms_thresh: float) -> None:
    """Refuse a grid without points, or an overlap that is no share.

    Raises
    ------
    PromptError
    """
    if not 1 <= points_per_side <= _MOST_POINTS_PER_SIDE:
        raise PromptError(
            f"A grid of {points_per_side} points a side cannot be asked; give 1 to {_MOST_POINTS_PER_SIDE}, "
            "such as 16."
        )
    if not 0 < box_nms_thresh <= 1:
        raise PromptError(
            f"Boxes cannot overlap by {box_nms_thresh:g}; give an IoU above 0 and up to 1, such as 0.7."
        )


def refuse_without_points(predictor: Predictor) -> None:
    """Refuse a model that cannot be asked at points.

    Raises
    ------
    PromptError
    """
    if "point" not in predictor.accepts:
        raise PromptError(
            f"{predictor.record.title.split()[0]} takes no points, and a grid of points is what is asked "
            "here; choose another model, such as nano or sam_vit_b."
        )
