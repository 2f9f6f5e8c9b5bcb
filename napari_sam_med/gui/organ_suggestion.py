"""Says which organ a proposed mask looks like, once it is shown, and takes it for that organ on demand."""

from __future__ import annotations

from qtpy.QtCore import QObject, QTimer, Signal

from napari_sam_med.errors import SamMedError
from napari_sam_med.gui.live_model import LiveModel
from napari_sam_med.gui.settings import Settings
from napari_sam_med.gui.workers import Job, Workers
from napari_sam_med.session import organ_suggestion
from napari_sam_med.session.jobs import ModelView
from napari_sam_med.session.organ_suggestion import Suggestion, accept_as, organ_called
from napari_sam_med.session.session import Preview, Session

__all__ = ["OrganSuggesting"]

_REST_MS = 120
"""A mask is looked at when no other one follows at once: the next click goes first."""
_PATIENCE_MS = 20_000
"""The first guess loads the classifier and its model; nobody waits longer for what Enter does at once."""
_REMEDY = "Enter accepts a mask as the chosen organ."
_NO_GUESS = "No organ is suggested here."


class OrganSuggesting(QObject):
    """Asks the bundled classifier about each preview that stays for a moment; renames nothing by itself.

    Attributes
    ----------
    found : Suggestion or None
        For the preview at hand; None where there is none, or nothing sure enough.

    Signals
    -------
    changed
        `found` is another one.
    status : str
    failed : Exception
    """

    changed = Signal()
    status = Signal(str)
    failed = Signal(object)

    def __init__(
        self,
        session: Session,
        workers: Workers,
        model: LiveModel,
        settings: Settings,
        parent: QObject | None = None,
    ) -> None:
        super().__init__(parent)
        self._session, self._workers, self._model, self._settings = session, workers, model, settings
        self.found: Suggestion | None = None
        self._job: Job | None = None
        self._rest = QTimer(self)
        self._rest.setSingleShot(True)
        self._rest.setInterval(_REST_MS)
        self._rest.timeout.connect(self._ask)
        self._patience = QTimer(self)
        self._patience.setSingleShot(True)
        self._patience.setInterval(_PATIENCE_MS)
        self._patience.timeout.connect(lambda: self._end_waiting("No guess came in time."))
        self._is_waiting = False
        session.events.preview.connect(self._on_preview)

    @property
    def is_on(self) -> bool:
        """Whether organs are suggested."""
        return self._settings.suggests_organs

    def switch(self, is_on: bool) -> None:
        """Suggest organs, or do not any more; remembered."""
        self._settings.remember(suggests_organs=is_on)
        self._on_preview(self._session.preview)

    @property
    def is_another(self) -> bool:
        """Whether the suggestion is another organ than the one that was prompted for."""
        active = self._session.active_object
        if self.found is None or active is None:
            return False
        return self._session.organs.name_of(active.class_id).casefold() != self.found.name.casefold()

    @property
    def text(self) -> str:
        """The suggestion in words; empty where there is none."""
        if self.found is None:
            return ""
        told = f"Looks like: {self.found.name} {self.found.probability * 100:.0f} %"
        return f"{told}. Shift-Enter takes it" if self.is_another else told

    def accept(self) -> None:
        """Accept the preview as the suggested organ, which is made where it is missing; says what came of it.

        A guess that is still on its way is waited for, but not for long; Escape, Enter, and whatever changes
        the mask or leaves the slice, end that.
        """
        preview = self._session.preview
        if preview is None:
            self.status.emit(f"There is no proposal to accept. {_REMEDY}")
        elif self.found is not None:
            self._accept_as(self.found, preview)
        elif self._rest.isActive() or self._job is not None:
            self._is_waiting = True
            self._patience.start()
            self._model.tell("Waiting for the guess which organ this is, to accept it as that (Esc: do not)…")
        else:
            self.status.emit(f"{_NO_GUESS} {_REMEDY}")

    def _accept_as(self, found: Suggestion, preview: Preview) -> None:
        organ = organ_called(found.name, self._session.organs)
        try:
            accept_as(self._session, organ)
        except SamMedError as error:
            self.failed.emit(error)
            return
        name = f"{organ.name[:1].upper()}{organ.name[1:]}"
        self.status.emit(f"{name} accepted on slice {preview.view.index}. G carries it on.")

    def give_up_waiting(self) -> bool:
        """Let the mask be when its guess comes; answers whether it was waited for."""
        was_waiting = self._is_waiting
        self._end_waiting("The mask is not accepted, and still proposed.")
        return was_waiting

    def _end_waiting(self, why: str = "") -> None:
        self._patience.stop()
        if self._is_waiting and why:
            self.status.emit(f"{why} {_REMEDY}")
        self._is_waiting = False

    def _on_preview(self, preview: Preview | None) -> None:
        self._end_waiting()
        if self._job is not None:
            self._job.discard()
            self._job = None
        self._rest.stop()
        if self.found is not None:
            self.found = None
            self.changed.emit()
        if preview is not None and self.is_on:
            self._rest.start()

    def _ask(self) -> None:
        session, model, preview = self._session, self._model.model, self._session.preview
        if model is None or preview is None or session.volume is None or session.window is None:
            self._end_waiting(_NO_GUESS)
            return
        sight = ModelView(session.volume, session.window, model.predictor, model.store)
        job = self._workers.start(
            organ_suggestion.suggest_organ(sight, preview),
            "suggest organ",
            is_background=True,
            returned=lambda found: self._on_guess(preview, found),
            failed=self._on_failed,
            finished=lambda: self._on_finished(job),
        )
        self._job = job

    def _on_guess(self, preview: Preview, found: Suggestion | None) -> None:
        if self._session.preview is not preview:
            return
        if found is None:
            self._end_waiting(_NO_GUESS)
            return
        self.found = found
        self.changed.emit()
        if self._is_waiting:
            self._end_waiting()
            self._accept_as(found, preview)
        else:
            self._tell(preview)

    def _on_failed(self, error: Exception) -> None:
        self._end_waiting()
        self.failed.emit(error)

    def _on_finished(self, job: Job) -> None:
        if self._job is job:
            self._job = None

    def _tell(self, preview: Preview) -> None:
        """Say it where it is always in sight, in the place of the words about the mask."""
        active, found = self._session.active_object, self.found
        if active is not None and found is not None and self.is_another:
            name = self._session.organs.name_of(active.class_id)
            self._model.tell(
                f"Quality {preview.quality:.2f}, looks like {found.name} ({found.probability * 100:.0f} %). "
                f"Shift-Enter: {found.name}, Enter: {name}."
            )

    def stop(self) -> None:
        """For the end of the widget."""
        self._rest.stop()
        self._end_waiting()
