"""A combo box over the viewer's layers of one type."""

from __future__ import annotations

import weakref

from napari.layers import Layer
from qtpy.QtCore import QSignalBlocker, Signal

from napari_sam_med.gui.appearance import Combo
from napari_sam_med.gui.layer_bridge import LayerBridge

__all__ = ["LayerCombo"]


class LayerCombo(Combo):
    """Offers the layers of a type, and optionally a first entry that stands for none of them.

    Signals
    -------
    chosen : Layer or None
        By the user, never by code.
    """

    chosen = Signal(object)

    def __init__(self, bridge: LayerBridge, kind: type[Layer], tip: str, first: str | None = None) -> None:
        super().__init__(tip)
        self._bridge = bridge
        self._kind = kind
        self.first = first
        # weak: the combo of a closed panel may live on, and would keep scans in memory
        self._layers: list[weakref.ref[Layer] | None] = []
        self.activated.connect(self._on_activated)

    def _on_activated(self, index: int) -> None:
        known = self._layers[index]
        self.chosen.emit(None if known is None else known())

    def show_layers(self, selected: Layer | None) -> None:
        """List the layers anew, with one of them selected."""
        with QSignalBlocker(self):
            self.clear()
            layers = [] if self.first is None else [None]
            layers += self._bridge.layers_of_type(self._kind)
            self._layers = [None if layer is None else weakref.ref(layer) for layer in layers]
            for layer in layers:
                self.addItem(self.first if layer is None else layer.name)
            if selected in layers:
                self.setCurrentIndex(layers.index(selected))
            elif self.first is None:
                self.setCurrentIndex(-1)
            else:
                self.setCurrentIndex(0)
