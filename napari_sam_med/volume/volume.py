"""A scan: voxels as LPS+ (z, y, x) with the geometry of the file they came from."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from napari_sam_med.volume.grid import FloatArray, Grid
from napari_sam_med.volume.lazy_array import fits_memory
from napari_sam_med.volume.slice_view import SliceView

__all__ = ["Grid", "Volume"]


@dataclass(frozen=True, eq=False, repr=False)
class Volume:
    """A scan of one time point.

    Attributes
    ----------
    data : array-like (z, y, x)
        Voxels as LPS+: z grows to superior, y to posterior, x to the patient's left. In the stored dtype,
        native byte order; float32 where the file scales its values.
    grid : Grid
        Geometry of the file and of `data`.
    path : Path or None
        The file.
    warnings : tuple of str
        What is odd about the file and what was done about it, one line each.
    header : object or None
        Header of the file, kept for export; opaque.
    n_times, time : int
        Volumes that the file holds, and which one this is.
    layer_transform : mapping or None
        Transform of the foreign layer that `from_layer` read, as keyword arguments for a new layer.
    layer_name : str or None
        Name of that layer.
    statistics : dict
        Windows that were computed already, by name.
    levels : tuple of array-like (z, y, x)
        The voxels coarser and coarser, for display, where they stay on the disk and the file has these.
    """

    data: Any
    grid: Grid
    path: Path | None = None
    warnings: tuple[str, ...] = ()
    header: object | None = None
    n_times: int = 1
    time: int = 0
    layer_transform: Mapping[str, Any] | None = None
    layer_name: str | None = None
    statistics: dict[str, tuple[float, float]] = field(default_factory=dict)
    levels: tuple[Any, ...] = ()

    @classmethod
    def from_layer(cls, layer: Any) -> Volume:
        """Volume of a napari Image layer (2-D or 3-D, not RGB), however it was loaded.

        A layer that this package opened keeps the geometry of its file (``layer.metadata["sam_med"]``). Any
        other layer is taken to lie in LPS millimetres (z, y, x), as readers with ``scale = spacing[::-1]``
        place it; its voxels are not flipped, and its transform is kept for new layers on the same grid.

        Raises
        ------
        ImageError
            If the layer is RGB, multiscale without full-resolution data, or has more than three axes.
        """
        from napari_sam_med.volume.foreign_layer import volume_of_layer

        return volume_of_layer(layer)

    @property
    def affine(self) -> FloatArray:
        """Matrix (4, 4) from the file's voxel (i, j, k) to RAS mm."""
        return self.grid.affine

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Distance of neighbouring voxels in mm along z, y, x."""
        return self.grid.spacing_zyx

    @property
    def shape(self) -> tuple[int, int, int]:
        """Number of voxels along z, y, x."""
        return self.grid.shape_zyx

    @property
    def name(self) -> str:
        """File name, or the name of the layer."""
        if self.layer_name is not None:
            return self.layer_name
        return "volume" if self.path is None else self.path.name

    def pixel_spacing(self, view: SliceView) -> tuple[float, float]:
        """Distance in mm of neighbouring rows and of neighbouring columns of a slice image."""
        return self.spacing[view.row_axis], self.spacing[view.column_axis]

    @property
    def display_transform(self) -> dict[str, Any]:
        """Keyword arguments for a napari layer on this grid, order (z, y, x); a foreign layer's own."""
        if self.layer_transform is not None:
            return dict(self.layer_transform)
        return {
            "scale": _exact_in_binary(self.grid.spacing_zyx),
            "translate": _exact_in_binary(self.grid.translate_zyx),
            "units": ("mm", "mm", "mm"),
            "axis_labels": ("S", "P", "L"),
        }

    @property
    def pyramid(self) -> Any:
        """What a viewer is to show: `data`, or a list of it and of its coarser levels if there are some."""
        return [self.data, *self.levels] if self.levels else self.data

    @property
    def is_lazy(self) -> bool:
        """Whether the voxels stay on the disk because all of them are too many for this machine's memory."""
        if isinstance(self.data, np.ndarray) and not isinstance(self.data, np.memmap):
            return False
        return not fits_memory(math.prod(self.shape) * np.dtype(self.data.dtype).itemsize)

    @cached_property
    def value_range(self) -> tuple[float, float]:
        """Smallest and largest finite value; (0, 0) where no value is finite.

        Read slice by slice; of a scan that is larger than memory those of a sample.
        """
        from napari_sam_med.volume.intensity import finite_range

        return finite_range(self)

    @property
    def is_hounsfield(self) -> bool:
        """Whether values look like Hounsfield units: signed, and the smallest is -200 or less."""
        return bool(np.dtype(self.data.dtype).kind in "if" and self.value_range[0] <= -200)

    def __repr__(self) -> str:
        z, y, x = self.shape
        sz, sy, sx = self.spacing
        dtype = np.dtype(self.data.dtype)
        mebibytes = z * y * x * dtype.itemsize / 2**20
        size = f"{mebibytes:.0f} MiB" if mebibytes >= 1 else f"{mebibytes * 1024:.0f} KiB"
        return (
            f"Volume(z={z}, y={y}, x={x}; {sz:.2f} x {sy:.2f} x {sx:.2f} mm; {self.grid.axis_codes}; "
            f"{dtype.name}; {size}; {self.name})"
        )


def _exact_in_binary(millimetres: Sequence[float]) -> tuple[float, ...]:
    """Rounded to multiples of 2**-32 mm, so that sums over a volume lose no bit.

    napari counts slices as the truncated quotient of extent and step: 46.999... for 47 hides the last slice.
    """
    return tuple(round(value * 2**32) / 2**32 for value in millimetres)
