"""The thread that writes a journal: it is handed frozen values, and changes nothing of the session."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_sam_med.errors import LabelError
from napari_sam_med.session.journal_annotations import NOTHING, encode_annotations, is_unchanged
from napari_sam_med.session.journal_log import JournalLog
from napari_sam_med.session.journal_records import Blobs, encode_slice, pack_payload
from napari_sam_med.session.journal_recovery import FORMAT
from napari_sam_med.session.voxel_counts import VoxelCounts
from napari_sam_med.volume.disk_labels import labelled_planes
from napari_sam_med.volume.labels import LabelChange, labels_at, sparse_copy
from napari_sam_med.volume.slice_view import SliceView

if TYPE_CHECKING:
    from pathlib import Path

    from napari_sam_med.session.journal_image import ImageIdentity
    from napari_sam_med.session.objects import Annotations
    from napari_sam_med.volume.labels import LabelVolume

__all__ = ["Exported", "JournalWriter", "Step", "WhenKept"]

_LOG = logging.getLogger(__name__)

_SLICES_BEFORE_COMPACTION = 3000
"""A slice difference takes about 0.3 ms to read back, so recovery stays within a second or two."""

_MOMENT_SECONDS = 0.05
"""The session's thread waits so long for a step, which as a rule takes a millisecond or two."""

_RETRY_SECONDS = 5.0
"""After a failed write the whole state is tried again no more often."""


@dataclass(frozen=True, eq=False)
class Step:
    """What changed, for one record.

    Attributes
    ----------
    number : int
        Of the change, growing.
    label : str
        What the user did, for people.
    voxels : tuple of (LabelChange, bool)
        In order; True: it was taken back.
    slices : tuple of (int, ndarray)
        Axial slices (index, copy) in which somebody else wrote.
    annotations : Annotations
    is_work : bool
        Whether an export before this step is outdated; for ``slices`` the writer finds out.
    """

    number: int
    label: str
    voxels: tuple[tuple[LabelChange, bool], ...]
    slices: tuple[tuple[int, npt.NDArray[Any]], ...]
    annotations: Annotations
    is_work: bool


@dataclass(frozen=True)
class Exported:
    """The labels as of change ``number`` were exported."""

    number: int


@dataclass(frozen=True)
class WhenKept:
    """Something to do on the writer's thread, once all that came before is on the disk."""

    action: Callable[[], None]


class _Compare:
    """Ask for a comparison of the labels with what the journal knows."""


@dataclass(frozen=True)
class _WhenCompared:
    """Tell of it once all that came before is written, and compared."""

    done: threading.Event


