"""The one undo stack of a session."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from napari_sam_med.session.changes import Change

__all__ = ["UndoStack"]


class UndoStack:
    """Steps that can be undone and redone.

    Parameters
    ----------
    min_steps : int
        Steps that are always kept, whatever they weigh.
    max_steps : int
        Older steps are forgotten beyond this.
    max_bytes : int
        Older steps beyond ``min_steps`` are forgotten when the differences weigh more than this.
    """

    def __init__(self, min_steps: int = 100, max_steps: int = 1000, max_bytes: int = 512 * 1024**2) -> None:
        self._min_steps = min_steps
        self._max_steps = max_steps
        self._max_bytes = max_bytes
        self._undo: list[Change] = []
        self._redo: list[Change] = []
        self._nbytes = 0

    def __len__(self) -> int:
        return len(self._undo)

    @property
    def undo_label(self) -> str | None:
        """What would be undone, for people; None when there is nothing."""
        return self._undo[-1].label if self._undo else None

    @property
    def redo_label(self) -> str | None:
        """What would be redone, for people; None when there is nothing."""
        return self._redo[-1].label if self._redo else None

    def push(self, change: Change) -> None:
        """Add a step; what was undone before can no longer be redone."""
        self._redo.clear()
        self._undo.append(change)
        self._nbytes += change.nbytes
        while len(self._undo) > self._max_steps or (
            self._nbytes > self._max_bytes and len(self._undo) > self._min_steps
        ):
            self._nbytes -= self._undo.pop(0).nbytes

    def undo(self) -> Change | None:
        """Take the newest step off; the caller reverts it. None when there is nothing to undo."""
        if not self._undo:
            return None
        change = self._undo.pop()
        self._nbytes -= change.nbytes
        self._redo.append(change)
        return change

    def redo(self) -> Change | None:
        """Put the step undone last back on; the caller applies it. None when there is nothing to redo."""
        if not self._redo:
            return None
        change = self._redo.pop()
        self._nbytes += change.nbytes
        self._undo.append(change)
        return change

    def clear(self) -> None:
        """Forget every step."""
        self._undo.clear()
        self._redo.clear()
        self._nbytes = 0
