"""The panel under a user's hands: wheel, keyboard, long names, suggestions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from qtpy.QtCore import QEvent, QPoint, QPointF, Qt
from qtpy.QtGui import QHelpEvent, QWheelEvent
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication, QPushButton, QWidget

import napari_sam_med
from tests.gui.desk import LEFT, NO_KEY, Desk
from tests.gui.fake_model import FakePredictor
from tests.gui.test_carrying import accept_a_box


def turn_wheel(under_mouse: QWidget, steps: int = -1) -> None:
    """Offer a turn of the wheel to a widget and on to its parents, as Qt does with one of a real wheel."""
    middle = under_mouse.mapToGlobal(under_mouse.rect().center())
    widget = under_mouse
    while widget is not None:
        event = QWheelEvent(
            QPointF(widget.mapFromGlobal(middle)),
            QPointF(middle),
            QPoint(),
            QPoint(0, 120 * steps),
            Qt.MouseButton.NoButton,
            NO_KEY,
            Qt.ScrollPhase.NoScrollPhase,
            False,
        )
        QApplication.sendEvent(widget, event)
        if event.isAccepted():
            return
        widget = widget.parentWidget()


def test_the_wheel_scrolls_the_panel_and_changes_no_setting(desk: Desk) -> None:
    panel = desk.widget.volume_panel.window_panel
    bar = desk.widget._scroll.verticalScrollBar()
    desk.native.setFocus()
    window = desk.session.window
    inputs = (
        panel.presets,
        panel.slider,
        panel.low,
        desk.widget.model_panel.devices,
        desk.widget.propagation_panel.directions,
    )
    assert bar.maximum() > 0
    for widget in inputs:
        bar.setValue(0)
        turn_wheel(widget)
        assert bar.value() > 0, widget
    assert desk.session.window == window
    assert desk.session.device == "auto"
    assert desk.widget.propagation_panel.directions.currentIndex() == 0


def test_the_wheel_changes_the_number_that_has_the_keyboard(desk: Desk) -> None:
    low = desk.widget.volume_panel.window_panel.low
    desk.viewer.window._qt_window.activateWindow()
    low.setFocus()
    desk.wait(low.hasFocus)
    before = low.value()
    turn_wheel(low)
    assert low.value() < before


@pytest.mark.parametrize("chooses", [True, False])
def test_keys_reach_the_canvas_after_a_list_was_open(desk: Desk, chooses: bool) -> None:
    accept_a_box(desk)
    combo = desk.widget.propagation_panel.directions
    desk.widget._scroll.ensureWidgetVisible(combo)
    desk.viewer.window._qt_window.activateWindow()
    desk.settle()
    QTest.mouseClick(combo, LEFT, NO_KEY, combo.rect().center())
    desk.wait(combo.view().isVisible)
    if chooses:
        index = combo.model().index(1, 0)
        QTest.qWait(QApplication.doubleClickInterval() + 50)  # Qt ignores a release so soon after opening
        QTest.mouseClick(combo.view().viewport(), LEFT, NO_KEY, combo.view().visualRect(index).center())
    else:
        QTest.keyClick(combo.view(), Qt.Key.Key_Escape)
    desk.wait(lambda: not combo.view().isVisible())
    desk.wait(desk.native.hasFocus)
    assert combo.currentIndex() == int(chooses)
    QTest.keyClick(QApplication.focusWidget(), Qt.Key.Key_G)
    desk.wait_until_carried()
    assert len(desk.session.active_object.masks) > 1


def test_one_cancel_is_to_be_seen_while_a_mask_is_carried(desk: Desk, predictor: FakePredictor) -> None:
    accept_a_box(desk)
    desk.actions.model.model.store.kept.clear()
    predictor.gate.clear()
    predictor.waiting.clear()
    desk.key(Qt.Key.Key_G)
    desk.wait(predictor.waiting.is_set)
    cancels = [b for b in desk.widget.findChildren(QPushButton) if b.text() == "Cancel"]
    assert [b.isVisibleTo(desk.widget) for b in cancels] == [True]
    cancels[0].click()
    predictor.gate.set()
    desk.wait_until_carried()


def test_what_was_said_of_the_scan_is_shown_again_when_the_model_is_loaded(desk: Desk) -> None:
    status, model = desk.widget.status, desk.actions.model
    for before, meanwhile, after in (
        (
            "ct_1 (1 of 6); it has several label files",
            "loading nano…",
            "ct_1 (1 of 6); it has several label files",
        ),
        ("saving ct_1…", "ct_1: labels are as you left them.", "ct_1: labels are as you left them."),
    ):
        status.say(before)
        model.status.emit(meanwhile)
        assert status.text.text() == meanwhile
        model.reload()
        desk.wait(lambda: model.model is not None)
        desk.settle()
        assert status.text.text() == after


def test_a_long_name_loses_its_middle_and_is_whole_in_the_tooltip(desk: Desk) -> None:
    combo = desk.widget.volume_panel.images
    name = "abdomen phantom of a patient who was scanned twice, second scan"
    desk.bridge.image_layer.name = name
    desk.settle()
    shown = combo.shown_text()
    assert shown.startswith("abdo")
    assert shown.endswith("scan")
    assert "…" in shown
    assert combo.fontMetrics().horizontalAdvance(shown) < combo.width()
    place = combo.rect().center()
    QApplication.sendEvent(combo, QHelpEvent(QEvent.Type.ToolTip, place, combo.mapToGlobal(place)))
    assert name in combo.toolTip()


def test_the_status_has_room_for_two_lines(desk: Desk) -> None:
    status = desk.widget.status
    for text in (
        "Liver accepted on slice 23. G carries it on.",
        "Predicted quality 0.67. Enter accepts, Escape clears.",
        "The proposed mask is empty; nothing was changed. Add a box or a click.",
        "The proposed mask is empty. Add a box or a click; Escape clears.",
        "No voxel of this slice has a number: there is nothing to find. Escape clears.",
    ):
        status.say(text)
        desk.settle()
        assert status.text.heightForWidth(status.text.width()) <= status.text.height()


def test_a_long_error_is_shown_to_its_end_and_gives_its_room_back(desk: Desk) -> None:
    status = desk.widget.status
    status.say("Ready")
    desk.settle()
    usual = status.text.height()
    status.say(
        "MedSAM2 latest.pt is damaged or no checkpoint of a model that is known here. " * 3
        + "Fetch it again."
    )
    desk.settle()
    assert status.text.height() > usual
    assert status.text.heightForWidth(status.text.width()) <= status.text.height()
    status.say("Ready")
    desk.settle()
    assert status.text.height() == usual


def test_an_export_is_suggested_beside_the_scan_under_a_free_name(desk: Desk, tmp_path: Path) -> None:
    desk.session.labels.data[2, 3:6, 3:6] = 6
    desk.actions.settings.export_folder = str(tmp_path)
    panel = desk.widget.export_panel
    assert panel.suggested_path() == tmp_path / "volume_labels.nii.gz"
    for name in ("volume_labels.nii.gz", "volume_labels_2.nii.gz"):
        (tmp_path / name).touch()
    assert panel.suggested_path() == tmp_path / "volume_labels_3.nii.gz"


def test_an_export_is_never_suggested_among_the_packages_own_files(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    folder = Path(napari_sam_med.__file__).parent / "sample_data"
    desk.actions.open_scan(folder / "abdomen_phantom.nii.gz")
    desk.wait(lambda: desk.session.volume.name == "abdomen_phantom.nii.gz")
    assert desk.widget.export_panel.suggested_path() == tmp_path / "abdomen_phantom_labels.nii.gz"
    desk.actions.settings.export_folder = str(folder)
    assert desk.widget.export_panel.suggested_path().parent == tmp_path


def test_beside_the_scan_no_plane_of_it_is_shown_and_3d_neither(desk: Desk) -> None:
    planes = desk.widget.volume_panel.planes
    below = desk.viewer.dims.range[0].start - 100
    desk.viewer.add_image(np.zeros((4, 24, 32)), translate=(below, 0, 0))
    desk.settle()
    desk.viewer.dims.set_point(0, below)
    assert desk.bridge.current_view() is None
    assert not any(made.isChecked() for made in planes.values())
    desk.key(Qt.Key.Key_4, Qt.KeyboardModifier.AltModifier)
    desk.settle()
    assert planes["3d"].isChecked()
    desk.viewer.dims.ndisplay = 2
    desk.settle()
    assert desk.bridge.current_view() is None
    assert not any(made.isChecked() for made in planes.values())
    desk.key(Qt.Key.Key_1, Qt.KeyboardModifier.AltModifier)
    assert planes["axial"].isChecked()
