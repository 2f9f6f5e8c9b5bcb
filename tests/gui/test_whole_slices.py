"""Boxes between two slices: beside a scan of another spacing the slider steps to such places."""

from __future__ import annotations

import numpy as np
import pytest
from napari.layers import Shapes

from napari_sam_med.gui.prompt_layers import read_prompts, write_shapes
from napari_sam_med.gui.whole_slices import Shapes as ShapesOnSlices
from napari_sam_med.sam.prompts import Prompts
from napari_sam_med.volume.slice_view import SliceView
from tests.gui.desk import Desk
from tests.gui.test_prompting import LIVER


@pytest.mark.parametrize("seen", [SliceView("axial", 4), SliceView("coronal", 12)])
def test_a_box_is_drawn_moved_and_answered_between_slices(desk: Desk, seen: SliceView) -> None:
    desk.wait(lambda: desk.actions.model.model is not None)
    desk.session.select_organ(LIVER)
    desk.look_at(seen)
    frame, axis, layer = desk.bridge.frame, seen.axis, desk.bridge.boxes_layer
    for between in (-0.45, -0.2, 0.2, 0.45):
        at = np.array([4.0, 12.0, 16.0])
        at[axis] = seen.index + between
        desk.viewer.dims.set_point(axis, float(frame.world(at)[axis]))
        desk.settle()
        assert desk.bridge.current_view() == seen
        low, high = np.array([2.0, 8.0, 8.0]), np.array([6.0, 16.0, 20.0])
        low[axis] = high[axis] = at[axis]
        desk.bridge.set_tool("box")
        desk.drag(tuple(low), tuple(high))
        desk.wait_for_proposal()
        assert desk.session.preview.view == seen
        assert len(layer.data) == 1
        assert (layer.data[0][:, axis] == seen.index).all(), "on the slice that is seen"
        assert set(desk.session.active_object.key_slices) == {seen}
        layer.mode = "select"
        middle = (low + high) / 2
        desk.drag(tuple(middle), tuple(middle + np.array([0, 0, 4])))
        desk.wait(lambda: layer.data[0][:, 2].min() > 10)
        assert (layer.data[0][:, axis] == seen.index).all()
        desk.actions.clear_prompts()
        desk.wait(lambda: not len(layer.data))


def test_it_is_a_shapes_layer_of_napari_in_every_other_way() -> None:
    ours, theirs = ShapesOnSlices(ndim=3), Shapes(ndim=3)
    assert ours._type_string == theirs._type_string
    corners = np.array([[4, 2, 2], [4, 2, 8], [4, 8, 8], [4, 8, 2]])
    for layer in (ours, theirs):
        layer.add(corners, shape_type="rectangle")
    assert np.array_equal(ours.world_to_data((4, 2.3, 7.7)), theirs.world_to_data((4, 2.3, 7.7)))
    assert ours._data_view.slice_key == theirs._data_view.slice_key == [0]


def test_boxes_of_other_planes_stay_exactly_as_they_were_drawn(desk: Desk) -> None:
    axial, coronal = SliceView("axial", 4), SliceView("coronal", 9)
    boxes = {coronal: (5.3, 2.6, 18.2, 5.4), axial: (6.25, 7.75, 18.5, 16.0)}
    outline = [(6.5, 2.2), (14.0, 2.7), (14.0, 5.3)]
    prompts = {view: Prompts.from_box(box) for view, box in boxes.items()}
    prompts[SliceView("coronal", 12)] = Prompts(outline_xy=np.array(outline))
    layer, frame = desk.bridge.boxes_layer, desk.bridge.frame
    for seen in (axial, coronal, SliceView("sagittal", 11)):
        desk.look_at(seen)
        write_shapes(layer, prompts, frame)
        read = read_prompts(None, layer, frame, "axial").prompts
        assert read.keys() == prompts.keys()
        for view, box in boxes.items():
            assert np.allclose(read[view].box_xyxy, box)
        assert np.allclose(read[SliceView("coronal", 12)].outline_xy, outline)


def test_shapes_are_drawn_anew_only_where_some_come_or_go(desk: Desk) -> None:
    drawn: list[int] = []
    highlighted: list[object] = []
    desk.look_at(SliceView("axial", 4))
    layer = desk.bridge.boxes_layer
    layer.events.set_data.connect(lambda event: drawn.append(len(layer._data_view._visible_shapes)))
    layer.events.highlight.connect(highlighted.append)
    desk.look_at(SliceView("axial", 5))
    desk.look_at(SliceView("axial", 6))
    assert drawn == []
    assert highlighted == []
    desk.bridge.set_tool("box")
    desk.drag((6, 8, 8), (6, 16, 20))
    assert drawn[-1] == 1
    desk.look_at(SliceView("axial", 5))
    assert drawn[-1] == 0, "it is not seen any more"
    drawn.clear()
    desk.look_at(SliceView("axial", 4))
    assert drawn == []
    desk.look_at(SliceView("axial", 6))
    assert drawn[-1] == 1
    desk.look_at(SliceView("axial", 4))
    drawn.clear()
    desk.look_at(SliceView("coronal", 3))
    assert drawn, "another plane"
