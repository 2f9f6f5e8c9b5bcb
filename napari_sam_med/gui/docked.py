"""The end of a docked widget: closing it sends it no closeEvent (napari issue 8071)."""

from __future__ import annotations

from qtpy.QtCore import QEvent, QObject
from qtpy.QtGui import QShowEvent
from qtpy.QtWidgets import QMainWindow, QWidget

__all__ = ["Docked"]


class Docked(QWidget):
    """Calls `stop` when its dock is closed, or when the main window really closes."""

    def __init__(self) -> None:
        super().__init__()
        self._was_docked = self._close_is_asked = False

    def stop(self) -> None:
        """Stop threads and let go of the viewer; called more than once."""
        raise NotImplementedError

    def _may_close(self, window: QMainWindow) -> bool:
        """Whether the main window may close, as far as this widget is concerned."""
        return True

    def showEvent(self, event: QShowEvent) -> None:  # noqa: N802  Qt's name
        """Watch the main window from the moment that this is part of it."""
        super().showEvent(event)
        host: QWidget | None = self
        while host is not None and not isinstance(host, QMainWindow):
            host = host.parentWidget()
        if host is not None:
            self._was_docked = True
            host.installEventFilter(self)

    def event(self, event: QEvent) -> bool:
        """A dock that is closed lets go of its widget, which may live on unseen: its work ends here."""
        if event.type() == QEvent.Type.ParentChange and self._was_docked and self.parentWidget() is None:
            self.stop()
        return super().event(event)

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:  # noqa: N802  Qt's name
        """Stop when the main window really closes: Qt hides it right after the close event."""
        if not isinstance(watched, QMainWindow):
            return False
        if event.type() == QEvent.Type.Close:
            if not self._may_close(watched):
                if hasattr(watched, "_quit_app"):  # else a later close of this window would still quit napari
                    watched._quit_app = False
                event.ignore()
                return True
            self._close_is_asked = True  # napari may ask the user, others too, and the answer may be no
        elif event.type() == QEvent.Type.Hide and self._close_is_asked:
            self.stop()
        elif event.type() == QEvent.Type.Show:
            self._close_is_asked = False
        return False
