"""Where the Experiments panel lies in the window, and what it leaves of it."""

from __future__ import annotations

from collections.abc import Callable

from qtpy.compat import isalive
from qtpy.QtCore import Qt, QTimer
from qtpy.QtWidgets import QDockWidget, QMainWindow, QWidget

__all__ = ["PanelPlace"]

_GOOD_WIDTH = 470
"""Pixels in which tables show all columns."""


class PanelPlace:
    """A tab beside another widget, as wide as tables need; the canvas has its width back afterwards.

    Parameters
    ----------
    panel : QWidget
        Not docked yet: the widths of what is docked are those to give back.
    window : QMainWindow
    neighbour : callable
        The widget beside which it is to lie; None where there is none.
    """

    def __init__(self, panel: QWidget, window: QMainWindow, neighbour: Callable[[], QWidget | None]) -> None:
        self._panel = panel
        self._neighbour = neighbour
        self._widths: dict[QDockWidget, int] | None = _widths(window)
        self._is_taken = False

    def on_shown(self) -> None:
        """The panel is in sight, for the first time or again."""
        window = self._panel.window()
        if isinstance(window, QMainWindow) and (self._widths is None or not self._is_taken):
            self._widths = _widths(window) if self._widths is None else self._widths
            QTimer.singleShot(0, self._take)  # napari is not done with the dock yet

    def _take(self) -> None:
        if not isalive(self._panel):
            return
        window, dock = self._panel.window(), self._panel.parentWidget()
        if not isinstance(window, QMainWindow) or not isinstance(dock, QDockWidget):
            return  # it floats, or is closed again
        if not self._is_taken:  # later on it stays where the user puts it
            self._is_taken = True
            self._go_beside(window, dock)
        if dock.width() < _GOOD_WIDTH and window.width() > 2.5 * _GOOD_WIDTH:
            window.resizeDocks([dock], [_GOOD_WIDTH], Qt.Orientation.Horizontal)

    def _go_beside(self, window: QMainWindow, dock: QDockWidget) -> None:
        """Below the other widget, where napari's menu puts it, both would be cut short."""
        widget = self._neighbour()
        other = None if widget is None else widget.parentWidget()
        if not isinstance(other, QDockWidget) or dock in window.tabifiedDockWidgets(other):
            return
        if window.dockWidgetArea(other) == window.dockWidgetArea(dock):
            window.tabifyDockWidget(other, dock)
            dock.raise_()

    def on_hidden(self) -> None:
        """The panel is out of sight, with its dock or behind another tab."""
        dock = self._panel.parentWidget()
        if self._is_taken and isinstance(dock, QDockWidget) and dock.isHidden():
            self.give_back()

    def give_back(self) -> None:
        """Let the docks beside be no wider than before."""
        widths, self._widths = self._widths or {}, None

        def narrow() -> None:
            for dock, width in widths.items():
                if isalive(dock) and dock.isVisible() and not dock.isFloating():
                    window = dock.window()
                    window.layout().activate()  # else a dock that was behind has its former width yet
                    if dock.width() > width:
                        window.resizeDocks([dock], [width], Qt.Orientation.Horizontal)

        QTimer.singleShot(0, narrow)  # once its own dock is gone


def _widths(window: QMainWindow) -> dict[QDockWidget, int]:
    """Of the docks in sight at the right, where the panel goes."""
    right = Qt.DockWidgetArea.RightDockWidgetArea
    docks = [dock for dock in window.findChildren(QDockWidget) if dock.isVisible() and not dock.isFloating()]
    return {dock: dock.width() for dock in docks if window.dockWidgetArea(dock) == right}
