"""Asking about a file that leaves open where its voxels lie, before it is opened."""

from __future__ import annotations

from typing import Literal

from qtpy.QtWidgets import QApplication, QMessageBox, QWidget

from napari_sam_med.errors import SamMedError
from napari_sam_med.gui.appearance import window_to_ask_in
from napari_sam_med.volume.volume import Volume

__all__ = ["ask", "ask_form"]

_NOTHING = "Don't open"
_WHO_TAKES_IT = {"sform": "Use the sform", "qform": "Use the qform"}


def ask_form(volume: Volume) -> Literal["sform", "qform"] | None:
    """What is to place the voxels of a scan that was read; asks where it is in doubt and somebody is there.

    Returns
    -------
    "sform", "qform" or None
        The other form, by which the scan must be read again; None where it is right as it is.

    Raises
    ------
    SamMedError
        When the user would rather not open the file.
    """
    doubt = volume.grid.doubt
    if doubt is None or QApplication.instance() is None:
        return None
    answers = [_WHO_TAKES_IT[form] for form in (doubt.used, *doubt.others)] if doubt.others else ["Open"]
    answer = ask(window_to_ask_in(), doubt.question(volume.name), answers)
    if answer is None:
        raise SamMedError(f"{volume.name} was not opened: where its voxels lie is in doubt.")
    form = next((form for form in doubt.others if _WHO_TAKES_IT[form] == answer), None)
    return "qform" if form == "qform" else "sform" if form == "sform" else None


def ask(parent: QWidget | None, question: str, answers: list[str]) -> str | None:
    """One modal question; the first answer is the default, None means not to open the file."""
    box = QMessageBox(parent)
    box.setIcon(QMessageBox.Icon.Question)
    box.setWindowTitle("SAM Med")
    box.setText(question)
    buttons = [box.addButton(text, QMessageBox.ButtonRole.AcceptRole) for text in answers]
    nothing = box.addButton(_NOTHING, QMessageBox.ButtonRole.RejectRole)
    box.setDefaultButton(buttons[0])
    box.setEscapeButton(nothing)
    box.exec()
    clicked = box.clickedButton()
    box.deleteLater()
    return answers[buttons.index(clicked)] if clicked in buttons else None
