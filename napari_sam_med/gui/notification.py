"""One notification of ours over napari's canvas at a time, for a while.

napari's own pile up: each that comes stops the others' time, and starts it again for none of them; under a
window that is not the active one none ever goes. Each lies on the canvas that is drawn.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from napari._qt.dialogs.qt_notification import NapariQtNotification
from napari.utils.notifications import show_warning
from qtpy.compat import isalive
from qtpy.QtCore import QObject, QTimer

__all__ = ["OneNotification"]


class OneNotification(QObject):
    """What napari shows of ours: the newest takes the place of the one before, and goes by itself
    unless it is unfolded or under the mouse.

    Parameters
    ----------
    parent : QObject
    """

    def __init__(self, parent: QObject) -> None:
        super().__init__(parent)
        self._bubble: NapariQtNotification | None = None
        self._text = ""
        self._tell: Callable[[str], None] = show_warning
        self._timer = QTimer(self)
        self._timer.setInterval(NapariQtNotification.DISMISS_AFTER)
        self._timer.timeout.connect(self._on_time)

    def show(self, text: str, tell: Callable[[str], None] = show_warning) -> None:
        """Show a napari notification; of several lines the first, until it is unfolded.

        Parameters
        ----------
        text : str
        tell : callable
            napari's function for its kind.
        """
        self.take_away()
        self._text, self._tell = text, tell
        before = list(NapariQtNotification._instances)
        tell(text)
        new = [bubble for bubble in NapariQtNotification._instances if bubble not in before]
        if new:  # none where there is no window, or the user wants none
            self._bubble = new[-1]
            # napari's own begins again when the mouse leaves, and ends in its ``close``, see `take_away`
            self._bubble.timer.stop()
            self._bubble.timer = QTimer()
            self._bubble.timer.setSingleShot(True)
            self._timer.start()

    def withdraw(self, line: str) -> None:
        """Take one of the lines away, where it is still shown."""
        lines, bubble = self._text.splitlines(), self._bubble
        if bubble is not None and isalive(bubble) and bubble.isVisible() and line in lines:
            rest = "\n".join(other for other in lines if other != line)
            if rest:
                self.show(rest, self._tell)
            else:
                self.take_away()

    def _on_time(self) -> None:
        bubble = self._bubble
        is_there = bubble is not None and isalive(bubble)
        if not (is_there and (bubble.underMouse() or bubble.property("expanded"))):
            self.take_away()

    def take_away(self) -> None:
        """Take away what is shown, if anything is.

        Not by its own ``close``, which gives the focus to the canvas while somebody types elsewhere.
        """
        self._timer.stop()
        bubble, self._bubble = self._bubble, None
        if bubble is not None:
            with suppress(ValueError):
                NapariQtNotification._instances.remove(bubble)
            if isalive(bubble):
                bubble.hide()
                bubble.deleteLater()
