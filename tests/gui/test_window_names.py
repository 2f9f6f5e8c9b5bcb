"""The window of a scan that is opened: what the list of presets says is what the image has."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from qtpy.QtCore import Qt
from qtpy.QtTest import QTest

from napari_sam_med.gui.window_names import name_of_window, said_of_window
from napari_sam_med.volume.intensity import WINDOW_PRESETS
from napari_sam_med.volume.volume import Volume
from tests.gui.case_list import at, panel
from tests.gui.desk import Desk
from tests.gui.fake_model import FakePredictor
from tests.gui.scan_choice import choose_image
from tests.gui.test_journal import press
from tests.gui.test_scan_loading import scan_file


def choose_preset(desk: Desk, title: str) -> None:
    """By typing its first letters, as a list takes them."""
    presets = desk.widget.volume_panel.window_panel.presets
    presets.showPopup()
    QTest.keyClicks(presets.view(), title)
    QTest.keyClick(presets.view(), Qt.Key.Key_Return)
    desk.settle()
    assert presets.currentText() == title


def shown(desk: Desk) -> tuple[str, tuple[float, ...]]:
    """What the list says, and what the image has."""
    text = desk.widget.volume_panel.window_panel.presets.currentText()
    limits = tuple(desk.bridge.image_layer.contrast_limits)
    assert limits == desk.session.window
    return text, limits


def opened(desk: Desk, path: Path) -> None:
    with desk.nothing_drawn():
        desk.actions.open_scan(path)
        desk.wait(lambda: desk.session.volume is not None and desk.session.volume.path == path)
        desk.wait(lambda: not desk.actions.scans.is_loading)
    desk.settle()


def test_a_preset_stays_for_the_next_ct_and_is_told_of(
    make_desk: Callable[[], Desk], predictor: FakePredictor, tmp_path: Path
) -> None:
    desk = make_desk()
    opened(desk, scan_file(tmp_path, "one.nii.gz"))
    one = desk.bridge.image_layer
    assert shown(desk) == ("Automatic", WINDOW_PRESETS["soft-tissue"])
    assert not any("as you chose" in text for text in desk.said)
    choose_preset(desk, "Lung")
    opened(desk, scan_file(tmp_path, "two.nii.gz"))
    assert shown(desk) == ("Lung", WINDOW_PRESETS["lung"])
    assert "Scan ready (window Lung, as you chose last): draw a box on an organ." in desk.said
    mr = np.random.default_rng(0).random((20, 16, 5)).astype(np.float32)
    nib.save(nib.Nifti1Image(mr, np.eye(4)), tmp_path / "mr.nii.gz")
    opened(desk, tmp_path / "mr.nii.gz")
    assert shown(desk)[0] == "Automatic", "Hounsfield units mean nothing there"
    assert desk.said[-1].startswith("Scan ready: ")
    choose_preset(desk, "Automatic")
    opened(desk, scan_file(tmp_path, "three.nii.gz"))
    assert shown(desk) == ("Automatic", WINDOW_PRESETS["soft-tissue"])
    choose_image(desk, one)
    assert shown(desk) == ("Lung", WINDOW_PRESETS["lung"]), "each keeps its own"


def test_a_case_of_a_work_list_says_in_which_window_it_is(open_list: Callable[..., Desk]) -> None:
    desk = open_list()
    choose_preset(desk, "Bone")
    press(panel(desk).next)
    at(desk, 1)
    assert shown(desk) == ("Bone", WINDOW_PRESETS["bone"])
    assert "ct_2 (2 of 3); window Bone, as you chose last" in desk.said


@pytest.mark.parametrize(
    ("chosen", "window", "name"),
    [
        ("auto", (-160.0, 240.0), "auto"),
        ("soft-tissue", (-160.0, 240.0), "soft-tissue"),
        ("lung", (-160.0, 240.0), "auto"),
        ("auto", (-1350.0, 150.0), "lung"),
        ("lung", (-1.0, 2.0), None),
    ],
)
def test_a_window_has_the_name_that_was_chosen(
    volume: Volume, chosen: str, window: tuple[float, float], name: str | None
) -> None:
    assert name_of_window(volume, window, chosen) == name
    assert bool(said_of_window(volume, window, chosen)) == (chosen == name == "soft-tissue")
    grey = replace(volume, data=np.abs(volume.data))
    assert said_of_window(grey, window, chosen) == ""
