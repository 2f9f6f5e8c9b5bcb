"""The model at the user's side: loads it, answers prompts as they are made, and embeds what comes next."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QObject, Qt, Signal

from napari_sam_med.gui.embedding_ahead import AheadControl
from napari_sam_med.gui.workers import Job, Workers
from napari_sam_med.progress import Progress
from napari_sam_med.sam.model_registry import MODELS, is_available
from napari_sam_med.session import jobs
from napari_sam_med.session.blank_slices import is_blank
from napari_sam_med.session.jobs import LoadedModel, ModelView
from napari_sam_med.session.other_machine import OtherMachine
from napari_sam_med.session.session import Preview, Session
from napari_sam_med.volume.slice_view import SliceView

if TYPE_CHECKING:
    from napari_sam_med.sam.predictor import Predictor
    from napari_sam_med.session.objects import AnnotatedObject

__all__ = ["LiveModel"]

_PATIENCE_SECONDS = 0.05
"""After the question. A quick answer is waited for before anything is drawn: drawing meanwhile would take the
processor from the model, and the canvas would be drawn twice."""

_MOST_NAMED = 3
"""Slices that are named in a line; more are counted."""


class LiveModel(QObject):
    """One loaded model, the preview of the slice at hand, and embeddings ahead of the user.

    Attributes
    ----------
    ahead : AheadControl

    Signals
    -------
    status : str
        What is happening, for people.
    withdrawn : str
        A status that does not hold any more.
    failed : Exception
    loaded
        Another model is ready.
    loading_ended
        So what was said of its loading does not hold any more.
    answering : bool
        Whether a prompt is being answered: what is less urgent may wait.
    """

    status = Signal(str)
    withdrawn = Signal(str)
    failed = Signal(object)
    loaded = Signal()
    loading_ended = Signal()
    answering = Signal(bool)
    _prompted = Signal()

    def __init__(self, session: Session, workers: Workers, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._session = session
        self._workers = workers
        self._model: LoadedModel | None = None
        self._machine: OtherMachine | None = None
        self._on_lost: Callable[[str], object] | None = None
        self._predictor: Predictor | None = None
        self._loading: Job | None = None
        self._serving: Job | None = None
        self._gives_up = threading.Event()
        self._view: SliceView | None = None
        self._wanted: SliceView | None = None
        self._waiting: list[Callable[[ModelView], None]] = []
        self._asked: tuple[Any, ...] | None = None
        self._asked_at = 0.0
        self._told: str | None = None
        self._open: list[tuple[int, SliceView]] = []
        self._open_of: Mapping[int, AnnotatedObject] | None = None
        self._is_held = False
        self._waits = True
        self.ahead = AheadControl(workers, self._sight, self)
        # posted events come after what is being handled now, a click, and before Qt draws
        self._prompted.connect(self._await_answer, Qt.ConnectionType.QueuedConnection)
        session.events.model.connect(self.reload)
        session.events.device.connect(self.reload)
        session.events.window.connect(self._on_window)
        session.events.volume.connect(self.ahead.renew)
        session.events.objects.connect(self._on_objects)
        session.events.active_object_id.connect(self._on_objects)

    # loading

    @property
    def model(self) -> LoadedModel | None:
        """The model that is loaded, None while there is none."""
        return self._model

    @property
    def is_coming(self) -> bool:
        """Whether the mask of the slice that is looked at is on its way, or the model that will make it."""
        return (self._serving is not None or self.is_loading) and self._has_open_prompts(self._view)

    @property
    def is_answering(self) -> bool:
        """Whether a prompt is being answered."""
        return self._serving is not None

    @property
    def is_loading(self) -> bool:
        """Whether a model is being loaded."""
        return self._loading is not None

    @property
    def view(self) -> SliceView | None:
        """The slice that is looked at; None in 3-D."""
        return self._view

    @property
    def accepts(self) -> frozenset[str]:
        """Kinds of prompt that the chosen model takes."""
        if self._model is not None:
            return frozenset(self._model.predictor.record.accepts)
        record = MODELS.get(self._session.model)
        return frozenset({"point", "box", "mask"}) if record is None else record.accepts

    @property
    def can_load(self) -> bool:
        """Whether the chosen model is here; a download is the user's decision."""
        return self._session.model not in MODELS or is_available(self._session.model)

    def reload(self, *_: Any) -> None:
        """Let go of the model and load the chosen one."""
        self._model = self._predictor = None
        self._drop(self._loading)
        self._loading = self._asked = None
        self.ahead.renew()
        self._drop_serving()
        self.answering.emit(False)
        self._session.preview = None
        if self.can_load:
            self._load()
        else:
            self._waiting.clear()
            title = MODELS[self._session.model].title
            self.status.emit(f"{title} is not on this computer yet: press Download.")

    def ensure_loaded(self) -> None:
        """Load the chosen model unless it is loaded or on its way."""
        if self._model is None and self._loading is None:
            self.reload()

    def _load(self) -> None:
        self._loading = self._workers.start(
            jobs.load_model(self._session.model, self._session.device),
            "load model",
            yielded=lambda progress: self.status.emit(f"{progress.text}…"),
            returned=self._on_loaded,
            failed=self._on_load_failed,
        )

    def _on_loaded(self, model: LoadedModel) -> None:
        self._model = model
        self._loading = None
        self._choose_predictor()
        self._waiting, waiting = [], self._waiting
        self.loaded.emit()
        sight = self._sight()
        if sight is not None:
            for use in waiting:
                use(sight)
        if not self._serve():
            self.loading_ended.emit()
        self.ahead.renew()

    def _on_load_failed(self, error: Exception) -> None:
        self._loading = None
        self._waiting.clear()
        self.failed.emit(error)

    def with_model(self, use: Callable[[ModelView], None]) -> None:
        """Call back with the model looking at the scan: now, or as soon as it is loaded."""
        sight = self._sight()
        if sight is not None:
            use(sight)
            return
        self._waiting.append(use)
        self.ensure_loaded()

    def _sight(self) -> ModelView | None:
        session = self._session
        if self._model is None or session.volume is None or session.window is None:
            return None
        assert self._predictor is not None  # chosen with the model
        return ModelView(session.volume, session.window, self._predictor, self._model.store)

    def embed_on(self, machine: OtherMachine | None, on_lost: Callable[[str], object] | None = None) -> None:
        """Embed images on another machine from now on, or here again; what is under way ends as it began.

        ``on_lost`` is called on any thread, with why they are embedded here after all.
        """
        self._machine, self._on_lost = machine, on_lost
        self._choose_predictor()
        self.ahead.renew()

    def _choose_predictor(self) -> None:
        if self._model is None:
            return
        self._predictor = self._model.predictor
        if self._machine is not None and self._on_lost is not None:
            self._predictor = self._machine.predictor_of(
                self._model.predictor, self._session.model, self._on_lost
            )

    # the preview

    def look_at(self, view: SliceView | None) -> None:
        """The user looks at a slice: its open prompts are answered, its neighbours embedded ahead."""
        if view != self._view and self._has_open_prompts(view):
            self._withdraw()  # else `answer` does, or what was told still holds
        self._view = view
        preview = self._session.preview
        if preview is not None and preview.view != view:
            self._session.preview = None
        self.ahead.look_at(view)
        self.answer()

    def answer(self) -> None:
        """Answer the prompts of the active object on the slice at hand, if they are not accepted yet."""
        self._wanted = self._view if self._has_open_prompts(self._view) else None
        if self._wanted is None:
            said = "" if self._view is None or self._is_held else self.said_of_open
            if said != self._told:
                self._withdraw()
            if self._session.preview is not None:
                self._session.preview = None
            if said and said != self._told:
                self.tell(said)
            return
        is_coming = self._serving is not None and not self._gives_up.is_set()
        if (is_coming or self._session.preview is not None) and self._question(self._wanted) == self._asked:
            self._wanted = None
            return
        self._serve()

    def _has_open_prompts(self, view: SliceView | None) -> bool:
        active = self._session.active_object
        if view is None or active is None or view not in active.key_slices:
            return False
        return active.answered.get(view) != active.key_slices[view]

    @property
    def said_of_open(self) -> str:
        """Which prompts wait to be accepted that are out of sight, and what to do; empty where none does."""
        objects = self._session.objects
        if self._open_of is not objects:  # another mapping with every change
            self._open_of = objects
            self._open = [
                (object_id, view)
                for object_id, item in objects.items()
                for view in sorted(item.key_slices)
                if item.answered.get(view) != item.key_slices[view]
            ]
        here = (self._session.active_object_id, self._view)
        waiting = [one for one in self._open if one != here]
        if not waiting:
            return ""
        named = [self._named(*one) for one in waiting[:_MOST_NAMED]]
        more = [f"{len(waiting) - len(named)} more"] if len(waiting) > len(named) else []
        is_active = all(object_id == here[0] for object_id, _ in waiting)
        remedy = "Enter accepts them there." if is_active else "Choose their object, and press Enter there."
        return f"Prompts not accepted yet: {' and '.join(['; '.join(named), *more])}. {remedy}"

    def _named(self, object_id: int, view: SliceView) -> str:
        return f"{self._session.objects[object_id].name}, {view.plane} slice {view.index}"

    def _question(self, view: SliceView) -> tuple[Any, ...]:
        """What the model is asked: as long as it is the same, there is nothing to compute anew."""
        session, active = self._session, self._session.active_object
        prompts = None if active is None else active.key_slices.get(view)
        corrected = None if active is None else active.masks.get(view)
        return view, prompts, corrected, session.window, session.model, session.active_object_id

    def _serve(self) -> bool:
        """Start on the newest wish, one at a time; an embedding that another slice waits for is given up."""
        if self._wanted is None or self._serving is not None:
            if self._wanted is not None and self._asked is not None and self._asked[0] != self._wanted:
                self._gives_up.set()
                self.ahead.give_way(self._wanted)
            return self._serving is not None
        sight = self._sight()
        if sight is None:
            if self._session.volume is not None:
                self.ensure_loaded()
            return False
        active = self._session.active_object
        view, self._wanted = self._wanted, None
        if active is None or view not in active.key_slices:
            return False
        prompts = active.key_slices[view]
        asked = self._asked = self._question(view)
        gives_up = self._gives_up = threading.Event()
        self.ahead.give_way(view)

        def still_asked() -> bool:
            return self._view == view and self._has_open_prompts(view) and self._question(view) == asked

        def returned(preview: Preview | None) -> None:
            if preview is not None and still_asked():
                self._session.preview = preview
                self.tell(self._said_of(preview))

        def yielded(progress: Progress) -> None:
            if still_asked():
                self.tell(f"{progress.text}…")

        job = self._workers.start(
            jobs.predict_preview(sight, view, prompts, active.mask_to_correct(view), gives_up.is_set),
            "preview",
            yielded=yielded,
            returned=returned,
            failed=self.failed.emit,
            finished=lambda: self._on_served(job),
        )
        self._serving, self._asked_at = job, time.monotonic()
        self.answering.emit(True)
        return True

    def _said_of(self, preview: Preview) -> str:
        if preview.mask.any():
            return f"Predicted quality {preview.quality:.2f}. Enter accepts, Escape clears."
        if is_blank(self._session.volume, preview.view):
            return "No voxel of this slice has a number: there is nothing to find. Escape clears."
        return "The proposed mask is empty. Add a box or a click; Escape clears."

    def tell(self, text: str) -> None:
        """Say something that holds as long as this slice and these prompts are looked at."""
        self._told = text
        self.status.emit(text)

    def _withdraw(self) -> None:
        if self._told is not None:
            text, self._told = self._told, None
            self.withdrawn.emit(text)

    def _on_served(self, job: Job) -> None:
        if job is not self._serving:
            return
        self._serving = None
        if self._serve():
            return
        self.answering.emit(False)
        self.ahead.go_on()

    def _on_objects(self, *_: Any) -> None:
        was_serving = self._serving
        self.answer()
        if self._serving is not was_serving and self._waits:
            self._prompted.emit()

    @contextmanager
    def without_waiting(self) -> Iterator[None]:
        """What else a change of prompts brings takes long enough: draw it before the model has answered."""
        self._waits = False
        try:
            yield
        finally:
            self._waits = True

    def _await_answer(self) -> None:
        if self._serving is not None:
            self._serving.deliver_within(max(0.0, self._asked_at + _PATIENCE_SECONDS - time.monotonic()))

    def _on_window(self, *_: Any) -> None:
        """The model sees something else now."""
        if self._session.preview is not None or self._serving is not None:
            self.answer()
        self.ahead.renew()

    def hold(self, held: bool) -> None:
        """Keep from embedding ahead while carrying needs the processor, and from speaking of open prompts."""
        self._is_held = held
        self.ahead.hold(held)

    def _drop_serving(self) -> None:
        self._gives_up.set()
        self._drop(self._serving)
        self._serving = None
        self.ahead.go_on()

    @staticmethod
    def _drop(job: Job | None) -> None:
        if job is not None:
            job.discard()

    def stop(self) -> None:
        """Let go of everything; for the end of the widget."""
        self.ahead.stop()
        self._drop(self._loading)
        self._drop_serving()
        self._waiting.clear()
