"""``train-classifier``: a classifier of organs from labelled volumes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from napari_sam_med.cli.console import print_json, progress_bar, say, show_table, warn
from napari_sam_med.cli.outputs import check_output
from napari_sam_med.errors import ExportError

__all__ = ["TrainClassifierRequest", "run_train_classifier"]


@dataclass(frozen=True)
class TrainClassifierRequest:
    """What the user typed."""

    cases: Path
    output: Path
    recipe: str = "late-fusion"
    names: str = ""
    seed: int = 0
    model: str = "nano"
    device: str = "auto"


def run_train_classifier(request: TrainClassifierRequest, *, as_json: bool) -> int:
    """Run the command; returns the exit status."""
    from napari_sam_med.evaluation.cases import parse_names, read_cases
    from napari_sam_med.sam.predictor import load_predictor

    if request.names:
        parse_names(request.names)
    cases = read_cases(request.cases, request.names)
    _check_folder(request.output)
    predictor = load_predictor(request.model, device=request.device, precision="fp32")
    from napari_sam_med.training.class_head_cases import train_on_cases, write_trained

    with progress_bar("Training") as on_progress:
        trained = train_on_cases(cases, predictor, request.recipe, seed=request.seed, on_progress=on_progress)
    warn(trained.warnings)
    paths = write_trained(request.output, trained)
    facts = trained.classifier.facts
    summary = {
        "classifier": str(request.output),
        "organs": list(facts.organs),
        "temperature": facts.temperature,
        "threshold": facts.threshold,
        **facts.training,
    }
    if as_json:
        print_json(summary)
        return 0
    figures = facts.training["held_out"]
    show_table(
        f"{request.output}: on patients that were not trained on",
        {
            "masks": "right",
            "right": "right",
            "objects right": "right",
            "ECE": "right",
            "unsure below": "right",
        },
        [
            [
                str(figures["masks"]),
                f"{figures['slice_accuracy']:.3f}",
                f"{figures['object_accuracy']:.3f}",
                f"{figures['ece']:.3f}",
                f"{facts.threshold:.2f}",
            ]
        ],
    )
    say()
    for path in paths:
        say(f"  {path}")
    return 0


def _check_folder(folder: Path) -> None:
    """Refuse a folder that cannot be written into; it is made at the end, with the files."""
    if folder.exists() and not folder.is_dir():
        raise ExportError(f"{folder} is a file; give a folder to write the classifier into.")
    nearest = folder.absolute()
    while not nearest.exists():
        nearest = nearest.parent
    check_output(nearest / "classifier.safetensors", ())
