"""``segment``: prompts in, labelled volume out."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_sam_med.cli.console import print_json, progress_bar, say_faintly, show_table, warn
from napari_sam_med.cli.doubts import doubtful_objects, looks_like_labels
from napari_sam_med.cli.outputs import check_input, check_label_output, check_output
from napari_sam_med.errors import ExportError
from napari_sam_med.progress import Progress
from napari_sam_med.volume.formats.sidecar import path_beside

if TYPE_CHECKING:
    from napari_sam_med.sam.predictor import Predictor
    from napari_sam_med.sam.shared_model import SharedModel
    from napari_sam_med.segmentation.from_prompts import Segmentation
    from napari_sam_med.segmentation.video_propagation import VideoPropagator
    from napari_sam_med.volume.volume import Volume

__all__ = [
    "SLICEWISE",
    "Outcome",
    "SegmentRequest",
    "check_request",
    "run_segment",
    "segment_file",
    "show_objects",
]


SLICEWISE = "slicewise"
"""The engine that carries masks with the 2-D model; any other is the path of a video model."""


@dataclass(frozen=True)
class SegmentRequest:
    """What the user typed."""

    volume: Path
    prompts: Path
    output: Path
    report: Path | None = None
    propagate: bool = True
    window: str = "auto"
    crop_to_body: bool = False
    model: str = "nano"
    device: str = "auto"
    precision: str = "auto"
    preprocessing: str | None = None
    engine: str = SLICEWISE


@dataclass(frozen=True, eq=False)
class Outcome:
    """What a run made."""

    volume: Volume
    segmentation: Segmentation
    report: dict[str, Any]


class _Clock:
    """Seconds by stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - start


def run_segment(request: SegmentRequest, *, as_json: bool) -> int:
    """Run the command; returns the exit status."""
    outcome = segment_file(request, names_organs=as_json or request.report is not None)
    if request.report is not None:
        from napari_sam_med.segmentation.report import write_json

        write_json(request.report, outcome.report)
    if as_json:
        print_json(outcome.report)
    else:
        show_objects(outcome.report, f"{request.output}")
    return 0


def segment_file(
    request: SegmentRequest,
    *,
    names_organs: bool = False,
    quietly: bool = False,
    model: SharedModel | None = None,
) -> Outcome:
    """Read, segment and write the labels; the report is returned, not written, with organs where asked.

    Quietly nothing is printed: warnings are in the report alone. A shared model is loaded once a process.
    """
    check_request(request)
    from napari_sam_med.segmentation.prompts_file import read_prompts
    from napari_sam_med.volume.formats.dicom import refuse_foreign
    from napari_sam_med.volume.intensity import resolve_window
    from napari_sam_med.volume.reading import read_volume
    from napari_sam_med.volume.writing import refuse_unfit, remarks, write_labels

    clock, warnings = _Clock(), []
    said: Callable[[Iterable[str]], list[str]] = list if quietly else warn
    shows = _no_bar if quietly else progress_bar
    with clock.stage("read"):
        volume = read_volume(request.volume)
        warnings += said(volume.warnings)
        refuse_foreign(request.output, volume.header)
        refuse_unfit(request.output, volume)
        if looks_like_labels(volume):
            warnings += said([f"{request.volume.name} looks like labels, not a scan; check that it is meant"])
        objects = read_prompts(request.prompts, volume)
        window = resolve_window(volume, request.window)
    with clock.stage("load_model"):
        loaded = _load(request) if model is None or request.engine != SLICEWISE else model.load()
    from napari_sam_med.sam.embedding_store import default_store
    from napari_sam_med.segmentation.body import BodyBox
    from napari_sam_med.segmentation.from_prompts import segment_from_prompts

    with clock.stage("segment"), shows(f"Segmenting with {loaded.record.name}") as on_progress:
        segmentation = segment_from_prompts(
            volume,
            objects,
            **_model_or_engine(request, loaded),
            propagated=request.propagate,
            window=window,
            store=default_store(),
            crop=BodyBox.of(volume) if request.crop_to_body else None,
            on_progress=on_progress,
        )
    warnings += said(segmentation.warnings) + segmentation.remarks
    with clock.stage("write"):
        write_labels(request.output, segmentation.labels, source=volume, model=_described(loaded))
        warnings += said(remarks(request.output, len(segmentation.labels.class_ids())))
    report = _report(request, loaded, segmentation, clock.seconds, warnings)
    report["warnings"] += said(doubtful_objects(report, volume.shape))
    if names_organs:
        _name_organs(report, volume, segmentation, loaded)
    seen = {"window": list(window), "crop_to_body": request.crop_to_body}
    return Outcome(volume, segmentation, report | seen)


@contextmanager
def _no_bar(_what: str) -> Iterator[Callable[[Progress], None]]:
    """In place of `progress_bar`."""
    yield lambda _progress: None


