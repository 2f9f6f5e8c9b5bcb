"""What files call labels, made into whole numbers on the grid of a scan."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from napari_sam_med.errors import LabelError
from napari_sam_med.volume.grid import Grid
from napari_sam_med.volume.organs import MAX_CLASS_ID

__all__ = ["placed_on", "whole_numbers"]

# noise that resampling or a float format leaves on whole numbers; 0.5 would be a mixture of two labels
_MOST_NOISE = 1e-3
# data sets mark "unknown" by one or two negative numbers; more of them are the values of a scan
_MOST_NEGATIVE_VALUES = 4


def whole_numbers(data_zyx: npt.NDArray[Any], name: str) -> tuple[npt.NDArray[Any], list[str]]:
    """Labels (z, y, x) as uint8, or uint16 where needed, C-contiguous, and warnings about what was changed.

    Raises
    ------
    LabelError
        If values are not near whole numbers, not finite, above 65535, or many different negative ones.
    """
    lowest, highest = 0, 0
    negatives: set[int] = set()
    for plane in data_zyx:
        values = _rounded(plane, name)
        lowest, highest = min(lowest, int(values.min())), max(highest, int(values.max()))
        if lowest < 0:
            negatives.update(np.unique(values[values < 0]).tolist())
        if highest > MAX_CLASS_ID or len(negatives) > _MOST_NEGATIVE_VALUES:
            fact = f"the value {highest}" if highest > MAX_CLASS_ID else "many negative values"
            raise LabelError(
                f"{name} has {fact}: labels are 0 to {MAX_CLASS_ID}; is this the scan? Give its label file."
            )
    result = np.empty(data_zyx.shape, dtype=np.uint8 if highest <= 255 else np.uint16)
    for plane, target in zip(data_zyx, result, strict=True):
        np.maximum(_rounded(plane, name), 0, out=target, casting="unsafe")
    warnings = []
    if negatives:
        shown = ", ".join(map(str, sorted(negatives)))
        warnings.append(f"{name} has negative labels ({shown}); they are taken for background.")
    if highest == 255 and not any(((plane != 0) & (plane != 255)).any() for plane in result):
        np.minimum(result, 1, out=result)
        warnings.append(f"{name} is a mask of 0 and 255; 255 is taken for label 1.")
    return result, warnings


def placed_on(
    target: Grid, data_zyx: npt.NDArray[Any], grid: Grid, name: str
) -> tuple[npt.NDArray[Any], list[str]]:
    """Labels (z, y, x) of another grid on the grid `target`, nearest neighbour by the affines, and a warning.

    Raises
    ------
    LabelError
        If the two share no voxel, or every label would be lost.
    """
    to_labels = grid.zyx_from_lps @ target.lps_from_zyx
    placed = np.empty(target.shape_zyx, dtype=data_zyx.dtype)
    # "grid-constant": an outer voxel reaches half a voxel beyond its centre; "constant" ends at the centre
    ndimage.affine_transform(
        data_zyx, to_labels, output_shape=placed.shape, output=placed, order=0, mode="grid-constant", cval=0
    )
    outside = _share_outside(data_zyx, target.zyx_from_lps @ grid.lps_from_zyx, target.shape_zyx)
    fact = f"{name} lies on another grid than the scan ({_described(grid)} against {_described(target)})"
    if grid.shape_zyx == target.shape_zyx:
        fact = f"{name} has the shape of the scan but another place or orientation ({_described(grid)})"
    if not _share_a_voxel(target, to_labels, grid) or (data_zyx.any() and not placed.any()):
        raise LabelError(
            f"{fact}, and none of it lies inside the scan; give the scan that these labels were drawn on."
        )
    lost = f"; {outside:.1%} of the labelled voxels lie outside the scan" if outside >= 0.0005 else ""
    return placed, [f"{fact}; it was placed by its affine, nearest neighbour{lost}."]


def _rounded(plane: npt.NDArray[Any], name: str) -> npt.NDArray[Any]:
    if plane.dtype.kind in "iu":
        return plane
    whole = np.rint(plane)
    with np.errstate(invalid="ignore"):
        fits = np.abs(plane - whole) <= _MOST_NOISE
    if not fits.all():
        odd = float(plane[~fits][0])
        raise LabelError(
            f"{name} has the value {odd:g}: labels are whole numbers; is this the scan or a probability map? "
            "Give its label file, or round it first."
        )
    rounded: npt.NDArray[np.int64] = np.clip(whole, -(2.0**62), 2.0**62).astype(np.int64)
    return rounded


def _share_a_voxel(target: Grid, to_labels: npt.NDArray[np.float64], grid: Grid) -> bool:
    """Whether any voxel centre of `target`, to within half a voxel, lies in `grid`."""
    corners = np.array([(z, y, x, 1.0) for z in (0, 1) for y in (0, 1) for x in (0, 1)])
    corners[:, :3] *= np.array(target.shape_zyx) - 1
    places = (corners @ to_labels.T)[:, :3]
    limits = np.array(grid.shape_zyx) - 0.5
    return bool((places.min(axis=0) < limits).all() and (places.max(axis=0) > -0.5).all())


def _share_outside(
    data_zyx: npt.NDArray[Any], to_target: npt.NDArray[np.float64], shape_zyx: tuple[int, int, int]
) -> float:
    """Share of the labelled voxels whose centres fall outside the target grid."""
    labelled = inside = 0
    limits = np.array(shape_zyx) - 0.5
    for z, plane in enumerate(data_zyx):
        rows, columns = np.nonzero(plane)
        index = np.stack([np.full(rows.size, z), rows, columns], axis=1)
        places = index @ to_target[:3, :3].T + to_target[:3, 3]
        labelled += rows.size
        inside += int(((places >= -0.5) & (places < limits)).all(axis=1).sum())
    return 0.0 if not labelled else 1.0 - inside / labelled


def _described(grid: Grid) -> str:
    shape = " x ".join(map(str, grid.shape_ijk))
    spacing = " x ".join(f"{value:.2f}" for value in np.linalg.norm(grid.affine[:3, :3], axis=0))
    return f"{shape} voxels of {spacing} mm, {grid.axis_codes}"
