"""When slices are embedded ahead of the user: at rest, and while nothing more urgent needs the processor."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from qtpy.QtCore import QObject, QTimer, Signal

from napari_sam_med.gui.workers import Job, Workers
from napari_sam_med.session.embedding_ahead import EmbeddedStack, EmbeddingAhead
from napari_sam_med.session.jobs import ModelView
from napari_sam_med.volume.slice_view import SliceView

__all__ = ["AheadControl", "AheadState"]

_REST_MS = 250
"""Rest on a slice before others are embedded: whoever scrolls past needs none of them."""


@dataclass(frozen=True)
class AheadState:
    """What there is to show.

    Attributes
    ----------
    stack : EmbeddedStack
    at : int
        Index of the slice at hand.
    is_waiting : bool
        Whether it waits for something more urgent.
    error : str
        Why it has stopped; empty when it has not.
    """

    stack: EmbeddedStack
    at: int
    is_waiting: bool
    error: str


class AheadControl(QObject):
    """The job that embeds slices ahead, for one widget.

    Parameters
    ----------
    workers : Workers
    sight : callable
        The model looking at the scan; None while there is no scan or no model.

    Signals
    -------
    changed
        `state` or `is_on` differs.
    """

    changed = Signal()

    def __init__(
        self, workers: Workers, sight: Callable[[], ModelView | None], parent: QObject | None = None
    ) -> None:
        super().__init__(parent)
        self._workers = workers
        self._sight = sight
        self._view: SliceView | None = None
        self._ahead: EmbeddingAhead | None = None
        self._job: Job | None = None
        self._stack: EmbeddedStack | None = None
        self._error = ""
        self._is_on = True
        self._is_serving = self._is_held = False
        self._rest = QTimer(self)
        self._rest.setSingleShot(True)
        self._rest.setInterval(_REST_MS)
        self._rest.timeout.connect(self._on_rest)

    @property
    def is_on(self) -> bool:
        """Whether slices are embedded ahead at all."""
        return self._is_on

    @property
    def state(self) -> AheadState | None:
        """What there is to show; None while there is no scan or no model."""
        sight, view = self._sight(), self._view
        if sight is None or view is None:
            return None
        stack = self._stack
        if stack is None or stack.plane != view.plane:
            n_slices = sight.volume.shape[view.axis]
            stack = EmbeddedStack(view.plane, n_slices, frozenset(), frozenset(), n_slices)
        return AheadState(stack, view.index, self._is_held or self._is_serving, self._error)

    # where the user looks

    def look_at(self, view: SliceView | None) -> None:
        """The user looks at a slice; what is under way is finished, and from then on this one comes first."""
        self._view = view
        if self._job is not None:
            self._job.pause()
        self._rest.start()
        self.changed.emit()

    def renew(self, *_: Any) -> None:
        """The model, the scan or the window is another one: end at once, and begin with what it is now."""
        self.forget()
        self._rest.start()

    def forget(self) -> None:
        """End at once; what was embedded counts for nothing, and nothing is begun before the user moves."""
        if self._ahead is not None:
            self._ahead.interrupt()
        if self._job is not None:
            self._job.discard()
        self._ahead = self._job = self._stack = None
        self._error = ""
        self.changed.emit()

    def switch(self, is_on: bool) -> None:
        """Turn it on or off; what is embedded stays in the store."""
        self._is_on = is_on
        self.renew()

    def _on_rest(self) -> None:
        sight, view = self._sight(), self._view
        if not self._is_on or sight is None or view is None or view.index >= sight.volume.shape[view.axis]:
            return
        if self._ahead is None:
            self._ahead = EmbeddingAhead(sight, view)
        else:
            self._ahead.look_at(view)
        self._apply()

    # what is more urgent

    def give_way(self, view: SliceView) -> None:
        """A prompt on a slice is answered: nothing is embedded meanwhile but this one, if that is begun."""
        self._is_serving = True
        self._apply(view)

    def go_on(self) -> None:
        """Nothing is being answered any more."""
        self._is_serving = False
        self._apply()

    def hold(self, is_held: bool) -> None:
        """Keep from embedding ahead while a long job needs the processor."""
        self._is_held = is_held
        self._apply()

    def _apply(self, spared: SliceView | None = None) -> None:
        ahead, job = self._ahead, self._job
        if ahead is not None and (self._is_held or self._is_serving):
            ahead.interrupt(spared)
            if job is not None:
                job.pause()
        elif ahead is not None and not self._rest.isActive():
            ahead.go_on()
            if job is not None:
                job.resume()
            elif ahead.has_moved and not self._error:
                self._start(ahead)
        self.changed.emit()

    # the job

    def _start(self, ahead: EmbeddingAhead) -> None:
        job = self._workers.start(
            ahead.run(),
            "embed ahead",
            is_background=True,
            yielded=lambda stack: self._on_step(job, stack),
            failed=lambda error: self._on_failed(job, error),
            finished=lambda: self._on_ended(job),
        )
        self._job = job

    def _on_step(self, job: Job, stack: EmbeddedStack) -> None:
        if job is self._job and stack != self._stack:
            self._stack = stack
            self.changed.emit()

    def _on_failed(self, job: Job, error: Exception) -> None:
        """Nobody has asked for it; a prompt says it aloud if it fails as well."""
        if job is self._job:
            self._error = str(error)

    def _on_ended(self, job: Job) -> None:
        if job is self._job:
            self._job = None
            self._apply()

    def stop(self) -> None:
        """For the end of the widget."""
        self._is_on = False
        self._rest.stop()
        self.forget()
