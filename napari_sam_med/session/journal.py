"""The journal of a session: every accepted change is kept, so that a crash loses nothing.

The session's thread hands over references to frozen values, and a thread of its own writes them
(`JournalWriter`); a step of a few slices is waited for, but not for long. Whatever goes wrong there, the
session goes on.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy.typing as npt
from psygnal import Signal

from napari_sam_med.errors import JournalError
from napari_sam_med.session.changes import Change
from napari_sam_med.session.journal_folder import JournalFile
from napari_sam_med.session.journal_recovery import (
    Offer,
    RecoveredWork,
    find_offers,
    read_work,
)
from napari_sam_med.session.journal_writer import Exported, JournalWriter, Step, WhenKept
from napari_sam_med.session.new_labels import put_in_place
from napari_sam_med.session.objects import Annotations
from napari_sam_med.volume.disk_labels import labelled_planes
from napari_sam_med.volume.labels import LabelChange
from napari_sam_med.volume.replacement import sweep_orphans

if TYPE_CHECKING:
    from pathlib import Path

    from napari_sam_med.progress import Progress
    from napari_sam_med.session.journal_folder import ImageLock, JournalFolder
    from napari_sam_med.session.journal_image import ImageIdentity
    from napari_sam_med.session.session import Session
    from napari_sam_med.volume.organs import Color, OrganTable

__all__ = ["JournalPlace", "SessionJournal"]

_PATIENCE_SECONDS = 10.0
_MOST_SLICES_WAITED_FOR = 8
"""A step of more takes longer to write than the user may be kept waiting."""


@dataclass(frozen=True)
class JournalPlace:
    """How far the work on a scan was when another one was opened.

    Attributes
    ----------
    change_number, last_work : int
        Of the last change, and of the last one that outdates an export.
    exported : int or None
        Change up to which the labels were exported.
    held_voxels : bool
        Whether the labels held any when they were opened.
    path : Path or None
        The journal; it may hold nothing and not be there.
    """

    change_number: int
    last_work: int
    exported: int | None
    held_voxels: bool
    path: Path | None


class SessionJournal:
    """Keeps what a session does; one for the life of a session, anew for every scan it opens.

    Everything but the jobs (`find_offers`, `read`) belongs on the session's thread. Call `sync` two or three
    times a second: it notices what other plugins wrote, and what a propagation has filled so far.

    Parameters
    ----------
    session : Session
    folder : JournalFolder or None
        None keeps nothing on disk; `has_unexported_changes` still works.
    """

    #: Why work is not being kept, in one line; None when it is kept again. Emitted by `sync`.
    trouble_changed: ClassVar[Signal] = Signal(object)
    #: axial slices, a tuple of int, in which somebody else wrote
    edited_outside: ClassVar[Signal] = Signal(tuple)

    def __init__(self, session: Session, folder: JournalFolder | None) -> None:
        self.folder = folder
        self.change_number = 0
        self._session = session
        self._image: ImageIdentity | None = None
        self._lock: ImageLock | None = None
        self._writer: JournalWriter | None = None
        self._pending: list[tuple[LabelChange, bool]] = []
        self._refused: list[tuple[LabelChange, bool]] = []
        self._known: Annotations = session.annotations
        self._last_work = 0
        self._exported: int | None = None
        self._former: Path | None = None
        self._gone_on_from: JournalPlace | None = None
        self._held_voxels = self._session.has_labels
        self._trouble: str | None = None
        session.voxels_changed.connect(self._on_voxels)
        session.stroke_refused.connect(self._on_refused)
        session.committed.connect(self._on_committed)
        session.reverted.connect(self._on_reverted)
        session.reapplied.connect(self._on_reapplied)
        session.events.labels.connect(self._on_labels)

    def begin(self, image: ImageIdentity, *, offers_former: bool = False) -> None:
        """Start to keep the work on the scan that is open, of which ``image`` was made by `identify`.

        Parameters
        ----------
        image : ImageIdentity
        offers_former : bool
            Whether the file that was written before, if there is one, is offered again as earlier work.

        Raises
        ------
        JournalError
            If another window works on the same image, or none is open. The session goes on without a journal.
        """
        labels = self._session.labels
        if labels is None or image.grid.shape_zyx != labels.shape:
            raise JournalError(f"{image.name} is not the scan that is open; identify the one that is.")
        self._stop_writing()
        path = None
        if self.folder is not None:
            try:
                self._lock = self.folder.lock(image)
                path = self.folder.new_path(image)
            except OSError as error:
                raise JournalError(
                    f"Your work cannot be kept for recovery: {self.folder.path} cannot be written ({error}); "
                    "free some space or change its rights, and export your labels often."
                ) from error
            sweep_orphans(self.folder.path)
        if self._pending:
            self._hand_over("Unfinished step")
        self._image = image
        self._known = self._session.annotations
        self._writer = JournalWriter(image, labels, self._known, self.change_number, self._last_work, path)
        if self._exported is not None:
            self._writer.put(Exported(self._exported))
        if path is not None:
            former, self._former = self._former, None
            if former is not None and not offers_former:
                self._writer.put(WhenKept(lambda: _put_aside(former)))
            before = None if self._gone_on_from is None else self._gone_on_from.path
            if before is not None:  # this one began as that one ended
                self._writer.put(WhenKept(lambda: before.unlink(missing_ok=True)))

    def close(self) -> None:
        """Write what is left and let other windows work on the image; the journal stays on disk."""
        self.sync()
        self._tell_trouble(self._stop_writing())

    def sync(self) -> None:
        """Hand over what changed without a commit; cheap, for a timer."""
        writer, labels = self._writer, self._session.labels
        if writer is None or labels is None:
            return
        if self._pending or self._refused or not self._known.same_as(self._session.annotations):
            self._keep("Unfinished step")
        foreign = writer.take_foreign()
        if foreign:
            copies = tuple((index, labels.data[index].copy()) for index in foreign)
            self._put("Edit from outside", (), copies, is_work=False)
            self.edited_outside.emit(foreign)
        writer.compare()
        self._tell_trouble(writer.trouble)

    def flush(self, timeout: float = _PATIENCE_SECONDS) -> bool:
        """Wait until every change so far, also from outside, is written; False when it takes longer."""
        if self._writer is not None and not self._writer.wait(timeout):  # a comparison may be half done
            return False
        for _ in range(2):  # the first time finds what others wrote, the second time writes it
            self.sync()
            if self._writer is not None and not self._writer.wait(timeout):
                return False
        return True

    # a scan that is left and gone on with

    def leave(self) -> JournalPlace:
        """Write what is left and let go of the image, before another scan is opened; for `go_on` later."""
        self.sync()
        self._tell_trouble(self._stop_writing())
        path = self._former
        if path is None and self._gone_on_from is not None:
            path = self._gone_on_from.path  # left again before this journal was begun
        return JournalPlace(self.change_number, self._last_work, self._exported, self._held_voxels, path)

    def go_on(self, place: JournalPlace, *, is_as_left: bool) -> None:
        """The scan that was just opened was left before: call it before `begin`.

        Its work is as it was left, and the former file goes as soon as this journal is on disk; or it was
        changed meanwhile, and the former file is offered as earlier work.
        """
        self.change_number = place.change_number if is_as_left else place.change_number + 1
        self._last_work = place.last_work if is_as_left else self.change_number
        self._exported, self._held_voxels = place.exported, place.held_voxels
        self._known = self._session.annotations
        self._gone_on_from = place if is_as_left else None

    @property
    def is_as_left(self) -> bool:
        """Whether the scan was left before, and nothing was done on it since."""
        return self._gone_on_from is not None and self._newest_work <= self._gone_on_from.last_work

    # earlier work

    @property
    def image(self) -> ImageIdentity | None:
        """The image whose work is being kept; None before `begin`."""
        return self._image

    def find_offers(self, *, all_kept: bool = False) -> Generator[Progress, None, tuple[Offer, ...]]:
        """Job: what earlier windows left of this image; see `journal_recovery.find_offers` for its order.

        With ``all_kept`` also what was declined or brought back before.
        """
        if self.folder is None or self._image is None:
            return ()
        own = None if self._writer is None else self._writer.path
        before = None if self._gone_on_from is None else self._gone_on_from.path
        offers = yield from find_offers(self.folder, self._image, without=own, all_kept=all_kept)
        return tuple(offer for offer in offers if offer.file.path != before)

    def read(self, offer: Offer) -> Generator[Progress, None, RecoveredWork]:
        """Job: read the work of an offer; raises `JournalError` where it is of another image."""
        if self._image is None:
            raise JournalError("No image is open; open the one that the work was done on.")
        return (yield from read_work(offer, self._image, self._session.labels))

    def put_back(self, work: RecoveredWork) -> Change:
        """Put recovered labels and annotations in the place of those there are; one undo step.

        The array of ``work`` may become the session's. The file that it comes from is kept aside as soon as
        this journal has it on disk.

        Raises
        ------
        JournalError
            If it is the work on another image.
        """
        session = self._session
        if self._image is None or session.labels is None:
            raise JournalError("No image is open; open the one that the work was done on.")
        mismatch = self._image.difference_from(work.offer.image)
        if mismatch is not None:
            raise JournalError(f"The earlier work does not fit: {mismatch}. Nothing was changed or removed.")
        step = put_in_place(session, work.new, "Bring back earlier work", work.annotations)
        if work.offer.is_exported:
            self.mark_exported()
        if self._writer is not None:
            file, is_damaged = work.offer.file, work.problem is not None
            self._writer.put(WhenKept(lambda: file.put_aside(is_damaged=is_damaged)))
        return step

    def remove(self, offer: Offer) -> None:
        """Remove earlier work on this image for good; one that is gone already is no error."""
        offer.file.path.unlink(missing_ok=True)

    def clear_earlier(self) -> int:
        """Remove every other journal of this image; answers bytes. For all images: `JournalFolder.clear`."""
        if self.folder is None or self._image is None or self._lock is None:
            return 0
        own = None if self._writer is None else self._writer.path
        return self.folder.clear_locked(self._image, keep=own)

    # exports

    @property
    def has_unexported_changes(self) -> bool:
        """Whether labels, names or colours changed since the last export; ask before closing."""
        last = self._newest_work
        if self._exported is not None:
            return last > self._exported
        # empty labels are worth no question, but for those that were opened and erased
        return last > 0 and (self._held_voxels or self.holds_labels)

    @property
    def _newest_work(self) -> int:
        return self._last_work if self._writer is None else max(self._last_work, self._writer.last_work)

    @property
    def holds_labels(self) -> bool:
        """Whether any voxel is labelled, by whomever; looked for only where the session knows of none."""
        if self._session.has_labels or self._session.labels is None:
            return self._session.has_labels
        data = self._session.labels.data
        return any(data[index].max(initial=0) for index in labelled_planes(data))

    def mark_exported(self, change_number: int | None = None) -> None:
        """Note that the labels were exported as they stood after a change (None: the last one).

        An export that runs in the background asks for `change_number` when it copies the labels.
        """
        number = self.change_number if change_number is None else change_number
        self._exported = number if self._exported is None else max(self._exported, number)
        if self._writer is not None:
            self._writer.put(Exported(self._exported))

    # from the session

    def _on_labels(self) -> None:
        """Another scan was opened, or none is open."""
        self._tell_trouble(self._stop_writing())
        self._pending.clear()
        self._refused.clear()
        self.change_number = self._last_work = 0
        self._exported = self._former = self._gone_on_from = None
        self._held_voxels = self._session.has_labels
        self._known = self._session.annotations

    def _on_voxels(self, change: LabelChange, reverted: bool) -> None:
        self._pending.append((change, reverted))

    def _on_refused(self, change: LabelChange) -> None:
        """The writer may have seen the stroke before it was put back."""
        self._refused.append((change, False))

    def _on_committed(self, change: Change) -> None:
        self._keep(change.label)

    def _on_reverted(self, change: Change) -> None:
        self._keep(f"Undo {change.label}")

    def _on_reapplied(self, change: Change) -> None:
        self._keep(f"Redo {change.label}")

    def _keep(self, label: str) -> None:
        """What the user has done is on its way to the disk before the user can do the next thing; a moment
        later where that takes long.
        """
        is_short = len(self._pending) <= _MOST_SLICES_WAITED_FOR
        self._hand_over(label)
        if is_short and self._writer is not None and self._writer.path is not None:
            self._writer.keep_up()

    def _hand_over(self, label: str) -> None:
        voxels, self._pending = tuple(self._pending), []
        refused, self._refused = tuple(self._refused), []
        was, now = self._known.organs, self._session.organs
        is_work = bool(voxels) or (was is not now and _look(was) != _look(now))
        self._put(label, refused + voxels, (), is_work=is_work)

    def _put(
        self,
        label: str,
        voxels: tuple[tuple[LabelChange, bool], ...],
        slices: tuple[tuple[int, npt.NDArray[Any]], ...],
        *,
        is_work: bool,
    ) -> None:
        self.change_number += 1
        self._known = self._session.annotations
        if is_work:
            self._last_work = self.change_number
        if self._writer is not None:
            self._writer.put(Step(self.change_number, label, voxels, slices, self._known, is_work))

    def _tell_trouble(self, trouble: str | None) -> None:
        if trouble != self._trouble:
            self._trouble = trouble
            self.trouble_changed.emit(trouble)

    def _stop_writing(self) -> str | None:
        """Write what was handed over, and let go of the image; answers what went wrong."""
        writer, self._writer = self._writer, None
        self._image = None
        if writer is not None:
            self._former = writer.path or self._former
            writer.stop(_PATIENCE_SECONDS)
            # it may have found edits from outside on its own, the last of them after the last change here
            self._last_work = max(self._last_work, writer.last_work)
            self.change_number = max(self.change_number, self._last_work)
        lock, self._lock = self._lock, None
        if lock is not None:
            lock.release()
        return None if writer is None else writer.trouble


def _put_aside(path: Path) -> None:
    """Offer this window's own former file no more, where it made one and nobody else took it."""
    with suppress(FileNotFoundError):
        JournalFile(path).put_aside(is_damaged=False)


def _look(organs: OrganTable) -> dict[int, tuple[str, Color]]:
    """What an export says of the organs: names and colours, not locks."""
    return {class_id: (organ.name, organ.color) for class_id, organ in organs.items()}
