"""What napari does at once when a layer comes, done bit by bit."""

from __future__ import annotations

import numpy as np
from napari.components import ViewerModel
from napari.layers import Points
from qtpy.QtTest import QTest

from napari_sam_med.gui.slow_layers import insert_unselected
from tests.gui.desk import LEFT, NO_KEY, Desk
from tests.gui.test_prompting import LIVER, VIEW


def test_whatever_is_selected_stays_so_when_a_layer_comes() -> None:
    viewer = ViewerModel()
    first, second = viewer.add_points(), viewer.add_points()
    layers = viewer.layers
    layers.selection.active = first
    insert_unselected(layers, 1, Points())
    assert layers.selection.active is first
    layers.selection = {first, second}
    insert_unselected(layers, 0, Points())
    assert layers.selection == {first, second}
    assert layers.selection.active is None


def test_polygon_and_brush_of_napari_paint_labels_as_ever(desk: Desk) -> None:
    desk.look_at(VIEW)
    desk.session.select_organ(LIVER)
    layer = desk.bridge.labels_layer
    desk.viewer.layers.selection.active = layer
    layer.mode = "polygon"
    corners = [(4, 2, 2), (4, 2, 12), (4, 12, 12), (4, 12, 2)]
    for corner in corners:
        place = desk.canvas_xy(corner)
        QTest.mouseMove(desk.native, place)
        QTest.mouseClick(desk.native, LEFT, NO_KEY, place)
        desk.settle()
        QTest.qWait(450)  # two clicks in less are a double click
    QTest.mouseDClick(desk.native, LEFT, NO_KEY, desk.canvas_xy(corners[0]))
    desk.settle()
    painted = desk.slice_labels(VIEW) == LIVER
    assert painted[3:12, 3:12].all()
    layer.mode = "paint"
    desk.drag((4, 18, 4), (4, 18, 20))
    assert (desk.slice_labels(VIEW)[18, 5:20] == LIVER).all()
    assert np.count_nonzero(painted) < np.count_nonzero(desk.slice_labels(VIEW))
