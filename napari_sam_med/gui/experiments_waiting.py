"""A run of the Experiments panel waits while somebody waits for an answer."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from qtpy.QtCore import QObject, QTimer

from napari_sam_med.gui.workers import Job

if TYPE_CHECKING:
    from napari_sam_med.gui.actions import Actions

__all__ = ["Waiting"]

_RESUME_MS = 400
"""Rest after a prompt before a run goes on: a click is seldom alone."""


class Waiting(QObject):
    """Lets a run wait between two steps while the SAM Med widget beside answers, or an answer is looked at.

    Parameters
    ----------
    main_actions : callable
        What the widget beside does; None where there is none.
    is_looking : callable
        Whether an answer is being drawn; call `look` when that changes.
    parent : QObject
    """

    def __init__(
        self, main_actions: Callable[[], Actions | None], is_looking: Callable[[], bool], parent: QObject
    ) -> None:
        super().__init__(parent)
        self._main_actions, self._is_looking = main_actions, is_looking
        self._job: Job | None = None
        self._neighbour: Actions | None = None
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(_RESUME_MS)
        self._timer.timeout.connect(self._go_on)

    def begin(self, job: Job) -> None:
        """Watch over a run."""
        self._job = job
        self._neighbour = self._main_actions()
        if self._neighbour is not None:
            self._neighbour.model.answering.connect(self.look)
            self._neighbour.carrying.progress.connect(self.look)
            self.look()

    def end(self) -> None:
        """The run is over; safe to call twice."""
        self._timer.stop()
        if self._neighbour is not None:
            with suppress(RuntimeError, TypeError):  # it is gone already
                self._neighbour.model.answering.disconnect(self.look)
                self._neighbour.carrying.progress.disconnect(self.look)
        self._job = self._neighbour = None

    def look(self, *_: object) -> None:
        """See whether the run must wait."""
        if self._job is not None:
            if self._must_wait:
                self._job.pause()
            self._timer.start()

    @property
    def _must_wait(self) -> bool:
        beside = self._neighbour
        is_there = beside is not None and beside is self._main_actions()
        return self._is_looking() or (is_there and (beside.model.is_answering or beside.carrying.is_busy))

    def _go_on(self) -> None:
        if self._must_wait:
            self._timer.start()  # a widget that is closed meanwhile does not say that it is done
        elif self._job is not None:
            self._job.resume()
