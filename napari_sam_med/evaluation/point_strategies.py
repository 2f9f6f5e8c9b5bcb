"""Clicks that an annotator would set on an object, drawn from its true mask.

All of them work in the tangent box of the object, so that they move with it. A click is x, y in pixels of
the slice, pixel centres at integers, and is not cut to whole pixels. Some can fall outside the mask (the
middle of a ring is not on it): they say so, and with ``snap`` such a click is set on the nearest pixel of the
mask.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage, sparse
from scipy.sparse.csgraph import dijkstra

from napari_sam_med.errors import PromptError
from napari_sam_med.evaluation.prompt_target import Mask, PromptTarget
from napari_sam_med.sam.prompts import Prompts

__all__ = [
    "DEFAULT_CONTRAST",
    "DEFAULT_SPREAD",
    "background_corner",
    "center_bilateral",
    "center_box",
    "center_distance",
    "center_gaussian",
    "center_mask",
    "deepest_pixel",
    "largest_part",
    "random_box",
    "random_gaussian",
    "random_mask",
    "scribble",
]

DEFAULT_SPREAD = 100.0
"""Width of a Gaussian in pixels; makes it exp(-d^2 / 2e4)."""

DEFAULT_CONTRAST = 20.0
"""Width of a Gaussian in grey values of 255."""


def center_box(target: PromptTarget, rng: np.random.Generator, *, snap: bool = False) -> Prompts:
    """One positive click in the middle of the tangent box; can fall outside the mask.

    Source: ``center_box`` of a study of prompts for SAM on brain tumours in MR.
    """
    del rng
    return _click(target, *_middle(target), snap=snap)


def center_mask(target: PromptTarget, rng: np.random.Generator, *, snap: bool = False) -> Prompts:
    """One positive click in the centre of mass of the mask; can fall outside it.

    Source: ``center_mask`` of a study of prompts for SAM on brain tumours in MR (there cut to whole pixels).
    """
    del rng
    rows, columns = np.nonzero(target.mask[target.crop])
    return _click(target, float(columns.mean()), float(rows.mean()), snap=snap)


def center_gaussian(
    target: PromptTarget, rng: np.random.Generator, *, spread: float = DEFAULT_SPREAD, snap: bool = False
) -> Prompts:
    """One positive click in the centre of mass, pixels weighted by how near they are to the box's middle.

    The weight is exp(-d^2 / 2 spread^2), d and spread in pixels; the click lies between those of
    `center_mask` (large spread) and the pixels nearest to the middle (small), and can fall outside the mask.
    Source: ``center_gaussian`` of a study of prompts for SAM on brain tumours in MR (exp(-d^2 / 2e4), cut to
    whole pixels).
    """
    del rng
    return _click(target, *_weighted_centre(target, _nearness(target, spread)), snap=snap)


def center_bilateral(
    target: PromptTarget,
    rng: np.random.Generator,
    *,
    spread: float = DEFAULT_SPREAD,
    contrast: float = DEFAULT_CONTRAST,
    snap: bool = False,
) -> Prompts:
    """One positive click in the centre of mass, pixels weighted by nearness and by how usual they look.

    The weight is that of `center_gaussian` times exp(-g^2 / 2 contrast^2), g being how far the pixel's grey
    value (0 to 255) is from the most frequent one in the mask, the darkest of several. Can fall outside the
    mask. Source: proposed, without widths or results, by a study of prompts for SAM on brain tumours in MR.

    Raises
    ------
    PromptError
        When the target has no image.
    """
    del rng
    if target.image is None:
        raise PromptError("center_bilateral looks at grey values: give the target the image of its slice.")
    inside = target.mask[target.crop]
    grey = np.rint(target.image[target.crop].mean(2)).astype(int)[inside]
    usual = int(np.bincount(grey).argmax())
    exponent = _nearness(target, spread) - ((grey - usual) / contrast) ** 2 / 2
    return _click(target, *_weighted_centre(target, exponent), snap=snap)


def center_distance(target: PromptTarget, rng: np.random.Generator) -> Prompts:
    """One positive click on the pixel of the mask with the largest distance to the background.

    The image ends in background; of several such pixels the first in reading order is taken. Source: the
    "center" point of Kirillov et al., Segment Anything, ICCV 2023, section 7.1.
    """
    del rng
    return Prompts.from_points([deepest_pixel(target.mask)], [1])


def random_box(target: PromptTarget, rng: np.random.Generator, *, snap: bool = False) -> Prompts:
    """One positive click on any pixel of the tangent box, drawn uniformly; can fall outside the mask.

    Source: ``random_box`` of a study of prompts for SAM on brain tumours in MR.
    """
    height, width = target.mask[target.crop].shape
    return _click(target, int(rng.integers(width)), int(rng.integers(height)), snap=snap)


def random_mask(target: PromptTarget, rng: np.random.Generator, count: int = 1) -> Prompts:
    """Positive clicks on different pixels of the mask, drawn uniformly; fewer where it is smaller.

    Source: ``random_mask`` of a study of prompts for SAM on brain tumours in MR, and the "random points" of a
    term project on SAM with the BTCV abdomen set.
    """
    rows, columns = np.nonzero(target.mask[target.crop])
    picks = rng.choice(len(rows), min(count, len(rows)), replace=False)
    return _clicks(target, np.stack([columns[picks], rows[picks]], 1))


def random_gaussian(
    target: PromptTarget, rng: np.random.Generator, *, spread: float = DEFAULT_SPREAD
) -> Prompts:
    """One positive click on a pixel of the mask, drawn with the weights of `center_gaussian`.

    Source: ``random_gaussian`` of a study of prompts for SAM on brain tumours in MR.
    """
    rows, columns = np.nonzero(target.mask[target.crop])
    weights = _weights(_nearness(target, spread))
    pick = rng.choice(len(rows), p=weights / weights.sum())
    return _click(target, columns[pick], rows[pick])


def background_corner(target: PromptTarget, rng: np.random.Generator) -> Prompts:
    """One negative click on a corner of the tangent box that is not of the mask, drawn at random.

    Where all four corners are of the mask, it is the background pixel nearest to one of them; in an image
    without background that corner itself. Source: the background prompt of a study of prompts for SAM on
    brain tumours in MR, which takes any corner.
    """
    inside = target.mask[target.crop]
    bottom, right = inside.shape[0] - 1, inside.shape[1] - 1
    corners = [(x, y) for x in (0, right) for y in (0, bottom)]
    outside = [(x, y) for x, y in corners if not inside[y, x]]
    x, y = (outside or corners)[int(rng.integers(len(outside or corners)))]
    rows, columns = target.crop
    if not outside and not target.mask.all():
        x, y = _nearest_pixel(~target.mask, columns.start + x, rows.start + y)
        return Prompts.from_points([[x, y]], [0])
    return _clicks(target, [(x, y)], label=0)


def scribble(target: PromptTarget, rng: np.random.Generator, count: int = 5) -> Prompts:
    """Positive clicks at equal distances along the middle line of the mask; fewer where that is short.

    The line is the longest way along the skeleton of the largest connected part (4 neighbours), and the
    clicks lie on pixels of the mask. Source: the centerline scribbles of Wong et al., ScribblePrompt, ECCV
    2024, given as points to a model that takes no scribbles.
    """
    del rng
    line = _middle_line(largest_part(target.mask[target.crop]))
    steps = np.hypot(*np.diff(line, axis=0).T)
    way = np.concatenate([[0.0], np.cumsum(steps)])
    stops = (np.arange(count) + 0.5) / count * way[-1]
    chosen = np.unique(np.abs(way[None] - stops[:, None]).argmin(1))
    return _clicks(target, line[chosen])


def deepest_pixel(mask: Mask) -> tuple[int, int]:
    """x, y of the pixel of a mask (H, W) farthest from the background; the image ends in background."""
    rows, columns = PromptTarget(mask).crop
    depth = ndimage.distance_transform_edt(np.pad(mask[rows, columns], 1))
    row, column = np.unravel_index(np.argmax(depth), depth.shape)
    return int(column) + columns.start - 1, int(row) + rows.start - 1


def largest_part(mask: Mask) -> Mask:
    """The connected part (4 neighbours) of a mask (H, W) with most pixels, the first of equals."""
    parts, count = ndimage.label(mask)
    largest: Mask = mask if count < 2 else parts == np.bincount(parts.ravel())[1:].argmax() + 1
    return largest


def _click(target: PromptTarget, x: float, y: float, *, snap: bool = False) -> Prompts:
    """A positive click at x, y of the tangent box, on the nearest pixel of the mask where it must be."""
    inside = target.mask[target.crop]
    if snap and not inside[int(np.floor(y + 0.5)), int(np.floor(x + 0.5))]:
        x, y = _nearest_pixel(inside, x, y)
    return _clicks(target, [(x, y)])


def _clicks(target: PromptTarget, points: npt.ArrayLike, label: int = 1) -> Prompts:
    rows, columns = target.crop
    moved = np.asarray(points, dtype=np.float64) + np.array([columns.start, rows.start])
    return Prompts.from_points(moved, np.full(len(moved), label))


def _middle(target: PromptTarget) -> tuple[float, float]:
    height, width = target.mask[target.crop].shape
    return (width - 1) / 2, (height - 1) / 2


def _nearness(target: PromptTarget, spread: float) -> npt.NDArray[np.float64]:
    """Exponent of a Gaussian around the middle of the box, for each pixel of the mask in reading order."""
    rows, columns = np.nonzero(target.mask[target.crop])
    x, y = _middle(target)
    exponent: npt.NDArray[np.float64] = -((columns - x) ** 2 + (rows - y) ** 2) / (2 * spread**2)
    return exponent


def _weights(exponent: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    # their scale does not matter, but they must not all be zero
    weights: npt.NDArray[np.float64] = np.exp(exponent - exponent.max())
    return weights


def _weighted_centre(target: PromptTarget, exponent: npt.NDArray[np.float64]) -> tuple[float, float]:
    rows, columns = np.nonzero(target.mask[target.crop])
    # rounded, or the last bit would choose between pixels that are equally near
    x, y = np.round(np.average(np.stack([columns, rows]), axis=1, weights=_weights(exponent)), 6)
    return float(x), float(y)


def _nearest_pixel(mask: Mask, x: float, y: float) -> tuple[int, int]:
    """x, y of the pixel of a mask (H, W) nearest to a point, the first of several in reading order."""
    rows, columns = np.nonzero(mask)
    nearest = ((columns - x) ** 2 + (rows - y) ** 2).argmin()
    return int(columns[nearest]), int(rows[nearest])


def _middle_line(mask: Mask) -> npt.NDArray[np.int64]:
    """Pixels x, y (N, 2) of the longest way along the skeleton of a connected mask (H, W), in order."""
    from skimage.morphology import skeletonize

    skeleton = skeletonize(np.pad(mask, 1), method="lee")[1:-1, 1:-1]  # Zhang's takes all of some slopes
    rows, columns = np.nonzero(skeleton)
    if not len(rows):  # thinning can take all of a few pixels
        return np.array([deepest_pixel(mask)])
    graph = _neighbours(skeleton)
    # twice to the far end: exact for a tree, and half way round for a ring
    start, _ = _farthest(graph, 0)
    end, before = _farthest(graph, start)
    way = [end]
    while way[-1] != start:
        way.append(int(before[way[-1]]))
    return np.stack([columns[way], rows[way]], 1)


def _farthest(graph: Any, start: int) -> tuple[int, npt.NDArray[np.int32]]:
    """The pixel farthest from one, and which pixel comes before each on the way there."""
    distances, before = dijkstra(graph, directed=False, indices=np.array([start]), return_predecessors=True)
    reached = np.where(np.isfinite(distances[0]), distances[0], -1)
    return int(reached.argmax()), before[0]


def _neighbours(skeleton: npt.NDArray[np.bool_]) -> Any:
    """Sparse graph of the pixels (in reading order) that touch, by a side or a corner, and how far apart."""
    number = np.full(skeleton.shape, -1)
    number[skeleton] = np.arange(np.count_nonzero(skeleton))
    number = np.pad(number, 1, constant_values=-1)
    starts: list[npt.NDArray[Any]] = []
    ends: list[npt.NDArray[Any]] = []
    lengths: list[npt.NDArray[Any]] = []
    steps: Sequence[tuple[int, int]] = ((0, 1), (1, -1), (1, 0), (1, 1))
    for down, right in steps:
        other = np.roll(number, (-down, -right), (0, 1))
        touch = (number >= 0) & (other >= 0)
        starts.append(number[touch])
        ends.append(other[touch])
        lengths.append(np.full(np.count_nonzero(touch), np.hypot(down, right)))
    count = int(number.max()) + 1
    pairs = (np.concatenate(starts), np.concatenate(ends))
    return sparse.coo_array((np.concatenate(lengths), pairs), shape=(count, count)).tocsr()
