"""Says which organ a proposed mask looks like, once it is shown, and takes it for that organ on demand."""

from __future__ import annotations

from qtpy.QtCore import QObject, QTimer, Signal

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
    failed : Exception
    """

    changed = Signal()
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

    def accept(self) -> str | None:
        """Accept the preview as the suggested organ, which is made where it is missing.

        Returns
        -------
        str or None
            Name of the organ; None where nothing is suggested.

        Raises
        ------
        LockedError, PromptError
            As `accept_as`.
        """
        if self.found is None or self._session.preview is None:
            return None
        organ = organ_called(self.found.name, self._session.organs)
        accept_as(self._session, organ)
        return organ.name

    def _on_preview(self, preview: Preview | None) -> None:
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
            return
        sight = ModelView(session.volume, session.window, model.predictor, model.store)

        def returned(found: Suggestion | None) -> None:
            if session.preview is preview and found is not None:
                self.found = found
                self.changed.emit()
                self._tell(preview)

        self._job = self._workers.start(
            organ_suggestion.suggest_organ(sight, preview),
            "suggest organ",
            is_background=True,
            returned=returned,
            failed=self.failed.emit,
        )

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
