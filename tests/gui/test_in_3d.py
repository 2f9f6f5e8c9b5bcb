"""To 3-D and back: what is hidden there comes back, however one turns."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import SimpleNamespace

import numpy as np
import pytest
from napari.layers import Image, Labels, Layer
from napari.layers._scalar_field.scalar_field import ScalarFieldSlicingState
from qtpy.QtCore import Qt

from napari_sam_med.gui import in_3d, planes
from napari_sam_med.gui.coarse import coarsen_image, coarsen_labels, draws_in_software, leave_fine
from napari_sam_med.gui.planes import visual_of
from napari_sam_med.volume.slice_view import SliceView
from tests.gui.desk import Desk
from tests.gui.fake_model import FakePredictor
from tests.gui.test_carrying import accept_a_box
from tests.gui.test_prompting import VIEW

ALT = Qt.KeyboardModifier.AltModifier


def to_3d(desk: Desk) -> None:
    desk.key(Qt.Key.Key_4, ALT)
    desk.wait(lambda: desk.viewer.dims.ndisplay == 3)
    desk.settle()


def back(desk: Desk) -> None:
    desk.key(Qt.Key.Key_1, ALT)
    desk.wait(lambda: all(layer.visible for layer in hidden_in_3d(desk)))
    desk.settle()


def hidden_in_3d(desk: Desk) -> tuple[Layer, ...]:
    return desk.bridge.image_layer, desk.bridge.boxes_layer, desk.bridge.points_layer


def text(desk: Desk) -> str:
    return desk.widget.status.text.text()


def test_the_status_line_says_what_is_hidden_as_long_as_it_is(desk: Desk) -> None:
    accept_a_box(desk)
    to_3d(desk)
    assert not any(layer.visible for layer in hidden_in_3d(desk))
    assert desk.bridge.labels_layer.visible
    assert "scan and prompts come back with Axial" in text(desk)
    back(desk)
    assert "come back" not in text(desk)


def test_what_is_hidden_is_not_said_again_when_a_model_has_come_meanwhile(desk: Desk) -> None:
    accept_a_box(desk)
    to_3d(desk)
    desk.widget.status.say("loading the model…")
    back(desk)
    desk.actions.model.loading_ended.emit()
    assert text(desk) == "Ready"


def test_without_organs_the_scan_is_what_is_seen(desk: Desk) -> None:
    visual, seen = visual_of(desk.viewer, desk.bridge.labels_layer), []
    canvas = desk.viewer.window._qt_viewer.canvas._scene_canvas

    def on_draw(_: object) -> None:
        if desk.viewer.dims.ndisplay == 3:
            seen.append(visual.node.visible)

    canvas.events.draw.connect(on_draw)
    to_3d(desk)
    assert desk.bridge.image_layer.visible
    assert "the prompts come back with Axial" in text(desk)
    desk.wait(lambda: seen[-1:] == [True])  # labels that come meanwhile are seen
    assert not seen[0], "each has its program built in a turn of its own"
    canvas.events.draw.disconnect(on_draw)
    back(desk)


def test_labels_are_seen_in_3d_though_nobody_went_on_to_show_them(desk: Desk) -> None:
    desk.bridge.turns.clear()
    steps = desk.bridge.in_3d._labels_after_scan()
    next(steps)
    node = visual_of(desk.viewer, desk.bridge.labels_layer).node
    assert not node.visible
    steps.close()
    assert node.visible


@pytest.mark.parametrize("changed", [True, False])
def test_all_comes_back_whatever_was_shown_meanwhile(desk: Desk, changed: bool) -> None:
    accept_a_box(desk)
    desk.bridge.set_tool("point")
    to_3d(desk)
    desk.bridge.image_layer.visible = changed
    desk.bridge.points_layer.visible = True
    desk.bridge.points_layer.visible = changed
    back(desk)
    assert desk.bridge.labels_layer.visible
    assert desk.bridge.tool == "point"


def test_the_canvas_keeps_its_size_in_3d_and_through_every_plane(desk: Desk) -> None:
    canvas = desk.viewer.window._qt_viewer.canvas
    on_slices, heights = canvas.native.height(), []

    def on_resize(event: object) -> None:
        heights.append(event.size[1])

    canvas._scene_canvas.events.resize.connect(on_resize)
    to_3d(desk)
    desk.key(Qt.Key.Key_2, ALT)  # coronal: another slider
    desk.wait(lambda: all(layer.visible for layer in hidden_in_3d(desk)))
    desk.settle()
    desk.key(Qt.Key.Key_3, ALT)
    desk.settle()
    assert set(heights) <= {on_slices}, "a canvas of another size is grey until it is drawn"
    canvas._scene_canvas.events.resize.disconnect(on_resize)
    sliders = desk.viewer.window._qt_viewer.dims.slider_widgets
    assert [slider.isHidden() for slider in sliders] == [True, True, False]
    to_3d(desk)
    desk.widget.stop()  # in 3-D: from here on it is napari's own
    desk.viewer.dims.ndisplay = 2
    desk.settle()
    assert canvas.native.height() == on_slices
    desk.viewer.dims.ndisplay = 3
    desk.settle()
    assert canvas.native.height() > on_slices


def test_labels_that_were_hidden_in_3d_stay_so(desk: Desk) -> None:
    accept_a_box(desk)
    to_3d(desk)
    desk.bridge.labels_layer.visible = False
    back(desk)
    assert not desk.bridge.labels_layer.visible


def test_napari_may_be_asked_as_well(desk: Desk) -> None:
    accept_a_box(desk)
    desk.look_at(SliceView("axial", 2))
    dims = desk.viewer.dims
    dims.ndisplay = 3
    desk.settle()
    assert not any(layer.visible for layer in hidden_in_3d(desk))
    dims.ndisplay = 2
    desk.wait(lambda: all(layer.visible for layer in hidden_in_3d(desk)))
    desk.settle()
    desk.wait(lambda: desk.bridge.tool == "box", 1000)
    assert desk.bridge.current_view() == SliceView("axial", 2)


def test_organs_have_their_full_colours_in_3d_and_let_the_scan_through_on_slices(desk: Desk) -> None:
    accept_a_box(desk)
    labels = desk.bridge.labels_layer
    labels.opacity = 0.4
    to_3d(desk)
    assert labels.opacity == 1.0
    assert labels.iso_gradient_mode == "smooth"
    back(desk)
    assert labels.opacity == 0.4
    to_3d(desk)
    labels.opacity = 0.7
    back(desk)
    assert labels.opacity == 0.7, "what was chosen meanwhile stays"
    to_3d(desk)
    assert labels.opacity == 1.0
    desk.widget.stop()
    assert labels.opacity == 0.7


def test_the_slice_before_3d_is_of_no_account_later(desk: Desk) -> None:
    desk.look_at(SliceView("axial", 2))
    to_3d(desk)
    desk.look_at(VIEW)  # as "next doubtful" does
    assert desk.bridge.current_view() == VIEW
    desk.key(Qt.Key.Key_2, ALT)
    desk.key(Qt.Key.Key_1, ALT)
    assert desk.bridge.current_view() == VIEW


def test_the_tool_is_in_the_hand_before_all_boxes_are_drawn(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    accept_a_box(desk)
    to_3d(desk)
    tools: list[str | None] = []

    def in_parts(canvas: object, layer: Layer) -> Iterator[None]:
        for _ in range(3):
            tools.append(desk.bridge.tool)
            yield

    monkeypatch.setattr(in_3d, "drawn_in_parts", in_parts)
    back(desk)
    desk.wait(lambda: len(tools) == 3)
    assert tools == ["box", "box", "box"]


def test_a_tool_that_is_chosen_in_3d_is_in_the_hand_afterwards(desk: Desk) -> None:
    desk.bridge.set_tool("box")
    to_3d(desk)
    desk.key(Qt.Key.Key_W)
    back(desk)
    assert desk.bridge.tool == "point"


def test_what_napari_gave_into_the_hand_in_3d_stays_there(desk: Desk) -> None:
    desk.bridge.set_tool("box")
    to_3d(desk)
    labels = desk.bridge.labels_layer
    desk.viewer.layers.selection.active = labels
    labels.mode = "erase"
    back(desk)
    desk.settle()
    assert desk.bridge.tool == "erase"
    assert desk.viewer.layers.selection.active is labels


def test_the_scan_stays_hidden_when_3d_is_asked_for_again_at_once(desk: Desk) -> None:
    accept_a_box(desk)
    to_3d(desk)
    desk.viewer.dims.ndisplay = 2
    desk.viewer.dims.ndisplay = 3
    desk.settle()
    assert not any(layer.visible for layer in hidden_in_3d(desk))
    back(desk)
    assert desk.bridge.tool == "box"


@pytest.mark.parametrize("waits", [False, True])
def test_a_plane_that_is_wanted_at_once_wins(desk: Desk, waits: bool) -> None:
    accept_a_box(desk)
    desk.bridge.show_in_3d()
    if waits:
        desk.wait(lambda: not desk.bridge.image_layer.visible)
    desk.bridge.show_plane("coronal")
    desk.wait(lambda: all(layer.visible for layer in hidden_in_3d(desk)))
    desk.settle()
    assert desk.viewer.dims.ndisplay == 2
    assert desk.bridge.current_view().plane == "coronal"
    assert desk.bridge.tool == "box"


def test_the_scan_is_back_when_the_widget_goes_in_3d(desk: Desk) -> None:
    accept_a_box(desk)
    to_3d(desk)
    image, labels = desk.bridge.image_layer, desk.bridge.labels_layer
    desk.widget.stop()
    assert image.visible
    assert labels.visible


def test_labels_are_coarse_on_the_canvas_and_lie_where_they_lay(make_napari_viewer: Callable) -> None:
    viewer = make_napari_viewer()
    data = np.zeros((50, 300, 200), np.uint8)
    data[20:30, 100:160, 40:80] = 3
    layer = viewer.add_labels(data, scale=(2, 1, 1), translate=(0, 10, 0))
    visual = planes.visual_of(viewer, layer)
    assert coarsen_labels(layer, visual, in_software=True)
    viewer.dims.ndisplay = 3
    shape = visual.node._vol_shape
    assert shape == (12, 17, 15)  # every voxel, fourth row and third column, and one around
    corner = visual.node.transform.map((1, 1, 1, 1))[:3]
    assert np.abs(corner - (40, 110, 40)).max() < 3
    assert layer._slice.image.raw.shape == data.shape, "whoever paints, paints all of them"
    data[...] = 0
    layer.refresh()
    assert visual.node._vol_shape == (1, 1, 1)
    viewer.dims.ndisplay = 2
    assert np.array_equal(layer._transforms["tile2data"].scale, (1, 1, 1))
    assert np.array_equal(layer._transforms["tile2data"].translate, (0, 0, 0))
    leave_fine(layer, visual)
    viewer.dims.ndisplay = 3
    assert visual.node._vol_shape == data.shape


def test_a_scan_is_coarse_in_3d_alone(make_napari_viewer: Callable) -> None:
    viewer = make_napari_viewer()
    layer = viewer.add_image(np.arange(50 * 300 * 20, dtype=np.int16).reshape(50, 300, 20))
    assert coarsen_image(layer, in_software=True)
    viewer.dims.ndisplay = 3
    assert np.array_equal(layer._slice.image.raw, layer.data[:, ::4])
    assert np.array_equal(layer._transforms["tile2data"].scale, (1, 4, 1))
    viewer.dims.ndisplay = 2
    assert layer._slice.image.raw.shape == (300, 20)
    leave_fine(layer, None)
    viewer.dims.ndisplay = 3
    assert layer._slice.image.raw.shape == (50, 300, 20)


@pytest.mark.parametrize("kind", [Image, Labels])
def test_planes_and_boxes_of_napari_lie_where_they_say(make_napari_viewer: Callable, kind: type) -> None:
    viewer = make_napari_viewer()
    layer = viewer.add_layer(kind(np.ones((50, 300, 20), np.uint8), scale=(2, 1, 1)))
    visual = planes.visual_of(viewer, layer)
    if kind is Image:
        assert coarsen_image(layer, in_software=True)
    else:
        assert coarsen_labels(layer, visual, in_software=True)
    viewer.dims.ndisplay = 3
    assert visual.node._vol_shape == (50, 75, 20)
    layer.depiction = "plane"
    layer.plane.position = (25, 250, 10)
    shown = visual.node.transform.map((*visual.node.plane_position[::-1], 1))[2::-1]
    assert np.allclose(shown, (50, 250, 10))
    layer.depiction = "volume"
    assert visual.node._vol_shape == (50, 75, 20)
    layer.bounding_box.visible = True
    assert visual.node._vol_shape == layer.data.shape
    assert np.allclose(visual.node.transform.map((19, 299, 49, 1))[:3], (19, 299, 98))
    leave_fine(layer, visual)
    layer.bounding_box.visible = False
    layer.refresh()
    assert visual.node._vol_shape == layer.data.shape


def test_a_layer_that_is_made_coarse_often_is_refreshed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    refreshed: list[object] = []
    monkeypatch.setattr(Image, "refresh", lambda *event: refreshed.append(event))
    layer = Image(np.ones((50, 300, 20), np.uint8))
    for _ in range(3):
        assert coarsen_image(layer, in_software=True)
    refreshed.clear()
    layer.bounding_box.visible = True
    layer.depiction = "plane"
    assert len(refreshed) == 2
    leave_fine(layer, None)
    layer.bounding_box.visible = False
    layer.depiction = "volume"
    assert len(refreshed) == 2


def test_another_napari_shows_all_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    image, labels = (kind(np.zeros((50, 300, 20), np.uint8)) for kind in (Image, Labels))
    monkeypatch.delattr(ScalarFieldSlicingState, "_make_slice_request_internal")
    assert not coarsen_image(image, in_software=True)
    assert not coarsen_labels(labels, object(), in_software=True)
    assert draws_in_software(object()) is None
    for layer in (image, labels):
        leave_fine(layer, SimpleNamespace())


def test_a_graphics_card_gets_all_that_it_takes_swiftly() -> None:
    class Visual:
        MAX_TEXTURE_SIZE_3D = 2048

        def downsample_texture(self, data: np.ndarray, most: int) -> np.ndarray:
            return data

    for shape, is_coarse in (((300, 512, 512), False), ((700, 512, 512), True)):
        labels = Labels(np.broadcast_to(np.uint8(0), shape))
        assert coarsen_labels(labels, Visual(), in_software=False) is is_coarse
    assert not coarsen_image(Image(np.zeros((60, 300, 300), np.int16)), in_software=False)


def test_the_hint_says_that_it_is_coarse(
    desk: Desk, predictor: FakePredictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(in_3d, "coarsen_labels", lambda *_, **__: True)
    accept_a_box(desk)
    to_3d(desk)
    assert "drawn coarser" in text(desk)