def check_request(request: SegmentRequest) -> None:
    """Refuse now what could not be read or written; errors are those of `outputs`."""
    check_input(request.volume, "volume")
    check_input(request.prompts, "prompts file")
    inputs = (request.volume, request.prompts)
    check_label_output(request.output, inputs)
    if request.report is not None:
        check_output(request.report, inputs)
        if request.report.absolute() in (request.output.absolute(), path_beside(request.output.absolute())):
            raise ExportError(f"{request.report} is written for the labels; give the report another name.")


def _load(request: SegmentRequest) -> Predictor | VideoPropagator:
    if request.engine != SLICEWISE:
        from napari_sam_med.segmentation.video_propagation import load_video_propagator

        return load_video_propagator(request.engine, device=request.device, precision=request.precision)
    from napari_sam_med.sam.predictor import load_predictor

    return load_predictor(
        request.model,
        device=request.device,
        precision=request.precision,
        preprocessing=request.preprocessing,
    )


def _model_or_engine(request: SegmentRequest, model: Predictor | VideoPropagator) -> dict[str, Any]:
    """What the segmentation is given: a video model answers the prompted slices itself."""
    if request.engine == SLICEWISE:
        return {"predictor": model}
    return {"predictor": None, "engine": model}


def _described(model: Predictor | VideoPropagator) -> dict[str, str]:
    """The model, for the sidecar."""
    return {
        "name": model.record.name,
        "sha256": model.model_hash,
        "device": str(model.device),
        "precision": model.precision,
    }


def _report(
    request: SegmentRequest,
    model: Predictor | VideoPropagator,
    segmentation: Segmentation,
    seconds: dict[str, float],
    warnings: list[str],
) -> dict[str, Any]:
    from napari_sam_med.segmentation.report import RunFacts, report_of

    facts = RunFacts(
        model=model.record.name,
        device=str(model.device),
        precision=model.precision,
        seconds=seconds | {"total": sum(seconds.values())},
        warnings=warnings,
        propagated=request.propagate,
        extra={
            "model_sha256": model.model_hash,
            "volume": str(request.volume),
            "labels": str(request.output),
        },
    )
    return report_of(facts, segmentation.objects, segmentation.found, segmentation.labels)


def _name_organs(
    report: dict[str, Any], volume: Volume, segmentation: Segmentation, model: Predictor | VideoPropagator
) -> None:
    """Give each object of a report what the bundled classifier takes it for; None where it is empty."""
    from napari_sam_med.sam.predictor import Predictor, load_predictor
    from napari_sam_med.segmentation.organ_classifier import load_classifier
    from napari_sam_med.segmentation.organ_objects import classify_labels

    labels, found = segmentation.labels, {}
    if labels.class_ids():
        classifier = load_classifier()
        own = model
        if not isinstance(own, Predictor) or own.model_hash != classifier.facts.model_sha256:
            own = load_predictor(classifier.facts.model, device=str(model.device))
        found = classify_labels(volume, labels, own, classifier)
    for entry in report["objects"]:
        guess = found.get(entry["label"])
        entry["organ"] = None if guess is None else guess.to_json()["organ"]


def show_objects(report: dict[str, Any], title: str) -> None:
    """A table of a report's objects on standard output, and why each ends where it does."""
    has_truth = any("dice" in entry for entry in report["objects"])
    columns = {"label": "right", "name": "left", "ml": "right", "slices": "left", "quality": "right"}
    if has_truth:
        columns["Dice"] = "right"
    rows = []
    for entry in report["objects"]:
        qualities = [row["quality"] for row in entry["slices"]]
        row = [
            str(entry["label"]),
            entry["name"],
            f"{entry['volume_ml']:.1f}",
            _slices(entry),
            f"{sum(qualities) / len(qualities):.2f}" if qualities else "",
        ]
        rows.append([*row, f"{entry['dice']:.3f}"] if has_truth else row)
    show_table(title, columns, rows)
    ends = [(entry["name"], _ends(entry)) for entry in report["objects"]]
    if any(text for _, text in ends):
        say_faintly("")
    for name, text in ends:
        if text:
            say_faintly(f"  {name}: {text}", indent=4)


def _slices(entry: dict[str, Any]) -> str:
    first, last = entry["first_slice"], entry["last_slice"]
    if first is None:
        return "none"
    return f"{first}" if first == last else f"{first} to {last}"


def _ends(entry: dict[str, Any]) -> str:
    """Where and why each direction ended; empty when nothing was carried."""
    from napari_sam_med.segmentation.report import NOT_PROPAGATED

    reasons = entry["stop_reasons"]
    if entry["first_slice"] is None or NOT_PROPAGATED in reasons.values():
        return ""
    said = (
        f"{direction} to slice {entry[edge]} ({reasons[direction].partition(' (')[0]})"
        for direction, edge in (("forward", "last_slice"), ("backward", "first_slice"))
    )
    return "; ".join(said)
