"""Edges without a hand: where the masks of a grid of points end (SAM paper, arXiv 2304.02643, appendix D.2).

A grid of 16 x 16 foreground points is asked, three masks each. Nothing is filtered by predicted IoU or
stability; redundant masks go by NMS of their boxes at 0.7 (the authors, facebookresearch/segment-anything
issue 226). Each mask that is left is a map of probabilities, the sigmoid of its logits, and the Sobel
filter's response to it counts on the outer boundary pixels of the mask alone. The largest response of all
masks, put linearly to 0..1, is the map; non-maximum suppression as Canny does it (TPAMI 1986) thins it.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.special import expit

from napari_sam_med.progress import Progress
from napari_sam_med.segmentation.automatic.grid_answers import (
    answers_on_grid,
    check_grid,
    of_all_slices,
    refuse_without_points,
)
from napari_sam_med.segmentation.automatic.mask_filters import best_of_overlapping
from napari_sam_med.segmentation.automatic.prompt_area import PromptArea
from napari_sam_med.segmentation.slicewise import Window, embed_slice

if TYPE_CHECKING:
    from napari_sam_med.sam.embedding_store import EmbeddingStore
    from napari_sam_med.sam.predictor import ImageEmbedding, Predictor
    from napari_sam_med.volume.slice_view import SliceView
    from napari_sam_med.volume.volume import Volume

__all__ = ["EdgeOptions", "EdgeSlice", "edge_map", "search_edges", "sobel_gradient", "suppress_non_maxima"]

FloatImage = npt.NDArray[np.float32]

_MARGIN = 2
"""Pixels around a mask that its response needs: the outer boundary, and one more for the Sobel filter."""


@dataclass(frozen=True)
class EdgeOptions:
    """How edges are looked for; the defaults are the paper's.

    Attributes
    ----------
    points_per_side : int
        Of the grid.
    box_nms_thresh : float
        Of two masks whose boxes have a larger IoU the one with the lower predicted IoU goes.
    thin : bool
        Thin the edges by non-maximum suppression.
    pred_iou_thresh, stability_score_thresh : float
        Masks below either are left out; 0 for none, as in the paper. Small models answer points in empty
        places with masks of nothing, whose low scores tell them from those of organs.

    Raises
    ------
    PromptError
        When there are no points, or the overlap is no share.
    """

    points_per_side: int = 16
    box_nms_thresh: float = 0.7
    thin: bool = True
    pred_iou_thresh: float = 0.0
    stability_score_thresh: float = 0.0

    def __post_init__(self) -> None:
        check_grid(self.points_per_side, self.box_nms_thresh)

    def takes(self, predicted_iou: float, stability_score: float) -> bool:
        """Whether a mask of these scores counts; with a threshold of 0 every score does, below 0 too."""
        return (not self.pred_iou_thresh or predicted_iou > self.pred_iou_thresh) and (
            not self.stability_score_thresh or stability_score >= self.stability_score_thresh
        )


@dataclass(frozen=True, eq=False)
class EdgeSlice:
    """The edges of one slice of a volume.

    Attributes
    ----------
    progress : Progress
        Slices done.
    view : SliceView
    edges : ndarray (H, W) float32
        0..1, as the slice image lies; ``view.insert`` puts it into a volume.
    """

    progress: Progress
    view: SliceView
    edges: FloatImage


@dataclass(frozen=True, eq=False)
class _Outline:
    """What one mask says of edges: the Sobel gradient (2, N), y before x, on its N outer boundary pixels."""

    box_xyxy: tuple[int, int, int, int]
    predicted_iou: float
    places: npt.NDArray[np.intp]
    gradient_yx: FloatImage


def edge_map(
    image: npt.ArrayLike,
    predictor: Predictor,
    options: EdgeOptions | None = None,
    *,
    pixel_spacing: npt.ArrayLike = (1.0, 1.0),
    embedding: ImageEmbedding | None = None,
    where: npt.NDArray[np.bool_] | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> FloatImage:
    """How much of an edge each pixel is.

    Parameters
    ----------
    image : array-like (H, W, 3) uint8
    predictor : Predictor
        Of a model that takes points.
    options : EdgeOptions, optional
    pixel_spacing : (row, column)
        Millimetres.
    embedding : ImageEmbedding, optional
        Of the image, where it is there already; image and spacing are then not looked at.
    where : ndarray (H, W) bool, optional
        Points elsewhere are not asked; masks may reach beyond it.
    on_progress : callable, optional
        Told after each batch of points; an error that it raises ends the search.

    Returns
    -------
    ndarray (H, W) float32
        0..1; 0 everywhere where no mask ends inside the image.

    Raises
    ------
    PromptError
        When the model takes no points.
    ImageError
        When the image is not of this form.
    """
    refuse_without_points(predictor)
    options = options or EdgeOptions()
    if embedding is None:
        embedding = predictor.embed(image, pixel_spacing)
    outlines = [
        outline
        for _, answer in answers_on_grid(
            embedding, predictor, options.points_per_side, where=where, on_progress=on_progress
        )
        for logits, iou, stability in zip(
            predictor.upsample(embedding, answer.low_res_logits),
            answer.iou_predictions,
            answer.stability_scores,
            strict=True,
        )
        if options.takes(float(iou), float(stability))
        and (outline := _outline(logits, float(iou))) is not None
    ]
    strength, gradient = _strongest(_distinct(outlines, options.box_nms_thresh), embedding.original_size)
    return suppress_non_maxima(strength, gradient) if options.thin else strength


def search_edges(
    volume: Volume,
    predictor: Predictor,
    views: Sequence[SliceView],
    options: EdgeOptions | None = None,
    *,
    window: Window = "auto",
    store: EmbeddingStore | None = None,
    body_only: bool = False,
    on_points: Callable[[Progress], None] | None = None,
) -> Generator[EdgeSlice, None, None]:
    """Edges of slices of a volume, one slice at a time; closing it ends it.

    Parameters
    ----------
    volume : Volume
    predictor : Predictor
        Of a model that takes points.
    views : sequence of SliceView
    options : EdgeOptions, optional
    window : str or (low, high)
        Preset name or limits in the volume's own values.
    store : EmbeddingStore, optional
    body_only : bool
        Ask at points in the body alone, see `body_mask`.
    on_points : callable, optional
        Told after each slice in which the body is looked for (text `BODY`), and after each batch of points,
        as of those of all slices; an error that it raises ends the search.

    Yields
    ------
    EdgeSlice
        In the order of `views`.

    Raises
    ------
    PromptError
        When the model takes no points.
    """
    refuse_without_points(predictor)
    area = PromptArea(volume, body_only=body_only, on_progress=on_points)
    for done, view in enumerate(views, start=1):
        tell = of_all_slices(on_points, done - 1, len(views), f"slice {view.index}")
        embedding = embed_slice(volume, view, predictor, window=window, store=store)
        edges = edge_map(
            np.empty(0), predictor, options, embedding=embedding, where=area.on(view), on_progress=tell
        )
        yield EdgeSlice(Progress(done, len(views), f"slice {view.index}"), view, edges)


def sobel_gradient(values: npt.ArrayLike) -> FloatImage:
    """Response (2, H, W), y before x, of the Sobel filter to an image (H, W); borders are repeated."""
    image = np.asarray(values, dtype=np.float32)
    return np.stack([ndimage.sobel(image, axis, mode="nearest") for axis in (0, 1)])


def suppress_non_maxima(strength: FloatImage, gradient_yx: FloatImage) -> FloatImage:
    """Edges thinned as Canny does: what is weaker than a neighbour across the edge becomes 0.

    Parameters
    ----------
    strength : ndarray (H, W) float32
    gradient_yx : ndarray (2, H, W) float32
        Direction across the edge; its length does not matter.

    Returns
    -------
    ndarray (H, W) float32
        Strengths between neighbours are interpolated linearly; of two equal ones the first is kept.
    """
    places = np.argwhere(strength > 0).T
    across = gradient_yx[:, places[0], places[1]].astype(np.float64)
    longest = np.abs(across).max(axis=0)
    across /= np.where(longest > 0, longest, 1)
    own = strength[places[0], places[1]]
    ahead, behind = (
        ndimage.map_coordinates(strength, places + sign * across, order=1, mode="constant")
        for sign in (1, -1)
    )
    # a flat top has no direction and is kept; rounding must not break ties
    slack = 1e-6 * own
    kept = (longest == 0) | ((own >= ahead - slack) & (own > behind + slack))
    thinned = np.zeros_like(strength)
    thinned[places[0][kept], places[1][kept]] = own[kept]
    return thinned


def _outline(logits: FloatImage, predicted_iou: float) -> _Outline | None:
    """The response of a mask, given as logits (H, W), on its outer boundary; None for an empty mask."""
    mask = logits > 0
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return None
    box = int(columns[0]), int(rows[0]), int(columns[-1]), int(rows[-1])
    top, left = max(box[1] - _MARGIN, 0), max(box[0] - _MARGIN, 0)
    window = slice(top, box[3] + 1 + _MARGIN), slice(left, box[2] + 1 + _MARGIN)
    inside = mask[window]
    outer = np.argwhere(ndimage.binary_dilation(inside) & ~inside).T
    gradient = sobel_gradient(expit(logits[window]))[:, outer[0], outer[1]]
    places = (outer[0] + top) * mask.shape[1] + outer[1] + left
    return _Outline(box, predicted_iou, places, gradient)


def _distinct(outlines: Sequence[_Outline], box_nms_thresh: float) -> list[_Outline]:
    """Without those whose box is nearly that of one with a higher predicted IoU."""
    boxes = np.array([one.box_xyxy for one in outlines])
    scores = np.array([one.predicted_iou for one in outlines], dtype=np.float32)
    return [outlines[i] for i in best_of_overlapping(boxes, scores, box_nms_thresh)]


def _strongest(outlines: Iterable[_Outline], shape: tuple[int, int]) -> tuple[FloatImage, FloatImage]:
    """The largest response at every pixel, put to 0..1, and its direction (2, H, W)."""
    strength = np.zeros(shape[0] * shape[1], dtype=np.float32)
    gradient = np.zeros((2, len(strength)), dtype=np.float32)
    for one in outlines:
        response = np.hypot(*one.gradient_yx)
        better = response > strength[one.places]
        places = one.places[better]
        strength[places] = response[better]
        gradient[:, places] = one.gradient_yx[:, better]
    low, high = float(strength.min()), float(strength.max())
    if high > low:
        strength = (strength - np.float32(low)) / np.float32(high - low)
    return strength.reshape(shape), gradient.reshape(2, *shape)
