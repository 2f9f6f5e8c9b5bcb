"""Opening a scan from a file: it is seen before its labels and the layers to draw on are ready."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from napari.layers import Image, Labels, Layer
from qtpy.QtCore import QTimer

from napari_sam_med.errors import LabelError
from napari_sam_med.gui.arrival import Arrival
from napari_sam_med.gui.scan_layers import LABELS_NAME
from napari_sam_med.session import jobs
from napari_sam_med.session.voxel_counts import VoxelCounts
from tests.gui.desk import Desk
from tests.gui.fake_model import FakePredictor


@pytest.fixture
def may_go_on(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Labels are not ready until it is set."""
    event = threading.Event()

    def counts(data: np.ndarray) -> VoxelCounts:
        event.wait(20)
        return VoxelCounts(data)

    monkeypatch.setattr(jobs, "VoxelCounts", counts)
    yield event
    event.set()


def scan_file(folder: Path, name: str = "ct.nii.gz") -> Path:
    data = np.full((40, 30, 12), -1000, dtype=np.int16)
    data[10:30, 8:22] = 100
    affine = np.diag([-2.0, -2.0, 3.0, 1.0])
    nib.save(nib.Nifti1Image(data, affine), folder / name)
    return folder / name


def images(desk: Desk) -> list[Image]:
    return [layer for layer in desk.viewer.layers if isinstance(layer, Image)]


