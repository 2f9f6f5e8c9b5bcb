"""An experiment: cases by organs by planes by strategies by models by seeds, measured into a folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy.typing as npt

from napari_sam_med.cluster.workers import Cluster
from napari_sam_med.errors import ImageError, ModelError, PromptError
from napari_sam_med.evaluation.cases import Case, read_case
from napari_sam_med.evaluation.detector_boxes import boxes_of, check_boxes, without_boxes
from napari_sam_med.evaluation.experiment_folder import EarlierRows, ExperimentFolder, locked_folder
from napari_sam_med.evaluation.instance_scores import InstanceSlice, instance_summary, measure_instances
from napari_sam_med.evaluation.measuring import Embeds, Simulation, SliceChoice, SliceScore, organ_names
from napari_sam_med.evaluation.prompt_strategies import Strategy
from napari_sam_med.evaluation.protocols import named_protocol, protocol_facts, split_summaries
from napari_sam_med.evaluation.report_gallery import GallerySource
from napari_sam_med.evaluation.running import Contestant, Step, evaluate
from napari_sam_med.evaluation.shared_cases import CaseShare, evaluate_shared
from napari_sam_med.evaluation.statistics import comparisons
from napari_sam_med.evaluation.summary import summarised
from napari_sam_med.sam.digests import sha256_of
from napari_sam_med.sam.embedding_store import EmbeddingStore
from napari_sam_med.sam.mask_prediction import MaskPrediction
from napari_sam_med.sam.predictor import ImageEmbedding, Predictor, load_predictor
from napari_sam_med.sam.prompts import Prompts
from napari_sam_med.sam.shared_model import SharedModel

__all__ = ["Experiment", "model_titles", "run_experiment"]


@dataclass(frozen=True)
class Experiment:
    """What is measured: cases by organs by planes by strategies by models by seeds.

    Attributes
    ----------
    cases : tuple of Case
    strategies : tuple of Strategy
        A model is asked with those whose prompts it takes.
    models : tuple of str
        Names, checkpoint files or folders, as `load_predictor` takes them.
    choice : SliceChoice
        Planes, slices and organs.
    organs : tuple of str
        Names or numbers of organs; empty for those of `choice`.
    seeds : tuple of int
    protocol : str
        Name of the published comparison that the strategies are of: its table is part of the report.
    """

    cases: tuple[Case, ...]
    strategies: tuple[Strategy, ...]
    models: tuple[str, ...] = ("nano",)
    choice: SliceChoice = field(default_factory=SliceChoice)
    organs: tuple[str, ...] = ()
    seeds: tuple[int, ...] = (0,)
    protocol: str = ""

    @property
    def simulation(self) -> Simulation:
        """What is asked of a model that takes every prompt."""
        choice = replace(self.choice, organs=self.organs or self.choice.organs)
        return Simulation(self.strategies, choice, self.seeds[0], self.seeds[1:])


def model_titles(models: Sequence[str]) -> dict[str, str]:
    """Models by the names that results give them: of a path the last part where that is enough.

    Raises
    ------
    ModelError
        When there is none.
    """
    given = list(dict.fromkeys(models))
    if not given:
        raise ModelError("There is no model; name at least one with --models, such as nano.")
    short = [Path(model).stem if Path(model).is_file() else Path(model).name for model in given]
    return {
        name if short.count(name) == 1 else model: model for model, name in zip(given, short, strict=True)
    }


def run_experiment(
    experiment: Experiment,
    folder: Path,
    *,
    load: Callable[[str], Predictor] = load_predictor,
    store: EmbeddingStore | None = None,
    resume: bool = True,
    pages: bool = True,
    cluster: Cluster | None = None,
) -> Iterator[Step]:
    """Measure, slice by slice, and write what is found into a folder.

    What lies in the folder is left alone until the first answers are there: a run that is refused, because a
    case cannot be read for example, takes nothing away.

    Closing the generator ends it; every row that was written is whole, and the next run carries on there:
    slices whose rows are all there are not measured again, and their steps, with ``is_new`` False, come at
    once.

    Parameters
    ----------
    experiment : Experiment
    folder : Path
        Made when needed; it goes again when nothing is written.
    load : callable
        Loads a model by its name; once each.
    store : EmbeddingStore, optional
        Where embeddings are looked up and kept. They are rounded to half precision there, so that numbers
        differ in the third or fourth digit from those without a store.
    resume : bool
        Carry on what lies in the folder; else it is replaced.
    pages : bool
        Write ``report.md`` and ``report.html`` at the end, for which some slices are asked once more.
    cluster : Cluster, optional
        Workers that the cases are shared out to, without a store; this process then writes the rows of a case
        when it is finished, makes the reports, and finds the instances in boxes of detectors. Files must be
        there on all machines under the same paths.

    Yields
    ------
    Step
        For every case one with its baselines, then one for every model and slice; where boxes of a detector
        are asked, one more for every slice on which its instances are found; the last one has the summary.
        Before earlier results are replaced, one warns of that.

    Raises
    ------
    ExportError
        When the folder holds another experiment, is measured into just now, or cannot be written.
    ImageError, LabelError
        When a case cannot be read, or shows no organ that was asked for.
    ModelError, PromptError
        When a model cannot be loaded, or none takes any of the prompts.
    """
    if cluster is not None and store is not None:
        raise ValueError("Workers look nothing up in a store of this process.")
    check_boxes(experiment.strategies, [case.name for case in experiment.cases])
    predictors = {name: load(model) for name, model in model_titles(experiment.models).items()}
    with locked_folder(folder):
        yield from _run_in(experiment, folder, predictors, store, cluster, resume=resume, pages=pages)


def _run_in(
    experiment: Experiment,
    folder: Path,
    predictors: dict[str, Predictor],
    store: EmbeddingStore | None,
    cluster: Cluster | None,
    *,
    resume: bool,
    pages: bool,
) -> Iterator[Step]:
    """`run_experiment` with the models, in a folder that nobody else writes."""
    contestants, remarks = _contestants(experiment, predictors, store)
    run = _facts(experiment, predictors, store)
    warnings = [*remarks]
    devices: set[str] = set()
    step = None
    with (
        ExperimentFolder(folder, {"run": run, "cases": _case_facts(experiment)}, resume=resume) as kept,
        closing(_steps(experiment, contestants, predictors, cluster, kept.known, devices)) as steps,  # type: ignore[type-var]  # a generator
    ):
        for step in steps:
            if step.scores and kept.replaces:
                said = (f"replaces the earlier results in {folder}",)
                yield Step(step.case, step.progress, [], [], said, is_new=False)
            kept.take(step)
            warnings += step.warnings
            yield replace(step, warnings=(*remarks, *step.warnings))
            remarks = []
    # in the order of the cases, in which workers do not finish them
    order = {case.name: number for number, case in enumerate(experiment.cases)}
    scores, baselines = (
        sorted(rows, key=lambda row: order[row.volume]) for rows in (kept.scores(), kept.baselines())
    )
    if step is None or not scores:
        raise ImageError(_nothing(experiment))
    instances: list[InstanceSlice] = []
    for one in contestants:
        asked = one.simulation
        for found in measure_instances(
            experiment.cases, {one.name: one.predictor}, asked.strategies, asked.choice
        ):
            instances.append(found)
            yield replace(step, progress=found.progress, scores=[], baselines=[], warnings=(), is_new=False)
    absent = [*_absent(experiment, scores), *without_boxes(experiment.strategies, scores)]
    summary: dict[str, Any] = {
        "version": 1,
        "run": run | {"device": ", ".join(sorted(devices))},
        "warnings": [*warnings, *absent],
        **summarised(scores, baselines),
        "comparisons": comparisons(scores, seed=experiment.seeds[0]),
        "protocol": _protocol(experiment, scores, baselines),
    }
    if instances:
        summary["instances"] = instance_summary(instances)
        kept.write_instances(instances)
    if pages:
        crop_to_body = experiment.choice.crop_to_body
        source = GallerySource.of_cases(experiment.cases, predictors, crop_to_body=crop_to_body)
        kept.write_pages(summary, scores, source)
    kept.finish(summary)
    yield replace(step, scores=[], baselines=[], warnings=tuple(absent), is_new=False, summary=summary)


def _steps(
    experiment: Experiment,
    contestants: Sequence[Contestant],
    predictors: dict[str, Predictor],
    cluster: Cluster | None,
    known: EarlierRows,
    devices: set[str],
) -> Iterator[Step]:
    """What is measured, here or by workers; the devices of these are added."""
    if cluster is None:
        devices.add(str(next(iter(predictors.values())).device))
        return evaluate(experiment.cases, contestants, known)
    paths = model_titles(experiment.models)
    asked = tuple(
        (
            one.name,
            SharedModel.of_loaded(paths[one.name], predictors[one.name], cluster.device),
            one.simulation,
        )
        for one in contestants
    )
    shares = [CaseShare(case, asked, known.of(case)) for case in experiment.cases]
    return evaluate_shared(cluster, shares, devices)


def _absent(experiment: Experiment, scores: Sequence[SliceScore]) -> list[str]:
    """Words on organs that were asked for and are on no slice."""
    there = {str(row.label) for row in scores}
    for row in scores:
        name = row.organ.casefold()
        # where two organs have one name, it is followed by their number
        there |= {name, name.removesuffix(f" ({row.label})")}
    organs = experiment.simulation.choice.organs
    return [f"no slice shows the organ {organ}" for organ in organs if organ.strip().casefold() not in there]


def _protocol(
    experiment: Experiment, scores: Sequence[SliceScore], baselines: Sequence[SliceScore]
) -> dict[str, Any] | None:
    """The tables of the protocol, as plain values."""
    if not experiment.protocol:
        return None
    summaries = split_summaries(scores, baselines, {case.name: case.split for case in experiment.cases})
    return protocol_facts(named_protocol(experiment.protocol), summaries)


def _contestants(
    experiment: Experiment, predictors: dict[str, Predictor], store: EmbeddingStore | None
) -> tuple[list[Contestant], list[str]]:
    """The models, each with the strategies whose prompts it takes, and words on the others."""
    found, remarks = [], []
    simulation = experiment.simulation
    for name, predictor in predictors.items():
        taken = []
        for strategy in simulation.strategies:
            refused = strategy.dialogue.kinds - predictor.accepts
            if refused:
                kinds = " and no ".join(sorted(refused))
                remarks.append(f"{name} takes no {kinds} prompts; {strategy.name} is left out for it")
            else:
                taken.append(strategy)
        if taken:
            asked: Embeds = predictor if store is None else _FromStore(predictor, store)
            found.append(Contestant(name, asked, replace(simulation, strategies=tuple(taken))))
    if not found:
        raise PromptError("No model given takes the prompts of any strategy given; choose bound_box.")
    return found, remarks


def _facts(
    experiment: Experiment, predictors: dict[str, Predictor], store: EmbeddingStore | None
) -> dict[str, Any]:
    """What the numbers depend on, beside the cases."""
    choice = experiment.simulation.choice
    return {
        "planes": list(choice.planes),
        "every": choice.every,
        "min_area": choice.min_area,
        "most_slices": choice.most,
        "organs": list(choice.organs),
        **({"crop_to_body": True} if choice.crop_to_body else {}),
        "strategies": [strategy.name for strategy in experiment.strategies],
        "boxes_sha256": {name: boxes.sha256 for name, boxes in boxes_of(experiment.strategies).items()},
        "seed": experiment.seeds[0],
        "seeds": list(experiment.seeds),
        "protocol": experiment.protocol,
        "precision": next(iter(predictors.values())).precision,
        "stored_embeddings": store is not None,
        "model_sha256": {name: predictor.model_hash for name, predictor in predictors.items()},
    }


def _case_facts(experiment: Experiment) -> list[dict[str, Any]]:
    return [
        {
            "name": case.name,
            "image": case.image,
            "patient": case.patient,
            "names": case.names,
            "image_bytes": case.image_path.stat().st_size if case.image_path.is_file() else 0,
            "labels_sha256": _digest(case.labels_path),
        }
        for case in experiment.cases
    ]


def _digest(path: Path) -> str:
    """Of a label file: those of one scan are often of one size."""
    try:
        return sha256_of(path)
    except OSError:  # a folder; or a file that cannot be read, which is told when it is due
        return ""


def _nothing(experiment: Experiment) -> str:
    choice = experiment.simulation.choice
    fact = f"No {' or '.join(choice.planes)} slice has {choice.min_area} or more pixels of "
    if not choice.organs:
        return f"{fact}an organ; check the labels, or lower --min-area or --every."
    case = experiment.cases[0]
    there = organ_names(read_case(case)[1]).items()
    known = ", ".join(name if str(number) in name else f"{name} ({number})" for number, name in there)
    return (
        f"{fact}{' or '.join(choice.organs)}; of {case.name} its labels have {known or 'nothing'}: choose "
        "among these names and numbers, name them with --names, or lower --min-area or --every."
    )


class _FromStore:
    """A predictor whose embeddings are looked up in a store."""

    def __init__(self, predictor: Predictor, store: EmbeddingStore) -> None:
        self._predictor = predictor
        self._store = store

    def embed(
        self,
        image: npt.ArrayLike,
        pixel_spacing: npt.ArrayLike = (1.0, 1.0),
        crop_xyxy: npt.ArrayLike | None = None,
    ) -> ImageEmbedding:
        return self._store.get_or_embed(self._predictor, image, pixel_spacing, crop_xyxy)

    def predict_batch(
        self, embedding: ImageEmbedding, prompts: Sequence[Prompts], *, single_beside: bool = False
    ) -> list[MaskPrediction]:
        return self._predictor.predict_batch(embedding, prompts, single_beside=single_beside)
