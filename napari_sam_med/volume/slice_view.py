"""A slice of a volume: its plane, its index, and how its image is turned. The display flip lives here
alone.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, SupportsIndex, get_args

import numpy as np
import numpy.typing as npt

from napari_sam_med.errors import ImageError

__all__ = ["PLANES", "Plane", "SliceView"]

Plane = Literal["axial", "coronal", "sagittal"]
PLANES: tuple[Plane, ...] = get_args(Plane)


@dataclass(frozen=True, init=False, order=True)
class SliceView:
    """One slice of a canonical LPS+ (z, y, x) volume, as it is shown to a radiologist.

    Axial images have anterior up and the patient's right on the left; row 0 of a coronal or sagittal image is
    the most superior one.

    Parameters
    ----------
    plane : {"axial", "coronal", "sagittal"}
        The plane of the slice.
    index : int
        Voxel index along the axis that the plane cuts (z, y, x for axial, coronal, sagittal), from 0.

    Raises
    ------
    ImageError
        On another plane, or an index that is negative or no integer.
    """

    plane: Plane
    index: int

    def __init__(self, plane: Plane, index: SupportsIndex) -> None:
        if plane not in PLANES:
            raise ImageError(f"There is no plane {plane!r}; use axial, coronal or sagittal.")
        try:
            number = operator.index(index)
        except TypeError:
            raise ImageError(
                f"A slice index is an integer, got {index!r}; round it to the nearest slice."
            ) from None
        if number < 0:
            raise ImageError(
                f"Slice {number} does not exist: slices count from 0; give an index of 0 or more."
            )
        object.__setattr__(self, "plane", plane)
        object.__setattr__(self, "index", number)

    @property
    def axis(self) -> int:
        """Axis of (z, y, x) that the plane cuts: 0, 1 or 2."""
        return PLANES.index(self.plane)

    @property
    def row_axis(self) -> int:
        """Axis of (z, y, x) along which the row number of the slice image runs."""
        return 1 if self.plane == "axial" else 0

    @property
    def column_axis(self) -> int:
        """Axis of (z, y, x) along which the column number of the slice image runs."""
        return 1 if self.plane == "sagittal" else 2

    def slice_shape(self, shape_zyx: Sequence[int]) -> tuple[int, int]:
        """Height and width (H, W) of the slice image in a volume of shape (z, y, x)."""
        return int(shape_zyx[self.row_axis]), int(shape_zyx[self.column_axis])

    def window_on(self, data_zyx: Any) -> Any:
        """The slice image (H, W) as a view of an ndarray (z, y, x): what is written into it lands there.

        Raises
        ------
        ImageError
            If the volume has no such slice.
        """
        if len(data_zyx.shape) != 3:
            raise ImageError(f"A slice is cut from a (z, y, x) array, got shape {tuple(data_zyx.shape)}.")
        n_slices = data_zyx.shape[self.axis]
        if self.index >= n_slices:
            raise ImageError(
                f"{self.plane} slice {self.index} does not exist: there are {n_slices}; "
                f"give an index of 0 to {n_slices - 1}."
            )
        if self.plane == "axial":
            return data_zyx[self.index]
        if self.plane == "coronal":
            return data_zyx[:, self.index, :][::-1]
        return data_zyx[:, :, self.index][::-1]

    def extract(self, data_zyx: Any) -> npt.NDArray[Any]:
        """Copy of the slice image (H, W) of an array-like (z, y, x), in its dtype, C-contiguous.

        Raises
        ------
        ImageError
            If the volume has no such slice.
        """
        return np.array(self.window_on(data_zyx), order="C")

    def insert(self, data_zyx: npt.NDArray[Any], slice_hw: npt.ArrayLike) -> None:
        """Write a slice image (H, W) into an ndarray (z, y, x), in place; inverse of `extract`.

        Raises
        ------
        ImageError
            If the volume has no such slice or the image has another shape.
        """
        window = self.window_on(data_zyx)
        image = np.asarray(slice_hw)
        if image.shape != window.shape:
            raise ImageError(
                f"{self.plane} slices here are {window.shape} (H, W), got an image of {image.shape}."
            )
        window[...] = image

    def pixel_xy(self, index_zyx: Sequence[float], shape_zyx: Sequence[int]) -> tuple[float, float]:
        """Pixel (x = column, y = row) of a canonical index (z, y, x); centres at integers, fractions kept."""
        row = index_zyx[self.row_axis]
        if self.plane != "axial":
            row = shape_zyx[0] - 1 - row
        return float(index_zyx[self.column_axis]), float(row)

    def index_zyx(self, xy: Sequence[float], shape_zyx: Sequence[int]) -> tuple[float, float, float]:
        """Canonical voxel index (z, y, x) of a pixel (x, y) of this slice; inverse of `pixel_xy`."""
        x, y = xy
        index = [0.0, 0.0, 0.0]
        index[self.axis] = float(self.index)
        index[self.column_axis] = float(x)
        index[self.row_axis] = float(y if self.plane == "axial" else shape_zyx[0] - 1 - y)
        return index[0], index[1], index[2]

    def line_of(
        self, other: SliceView, shape_zyx: Sequence[int]
    ) -> tuple[int | slice[None, None, None], int | slice[None, None, None]]:
        """Row and column index of the line of this slice image on which a slice of another plane crosses it.

        One of them is a number, the other everything; both images run along the line the same way, so
        ``a_image[a.line_of(b, shape)]`` and ``b_image[b.line_of(a, shape)]`` are the same voxels.

        Raises
        ------
        ImageError
            If both slices lie in one plane.
        """
        if other.plane == self.plane:
            raise ImageError(f"Two {self.plane} slices do not cross; give a slice of another plane.")
        if other.axis == self.column_axis:
            return slice(None), other.index
        return (other.index if self.plane == "axial" else shape_zyx[0] - 1 - other.index), slice(None)

    @classmethod
    def containing(cls, plane: Plane, index_zyx: Sequence[float]) -> SliceView:
        """The slice of `plane` that holds a canonical index (z, y, x), rounded to the nearest voxel."""
        if plane not in PLANES:
            raise ImageError(f"There is no plane {plane!r}; use axial, coronal or sagittal.")
        return cls(plane, round(float(index_zyx[PLANES.index(plane)])))