class JournalWriter:
    """Writes steps in the order in which they come; never raises into the session.

    Parameters
    ----------
    image : ImageIdentity
    labels : LabelVolume
        Copied at the start, and read in the background when `compare` asks.
    start : Annotations
        Of the state that the steps begin from.
    number, last_work : int
        Last change in that state (above 0: it is to be kept already), and last one that outdates an export.
    path : Path or None
        File to write, made with the first change; None keeps nothing on disk.
    """

    def __init__(
        self,
        image: ImageIdentity,
        labels: LabelVolume,
        start: Annotations,
        number: int,
        last_work: int,
        path: Path | None,
    ) -> None:
        self.path = path
        self.trouble: str | None = None
        self.last_work = last_work
        self.foreign: tuple[int, ...] = ()
        self._image = image
        self._labels = labels
        self._annotations = start
        self._number = number
        self._label = ""
        self._time = time.time()
        self._exported: int | None = None
        self._log: JournalLog | None = None
        self._is_behind = False
        self._tried = 0.0
        self._n_slices = 0
        self._shadow = sparse_copy(labels.data)  # before anybody writes on
        self._counts = VoxelCounts(self._shadow[:0])
        self._is_comparing = False
        self._uncompared: deque[int] = deque()
        self._found: list[int] = []
        self._late: threading.Event | None = None
        self._queue: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="sam-med journal writer", daemon=True)
        self._thread.start()

    # from the session's thread

    def put(self, item: Step | Exported | WhenKept) -> None:
        """Hand something over; takes microseconds."""
        self._queue.put(item)

    def compare(self) -> None:
        """Look for slices in which somebody else wrote; `take_foreign` answers them later."""
        if not self._is_comparing:
            self._is_comparing = True
            self._queue.put(_Compare())

    def take_foreign(self) -> tuple[int, ...]:
        """Axial slices in which somebody else wrote, as far as they are known."""
        found, self.foreign = self.foreign, ()
        return found

    def wait(self, timeout: float) -> bool:
        """Wait until all that was handed over is written and compared; False when it takes longer."""
        done = threading.Event()
        self._queue.put(_WhenCompared(done))
        return done.wait(timeout)

    def keep_up(self) -> None:
        """Wait a moment until all that was handed over is written, and not again while that takes longer."""
        if self._late is None or self._late.is_set():
            done = threading.Event()
            self._queue.put(done)
            self._late = None if done.wait(_MOMENT_SECONDS) else done

    def stop(self, timeout: float) -> bool:
        """Write what was handed over and end; False when it takes longer."""
        self._queue.put(None)
        self._thread.join(timeout)
        return not self._thread.is_alive()

    # on the writer's own thread

    def _run(self) -> None:
        self._guarded(self._start)
        while (item := self._next()) is not None:
            self._guarded(partial(self._take, item))
        self._guarded(self._take_rest)
        if self._log is not None or (self._is_behind and self.path is not None):
            self._guarded(self._finish)

    def _next(self) -> Any:
        """What was handed over next; until then slice after slice is compared: no step waits for it."""
        while self._uncompared and self._queue.empty():
            self._guarded(self._compare_slice)
        return self._queue.get()

    def _start(self) -> None:
        self._counts = VoxelCounts(self._shadow)
        if self._number:
            self._keep_all()

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
            if not self._is_behind:
                self.trouble = None
        except OSError as error:
            self._fail(f"{self.path} cannot be written ({error.strerror or error}); free some space")
        except LabelError as error:  # no room for the copy of labels larger than memory
            self._fail(str(error).rstrip("."))
        except Exception as error:  # noqa: BLE001  the session must go on whatever happens here
            _LOG.exception("The journal failed")
            self._fail(f"the journal failed ({error!r}); please report it")

    def _fail(self, why: str) -> None:
        self._is_behind = True
        self._tried = time.monotonic()
        self.trouble = f"Your work is not being kept for recovery: {why}, and export your labels soon."

    def _take(self, item: Any) -> None:
        if isinstance(item, Step):
            self._take_step(item)
        elif isinstance(item, Exported):
            self._exported = item.number
            if self._log is not None and not self._is_behind:
                self._append({"kind": "exported", "number": item.number}, Blobs())
        elif isinstance(item, threading.Event):
            item.set()
        elif isinstance(item, _WhenCompared):
            while self._uncompared:
                self._compare_slice()
            item.done.set()
        elif isinstance(item, WhenKept):
            if self._log is not None and not self._is_behind:
                self._log.sync()
                try:
                    item.action()
                except OSError as error:
                    _LOG.warning("A journal could not be put aside: %s", error)
        else:
            self._uncompared.extend(labelled_planes(self._shadow, self._labels.data))
            self._is_comparing = bool(self._uncompared)
            if self._is_behind:
                self._catch_up()

    def _take_step(self, step: Step) -> None:
        changes = [change for change in map(self._followed, step.voxels) if change is not None]
        changes += [change for change in map(self._adopted, step.slices) if change is not None]
        old, self._annotations = self._annotations, step.annotations
        if step.is_work or (changes and step.slices):
            self.last_work = max(self.last_work, step.number)
        self._number = step.number
        if not changes and is_unchanged(old, step.annotations):
            return
        self._label, self._time = step.label, time.time()
        if self.path is None:
            return
        if self._is_behind:
            self._catch_up()
        elif self._log is None:
            self._keep_all()
        else:
            self._append_step(changes, old)
            if self._n_slices > _SLICES_BEFORE_COMPACTION:
                self._keep_all()

    def _followed(self, voxels: tuple[LabelChange, bool]) -> LabelChange | None:
        change, reverted = voxels
        return self._moved(change.view, change.indices, change.before if reverted else change.after)

    def _adopted(self, copied: tuple[int, npt.NDArray[Any]]) -> LabelChange | None:
        index, now = copied
        indices = np.flatnonzero(now != self._shadow[index])
        return self._moved(SliceView("axial", index), indices, now.ravel()[indices])

    def _moved(
        self, view: SliceView, indices: npt.NDArray[Any], after: npt.NDArray[Any]
    ) -> LabelChange | None:
        """Let shadow and counts follow; answers what really changed there."""
        if not len(indices):
            return None
        if after.max() > np.iinfo(self._shadow.dtype).max:
            self._shadow = self._shadow.astype(np.uint16)
        before = labels_at(self._shadow, view, indices)
        differs = before != after
        if not differs.any():
            return None
        change = LabelChange(view, indices[differs], before[differs], after[differs])
        change.apply(self._shadow)
        self._counts.record(change)
        return change

    def _compare_slice(self) -> None:
        index = self._uncompared.popleft()
        try:
            if self._differs(index):
                self._found.append(index)
        finally:  # or, out of memory at the last slice, there would be no other comparison
            if not self._uncompared:
                self.foreign, self._found = tuple(self._found), []
                self._is_comparing = False

    def _differs(self, index: int) -> bool:
        now = self._labels.data
        if now.dtype.itemsize > self._shadow.itemsize:
            self._shadow = self._shadow.astype(now.dtype)
        return not np.array_equal(now[index], self._shadow[index])

    def _append_step(self, changes: list[LabelChange], old: Annotations) -> None:
        blobs = Blobs()
        shape = self._shadow.shape
        rows = [encode_slice(change, change.view.slice_shape(shape), blobs) for change in changes]
        self._append(self._step_fields(rows, encode_annotations(old, self._annotations, blobs)), blobs)
        self._n_slices += len(rows)

    def _append(self, fields: dict[str, Any], blobs: Blobs) -> None:
        assert self._log is not None  # callers looked
        self._log.append(pack_payload(fields, blobs))

    def _catch_up(self) -> None:
        if time.monotonic() - self._tried >= _RETRY_SECONDS:
            self._keep_all()

    def _keep_all(self) -> None:
        """Write the whole state, in a file that takes the place of the one there is."""
        if self.path is None:
            return
        self._tried = time.monotonic()
        blobs = Blobs()
        rows = []
        for index in labelled_planes(self._shadow):
            plane = self._shadow[index]
            indices = np.flatnonzero(plane)
            if len(indices):
                after = plane.ravel()[indices]
                change = LabelChange(SliceView("axial", index), indices, np.zeros_like(after), after)
                rows.append(encode_slice(change, plane.shape, blobs))
        step = pack_payload(
            self._step_fields(rows, encode_annotations(NOTHING, self._annotations, blobs)), blobs
        )
        payloads = [
            pack_payload({"kind": "header", "format": FORMAT, "image": self._image.to_json()}, Blobs()),
            step,
        ]
        if self._exported is not None:
            payloads.append(pack_payload({"kind": "exported", "number": self._exported}, Blobs()))
        if self._log is None:
            self._log = JournalLog(self.path, payloads)
        else:
            self._log.start_over(payloads)
        self._n_slices = 0
        self._is_behind = False

    def _step_fields(self, rows: list[list[Any]], annotations: dict[str, Any]) -> dict[str, Any]:
        class_ids = self._counts.class_ids
        return {
            "kind": "step",
            "number": self._number,
            "work": self.last_work,
            "label": self._label,
            "time": self._time,
            "summary": {
                "voxels": sum(self._counts[class_id] for class_id in class_ids),
                "organs": len(class_ids),
                "objects": len(self._annotations.objects),
            },
            "dtype": self._shadow.dtype.name,
            "slices": rows,
            "annotations": annotations,
        }

    def _take_rest(self) -> None:
        """Keep what somebody else wrote last; the session has let go of the labels, so they stand still."""
        copies = tuple(
            (index, self._labels.data[index].copy())
            for index in labelled_planes(self._shadow, self._labels.data)
            if self._differs(index)
        )
        if copies:
            label = "Edit from outside"
            self._take_step(Step(self._number + 1, label, (), copies, self._annotations, is_work=False))

    def _finish(self) -> None:
        try:
            if self._is_behind:
                self._keep_all()
            self._append({"kind": "closed"}, Blobs())
        finally:
            if self._log is not None:
                self._log.close()
