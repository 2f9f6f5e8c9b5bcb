"""What buttons and keys do; each works on the session and says what happened."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from napari.components import ViewerModel
from napari.layers import Image, Labels
from napari.utils.notifications import notification_manager, show_warning
from qtpy.QtCore import QObject, Signal

from napari_sam_med.errors import CancelledError, PromptError, SamMedError
from napari_sam_med.gui.layer_bridge import LayerBridge
from napari_sam_med.gui.live_model import LiveModel
from napari_sam_med.gui.scan_loading import ScanLoading
from napari_sam_med.gui.settings import Settings
from napari_sam_med.gui.workers import Job, Workers
from napari_sam_med.progress import Progress
from napari_sam_med.segmentation.propagation import PropagatedSlice
from napari_sam_med.session import jobs
from napari_sam_med.session.changes import Change
from napari_sam_med.session.jobs import ModelView
from napari_sam_med.session.open_change import OpenChange
from napari_sam_med.session.session import Session
from napari_sam_med.volume.labels import LabelVolume

__all__ = ["Actions"]


class Actions(QObject):
    """Everything a user can do, for buttons and keys alike.

    Signals
    -------
    status : str
        One line for the user.
    progress : Progress or None
        Of the long job that can be cancelled; None when there is none.
    carried : str
        Report of a propagation that ended; empty when it no longer holds.
    """

    status = Signal(str)
    progress = Signal(object)
    carried = Signal(str)

    def __init__(self, viewer: ViewerModel, settings: Settings, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.settings = settings
        self.session = Session(model=settings.model, device=settings.device)
        self.workers = Workers(self)
        self.bridge = LayerBridge(viewer, self.session, self)
        self.model = LiveModel(self.session, self.workers, self)
        self.scans = ScanLoading(self.session, self.bridge, self.workers, settings, self)
        self.bridge.prompts.takes_points = lambda: "point" in self.model.accepts
        self._job: Job | None = None
        self._download: Job | None = None
        self._report: tuple[Change, str] | None = None
        self.session.reverted.connect(self._on_reverted)
        self.session.reapplied.connect(self._on_reapplied)
        self.bridge.message.connect(self.tell)
        self.bridge.view_changed.connect(self.model.look_at)
        self.bridge.view_changed.connect(self.bridge.display.look_at)
        self.bridge.scan_removed.connect(self._on_scan_removed)
        self.model.status.connect(self.status)
        self.model.failed.connect(self.show_error)
        self.scans.status.connect(self.status)
        self.scans.failed.connect(self.show_error)
        self.scans.opened.connect(self._on_opened)

    # saying things

    def tell(self, text: str) -> None:
        """A line that matters: status and notification."""
        self.status.emit(text)
        show_warning(text)

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
            self.status.emit("There is no proposal to accept: draw a box or click on an organ.")
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
        """Take the newest step back; a propagation under way ends first."""
        self._end_carrying()
        label = self.session.undo()
        self.status.emit("Nothing to undo" if label is None else f"Undone: {label}")

    def redo(self) -> None:
        """Do again what was undone last."""
        self._end_carrying()
        label = self.session.redo()
        self.status.emit("Nothing to redo" if label is None else f"Done again: {label}")

    def toggle_sign(self) -> None:
        """Switch between foreground and background points."""
        self.bridge.prompts.next_is_negative = not self.bridge.prompts.next_is_negative

    def go_to_doubtful_slice(self) -> None:
        """Show the slice of the active object whose mask is least sure."""
        active = self.session.active_object
        lowest = None if active is None else active.lowest
        if lowest is None:
            self.status.emit("Nothing was carried yet, so no slice is in doubt: G carries the object.")
            return
        self.bridge.go_to(lowest[0])
        self.status.emit(f"{active.name}: lowest quality {lowest[1]:.2f} at slice {lowest[0].index}")

    # propagation

    @property
    def is_busy(self) -> bool:
        """Whether a long job runs that can be cancelled."""
        return self._job is not None

    def cancel(self) -> None:
        """End the long job; what is done stays."""
        if self._job is not None:
            self._job.cancel()

    def _end_carrying(self) -> None:
        """Work on the scan makes way for a change of it; a download has nothing to do with that."""
        if self._job is not None and self._job is not self._download:
            self._job.cancel()

    def carry(
        self,
        directions: tuple[str, ...] = ("forward", "backward"),
        *,
        all_objects: bool = False,
        first_index: int | None = None,
        last_index: int | None = None,
    ) -> None:
        """Carry the active object (or all) from its key slices through the volume."""
        if self._job is not None:
            self.status.emit("Something is under way already; wait for it or cancel it.")
            return
        if self.session.preview is not None and self.attempt(self.session.accept) is None:
            return
        ids = self.attempt(lambda: self._ids_to_carry(all_objects))
        if ids is None or self.attempt(lambda: self.session.propagation_input(ids)) is None:
            return
        volume = self.session.volume
        limits = {"first_index": first_index, "last_index": last_index}

        def start(sight: ModelView) -> None:
            if self._job is not None or sight.volume is not volume:
                return
            left = [i for i in ids if i in self.session.objects]  # undone while the model was loading
            task = self.attempt(lambda: self.session.propagation_input(left)) if left else None
            if task is not None:
                objects, masks = task
                generator = jobs.carry(sight, objects, masks, directions=directions, **limits)
                self._start_carrying(generator, tuple(objects), directions, first_index, last_index)

        self.model.with_model(start)

    def _ids_to_carry(self, all_objects: bool) -> list[int]:
        session = self.session
        if session.volume is None:
            raise PromptError("There is no scan: open one first.")
        if all_objects:
            return [i for i, o in session.objects.items() if not session.organs[o.class_id].locked]
        return [] if session.active_object_id is None else [session.active_object_id]

    def _start_carrying(
        self,
        generator: Any,
        object_ids: tuple[int, ...],
        directions: tuple[str, ...],
        first: int | None,
        last: int | None,
    ) -> None:
        names = ", ".join(self.session.objects[i].name for i in object_ids)
        change = self.session.begin(f"Carry {names} through slices")
        self.model.hold(True)
        self.carried.emit("")
        job = self.workers.start(
            generator,
            "carry",
            yielded=lambda done: self._on_carried(change, done),
            returned=lambda _: self._on_all_carried(change, directions, first, last),
            failed=self.show_error,
            finished=lambda: self._on_carry_ended(job, change, object_ids),
        )
        self._job = job
        self.progress.emit(Progress(0, 0, f"carrying {names}"))

    def _on_carried(self, change: OpenChange, done: PropagatedSlice) -> None:
        if change.is_open:
            change.put(done)
            self.progress.emit(done.progress)
            self.status.emit(f"Carrying: {done.view.plane} slice {done.view.index}")

    def _on_all_carried(
        self, change: OpenChange, directions: tuple[str, ...], first: int | None, last: int | None
    ) -> None:
        if change.is_open:
            first_index, last_index = 0 if first is None else first, 1 << 30 if last is None else last
            change.drop_outdated(first_index, last_index, directions)

    def _on_carry_ended(self, job: Job, change: OpenChange, object_ids: tuple[int, ...]) -> None:
        was_open = change.is_open
        committed = change.close()
        if job is self._job:
            self._job = None
            self.progress.emit(None)
        self.model.hold(False)
        if was_open:
            report = self._carry_report(object_ids)
            self._report = None if committed is None else (committed, report)
            self.carried.emit(report)
            self.status.emit("Cancelled; what was done is kept." if job.was_cancelled else "Ready")

    def _on_reverted(self, change: Change) -> None:
        if self._report is not None and change is self._report[0]:
            self.carried.emit("")

    def _on_reapplied(self, change: Change) -> None:
        if self._report is not None and change is self._report[0]:
            self.carried.emit(self._report[1])

    def _carry_report(self, object_ids: tuple[int, ...]) -> str:
        lines = []
        for item in (self.session.objects[i] for i in object_ids if i in self.session.objects):
            lines.append(f"{item.name}: {item.quality_text}")
            lines += [f"  {way}: {reason}" for way, reason in sorted(item.stop_reasons.items())]
        return "\n".join(lines)

    # files

    def open_labels(self, path: Path) -> None:
        """Go on with labels from a file."""
        self.attempt(lambda: self.scans.open_labels_file(path))

    def export(self, path: Path, written: Callable[[Path], None] | None = None) -> None:
        """Write the labels to a file, from a copy, so that work can go on meanwhile."""
        session = self.session
        if session.labels is None or session.volume is None:
            self.status.emit("There is nothing to export: open a scan first.")
            return
        labels = session.labels
        copy = LabelVolume(
            labels.data.copy(), labels.grid, session.organs, header=labels.header, path=labels.path
        )
        model = self.model.model
        about = {"name": session.model}
        if model is not None:
            about["sha256"] = model.predictor.model_hash

        def returned(path: Path) -> None:
            self.status.emit(f"{path.name} written and checked.")
            if written is not None:
                written(path)

        self.workers.start(
            jobs.export_labels(path, copy, session.volume, about),
            "export",
            yielded=lambda progress: self.status.emit(f"{progress.text}…"),
            returned=returned,
            failed=self.show_error,
        )

    def fetch_model(self, name: str, done: Callable[[], None]) -> None:
        """Download a model; it can be cancelled."""
        if self._job is not None:
            self.status.emit("Something is under way already; wait for it or cancel it.")
            return

        def finished() -> None:
            self._job = self._download = None
            self.progress.emit(None)
            done()

        self._job = self._download = self.workers.start(
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
        self._end_carrying()
        self.attempt(lambda: self.scans.open(source, labels))

    def _on_opened(self) -> None:
        self.model.look_at(self.bridge.current_view())
        self.model.ensure_loaded()

    def _on_scan_removed(self) -> None:
        self._end_carrying()
        self.session.close()
        self.bridge.close_scan()
        self.status.emit("The scan was removed from the viewer. Open or choose another one.")

    def stop(self) -> None:
        """End of the widget: no thread and no listener is left behind."""
        self.model.stop()
        self.workers.stop()
        self.session.close_changes()
        self.bridge.detach()
