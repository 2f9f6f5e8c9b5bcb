"""What buttons and keys do; each works on the session and says what happened."""

from __future__ import annotations

from collections.abc import Callable, Generator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from napari.components import ViewerModel
from napari.layers import Image, Labels
from napari.utils.notifications import notification_manager
from qtpy.QtCore import QObject, Signal

from napari_sam_med.errors import CancelledError, SamMedError
from napari_sam_med.gui.carrying import Carrying
from napari_sam_med.gui.find_control import Finding
from napari_sam_med.gui.keeping import Keeping
from napari_sam_med.gui.layer_bridge import LayerBridge
from napari_sam_med.gui.learning import Learning
from napari_sam_med.gui.live_model import LiveModel
from napari_sam_med.gui.organ_suggestion import OrganSuggesting
from napari_sam_med.gui.other_machine import ComputingElsewhere
from napari_sam_med.gui.reviewing import Reviewing
from napari_sam_med.gui.scan_loading import ScanLoading
from napari_sam_med.gui.settings import Settings
from napari_sam_med.gui.work_list import WorkListControl
from napari_sam_med.gui.workers import Job, Workers
from napari_sam_med.progress import Progress
from napari_sam_med.session import jobs
from napari_sam_med.session.journal_recovery import Offer
from napari_sam_med.session.labels_copy import LabelsCopy
from napari_sam_med.session.session import Session
from napari_sam_med.volume.labels import LabelVolume
from napari_sam_med.volume.organs import OrganTable
from napari_sam_med.volume.slice_view import SliceView
from napari_sam_med.volume.volume import Volume
from napari_sam_med.volume.writing import holds_voxels

__all__ = ["Actions", "LabelsToWrite"]

T = TypeVar("T")


class LabelsToWrite(NamedTuple):
    """A copy of the labels that is written.

    Attributes
    ----------
    of : LabelVolume
        What the copy is of.
    labels : LabelVolume
    change_number : int
        Of the journal, for `SessionJournal.mark_exported`.
    proposed : SliceView or None
        Slice with a proposal that was not accepted, and so is not in it.
    """

    of: LabelVolume
    labels: LabelVolume
    change_number: int
    proposed: SliceView | None


class _Facts(NamedTuple):
    """What a file says beside the labels; of the model also which objects it made."""

    organs: OrganTable
    model: dict[str, Any]
    change_number: int
    proposed: SliceView | None


