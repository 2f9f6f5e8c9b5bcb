"""What the buttons of the Experiments panel do: survey, run, look at an answer, save, open."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from napari.components import ViewerModel
from napari.utils.notifications import notification_manager
from qtpy.QtCore import QObject, Signal

from napari_sam_med.errors import CancelledError, ExportError, ImageError, SamMedError
from napari_sam_med.gui.experiments_filing import ResultFiles
from napari_sam_med.gui.experiments_layers import ExperimentLayers
from napari_sam_med.gui.experiments_source import ExperimentSource, measured
from napari_sam_med.gui.experiments_waiting import Waiting
from napari_sam_med.gui.run_progress import RunProgress
from napari_sam_med.gui.settings import Settings
from napari_sam_med.gui.workers import Job, Workers
from napari_sam_med.progress import Progress
from napari_sam_med.sam.model_registry import MODELS, is_available
from napari_sam_med.session import experiment_jobs
from napari_sam_med.session.experiment_jobs import Begun, Catalogue, ExperimentStep
from napari_sam_med.session.experiment_results import OpenedResults, SavedResults
from napari_sam_med.session.experiments import (
    Choice,
    Laboratory,
    Means,
    Sight,
    named_models,
)
from napari_sam_med.session.jobs import LoadedModel
from napari_sam_med.training.own_models import finished_models

if TYPE_CHECKING:
    from napari.layers import Labels

    from napari_sam_med.evaluation.measuring import SliceScore
    from napari_sam_med.gui.actions import Actions
    from napari_sam_med.gui.widget import SamMedWidget

__all__ = ["Experiments", "offered_models"]

_MOST_WARNINGS = 3
"""In the line at the end of a run."""


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
    files : ResultFiles
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
        self.files = ResultFiles(self.workers, self)
        self._loaded: dict[str, LoadedModel] = {}
        self._loaded_on = ""
        self._hidden: Labels | None = None
        self._steps = RunProgress()
        self._job: Job | None = None
        self._models: dict[str, str] = {}
        self._warnings: list[str] = []
        self._has_begun = self._has_failed = self._is_stopped = False
        self._more_models: list[str] = []
        self._looking: Job | None = None
        self._to_look_at: Sight | None = None
        self._waiting = Waiting(self.main_actions, lambda: self._looking is not None, self)
        self.lab.events.sight.connect(self._on_sight)
        self.data.changed.connect(self.changed)
        self.data.status.connect(self.status)
        self.data.failed.connect(self.show_error)
        self.files.changed.connect(self.changed)
        self.files.progress.connect(self.progress)
        self.files.status.connect(self.status)
        self.files.failed.connect(self.show_error)
        self.files.opened.connect(self._on_opened)
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

    def main_widget(self) -> SamMedWidget | None:
        """The SAM Med widget of this viewer; None where there is none."""
        from napari_sam_med.gui.widget import SamMedWidget  # it imports us, for its button

        viewer = self.layers.viewer
        return None if viewer is None else SamMedWidget.at_work_on(viewer)

    def main_actions(self) -> Actions | None:
        """What it does; None where there is none."""
        widget = self.main_widget()
        return None if widget is None else widget.actions_

    @property
    def device(self) -> str:
        """Where models run."""
        actions = self.main_actions()
        return Settings.load().device if actions is None else actions.session.device

    def _loaded_models(self) -> dict[str, LoadedModel]:
        if self.device != self._loaded_on:
            self._loaded.clear()
            self._loaded_on = self.device
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

        # boxes of a detector may be a folder of volumes: the run reads them
        strategies = parse_strategies(choice.strategies, reads_files=False) if choice.strategies else []
        return None if survey is None else survey.count(choice, strategies)

    # the run

    @property
    def is_running(self) -> bool:
        """Whether something is measured."""
        return self._job is not None

    @property
    def is_stopping(self) -> bool:
        """Whether what is under way ends as soon as its step does."""
        return self.files.is_stopping or (self._job is not None and self._job.was_cancelled)

    def start(self) -> None:
        """Measure what is chosen; earlier results stay until the first answer is there.

        Raises
        ------
        ImageError, LabelError, ModelError, PromptError
            When nothing can be measured like that.
        """
        if self._job is not None or self.files.is_busy:
            return
        choice = self.lab.choice
        if self.data.image is None:
            raise ImageError("There is no image to measure on; open a scan, or choose an image layer.")
        if self.data.labels is None:
            raise ImageError(
                "There are no labels to compare with; open a label file or choose a labels layer."
            )
        choice.check()
        self.estimate()  # refuses a strategy that cannot be
        self._models, self._warnings = named_models(choice.models), []
        self._has_begun = self._has_failed = self._is_stopped = False
        self._steps = RunProgress()
        self._job = self.workers.start(
            measured(self.data.image, self.data.labels, choice, self.device, self._loaded_models()),
            "experiment",
            is_background=True,
            yielded=self._on_step,
            failed=self._on_failed,
            finished=self._on_finished,
        )
        self._waiting.begin(self._job)
        self.progress.emit("beginning", 0.0)
        self.changed.emit()

    def cancel(self) -> None:
        """End the run, what was measured stays; or what is saved or opened."""
        self.files.cancel()
        if self._job is not None:
            self._job.cancel()
            self.progress.emit("stopping", 0.0)
            self.changed.emit()

    def _on_step(self, step: ExperimentStep) -> None:
        self._warnings += step.warnings
        for warning in step.warnings:
            self.status.emit(warning)
        if step.loaded is not None:
            self._loaded.update([step.loaded])
        if step.begun is not None:
            self._begin(step.begun)
        if self._has_begun:
            self.lab.warnings = list(self._warnings)
            self.lab.run["model_sha256"] = self.lab.run.get("model_sha256", {}) | self._hashes()
        self.lab.add(step.scores, step.baselines)
        if step.means is not None:
            self.lab.means = step.means
        if not self.is_stopping:
            share = step.progress.fraction if step.progress.total else 0.0
            self.progress.emit(self._told(step.progress), share)

    def _begin(self, begun: Begun) -> None:
        self._has_begun = True
        self.layers.remove()
        self.files.forget()
        self.lab.start(begun.source, self._models, begun.run)

    def _hashes(self) -> dict[str, str]:
        """Which weights have answered so far, by the names of the models."""
        own = {name: self._loaded.get(model) for name, model in self._models.items()}
        return {name: loaded.predictor.model_hash for name, loaded in own.items() if loaded is not None}

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
        was_cancelled = self._job is not None and self._job.was_cancelled
        self._job = None
        self._waiting.end()
        if not self._has_failed:
            self.status.emit(self._told_at_the_end(was_cancelled))
        if self._has_begun and (was_cancelled or self._has_failed):
            self._sum_up()
        self.progress.emit("", 0.0)
        self.changed.emit()
        self.finished.emit()

    def _told_at_the_end(self, was_cancelled: bool) -> str:
        count = len(self.lab.scores)
        if not self._has_begun:
            return f"Stopped before the first answer.{' The earlier results stay.' if count else ''}"
        said = f"Stopped after {count} answers; they stay." if was_cancelled else f"{count} answers."
        told = [said, "Click a row or a point to see it on its slice.", *self._warnings[:_MOST_WARNINGS]]
        left = len(self._warnings) - _MOST_WARNINGS
        return " ".join([*told, f"And {left} more such lines, in the report."] if left > 0 else told)

    def _sum_up(self) -> None:
        """Means of what there is, where a run did not come to its end."""
        own = self.lab.scores

        def returned(means: Means) -> None:
            if self.lab.scores is own:  # else something else was begun meanwhile
                self.lab.means = means

        self.workers.start(
            experiment_jobs.sum_up(list(own), list(self.lab.baselines), self.lab.run["protocol"]),
            "means",
            returned=returned,
            failed=self.show_error,
        )

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
            is_missed = score.strategy.startswith("boxes:")
            self.status.emit(
                "No box was found there, so the answer is empty."
                if is_missed
                else "No prompt was noted for that answer, so its mask is not drawn."
            )
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
            self._waiting.look()

        self._looking = self.workers.start(
            experiment_jobs.look_again(sight, model, self.device, self._loaded_models().get(model)),
            "look",
            yielded=lambda loaded: self._loaded.update({model: loaded}),
            returned=self._on_seen,
            failed=self.show_error,
            finished=finished,
        )
        self._waiting.look()

    def _on_seen(self, sight: Sight) -> None:
        if self.lab.chosen is sight.score:
            self.lab.sight = sight
            if sight.is_changed:
                self.status.emit(
                    "What is drawn is another answer than was measured: the model, the scan or the labels "
                    "have changed since."
                )

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
        return self.files.is_busy

    def save(self, folder: Path) -> None:
        """Write results and report into a folder.

        Raises
        ------
        ExportError
            When there are no results, or other ones lie in that folder.
        """
        if self.is_running:
            raise ExportError("A run is under way; wait for it or cancel it, then save.")
        lab = self.lab
        loaded = self._loaded_models()
        models = {name: loaded[model] for name, model in lab.models.items() if model in loaded}
        source = lab.source or self.data.source
        study = None if lab.means is None else lab.means.study
        self.files.save(
            folder,
            SavedResults(
                list(lab.scores),
                list(lab.baselines),
                dict(lab.run),
                source,
                models,
                tuple(lab.warnings),
                study,
            ),
        )

    def open(self, folder: Path, more_models: Sequence[str] = ()) -> None:
        """Look at the results of a folder, in the place of those there are.

        Raises
        ------
        ExportError
            When a run is under way.
        """
        if self.is_running:
            raise ExportError("A run is under way; wait for it or cancel it, then open other results.")
        self._more_models = list(more_models)
        self.files.open(folder)

    def _on_opened(self, found: OpenedResults) -> None:
        self.layers.remove()
        models = named_models([*offered_models(), *self._more_models])
        self.lab.start(None, models, found.run, found.warnings)
        self.lab.add(found.scores, found.baselines)
        self.lab.means = found.means
        self.status.emit(f'{len(found.scores)} answers from "{found.folder.name}".')
        self.finished.emit()

    # the end

    def stop(self, *, waits: bool = True) -> None:
        """Cancel what runs, take our layers away and let go of models and results; safe to call twice.

        Parameters
        ----------
        waits : bool
            Wait for the threads, as the application may end now.
        """
        if self._is_stopped:
            return
        self._is_stopped = True
        self.show_labels(True)
        self._waiting.end()
        self.workers.stop(waits=waits)
        self._job = self._looking = self._to_look_at = None
        self.layers.detach()
        self.data.stop()
        self._loaded.clear()
        self.lab.let_go()
