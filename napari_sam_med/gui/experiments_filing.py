"""Results of the Experiments panel on disk: saved and opened in the background, one at a time."""

from __future__ import annotations

from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

from qtpy.QtCore import QObject, Signal

from napari_sam_med.errors import ExportError
from napari_sam_med.gui.workers import Job, Workers
from napari_sam_med.progress import Progress
from napari_sam_med.session import experiment_results
from napari_sam_med.session.experiment_results import OpenedResults, SavedResults

__all__ = ["ResultFiles"]


class ResultFiles(QObject):
    """Saves and opens.

    Signals
    -------
    changed
        Whether something is written or read.
    progress : str, float
        What is done, and its share 0..1.
    status : str
    failed : Exception
    opened : OpenedResults
    """

    changed = Signal()
    progress = Signal(str, float)
    status = Signal(str)
    failed = Signal(object)
    opened = Signal(object)

    def __init__(self, workers: Workers, parent: QObject) -> None:
        super().__init__(parent)
        self._workers = workers
        self._job: Job | None = None
        self._own: set[Path] = set()

    @property
    def is_busy(self) -> bool:
        """Whether results are being written or read."""
        return self._job is not None

    @property
    def is_stopping(self) -> bool:
        """Whether that ends as soon as its step does."""
        return self._job is not None and self._job.was_cancelled

    def forget(self) -> None:
        """Other results begin: what was saved so far is not theirs to replace."""
        self._own.clear()

    def save(self, folder: Path, results: SavedResults) -> None:
        """Write results and report into a folder.

        Raises
        ------
        ExportError
            When there are no results, or other ones lie in that folder.
        """
        if not results.scores:
            raise ExportError("There are no finished results to save; run something first.")
        if (folder / "results.csv").exists() and folder not in self._own:
            raise ExportError(
                f'The folder "{folder.name}" holds results already, which would be lost; choose an empty '
                "folder."
            )

        def returned(path: Path) -> None:
            self.status.emit(f"Saved: {path}")

        if self._job is None:
            self._own.add(folder)  # now: a run that begins meanwhile must not find it among its own
            self._start(
                experiment_results.save_results(folder, results),
                returned,
                "Stopped. The report was not written; save into the same folder to have it.",
            )

    def open(self, folder: Path) -> None:
        """Read the results of a folder."""
        if self._job is None:
            self._start(experiment_results.open_results(folder), self._on_opened, "Stopped.")

    def cancel(self) -> None:
        """End what is under way."""
        if self._job is not None:
            self._job.cancel()
            self.progress.emit("stopping", 0.0)
            self.changed.emit()

    def _on_opened(self, found: OpenedResults) -> None:
        self.forget()
        self.opened.emit(found)

    def _start(self, job: Generator[Any, None, Any], returned: Callable[[Any], None], stopped: str) -> None:
        def yielded(progress: Progress) -> None:
            if not self.is_stopping:
                self.progress.emit(progress.text, progress.fraction)

        def finished() -> None:
            if self.is_stopping and not has_returned:
                self.status.emit(stopped)
            self._job = None
            self.changed.emit()

        def on_returned(result: Any) -> None:
            has_returned.append(True)
            returned(result)

        has_returned: list[bool] = []
        self._job = self._workers.start(
            job,
            "results",
            yielded=yielded,
            returned=on_returned,
            failed=self.failed.emit,
            finished=finished,
        )
        self.changed.emit()
