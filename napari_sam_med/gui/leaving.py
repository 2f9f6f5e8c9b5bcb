"""Leaving a scan whose labels are in no exported file: closing the window, or opening another scan."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QMessageBox, QWidget

from napari_sam_med.gui.keeping import Keeping

__all__ = ["Answer", "Leaving", "ask"]

Answer = Literal["export", "leave", "cancel"]


class Leaving:
    """Asks before unexported work is left (statement 11); the journal keeps it whatever the answer.

    Parameters
    ----------
    export : callable
        Lets the user export, and calls back when the file is written; never, when the user does not.
    """

    def __init__(
        self, keeping: Keeping, parent: QWidget, export: Callable[[Callable[[], None]], None]
    ) -> None:
        self._keeping = keeping
        self._parent = parent
        self._export = export
        self._is_asking = False

    def may_leave(self, verb: str, again: Callable[[], object]) -> bool:
        """Whether to go on at once; after an export ``again`` is called instead.

        Parameters
        ----------
        verb : str
            What the user is about to do: "Close", "Open".
        """
        if self._is_asking:
            return False
        if not self._keeping.has_unexported_work:
            return True
        if verb == "Open" and self._keeping.is_as_left:  # it was asked when it was left before
            return True
        self._is_asking = True
        self._parent.window().raise_()  # quitting asks in windows behind, too
        try:
            answer = ask(self._parent, verb, self._keeping.is_kept, self._keeping.scan_name)
        finally:
            self._is_asking = False
        if answer == "export":
            self._export(lambda: again())
        return answer == "leave"


def ask(parent: QWidget, verb: str, is_kept: bool, name: str) -> Answer:
    """Ask what is to become of work on the scan of a name that was not exported; modal."""
    box = QMessageBox(parent)
    box.setIcon(QMessageBox.Icon.Warning)
    box.setWindowTitle("SAM Med")
    box.setTextFormat(Qt.TextFormat.PlainText)  # of whatever a file is called
    box.setText(f"The labels of {name} changed since they were exported, or were never exported.")
    if is_kept:
        box.setInformativeText(
            "Without an export the work is kept, and is there when this scan is opened again."
        )
    else:
        box.setInformativeText("The work is not being kept on disk: without an export it is lost.")
    export = box.addButton("Export…", QMessageBox.ButtonRole.AcceptRole)
    leave = box.addButton(f"{verb} without exporting", QMessageBox.ButtonRole.DestructiveRole)
    cancel = box.addButton(QMessageBox.StandardButton.Cancel)
    box.setDefaultButton(export)
    box.setEscapeButton(cancel)
    box.exec()
    clicked = box.clickedButton()
    box.deleteLater()
    if clicked is export:
        return "export"
    return "leave" if clicked is leave else "cancel"
