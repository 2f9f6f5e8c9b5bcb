"""Python's search for garbage on the main thread alone.

Objects in a circle of references are freed by whichever thread happens to make the next object. Qt's should
be freed on the main thread only, and circles of them are made whenever a slider of napari is painted: reading
``palette`` or ``rect`` of a style option ties the option and what was read to one another. In six rounds of
`benchmarks.long_session` our threads freed 174 objects of Qt; napari's issue 1029 tells of crashes by that.
So a timer of the main thread searches, so often that other threads seldom have to: of the 174, 4 remained.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable

from qtpy.compat import isalive
from qtpy.QtCore import QObject, Qt, QTimer
from qtpy.QtWidgets import QApplication

__all__ = ["keep_garbage_on_main_thread"]

_EVERY_MS = 50
_LATE = 50_000
"""New objects after which any thread searches after all, as the main thread is busy with something long.
Python's own number is 700 to 2000. Importing torch, the most there is, makes 7,500 in `_EVERY_MS`."""
_REST = 300
"""As many times as long as the last search through everything took is rested before the next."""
_MIN_REST_SECONDS = 10.0
_FIRST_SECONDS = 0.3
"""What one takes as long as it is not known; it is measured with torch imported and nothing set aside."""

_keepers: list[_Keeper] = []
"""The one at work, if any."""


def keep_garbage_on_main_thread() -> Callable[[], None]:
    """Let the main thread search for garbage, until all who asked for it have ended it; on the main thread.

    Automatic collection is not switched off, it only comes later. Whoever changes the thresholds of `gc`, or
    switches it off meanwhile, is left alone.

    Returns
    -------
    callable
        Ends it; safe to call twice.
    """
    if _keepers and not isalive(_keepers[0]):  # it went with its application
        _keepers.pop().end()
    if not _keepers:
        _keepers.append(_Keeper(QApplication.instance()))
    keeper = _keepers[0]
    mark = object()
    keeper.users.add(mark)

    def end() -> None:
        keeper.users.discard(mark)
        if not keeper.users and keeper in _keepers:
            _keepers.remove(keeper)
            keeper.end()

    return end


class _Keeper(QObject):
    def __init__(self, parent: QObject | None) -> None:
        super().__init__(parent)
        self.users: set[object] = set()
        self._took, self._last = _FIRST_SECONDS, time.monotonic()
        self._before = gc.get_threshold()
        is_on = self._before[0] > 0
        self._ours = (max(_LATE, self._before[0]), *self._before[1:]) if is_on else self._before
        gc.set_threshold(*self._ours)
        self._timer = QTimer(self)
        self._timer.timeout.connect(self._look)
        if is_on:
            self._timer.start(_EVERY_MS)

    def end(self) -> None:
        """Leave it to Python again."""
        if gc.get_threshold() == self._ours:
            gc.set_threshold(*self._before)
        if isalive(self):  # else it went with its application
            self._timer.stop()
            self.deleteLater()

    def _look(self) -> None:
        """Search as deep as Python would, by its own counts."""
        if not gc.isenabled() or gc.get_threshold() != self._ours:
            return
        young, middle, old = (count > most for count, most in zip(gc.get_count(), self._before, strict=True))
        if old and self._may_search_all:
            start = time.monotonic()
            gc.collect()
            self._last = time.monotonic()
            self._took = self._last - start
        elif young:
            gc.collect(1 if middle else 0)

    @property
    def _may_search_all(self) -> bool:
        rest = max(_MIN_REST_SECONDS, _REST * self._took)
        is_still = QApplication.mouseButtons() == Qt.MouseButton.NoButton
        return self._before[2] > 0 and is_still and time.monotonic() - self._last > rest
