"""A combo box over the viewer's layers of one type."""

from __future__ import annotations

import re
import weakref
from collections.abc import Sequence
from pathlib import Path

from napari.layers import Layer
from qtpy.QtCore import QSignalBlocker, Qt, Signal

from napari_sam_med.gui.appearance import Combo
from napari_sam_med.gui.layer_bridge import LayerBridge

__all__ = ["LayerCombo", "names_told_apart"]

_NUMBER = re.compile(r" \[\d+\]$")
"""That napari puts behind a name that another layer has."""


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
            if self.first is not None:
                self.addItem(self.first)
            known = layers[self.count() :]
            for layer, name in zip(known, names_told_apart(known), strict=True):
                self.addItem(name)
                path = _path_of(layer)
                if path is not None:
                    self.setItemData(self.count() - 1, str(path), Qt.ItemDataRole.ToolTipRole)
            if selected in layers:
                self.setCurrentIndex(layers.index(selected))
            elif self.first is None:
                self.setCurrentIndex(-1)
            else:
                self.setCurrentIndex(0)


def names_told_apart(layers: Sequence[Layer]) -> list[str]:
    """Names of layers; with as much of their folders as it takes where files of one name lie in several."""
    names = [layer.name for layer in layers]
    paths = [_path_of(layer) for layer in layers]
    bare = [_NUMBER.sub("", name) for name in names]
    for name in set(bare):
        alike = [i for i, other in enumerate(bare) if other == name and paths[i] is not None]
        folders = {i: paths[i].parent.parts for i in alike}
        needed = next(
            (n for n in range(1, max(map(len, folders.values()), default=0) + 1) if _differ(folders, n)), 0
        )
        for i in alike if needed else ():
            names[i] = "/".join((*folders[i][-needed:], names[i]))
    return names


def _differ(folders: dict[int, tuple[str, ...]], n_parts: int) -> bool:
    """Whether the last parts tell all folders apart that differ at all, and some do."""
    different = set(folders.values())
    return 1 < len(different) == len({parts[-n_parts:] for parts in different})


def _path_of(layer: Layer) -> Path | None:
    """The file that a layer was read from; of labels made here, their scan's."""
    path = getattr(layer.metadata.get("sam_med"), "path", None) or layer.source.path
    return None if path is None else Path(path)
