"""Nothing stays of a widget whose dock is closed."""

from __future__ import annotations

import gc
import weakref
from collections import Counter

import pytest
from napari.components import ViewerModel
from napari.layers import Points, Shapes
from qtpy.compat import isalive
from qtpy.QtCore import Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication

from napari_sam_med.gui.docked import Docked
from napari_sam_med.gui.experiments import ExperimentsWidget, open_experiments
from napari_sam_med.gui.widget import SamMedWidget
from tests.gui.desk import Desk


def _widgets() -> Counter[str]:
    return Counter(type(widget).__name__ for widget in QApplication.allWidgets())


def _dock_main_widget(viewer: ViewerModel) -> SamMedWidget:
    widget = SamMedWidget(viewer)
    viewer.window.add_dock_widget(widget, name="SAM Med again")
    return widget


def _open_and_close(desk: Desk, kind: type[Docked]) -> weakref.ref[Docked]:
    widget = (open_experiments if kind is ExperimentsWidget else _dock_main_widget)(desk.viewer)
    dock = widget.parentWidget()
    desk.settle()
    # the button with which a user closes it
    QTest.mouseClick(dock.title.close_button, Qt.MouseButton.LeftButton)
    desk.wait(lambda: not isalive(widget) and not isalive(dock))
    for layer in list(desk.viewer.layers):
        if isinstance(layer, Points | Shapes):  # those for prompts stay with the user
            desk.viewer.layers.remove(layer)
    desk.settle()
    return weakref.ref(widget)


@pytest.mark.parametrize("kind", [ExperimentsWidget, SamMedWidget])
def test_no_widget_is_left_of_panels_that_were_opened_and_closed(desk: Desk, kind: type[Docked]) -> None:
    if kind is SamMedWidget:  # one at a time
        desk.viewer.window.remove_dock_widget(desk.widget)
    _open_and_close(desk, kind)
    before = _widgets()
    closed = [_open_and_close(desk, kind) for _ in range(3)]
    assert _widgets() == before
    gc.collect()
    assert [widget() for widget in closed[:2]] == [None, None]  # napari or Qt may still know the last one
