"""From a file's own axes to LPS+ (z, y, x) and back: the only place that transposes or flips voxels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt

__all__ = ["AS_STORED", "Orientation", "orientation_of"]

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Orientation:
    """How the canonical axes (z, y, x), pointing to superior, posterior and left, lie in a file's array.

    Attributes
    ----------
    file_axes : tuple of int
        Axis of the file's array that each of z, y, x runs along.
    flipped : tuple of bool
        Whether each of z, y, x runs against its file axis.
    """

    file_axes: tuple[int, int, int]
    flipped: tuple[bool, bool, bool]

    def to_canonical(self, array_ijk: Any) -> Any:
        """View of a file's array (i, j, k) as LPS+ (z, y, x); voxels are only permuted and flipped."""
        return array_ijk.transpose(self.file_axes)[self._flips()]

    def from_canonical(self, array_zyx: Any) -> Any:
        """View of an LPS+ array (z, y, x) in the file's own axes (i, j, k); inverse of `to_canonical`."""
        inverse = tuple(int(axis) for axis in np.argsort(self.file_axes))
        return array_zyx[self._flips()].transpose(inverse)

    def index_zyx(self, index_ijk: Sequence[float], shape_ijk: Sequence[int]) -> tuple[float, float, float]:
        """Canonical index (z, y, x) of a file index (i, j, k); voxel centres at integers, fractions kept."""
        z, y, x = (
            shape_ijk[axis] - 1 - index_ijk[axis] if flip else index_ijk[axis]
            for axis, flip in zip(self.file_axes, self.flipped, strict=True)
        )
        return z, y, x

    def index_ijk(self, index_zyx: Sequence[float], shape_ijk: Sequence[int]) -> tuple[float, float, float]:
        """File index (i, j, k) of a canonical index (z, y, x); inverse of `index_zyx`."""
        index = [0.0, 0.0, 0.0]
        for value, axis, flip in zip(index_zyx, self.file_axes, self.flipped, strict=True):
            index[axis] = shape_ijk[axis] - 1 - value if flip else value
        return index[0], index[1], index[2]

    def ijk_from_zyx(self, shape_ijk: Sequence[int]) -> FloatArray:
        """Matrix (4, 4) that takes a homogeneous canonical index (z, y, x, 1) to (i, j, k, 1)."""
        matrix = np.zeros((4, 4))
        matrix[3, 3] = 1.0
        for canonical_axis, (axis, flip) in enumerate(zip(self.file_axes, self.flipped, strict=True)):
            matrix[axis, canonical_axis] = -1.0 if flip else 1.0
            matrix[axis, 3] = shape_ijk[axis] - 1.0 if flip else 0.0
        return matrix

    def _flips(self) -> tuple[slice, slice, slice]:
        z, y, x = (slice(None, None, -1) if flip else slice(None) for flip in self.flipped)
        return z, y, x


#: Of an array that is (z, y, x) already, read as a file of axes x, y, z.
AS_STORED = Orientation((2, 1, 0), (False, False, False))


def orientation_of(affine: npt.ArrayLike) -> Orientation:
    """Orientation of a file whose regular affine (4, 4) takes voxel (i, j, k) to RAS mm.

    For oblique volumes the nearest anatomical axes are taken, as `nibabel.io_orientation` finds them.
    """
    to_lps = nib.orientations.ornt_transform(
        nib.orientations.io_orientation(np.asarray(affine, dtype=np.float64)),
        nib.orientations.axcodes2ornt("LPS"),
    )
    file_axes = [0, 0, 0]
    flipped = [False, False, False]
    for file_axis, (lps_axis, direction) in enumerate(to_lps):
        canonical_axis = 2 - int(lps_axis)
        file_axes[canonical_axis] = file_axis
        flipped[canonical_axis] = direction < 0
    return Orientation((file_axes[0], file_axes[1], file_axes[2]), (flipped[0], flipped[1], flipped[2]))
