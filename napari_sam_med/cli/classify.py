"""``classify``: which organ each label is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_sam_med.cli.console import print_json, progress_bar, say_faintly, show_table, warn
from napari_sam_med.cli.outputs import check_input, check_output

if TYPE_CHECKING:
    from napari_sam_med.segmentation.organ_objects import OrganGuess
    from napari_sam_med.volume.labels import LabelVolume
    from napari_sam_med.volume.volume import Volume

__all__ = ["ClassifyRequest", "classified", "doubts_of_modality", "run_classify"]


@dataclass(frozen=True)
class ClassifyRequest:
    """What the user typed."""

    volume: Path
    labels: Path
    classifier: Path | None = None
    output: Path | None = None
    model: str | None = None
    device: str = "auto"
    each_once: bool = True


def run_classify(request: ClassifyRequest, *, as_json: bool) -> int:
    """Run the command; returns the exit status."""
    check_input(request.volume, "volume")
    check_input(request.labels, "label file")
    if request.output is not None:
        check_output(request.output, (request.volume, request.labels))
    from napari_sam_med.segmentation.report import write_json
    from napari_sam_med.volume.reading import read_labels, read_volume

    volume = read_volume(request.volume)
    warn(volume.warnings)
    labels = read_labels(request.labels, reference=volume)
    warn(labels.warnings)
    found = classified(volume, labels, request)
    document = {"objects": [{"label": label} | guess.to_json() for label, guess in found.items()]}
    if request.output is not None:
        write_json(request.output, document)
    if as_json:
        print_json(document)
    else:
        _show(labels, found, str(request.labels))
    return 0


def classified(volume: Volume, labels: LabelVolume, request: ClassifyRequest) -> dict[int, OrganGuess]:
    """Organ of each label present.

    Raises
    ------
    ModelError
        When classifier or model cannot be loaded or do not belong together.
    LabelError
        When no label is there.
    """
    from napari_sam_med.sam.predictor import load_predictor
    from napari_sam_med.segmentation.organ_classifier import load_classifier
    from napari_sam_med.segmentation.organ_objects import classify_labels

    classifier = load_classifier(request.classifier)
    if request.classifier is None:
        warn(doubts_of_modality(volume))
    predictor = load_predictor(
        request.model or classifier.facts.model, device=request.device, precision="fp32"
    )
    with progress_bar(f"Classifying with {predictor.record.name}") as on_progress:
        return classify_labels(
            volume, labels, predictor, classifier, each_once=request.each_once, on_progress=on_progress
        )


def doubts_of_modality(volume: Volume) -> list[str]:
    """What is to be said before the bundled classifier names organs of a scan that is no CT."""
    if volume.is_hounsfield:
        return []
    return [
        f"{volume.name} does not look like CT in Hounsfield units, which the bundled classifier is made for: "
        "its names may be wrong, however probable."
    ]


def _show(labels: LabelVolume, found: dict[int, OrganGuess], title: str) -> None:
    columns = {
        "label": "right",
        "name in the file": "left",
        "organ": "left",
        "probability": "right",
        "": "left",
    }
    rows: list[list[Any]] = [
        [
            str(label),
            labels.organs.name_of(label),
            guess.name,
            f"{guess.probability:.2f}",
            "unsure" if guess.abstained else "",
        ]
        for label, guess in found.items()
    ]
    show_table(title, columns, rows)
    if any(guess.abstained for guess in found.values()):
        say_faintly("  unsure: the best guess, but not likely enough to rely on")
