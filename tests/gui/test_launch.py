"""What the bare command opens."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from pytestqt.qtbot import QtBot

from napari_sam_med.gui import launch
from napari_sam_med.gui.widget import SamMedWidget
from napari_sam_med.sample_data import sample_labels, sample_volume
from tests.gui.fake_model import FakePredictor


@pytest.fixture
def opened(make_napari_viewer: Callable, monkeypatch: pytest.MonkeyPatch) -> list[SamMedWidget]:
    """Widgets that were made, in viewers that are closed at the end."""
    widgets: list[SamMedWidget] = []

    def make_widget(viewer: object) -> SamMedWidget:
        widgets.append(SamMedWidget(viewer))
        return widgets[-1]

    monkeypatch.setattr(launch.napari, "Viewer", lambda **_: make_napari_viewer(show=True))
    monkeypatch.setattr(launch, "SamMedWidget", make_widget)
    return widgets


def test_opens_a_scan_with_its_labels(
    opened: list[SamMedWidget], predictor: FakePredictor, qtbot: QtBot
) -> None:
    viewer = launch.open_viewer(sample_volume(), sample_labels())
    session = opened[0].actions_.session
    qtbot.waitUntil(lambda: session.labels is not None and session.labels.voxel_count(6) > 0, timeout=20_000)
    assert session.volume.path == sample_volume()
    assert session.labels.organs.name_of(6) == "liver"
    assert any(layer.data.any() for layer in viewer.layers if layer.name.endswith("labels"))
    opened[0].stop()


def test_takes_the_model_and_device_it_is_given(opened: list[SamMedWidget], predictor: FakePredictor) -> None:
    launch.open_viewer(model="mobile_sam", device="cpu")
    assert opened[0].actions_.session.model == "mobile_sam"
    assert opened[0].actions_.session.device == "cpu"
    assert opened[0].model_panel.devices.currentData() == "cpu"
    assert opened[0].model_panel.models.currentData() == "mobile_sam"
    opened[0].stop()
