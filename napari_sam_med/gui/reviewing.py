"""Going through the doubtful slices of what was carried, and putting shapes in order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from qtpy.QtCore import QObject, Qt, Signal
from qtpy.QtGui import QCursor
from qtpy.QtWidgets import QApplication

from napari_sam_med.errors import SamMedError
from napari_sam_med.gui.layer_bridge import LayerBridge
from napari_sam_med.session.changes import Change
from napari_sam_med.session.clean_up import Operation, clean_up, erase
from napari_sam_med.session.review import accept_slice, doubtful_slices, use_labels_as_key
from napari_sam_med.session.session import Session

__all__ = ["Reviewing"]


class Reviewing(QObject):
    """Looks for what is wrong, and mends it without a prompt; every change is one undo step.

    Parameters
    ----------
    make_way : callable
        Ends a job that fills slices, before something else changes them.

    Signals
    -------
    status : str
    failed : Exception
    """

    status = Signal(str)
    failed = Signal(object)

    def __init__(
        self,
        session: Session,
        bridge: LayerBridge,
        make_way: Callable[[], None],
        parent: QObject | None = None,
    ) -> None:
        super().__init__(parent)
        self._session = session
        self._bridge = bridge
        self._make_way = make_way

    # doubtful slices

    def go_to_next(self) -> None:
        """Show the slice of the active object where the largest error is expected; again: the next one."""
        active = self._session.active_object
        if active is None or not active.masks:
            self.status.emit("Nothing was carried yet, so no slice is in doubt: G carries the object.")
            return
        found = doubtful_slices(self._session, active.object_id)
        if not found:
            self.status.emit(f"Nothing is left in doubt in {active.name}.")
            return
        views = [doubtful.view for doubtful in found]
        here = self._bridge.current_view()
        chosen = found[(views.index(here) + 1) % len(found) if here in views else 0]
        self._bridge.go_to(chosen.view)
        self.status.emit(chosen.text)

    def accept_slice(self) -> None:
        """Take the active object for right on the slice at hand, as it stands."""
        active, view = self._session.active_object, self._bridge.current_view()
        if active is None or view is None:
            self.status.emit("Choose an object, and a slice in two dimensions that it is right on.")
            return
        if view in active.masks:
            done = f"Slice {view.index} of {active.name} is taken for right. N goes on."
            nothing = f"Slice {view.index} of {active.name} is a key slice already. N goes on."
        else:
            done, nothing = (
                f"{active.name} ends at slice {view.index}{how}. N goes on." for how in ("", " already")
            )
        self._change(lambda: accept_slice(self._session, active.object_id, view), done, nothing)

    def use_labels_as_key(self) -> None:
        """Make what the active organ has on the slice at hand a key slice, wherever it comes from."""
        view = self._bridge.current_view()
        if view is None:
            self.status.emit("Show a slice in two dimensions that holds the mask.")
            return
        self._change(
            lambda: use_labels_as_key(self._session, view),
            f"The mask on slice {view.index} is a key slice now. G carries it on.",
            f"The mask on slice {view.index} is a key slice already. G carries it on.",
        )

    # shapes

    def clean_up(self, operation: Operation, whole_organ: bool = False, **options: Any) -> None:
        """Put the shape of the active object in order, or of the whole active organ."""
        target = self._target(whole_organ)
        self._make_way()
        self._change(
            lambda: clean_up(self._session, target, operation, **options),
            None,
            f"{self._name(target)}: there was nothing to change.",
        )

    def erase_here(self, whole_organ: bool = False) -> None:
        """Erase the active object (or organ) on the slice at hand, with its prompts there."""
        view, target = self._bridge.current_view(), self._target(whole_organ)
        if view is None:
            self.status.emit("Show the slice in two dimensions that is to be erased.")
            return
        self._make_way()
        nothing = f"{self._name(target)}: there is nothing on slice {view.index}."
        self._change(lambda: erase(self._session, target, view), None, nothing)

    def erase_everywhere(self, whole_organ: bool = False) -> None:
        """Erase the active object (or all of the organ)."""
        target = self._target(whole_organ)
        self._make_way()
        nothing = f"{self._name(target)}: there is nothing to erase."
        self._change(lambda: erase(self._session, target), None, nothing)

    def _target(self, whole_organ: bool) -> int | None:
        return None if whole_organ else self._session.active_object_id

    def _name(self, target: int | None) -> str:
        session = self._session
        if target is None:
            return session.organs.name_of(session.active_class_id)
        return session.objects[target].name

    def _change(self, act: Callable[[], Change | None], done: str | None, nothing: str) -> None:
        """Do it, and say what came of it (None: the name of the undo step) or that nothing changed."""
        QApplication.setOverrideCursor(QCursor(Qt.CursorShape.WaitCursor))
        try:
            change = act()
        except SamMedError as error:
            self.failed.emit(error)
            return
        finally:
            QApplication.restoreOverrideCursor()
        if change is None:
            self.status.emit(nothing)
        else:
            self.status.emit(f"{change.label}: done. Ctrl-Z takes it back." if done is None else done)
