"""What napari does at once when a layer comes, done bit by bit."""

from __future__ import annotations

import gc
import weakref
from types import SimpleNamespace

import numpy as np
import pytest
from napari.components import ViewerModel
from napari.layers import Image, Labels, Points
from qtpy.QtTest import QTest
from vispy.gloo.glir import GlirProgram

from napari_sam_med.gui import slow_layers
from napari_sam_med.gui.planes import visual_of
from napari_sam_med.gui.slow_layers import clear_away, insert_unselected
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


@pytest.mark.parametrize("is_given_up", [False, True])
def test_layers_that_were_cleared_away_leave_nothing_on_the_canvas(desk: Desk, is_given_up: bool) -> None:
    canvas = desk.viewer.window._qt_viewer.canvas
    before = list(desk.viewer.layers)
    going = [desk.viewer.add_image(np.ones((8, 24, 32))) for _ in range(2)]
    empty = desk.viewer.add_labels(np.zeros((8, 24, 32), dtype=np.uint8))
    steps = clear_away(desk.viewer, going, empty)
    while set(desk.viewer.layers) > set(before):
        next(steps)
    if is_given_up:
        steps.close()
    else:
        list(steps)
    assert list(desk.viewer.layers) == before
    assert set(canvas.layer_to_visual) == set(before)
    late = desk.viewer.add_image(np.ones((8, 24, 32)))  # the canvas takes layers as ever
    assert canvas.layer_to_visual[late].node.parent is canvas.view.scene
    desk.viewer.layers.remove(late)
    assert late not in canvas.layer_to_visual


@pytest.mark.parametrize("dtype", [np.float32, np.int16, np.uint8])
def test_no_voxels_are_left_of_a_layer_that_was_seen_in_3d(desk: Desk, dtype: type) -> None:
    """While layers are circles of references, for which nobody has searched yet."""
    viewer, data = desk.viewer, np.ones((8, 24, 32), dtype=dtype)
    kind = Labels if dtype is np.uint8 else Image
    layer = viewer.add_layer(kind(data, name="seen"))  # for a name napari looks at what is named here
    for ndisplay in (3, 2):
        viewer.dims.ndisplay = ndisplay
        desk.settle()
    volume = visual_of(viewer, layer)._layer_node._volume_node
    assert volume._last_data.size > 1
    shown, gone = weakref.ref(volume._last_data), weakref.ref(data)
    del data
    gc.collect()
    gc.disable()
    try:
        list(clear_away(viewer, [layer], None))
        desk.settle()
        assert volume._last_data.size == 1
        del volume
        assert gone() is None
        assert shown() is None
    finally:
        gc.enable()


@pytest.mark.parametrize(("system", "searches"), [("win32", 1), ("linux", 0), ("darwin", 0)])
def test_garbage_is_searched_for_on_windows_alone(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, system: str, searches: int
) -> None:
    going = [desk.viewer.add_points(ndim=3) for _ in range(2)]
    searched: list[None] = []
    monkeypatch.setattr(slow_layers, "sys", SimpleNamespace(platform=system))
    monkeypatch.setattr(slow_layers, "gc", SimpleNamespace(collect=lambda: searched.append(None)))
    list(clear_away(desk.viewer, going, None))
    assert len(searched) == searches


def test_no_program_is_built_again_while_a_box_is_drawn(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.look_at(VIEW)
    desk.session.select_organ(LIVER)
    desk.bridge.set_tool("box")
    desk.drag((4, 4, 6), (4, 13, 18))
    desk.wait_for_proposal()
    linked: list[object] = []
    plain = GlirProgram.link_program

    def link_program(program: GlirProgram) -> None:
        linked.append(program)
        plain(program)

    monkeypatch.setattr(GlirProgram, "link_program", link_program)
    before = desk.bridge.boxes_layer.data[0].copy()
    places = [
        desk.canvas_xy((4, row, column)) for row, column in ((3, 5), (8, 10), (10, 14), (12, 16), (14, 19))
    ]
    QTest.mouseMove(desk.native, places[0])
    QTest.mousePress(desk.native, LEFT, NO_KEY, places[0])
    for place in places[1:]:
        QTest.mouseMove(desk.native, place)
        desk.settle()
    assert not np.array_equal(desk.bridge.boxes_layer.data[-1], before)  # it is drawn all the time
    assert not linked
    QTest.mouseRelease(desk.native, LEFT, NO_KEY, places[-1])
    desk.settle()


def test_labels_with_a_single_voxel_are_not_cleared_away() -> None:
    viewer = ViewerModel()
    drawn = viewer.add_labels(np.zeros((8, 24, 32), dtype=np.uint8))
    drawn.data[7, 23, 31] = 1
    list(clear_away(viewer, [], drawn))
    assert drawn in viewer.layers
    drawn.data[7, 23, 31] = 0
    list(clear_away(viewer, [], drawn))
    assert drawn not in viewer.layers


def test_labels_that_are_drawn_on_while_others_go_stay() -> None:
    viewer = ViewerModel()
    going, labels = viewer.add_points(), viewer.add_labels(np.zeros((8, 24, 32), dtype=np.uint8))
    steps = clear_away(viewer, [going], labels)
    while going in viewer.layers:
        next(steps)
    labels.data[7, 23, 31] = 1
    list(steps)
    assert labels in viewer.layers
    assert labels.data[7, 23, 31] == 1


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
