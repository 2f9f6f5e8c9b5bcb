"""Choosing among layers in the section Scan, by clicks."""

from __future__ import annotations

from napari.layers import Image, Layer
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication

from napari_sam_med.gui.layer_combo import LayerCombo
from tests.gui.desk import LEFT, Desk


def click_on(desk: Desk, combo: LayerCombo, layer: Layer) -> None:
    """Open the list and click on the row of a layer."""
    desk.wait(lambda: any(known is not None and known() is layer for known in combo._layers))
    row = [known is not None and known() is layer for known in combo._layers].index(True)
    desk.widget._scroll.ensureWidgetVisible(combo)
    combo.showPopup()
    view = combo.view()
    desk.wait(view.isVisible)
    index = combo.model().index(row, 0)
    view.scrollTo(index)
    desk.qtbot.wait(
        QApplication.doubleClickInterval() + 50
    )  # sooner, Qt takes it for the click that opened it
    QTest.mouseClick(view.viewport(), LEFT, pos=view.visualRect(index).center())
    desk.wait(lambda: not view.isVisible())


def choose_image(desk: Desk, layer: Image) -> None:
    """Under *Image*; waits until the scan is worked on, and the one before it out of the way."""
    click_on(desk, desk.widget.volume_panel.images, layer)
    with desk.nothing_drawn():
        desk.wait(lambda: desk.bridge.image_layer is layer and not desk.actions.scans.is_loading)
        desk.wait(lambda: not desk.actions.workers.running)
    desk.settle()
