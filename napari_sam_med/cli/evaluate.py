"""``evaluate``: prompts simulated from labels, answered by models, measured."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_sam_med.cli.case_options import chosen_planes, listed
from napari_sam_med.cli.cluster_options import device_here, workers_of
from napari_sam_med.cli.console import print_json, progress_bar, say, say_faintly, show_table, warn
from napari_sam_med.cli.outputs import check_input, check_output
from napari_sam_med.errors import ImageError

if TYPE_CHECKING:
    from napari_sam_med.evaluation.cases import Case
    from napari_sam_med.evaluation.experiment import Experiment
    from napari_sam_med.evaluation.report import ResultTable

__all__ = ["EvaluateRequest", "run_evaluate"]


@dataclass(frozen=True)
class EvaluateRequest:
    """What the user typed."""

    output: Path
    image: Path | None = None
    labels: Path | None = None
    cases: Path | None = None
    strategies: str = ""
    protocol: str = ""
    models: str = "nano"
    names: str = ""
    only: str = ""
    planes: str = "axial"
    every: int = 1
    most_slices: int = 0
    min_area: int = 1
    crop_to_body: bool = False
    seed: int = 0
    seeds: int = 1
    device: str = "auto"
    precision: str = "auto"
    organs: bool = False
    resume: bool = False
    scheduler: str = ""
    workers: int | None = None


def run_evaluate(request: EvaluateRequest, *, as_json: bool) -> int:
    """Run the command; returns the exit status."""
    experiment = _experiment(request)
    from napari_sam_med.evaluation.experiment_folder import made_folder

    with made_folder(request.output):
        files = _output_files(request, experiment)
        summary = _measured(experiment, request)
    if as_json:
        print_json(summary)
        return 0
    for table in _tables(summary, organs=request.organs):
        sides = ["left"] * table.text_columns + ["right"] * len(table.headings)
        show_table(table.title, dict(zip(table.headings, sides, strict=False)), table.rows)
        say()
    from napari_sam_med.evaluation.report import comparison_notes

    for note in comparison_notes(summary):
        say_faintly(note)
    for path in files:
        say(f"  {path}")
    return 0


def _tables(summary: dict[str, Any], *, organs: bool) -> Iterator[ResultTable]:
    """What is printed: all means, what a protocol compares, other measures, instances, comparisons; then by
    volume.
    """
    from napari_sam_med.evaluation.report import (
        ResultTable,
        comparison_tables,
        instances_table,
        measures_table,
        result_tables,
    )

    overview, *others = result_tables(summary, organs=organs)
    yield overview
    for table in (summary["protocol"] or {"tables": []})["tables"]:
        yield ResultTable(**table)
    for found in (measures_table(summary), instances_table(summary)):
        if found is not None:
            yield found
    yield from comparison_tables(summary)
    yield from others


def _experiment(request: EvaluateRequest) -> Experiment:
    from napari_sam_med.evaluation.experiment import Experiment
    from napari_sam_med.evaluation.measuring import SliceChoice
    from napari_sam_med.evaluation.prompt_strategies import parse_strategies
    from napari_sam_med.evaluation.protocols import named_protocol

    names = [*named_protocol(request.protocol).strategies] if request.protocol else []
    names += listed(request.strategies or ("" if names else "bound_box"))
    choice = SliceChoice(
        planes=chosen_planes(request.planes),
        every=request.every,
        min_area=request.min_area,
        most=request.most_slices,
        crop_to_body=request.crop_to_body,
    )
    return Experiment(
        strategies=tuple(parse_strategies(names)),
        cases=tuple(_cases(request)),
        models=tuple(listed(request.models)),
        choice=choice,
        organs=tuple(listed(request.only)),
        seeds=tuple(range(request.seed, request.seed + request.seeds)),
        protocol=request.protocol,
    )


def _cases(request: EvaluateRequest) -> list[Case]:
    from napari_sam_med.evaluation.cases import Case, parse_names, read_cases

    if (request.cases is None) == (request.image is None):
        raise ImageError("Give either --image with --labels, or --cases.")
    if request.names:
        parse_names(request.names)  # refused now, not after minutes
    if request.cases is not None:
        if request.labels is not None:
            raise ImageError("--labels belongs to --image; a cases file names its own labels: leave it out.")
        return read_cases(request.cases, request.names)
    if request.image is None or request.labels is None:
        raise ImageError("--image needs --labels: what is to be found on it; give both.")
    check_input(request.image, "volume")
    check_input(request.labels, "label file")
    return [Case(request.image.name, str(request.image), request.image, request.labels, request.names)]


def _output_files(request: EvaluateRequest, experiment: Experiment) -> list[Path]:
    """Paths of what is written."""
    from napari_sam_med.evaluation.detector_boxes import boxes_of
    from napari_sam_med.evaluation.experiment_folder import FILES, INSTANCES

    has_instances = bool(boxes_of(experiment.strategies, alone=True))
    files = [request.output / name for name in (*FILES, *((INSTANCES,) if has_instances else ()))]
    scans = (path for case in experiment.cases for path in (case.image_path, case.labels_path))
    inputs = (request.cases, *scans)
    for path in files:
        check_output(path, inputs)
    return files


def _measured(experiment: Experiment, request: EvaluateRequest) -> dict[str, Any]:
    """Run the experiment, with a bar; returns the summary."""
    from napari_sam_med.evaluation.experiment import run_experiment
    from napari_sam_med.sam.predictor import load_predictor

    device = device_here(request.device, request.scheduler)
    load = partial(load_predictor, device=device, precision=request.precision)
    summary: dict[str, Any] = {}
    try:
        with (
            workers_of(request.scheduler, request.workers, request.device) as cluster,
            progress_bar("Measuring") as on_progress,
        ):
            for step in run_experiment(
                experiment, request.output, load=load, resume=request.resume, cluster=cluster
            ):
                warn(step.warnings)
                on_progress(step.progress)
                summary = step.summary or summary
    except KeyboardInterrupt:
        raise KeyboardInterrupt("the same command with --resume carries on where this one stopped.") from None
    return summary
