"""Statements 19, 40 and 42: layers are known by what they are, whatever is done to them meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from qtpy.QtCore import Qt

from napari_sam_med.errors import DeviceMemoryError
from napari_sam_med.gui.layer_bridge import Tool
from napari_sam_med.gui.scan_layers import POINTS_NAME, PREVIEW_NAME
from napari_sam_med.volume.reading import read_labels
from napari_sam_med.volume.slice_view import SliceView
from tests.gui.desk import Desk
from tests.gui.fake_model import FakePredictor
from tests.gui.test_carrying import accept_a_box, organ
from tests.gui.test_prompting import INSIDE, LIVER, VIEW, box_the_organ, organ_mask


def _renamed(desk: Desk) -> None:
    desk.bridge.labels_layer.name = "my own ä name"
    desk.bridge.image_layer.name = "and the scan"


def _reordered(desk: Desk) -> None:
    layers = desk.viewer.layers
    layers.move(layers.index(desk.bridge.labels_layer), 0)
    layers.move(layers.index(desk.bridge.image_layer), len(layers))


def _hidden(desk: Desk) -> None:
    for layer in desk.viewer.layers:
        layer.visible = False
    desk.bridge.labels_layer.opacity = 0.0


def _locked(desk: Desk) -> None:
    for layer in desk.viewer.layers:
        layer.editable = False


def _another_chosen(desk: Desk) -> None:
    other = desk.viewer.add_labels(np.full(desk.labels.shape, 3, np.uint8), name="SAM Med labels")
    desk.viewer.layers.selection.active = other


def _in_3d(desk: Desk) -> None:
    desk.bridge.show_in_3d()


CHANGES = [_renamed, _reordered, _hidden, _locked, _another_chosen, _in_3d]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__.strip("_"))
def test_whatever_is_done_to_the_layer_its_labels_are_exported(
    desk: Desk, tmp_path: Path, change: Callable[[Desk], None]
) -> None:
    """Statement 19."""
    accept_a_box(desk)
    expected = desk.labels.copy()
    assert expected.any()
    change(desk)
    desk.settle()
    desk.widget.export_panel.export_to(tmp_path / "labels.nii.gz")
    desk.wait(lambda: "Written" in desk.widget.export_panel.written.text())
    again = read_labels(tmp_path / "labels.nii.gz", reference=desk.session.volume)
    assert np.array_equal(again.data, expected)


@pytest.mark.parametrize("change", CHANGES[:4], ids=lambda change: change.__name__.strip("_"))
def test_a_running_job_writes_into_the_same_labels_whatever_they_are_called(
    desk: Desk, predictor: FakePredictor, change: Callable[[Desk], None]
) -> None:
    """Statement 42: the layer is known by its identity."""
    accept_a_box(desk)
    labels = desk.labels
    _hold(desk, predictor)
    change(desk)
    desk.settle()
    predictor.gate.set()
    desk.wait_until_carried()
    assert desk.labels is labels
    assert np.array_equal(labels == LIVER, organ(desk))


def _hold(desk: Desk, predictor: FakePredictor) -> None:
    """Begin to carry, and stop where the model is asked for the first time."""
    desk.actions.model.model.store.kept.clear()
    predictor.gate.clear()
    predictor.waiting.clear()
    desk.key(Qt.Key.Key_G)
    desk.wait(predictor.waiting.is_set)


def test_a_job_of_a_scan_that_was_replaced_writes_nothing(
    desk: Desk, predictor: FakePredictor, make_volume
) -> None:
    """Statement 42: another scan of the same shape has taken the place of the first."""
    accept_a_box(desk)
    earlier = desk.labels
    before = earlier.copy()
    _hold(desk, predictor)
    other = make_volume()
    layer = desk.viewer.add_image(
        other.data,
        name="other",
        metadata={"sam_med": other},
        contrast_limits=(-160, 240),
        **other.display_transform,
    )
    desk.actions.open_scan(layer)
    desk.wait(lambda: desk.bridge.image_layer is layer)
    predictor.gate.set()
    desk.wait_until_carried()
    assert desk.labels is not earlier
    assert not desk.labels.any()
    assert np.array_equal(earlier, before)


def test_a_proposal_is_seen_though_its_layer_was_removed(desk: Desk) -> None:
    """Else Enter would accept what nobody has seen."""
    layers = desk.viewer.layers
    removed = desk.bridge.display.preview_layer
    layers.selection = {removed}
    layers.remove_selected()
    box_the_organ(desk)
    shown = desk.bridge.display.preview_layer
    assert shown is not removed
    assert shown.visible
    assert np.count_nonzero(shown.data) == np.count_nonzero(desk.session.preview.mask)
    assert desk.bridge.labels_layer in layers
    assert layers.index(desk.bridge.labels_layer) < layers.index(shown)
    assert layers.index(shown) < layers.index(desk.bridge.boxes_layer)
    assert desk.bridge.tool == "box", "the user's tool stays in hand"
    desk.key(Qt.Key.Key_Return)
    assert not shown.data.any()
    assert PREVIEW_NAME in [layer.name for layer in layers]


def test_a_proposal_stays_seen_though_its_layer_is_removed(desk: Desk) -> None:
    box_the_organ(desk)
    removed = desk.bridge.display.preview_layer
    desk.viewer.layers.selection = {removed}
    desk.viewer.layers.remove_selected()
    desk.wait(lambda: desk.bridge.display.preview_layer is not None)
    shown = desk.bridge.display.preview_layer
    assert shown.visible
    assert np.count_nonzero(shown.data) == np.count_nonzero(desk.session.preview.mask)


@pytest.mark.parametrize("tool", ["box", "point", "paint"])
def test_the_tool_is_in_hand_again_where_the_layer_of_the_proposal_was_chosen_and_removed(
    desk: Desk, tool: Tool
) -> None:
    desk.bridge.set_tool(tool)
    desk.viewer.layers.selection = {desk.bridge.display.preview_layer}
    assert desk.bridge.tool == "pan"
    desk.viewer.layers.remove_selected()
    desk.wait(lambda: desk.bridge.tool == tool)


def test_layers_that_the_user_removed_one_after_the_other_do_not_come_back(desk: Desk) -> None:
    layers, bridge = desk.viewer.layers, desk.bridge
    bridge.set_tool("point")
    for layer in (bridge.points_layer, bridge.display.preview_layer):
        layers.selection = {layer}
        layers.remove_selected()
    desk.settle()
    assert bridge.points_layer is None
    assert POINTS_NAME not in [layer.name for layer in layers]


def test_a_proposal_of_a_slice_that_was_left_is_not_shown_on_another(
    desk: Desk, predictor: FakePredictor
) -> None:
    """Statement 42, for the live model: the newest prompt counts."""
    desk.look_at(VIEW)
    desk.actions.model.model.store.kept.clear()
    predictor.gate.clear()
    predictor.waiting.clear()
    desk.bridge.set_tool("point")
    desk.click(INSIDE)
    desk.wait(predictor.waiting.is_set)
    desk.look_at(SliceView("axial", 2))
    predictor.gate.set()
    desk.settle()
    preview = desk.session.preview
    assert preview is None or preview.view == VIEW
    assert not desk.labels.any()


def test_memory_that_runs_out_while_carrying_keeps_slices_and_prompts(
    desk: Desk, predictor: FakePredictor
) -> None:
    """Statement 40: what is done stays, the device is not changed, and the next try may succeed."""
    accept_a_box(desk)
    prompts = dict(desk.session.active_object.key_slices)
    device = desk.session.device
    loaded = list(predictor.loaded)
    desk.actions.model.model.store.kept.clear()
    embed, asked = predictor.embed, []

    def full(image, *args):
        asked.append(1)
        if len(asked) > 3:
            raise DeviceMemoryError('Device "cuda" ran out of memory; choose device "cpu".')
        return embed(image, *args)

    predictor.embed = full
    desk.key(Qt.Key.Key_G)
    desk.wait_until_carried()
    desk.wait(lambda: any("ran out of memory" in text for text in desk.said))
    done = int(desk.labels.any(axis=(1, 2)).sum())
    assert 1 <= done < 6
    assert np.array_equal(desk.slice_labels(VIEW) == LIVER, organ_mask(desk))
    assert dict(desk.session.active_object.key_slices) == prompts
    assert desk.session.device == device
    assert predictor.loaded == loaded
    predictor.embed = embed
    desk.key(Qt.Key.Key_G)
    desk.wait_until_carried()
    assert np.array_equal(desk.labels == LIVER, organ(desk))
