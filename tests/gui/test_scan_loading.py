"""Opening a scan from a file: it is seen before its labels and the layers to draw on are ready."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from napari.layers import Image

from napari_sam_med.errors import LabelError
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
