"""Filling slices from key slices: carried by the model, by shape alone, or by shape and model."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
from qtpy.QtCore import QObject, Signal

from napari_sam_med.errors import PromptError, SamMedError
from napari_sam_med.gui.live_model import LiveModel
from napari_sam_med.gui.video_engine import VideoEngine
from napari_sam_med.gui.workers import Job, Workers
from napari_sam_med.progress import Progress
from napari_sam_med.segmentation.propagation import PromptedObjects, PropagatedSlice
from napari_sam_med.segmentation.propagation_cache import PropagationCache
from napari_sam_med.session import jobs
from napari_sam_med.session.changes import Change
from napari_sam_med.session.clean_up import interpolation_input
from napari_sam_med.session.jobs import ModelView
from napari_sam_med.session.objects import AnnotatedObject
from napari_sam_med.session.open_change import OpenChange
from napari_sam_med.session.review import with_confirmed_ends
from napari_sam_med.session.session import Session
from napari_sam_med.session.video_engine import carry_as_video
from napari_sam_med.volume.slice_view import SliceView

if TYPE_CHECKING:
    from napari_sam_med.segmentation.video_propagation import VideoPropagator

__all__ = ["Carrying", "Extent"]

_Masks = Mapping[int, Mapping[SliceView, npt.NDArray[np.bool_]]]
_Slices = Generator[PropagatedSlice, None, None]


@dataclass(frozen=True)
class Extent:
    """What is to be filled.

    Attributes
    ----------
    directions : tuple of {"forward", "backward"}
        Which way to leave the outermost key slices.
    all_objects : bool
        Every object whose organ is not locked, instead of the active one.
    first_index, last_index : int or None
        Slices outside of them stay as they are.
    """

    directions: tuple[str, ...] = ("forward", "backward")
    all_objects: bool = False
    first_index: int | None = None
    last_index: int | None = None


@dataclass(frozen=True)
class _Work:
    """One way to fill slices: its words, and the job that does it."""

    doing: str
    label: str
    job: Callable[[Any, PromptedObjects, _Masks], _Slices]
    """Given what it asks (a `ModelView`, a `VideoPropagator` or None), the objects and their key masks."""
    asks: Literal["model", "video", "nobody"] = "model"
    fills_between: bool = False
    extent: Extent = Extent()
    accepted: str = ""
    """What counts as accepted by asking for this, as a sentence."""


class Carrying(QObject):
    """The job that fills slices: one at a time, streamed into one undo step.

    What the model answered between key slices is kept as long as the scan is open, so that carrying again
    after a correction asks it only about the slices beside that key slice.

    Parameters
    ----------
    is_free : callable
        Whether nothing else runs that the user waits for; says so when not.

    Attributes
    ----------
    video : VideoEngine
        What `carry` asks instead of the model, when one is chosen there.

    Signals
    -------
    status : str
    failed : Exception
    progress : Progress or None
        None when there is no job.
    carried : str
        Report of a job that ended; empty when it no longer holds.
    """

    status = Signal(str)
    failed = Signal(object)
    progress = Signal(object)
    carried = Signal(str)

    def __init__(
        self,
        session: Session,
        workers: Workers,
        model: LiveModel,
        is_free: Callable[[], bool],
        parent: QObject | None = None,
    ) -> None:
        super().__init__(parent)
        self._session = session
        self._workers = workers
        self._model = model
        self._is_free = is_free
        self._job: Job | None = None
        self._report: tuple[Change, str] | None = None
        self._cache = PropagationCache()
        self.video = VideoEngine(session, workers, self)
        self.video.status.connect(self.status)
        self.video.failed.connect(self.failed)
        session.events.volume.connect(self._on_volume)
        session.reverted.connect(self._on_reverted)
        session.reapplied.connect(self._on_reapplied)

    @property
    def is_busy(self) -> bool:
        """Whether slices are being filled."""
        return self._job is not None

    def end(self) -> None:
        """End at the next slice; what is done stays."""
        self.video.drop_waiting()
        if self._job is not None:
            self._job.cancel()

    def end_now(self) -> None:
        """End with what is in the labels: slices that are known but not shown yet are dropped."""
        self.video.drop_waiting()
        if self._job is not None:
            self._job.cancel()
            self._session.close_changes()

    # the ways to fill

    def carry(self, extent: Extent) -> None:
        """Carry objects from their key slices through the volume, with the video model if one is chosen."""
        limits = {"first_index": extent.first_index, "last_index": extent.last_index}

        def video_job(engine: VideoPropagator, objects: PromptedObjects, masks: _Masks) -> _Slices:
            volume, window = self._session.volume, self._session.window
            return carry_as_video(
                volume, window, engine, objects, masks, directions=extent.directions, **limits
            )

        def job(sight: ModelView, objects: PromptedObjects, masks: _Masks) -> _Slices:
            return jobs.carry(
                sight,
                objects,
                masks,
                directions=extent.directions,
                cache=self._cache,
                locked=self._session.locked_voxels(),
                **limits,
            )

        way = {"job": job} if self.video.path is None else {"job": video_job, "asks": "video"}
        self._begin(_Work("Carrying", "Carry {} through slices", extent=extent, **way))

    def fill(self, extent: Extent) -> None:
        """Fill between key slices by their shapes; no model is asked."""

        def job(_: None, objects: PromptedObjects, masks: _Masks) -> _Slices:
            return jobs.interpolate(
                self._session.volume,
                objects,
                masks,
                first_index=extent.first_index,
                last_index=extent.last_index,
            )

        self._begin(_Work("Filling", "Fill {} between slices", job, "nobody", True, extent))

    def snap(self, extent: Extent) -> None:
        """Fill between key slices by their shapes, and let the model pull them to borders in the image."""

        def job(sight: ModelView, objects: PromptedObjects, masks: _Masks) -> _Slices:
            return jobs.snap(
                sight, objects, masks, first_index=extent.first_index, last_index=extent.last_index
            )

        self._begin(_Work("Snapping", "Snap {} between slices", job, "model", True, extent))

    # running them

    def _begin(self, work: _Work) -> None:
        if not self._is_free():
            return
        session = self._session
        try:
            work = replace(work, accepted=self._accepted(self._object_ids(work.extent.all_objects)))
            if session.preview is not None and session.accept() is None:
                return
            ids = self._object_ids(work.extent.all_objects)
            self._input(work, ids)  # whatever is wrong is said before a model is loaded
        except SamMedError as error:
            self.failed.emit(error)
            return
        volume = session.volume

        def start(asked: ModelView | VideoPropagator | None) -> None:
            if self.is_busy or session.volume is not volume:
                return
            left = [i for i in ids if i in session.objects]  # undone while the model was loading
            if not left:
                return
            try:
                objects, masks = self._input(work, left)
            except SamMedError as error:
                self.failed.emit(error)
                return
            model = {"model": session.model, "video": self.video.name, "nobody": None}[work.asks]
            self._start(work, work.job(asked, objects, masks), tuple(objects), model)

        if work.asks == "model":
            self._model.with_model(start)
        elif work.asks == "video":
            self.video.with_engine(start)
        else:
            start(None)

    def _accepted(self, ids: list[int]) -> str:
        """What counts as accepted by filling slices from it, in words: the proposal, and open prompts.

        Raises
        ------
        PromptError
            If there are such prompts, and no slice is looked at that shows what comes of them.
        """
        session, preview, told = self._session, self._session.preview, []
        waiting = [(i, view) for i in ids for view in _open_views(session.objects[i])]
        if waiting and self._model.view is None:
            object_id, view = waiting[0]
            item = session.objects[object_id]
            raise PromptError(
                f"The prompts of {item.name} on {view.plane} slice {view.index} are not accepted yet, and "
                "what they propose cannot be seen in 3-D; show a plane (Alt-1 to Alt-3), and press Enter or "
                "Escape on that slice first."
            )
        if preview is not None and session.active_object is not None:
            told.append(f"{_capital(session.active_object.name)} accepted on slice {preview.view.index}.")
            waiting = [one for one in waiting if one != (session.active_object_id, preview.view)]
        for object_id in dict.fromkeys(i for i, _ in waiting):
            slices = sorted({view.index for i, view in waiting if i == object_id})
            where = f"slice{'s' * (len(slices) > 1)} {', '.join(map(str, slices))}"
            name = _capital(session.objects[object_id].name)
            told.append(f"{name}: the prompts on {where} count as accepted.")
        return " ".join(told)

    def _object_ids(self, all_objects: bool) -> list[int]:
        session = self._session
        if session.volume is None:
            raise PromptError("There is no scan: open one first.")
        if all_objects:
            return [i for i, o in session.objects.items() if not session.organs[o.class_id].locked]
        return [] if session.active_object_id is None else [session.active_object_id]

    def _input(self, work: _Work, ids: list[int]) -> tuple[PromptedObjects, _Masks]:
        if work.fills_between:
            return interpolation_input(self._session, ids, with_model=work.asks == "model")
        objects, masks = self._session.propagation_input(ids)
        if work.asks == "model":
            masks = with_confirmed_ends(self._session, objects, masks, work.extent.directions)
        return objects, masks

    def _start(self, work: _Work, slices: _Slices, object_ids: tuple[int, ...], model: str | None) -> None:
        names = ", ".join(self._session.objects[i].name for i in object_ids)
        change = self._session.begin(work.label.format(names), model)
        self._model.hold(True)
        self.carried.emit("")
        job = self._workers.start(
            slices,
            work.doing.lower(),
            yielded=lambda done: self._on_slice(work, change, done),
            returned=lambda _: self._on_all(work, change),
            failed=self.failed.emit,
            finished=lambda: self._on_ended(work, job, change, object_ids),
        )
        self._job = job
        self.progress.emit(Progress(0, 0, f"{work.doing.lower()} {names}"))
        if work.accepted:
            self.status.emit(work.accepted)

    def _on_slice(self, work: _Work, change: OpenChange, done: PropagatedSlice) -> None:
        if change.is_open:
            change.put(done)
            self.progress.emit(done.progress)
            self._say(work, f"{work.doing}: {done.view.plane} slice {done.view.index}")

    def _say(self, work: _Work, text: str) -> None:
        """With what counts as accepted now, so that no next message hides it."""
        self.status.emit(f"{work.accepted} {text}".strip())

    def _on_all(self, work: _Work, change: OpenChange) -> None:
        if change.is_open and not work.fills_between:
            extent = work.extent
            first = 0 if extent.first_index is None else extent.first_index
            last = 1 << 30 if extent.last_index is None else extent.last_index
            change.drop_outdated(first, last, extent.directions)

    def _on_ended(self, work: _Work, job: Job, change: OpenChange, object_ids: tuple[int, ...]) -> None:
        was_open = change.is_open
        committed = change.close()
        if job is self._job:
            self._job = None
            self.progress.emit(None)
        self._model.hold(False)
        if was_open:
            report = self._text(object_ids)
            self._report = None if committed is None else (committed, report)
            self.carried.emit(report)
            first_line = report.partition("\n")[0]
            done = f"{first_line}. N goes to what is in doubt." if committed is not None else "Ready"
            self._say(work, "Cancelled; what was done is kept." if job.was_cancelled else done)

    def _text(self, object_ids: tuple[int, ...]) -> str:
        lines = []
        for item in (self._session.objects[i] for i in object_ids if i in self._session.objects):
            lines.append(f"{item.name}: {item.quality_text}")
            lines += [f"  {way}: {reason}" for way, reason in sorted(item.stop_reasons.items())]
        return "\n".join(lines)

    def _on_volume(self, *_: Any) -> None:
        self._cache = PropagationCache()  # a job that still runs keeps the old one

    def _on_reverted(self, change: Change) -> None:
        if self._report is not None and change is self._report[0]:
            self.carried.emit("")

    def _on_reapplied(self, change: Change) -> None:
        if self._report is not None and change is self._report[0]:
            self.carried.emit(self._report[1])


def _open_views(item: AnnotatedObject) -> list[SliceView]:
    """Slices whose prompts are asked and accepted by filling from them, as no mask was accepted there."""
    accepted = {view for view, mask in item.masks.items() if mask.is_key}
    return [v for v in item.key_slices if v not in accepted and not item.waits_for_acceptance(v)]


def _capital(name: str) -> str:
    return f"{name[:1].upper()}{name[1:]}"