class Actions(QObject):
    """Everything a user can do, for buttons and keys alike.

    Signals
    -------
    status : str
        One line for the user.
    told : str
        A line that matters, beside `status`: it is not to be talked over at once.
    progress : Progress or None
        Of the long job that can be cancelled; None when there is none.
    exported : Path
        The labels as they are were written, by the user's wish.
    """

    status = Signal(str)
    told = Signal(str)
    progress = Signal(object)
    exported = Signal(Path)

    def __init__(self, viewer: ViewerModel, settings: Settings, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.settings = settings
        self.session = Session(model=settings.model, device=settings.device)
        self.workers = Workers(self)
        self.bridge = LayerBridge(viewer, self.session, self)
        self.model = LiveModel(self.session, self.workers, self)
        self.elsewhere = ComputingElsewhere(self.workers, self.model, settings, self)
        self.elsewhere.lost.connect(self.tell)
        self.scans = ScanLoading(self.session, self.bridge, self.workers, settings, self)
        self.bridge.prompts.takes_points = lambda: "point" in self.model.accepts
        self.carrying = Carrying(self.session, self.workers, self.model, self._is_free, self)
        self.reviewing = Reviewing(self.session, self.bridge, self.carrying.end_now, self)
        self.keeping = Keeping(self.session, self.workers, settings, self.carrying.end_now, self)
        self.scans.journal = self.keeping.journal
        self.keeping.image_at_hand = self._image_at_hand
        self.suggesting = OrganSuggesting(self.session, self.workers, self.model, settings, self)
        self.work_list = WorkListControl(self)
        self.finding = Finding(
            self.session, self.bridge, self.workers, self.model, self._is_free, self.carrying.end_now, self
        )
        self.learning = Learning(self)
        #: asks before work that was not exported is left; the widget's part
        self.may_leave: Callable[[str, Callable[[], object]], bool] = lambda verb, again: True
        self._download: Job | None = None
        self.bridge.message.connect(self.tell)
        self.bridge.view_changed.connect(self.model.look_at)
        self.bridge.view_changed.connect(self.bridge.display.look_at)
        self.bridge.scan_removed.connect(self._on_scan_removed)
        self.bridge.image_added.connect(self._on_image_added)
        for part in (
            self.model,
            self.elsewhere,
            self.scans,
            self.carrying,
            self.reviewing,
            self.keeping,
            self.work_list,
            self.finding,
            self.suggesting,
        ):
            part.status.connect(self.status)
            part.failed.connect(self.show_error)
        self.carrying.progress.connect(self.progress)
        self.finding.progress.connect(self.progress)
        self.scans.opened.connect(self._on_opened)
        self.keeping.brought_back.connect(self._show_active_object)

    def _image_at_hand(self, offer: Offer) -> str | None:
        """Name of the layer that is to be chosen to go on with earlier work; None where it is to be offered.

        A case of a work list is gone on with in its own way.
        """
        image = None if self.work_list.current is not None else self.scans.left_here(offer.file.path)
        return None if image is None else image.name

    # saying things

    def tell(self, text: str) -> None:
        """A line that matters: status, and a notification beside it."""
        self.status.emit(text)
        self.told.emit(text)

    def show_error(self, error: BaseException) -> None:
        """A user's error becomes one line; a defect of ours keeps its traceback, in napari's own place."""
        if isinstance(error, CancelledError):
            self.status.emit("Cancelled")
        elif isinstance(error, SamMedError):
            self.tell(str(error))
        else:
            self.status.emit(f"This is a defect of napari-sam-med: {type(error).__name__}: {error}")
            notification_manager.receive_error(type(error), error, error.__traceback__)

    def attempt(self, action: Callable[[], Any]) -> Any:
        """Run an action; a user's error becomes a line of text."""
        try:
            return action()
        except SamMedError as error:
            self.show_error(error)
            return None

    # prompts and masks

    def accept(self) -> None:
        """Write the proposed mask into the labels."""
        if self.session.preview is None:
            nothing = (
                self.model.said_of_open or "There is no proposal to accept: draw a box or click on an organ."
            )
            is_coming = self.model.is_coming
            self.status.emit(
                "The mask is on its way: Enter accepts it when it is there." if is_coming else nothing
            )
            return
        active, index = self.session.active_object, self.session.preview.view.index
        done = (
            "" if active is None else f"{active.name[:1].upper()}{active.name[1:]} accepted on slice {index}"
        )
        change = self.attempt(self.session.accept)
        if change is not None:
            self.status.emit(f"{done}. G carries it on.")

    def clear_prompts(self) -> None:
        """Take the prompts of the slice at hand away, and the proposal with them."""
        view = self.bridge.current_view()
        if view is not None:
            self.session.prompt(view, None)
        self.session.preview = None

    def new_object(self) -> None:
        """The next prompt starts another object of the active organ."""
        self.session.new_object()
        name = self.session.organs.name_of(self.session.active_class_id)
        self.status.emit(f"New object of {name}: draw a box or click.")

    def undo(self) -> None:
        """Take the newest step back; carrying that is under way ends first."""
        self.carrying.end()
        with self.model.without_waiting():
            label = self.session.undo()
        self.status.emit("Nothing to undo" if label is None else f"Undone: {label}")

    def redo(self) -> None:
        """Do again what was undone last."""
        self.carrying.end()
        with self.model.without_waiting():
            label = self.session.redo()
        self.status.emit("Nothing to redo" if label is None else f"Done again: {label}")

    def toggle_sign(self) -> None:
        """Switch between foreground and background points."""
        self.bridge.prompts.next_is_negative = not self.bridge.prompts.next_is_negative

    # what takes long

    @property
    def is_busy(self) -> bool:
        """Whether a long job runs that can be cancelled."""
        return self._download is not None or self.carrying.is_busy or self.finding.is_busy

    def cancel(self) -> None:
        """End the long job; what is done stays."""
        self.carrying.end()
        self.finding.end()
        if self._download is not None:
            self._download.cancel()

    def _is_free(self) -> bool:
        if self.is_busy:
            self.status.emit("Something is under way already; wait for it or cancel it.")
        return not self.is_busy

    # files

    def open_labels(self, path: Path) -> None:
        """Go on with labels from a file; one undo step."""
        if self.may_leave("Open", lambda: self.open_labels(path)):
            self.attempt(lambda: self.scans.open_labels_file(path, self.keeping.take_over))

    def export(self, path: Path, written: Callable[[Path], None] | None = None) -> None:
        """Write the labels to a file, from a copy, so that work can go on meanwhile."""
        session = self.session
        if session.labels is None or session.volume is None:
            self.status.emit("There is nothing to export: open a scan first.")
            return

        def returned(content: LabelsToWrite, path: Path) -> None:
            proposed = content.proposed
            left_out = (
                f" The proposal on slice {proposed.index} is not accepted, and not in it." if proposed else ""
            )
            self.status.emit(f"{path.name} written and checked.{left_out}")
            # not where another scan was opened meanwhile, whose changes are counted anew
            if session.labels is content.of and holds_voxels(path):
                self.keeping.journal.mark_exported(content.change_number)
                self.work_list.note_export(path, content.labels)
                self.exported.emit(path)
            if written is not None:
                written(path)

        self.write_labels(partial(jobs.export_labels, path), "export", returned, self.show_error)

    def write_labels(
        self,
        job: Callable[[LabelVolume, Volume, dict[str, Any]], Generator[Progress, None, T]],
        name: str,
        returned: Callable[[LabelsToWrite, T], object],
        failed: Callable[[Exception], object],
        finished: Callable[[], object] | None = None,
    ) -> None:
        """Copy the labels of the scan that is open, and start a job that writes the copy.

        Work goes on meanwhile; what it changes until the copy is made is in it. The job takes labels, scan
        and model; the callbacks are those of `Workers.start`, and ``returned`` gets what was written, too.
        """
        session, journal = self.session, self.keeping.journal
        copy, volume, facts = LabelsCopy(session, journal), session.volume, self._facts_to_write()
        is_written = False

        def copied(_: object) -> None:
            nonlocal is_written, facts
            try:
                if session.labels is copy.of:  # else another scan was opened meanwhile
                    journal.sync()
                    facts = self._facts_to_write()
                labels = copy.finish(facts.organs)
                content = LabelsToWrite(copy.of, labels, facts.change_number, facts.proposed)
            except Exception as error:  # noqa: BLE001  as of the job: whoever asked is told, and nothing is written
                failed(error)
                return
            is_written = True
            self.workers.start(
                job(content.labels, volume, facts.model),
                name,
                yielded=lambda progress: self.status.emit(f"{progress.text}…"),
                returned=lambda written: returned(content, written),
                failed=failed,
                finished=finished,
            )

        def ended() -> None:
            copy.give_up()
            if not is_written and finished is not None:
                finished()

        self.workers.start(copy.make(), "copy labels", returned=copied, failed=failed, finished=ended)

    def _facts_to_write(self) -> _Facts:
        session, model = self.session, self.model.model
        about: dict[str, Any] = {"name": session.model}
        if model is not None:
            about["sha256"] = model.predictor.model_hash
        about["objects"] = [
            {"label": item.class_id, "name": item.name, "slices": item.made_by}
            for item in session.objects.values()
            if item.masks
        ]
        preview = session.preview
        proposed = preview.view if preview is not None and preview.mask.any() else None
        return _Facts(session.organs, about, self.keeping.journal.change_number, proposed)

    def choose_model(self, name: str) -> None:
        """Take a model by its name, or by the path of a checkpoint or of a folder of one."""
        self.cancel()
        self.settings.remember(model=name)
        self.session.model = name

    def fetch_model(self, name: str, done: Callable[[], None]) -> None:
        """Download a model; it can be cancelled."""
        if not self._is_free():
            return

        def finished() -> None:
            self._download = None
            self.progress.emit(None)
            done()

        self._download = self.workers.start(
            jobs.fetch_model(name),
            "fetch",
            yielded=self.progress.emit,
            returned=lambda path: self.status.emit(f"{path.name} downloaded."),
            failed=self.show_error,
            finished=finished,
        )
        self.progress.emit(Progress(0, 0, f"downloading {name}"))

    # the scan comes and goes

    def open_scan(self, source: Path | Image, labels: Labels | None = None) -> None:
        """Work on a file or on a layer that is open already."""
        if not self.may_leave("Open", lambda: self.open_scan(source, labels)):
            self.bridge.layers_changed.emit()  # the lists show again what is worked on
            return
        self.carrying.end()
        self.attempt(lambda: self.scans.open(source, labels))

    def _on_opened(self) -> None:
        self.model.look_at(self.bridge.current_view())
        self.model.ensure_loaded()

    def _on_image_added(self, layer: Image) -> None:
        """Another scan that the user opened in napari covers the one that is worked on, and is not it."""
        fits = not layer.rgb and layer.ndim in (2, 3)
        if fits and self.bridge.image_layer is not None and not self.scans.is_loading:
            self.status.emit(f'To work on "{layer.name}", choose it under Scan, Image.')

    def _show_active_object(self) -> None:
        """Look at a slice of it, so that what was brought back is in sight."""
        active = self.session.active_object
        views = [] if active is None else [*active.key_slices, *active.masks]
        if views and self.bridge.current_view() not in views:
            self.bridge.show_plane(views[0].plane)
            self.bridge.go_to(views[0])

    def _on_scan_removed(self) -> None:
        self.carrying.end()
        what_next = "Open or choose another one."
        if self.keeping.has_unexported_work:  # too late to ask: the layer is gone
            what_next = (
                "Its work was not exported; it is kept, and offered when this scan is opened again."
                if self.keeping.is_kept
                else "Its work was not exported and is not kept on disk: what is left of it is the labels "
                "layer, while that is in the viewer."
            )
        self.session.close()
        self.bridge.close_scan()
        self.status.emit(f"The scan was removed from the viewer. {what_next}")

    def stop(self) -> None:
        """End of the widget: no thread and no listener is left behind."""
        self.model.stop()
        self.workers.stop()
        self.elsewhere.stop()
        self.finding.stop()
        self.work_list.stop()
        self.suggesting.stop()
        self.session.close_changes()
        self.keeping.stop()
        self.scans.give_up()
        self.bridge.detach()
