"""One notification of ours over napari's canvas at a time.

napari's own pile up: each that comes stops the others' time, and starts it again for none of them; under a
window that is not the active one none ever goes. Every one of them is drawn anew with the canvas below it.
"""

from __future__ import annotations

from napari._qt.dialogs.qt_notification import NapariQtNotification
from napari.utils.notifications import show_warning
from qtpy.compat import isalive

__all__ = ["OneNotification"]


class OneNotification:
    """What napari shows of our warnings: the newest takes the place of the one before."""

    def __init__(self) -> None:
        self._bubble: NapariQtNotification | None = None

    def show(self, text: str) -> None:
        """Show a warning as a napari notification; of several lines the first, until it is unfolded.

        Parameters
        ----------
        text : str
        """
        if self._bubble is None or not _is_in_sight(self._bubble):
            shown = list(NapariQtNotification._instances)
            show_warning(text)
            new = [bubble for bubble in NapariQtNotification._instances if bubble not in shown]
            self._bubble = new[-1] if new else None  # none where there is no window, or the user wants none
            return
        bubble = self._bubble
        bubble.message.setText(text)
        if bubble.timer.isActive():
            bubble.timer_start()  # time to read it
        if bubble.property("expanded"):
            bubble.expand()


def _is_in_sight(bubble: NapariQtNotification) -> bool:
    """False also while it fades out."""
    return isalive(bubble) and bubble.isVisible() and bubble.opacity_anim.endValue() != 0
