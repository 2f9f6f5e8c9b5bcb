"""Keeping work for after a crash: which image it is, the journal, and what earlier windows left."""

from __future__ import annotations

from collections.abc import Callable

from qtpy.QtCore import QObject, QTimer, Signal

from napari_sam_med.errors import JournalError
from napari_sam_med.gui.settings import Settings
from napari_sam_med.gui.workers import Job, Workers
from napari_sam_med.session.journal import SessionJournal
from napari_sam_med.session.journal_folder import default_folder
from napari_sam_med.session.journal_image import ImageIdentity, identify
from napari_sam_med.session.journal_recovery import Offer, RecoveredWork
from napari_sam_med.session.new_labels import NewLabels, put_in_place
from napari_sam_med.session.objects import Annotations
from napari_sam_med.session.session import Session

__all__ = ["Keeping"]

_SYNC_MS = 400
_PATIENCE_SECONDS = 1.0
_RETRY_MS = 5000
"""Another window may be closed, or a disk have room again."""


class Keeping(QObject):
    """The session's journal: begun with every scan, synced by a timer, its earlier work offered.

    Parameters
    ----------
    make_way : callable
        Ends a job that fills slices, before earlier work takes the place of the labels.

    Signals
    -------
    trouble_changed : str or None
        Why work is not being kept; None when it is.
    offer_changed
        `offer`, or what is said of it, is another one.
    changed_on_disk
        Files came or went.
    brought_back
        Earlier work is in the labels now.
    status : str
    failed : Exception
    """

    trouble_changed = Signal(object)
    offer_changed = Signal()
    changed_on_disk = Signal()
    brought_back = Signal()
    status = Signal(str)
    failed = Signal(object)

    def __init__(
        self,
        session: Session,
        workers: Workers,
        settings: Settings,
        make_way: Callable[[], None],
        parent: QObject | None = None,
    ) -> None:
        super().__init__(parent)
        self._session = session
        self._workers = workers
        self._settings = settings
        self._make_way = make_way
        self.journal = SessionJournal(session, None if settings.keeps_nothing else default_folder())
        self.trouble: str | None = None
        #: whether the newest work is brought back without a question; a work list may know that it is
        self.needs_no_question: Callable[[Offer], bool] = lambda offer: False
        #: name of the image layer to be chosen to go on with work, where that is in this viewer
        self.image_at_hand: Callable[[Offer], str | None] = lambda offer: None
        #: whether that is under way, and nothing is to be offered
        self.is_unasked = False
        self._image: ImageIdentity | None = None
        self._offers: list[Offer] = []
        self._jobs: list[Job] = []
        self._is_reading = self._has_looked = self._had_work = False
        self.journal.trouble_changed.connect(self._show_trouble)
        session.events.labels.connect(self._on_labels)
        for signal in (session.counts_changed, session.events.objects):
            signal.connect(self._on_work)
        self._sync_timer = QTimer(self)
        self._sync_timer.setInterval(_SYNC_MS)
        self._sync_timer.timeout.connect(self.journal.sync)
        self._retry_timer = QTimer(self)
        self._retry_timer.setInterval(_RETRY_MS)
        self._retry_timer.timeout.connect(self._begin)

    # one scan after the other

    def _on_labels(self, *_: object) -> None:
        """Another scan or other labels, or none: after the journal, which listens too, has let go."""
        self._sync_timer.stop()
        self._retry_timer.stop()
        for job in self._jobs:
            job.discard()
        self._jobs.clear()
        self._image = None
        self._is_reading = self.is_unasked = False
        self._show_trouble(None)
        self._show_offers(())
        volume = self._session.volume
        if self._session.labels is not None and volume is not None:
            self._jobs.append(
                self._workers.start(
                    identify(volume),
                    "identify",
                    returned=self._on_identified,
                    failed=lambda error: self._show_trouble(
                        f"Your work is not being kept for recovery: the image cannot be recognised "
                        f"({error}); export your labels often."
                    ),
                )
            )

    def _on_identified(self, image: ImageIdentity) -> None:
        self._image = image
        self._has_looked = False
        self._begin()

    def _begin(self, *, offers_former: bool = False) -> None:
        if self._image is None:
            return
        try:
            self.journal.begin(self._image, offers_former=offers_former)
        except JournalError as error:
            self._retry_timer.start()
            self._show_trouble(str(error))
            return
        self._retry_timer.stop()
        self._show_trouble(None)
        self._sync_timer.start()
        if not self._has_looked and self.journal.folder is not None:
            self._has_looked = True  # what is begun again would only find what this window left
            self._look_for_offers(all_kept=False)

    def _show_trouble(self, trouble: str | None) -> None:
        if trouble != self.trouble:
            self.trouble = trouble
            self.trouble_changed.emit(trouble)

    # earlier work

    @property
    def offer(self) -> Offer | None:
        """The earlier work that is offered now."""
        return self._offers[0] if self._offers else None

    @property
    def n_more_offers(self) -> int:
        """How many come after it."""
        return max(0, len(self._offers) - 1)

    @property
    def has_work(self) -> bool:
        """Whether there are labels or objects that bringing back would replace."""
        session = self._session
        return bool(session.objects) or any(session.voxel_count(class_id) for class_id in session.organs)

    @property
    def is_reading(self) -> bool:
        """Whether earlier work is being brought back."""
        return self._is_reading

    def look_for_all(self) -> None:
        """Offer all earlier work on this scan, also what was declined or brought back before."""
        if self.journal.image is None or self.journal.folder is None:
            self.status.emit("There is no earlier work to look for: open a scan first, and let work be kept.")
            return
        self._look_for_offers(all_kept=True)

    def _look_for_offers(self, *, all_kept: bool) -> None:
        def returned(offers: tuple[Offer, ...]) -> None:
            here = {} if all_kept else {offer: self.image_at_hand(offer) for offer in offers}
            self._show_offers(
                tuple(offer for offer in offers if here.get(offer) is None), may_bring_back=not all_kept
            )
            for name in filter(None, here.values()):
                self.status.emit(f'Earlier work on this scan is here: choose "{name}" under Scan, Image.')
            self.changed_on_disk.emit()
            if all_kept and not offers:
                self.status.emit("No earlier work on this scan is kept.")

        self._jobs.append(
            self._workers.start(
                self.journal.find_offers(all_kept=all_kept),
                "find earlier work",
                returned=returned,
                failed=self.failed.emit,
            )
        )

    def _show_offers(self, offers: tuple[Offer, ...], *, may_bring_back: bool = False) -> None:
        if offers or self._offers:
            self._offers = list(offers)
            self._had_work = self.has_work
            newest = max(offers, key=lambda offer: offer.last_change, default=None)
            self.is_unasked = may_bring_back and newest is not None and self.needs_no_question(newest)
            if newest is not None and self.is_unasked:
                self._offers.remove(newest)
                self._offers.insert(0, newest)
                self.bring_back()
            else:
                self.offer_changed.emit()

    def _on_work(self, *_: object) -> None:
        if self._offers and self.has_work != self._had_work:
            self._had_work = not self._had_work
            self.offer_changed.emit()

    def not_now(self) -> None:
        """Keep the file and offer it no more; the next one comes."""
        offer = self.offer
        if offer is None or self._is_reading:
            return
        try:
            if offer.file.is_active and offer.mismatch is None:  # else it waits for the scan that it fits
                offer.file.decline()
        except OSError as error:  # it is offered again the next time, no more
            self.status.emit(f"{offer.file.path} stays as it is ({error}).")
        else:
            self.status.emit('Kept: "Earlier work on this scan…" under "Kept on disk" offers it again.')
        self._offers.pop(0)
        self.offer_changed.emit()

    def bring_back(self) -> None:
        """Put the work that is offered in the place of the labels; one undo step."""
        offer = self.offer
        if offer is None or self._is_reading:
            return
        self._is_reading = True
        self.offer_changed.emit()
        job = self._workers.start(
            self.journal.read(offer),
            "read earlier work",
            yielded=lambda progress: self.status.emit(f"{progress.text}…"),
            returned=self._put_back,
            failed=self.failed.emit,
            finished=lambda: self._on_read(job),
        )
        self._jobs.append(job)

    def _put_back(self, work: RecoveredWork) -> None:
        self._make_way()
        try:
            self.journal.put_back(work)
        except JournalError as error:
            self.failed.emit(error)
            return
        # what is older is in it, as a rule
        self._offers = [one for one in self._offers if one.last_change > work.offer.last_change]
        self.brought_back.emit()
        if work.problem is None:
            self.status.emit("The earlier work is back. Ctrl-Z takes it away again.")
        else:
            self.failed.emit(
                JournalError(
                    f"The earlier work is back; not all of it could be read: {work.problem}. "
                    "Ctrl-Z takes it away again."
                )
            )

    def _on_read(self, job: Job) -> None:
        if job in self._jobs:  # else another scan was opened meanwhile
            self._is_reading = self.is_unasked = False
            self.offer_changed.emit()

    def clear_earlier(self) -> int:
        """Remove all earlier work on this scan; answers bytes. `JournalFolder.clear` leaves it, being locked.

        Raises
        ------
        JournalError
            If a file cannot be removed.
        """
        self._show_offers(())
        try:
            return self.journal.clear_earlier()
        except OSError as error:
            raise JournalError(f"Earlier work could not be removed ({error}); close what uses it.") from error

    # labels of a file

    def take_over(self, new: NewLabels, label: str, after: Annotations) -> None:
        """Put the labels of a file in the place of those there are; one undo step.

        Work that was there and is in no exported file stays on disk, to be offered again.
        """
        self._make_way()
        if self.journal.has_unexported_changes:
            self._begin(offers_former=True)
        put_in_place(self._session, new, label, after)
        self.journal.mark_exported()  # they are in a file, and closing need not ask

    # closing, exporting, keeping nothing

    @property
    def has_unexported_work(self) -> bool:
        """Whether closing would leave work that is in no exported file."""
        self.journal.flush(_PATIENCE_SECONDS)  # what another plugin wrote just now is work too
        return self._session.labels is not None and self.journal.has_unexported_changes

    @property
    def is_as_left(self) -> bool:
        """Whether nothing was done since this scan was left before, and all of it is kept."""
        return self.is_kept and self.journal.is_as_left

    @property
    def scan_name(self) -> str:
        """The scan that is open, for a question; of a file with its folder, since many are called alike."""
        volume = self._session.volume
        if volume is None:
            return "a scan"
        is_file = volume.path is not None and volume.path.parent.name and volume.name == volume.path.name
        return f"{volume.path.parent.name}/{volume.name}" if is_file else volume.name

    @property
    def is_kept(self) -> bool:
        """Whether the work is on disk, to be offered again."""
        return self.trouble is None and self.journal.image is not None and self.journal.folder is not None

    def keep_nothing(self, is_nothing: bool) -> None:
        """From now on keep nothing on disk, or keep everything again."""
        self._settings.remember(keeps_nothing=is_nothing)
        self.journal.folder = None if is_nothing else default_folder()
        if is_nothing:
            self._show_offers(())
        self._begin()
        self.changed_on_disk.emit()

    def stop(self) -> None:
        """Write what is left and let other windows work on the image."""
        self._sync_timer.stop()
        self._retry_timer.stop()
        self._image = None
        self._session.events.labels.disconnect(self._on_labels, missing_ok=True)
        for signal in (self._session.counts_changed, self._session.events.objects):
            signal.disconnect(self._on_work, missing_ok=True)
        self.journal.trouble_changed.disconnect(self._show_trouble, missing_ok=True)
        self.journal.close()
