"""A stroke over the canvas becomes a few points along it."""

from __future__ import annotations

from typing import Any

import numpy as np
from napari.layers import Points

__all__ = ["Stroke"]

_STEP_CANVAS_PIXELS = 14
"""Points this far apart are shown while the mouse moves, as a dotted trail."""
_MOST_POINTS = 6
"""Points that are kept: more say little more, and outweigh a box."""


class Stroke:
    """One stroke, from the press of the button to its release.

    Parameters
    ----------
    layer : Points
        Gets the points, with its defaults.
    event : napari mouse event
        The press.
    """

    def __init__(self, layer: Points, event: Any) -> None:
        self._layer = layer
        self._first = len(layer.data)
        self._start = np.array(event.position, dtype=float)
        self._last_px = np.array(event.pos, dtype=float)

    def go_on(self, event: Any) -> None:
        """Follow the mouse; the first point comes once it is clear that this is no click."""
        here_px = np.array(event.pos, dtype=float)
        if np.linalg.norm(here_px - self._last_px) < _STEP_CANVAS_PIXELS:
            return
        self._last_px = here_px
        if len(self._layer.data) == self._first:
            self._layer.add(self._layer.world_to_data(self._start))
        self._layer.add(self._layer.world_to_data(np.array(event.position, dtype=float)))

    def end(self) -> bool:
        """Keep a few points, evenly along the stroke; False when it was a click and set none."""
        n_points = len(self._layer.data) - self._first
        if n_points > _MOST_POINTS:
            kept = np.linspace(0, n_points - 1, _MOST_POINTS).round().astype(int)
            left_out = set(range(n_points)) - set(kept.tolist())
            self._layer.selected_data = {self._first + i for i in left_out}
            self._layer.remove_selected()
        self._layer.selected_data = set()
        return n_points > 0
