"""Memory goes back to the system when work is at rest."""

from __future__ import annotations

import threading

from qtpy.QtCore import QObject, QTimer

from napari_sam_med.freed_memory import give_back_freed_memory, keep_large_arrays_apart

__all__ = ["Housekeeping"]

_REST_MS = 2000


class Housekeeping(QObject):
    """Gives freed memory back: large arrays at once, the rest after scans were closed or a long job ended."""

    def __init__(self, parent: QObject) -> None:
        super().__init__(parent)
        keep_large_arrays_apart()
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(_REST_MS)
        self._timer.timeout.connect(self._give_back)

    def soon(self, *_: object) -> None:
        """Two seconds after the last call."""
        self._timer.start()

    def stop(self) -> None:
        """Not any more."""
        self._timer.stop()

    def _give_back(self) -> None:
        threading.Thread(target=give_back_freed_memory, name="sam-med memory", daemon=True).start()