def test_a_scan_is_drawn_before_its_labels_are_ready(
    make_desk: Callable[[], Desk], predictor: FakePredictor, tmp_path: Path, may_go_on: threading.Event
) -> None:
    desk = make_desk()
    desk.actions.open_scan(scan_file(tmp_path))
    desk.wait(lambda: images(desk))
    assert desk.session.volume is None
    (image,) = desk.viewer.layers
    assert image.contrast_limits == [-160, 240]
    shown = desk.viewer.screenshot(canvas_only=True, flash=False)
    middle = shown[shown.shape[0] // 2, shown.shape[1] // 2, :3]
    assert (middle > 100).all()
    may_go_on.set()
    desk.wait(lambda: desk.session.volume is not None)
    assert desk.bridge.image_layer is image
    assert images(desk) == [image]
    assert desk.viewer.layers.index(image) < desk.viewer.layers.index(desk.bridge.labels_layer)
    assert desk.bridge.tool == "box"


def test_another_scan_takes_the_place_of_one_that_is_not_ready(
    make_desk: Callable[[], Desk], predictor: FakePredictor, tmp_path: Path, may_go_on: threading.Event
) -> None:
    desk = make_desk()
    desk.actions.open_scan(scan_file(tmp_path, "one.nii.gz"))
    desk.wait(lambda: images(desk))
    desk.actions.open_scan(scan_file(tmp_path, "two.nii.gz"))
    may_go_on.set()
    desk.wait(lambda: desk.session.volume is not None)
    assert [layer.name for layer in images(desk)] == ["two.nii.gz"]


def test_a_scan_that_is_removed_before_it_is_ready_is_not_opened(
    make_desk: Callable[[], Desk], predictor: FakePredictor, tmp_path: Path, may_go_on: threading.Event
) -> None:
    desk = make_desk()
    desk.actions.open_scan(scan_file(tmp_path))
    desk.wait(lambda: images(desk))
    desk.viewer.layers.remove(images(desk)[0])
    may_go_on.set()
    desk.wait(lambda: not desk.actions.scans.is_loading)
    desk.settle()
    assert desk.session.volume is None
    assert not desk.viewer.layers


def test_a_scan_that_fails_after_it_was_seen_goes_again(
    make_desk: Callable[[], Desk],
    predictor: FakePredictor,
    tmp_path: Path,
    may_go_on: threading.Event,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(data: np.ndarray) -> VoxelCounts:
        may_go_on.wait(20)
        raise LabelError("The disk is full; free some space.")

    monkeypatch.setattr(jobs, "VoxelCounts", fail)
    desk = make_desk()
    desk.actions.open_scan(scan_file(tmp_path))
    desk.wait(lambda: images(desk))
    may_go_on.set()
    desk.wait(lambda: not desk.actions.scans.is_loading)
    assert not desk.viewer.layers
    assert any("The disk is full" in line for line in desk.said)


@pytest.fixture
def at_turn(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, Callable[[], None]], None]:
    """Lets something happen after a number of layers of a scan have come."""

    def after(number: int, action: Callable[[], None]) -> None:
        plain, come = Arrival._add, []

        def add(self: Arrival, layer: Layer) -> Layer:
            added = plain(self, layer)
            come.append(layer)
            if len(come) == number:
                QTimer.singleShot(0, action)
            return added

        monkeypatch.setattr(Arrival, "_add", add)

    return after


def test_a_second_scan_may_be_opened_while_the_layers_of_the_first_come(
    make_desk: Callable[[], Desk], predictor: FakePredictor, tmp_path: Path, at_turn
) -> None:
    desk = make_desk()
    other = scan_file(tmp_path, "two.nii.gz")
    at_turn(3, lambda: desk.actions.open_scan(other))
    desk.actions.open_scan(scan_file(tmp_path, "one.nii.gz"))
    desk.wait(lambda: desk.session.volume is not None and not desk.actions.scans.is_loading)
    assert [layer.name for layer in images(desk)] == ["two.nii.gz"]
    assert len(desk.viewer.layers) == 5
    assert desk.bridge.labels_layer.name == LABELS_NAME


def test_the_scan_before_is_worked_on_until_the_next_is_there_and_when_that_fails(
    make_desk: Callable[[], Desk],
    predictor: FakePredictor,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    desk = make_desk()
    first = scan_file(tmp_path, "one.nii.gz")
    desk.actions.open_scan(first)
    desk.wait(lambda: desk.session.volume is not None and not desk.actions.scans.is_loading)
    layers, shown = list(desk.viewer.layers), desk.bridge.image_layer

    def fail(*_: object, **__: object) -> None:
        assert desk.bridge.image_layer is shown
        assert shown.visible
        raise LabelError("The disk is full; free some space.")

    monkeypatch.setattr("napari_sam_med.gui.arrival.labels_layer", fail)
    desk.actions.open_scan(scan_file(tmp_path, "two.nii.gz"))
    desk.wait(lambda: any("The disk is full" in line for line in desk.said))
    assert not desk.actions.scans.is_loading
    assert list(desk.viewer.layers) == layers
    assert desk.session.volume.path == first
    assert desk.bridge.current_view() is not None


def test_a_layer_that_is_removed_on_its_way_ends_the_opening(
    make_desk: Callable[[], Desk], predictor: FakePredictor, tmp_path: Path, at_turn
) -> None:
    desk = make_desk()
    at_turn(2, lambda: desk.viewer.layers.remove(desk.viewer.layers[LABELS_NAME]))
    desk.actions.open_scan(scan_file(tmp_path))
    desk.wait(lambda: images(desk))
    desk.wait(lambda: not desk.actions.scans.is_loading)
    assert desk.session.volume is None
    assert not desk.viewer.layers


def test_a_widget_that_ends_while_layers_come_leaves_none_of_them(
    make_desk: Callable[[], Desk], predictor: FakePredictor, tmp_path: Path, at_turn
) -> None:
    desk = make_desk()
    at_turn(3, desk.widget.stop)
    desk.actions.open_scan(scan_file(tmp_path))
    desk.wait(lambda: images(desk))
    desk.wait(lambda: not desk.viewer.layers)
    desk.settle()
    assert not desk.viewer.layers
    assert desk.viewer.window._qt_viewer.canvas.native.updatesEnabled()


def test_empty_labels_of_the_scan_before_go_and_those_drawn_on_stay_hidden(
    make_desk: Callable[[], Desk], predictor: FakePredictor, tmp_path: Path
) -> None:
    desk = make_desk()
    for name in ("one", "two", "three"):
        path = scan_file(tmp_path, f"{name}.nii.gz")
        desk.actions.open_scan(path)
        desk.wait(lambda path=path: desk.session.volume is not None and desk.session.volume.path == path)
        desk.wait(lambda: not desk.actions.scans.is_loading)
        if name == "two":
            drawn_on = desk.bridge.labels_layer
            drawn_on.data[3, 4, 5] = 1  # as a script does, which tells nobody
    labels = [layer for layer in desk.viewer.layers if isinstance(layer, Labels)]
    assert labels == [drawn_on, desk.bridge.labels_layer, desk.bridge.display.preview_layer]
    assert not drawn_on.visible
    assert [image.visible for image in images(desk)] == [False, False, True]
