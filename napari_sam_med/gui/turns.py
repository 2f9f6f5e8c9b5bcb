"""Work of the main thread, cut into turns of its event loop: clicks are answered and drawn in between."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

from qtpy.QtCore import QObject, Qt, QTimer

__all__ = ["Turns"]

_FOR_THE_USER_MS = 6
"""From what is drawn to the next step: a click that came meanwhile, and other timers, come first."""


class Turns(QObject):
    """Runs steps, one in a turn, in the order in which they were added.

    What a step has changed is drawn in a turn of its own, too: layers that are new take the canvas as long to
    draw as to come. While a step asks the user something, what was changed is drawn and the others wait.

    Parameters
    ----------
    canvas : callable
        What is drawn on; None without a window.
    """

    def __init__(self, canvas: Callable[[], Any], parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._canvas = canvas
        self._steps: deque[Iterator[None]] = deque()
        self._is_held = self._is_in_step = self._has_ended = False
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.timeout.connect(self._turn)

    def add(self, steps: Iterator[None]) -> None:
        """Go through an iterator; one that fails ends there, and the next goes on. None after the end."""
        if not self._has_ended:
            self._steps.append(steps)
            self._go_on()

    def draw_later(self, *, after_step: bool = False) -> None:
        """What is changed now is drawn in the next turn, or with what the step that waits changes."""
        self._hold(True)
        if after_step and self._steps and not self._is_in_step:
            self._is_held = False  # so that the next turn takes the step
        self._timer.start(0)

    def clear(self) -> None:
        """Do no more of it."""
        self._timer.stop()
        self._steps.clear()
        self._hold(False)

    def end(self) -> None:
        """Do no more at all."""
        self._has_ended = True
        self.clear()

    def _go_on(self, after_ms: int = 0) -> None:
        if self._steps and not self._is_in_step and not self._timer.isActive():
            self._timer.start(after_ms)

    def _turn(self) -> None:
        if self._is_held:
            self._hold(False)  # now it is drawn
            self._go_on(_FOR_THE_USER_MS)
        elif self._steps and not self._is_in_step:
            self._step(self._steps[0])

    def _step(self, steps: Iterator[None]) -> None:
        self._hold(True)
        self._timer.start(0)  # before the step, which may clear all
        self._is_in_step = is_over = True
        try:
            is_over = next(steps, self) is self
        finally:
            self._is_in_step = False
            if is_over and steps in self._steps:
                self._steps.remove(steps)
            self._go_on()

    def _hold(self, is_held: bool) -> None:
        """Let the canvas wait with drawing, or no more; meanwhile its last picture is seen."""
        canvas = self._canvas()
        self._is_held = is_held
        if canvas is not None:
            with suppress(RuntimeError):  # the window is being taken down
                # else Qt paints what is behind it over the picture, as soon as it has anything to paint
                canvas.native.setAttribute(Qt.WidgetAttribute.WA_OpaquePaintEvent)
                canvas.native.setUpdatesEnabled(not is_held)
