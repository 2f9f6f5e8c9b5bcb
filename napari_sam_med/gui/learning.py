"""Learning from the user's own volumes: the list of cases, the estimate, the run, and what came of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from qtpy.QtCore import QObject, QTimer, Signal

from napari_sam_med.errors import ExportError, ImageError, LabelError, ModelError
from napari_sam_med.evaluation.cases import Case, read_cases
from napari_sam_med.gui.run_progress import RunProgress
from napari_sam_med.gui.workers import Job
from napari_sam_med.sam.model_registry import MODELS, is_available
from napari_sam_med.session import jobs, learning
from napari_sam_med.training import own_models
from napari_sam_med.training.own_models import Plan
from napari_sam_med.volume.formats import dicom
from napari_sam_med.volume.volume import Volume

if TYPE_CHECKING:
    from napari_sam_med.gui.actions import Actions
    from napari_sam_med.training.recipes import Recipe
    from napari_sam_med.training.tuning_cost import CostStep, TuningCost
    from napari_sam_med.training.tuning_run import TuningStep

__all__ = ["Learning"]

_JUDGED = ("val", "test")


class Learning(QObject):
    """One run at a time, in the background; a prompt and a propagation go first.

    Attributes
    ----------
    cases : list of Case
        Remembered, unless nothing is to be kept on disk.
    counts : dict
        Labelled slices by label file, or in one line why there are none.
    recipes : list of Recipe
        Empty until `look_up` was called and has answered.
    cost : TuningCost or None
        Of the choice at hand; None until it was asked for.
    curve : list of (int, float, float)
        Epoch, Dice on what is learned from and on what is held out, of the run at hand.
    card : dict
        What came of the last run; empty while there is none.
    output : Path or None
        Folder of the run at hand, or of the last one.
    unfinished : Plan or None
        A run that was stopped and can be gone on with.

    Signals
    -------
    changed
        Cases, counts, recipes, cost or state.
    progress : str, float
        What is done, and its share 0..1.
    finished
        A model was made.
    """

    changed = Signal()
    progress = Signal(str, float)
    finished = Signal()

    _under_way: ClassVar[set[Path]] = set()

    def __init__(self, actions: Actions) -> None:
        super().__init__(actions)
        self._actions = actions
        is_kept = not actions.settings.keeps_nothing
        self.cases = own_models.read_case_list(own_models.case_list_path()) if is_kept else []
        self.counts: dict[Path, int | str] = {}
        self.recipes: list[Recipe] = []
        self.cost: TuningCost | None = None
        self.curve: list[tuple[int, float, float]] = []
        self.epochs = 1
        self.card: dict[str, Any] = {}
        self.output: Path | None = None
        self.unfinished: Plan | None = own_models.unfinished_plan()
        self._written: tuple[object, Path] | None = None
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
        actions.exported.connect(self._on_exported)

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
        self._count()

    def _on_recipes(self, recipes: list[Recipe]) -> None:
        self.recipes = recipes
        self.changed.emit()

    # the list of cases

    def add_open_scan(self) -> None:
        """Add the open scan with its labels as they are now; a scan that is in the list is updated."""
        self._actions.attempt(self._add_open_scan)

    def _add_open_scan(self) -> None:
        session = self._actions.session
        volume, labels = session.volume, session.labels
        if volume is None or labels is None:
            self._actions.status.emit("Open a scan and label an organ first.")
            return
        scan = _file_of(volume)
        present = [class_id for class_id in session.organs if session.voxel_count(class_id)]
        if not present:
            raise LabelError(f"{volume.name} has no labelled voxel yet; accept a mask first.")
        names = json.dumps({class_id: session.organs.name_of(class_id) for class_id in present})
        case = Case(volume.name, str(scan), scan, scan, names, "", str(scan))
        here = self._file_of_labels()
        if here is not None:
            self._put([replace(case, labels_path=here)])
            return
        if self._actions.settings.keeps_nothing:
            raise ExportError(
                "The labels as they are were not exported, and nothing is kept on disk; export them first."
            )
        digest = hashlib.sha256(str(scan).encode()).hexdigest()[:8]
        path = own_models.training_labels_folder() / f"{volume.name.split('.')[0]}_{digest}.nii.gz"
        self._actions.status.emit(f"A copy of the labels as they are is written to {path.parent}…")
        path.parent.mkdir(parents=True, exist_ok=True)
        content = self._actions.labels_to_write()
        self._actions.workers.start(
            jobs.export_labels(path, content.labels, content.volume, content.model),
            "labels to learn from",
            returned=lambda written: self._put([replace(case, labels_path=written)]),
            failed=self._actions.show_error,
        )

    def _file_of_labels(self) -> Path | None:
        """The file that the labels were exported to exactly as they are; None where there is none.

        Not where they were opened from: what is open may have been put together from several files.
        """
        labels, written = self._actions.session.labels, self._written
        if written is None or written[0] is not labels or self._actions.keeping.has_unexported_work:
            return None
        return written[1] if written[1].is_file() else None

    def _on_exported(self, path: Path) -> None:
        self._written = (self._actions.session.labels, path)

    def add_from(self, path: Path) -> None:
        """Add the cases of a cases file, or of a folder in a layout that `read_cases` knows."""
        found = self._actions.attempt(lambda: read_cases(path))
        if found:
            self._put(found)

    def _put(self, cases: Sequence[Case]) -> None:
        places = {_key(case): position for position, case in enumerate(self.cases)}
        updated = 0
        for case in cases:
            self.counts.pop(case.labels_path, None)
            position = places.get(_key(case))
            if position is None:
                places[_key(case)] = len(self.cases)
                self.cases.append(replace(case, name=self._own_name(case)))
            else:
                updated += 1
                before = self.cases[position]
                self.cases[position] = replace(case, split=case.split or before.split, name=before.name)
        self._keep()
        added = len(cases) - updated
        parts = [f"{added} added"] if added else []
        parts += [f"{updated} updated"] if updated else []
        self._actions.status.emit(f"Cases to learn from: {', '.join(parts)}.")
        self._count()

    def _own_name(self, case: Case) -> str:
        """The name of a new case, with its folder, and a number if need be, where another one has it."""
        taken = {other.name for other in self.cases}
        name, number = case.name, 1
        if name in taken:
            name = f"{case.image_path.parent.name}/{name}"
        while name in taken:
            number += 1
            name = f"{case.image_path.parent.name}/{case.name} ({number})"
        return name

    def remove(self, cases: Sequence[Case]) -> None:
        """Take cases off the list; their files stay."""
        gone = {_key(case) for case in cases}
        self.cases = [case for case in self.cases if _key(case) not in gone]
        self._keep()

    def learn_from(self, case: Case, is_learned: bool) -> None:
        """Learn from a case, or only judge by it."""
        split = "train" if is_learned else "val"
        self.cases = [replace(c, split=split) if _key(c) == _key(case) else c for c in self.cases]
        self._keep()

    def _keep(self) -> None:
        self.cost = None
        if not self._actions.settings.keeps_nothing:
            try:
                own_models.write_case_list(own_models.case_list_path(), self.cases)
            except OSError as error:
                self._actions.status.emit(f"The list of cases could not be kept: {error.strerror}.")
        self.changed.emit()

    def _count(self) -> None:
        wanted = [case for case in self.cases if case.labels_path not in self.counts]
        if wanted:
            self._actions.workers.start(
                learning.count_slices(wanted),
                "count labelled slices",
                is_background=True,
                yielded=self._on_counted,
                failed=self._actions.show_error,
            )

    def _on_counted(self, counted: tuple[Case, int | str]) -> None:
        case, count = counted
        self.counts[case.labels_path] = count
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
        if not self.cases:
            raise LabelError("There is nothing to learn from yet; add labelled volumes.")
        gone = [case.name for case in self.cases if not _is_file(case)]
        if gone:
            raise ImageError(f"The files of {gone[0]} are not there any more; bring them back or remove it.")
        if all(case.split in _JUDGED for case in self.cases):
            raise LabelError("All volumes are only judged; tick one to learn from it.")
        if session.model in MODELS and not is_available(session.model):
            raise ModelError(f"{MODELS[session.model].title} is not on this computer yet; press Download.")
        return Plan(
            tuple(self.cases),
            own_models.model_folder(name),
            session.model,
            session.device,
            recipe,
            epochs,
            views,
        )

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
            self.counts[step.counts.case.labels_path] = step.counts.used
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
        if plan.output in self._under_way:
            raise ExportError(f'"{name}" is being trained in another window already.')
        self._under_way.add(plan.output)
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
            failed=self._actions.show_error,
            finished=lambda: self._on_finished(plan),
        )
        self.progress.emit("beginning", 0.0)
        self._make_way()
        self.changed.emit()

    def stop(self) -> None:
        """End the run; what was learned up to its last whole epoch stays, and can be gone on with."""
        if self._job is not None:
            self._job.cancel()
            self.progress.emit("stopping", 0.0)
            self.changed.emit()
        if self._trial is not None:
            self._trial.cancel()

    def discard(self) -> None:
        """Remove the run that was stopped."""
        plan, self.unfinished = self.unfinished, None
        if plan is not None and self._job is None:
            self._actions.attempt(lambda: own_models.discard_run(plan.output))
            self.unfinished = own_models.unfinished_plan()
            self.curve, self.output = [], None
            self._actions.status.emit(f'"{plan.output.name}" was discarded; its volumes and labels stay.')
            self.changed.emit()

    def _on_step(self, step: TuningStep) -> None:
        if step.epoch is not None:
            point = (step.epoch.number, step.epoch.train_dice, step.epoch.score)
            self.curve = [p for p in self.curve if p[0] < point[0]] + [point]
        if step.card is not None:
            self.card = step.card
        if not self.is_stopping:
            is_learning = bool(self.curve) and step.progress.text.startswith(("epoch", "model"))
            dice = f" · Dice {self.curve[-1][2]:.3f}" if is_learning else ""
            self.progress.emit(
                self._steps.text(step.progress, self.epochs) + dice + self._steps.left(step.progress),
                step.progress.fraction,
            )
        if step.epoch is not None or step.card is not None:
            self.changed.emit()

    def _on_finished(self, plan: Plan) -> None:
        self._job = None
        self._resume.stop()
        self._under_way.discard(plan.output)
        name = plan.output.name
        if self.card:
            self.unfinished = own_models.unfinished_plan()
            gain = "" if self.card["improved"] else " No epoch was better than the model as it was."
            self._actions.status.emit(f'"{name}" is ready.{gain} Not for clinical use.')
            self.finished.emit()
        else:
            done = self.curve[-1][0] if self.curve else 0
            self._actions.status.emit(f'"{name}" was stopped after epoch {done}. "Go on" continues there.')
        self._tell_nothing()

    def _tell_nothing(self) -> None:
        self.progress.emit("", 0.0)
        self.changed.emit()

    # others go first

    def _make_way(self, *_: object) -> None:
        """Wait between two steps while a prompt is answered or masks are carried."""
        is_wanted = self._actions.model.is_answering or self._actions.carrying.is_busy
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

    def use_model(self) -> None:
        """Answer prompts with the new model."""
        if self.output is not None:
            self._actions.choose_model(str(self.output))
            self._actions.status.emit(f'Prompts are answered by "{self.output.name}" now.')
            self.changed.emit()

    @property
    def base(self) -> str:
        """Name of the model that the one at hand was made of; empty where that is not known."""
        card = self.card
        if not card and Path(self._actions.session.model) in own_models.finished_models():
            card = own_models.read_card(Path(self._actions.session.model))
        return str(card.get("base", {}).get("model", ""))

    def use_base(self) -> None:
        """Go back to the model that the new one was made of."""
        base = self.base if self.base in MODELS else "nano"
        self._actions.choose_model(base)
        self._actions.status.emit(f"Prompts are answered by {MODELS[base].title} again.")
        self.changed.emit()


def _key(case: Case) -> Path:
    return case.image_path.resolve()


def _is_file(case: Case) -> bool:
    return case.image_path.is_file() and case.labels_path.is_file()


def _what(plan: Plan) -> tuple[object, ...]:
    """What decides whether two plans are one and the same run."""
    cases = tuple((c.image_path.resolve(), c.labels_path.resolve(), c.split, c.names) for c in plan.cases)
    return cases, plan.model, plan.recipe, plan.epochs, plan.views


def _file_of(volume: Volume) -> Path:
    """The file from which the scan is read again."""
    path = volume.path
    series = dicom.files_of(volume.header)
    if series:
        path = series[0]
    if path is None or not path.is_file():
        raise ImageError(f"{volume.name} is in no file, so it cannot be read again; save it to one first.")
    if volume.time:
        raise ImageError(
            f"This is volume {volume.time} of {volume.n_times} in {path.name}; learning reads the first one, "
            "so save this one to a file of its own."
        )
    return path.absolute()
