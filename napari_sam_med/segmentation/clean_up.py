"""Putting a finished mask in order: components, holes, islands, rough borders.

Every function takes a mask (z, y, x), leaves it as it is, and works inside its bounding box, so that the time
taken follows the object and not the scan.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from napari_sam_med.errors import LabelError
from napari_sam_med.volume.slice_view import PLANES, Plane

__all__ = ["fill_holes", "largest_component", "remove_islands", "smooth"]

Mask = npt.NDArray[np.bool_]

_REACH = 3.0
"""Standard deviations after which a Gaussian counts as nothing."""


def largest_component(mask_zyx: Mask, keep_touching_zyx: Mask | None = None) -> Mask:
    """The component with most voxels; voxels that share a corner hang together.

    Parameters
    ----------
    mask_zyx : ndarray (z, y, x) of bool
    keep_touching_zyx : ndarray (z, y, x) of bool, optional
        Other components stay too if they hold one of these voxels, such as those of key slices.

    Returns
    -------
    ndarray (z, y, x) of bool
    """
    box = _box_of(mask_zyx)
    if box is None:
        return mask_zyx.copy()
    labels, sizes = _components(mask_zyx[box])
    kept = np.zeros(len(sizes), dtype=bool)
    kept[np.argmax(sizes)] = True
    if keep_touching_zyx is not None:
        kept[np.unique(labels[keep_touching_zyx[box]])] = True
    return _kept(mask_zyx, box, labels, kept)


def remove_islands(mask_zyx: Mask, min_volume_mm3: float, spacing_mm: Sequence[float]) -> Mask:
    """The mask without components smaller than a volume; voxels that share a corner hang together.

    Parameters
    ----------
    mask_zyx : ndarray (z, y, x) of bool
    min_volume_mm3 : float
        Least volume of a component that stays.
    spacing_mm : (float, float, float)
        Of the voxels along z, y, x.

    Returns
    -------
    ndarray (z, y, x) of bool
        Empty when every component is smaller.

    Raises
    ------
    LabelError
        If the volume is negative.
    """
    if not min_volume_mm3 >= 0:
        raise LabelError(f"The volume of an island cannot be {min_volume_mm3:g} mm3; give 0 or more.")
    box = _box_of(mask_zyx)
    if box is None:
        return mask_zyx.copy()
    labels, sizes = _components(mask_zyx[box])
    kept = sizes * float(np.prod(spacing_mm)) >= min_volume_mm3 * (1 - 1e-9)
    return _kept(mask_zyx, box, labels, kept)


def fill_holes(mask_zyx: Mask, plane: Plane | None = None) -> Mask:
    """The mask with its holes: background that no way of shared faces leads out of.

    Parameters
    ----------
    mask_zyx : ndarray (z, y, x) of bool
    plane : {"axial", "coronal", "sagittal"}, optional
        Ways stay within slices of this plane, so that tubes which leave the slices are filled too; in 3-D
        when left out.

    Returns
    -------
    ndarray (z, y, x) of bool
    """
    box = _box_of(mask_zyx)
    if box is None:
        return mask_zyx.copy()
    ways = ndimage.generate_binary_structure(3, 1)
    padding = [(1, 1)] * 3
    if plane is not None:
        axis = PLANES.index(plane)
        padding[axis] = (0, 0)
        across = [slice(None)] * 3
        for side in (0, 2):
            across[axis] = slice(side, side + 1)
            ways[tuple(across)] = False
    labels, n_labels = ndimage.label(~np.pad(mask_zyx[box], padding), structure=ways)
    is_hole = np.ones(n_labels + 1, dtype=bool)
    is_hole[0] = False
    for one, (before, _) in enumerate(padding):
        if before:
            is_hole[np.unique(labels.take((0, -1), axis=one))] = False
    inner = tuple(
        slice(before, length - after) for (before, after), length in zip(padding, labels.shape, strict=True)
    )
    filled = mask_zyx.copy()
    filled[box] |= is_hole[labels[inner]]
    return filled


def smooth(mask_zyx: Mask, radius_mm: float, spacing_mm: Sequence[float], plane: Plane | None = None) -> Mask:
    """The mask with a smoother border and the same volume.

    The mask is blurred by a Gaussian and cut at the level that keeps its number of voxels: a fixed level of
    one half would take from every convex border, and lose thin parts altogether.

    Parameters
    ----------
    mask_zyx : ndarray (z, y, x) of bool
    radius_mm : float
        Standard deviation of the Gaussian; bumps and dents of about this size go.
    spacing_mm : (float, float, float)
        Of the voxels along z, y, x.
    plane : {"axial", "coronal", "sagittal"}, optional
        Smooth and keep the area within each slice of this plane; in 3-D when left out.

    Returns
    -------
    ndarray (z, y, x) of bool

    Raises
    ------
    LabelError
        If the radius is not above 0.
    """
    if not 0 < radius_mm < np.inf:
        raise LabelError(f"Smoothing with a radius of {radius_mm:g} mm is not possible; give more than 0.")
    sigmas = [radius_mm / spacing for spacing in spacing_mm]
    axis = None if plane is None else PLANES.index(plane)
    if axis is not None:
        sigmas[axis] = 0.0
    box = _box_of(mask_zyx, [int(np.ceil(_REACH * sigma)) for sigma in sigmas])
    if box is None:
        return mask_zyx.copy()
    inside = mask_zyx[box]
    blurred = ndimage.gaussian_filter(inside.astype(np.float32), sigmas, mode="nearest", truncate=_REACH)
    smoothed = np.zeros_like(mask_zyx)
    if axis is None:
        smoothed[box] = _highest(blurred, int(np.count_nonzero(inside)))
    else:
        for before, soft, after in zip(
            *(np.moveaxis(one, axis, 0) for one in (inside, blurred, smoothed[box])), strict=True
        ):
            after[...] = _highest(soft, int(np.count_nonzero(before)))
    return smoothed


def _highest(values: npt.NDArray[np.float32], n_voxels: int) -> Mask:
    """Where the highest values lie, as many as asked for; a level that several share counts whole."""
    some = values[values > 0]
    if not n_voxels:
        return np.zeros(values.shape, dtype=bool)
    level = np.partition(some, len(some) - n_voxels)[len(some) - n_voxels]
    return np.asarray(values >= level)


def _box_of(mask_zyx: Mask, margin: Sequence[int] = (0, 0, 0)) -> tuple[slice, slice, slice] | None:
    """Bounding box, widened by voxels along z, y, x inside the volume; None for an empty mask."""
    in_zy = np.asarray(mask_zyx.any(axis=2))
    along_axes = [np.asarray(in_zy.any(axis=1)), np.asarray(in_zy.any(axis=0))]
    along_axes.append(np.asarray(mask_zyx.any(axis=(0, 1))))
    if not along_axes[0].any():
        return None
    z, y, x = (
        slice(max(int(np.argmax(along)) - more, 0), len(along) - max(int(np.argmax(along[::-1])) - more, 0))
        for along, more in zip(along_axes, margin, strict=True)
    )
    return z, y, x


def _components(mask_zyx: Mask) -> tuple[npt.NDArray[np.integer], npt.NDArray[np.int64]]:
    """Numbers of 26-connected components, and how many voxels each has (0 for the background)."""
    labels, n_labels = ndimage.label(mask_zyx, structure=np.ones((3, 3, 3), dtype=bool))
    sizes = np.bincount(labels.ravel(), minlength=n_labels + 1)
    sizes[0] = 0
    return labels, sizes


def _kept(
    mask_zyx: Mask,
    box: tuple[slice, slice, slice],
    labels: npt.NDArray[np.integer],
    kept: npt.NDArray[np.bool_],
) -> Mask:
    """A mask of the components that are kept."""
    kept[0] = False
    result = np.zeros_like(mask_zyx)
    result[box] = kept[labels]
    return result
