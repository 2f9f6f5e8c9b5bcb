"""The end of a docked widget: closing it sends it no closeEvent (napari issue 8071)."""

from __future__ import annotations

from qtpy.QtCore import QEvent, QObject
from qtpy.QtGui import QShowEvent
from qtpy.QtWidgets import QDockWidget, QMainWindow, QWidget

from napari_sam_med.gui.garbage import keep_garbage_on_main_thread

__all__ = ["Docked"]


class Docked(QWidget):
    """Calls `stop` when its dock is closed, or when the main window really closes; a closed one is deleted.

    While it is there, Python looks for garbage on the main thread alone.
    """

    def __init__(self) -> None:
        super().__init__()
        self._was_docked = self._close_is_asked = False
        self._end_keeping = end = keep_garbage_on_main_thread()
        self.destroyed.connect(end)

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
        """A dock that is closed lets go of its widget: its work ends here, and then the widget itself.

        A script that wants it back makes a new one.

        Left to Python's search for garbage it would live on unseen, with all that it holds: a callback that
        was connected to a signal of a part made by Qt (the line in a spin box, the heading of a table) is
        kept by Qt alone, where the search does not see that it is a circle.
        """
        if event.type() == QEvent.Type.ParentChange:
            if isinstance(self.parentWidget(), QDockWidget):
                self._was_docked = True  # it may never be shown, behind other tabs
            elif self._was_docked and self.parentWidget() is None:
                try:
                    self._finish()
                finally:
                    self.deleteLater()
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
            self._finish()
        elif event.type() == QEvent.Type.Show:
            self._close_is_asked = False
        return False

    def _finish(self) -> None:
        self._end_keeping()
        self.stop()
