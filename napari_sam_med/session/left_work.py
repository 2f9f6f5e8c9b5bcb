"""Work on a scan that is left for another one, while its labels stay: what it takes to go on with it."""

from __future__ import annotations

import time
from collections.abc import Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import xxhash

from napari_sam_med.progress import Progress
from napari_sam_med.session.undo import UndoStack
from napari_sam_med.volume.disk_labels import labelled_planes

if TYPE_CHECKING:
    from napari_sam_med.session.journal import JournalPlace, SessionJournal
    from napari_sam_med.session.objects import Annotations
    from napari_sam_med.session.session import Session

__all__ = ["LeftWork", "fingerprint", "go_on", "leave"]

_STEP_SECONDS = 0.01


@dataclass(eq=False)
class LeftWork:
    """Everything but the voxels, which stay where they are.

    Attributes
    ----------
    annotations : Annotations
    undo_stack : UndoStack
    place : JournalPlace
        How far the journal was.
    seen : str or None
        The `fingerprint` of the labels as they were left; None until it is known.
    """

    annotations: Annotations
    undo_stack: UndoStack
    place: JournalPlace
    seen: str | None = None


def leave(session: Session, journal: SessionJournal) -> LeftWork:
    """Take the work off the session, which is about to open another scan; its journal is closed."""
    session.close_changes()
    session.record_stroke()
    session.preview = None
    place, annotations = journal.leave(), session.annotations
    stack, session.undo_stack = session.undo_stack, UndoStack()
    return LeftWork(annotations, stack, place)


def go_on(session: Session, journal: SessionJournal, left: LeftWork, *, is_as_left: bool) -> None:
    """Go on with work on a scan that was just opened again, with the labels that it was left with.

    Where somebody changed them meanwhile, objects and undo steps do not fit them any more: they stay in the
    former journal, to be offered, and the labels count as not exported.
    """
    if is_as_left:
        session.undo_stack = left.undo_stack
        session.restore(left.annotations)
        session.history_changed.emit()
    journal.go_on(left.place, is_as_left=is_as_left)


def fingerprint(data: npt.NDArray[Any]) -> Generator[Progress, None, str]:
    """Job, that stops every few milliseconds: what tells labels (z, y, x) of uint8 or uint16 from others."""
    digest = xxhash.xxh3_128()
    until = time.thread_time() + _STEP_SECONDS
    for index in labelled_planes(data):
        plane = np.ascontiguousarray(data[index])
        if plane.any():  # so that a file of labels and an array are alike
            digest.update(index.to_bytes(8, "little"))
            digest.update(plane.data)
        if time.thread_time() > until:
            yield Progress(index, len(data), "looking at the labels")
            until = time.thread_time() + _STEP_SECONDS
    return digest.hexdigest()
