"""``demo``: the main job on the bundled sample."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_sam_med.cli.console import print_json, say, warn
from napari_sam_med.cli.segment import Outcome, SegmentRequest, segment_file, show_objects
from napari_sam_med.cli.viewer import has_display, open_in_napari
from napari_sam_med.errors import ExportError
from napari_sam_med.sample_data import sample_labels, sample_prompts, sample_volume
from napari_sam_med.volume.replacement import Replacement

if TYPE_CHECKING:
    from napari_sam_med.volume.labels import LabelVolume

__all__ = ["run_demo"]

DISCLAIMER = "Not for clinical use."


def run_demo(output: Path, *, headless: bool, model: str, device: str, as_json: bool) -> int:
    """Run the command; returns the exit status."""
    if not headless:
        if has_display():
            return open_in_napari(sample_volume(), None, model, device)
        warn(["there is no display; writing files instead of opening napari"])
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ExportError(
            f"The folder {output} cannot be made: {error.strerror}; choose another one with --output."
        ) from error
    request = SegmentRequest(
        volume=sample_volume(),
        prompts=sample_prompts(),
        output=output / "labels.nii.gz",
        report=output / "report.json",
        model=model,
        device=device,
    )
    outcome = segment_file(request)
    pictures = _compare_and_draw(outcome, output)
    if as_json:
        print_json(outcome.report)
        return 0
    show_objects(outcome.report, "The bundled sample, segmented from a few boxes and a click")
    mean = sum(entry["dice"] for entry in outcome.report["objects"]) / len(outcome.report["objects"])
    seconds = outcome.report["seconds"]["total"]
    say(f"\nMean Dice {mean:.3f} against the sample's own labels, {seconds:.1f} s.")
    for path in (request.output, request.report, *pictures):
        say(f"  {path}")
    say(DISCLAIMER)
    return 0


def _compare_and_draw(outcome: Outcome, output: Path) -> list[Path]:
    """Add Dice to the report, write it, and draw one picture a plane."""
    from napari_sam_med.segmentation.report import write_json
    from napari_sam_med.segmentation.views import draw_views
    from napari_sam_med.volume.reading import read_labels

    labels = outcome.segmentation.labels
    _add_truth(outcome.report, labels, read_labels(sample_labels(), reference=outcome.volume))
    notes = {entry["label"]: _note(entry) for entry in outcome.report["objects"]}
    paths = []
    for plane, picture in draw_views(outcome.volume, labels, notes=notes).items():
        paths.append(_save(picture, output / f"{plane}.png"))
    outcome.report["pictures"] = [str(path) for path in paths]
    write_json(output / "report.json", outcome.report)
    return paths


def _add_truth(report: dict[str, Any], labels: LabelVolume, truth: LabelVolume) -> None:
    """Add ``dice`` against true labels on the same grid to each object of a report, in place."""
    from napari_sam_med.evaluation.metrics import dice

    for entry in report["objects"]:
        class_id = entry["label"]
        entry["dice"] = round(dice(labels.data == class_id, truth.data == class_id), 4)


def _save(picture: Any, path: Path) -> Path:
    try:
        with Replacement(path, ".png") as file:
            picture.save(file.temporary)
            file.put_in_place()
    except OSError as error:
        raise ExportError(
            f"{path} could not be written: {error.strerror or error}; free some space."
        ) from error
    return path


def _note(entry: dict[str, Any]) -> str:
    return f"{entry['volume_ml']:.0f} ml, Dice {entry['dice']:.2f}"
