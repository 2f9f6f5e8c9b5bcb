"""``evaluate``: prompts simulated from labels, answered by models, measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_sam_med.cli.console import print_json, progress_bar, say, show_table, warn
from napari_sam_med.cli.outputs import check_input, check_output
from napari_sam_med.errors import ExportError, ImageError, ModelError, PromptError

if TYPE_CHECKING:
    from napari_sam_med.evaluation.cases import Case
    from napari_sam_med.evaluation.measuring import Simulation
    from napari_sam_med.evaluation.running import Contestant
    from napari_sam_med.sam.predictor import Predictor

__all__ = ["EvaluateRequest", "run_evaluate"]


@dataclass(frozen=True)
class EvaluateRequest:
    """What the user typed."""

    output: Path
    image: Path | None = None
    labels: Path | None = None
    cases: Path | None = None
    strategies: str = "bound_box"
    models: str = "nano"
    names: str = ""
    planes: str = "axial"
    every: int = 1
    min_area: int = 1
    seed: int = 0
    device: str = "auto"
    precision: str = "auto"
    organs: bool = False


def run_evaluate(request: EvaluateRequest, *, as_json: bool) -> int:
    """Run the command; returns the exit status."""
    simulation = _simulation(request)
    cases = _cases(request)
    files = _output_files(request, cases)
    from napari_sam_med.evaluation.report import markdown_report, result_tables
    from napari_sam_med.segmentation.report import write_json

    summary = _measure(request, cases, _contestants(request, simulation), files)
    write_json(files["summary"], summary)
    _write_text(files["report"], markdown_report(summary))
    if as_json:
        print_json(summary)
        return 0
    for table in result_tables(summary, organs=request.organs):
        sides = ["left"] * table.text_columns + ["right"] * len(table.headings)
        show_table(table.title, dict(zip(table.headings, sides, strict=False)), table.rows)
        say()
    for path in files.values():
        say(f"  {path}")
    return 0


def _simulation(request: EvaluateRequest) -> Simulation:
    from napari_sam_med.evaluation.measuring import Simulation, SliceChoice
    from napari_sam_med.evaluation.prompt_strategies import parse_strategies
    from napari_sam_med.volume.slice_view import SliceView

    planes = tuple(dict.fromkeys(SliceView(plane, 0).plane for plane in _listed(request.planes)))  # type: ignore[arg-type]  # SliceView refuses what is no plane
    strategies = tuple(parse_strategies(_listed(request.strategies)))
    choice = SliceChoice(planes or ("axial",), request.every, request.min_area)
    return Simulation(strategies, choice, request.seed)


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


def _output_files(request: EvaluateRequest, cases: Sequence[Case]) -> dict[str, Path]:
    """Paths of what is written, in a folder that is made when needed."""
    files = {
        "results": request.output / "results.csv",
        "summary": request.output / "summary.json",
        "report": request.output / "report.md",
    }
    try:
        request.output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ExportError(
            f"The folder {request.output} cannot be made: {error.strerror}; choose another one with -o."
        ) from error
    inputs = (request.cases, *(path for case in cases for path in (case.image_path, case.labels_path)))
    for path in files.values():
        check_output(path, inputs)
    return files


def _listed(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _contestants(request: EvaluateRequest, simulation: Simulation) -> list[Contestant]:
    """The models, each with the strategies whose prompts it takes; the others are named in a warning."""
    from napari_sam_med.evaluation.running import Contestant

    found = []
    for name, predictor in _predictors(request).items():
        taken = []
        for strategy in simulation.strategies:
            refused = strategy.dialogue.kinds - predictor.accepts
            if refused:
                kinds = " and no ".join(sorted(refused))
                warn([f"{name} takes no {kinds} prompts; {strategy.name} is left out for it"])
            else:
                taken.append(strategy)
        if taken:
            found.append(Contestant(name, predictor, replace(simulation, strategies=tuple(taken))))
    if not found:
        raise PromptError("No model given takes the prompts of any strategy given; choose bound_box.")
    return found


def _predictors(request: EvaluateRequest) -> dict[str, Predictor]:
    """Predictors by the name that results give them: of a path the last part where that is enough."""
    from napari_sam_med.sam.predictor import load_predictor

    given = list(dict.fromkeys(_listed(request.models)))
    if not given:
        raise ModelError("There is no model; name at least one with --models, such as nano.")
    short = [Path(model).stem if Path(model).is_file() else Path(model).name for model in given]
    return {
        name if short.count(name) == 1 else model: load_predictor(
            model, device=request.device, precision=request.precision
        )
        for model, name in zip(given, short, strict=True)
    }


def _measure(
    request: EvaluateRequest, cases: Sequence[Case], contestants: Sequence[Contestant], files: dict[str, Path]
) -> dict[str, Any]:
    """Measure, writing rows as they come; returns the summary."""
    from napari_sam_med.evaluation.results_file import write_header, write_scores
    from napari_sam_med.evaluation.running import evaluate
    from napari_sam_med.evaluation.summary import summarised

    scores, baselines, warnings = [], [], []
    for stale in ("summary", "report"):  # of an earlier run: they would stand beside other rows
        files[stale].unlink(missing_ok=True)
    with (
        files["results"].open("w", encoding="utf-8", newline="") as results,
        progress_bar("Measuring") as on_progress,
    ):
        write_header(results)
        for step in evaluate(cases, contestants):
            warnings += warn(step.warnings)
            write_scores(results, step.scores)
            scores += step.scores
            baselines += step.baselines
            on_progress(step.progress)
    if not scores:
        raise ImageError(
            f"No {request.planes} slice has {request.min_area} or more pixels of an organ; check the labels, "
            "or lower --min-area or --every."
        )
    choice = contestants[0].simulation.choice
    run = {
        "planes": list(choice.planes),
        "every": choice.every,
        "min_area": choice.min_area,
        "seed": request.seed,
        "device": str(contestants[0].predictor.device),
        "precision": contestants[0].predictor.precision,
        "model_sha256": {one.name: one.predictor.model_hash for one in contestants},
    }
    return {"version": 1, "run": run, "warnings": warnings, **summarised(scores, baselines)}


def _write_text(path: Path, text: str) -> None:
    from napari_sam_med.volume.replacement import Replacement

    with Replacement(path, path.suffix) as file:
        file.temporary.write_text(text, encoding="utf-8")
        file.put_in_place()
