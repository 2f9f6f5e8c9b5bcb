"""Labels that take the place of those there are, as one undo step: earlier work, or a file that is opened."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_sam_med.progress import Progress
from napari_sam_med.session.changes import Change
from napari_sam_med.volume.disk_labels import labelled_planes
from napari_sam_med.volume.labels import LabelChange
from napari_sam_med.volume.slice_view import SliceView

if TYPE_CHECKING:
    from napari_sam_med.session.objects import Annotations
    from napari_sam_med.session.session import Session
    from napari_sam_med.volume.labels import LabelVolume

__all__ = ["NewLabels", "change_between", "compare", "put_in_place"]

_SLICES_A_STEP = 64


@dataclass(frozen=True, eq=False)
class NewLabels:
    """Labels, compared with those that they are to replace.

    Attributes
    ----------
    data : ndarray (z, y, x) of uint8 or uint16
    found : tuple of (ndarray (H, W) or None)
        What each axial slice of the others held; None: nothing.
    changes : tuple of LabelChange
        What leads from ``found`` to ``data``, one for each axial slice; may be empty.
    """

    data: npt.NDArray[Any]
    found: tuple[npt.NDArray[Any] | None, ...]
    changes: tuple[LabelChange, ...]

    def changes_from(self, now: npt.NDArray[Any]) -> tuple[LabelChange, ...]:
        """What turns labels (z, y, x) into these, without slices that stay as they are.

        Only slices that changed since ``found`` was looked at are compared anew: a look through 512x512x300
        labels takes 10 ms, comparing them all ten times as long.
        """
        changes = []
        looked_at = set(labelled_planes(now, self.data))
        for index, (was, change) in enumerate(zip(self.found, self.changes, strict=True)):
            if was is None and index not in looked_at:
                continue
            here = now[index]
            is_still = not here.any() if was is None else np.array_equal(here, was)
            changes.append(change if is_still else change_between(index, here, self.data[index]))
        return tuple(change for change in changes if not change.is_empty)


def compare(data: npt.NDArray[Any], over: LabelVolume | None) -> Generator[Progress, None, NewLabels]:
    """Job: compare labels (z, y, x) with those that they are to replace, which may change meanwhile.

    None stands for empty ones.
    """
    found: list[npt.NDArray[Any] | None] = []
    changes = []
    looked_at = set(labelled_planes(data) if over is None else labelled_planes(data, over.data))
    for index in range(len(data)):
        if index % _SLICES_A_STEP == 0:
            yield Progress(index, len(data), "comparing the labels")
        if index not in looked_at:
            found.append(None)
            changes.append(_no_change(index))
            continue
        plane = data[index]
        # a slice that is written to right now may be copied half: `changes_from` sees that it is another one
        was = None if over is None or not over.data[index].any() else over.data[index].copy()
        found.append(was)
        changes.append(change_between(index, np.zeros_like(plane) if was is None else was, plane))
    return NewLabels(data, tuple(found), tuple(changes))


def change_between(index: int, before: npt.NDArray[Any], after: npt.NDArray[Any]) -> LabelChange:
    """What turns an axial slice (H, W) into another one; may be empty."""
    indices = np.flatnonzero(before != after)
    small = indices.astype(np.int32) if after.size < 2**31 else indices
    return LabelChange(SliceView("axial", index), small, before.ravel()[indices], after.ravel()[indices])


def _no_change(index: int) -> LabelChange:
    nothing = np.zeros(0, dtype=np.uint8)
    return LabelChange(SliceView("axial", index), np.zeros(0, dtype=np.int32), nothing, nothing)


def put_in_place(session: Session, new: NewLabels, label: str, after: Annotations) -> Change:
    """Put labels and annotations in the place of those there are; one undo step, whatever is locked.

    The array of ``new`` may become the session's.
    """
    labels = session.labels
    assert labels is not None  # callers looked
    session.close_changes()
    session.record_stroke()  # what another plugin wrote is not in the counts yet
    session.preview = None
    before, applied = session.annotations, new.changes_from(labels.data)
    if new.data.dtype.itemsize > labels.data.itemsize:
        labels.data = new.data
    else:
        for change in applied:  # whole rows are many times faster than applying the change
            index, width = change.view.index, labels.shape[2]
            rows = slice(change.indices[0] // width, change.indices[-1] // width + 1)
            labels.data[index, rows] = new.data[index, rows]
    labels.changed.emit(None)
    for change in applied:
        session.count(change)
    step = Change(label, applied, before, after)
    session.commit(step)
    return step
