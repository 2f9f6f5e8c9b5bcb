"""A shapes layer that is drawn on whole slices, wherever the viewer stands between two of them.

Beside a layer of another spacing napari's slider steps from one in-between place to the next. A rectangle
that is drawn at slice 22.8, where slice 23 is seen, belongs to slice 22 for napari and ends in an error.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from napari import layers

__all__ = ["Shapes"]


class Shapes(layers.Shapes):
    """napari's, of the same name, since napari goes by the names of layers' classes.

    Where no shape is seen and none was, nothing is drawn anew: it would have the graphics card's programs
    built again at every slice, a quarter of the time that a step of the slider takes.
    """

    _drawn: tuple[Any, ...] | None = None

    @property
    def _data_slice(self) -> Any:
        seen = super()._data_slice
        point = [
            float(np.rint(at)) if axis in self._slice_input.not_displayed else at
            for axis, at in enumerate(seen.point)
        ]
        return seen.copy_with(point=point)

    def world_to_data(self, position: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Voxel indices of a world position, on a whole slice."""
        index = np.array(super().world_to_data(position), dtype=float)
        hidden = self._slice_input.not_displayed
        index[hidden] = np.rint(index[hidden])
        return index

    def _refresh_sync(self, *, data_displayed: bool = False, highlight: bool = False, **others: bool) -> None:
        shown = (bool(self._data_view._visible_shapes), self._slice_input.ndisplay, *self._slice_input.order)
        is_needed = shown[0] or shown != self._drawn
        if data_displayed and (self.visible or others.get("force")):
            self._drawn = shown
        super()._refresh_sync(
            data_displayed=data_displayed and is_needed, highlight=highlight and is_needed, **others
        )
