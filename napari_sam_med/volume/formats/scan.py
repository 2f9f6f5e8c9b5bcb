"""What every format reader hands over: one array in the file's own axes and its place in the world."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_sam_med.volume.geometry_doubt import GeometryDoubt
from napari_sam_med.volume.organs import OrganTable

__all__ = ["Scan"]


@dataclass(frozen=True, eq=False)
class Scan:
    """One volume of a file, before it is turned.

    Attributes
    ----------
    array_ijk : ndarray or LazyArray (i, j, k)
        Voxels in the file's own axes, native byte order.
    affine : (4, 4) float64
        Voxel (i, j, k) to RAS mm; finite and regular.
    header : object or None
        What export needs to write the same geometry again.
    n_times : int
        Volumes that the file holds.
    warnings : tuple of str
        One line each.
    organs : OrganTable or None
        Names and colours that the file itself carries.
    doubt : GeometryDoubt or None
        What the file leaves open about `affine`; shear is looked for by who makes a grid of it.
    levels : tuple of array-like (i, j, k)
        The same, coarser and coarser, where the voxels stay on the disk and the file has them.
    """

    array_ijk: Any
    affine: npt.NDArray[np.float64]
    header: object | None = None
    n_times: int = 1
    warnings: tuple[str, ...] = ()
    organs: OrganTable | None = None
    doubt: GeometryDoubt | None = None
    levels: tuple[Any, ...] = ()

    def with_warnings(self, warnings: tuple[str, ...]) -> Scan:
        """Copy with warnings put before its own."""
        return replace(self, warnings=(*warnings, *self.warnings))
