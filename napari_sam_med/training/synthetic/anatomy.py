"""Scenes from label maps of real bodies: their outlines and neighbourhoods, coloured by the generator.

Real shapes matter more than textures (arXiv 2603.00979): a slice of a label map gives a liver that wraps
round the stomach, a cord in its canal, folds of cortex. No grey value of a scan is used here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from napari_sam_med.training.synthetic.scenes import (
    SIZE,
    STRUCTURES,
    Scene,
    draw_background,
    draw_composite,
    warped_coordinates,
)
from napari_sam_med.volume.reading import read_labels

__all__ = ["LabelMap", "draw_anatomy", "read_label_maps"]

_MIN_PIXELS = 30
_INNER = {"plain": 0.50, "inclusions": 0.20, "contents": 0.10, "phases": 0.07, "cortex": 0.08, "cavity": 0.05}
"""What an organ of the map holds inside, and how often."""


@dataclass(frozen=True, eq=False)
class LabelMap:
    """Label map of a body.

    Attributes
    ----------
    data : array (z, y, x) uint8 or uint16
    spacing : tuple of float
        Millimetres along z, y, x.
    """

    data: npt.NDArray[Any]
    spacing: tuple[float, float, float]

    def planes(self) -> list[int]:
        """Axes across which slices are fine enough to show outlines without steps."""
        finest = min(self.spacing)
        return [
            axis for axis in range(3) if max(np.delete(np.array(self.spacing), axis)) <= 2.5 * finest
        ] or [0]


def read_label_maps(paths: Sequence[Path]) -> list[LabelMap]:
    """Label maps in these files; raises `napari_sam_med.errors.ImageError` for files that are none."""
    maps = []
    for path in paths:
        labels = read_labels(path)
        z, y, x = (float(s) for s in labels.grid.spacing_zyx)
        maps.append(LabelMap(np.ascontiguousarray(labels.data), (z, y, x)))
    return maps


def draw_anatomy(rng: np.random.Generator, label_map: LabelMap) -> Scene:
    """Scene of a random slice of a label map, with random insides of its organs and a few lesions on top."""
    labels = _square(rng, *_random_slice(rng, label_map))
    scene = Scene(np.zeros((SIZE, SIZE), dtype=np.uint8))
    x, y = warped_coordinates(rng)
    if (labels > 0).mean() < 0.3:
        draw_background(rng, scene, x, y)
    for label in np.unique(labels[labels > 0]):
        _draw_organ(rng, scene, labels == label)
    rows, columns = np.nonzero(labels)
    for _ in range(int(rng.integers(0, 4))):
        at = rng.integers(len(rows))
        size = float(np.exp(rng.uniform(np.log(5.0), np.log(36.0))))
        draw_composite(rng, scene, x, y, (columns[at], rows[at]), size)
    return scene


def _random_slice(
    rng: np.random.Generator, label_map: LabelMap
) -> tuple[npt.NDArray[Any], tuple[float, float]]:
    """A slice (H, W) with something on it, and its pixel spacing (row, column) in millimetres."""
    for _ in range(50):
        axis = int(rng.choice(label_map.planes()))
        index = int(rng.integers(label_map.data.shape[axis]))
        found = np.take(label_map.data, index, axis)
        if np.count_nonzero(found) > 0.01 * found.size:
            break
    row, column = np.delete(np.array(label_map.spacing), axis)
    return found, (float(row), float(column))


def _square(
    rng: np.random.Generator, labels: npt.NDArray[Any], spacing: tuple[float, float]
) -> npt.NDArray[Any]:
    """The labelled part of a slice on a square grid (SIZE, SIZE) of square pixels, with smooth borders."""
    rows, columns = (np.nonzero(labels.any(axis))[0] for axis in (1, 0))
    centre = np.array([rows[[0, -1]].mean(), columns[[0, -1]].mean()])
    extent = np.array([np.ptp(rows) + 1, np.ptp(columns) + 1]) * spacing
    # either the whole body with air around it, or a part of it seen closely
    side = (
        extent.max() * rng.uniform(1.02, 1.5) if rng.random() < 0.7 else extent.max() * rng.uniform(0.5, 1.0)
    )
    if side < extent.max():
        anywhere = np.argwhere(labels)
        centre = anywhere[rng.integers(len(anywhere))].astype(float)
    step = side / SIZE / np.array(spacing)
    offset = (np.arange(SIZE) + 0.5) - SIZE / 2
    grid = np.meshgrid(centre[0] + offset * step[0], centre[1] + offset * step[1], indexing="ij")
    sampled: npt.NDArray[Any] = ndimage.map_coordinates(labels, grid, order=0, mode="constant")
    sigma = 0.5 / float(step.min())
    if sigma < 0.7:
        return sampled
    best, winner = np.full(sampled.shape, 0.0, np.float32), np.zeros_like(sampled)
    for label in np.unique(sampled):
        share = ndimage.gaussian_filter((sampled == label).astype(np.float32), sigma)
        winner[share > best] = label
        np.maximum(best, share, out=best)
    return winner


def _draw_organ(rng: np.random.Generator, scene: Scene, mask: npt.NDArray[np.bool_]) -> None:
    """Each piece of an organ with something inside it; pieces of one organ look alike."""
    pieces, count = ndimage.label(mask)
    first: int | None = None
    wholes: list[tuple[int, ...]] = []
    for number, window in enumerate(ndimage.find_objects(pieces), start=1):
        piece = pieces[window] == number
        if count > 1 and piece.sum() < _MIN_PIXELS and first is not None:
            continue
        before_parts, before_objects = len(scene.group), len(scene.objects)
        _draw_piece(rng, scene, window, piece)
        if before_parts >= len(scene.group):
            return  # the scene is full
        if first is None:
            first = before_parts
        else:
            scene.twin[before_parts] = scene.twin[first]
        if len(scene.objects) > before_objects:
            wholes.append(max((parts for parts, _ in scene.objects[before_objects:]), key=len))
    if len(wholes) > 1:
        scene.objects.append((tuple(part for parts in wholes for part in parts), 0.5))


def _draw_piece(
    rng: np.random.Generator, scene: Scene, window: tuple[slice, ...], piece: npt.NDArray[np.bool_]
) -> None:
    depth = ndimage.distance_transform_edt(np.pad(piece, 1))[1:-1, 1:-1].astype(np.float32)
    deepest = float(depth.max())
    height, width = piece.shape
    v, u = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j].astype(np.float32)
    kinds = [kind for kind in _INNER if deepest >= STRUCTURES[kind][2] / 2 or kind == "plain"]
    shares = np.array([_INNER[kind] for kind in kinds])
    draw = STRUCTURES[kinds[rng.choice(len(kinds), p=shares / shares.sum())]][0]
    whole = scene.parts
    scene.parts = whole[window]  # a view: painting goes to the whole map
    draw(rng, scene, depth / deepest, (u, v), len(scene.group))
    scene.parts = whole
