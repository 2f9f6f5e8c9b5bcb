"""Learning from the user's own volumes: the estimate, the run, and what came of it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from qtpy.QtCore import QObject, QTimer, Signal

from napari_sam_med.errors import ExportError, ModelError
from napari_sam_med.gui.run_progress import RunProgress
from napari_sam_med.gui.training_cases import TrainingCases
from napari_sam_med.gui.workers import Job
from napari_sam_med.sam.model_registry import MODELS, is_available
from napari_sam_med.session import learning
from napari_sam_med.training import own_models
from napari_sam_med.training.own_models import Plan

if TYPE_CHECKING:
    from napari_sam_med.gui.actions import Actions
    from napari_sam_med.training.recipes import Recipe
    from napari_sam_med.training.tuning_cost import CostStep, TuningCost
    from napari_sam_med.training.tuning_run import TuningStep

__all__ = ["Learning"]

_STOPPING = "stopping"


class Learning(QObject):
    """One run at a time, in the background; a prompt, a propagation and a search go first.

    Attributes
    ----------
    cases : TrainingCases
    recipes : list of Recipe
        Empty until `look_up` was called and has answered.
    cost : TuningCost or None
        Of the choice at hand; None until it was asked for.
    output : Path or None
        Folder of the model that is shown: of the run under way; else of the one made or chosen last.
    curve : list of (int, float, float)
        Epoch, Dice on what is learned from and on what is held out, of that model.
    card : dict
        What came of it; empty while there is nothing to show.
    unfinished : Plan or None
        A run that was stopped and can be gone on with.

    Signals
    -------
    changed
        Cases, recipes, cost, state or what is shown.
    progress : str, float
        What is done, and its share 0..1.
    finished
        A model was made.
    """

    changed = Signal()
    progress = Signal(str, float)
    finished = Signal()

    _under_way: ClassVar[dict[Path, Job]] = {}
    """Runs of all windows, by folder."""

    def __init__(self, actions: Actions) -> None:
        super().__init__(actions)
        self._actions = actions
        self.cases = TrainingCases(actions, self)
        self.recipes: list[Recipe] = []
        self.cost: TuningCost | None = None
        self.curve: list[tuple[int, float, float]] = []
        self.epochs = 1
        self.card: dict[str, Any] = {}
        self.output: Path | None = None
        self.unfinished: Plan | None = self._stopped_plan()
        self._share = 0.0
        self._has_failed = False
        self._job: Job | None = None
        self._trial: Job | None = None
        self._steps = RunProgress()
        # not at once: a click is seldom alone, and the processor is the user's meanwhile
        self._resume = QTimer(self)
        self._resume.setSingleShot(True)
        self._resume.setInterval(400)
        self._resume.timeout.connect(self._go_on)
        actions.model.answering.connect(self._make_way)
        actions.carrying.progress.connect(self._make_way)
        actions.finding.progress.connect(self._make_way)
        actions.session.events.model.connect(self._on_model)
        self.cases.changed.connect(self._on_cases)
        self.cases.counted.connect(self.changed)
        self._show_chosen()

    @property
    def is_running(self) -> bool:
        """Whether a model is being trained."""
        return self._job is not None

    @property
    def is_stopping(self) -> bool:
        """Whether the run ends as soon as its step does."""
        return self._job is not None and self._job.was_cancelled

    @property
    def is_estimating(self) -> bool:
        """Whether it is being measured what a run will take."""
        return self._trial is not None

    def look_up(self) -> None:
        """Find the recipes and count labelled slices, if that was not done yet."""
        if not self.recipes:
            self._actions.workers.start(
                learning.recipes(), "recipes", returned=self._on_recipes, failed=self._actions.show_error
            )
        self.cases.count()

    def _on_recipes(self, recipes: list[Recipe]) -> None:
        self.recipes = recipes
        self.changed.emit()

    # what it takes

    def plan(self, name: str, recipe: str, epochs: int, views: int) -> Plan:
        """What is to be done with the cases and the model at hand.

        Raises
        ------
        ImageError, LabelError, ModelError, ExportError
            When that cannot be done.
        """
        session = self._actions.session
        self.cases.check()
        if session.model in MODELS and not is_available(session.model):
            raise ModelError(f"{MODELS[session.model].title} is not on this computer yet; press Download.")
        return Plan(
            tuple(self.cases.listed),
            own_models.model_folder(name),
            session.model,
            session.device,
            recipe,
            epochs,
            views,
        )

    def _on_cases(self) -> None:
        self.cost = None
        self.changed.emit()

    def forget_cost(self) -> None:
        """The choice has changed: what was measured does not hold any more."""
        if self.cost is not None:
            self.cost = None
            self.changed.emit()

    def estimate(self, plan: Plan) -> None:
        """Measure what a plan will take."""
        if self._trial is not None or self._job is not None:
            return

        def finished() -> None:
            self._trial = None
            self._tell_nothing()

        self.cost = None
        self._trial = self._actions.workers.start(
            learning.cost_of(plan),
            "estimate",
            is_background=True,
            yielded=self._on_cost_step,
            failed=self._actions.show_error,
            finished=finished,
        )
        self.progress.emit("measuring what it takes", 0.0)
        self.changed.emit()

    def _on_cost_step(self, step: CostStep) -> None:
        self.progress.emit(step.progress.text, step.progress.fraction)
        if step.counts is not None:
            self.cases.note_count(step.counts.case, step.counts.used)
        if step.cost is not None:
            self.cost = step.cost
        self.changed.emit()

    # the run

    def start(self, plan: Plan) -> None:
        """Train; a plan that was stopped goes on where it was.

        Raises
        ------
        ExportError
            When another model, or another run that was stopped, bears that name.
        """
        if self._job is not None:
            return
        name = plan.output.name
        if own_models.is_done(plan.output):
            raise ExportError(f'There is a model "{name}" already; give the new one another name.')
        kept = own_models.read_plan(plan.output)
        if kept is not None and _what(kept) != _what(plan):
            raise ExportError(
                f'"{name}" is another run that was stopped; go on with it, discard it, or take another name.'
            )
        if self._is_under_way(plan.output):
            raise ExportError(f'"{name}" is being trained in another window already; wait for it.')
        try:
            plan.output.mkdir(parents=True, exist_ok=True)  # from now on its name is taken
        except OSError as error:
            raise ExportError(
                f"The folder {plan.output} cannot be made: {error.strerror}; make room for it."
            ) from error
        self._has_failed = False
        self.output, self.card = plan.output, {}
        self.curve = own_models.read_curves(plan.output)
        recipe = next((r for r in self.recipes if r.name == plan.recipe), None)
        self.epochs = plan.epochs or (1 if recipe is None else recipe.epochs)
        self._steps = RunProgress()
        self.unfinished = plan
        is_remembered = not self._actions.settings.keeps_nothing
        self._job = self._actions.workers.start(
            learning.learn(plan, is_remembered=is_remembered),
            "learn",
            is_background=True,
            yielded=self._on_step,
            failed=self._on_failed,
            finished=lambda: self._on_finished(plan),
        )
        self._under_way[plan.output] = self._job
        self.progress.emit("beginning", 0.0)
        self._make_way()
        self.changed.emit()

    def stop(self) -> None:
        """End the run; what was learned up to its last whole epoch stays, and can be gone on with."""
        if self._job is not None:
            self._job.cancel()
            self.progress.emit(_STOPPING, self._share)
            self.changed.emit()
        if self._trial is not None:
            self._trial.cancel()

    def discard(self) -> None:
        """Remove the run that was stopped."""
        plan = self.unfinished
        if plan is not None and self._job is None:
            self._actions.attempt(lambda: self._discard(plan))

    def _discard(self, plan: Plan) -> None:
        name = plan.output.name
        if self._is_under_way(plan.output):
            raise ExportError(f'"{name}" is being trained in another window, and was not discarded.')
        own_models.discard_run(plan.output)
        self.unfinished = self._stopped_plan()
        self.curve, self.output = [], None
        self._show_chosen()
        self._actions.status.emit(f'"{name}" was discarded; its volumes and labels stay.')
        self.changed.emit()

    def _is_under_way(self, folder: Path) -> bool:
        """Whether a model is being trained into a folder, in whatever window."""
        job = self._under_way.get(folder)
        return job is not None and job.is_running

    def _stopped_plan(self) -> Plan | None:
        plan = own_models.unfinished_plan()
        return None if plan is None or self._is_under_way(plan.output) else plan

    def _on_step(self, step: TuningStep) -> None:
        if step.warning:  # it is worded for the command line
            self._actions.tell(
                "The volumes, their labels or the model have changed since the run was stopped, so training "
                "begins anew."
            )
        if step.epoch is not None:
            point = (step.epoch.number, step.epoch.train_dice, step.epoch.score)
            self.curve = [p for p in self.curve if p[0] < point[0]] + [point]
        if step.card is not None:
            self.card = step.card
        if not self.is_stopping:
            is_learning = bool(self.curve) and step.progress.text.startswith(("epoch", "model"))
            dice = f" · Dice {self.curve[-1][2]:.3f}" if is_learning else ""
            self._share = step.progress.fraction
            self.progress.emit(
                self._steps.text(step.progress, self.epochs) + dice + self._steps.left(step.progress),
                self._share,
            )
        if step.epoch is not None or step.card is not None:
            self.changed.emit()

    def _on_failed(self, error: Exception) -> None:
        self._has_failed = True
        self._actions.show_error(error)

    def _on_finished(self, plan: Plan) -> None:
        self._job = None
        self._resume.stop()
        self._under_way.pop(plan.output, None)
        name = plan.output.name
        if self.card:
            self.unfinished = self._stopped_plan()
            gain = "" if self.card["improved"] else " No epoch was better than the model as it was."
            self._actions.status.emit(f'"{name}" is ready.{gain} Not for clinical use.')
            self.finished.emit()
        elif not self._has_failed:  # else what was said of that matters more
            done = self.curve[-1][0] if self.curve else 0
            self._actions.status.emit(f'"{name}" was stopped after epoch {done}. "Go on" continues there.')
        self._tell_nothing()

    def _tell_nothing(self) -> None:
        self.progress.emit("", 0.0)
        self.changed.emit()

    # others go first

    def _make_way(self, *_: object) -> None:
        """Wait between two steps while a prompt is answered, masks are carried or objects looked for."""
        actions = self._actions
        is_wanted = actions.model.is_answering or actions.carrying.is_busy or actions.finding.is_busy
        for job in (self._job, self._trial):
            if job is not None and is_wanted:
                job.pause()
        if is_wanted:
            self._resume.stop()
        else:
            self._resume.start()

    def _go_on(self) -> None:
        for job in (self._job, self._trial):
            if job is not None:
                job.resume()

    # what came of it

    @property
    def is_used(self) -> bool:
        """Whether prompts are answered by the model that is shown."""
        return self.output is not None and _folder_of(self._actions.session.model) == self.output

    def use_model(self) -> None:
        """Answer prompts with the model that is shown."""
        if self.output is not None:
            self._actions.choose_model(str(self.output))
            self._actions.status.emit(f'Prompts are answered by "{self.output.name}" now.')

    @property
    def base(self) -> tuple[str, str]:
        """What to load the model by that the one shown was made of, and its title; empty where it is gone."""
        name = str(self.card.get("base", {}).get("model", ""))
        if name in MODELS:
            return name, MODELS[name].title
        own = [folder for folder in own_models.finished_models() if folder.name == name]
        return (str(own[0]), f'"{name}"') if own else ("", "")

    def use_base(self) -> None:
        """Go back to the model that the one shown was made of."""
        model, title = self.base
        if model:
            self._actions.choose_model(model)
            self._actions.status.emit(f"Prompts are answered by {title} again.")

    def free_name(self) -> str:
        """A name for a model that is made of the chosen one."""
        model = self._actions.session.model
        name = model if model in MODELS else Path(model).stem
        return own_models.free_name(re.sub(r"^my (.+?)( \d+)?$", r"\1", name))

    def _on_model(self, *_: object) -> None:
        self.cost = None
        self._show_chosen()
        self.changed.emit()

    def _show_chosen(self) -> None:
        """Show how the chosen model was trained, where it is one that was, and no run is under way."""
        folder = _folder_of(self._actions.session.model)
        if self._job is not None or folder is None or (self.card and folder == self.output):
            return
        card = own_models.read_card(folder)
        is_told = _is_told(card)
        self.output, self.card = (folder, card) if is_told else (None, {})
        self.curve = own_models.read_curves(folder) if is_told else []
        self.epochs = max((point[0] for point in self.curve), default=1)


def _folder_of(model: str) -> Path | None:
    """The folder of a model that is given by its path, or by that of its weights."""
    if model in MODELS:
        return None
    path = Path(model)
    return path.parent if path.suffix == ".safetensors" else path


def _is_told(card: dict[str, Any]) -> bool:
    """Whether a card says what came of a training, in the form that is shown."""
    try:
        return bool(list(own_models.score_rows(card))) and {"improved", "scored_on", "base"} <= card.keys()
    except (KeyError, TypeError, AttributeError, ValueError):
        return False


def _what(plan: Plan) -> tuple[object, ...]:
    """What decides whether two plans are one and the same run."""
    cases = tuple((c.image_path.resolve(), c.labels_path.resolve(), c.split, c.names) for c in plan.cases)
    return cases, plan.model, plan.recipe, plan.epochs, plan.views
