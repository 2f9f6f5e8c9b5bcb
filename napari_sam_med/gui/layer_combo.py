"""A combo box over the viewer's layers of one type."""

from __future__ import annotations

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
        self._layers: list[Layer | None] = []
        self.activated.connect(lambda index: self.chosen.emit(self._layers[index]))

    def show_layers(self, selected: Layer | None) -> None:
        """List the layers anew, with one of them selected."""
        with QSignalBlocker(self):
            self.clear()
            self._layers = [] if self.first is None else [None]
            self._layers += self._bridge.layers_of_type(self._kind)
            for layer in self._layers:
                self.addItem(self.first if layer is None else layer.name)
            if selected in self._layers:
                self.setCurrentIndex(self._layers.index(selected))
            elif self.first is None:
                self.setCurrentIndex(-1)
            else:
                self.setCurrentIndex(0)
