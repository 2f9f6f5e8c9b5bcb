"""The end of a docked widget: closing it sends it no closeEvent (napari issue 8071)."""

from __future__ import annotations

import weakref

from qtpy.compat import isalive
from qtpy.QtCore import QEvent, QObject, QTimer
from qtpy.QtGui import QShowEvent
from qtpy.QtWidgets import QDockWidget, QLabel, QMainWindow, QWidget

from napari_sam_med.gui.garbage import keep_garbage_on_main_thread

__all__ = ["Docked"]


class Docked(QWidget):
    """Calls `stop` when its dock is closed, or when the main window really closes; a closed one is deleted.

    One that is still needed when its dock is closed waits unseen in the main window, until it is docked again
    or the window closes. While it is there, Python looks for garbage on the main thread alone.

    Attributes
    ----------
    title : str or None
        What stands over it in the place of the name that napari gives to its dock.
    waits : bool
        Whether its dock was closed, and it is still needed.
    """

    title: str | None = None

    def __init__(self) -> None:
        super().__init__()
        self._was_docked = self._close_is_asked = self.waits = False
        self._window: weakref.ref[QMainWindow] | None = None
        self._end_keeping = end = keep_garbage_on_main_thread()
        self.destroyed.connect(end)

    def stop(self) -> None:
        """Stop threads and let go of the viewer; called more than once."""
        raise NotImplementedError

    def _may_close(self, window: QMainWindow) -> bool:
        """Whether the main window may close, as far as this widget is concerned."""
        return True

    def _is_needed(self) -> bool:
        """Whether something would be lost if this ended with its dock."""
        return False

    def _begin_to_wait(self) -> None:
        """The dock is closed, and this waits."""

    def _go_on(self) -> None:
        """This has waited, and is docked again."""

    def _end_with_dock(self) -> None:
        """The dock is closed, while the window stays open: garbage is kept until this is deleted."""
        self.waits = False
        self.stop()

    def showEvent(self, event: QShowEvent) -> None:  # noqa: N802  Qt's name
        """Watch the main window from the moment that this is part of it."""
        super().showEvent(event)
        host: QWidget | None = self
        while host is not None and not isinstance(host, QMainWindow):
            host = host.parentWidget()
        if host is not None:
            self._was_docked = True
            self._window = weakref.ref(host)
            host.installEventFilter(self)
        if self.title is not None and isinstance(self.parentWidget(), QDockWidget):
            self._name_dock(self.parentWidget())

    def _name_dock(self, dock: QDockWidget) -> None:
        """Show the title alone: the name, by which napari finds the dock, may say everything twice."""
        title = self.title

        def show_title(*_: object) -> None:
            bar = dock.titleBarWidget()
            for label in [] if bar is None else bar.findChildren(QLabel):
                if label.text() and label.text() != title:
                    label.setText(title)

        if dock.windowTitle() != title:
            dock.setWindowTitle(title)
            dock.topLevelChanged.connect(show_title)  # napari makes another bar for another place
            dock.dockLocationChanged.connect(show_title)
        show_title()

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
                if self.waits:
                    self.waits = False
                    self._go_on()
            elif self._was_docked and self.parentWidget() is None:
                self._leave_dock()
        return super().event(event)

    def _leave_dock(self) -> None:
        if self._window is not None and self._is_needed():
            self.waits = True
            # Qt is not done with the old parent yet; until then nothing else keeps the widget
            QTimer.singleShot(0, lambda: self._wait_in_window())
            self._begin_to_wait()
        else:
            self._end_now()

    def _wait_in_window(self) -> None:
        if self.waits and isalive(self) and self.parentWidget() is None:
            window = None if self._window is None else self._window()
            if window is None or not isalive(window):
                self._end_now()
            else:
                self.setParent(window)

    def _end_now(self) -> None:
        try:
            self._end_with_dock()
        finally:
            self._delete()

    def _delete(self) -> None:
        """All has ended."""
        self.deleteLater()

    def end_waiting(self, *_: object) -> None:
        """End where this waits, and is needed no more."""
        if self.waits and not self._is_needed():
            self.waits = False
            self._end_now()

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
        self.waits = False
        self._end_keeping()
        self.stop()
