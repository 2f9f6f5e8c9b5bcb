"""What the buttons of the Experiments panel do: survey, run, look at an answer, save, open."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari.components import ViewerModel
from napari.utils.notifications import notification_manager
from qtpy.QtCore import QObject, QTimer, Signal

from napari_sam_med.errors import CancelledError, ExportError, ImageError, SamMedError
from napari_sam_med.gui.experiments_layers import ExperimentLayers
from napari_sam_med.gui.experiments_source import ExperimentSource
from napari_sam_med.gui.run_progress import RunProgress
from napari_sam_med.gui.scan_loading import labels_of_layer
from napari_sam_med.gui.settings import Settings
from napari_sam_med.gui.workers import Job, Workers
from napari_sam_med.progress import Progress
from napari_sam_med.sam.model_registry import MODELS, is_available
from napari_sam_med.session import experiment_jobs, experiment_results
from napari_sam_med.session.experiment_jobs import (
    Catalogue,
    ExperimentStep,
    Request,
)
from napari_sam_med.session.experiment_results import OpenedResults, SavedResults
from napari_sam_med.session.experiments import (
    Choice,
    Laboratory,
    Means,
    Sight,
    Source,
    named_models,
)
from napari_sam_med.session.jobs import LoadedModel
from napari_sam_med.training.own_models import finished_models
from napari_sam_med.volume.labels import LabelVolume
from napari_sam_med.volume.volume import Volume

if TYPE_CHECKING:
    from napari.layers import Labels

    from napari_sam_med.evaluation.measuring import SliceScore
    from napari_sam_med.gui.actions import Actions

__all__ = ["Experiments", "offered_models"]

_RESUME_MS = 400
"""Rest after a prompt before a run goes on: a click is seldom alone."""


def offered_models() -> dict[str, str]:
    """Models on this computer by what they are loaded by, with what people call them."""
    found = {name: record.title for name, record in MODELS.items() if is_available(name)}
    return found | {str(folder): f"{folder.name}  (your own)" for folder in finished_models()}


class Experiments(QObject):
    """One run at a time, in the background; what the user prompts in the SAM Med widget goes first.

    Attributes
    ----------
    lab : Laboratory
    layers : ExperimentLayers
    data : ExperimentSource
        The layers that are chosen.
    catalogue : Catalogue or None
        None until `look_up` has answered.

    Signals
    -------
    changed
        What is chosen, or whether something runs.
    progress : str, float
        What is done, and its share 0..1.
    status : str
        One line for the user.
    finished
        A run has ended, or results were opened.
    """

    changed = Signal()
    progress = Signal(str, float)
    status = Signal(str)
    finished = Signal()

    def __init__(self, viewer: ViewerModel, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.lab = Laboratory()
        self.layers = ExperimentLayers(viewer)
        self.workers = Workers(self)
        self.catalogue: Catalogue | None = None
        self.data = ExperimentSource(self.lab, self.layers, self.workers, self.main_actions, self)
        self._loaded: dict[str, LoadedModel] = {}
        self._saved: Path | None = None
        self._hidden: Labels | None = None
        self._steps = RunProgress()
        self._job: Job | None = None
        self._looking: Job | None = None
        self._filing: Job | None = None
        self._to_look_at: Sight | None = None
        self._has_failed = False
        self._neighbour: Actions | None = None
        self._resume_timer = _timer(self, _RESUME_MS, self._go_on)
        self.lab.events.sight.connect(self._on_sight)
        self.data.changed.connect(self.changed)
        self.data.status.connect(self.status)
        self.data.failed.connect(self.show_error)
        self.data.choose_likely()

    # saying things

    def show_error(self, error: BaseException) -> None:
        """A user's error becomes one line; a defect of ours keeps its traceback, in napari's own place."""
        if isinstance(error, CancelledError):
            self.status.emit("Cancelled")
        elif isinstance(error, SamMedError):
            self.status.emit(str(error))
        else:
            self.status.emit(f"This is a defect of napari-sam-med: {type(error).__name__}: {error}")
            notification_manager.receive_error(type(error), error, error.__traceback__)

    # the SAM Med widget beside

    def main_actions(self) -> Actions | None:
        """What the SAM Med widget of this viewer does; None where there is none."""
        from napari_sam_med.gui.widget import SamMedWidget  # it imports us, for its button

        viewer = self.layers.viewer
        widget = None if viewer is None else SamMedWidget.at_work_on(viewer)
        return None if widget is None else widget.actions_

    @property
    def device(self) -> str:
        """Where models run."""
        actions = self.main_actions()
        return Settings.load().device if actions is None else actions.session.device

    def _loaded_models(self) -> dict[str, LoadedModel]:
        actions = self.main_actions()
        found = dict(self._loaded)
        if actions is not None and actions.model.model is not None:
            found[actions.session.model] = actions.model.model
        return found

    # what there is to choose

    def look_up(self) -> None:
        """Find the strategies and protocols, if that was not done yet."""
        if self.catalogue is None:
            self.workers.start(
                experiment_jobs.catalogue(),
                "strategies",
                returned=self._on_catalogue,
                failed=self.show_error,
            )

    def _on_catalogue(self, found: Catalogue) -> None:
        self.catalogue = found
        self.changed.emit()

    def choose(self, choice: Choice) -> None:
        """Take what is to be measured."""
        self.lab.choice = choice
        self.data.refresh()
        self.changed.emit()

    def estimate(self) -> tuple[int, int, int] | None:
        """Slices, rows and prompts of the choice; None while that is not known.

        Raises
        ------
        PromptError
            When a strategy cannot be parsed.
        """
        survey, choice = self.lab.survey, self.lab.choice
        if self.catalogue is None:
            return None
        from napari_sam_med.evaluation.prompt_strategies import parse_strategies  # loaded with the catalogue

        strategies = parse_strategies(choice.strategies) if choice.strategies else []
        return None if survey is None else survey.count(choice, strategies)

    # the run

    @property
    def is_running(self) -> bool:
        """Whether something is measured."""
        return self._job is not None

    @property
    def is_stopping(self) -> bool:
        """Whether the run ends as soon as its step does."""
        return self._job is not None and self._job.was_cancelled

    def start(self) -> None:
        """Measure what is chosen.

        Raises
        ------
        ImageError, LabelError, ModelError, PromptError
            When nothing can be measured like that.
        """
        if self._job is not None:
            return
        lab = self.lab
        if self.data.image is None:
            raise ImageError("There is no image to measure on; open a scan, or choose an image layer.")
        if self.data.labels is None:
            raise ImageError(
                "There are no labels to compare with; open a label file or choose a labels layer."
            )
        lab.choice.check()
        self.estimate()  # refuses a strategy that cannot be
        volume = Volume.from_layer(self.data.image)
        labels = labels_of_layer(self.data.labels, volume)
        # painting goes on meanwhile
        copy = LabelVolume(
            labels.data.copy(), labels.grid, labels.organs, header=labels.header, path=labels.path
        )
        copy.organs = copy.organs.covering(copy.class_ids())
        source = Source(volume, copy)
        request = Request(source, lab.choice, self.device, self._loaded_models())
        self.layers.remove()
        names = {} if lab.survey is None else lab.survey.names
        lab.start(source, named_models(lab.choice.models), lab.choice.facts(names))
        self._saved, self._has_failed = None, False
        self._steps = RunProgress()
        self._job = self.workers.start(
            experiment_jobs.run(request),
            "experiment",
            is_background=True,
            yielded=self._on_step,
            failed=self._on_failed,
            finished=self._on_finished,
        )
        self._listen_to_neighbour()
        self.progress.emit("beginning", 0.0)
        self.changed.emit()

    def cancel(self) -> None:
        """End the run; what was measured stays."""
        if self._job is not None:
            self._job.cancel()
            self.progress.emit("stopping", 0.0)
            self.changed.emit()

    def _on_step(self, step: ExperimentStep) -> None:
        for warning in step.warnings:
            self.status.emit(warning)
        if step.loaded is not None:
            self._loaded.update([step.loaded])
        self.lab.add(step.scores, step.baselines)
        if step.means is not None:
            self.lab.means = step.means
        if not self.is_stopping:
            self.progress.emit(self._told(step.progress), step.progress.fraction)

    def _told(self, progress: Progress) -> str:
        if not progress.total:
            return progress.text
        part = Progress(progress.done, progress.total, "answers")  # one part, whatever the texts of the steps
        self._steps.text(part, 0)
        return f"{progress.text}{self._steps.left(part)}"

    def _on_failed(self, error: Exception) -> None:
        self._has_failed = True
        self.show_error(error)

    def _on_finished(self) -> None:
        was_cancelled = self.is_stopping
        self._job = None
        self._resume_timer.stop()
        self._leave_neighbour()
        count = len(self.lab.scores)
        if not self._has_failed:
            said = f"Stopped after {count} answers; they stay." if was_cancelled else f"{count} answers."
            self.status.emit(f"{said} Click a row or a point to see it on its slice.")
        if was_cancelled or self._has_failed:
            self._sum_up()
        self.progress.emit("", 0.0)
        self.changed.emit()
        self.finished.emit()

    def _sum_up(self) -> None:
        """Means of what there is, where a run did not come to its end."""
        scores, baselines = list(self.lab.scores), list(self.lab.baselines)
        if scores:

            def returned(means: Means) -> None:
                if len(self.lab.scores) == len(scores):  # else something else was begun meanwhile
                    self.lab.means = means

            self.workers.start(
                experiment_jobs.sum_up(scores, baselines),
                "means",
                returned=returned,
                failed=self.show_error,
            )

    # others go first

    def _listen_to_neighbour(self) -> None:
        self._neighbour = self.main_actions()
        if self._neighbour is not None:
            self._neighbour.model.answering.connect(self._make_way)
            self._neighbour.carrying.progress.connect(self._make_way)
            self._make_way()

    def _leave_neighbour(self) -> None:
        if self._neighbour is not None:
            with suppress(RuntimeError, TypeError):  # it is gone already
                self._neighbour.model.answering.disconnect(self._make_way)
                self._neighbour.carrying.progress.disconnect(self._make_way)
        self._neighbour = None

    @property
    def _must_wait(self) -> bool:
        beside = self._neighbour
        is_wanted = beside is not None and (beside.model.is_answering or beside.carrying.is_busy)
        return is_wanted or self._looking is not None

    def _make_way(self, *_: object) -> None:
        """Let a run wait between two steps while a prompt is answered or an answer is looked at."""
        if self._job is None:
            return
        if self._must_wait:
            self._resume_timer.stop()
            self._job.pause()
        else:
            self._resume_timer.start()

    def _go_on(self) -> None:
        if self._job is not None and not self._must_wait:
            self._job.resume()

    # one answer

    def look_at(self, score: SliceScore) -> None:
        """Show an answer on its slice.

        Raises
        ------
        ImageError, LabelError
            When it is on another scan than the chosen one, or on other labels.
        """
        source = self.lab.source or self.data.source
        if source is None:
            raise ImageError(
                f'That answer is on the scan "{score.volume}", which is not chosen here; open it and choose '
                'it, with its labels, under "Set up".'
            )
        self._to_look_at = self.lab.look_at(score, source)
        if score.prompts is None and score.strategy:
            self.status.emit("No prompt was noted for that answer, so its mask is not drawn.")
        self._look()

    def _look(self) -> None:
        """Ask for the newest mask that is wanted; one at a time, as an embedding cannot be interrupted."""
        sight = self._to_look_at
        if sight is None or self._looking is not None:
            return
        self._to_look_at = None
        name = sight.score.model
        model = self.lab.models.get(name, name)
        if sight.score.strategy and sight.score.model not in self.lab.models:
            self.status.emit(
                f'The model "{name}" is not on this computer, so only prompt and truth are shown; download '
                "it, or add its file under Set up, Models."
            )
            return

        def finished() -> None:
            self._looking = None
            self._look()
            self._make_way()

        self._looking = self.workers.start(
            experiment_jobs.look_again(sight, model, self.device, self._loaded_models().get(model)),
            "look",
            yielded=lambda loaded: self._loaded.update({model: loaded}),
            returned=self._on_seen,
            failed=self.show_error,
            finished=finished,
        )
        self._make_way()

    def _on_seen(self, sight: Sight) -> None:
        if self.lab.chosen is sight.score:
            self.lab.sight = sight

    def show_labels(self, is_shown: bool) -> None:
        """Show or hide the labels that are compared with; their voxels stay as they are."""
        if self._hidden is not None:
            self._hidden.visible = True
        self._hidden = None if is_shown else self.data.labels
        if self._hidden is not None:
            self._hidden.visible = False

    def _on_sight(self, sight: Sight | None) -> None:
        if sight is not None:
            self.layers.show(sight)

    # results on disk

    @property
    def is_filing(self) -> bool:
        """Whether results are being written or read."""
        return self._filing is not None

    def save(self, folder: Path) -> None:
        """Write results and report into a folder.

        Raises
        ------
        ExportError
            When there are no results, or other ones lie in that folder.
        """
        lab = self.lab
        if not lab.scores or self.is_running:
            raise ExportError("There are no finished results to save; run something first.")
        if (folder / "results.csv").exists() and folder != self._saved:
            raise ExportError(
                f'The folder "{folder.name}" holds other results already, which would be lost; choose an '
                "empty folder."
            )

        def returned(path: Path) -> None:
            self._saved = folder
            self.status.emit(f"Saved: {path}")

        self._file(experiment_results.save_results(folder, self._results()), returned)

    def _results(self) -> SavedResults:
        """What is there to be saved, with what its pictures are drawn of."""
        lab = self.lab
        loaded = self._loaded_models()
        predictors = {name: loaded[model] for name, model in lab.models.items() if model in loaded}
        source = lab.source or self.data.source
        return SavedResults(list(lab.scores), list(lab.baselines), lab.run, source, predictors)

    def open(self, folder: Path, more_models: Sequence[str] = ()) -> None:
        """Look at the results of a folder, in the place of those there are."""
        if self.is_running:
            raise ExportError("A run is under way; wait for it or cancel it, then open other results.")

        def returned(opened: OpenedResults) -> None:
            self.layers.remove()
            self.lab.start(None, named_models([*offered_models(), *more_models]), opened.run)
            self.lab.add(opened.scores, opened.baselines)
            self.lab.means = opened.means
            self._saved = opened.folder
            self.status.emit(f'{len(opened.scores)} answers from "{opened.folder.name}".')
            self.finished.emit()

        self._file(experiment_results.open_results(folder), returned)

    def _file(self, job: Generator[Any, None, Any], returned: Any) -> None:
        def finished() -> None:
            self._filing = None
            self.changed.emit()

        if self._filing is None:
            self._filing = self.workers.start(
                job,
                "results",
                yielded=lambda progress: self.status.emit(f"{progress.text}…"),
                returned=returned,
                failed=self.show_error,
                finished=finished,
            )
            self.changed.emit()

    # the end

    def stop(self) -> None:
        """Cancel what runs and take our layers away; safe to call twice."""
        self.show_labels(True)
        self.data.stop()
        self._resume_timer.stop()
        self._leave_neighbour()
        self.workers.stop()
        self._job = self._looking = self._filing = None
        self.layers.detach()


def _timer(parent: QObject, interval: int, timeout: Any) -> QTimer:
    made = QTimer(parent)
    made.setSingleShot(True)
    made.setInterval(interval)
    made.timeout.connect(timeout)
    return made
