"""Slices of DICOM made into one grid, or refused with the positions at which they do not fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from napari_sam_med.errors import ImageError
from napari_sam_med.volume.formats.nifti_geometry import geometry_warnings, is_usable

__all__ = [
    "Plane",
    "Stack",
    "normal_of",
    "refuse_unlike",
    "regular_affine",
    "shortened",
    "stack_planes",
    "straightened",
    "tolerance_mm",
]

FloatArray = npt.NDArray[np.float64]
_RAS_FROM_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
#: Share of the slice spacing by which a slice may be off its place; statement 29 of docs/safety.md.
TOLERANCE = 0.01
# below a micrometre the digits that DICOM writes positions with end
_SMALLEST_TOLERANCE_MM = 1e-3
# cosines with four digits of two files of one series differ by this much
_SAME_COSINES = 2e-4
_SHOWN = 8


@dataclass(frozen=True, eq=False)
class Plane:
    """Where one slice lies.

    Attributes
    ----------
    name : str
        File (and frame) for people.
    shape : (int, int)
        Rows and columns.
    position : (3,) float64
        Centre of the first pixel, LPS mm.
    cosines : (6,) float64
        Directions along a row and along a column.
    pixel_spacing : (float, float)
        Distance in mm of neighbouring rows, and of neighbouring columns.
    thickness : float or None
        Distance to the next slice, mm, as far as the header says.
    """

    name: str
    shape: tuple[int, int]
    position: FloatArray
    cosines: FloatArray
    pixel_spacing: tuple[float, float]
    thickness: float | None


@dataclass(frozen=True, eq=False)
class Stack:
    """Planes in order.

    Attributes
    ----------
    order : tuple of int
        Which of the planes is slice k; along the normal.
    affine : (4, 4) float64
        Voxel (column, row, slice) to RAS mm.
    warnings : tuple of str
    """

    order: tuple[int, ...]
    affine: FloatArray
    warnings: tuple[str, ...]


def stack_planes(planes: Sequence[Plane], name: str) -> Stack:
    """Order planes along their normal; they must be alike, and evenly spaced to 1 % of the spacing.

    A constant shift sideways (gantry tilt) is kept in the affine.

    Raises
    ------
    ImageError
        If not; it lists the positions.
    """
    refuse_unlike(planes, name)
    first, warnings = planes[0], []
    normal = normal_of(first, name)
    places = np.array([plane.position for plane in planes])
    along = places @ normal
    order = np.argsort(along, kind="stable")
    places, along = places[order], along[order]
    if len(planes) == 1:
        step = normal * (first.thickness or 1.0)
        if first.thickness is None:
            warnings.append(f"{name} is one slice and does not say how thick it is; 1 mm is taken.")
    else:
        _refuse_uneven([planes[index].name for index in order], along, name)
        step = (places[-1] - places[0]) / (len(planes) - 1)
        tolerance = tolerance_mm(float(np.diff(along).mean()))
        off = places - places[0] - np.arange(len(planes))[:, None] * step
        worst = int(np.argmax(np.linalg.norm(off, axis=1)))
        if np.linalg.norm(off[worst]) > tolerance:
            raise ImageError(
                f"{name}: its {len(planes)} slices do not lie in one line; the one at {along[worst]:g} mm "
                f"({planes[int(order[worst])].name}) is {np.linalg.norm(off[worst]):.3g} mm off its place. "
                "Resample the series to even slices, for example with dcm2niix, and open the result."
            )
        step = straightened(step, normal, len(planes))
    affine = regular_affine(first, places[0], step)
    if not is_usable(affine):
        raise ImageError(f"The geometry of {name} is damaged (no sensible voxel size); export it again.")
    return Stack(tuple(int(index) for index in order), affine, (*warnings, *geometry_warnings(affine)))


def regular_affine(plane: Plane, origin: FloatArray, step: FloatArray) -> FloatArray:
    """Voxel (column, row, slice) to RAS mm of planes like `plane` that lie `step` apart, LPS mm."""
    lps = np.eye(4)
    lps[:3, 0] = plane.cosines[:3] * plane.pixel_spacing[1]
    lps[:3, 1] = plane.cosines[3:] * plane.pixel_spacing[0]
    lps[:3, 2] = step
    lps[:3, 3] = origin
    return np.asarray(_RAS_FROM_LPS @ lps)


def straightened(step: FloatArray, normal: FloatArray, n_planes: int) -> FloatArray:
    """The step along the normal where it is off it by the last digits of positions only; else as it is."""
    straight = normal * (step @ normal)
    off = float(np.linalg.norm(step - straight)) * (n_planes - 1)
    return straight if off <= tolerance_mm(float(np.linalg.norm(step))) else step


def normal_of(plane: Plane, name: str) -> FloatArray:
    """Unit vector, LPS, to which slices are ordered as ITK orders them: row direction x column direction.

    Raises
    ------
    ImageError
        If the directions are not of length 1 and at right angles.
    """
    row, column = plane.cosines[:3], plane.cosines[3:]
    products = np.array([row @ row - 1, column @ column - 1, row @ column])
    if not np.abs(products).max() <= 5e-3:  # also where one is not a number
        raise ImageError(
            f"{name} has the directions {_listed(plane.cosines)} (ImageOrientationPatient), which are not "
            "at right angles and of length 1; export the series again."
        )
    normal = np.cross(row, column)
    return np.asarray(normal / np.linalg.norm(normal))


def tolerance_mm(spacing: float) -> float:
    """How far off its place a slice may be."""
    return max(TOLERANCE * spacing, _SMALLEST_TOLERANCE_MM)


def refuse_unlike(planes: Sequence[Plane], name: str) -> None:
    """Refuse planes of different directions, sizes or pixel spacings with an ImageError."""
    first = planes[0]
    for what, odd in (
        ("directions", [p for p in planes if np.abs(p.cosines - first.cosines).max() > _SAME_COSINES]),
        ("sizes", [p for p in planes if p.shape != first.shape]),
        (
            "pixel spacings",
            [p for p in planes if not np.allclose(p.pixel_spacing, first.pixel_spacing, rtol=1e-4)],
        ),
    ):
        if not odd:
            continue
        few = odd if 2 * len(odd) <= len(planes) else [p for p in planes if p not in odd]
        raise ImageError(
            f"{name} has slices of different {what}: {len(few)} of {len(planes)} differ from the others, at "
            f"positions {shortened([f'({_listed(p.position)}) in {p.name}' for p in few])}. One volume has "
            "one; put the files of each into a folder of its own."
        )


def _refuse_uneven(names: Sequence[str], along: FloatArray, name: str) -> None:
    """`along`: positions along the normal, ascending, mm."""
    gaps = np.diff(along)
    apart = np.sort(gaps[gaps > _SMALLEST_TOLERANCE_MM])
    usual = float(apart[(len(apart) - 1) // 2]) if len(apart) else 0.0
    tolerance = tolerance_mm(usual)
    doubled = np.flatnonzero(gaps <= tolerance)
    if len(doubled):
        pairs = [f"{along[k]:g} ({names[k]}, {names[k + 1]})" for k in doubled.tolist()]
        raise ImageError(
            f"{name} has {len(doubled)} slices where another one lies already, at {shortened(pairs)} mm "
            "along the slice normal: several time points, echoes or copies? Put the files of one volume "
            "into a folder of their own and open that."
        )
    uneven = np.flatnonzero(np.abs(gaps - usual) > tolerance)
    if len(uneven):
        shown = [f"{gaps[k]:g} mm from {along[k]:g} to {along[k + 1]:g}" for k in uneven.tolist()]
        missing = sum(round(gaps[k] / usual) - 1 for k in uneven.tolist() if _is_multiple(gaps[k] / usual))
        fact = f"; {missing} missing?" if missing else ""
        raise ImageError(
            f"{name}: its {len(along)} slices are not evenly spaced. Usual is {usual:g} mm, but it is "
            f"{shortened(shown)} along the slice normal{fact}. Add the missing files, or resample the "
            "series to even slices, and open that."
        )


def _is_multiple(ratio: float) -> bool:
    return ratio > 1.5 and abs(ratio - round(ratio)) < 0.05


def shortened(items: Sequence[str]) -> str:
    """The first few of a list, for people."""
    more = f" and {len(items) - _SHOWN} more" if len(items) > _SHOWN else ""
    return ", ".join(items[:_SHOWN]) + more


def _listed(values: FloatArray) -> str:
    return ", ".join(f"{value:g}" for value in values)
