"""What is drawn has the colours of napari's theme, in the dock and in dialogs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from napari.utils.theme import get_theme
from qtpy.QtCore import QSize, QTimer
from qtpy.QtGui import QColor, QIcon
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication, QDialog

from napari_sam_med.gui.appearance import swatch
from tests.gui.desk import LEFT, Desk
from tests.gui.fake_model import FakePredictor


def colors_of(icon: QIcon, size: int = 12) -> set[str]:
    """Colours of the pixels that an icon covers wholly."""
    picture = icon.pixmap(QSize(size, size)).toImage()
    pixels = (picture.pixelColor(x, y) for x in range(picture.width()) for y in range(picture.height()))
    return {color.name() for color in pixels if color.alpha() == 255}


def test_arrows_of_folded_sections_have_the_colour_of_text(desk: Desk) -> None:
    section = desk.widget.find_panel
    button = section.toggleButton()
    for theme in ("dark", "light"):
        desk.viewer.theme = theme
        text = QColor(get_theme(theme).text.as_hex()).name()
        desk.wait(lambda text=text: colors_of(button.icon()) == {text})
        folded = button.icon().pixmap(QSize(12, 12)).toImage()
        section.expand()
        assert colors_of(button.icon()) == {text}
        assert button.icon().pixmap(QSize(12, 12)).toImage() != folded
        section.collapse()


def test_the_eyes_of_organs_have_the_colour_of_text(desk: Desk) -> None:
    tree = desk.widget.organ_panel.tree
    for theme in ("light", "dark"):
        desk.viewer.theme = theme
        text = QColor(get_theme(theme).text.as_hex()).name()
        desk.wait(lambda text=text: text in colors_of(tree.topLevelItem(0).icon(2), 16))


def test_the_fold_of_a_section_has_the_colour_of_text_and_tells_what_is_chosen(desk: Desk) -> None:
    panel = desk.widget.model_panel
    for theme in ("light", "dark"):
        desk.viewer.theme = theme
        text = QColor(get_theme(theme).text.as_hex()).name()
        desk.wait(lambda text=text: colors_of(panel.fold.icon()) == {text})
    assert panel.fold.text() == panel.models.currentText()
    assert not panel.models.isVisible()
    QTest.mouseClick(panel.fold, LEFT)
    assert panel.models.isVisible()
    assert panel.fold.text() == ""


def test_the_question_which_volume_has_the_colours_of_napari(
    make_desk: Callable[[], Desk],
    predictor: FakePredictor,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(QApplication, "activeWindow", lambda: None)  # another program is in front
    desk = make_desk()
    desk.viewer.theme = "dark"
    nib.save(nib.Nifti1Image(np.zeros((9, 8, 5, 3), np.int16), np.eye(4)), tmp_path / "three.nii")
    seen: list[str] = []

    def answer() -> None:
        dialog = QApplication.activeModalWidget()
        assert isinstance(dialog, QDialog)
        seen.append(dialog.grab().toImage().pixelColor(2, 2).name())
        assert dialog.parentWidget() is desk.viewer.window._qt_window
        dialog.accept()

    QTimer.singleShot(0, answer)
    desk.actions.open_scan(tmp_path / "three.nii")
    desk.wait(lambda: desk.session.volume is not None)
    assert seen == [QColor(get_theme("dark").background.as_hex()).name()]


def test_a_swatch_has_its_colour_in_a_row_that_is_selected(qtbot) -> None:
    icon = swatch((1.0, 0.5, 0.0))
    middles = [
        icon.pixmap(14, 14, mode).toImage().pixelColor(7, 7).getRgb()
        for mode in (QIcon.Mode.Normal, QIcon.Mode.Selected)
    ]
    assert middles[0] == middles[1] == (255, 128, 0, 255)
