"""``evaluate``: prompts simulated from labels, answered by models, measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_sam_med.cli.console import print_json, progress_bar, say, show_table, warn
from napari_sam_med.cli.outputs import check_input, check_output
from napari_sam_med.errors import ExportError, ImageError, PromptError

if TYPE_CHECKING:
    from napari_sam_med.evaluation.cases import Case
    from napari_sam_med.evaluation.measuring import SliceScore
    from napari_sam_med.evaluation.prompt_strategies import Strategy
    from napari_sam_med.sam.predictor import Predictor
    from napari_sam_med.volume.slice_view import Plane

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
    plane: Plane = "axial"
    every: int = 1
    min_area: int = 1
    seed: int = 0
    device: str = "auto"
    precision: str = "auto"
    organs: bool = False


def run_evaluate(request: EvaluateRequest, *, as_json: bool) -> int:
    """Run the command; returns the exit status."""
    cases = _cases(request)
    files = _output_files(request, cases)
    from napari_sam_med.evaluation.prompt_strategies import parse_strategies
    from napari_sam_med.evaluation.report import markdown_report, result_tables
    from napari_sam_med.segmentation.report import write_json

    strategies = parse_strategies(_listed(request.strategies))
    predictors = _load(request)
    taken = {model: _taken(strategies, model, predictor) for model, predictor in predictors.items()}
    if not any(taken.values()):
        raise PromptError("No model given takes the prompts of any strategy given; choose bound_box.")
    summary = _measure(request, cases, predictors, taken, files)
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
    """Paths of what is written; the summary and the report of an earlier run are removed."""
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


def _load(request: EvaluateRequest) -> dict[str, Predictor]:
    """Predictors by the name that results call them: a file's without folder where that is enough."""
    from napari_sam_med.errors import ModelError
    from napari_sam_med.sam.predictor import load_predictor

    given = list(dict.fromkeys(_listed(request.models)))
    if not given:
        raise ModelError("There is no model; name at least one with --models, such as nano.")
    short = [Path(model).stem if Path(model).exists() else model for model in given]
    return {
        name if short.count(name) == 1 else model: load_predictor(
            model, device=request.device, precision=request.precision
        )
        for model, name in zip(given, short, strict=True)
    }


def _taken(strategies: Sequence[Strategy], model: str, predictor: Predictor) -> list[Strategy]:
    """The strategies whose prompts the model takes; the others are named."""
    refused = [s for s in strategies if not s.dialogue.kinds <= predictor.accepts]
    for strategy in refused:
        kinds = " and ".join(sorted(strategy.dialogue.kinds - predictor.accepts))
        warn([f"{model} takes no {kinds} prompts; {strategy.name} is left out for it"])
    return [strategy for strategy in strategies if strategy not in refused]


def _measure(
    request: EvaluateRequest,
    cases: Sequence[Case],
    predictors: dict[str, Predictor],
    taken: dict[str, list[Strategy]],
    files: dict[str, Path],
) -> dict[str, Any]:
    """Measure all cases, writing the rows as they come; returns the summary."""
    from napari_sam_med.evaluation.cases import read_case
    from napari_sam_med.evaluation.measuring import SliceChoice, measure_baselines, measure_model
    from napari_sam_med.evaluation.results_file import write_header, write_scores
    from napari_sam_med.evaluation.summary import summarised

    choice = SliceChoice(request.plane, request.every, request.min_area)
    scores: list[SliceScore] = []
    baselines: list[SliceScore] = []
    warnings: list[str] = []
    for stale in ("summary", "report"):  # of an earlier run: they would belong to other results
        files[stale].unlink(missing_ok=True)
    with files["results"].open("w", encoding="utf-8", newline="") as results:
        write_header(results)
        for number, case in enumerate(cases, start=1):
            volume, labels = read_case(case)
            warnings += warn(f"{case.name}: {text}" for text in (*volume.warnings, *labels.warnings))
            baselines += measure_baselines(case.name, labels, choice)
            for model, predictor in predictors.items():
                if not taken[model]:
                    continue
                with progress_bar(f"{model}, volume {number} of {len(cases)}") as show:
                    for measured in measure_model(
                        case.name,
                        volume,
                        labels,
                        predictor,
                        taken[model],
                        model=model,
                        choice=choice,
                        seed=request.seed,
                    ):
                        write_scores(results, measured.scores, case.image, request.seed)
                        scores += measured.scores
                        show(measured.progress)
    if not scores:
        raise ImageError(
            f"No {request.plane} slice has {request.min_area} pixels of an organ; check the labels, or lower "
            "--min-area."
        )
    run = {
        "plane": request.plane,
        "every": request.every,
        "min_area": request.min_area,
        "seed": request.seed,
        "device": str(next(iter(predictors.values())).device),
        "model_sha256": {model: predictor.model_hash for model, predictor in predictors.items()},
    }
    return {"version": 1, "run": run, "warnings": warnings, **summarised(scores, baselines)}


def _write_text(path: Path, text: str) -> None:
    from napari_sam_med.volume.replacement import Replacement

    with Replacement(path, path.suffix) as file:
        file.temporary.write_text(text, encoding="utf-8")
        file.put_in_place()
