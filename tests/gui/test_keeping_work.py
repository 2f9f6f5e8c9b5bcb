"""What the user has must outlive a question answered with no, a wrong layer, a name without a suffix."""

from __future__ import annotations

from pathlib import Path

import pytest
from qtpy.QtWidgets import QFileDialog, QMessageBox

from tests.gui.desk import Desk
from tests.gui.test_carrying import accept_a_box


def test_a_close_that_the_user_calls_off_leaves_the_widget_at_work(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    window = desk.viewer.window._qt_window
    with monkeypatch.context() as patch:
        patch.setattr(type(window), "closeEvent", lambda self, event: event.ignore())
        window.close()
        desk.settle()
    assert window.isVisible()
    accept_a_box(desk)
    assert desk.labels.any()
    workers = desk.actions.workers
    desk.viewer.close()
    assert workers.running == []


@pytest.mark.parametrize("answer", ["Yes", "No"])
def test_an_export_asks_before_it_replaces_a_name_that_got_its_suffix_from_us(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: str
) -> None:
    there = tmp_path / "liver.nii.gz"
    there.write_bytes(b"yesterday's work")
    accept_a_box(desk)
    typed = (str(tmp_path / "liver"), "NIfTI, compressed (*.nii.gz)")
    asked: list[str] = []
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_: typed)
    monkeypatch.setattr(
        QMessageBox, "question", lambda *args: asked.append(args[2]) or QMessageBox.StandardButton[answer]
    )
    desk.widget.export_panel._ask()
    if answer == "Yes":
        desk.wait(lambda: desk.widget.export_panel.written.text() == f"Written: {there}")
    desk.settle()
    assert "liver.nii.gz" in asked[0]
    assert (there.read_bytes() == b"yesterday's work") == (answer == "No")


@pytest.mark.parametrize("how", ["remove_selected", "clear"])
def test_all_layers_can_be_removed_at_once(desk: Desk, how: str) -> None:
    accept_a_box(desk)
    desk.viewer.layers.select_all()
    getattr(desk.viewer.layers, how)()
    desk.settle()
    assert list(desk.viewer.layers) == []
    assert desk.session.volume is None
    assert not any("labels layer was removed" in text for text in desk.said)


def test_a_label_picked_in_naparis_controls_goes_on_with_its_object(desk: Desk) -> None:
    accept_a_box(desk)
    first, layer = desk.session.active_object_id, desk.bridge.labels_layer
    label = layer.selected_label
    layer.selected_label = 1 if label != 1 else 2
    assert desk.session.active_object_id is None
    layer.selected_label = label
    assert desk.session.active_object_id == first
