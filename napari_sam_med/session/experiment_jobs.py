"""The prompt laboratory as jobs: what there is to choose, the run, one answer again, saving and opening.

torch is imported when a job begins, so never on the main thread.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_sam_med.errors import LabelError, PromptError
from napari_sam_med.progress import Progress
from napari_sam_med.session.experiment_results import means_of
from napari_sam_med.session.experiments import (
    Choice,
    Means,
    Sight,
    Source,
    Survey,
    case_name,
    named_models,
)
from napari_sam_med.session.preloading import preload_torch_libraries
from napari_sam_med.volume.labels import LabelVolume
from napari_sam_med.volume.slice_view import Plane

if TYPE_CHECKING:
    from napari_sam_med.evaluation.measuring import LabelledSlice, Simulation, SliceScore
    from napari_sam_med.evaluation.prompt_strategies import Strategy
    from napari_sam_med.sam.predictor import Predictor
    from napari_sam_med.session.jobs import LoadedModel

__all__ = [
    "Begun",
    "Catalogue",
    "ExperimentStep",
    "Request",
    "StrategyKind",
    "catalogue",
    "load_model",
    "look_again",
    "run",
    "sum_up",
    "survey",
]

_MOST_AT_ONCE = 64
"""Prompts between two yields, about: a second on two cores, as cancelling waits for that."""
_SUMMARY_SECONDS, _SUMMARY_SHARE = 2.0, 0.1
"""Between two summaries of a run, and of its time at most."""
_TELL_SECONDS = 0.3
"""Between two yields of what is quick by itself."""
_SAME_DICE = 0.05
"""Embeddings that were stored in half precision differ by a pixel or two."""


@dataclass(frozen=True)
class StrategyKind:
    """Strategies of one name.

    Attributes
    ----------
    name : str
    group : str
        Under which it is listed.
    about : str
        What it does, for people.
    parameters : tuple of str
        Those that stand for the bare name; one empty one where it takes none.
    form : str
        How a parameter is written; empty where it takes none.
    """

    name: str
    group: str
    about: str
    parameters: tuple[str, ...]
    form: str


@dataclass(frozen=True)
class Catalogue:
    """What there is to choose: strategies, and strategies of published studies by ``(name, title)``."""

    kinds: tuple[StrategyKind, ...]
    protocols: Mapping[tuple[str, str], tuple[str, ...]]


@dataclass(frozen=True, eq=False)
class Request:
    """What is to be run.

    Attributes
    ----------
    source : Source
        With a copy of the labels.
    choice : Choice
    device : str
    loaded : dict of str to LoadedModel
        Models that need not be loaded, by what they would be loaded by.
    """

    source: Source
    choice: Choice
    device: str = "auto"
    loaded: Mapping[str, LoadedModel] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Begun:
    """What the answers of a run are of.

    Attributes
    ----------
    source : Source
    run : dict
        How they are measured, for people.
    """

    source: Source
    run: Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class ExperimentStep:
    """What a run has just measured.

    Attributes
    ----------
    progress : Progress
    scores : list of SliceScore
    begun : Begun or None
        With the first answers: until then earlier results may stay.
    baselines : list of SliceScore
        All of them, with the first answers.
    means : Means or None
        Of everything so far, now and then, and in the last step.
    warnings : tuple of str
    loaded : (str, LoadedModel) or None
        A model that was loaded, by what it was loaded by.
    """

    progress: Progress
    scores: list[SliceScore] = field(default_factory=list)
    begun: Begun | None = None
    baselines: list[SliceScore] = field(default_factory=list)
    means: Means | None = None
    warnings: tuple[str, ...] = ()
    loaded: tuple[str, LoadedModel] | None = None


def catalogue() -> Generator[Progress, None, Catalogue]:
    """The prompt strategies and the protocols there are."""
    yield Progress(0, 1, "looking for strategies")
    preload_torch_libraries()
    from napari_sam_med.evaluation.prompt_strategies import STRATEGIES, parse_strategies
    from napari_sam_med.evaluation.protocols import PROTOCOLS

    kinds = []
    for name, family in STRATEGIES.items():
        first = parse_strategies([name])[0]
        about = _about(first)
        kinds.append(StrategyKind(name, _group(first), about, tuple(family.defaults), family.form))
    protocols = {(one.name, f"{one.title}. {one.source}"): one.strategies for one in PROTOCOLS.values()}
    return Catalogue(tuple(kinds), protocols)


def _group(strategy: Strategy) -> str:
    if strategy.dialogue.reply is not None:
        return "Dialogues"
    return "Boxes" if "box" in strategy.dialogue.kinds else "Clicks"


def _about(strategy: Strategy) -> str:
    """What the docstring of the function says before its parameters."""
    dialogue = strategy.dialogue
    function: Any = dialogue.opening if dialogue.reply is None else dialogue.reply
    function = getattr(function, "func", function)  # of a partial
    lines = []
    for line in (function.__doc__ or "").strip().splitlines():
        if line.strip() in ("Parameters", "Returns", "Raises"):
            break
        lines.append(line.strip())
    return "\n".join(lines).replace("`", "").strip()


def survey(labels: LabelVolume, planes: Sequence[Plane], min_area: int) -> Generator[Progress, None, Survey]:
    """Look through labels for organs, plane by plane."""
    yield Progress(0, 1, "looking through the labels")
    preload_torch_libraries()
    from napari_sam_med.evaluation.measuring import SliceChoice, labelled_slices, organ_names

    names = organ_names(labels)
    slices: list[LabelledSlice] = []
    for done, plane in enumerate(planes):
        yield Progress(done, len(planes), "looking through the labels")
        slices += labelled_slices(labels, SliceChoice((plane,), min_area=min_area))
    return Survey(names, tuple(slices))


def run(request: Request) -> Generator[ExperimentStep, None, None]:
    """Measure all strategies of all models on the chosen slices, a few prompts at a time.

    Every model gets the same prompts. A strategy that a model does not take is left out for it, with a
    warning.

    Raises
    ------
    LabelError
        When no chosen slice shows a chosen organ.
    PromptError, ModelError
        When a strategy or a model cannot be used; what was yielded so far is valid.
    """
    source, choice = request.source, request.choice
    found, strategies = yield from _looked_through(source, choice)
    from napari_sam_med.evaluation.detector_boxes import without_boxes
    from napari_sam_med.evaluation.measuring import Simulation

    slices = found.spread(choice)
    if not slices:
        raise LabelError(
            f"No {' or '.join(choice.planes)} slice of the labels has {choice.min_area} or more pixels of a "
            "chosen organ; choose other organs or labels, or lower the smallest area."
        )
    total = found.count(choice, strategies)[1]
    baselines = yield from _baselines(source, choice, total)
    scores: list[SliceScore] = []
    due = time.monotonic() + _SUMMARY_SECONDS
    for name, model in named_models(choice.models).items():
        yield ExperimentStep(Progress(len(scores), total, f"loading {name}"))
        loaded = request.loaded.get(model) or load_model(model, request.device)
        yield ExperimentStep(Progress(len(scores), total, name), loaded=(model, loaded))
        taken, warnings = _taken(strategies, loaded.predictor, name)
        if warnings:
            yield ExperimentStep(Progress(len(scores), total, name), warnings=warnings)
        for labelled in slices if taken else []:
            simulation = Simulation(tuple(taken), seed=choice.seed)
            for new in _answers(labelled, source, found, loaded, simulation, name):
                text = f"{name}, {labelled.view.plane} slice {labelled.view.index}"
                step = ExperimentStep(Progress(len(scores) + len(new), total, text), new)
                if not scores:
                    step = replace(
                        step, begun=Begun(source, choice.facts(found.names)), baselines=list(baselines)
                    )
                scores += new
                began = time.monotonic()
                if began > due:
                    step = replace(step, means=means_of(scores, baselines, choice.protocol))
                    taken_seconds = time.monotonic() - began
                    due = began + taken_seconds + max(_SUMMARY_SECONDS, taken_seconds / _SUMMARY_SHARE)
                yield step
    if not scores:
        raise PromptError(
            "No ticked model takes the prompts of any ticked strategy; tick another model, or boxes for one "
            "that takes boxes only."
        )
    yield ExperimentStep(
        Progress(total, total, "done"),
        means=means_of(scores, baselines, choice.protocol),
        warnings=tuple(without_boxes(strategies, scores)),
    )


def _looked_through(
    source: Source, choice: Choice
) -> Generator[ExperimentStep, None, tuple[Survey, list[Strategy]]]:
    """What the labels show, and the strategies, whose files are read and fit the scan."""
    yield ExperimentStep(Progress(0, 0, "looking through the labels"))
    found = yield from _surveyed(source, choice)
    from napari_sam_med.evaluation.detector_boxes import boxes_of
    from napari_sam_med.evaluation.prompt_strategies import parse_strategies

    yield ExperimentStep(Progress(0, 0, "reading what is to be asked"))
    strategies = parse_strategies(choice.strategies)
    for boxes in boxes_of(strategies).values():
        boxes.check(case_name(source.volume), source.labels)
    return found, strategies


def _surveyed(source: Source, choice: Choice) -> Generator[ExperimentStep, None, Survey]:
    looking = survey(source.labels, choice.planes, choice.min_area)
    while True:
        try:
            yield ExperimentStep(next(looking))
        except StopIteration as stop:
            found: Survey = stop.value
            return found


def load_model(model: str, device: str) -> LoadedModel:
    """Load a model; imports torch, so never on the main thread."""
    from napari_sam_med.sam.embedding_store import default_store
    from napari_sam_med.sam.predictor import load_predictor
    from napari_sam_med.session.jobs import LoadedModel

    return LoadedModel(load_predictor(model, device=device), default_store())


def _taken(
    strategies: Sequence[Strategy], predictor: Predictor, model: str
) -> tuple[list[Strategy], tuple[str, ...]]:
    taken, warnings = [], []
    for strategy in strategies:
        refused = strategy.dialogue.kinds - predictor.accepts
        if refused:
            kinds = " and no ".join(sorted(refused))
            warnings.append(f"{model} takes no {kinds} prompts; {strategy.name} was left out for it.")
        else:
            taken.append(strategy)
    return taken, tuple(warnings)


def _answers(
    labelled: LabelledSlice,
    source: Source,
    found: Survey,
    loaded: LoadedModel,
    simulation: Simulation,
    model: str,
) -> Iterator[list[SliceScore]]:
    """Scores of one slice, a few strategies at a time; what is drawn does not depend on how many."""
    from napari_sam_med.evaluation.measuring import AskedSlice, measure_slice
    from napari_sam_med.volume.intensity import to_rgb

    volume, view = source.volume, labelled.view
    pixels, spacing = to_rgb(volume, view), volume.pixel_spacing(view)
    masks = labelled.masks(source.labels)
    asked = AskedSlice(case_name(volume), view, masks, found.names, pixels, spacing)
    embedding = loaded.store.get_or_embed(loaded.predictor, pixels, spacing)
    for some in _portions(simulation.strategies, len(masks)):
        now = replace(simulation, strategies=tuple(some))
        scores = measure_slice(asked, embedding, loaded.predictor, now, model=model)
        yield [_of_case(score, source) for score in scores]


def _baselines(
    source: Source, choice: Choice, total: int
) -> Generator[ExperimentStep, None, list[SliceScore]]:
    """Scores of what needs no model, on the slices of `Survey.spread`."""
    from napari_sam_med.evaluation.measuring import SliceChoice, measure_baselines

    organs = tuple(str(label) for label in sorted(choice.organs))
    chosen = SliceChoice(choice.planes, min_area=choice.min_area, most=choice.slices, organs=organs)
    volume = source.volume
    told = ExperimentStep(Progress(0, total, "measuring what the boxes say alone"))
    yield told
    found, since = [], time.monotonic()
    for score in measure_baselines(case_name(volume), source.labels, chosen, volume.pixel_spacing):
        found.append(_of_case(score, source))
        if time.monotonic() - since > _TELL_SECONDS:  # so that it can be cancelled
            yield told
            since = time.monotonic()
    return found


def _portions(strategies: Sequence[Strategy], objects: int) -> Iterator[list[Strategy]]:
    """Strategies that are asked together; those that share a dialogue stay together."""
    talks: dict[str, list[Strategy]] = {}
    for strategy in strategies:
        talks.setdefault(strategy.dialogue.name, []).append(strategy)
    portion: list[Strategy] = []
    for talk in talks.values():
        if portion and (len(portion) + len(talk)) * objects > _MOST_AT_ONCE:
            yield portion
            portion = []
        portion = [*portion, *talk]
    yield portion


def _of_case(score: SliceScore, source: Source) -> SliceScore:
    path = source.volume.path
    return replace(
        score, image=source.volume.name if path is None else str(path), patient=case_name(source.volume)
    )


def sum_up(
    scores: Sequence[SliceScore], baselines: Sequence[SliceScore], protocol: str = ""
) -> Generator[Progress, None, Means]:
    """The means of answers, as `means_of` makes them."""
    yield Progress(0, 1, "summing up")
    return means_of(scores, baselines, protocol)


# one answer again


def look_again(
    sight: Sight, model: str, device: str, loaded: LoadedModel | None = None
) -> Generator[LoadedModel, None, Sight]:
    """The mask of an answer, from the prompts that were noted.

    Yields the model where it had to be loaded; returns the answer with its mask, without one where no prompts
    were noted.

    Raises
    ------
    ModelError
        When the model cannot be loaded any more.
    """
    score = sight.score
    preload_torch_libraries()
    if not score.strategy:
        return _seen(sight, _drawn_baseline(score, sight))
    if score.prompts is None:
        return sight
    if loaded is None:
        loaded = load_model(model, device)
        yield loaded
    from napari_sam_med.evaluation.report_gallery import answered_again
    from napari_sam_med.segmentation.body import BodyBox
    from napari_sam_med.segmentation.slicewise import embed_slice

    crop = None if sight.labelled is None else BodyBox.of(sight.volume)
    if crop is not None and not crop.holds(score.view, mask=sight.labelled):
        crop = None
    embedding = embed_slice(sight.volume, score.view, loaded.predictor, store=loaded.store, crop=crop)
    answer = answered_again(score, embedding, loaded.predictor)
    return _seen(sight, answer.best_mask)


def _seen(sight: Sight, mask: npt.NDArray[np.bool_]) -> Sight:
    from napari_sam_med.evaluation.metrics import dice

    is_changed = abs(dice(mask, sight.truth) - sight.score.dice) > _SAME_DICE
    return replace(sight, prediction=mask, is_changed=is_changed)


def _drawn_baseline(score: SliceScore, sight: Sight) -> Any:
    from napari_sam_med.evaluation.baselines import tight_box
    from napari_sam_med.evaluation.measuring import BASELINES

    height, width = sight.truth.shape
    return BASELINES[score.model](tight_box(sight.truth), (height, width))
