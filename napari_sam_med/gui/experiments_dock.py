"""Where the Experiments panel lies in the window, and what it leaves of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING

from qtpy.compat import isalive
from qtpy.QtCore import Qt, QTimer
from qtpy.QtWidgets import QDockWidget, QMainWindow, QTabWidget, QWidget

if TYPE_CHECKING:
    from napari_sam_med.gui.layer_bridge import LayerBridge
    from napari_sam_med.gui.widget import SamMedWidget

__all__ = ["PagesOutside", "PanelPlace"]

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
        The SAM Med widget, beside which it is to lie; None where there is none.

    Attributes
    ----------
    waits : bool
        Whether it is only taken when `take` is called.
    """

    def __init__(
        self, panel: QWidget, window: QMainWindow, neighbour: Callable[[], SamMedWidget | None]
    ) -> None:
        self._panel = panel
        self._neighbour = neighbour
        self._widths: dict[QDockWidget, int] | None = _widths(window)
        self._is_taken = self.waits = False

    def on_shown(self) -> None:
        """The panel is in sight, for the first time or again."""
        window = self._panel.window()
        if isinstance(window, QMainWindow) and (self._widths is None or not self._is_taken):
            self._widths = _widths(window) if self._widths is None else self._widths
            if not self.waits:
                QTimer.singleShot(0, self.take)  # napari is not done with the dock yet

    def take(self) -> None:
        """Put the panel beside the other widget, and give it the width that it needs."""
        if not isalive(self._panel):
            return
        self.waits = False
        window, dock = self._panel.window(), self._panel.parentWidget()
        if not isinstance(window, QMainWindow) or not isinstance(dock, QDockWidget) or dock.isHidden():
            return  # it floats, or is closed or hidden again
        if not self._is_taken:  # later on it stays where the user puts it
            self._is_taken = True
            self._go_beside(window, dock)
        window.layout().activate()  # else a dock that is new has no width yet
        if dock.width() < _GOOD_WIDTH and window.width() > 2.5 * _GOOD_WIDTH:
            _resize(dock, _GOOD_WIDTH, self._bridge())

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
        """Let the docks beside be no wider than before, in a turn of its own: the canvas becomes wider."""
        widths, self._widths = self._widths or {}, None
        bridge = self._bridge()
        if bridge is None:
            QTimer.singleShot(0, lambda: _narrow(widths, None))  # once its own dock is gone
        else:
            bridge.turns.add(_narrowing(widths, bridge))

    def _bridge(self) -> LayerBridge | None:
        """Of the widget beside."""
        beside = self._neighbour()
        return beside.actions_.bridge if beside is not None and isalive(beside) else None


def _narrowing(widths: Mapping[QDockWidget, int], bridge: LayerBridge) -> Iterator[None]:
    _narrow(widths, bridge)
    yield


def _narrow(widths: Mapping[QDockWidget, int], bridge: LayerBridge | None) -> None:
    for dock, width in widths.items():
        if isalive(dock) and dock.isVisible() and not dock.isFloating():
            dock.window().layout().activate()  # else a dock that was behind has its former width yet
            if dock.width() > width:
                _resize(dock, width, bridge)


def _resize(dock: QDockWidget, width: int, bridge: LayerBridge | None) -> None:
    """Have the canvas draw its new size once, which it would do twice; and in this turn, not in the next as
    after other steps: it would be black until then.
    """
    window = dock.window()
    canvas = None if bridge is None else bridge.canvas()
    if canvas is not None:
        canvas.native.setUpdatesEnabled(False)
    try:
        window.resizeDocks([dock], [width], Qt.Orientation.Horizontal)
        window.layout().activate()
    finally:
        if canvas is not None:
            with suppress(RuntimeError):  # the window is being taken down
                canvas.native.setUpdatesEnabled(True)


def _widths(window: QMainWindow) -> dict[QDockWidget, int]:
    """Of the docks in sight at the right, where the panel goes."""
    right = Qt.DockWidgetArea.RightDockWidgetArea
    docks = [dock for dock in window.findChildren(QDockWidget) if dock.isVisible() and not dock.isFloating()]
    return {dock: dock.width() for dock in docks if window.dockWidgetArea(dock) == right}


class PagesOutside:
    """Pages that are taken out of their tabs, to be put in again one by one: Qt gives each part of a page its
    style as it comes into the window.
    """

    def __init__(self, tabs: QTabWidget) -> None:
        self._tabs = tabs
        self._pages = [(tabs.widget(n), tabs.tabText(n), tabs.tabToolTip(n)) for n in range(tabs.count())]
        for page, _, _ in self._pages:
            page.setParent(None)

    def put_in(self) -> bool:
        """Put in the next page; False where there is none left after it."""
        if self._pages:
            page, title, tip = self._pages.pop(0)
            self._tabs.setTabToolTip(self._tabs.addTab(page, title), tip)
        return bool(self._pages)

    def delete(self) -> None:
        """The tabs are gone."""
        for page, _, _ in self._pages:
            if isalive(page):
                page.deleteLater()
