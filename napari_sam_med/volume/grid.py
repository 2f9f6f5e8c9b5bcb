"""Where voxels lie: the geometry that a scan and its labels share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt

from napari_sam_med.errors import ImageError
from napari_sam_med.volume.geometry_doubt import GeometryDoubt
from napari_sam_med.volume.orientation import Orientation, orientation_of
from napari_sam_med.volume.slice_view import PLANES, Plane, SliceView

__all__ = ["MOST_SHEAR", "Grid", "shear_of"]

MOST_SHEAR = 1e-5
"""Voxel axes that are farther from right angles than this are told of."""

FloatArray = npt.NDArray[np.float64]
_LPS_FROM_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


def shear_of(affine: npt.ArrayLike) -> float:
    """Largest |cosine| between two voxel axes of an affine (4, 4): 0 for right angles."""
    columns = np.asarray(affine, dtype=np.float64)[:3, :3]
    units = columns / np.linalg.norm(columns, axis=0)
    return float(np.abs(units.T @ units - np.eye(3)).max())


@dataclass(frozen=True, eq=False)
class Grid:
    """Geometry of a file's array and of its canonical LPS+ (z, y, x) form.

    Attributes
    ----------
    affine : (4, 4) float64
        Takes the file's voxel (i, j, k) to RAS mm.
    shape_ijk : tuple of int
        Shape of the file's own array, always three axes.
    fixed_orientation : Orientation, optional
        Where the canonical array is not what the affine implies: layers of other readers, which are never
        turned.
    doubt : GeometryDoubt, optional
        What the file leaves open about `affine`, and what was taken.

    Raises
    ------
    ImageError
        If the affine is not finite or singular, or an axis has no voxels.
    """

    affine: FloatArray
    shape_ijk: tuple[int, int, int]
    fixed_orientation: Orientation | None = None
    doubt: GeometryDoubt | None = None

    def __post_init__(self) -> None:
        affine = np.array(self.affine, dtype=np.float64)
        if affine.shape != (4, 4) or not np.isfinite(affine).all() or not np.linalg.det(affine[:3, :3]):
            raise ImageError(
                f"The affine {affine.tolist()} cannot place voxels: it must be a finite, regular 4 x 4 "
                "matrix; repair the geometry of the file."
            )
        shape = tuple(int(n) for n in self.shape_ijk)
        if len(shape) != 3 or min(shape) < 1:
            raise ImageError(f"A grid has three axes of at least one voxel each, got {shape}.")
        affine.setflags(write=False)
        object.__setattr__(self, "affine", affine)
        object.__setattr__(self, "shape_ijk", shape)

    @classmethod
    def from_zyx(cls, shape_zyx: Sequence[int], spacing_zyx: Sequence[float] = (1.0, 1.0, 1.0)) -> Grid:
        """Grid of an array that is LPS+ (z, y, x) already, with spacings in mm and voxel 0 at the origin."""
        sz, sy, sx = (float(s) for s in spacing_zyx)
        z, y, x = (int(n) for n in shape_zyx)
        return cls(np.diag([-sx, -sy, sz, 1.0]), (x, y, z))

    @cached_property
    def orientation(self) -> Orientation:
        """How the canonical axes lie in the file's array."""
        return orientation_of(self.affine) if self.fixed_orientation is None else self.fixed_orientation

    @property
    def axis_codes(self) -> str:
        """Where the file's axes i, j, k point, such as ``"RAS"``."""
        return "".join(nib.aff2axcodes(self.affine))

    @property
    def shape_zyx(self) -> tuple[int, int, int]:
        """Shape of the canonical array."""
        z, y, x = (self.shape_ijk[axis] for axis in self.orientation.file_axes)
        return z, y, x

    @property
    def spacing_zyx(self) -> tuple[float, float, float]:
        """Distance of neighbouring voxels in mm along z, y, x."""
        spacing = np.linalg.norm(self.affine[:3, :3], axis=0)
        z, y, x = (float(spacing[axis]) for axis in self.orientation.file_axes)
        return z, y, x

    @property
    def translate_zyx(self) -> tuple[float, float, float]:
        """Place of voxel 0 in LPS mm, in the order (z, y, x), for a display without rotation.

        For oblique grids it is chosen so that the centre of the volume is at its true place.
        """
        matrix = self.lps_from_zyx
        centre = (np.array(self.shape_zyx) - 1) / 2
        if self.obliquity_deg < 1e-4:
            place = matrix[:3, 3][::-1]
        else:
            place = (matrix[:3, :3] @ centre + matrix[:3, 3])[::-1] - centre * np.array(self.spacing_zyx)
        z, y, x = (float(value) for value in place)
        return z, y, x

    @property
    def obliquity_deg(self) -> float:
        """Largest angle in degrees between a voxel axis and its anatomical axis."""
        columns = self.lps_from_zyx[:3, :3][::-1]  # rows S, P, L against columns z, y, x
        units = columns / np.linalg.norm(columns, axis=0)
        # the sine keeps precision for small angles, where the cosine is 1 to the last bit
        off_axis = np.linalg.norm(units - np.diag(np.diag(units)), axis=0)
        return float(np.degrees(np.arctan2(off_axis, np.abs(np.diag(units)))).max())

    @property
    def shear(self) -> float:
        """Largest |cosine| between two voxel axes: 0 where they meet at right angles."""
        return shear_of(self.affine)

    @property
    def voxel_volume_mm3(self) -> float:
        """Volume of one voxel in cubic millimetres."""
        return float(abs(np.linalg.det(self.affine[:3, :3])))

    def to_canonical(self, array_ijk: Any) -> Any:
        """View of the file's array (i, j, k) as LPS+ (z, y, x)."""
        return self.orientation.to_canonical(array_ijk)

    def from_canonical(self, array_zyx: Any) -> Any:
        """View of an LPS+ array (z, y, x) in the file's own axes (i, j, k)."""
        return self.orientation.from_canonical(array_zyx)

    def index_zyx_from_ijk(self, index_ijk: Sequence[float]) -> tuple[float, float, float]:
        """Canonical index (z, y, x) of a file index (i, j, k)."""
        return self.orientation.index_zyx(index_ijk, self.shape_ijk)

    def ijk_from_index_zyx(self, index_zyx: Sequence[float]) -> tuple[float, float, float]:
        """File index (i, j, k) of a canonical index (z, y, x)."""
        return self.orientation.index_ijk(index_zyx, self.shape_ijk)

    def world_ras_from_index_zyx(self, index_zyx: Sequence[float]) -> FloatArray:
        """Place in RAS mm (3,) of a canonical index (z, y, x), by the true matrix."""
        ijk = np.array(self.ijk_from_index_zyx(index_zyx))
        return np.asarray(self.affine[:3, :3] @ ijk + self.affine[:3, 3])

    def index_zyx_from_world_ras(self, world_ras: npt.ArrayLike) -> tuple[float, float, float]:
        """Canonical index (z, y, x), not rounded, of a place in RAS mm (3,)."""
        offset = np.asarray(world_ras, dtype=np.float64) - self.affine[:3, 3]
        ijk = np.linalg.solve(self.affine[:3, :3], offset)
        return self.index_zyx_from_ijk([float(value) for value in ijk])

    def file_axis(self, plane: Plane) -> int:
        """Axis of the file's own array that `plane` cuts."""
        return self.orientation.file_axes[PLANES.index(plane)]

    def file_index(self, view: SliceView) -> int:
        """Index of a slice along the file's own axis, as reports and prompt files count it."""
        if self.orientation.flipped[view.axis]:
            return self.shape_zyx[view.axis] - 1 - view.index
        return view.index

    def view_from_file(self, axis: int, index: int) -> SliceView:
        """Slice at `index` along axis 0, 1 or 2 of the file's own array; inverse of `file_index`.

        Raises
        ------
        ImageError
            If there is no such axis or slice.
        """
        if axis not in (0, 1, 2) or not 0 <= index < self.shape_ijk[axis]:
            raise ImageError(
                f"Index {index} along axis {axis} lies outside the file's array of shape {self.shape_ijk}; "
                "count from 0 along the file's own axes i, j, k."
            )
        canonical_axis = self.orientation.file_axes.index(axis)
        if self.orientation.flipped[canonical_axis]:
            index = self.shape_ijk[axis] - 1 - index
        return SliceView(PLANES[canonical_axis], index)

    def distance_mm(self, other: Grid) -> float:
        """Largest distance in mm between the places that two affines give to a corner of this grid."""
        corners = np.array([(*corner, 1.0) for corner in product(*((0.0, n - 1.0) for n in self.shape_ijk))])
        apart = corners @ (self.affine - other.affine)[:3].T
        return float(np.linalg.norm(apart, axis=1).max())

    def same_as(self, other: Grid, tolerance_mm: float | None = None) -> bool:
        """Whether two grids have the same shape and place every voxel alike.

        `tolerance_mm` defaults to a fifth of the smallest voxel spacing: files with affines rounded to two
        digits still fit, a shift by half a voxel does not.
        """
        if self.shape_ijk != other.shape_ijk:
            return False
        allowed = 0.2 * min(self.spacing_zyx) if tolerance_mm is None else tolerance_mm
        return self.distance_mm(other) <= allowed

    def same_voxels_as(self, other: Grid) -> bool:
        """Whether two canonical arrays hold the same voxels at the same places, whatever the files' axes."""
        if self.shape_zyx != other.shape_zyx:
            return False
        return self.canonical().same_as(other.canonical())

    def canonical(self) -> Grid:
        """The same voxels as the grid of a file whose axes i, j, k run to left, posterior, superior."""
        lps_from_xyz = self.lps_from_zyx[:, [2, 1, 0, 3]]
        z, y, x = self.shape_zyx
        return Grid(_LPS_FROM_RAS @ lps_from_xyz, (x, y, z))

    @cached_property
    def lps_from_zyx(self) -> FloatArray:
        """Matrix (4, 4) from a homogeneous canonical index (z, y, x, 1) to (L, P, S, 1) mm."""
        return _LPS_FROM_RAS @ self.affine @ self.orientation.ijk_from_zyx(self.shape_ijk)

    @cached_property
    def zyx_from_lps(self) -> FloatArray:
        """Inverse of `lps_from_zyx`."""
        return np.asarray(np.linalg.inv(self.lps_from_zyx), dtype=np.float64)
