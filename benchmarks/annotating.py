"""What an annotator does over and over, as a script for `benchmarks.long_session`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from napari.layers import Layer
from qtpy.QtCore import Qt
from qtpy.QtTest import QTest

from benchmarks.annotator import Annotator
from napari_sam_med import SliceView, read_volume
from napari_sam_med.gui.experiments import DOCK_NAME

__all__ = ["NAPARIS_BIN", "Round"]

NAPARIS_BIN = "napari's bin"
"""Name of the step in which napari is at work, without the plugin."""

LIVER, SPLEEN = 6, 1
_LEFT = Qt.MouseButton.LeftButton
_CARRIED = 12
"""Slices on either side; every third round carries to the ends of the organ."""
_GRID_MM = 60.0
_SCROLLED = 12

Step = tuple[str, Callable[[], None]]


class Round:
    """One round of work on one scan after another; every step is given with its name.

    Parameters
    ----------
    hands : Annotator
    scans : list of Path
        Of one size and with the same organs; opened in turn.
    labels_ijk : ndarray
        True labels, by which is known where to click.
    models : list of str
        Names or paths, taken in turn.
    folder : Path
        For exports.
    """

    def __init__(
        self, hands: Annotator, scans: list[Path], labels_ijk: np.ndarray, models: list[str], folder: Path
    ) -> None:
        self.hands = hands
        self._scans, self._models, self._folder = scans, models, folder
        self.number = 0
        self._earlier: list[Layer | None] = []
        self._truth = read_volume(scans[0]).grid.to_canonical(labels_ijk)
        areas = {label: (self._truth == label).sum(axis=(1, 2)) for label in (LIVER, SPLEEN)}
        self._best = {label: int(area.argmax()) for label, area in areas.items()}

    def steps(self) -> Iterator[Step]:
        """The steps of the next round."""
        self.number += 1
        is_long = self.number % 3 == 0
        yield "open a scan", self._open
        yield NAPARIS_BIN, self._throw_away
        yield "scroll", self._scroll
        yield "box", lambda: self._box(LIVER)
        yield "clicks", self._clicks
        yield "accept", self._accept
        yield "carry far" if is_long else "carry", lambda: self._carry(is_long)
        yield "review", self._review
        yield "undo", self._undo
        yield "do again", self._redo
        yield "delete", self._delete
        yield "find", self._find
        yield "take", self._take
        yield "other planes", self._planes
        yield "3-D", self._three_d
        yield "window", self._window
        yield "model", self._model
        if is_long:
            yield "experiments", self._experiments
        yield "export", self._export

    def _view(self, label: int, offset: int = 0) -> SliceView:
        return SliceView("axial", self._best[label] + offset)

    def _corners(self, label: int) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
        index = self._best[label]
        rows, columns = (np.flatnonzero((self._truth[index] == label).any(axis=axis)) for axis in (1, 0))
        return (index, int(rows[0]), int(columns[0])), (index, int(rows[-1]), int(columns[-1]))

    def _inside(self, label: int, share: float) -> tuple[int, int, int]:
        """A voxel of an organ on its best slice, so far along its rows."""
        index = self._best[label]
        found = np.argwhere(self._truth[index] == label)
        row, column = found[int(share * (len(found) - 1))]
        return index, int(row), int(column)

    # the steps

    def _open(self) -> None:
        hands = self.hands
        path = self._scans[self.number % len(self._scans)]
        self._earlier = [hands.bridge.labels_layer, hands.bridge.image_layer]
        hands.actions.open_scan(path)
        hands.wait(lambda: getattr(hands.session.volume, "path", None) == path)
        hands.wait(lambda: hands.actions.model.model is not None)
        hands.rest(0.5)

    def _throw_away(self) -> None:
        """Done with a scan, a user chooses its layers in napari's list and presses the bin below: the plugin
        has no say in how napari does that.
        """
        layers = self.hands.viewer.layers
        for layer in [one for one in self._earlier if one in layers]:
            layers.selection = {layer}
            layers.remove_selected()
            self.hands.rest(0.1)

    def _scroll(self) -> None:
        self.hands.look_at(self._view(LIVER, -_SCROLLED))
        for _ in range(_SCROLLED):
            self.hands.key(Qt.Key.Key_Right)

    def _box(self, label: int) -> None:
        hands = self.hands
        hands.session.select_organ(label)
        hands.look_at(self._view(label))
        hands.key(Qt.Key.Key_Q)
        hands.drag(*self._corners(label))
        hands.wait(lambda: hands.session.preview is not None)
        hands.rest(0.3)

    def _clicks(self) -> None:
        hands = self.hands
        hands.key(Qt.Key.Key_W)
        for share in (0.3, 0.6):
            shown = hands.session.preview
            hands.click(self._inside(LIVER, share))
            hands.wait(lambda shown=shown: hands.session.preview not in (None, shown))
            hands.rest(0.3)

    def _accept(self) -> None:
        self.hands.key(Qt.Key.Key_Return, seconds=0.3)

    def _carry(self, is_long: bool) -> None:
        hands, panel = self.hands, self.hands.widget.propagation_panel
        best = self._best[LIVER]
        panel.limited.setChecked(not is_long)
        panel.first.setValue(best - _CARRIED)
        panel.last.setValue(best + _CARRIED)
        hands.key(Qt.Key.Key_G)
        hands.wait_until_free()
        hands.rest(0.3)

    def _review(self) -> None:
        hands = self.hands
        for _ in range(3):
            hands.key(Qt.Key.Key_N, seconds=0.2)
        hands.key(Qt.Key.Key_N, Qt.KeyboardModifier.ShiftModifier, seconds=0.2)

    def _undo(self) -> None:
        for _ in range(3):
            self.hands.undo()

    def _redo(self) -> None:
        for _ in range(3):
            self.hands.redo()

    def _delete(self) -> None:
        """Another object, and away with it."""
        hands, panel = self.hands, self.hands.widget.organ_panel
        self._box(SPLEEN)
        hands.key(Qt.Key.Key_Return, seconds=0.3)
        added = hands.session.active_object_id
        panel.remove.click()
        hands.wait(lambda: added not in hands.session.objects)
        hands.rest()

    def _find(self) -> None:
        hands, panel = self.hands, self.hands.widget.find_panel
        panel.expand(animate=False)
        panel.everything.grid.setValue(_GRID_MM)
        hands.look_at(self._view(SPLEEN, self.number % 5))
        panel.start.click()
        hands.wait_until_free()
        hands.rest(0.3)

    def _take(self) -> None:
        """Choose an organ for what was found, hover, take one, and forget the others."""
        hands, panel, found = self.hands, self.hands.widget.find_panel, self.hands.actions.finding.found
        hands.session.select_organ(SPLEEN)  # whatever it looks like
        view = self._view(SPLEEN, self.number % 5)
        shape = self._truth.shape
        for number, mask in found.on_slice(view)[-3:]:
            row, column = np.argwhere(mask.pixels)[np.count_nonzero(mask.pixels) // 2] + mask.corner
            hands.point_at(view.index_zyx((float(column), float(row)), shape))
            if number == found.pointed:
                hands.key(Qt.Key.Key_Return, seconds=0.3)
                break
        panel.forget.click()
        hands.rest()
        hands.key(Qt.Key.Key_Q)

    def _planes(self) -> None:
        for key in (Qt.Key.Key_2, Qt.Key.Key_3, Qt.Key.Key_1):
            self.hands.key(key, Qt.KeyboardModifier.AltModifier, 0.3)

    def _three_d(self) -> None:
        """To 3-D, and back to the slice."""
        hands, bridge = self.hands, self.hands.bridge
        hands.key(Qt.Key.Key_4, Qt.KeyboardModifier.AltModifier)
        hands.wait(lambda: bridge.current_view() is None)
        hands.rest(0.5)
        hands.key(Qt.Key.Key_1, Qt.KeyboardModifier.AltModifier)
        hands.wait(lambda: bridge.image_layer.visible and bridge.points_layer.visible)
        hands.rest(0.3)

    def _window(self) -> None:
        hands, presets = self.hands, self.hands.widget.volume_panel.window_panel.presets
        for name in ("liver", "auto"):
            index = presets.findData(name)
            presets.setCurrentIndex(index)
            presets.activated.emit(index)
            hands.rest(0.4)

    def _model(self) -> None:
        hands = self.hands
        hands.widget.model_panel.choose(self._models[self.number % len(self._models)])
        hands.wait(lambda: hands.actions.model.model is not None)
        hands.rest(0.3)

    def _experiments(self) -> None:
        """Open the panel, look at it, close it."""
        hands = self.hands
        QTest.mouseClick(hands.widget.experiments, _LEFT)
        hands.wait(lambda: DOCK_NAME in hands.viewer.window.dock_widgets)
        hands.rest(1.0)
        hands.viewer.window.remove_dock_widget(hands.viewer.window.dock_widgets[DOCK_NAME])
        hands.rest(0.3)

    def _export(self) -> None:
        hands, panel = self.hands, self.hands.widget.export_panel
        path = self._folder / f"labels_{self.number % 2}.nii.gz"
        panel.written.setText("")
        panel.export_to(path)
        hands.wait(lambda: "Written" in panel.written.text())
        hands.rest(0.3)
