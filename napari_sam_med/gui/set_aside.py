"""What was set aside from Python's search for garbage comes back where it would keep a scan in memory."""

from __future__ import annotations

import math
import weakref
from typing import Any

from napari.components import ViewerModel
from napari.layers import Image, Labels, Layer

from napari_sam_med.gui.live_model import LiveModel
from napari_sam_med.session.preloading import take_imports_back

__all__ = ["SetAside"]

_LARGE = 1 << 22
"""Voxels; smaller layers may stay in memory, once."""


class SetAside:
    """Watches the layers that were there when torch was imported: napari's are circles of references.

    A large one that is removed takes all that was set aside back into the search, which frees it.

    Parameters
    ----------
    viewer : ViewerModel
    model : LiveModel
    """

    def __init__(self, viewer: ViewerModel, model: LiveModel) -> None:
        self._layers: weakref.WeakSet[Layer] = weakref.WeakSet()
        self._viewer = weakref.ref(viewer)
        self._is_noted = False
        model.loaded.connect(self._note)
        # connected last, napari calls it first: before its own search for garbage
        viewer.layers.events.removed.connect(self._on_removed)

    def _note(self) -> None:
        viewer = self._viewer()
        if viewer is not None and not self._is_noted:
            self._is_noted = True
            self._layers.update(layer for layer in viewer.layers if isinstance(layer, Image | Labels))

    def _on_removed(self, event: Any) -> None:
        layer = event.value
        if layer in self._layers and math.prod(layer.data.shape) >= _LARGE:
            self._layers.clear()
            self._is_noted = False  # another model may set more aside
            take_imports_back()

    def stop(self) -> None:
        """For the end of the widget, with which a whole viewer may go."""
        viewer = self._viewer()
        if viewer is not None:
            viewer.layers.events.removed.disconnect(self._on_removed)
        take_imports_back()
