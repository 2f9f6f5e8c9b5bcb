"""The video model that masks may be carried with: which one is chosen, loaded when it is first used."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtCore import QObject, Signal

from napari_sam_med.gui.workers import Job, Workers
from napari_sam_med.segmentation.video_extra import model_path
from napari_sam_med.session import video_engine
from napari_sam_med.session.session import Session

if TYPE_CHECKING:
    from napari_sam_med.segmentation.video_propagation import VideoPropagator

__all__ = ["VideoEngine"]


class VideoEngine(QObject):
    """One video model at most; it stays loaded while slices are carried without it.

    Signals
    -------
    status : str
    failed : Exception
    changed
        Another path is chosen, or the chosen one is loaded, or could not be and is given up.
    """

    status = Signal(str)
    failed = Signal(object)
    changed = Signal()

    def __init__(self, session: Session, workers: Workers, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._session = session
        self._workers = workers
        self._path: Path | None = None
        self._last_good: Path | None = None
        self._loaded: tuple[tuple[Path | None, str], VideoPropagator] | None = None
        self._loading: Job | None = None
        self._waiting: Callable[[VideoPropagator], None] | None = None

    @property
    def path(self) -> Path | None:
        """File or folder of the chosen model; None when slices are carried without one."""
        return self._path

    @property
    def engine(self) -> VideoPropagator | None:
        """The chosen model on the chosen device, None while it is not loaded."""
        if self._loaded is None or self._loaded[0] != self._wanted:
            return None
        return self._loaded[1]

    @property
    def name(self) -> str | None:
        """Of the chosen model; None while it is not loaded."""
        return None if self.engine is None else str(self.engine.record.name)

    @property
    def _wanted(self) -> tuple[Path | None, str]:
        return self._path, self._session.device

    def choose(self, path: Path | None) -> None:
        """Carry with this model from now on, or without one; it is loaded, and what waits for one is dropped.

        A model that cannot be loaded is given up for the choice before it.
        """
        self.drop_waiting()
        if self._loading is not None:
            self._loading.discard()
            self._loading = None
        self._path = None if path is None else model_path(path)
        self.changed.emit()
        if self._path is None or self.engine is not None:
            self._accept_choice()
        else:
            self._load()

    def with_engine(self, use: Callable[[VideoPropagator], None]) -> None:
        """Call back with the chosen model: now, or as soon as it is loaded."""
        engine = self.engine
        if engine is not None:
            use(engine)
            return
        self._waiting = use
        if self._loading is None:
            self._load()
        else:
            self._say()

    def drop_waiting(self) -> None:
        """Call nobody back; the model goes on loading."""
        self._waiting = None

    def _load(self) -> None:
        wanted = self._wanted
        assert wanted[0] is not None  # without a model there is nothing to load
        self._loading = self._workers.start(
            video_engine.load_video_engine(*wanted),
            "load video model",
            yielded=lambda _: self._say(),
            returned=lambda engine: self._on_loaded(wanted, engine),
            failed=self._on_failed,
        )

    def _say(self) -> None:
        name = "" if self._path is None else self._path.name
        then = "…" if self._waiting is None else "; the mask is carried when it is there."
        self.status.emit(f"Loading {name}{then}")

    def _on_loaded(self, wanted: tuple[Path | None, str], engine: VideoPropagator) -> None:
        self._loading = None
        self._loaded = wanted, engine
        self._accept_choice()
        waiting, self._waiting = self._waiting, None
        if waiting is None:
            self.status.emit(f"{engine.record.title} is ready: G carries with it.")
        else:
            self.with_engine(waiting)  # loads anew if another device was chosen meanwhile

    def _accept_choice(self) -> None:
        self._last_good = self._path
        self.changed.emit()

    def _on_failed(self, error: Exception) -> None:
        self._loading = self._waiting = None
        self._path = self._last_good
        self.changed.emit()
        self.failed.emit(error)
