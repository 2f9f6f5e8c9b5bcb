"""``segment --cases``: many volumes, each with its own prompts and its own labels to write."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_sam_med.cli.case_rows import read_rows
from napari_sam_med.cli.cluster_options import device_here, workers_of
from napari_sam_med.cli.console import print_error, print_json, progress_bar, say, show_table, warn
from napari_sam_med.cli.outputs import check_label_output, check_output
from napari_sam_med.cli.segment import SLICEWISE, SegmentRequest, check_request, segment_file
from napari_sam_med.errors import ExportError, ImageError, PromptError
from napari_sam_med.progress import Progress
from napari_sam_med.volume.formats.sidecar import path_beside

if TYPE_CHECKING:
    from napari_sam_med.cluster.workers import Cluster
    from napari_sam_med.sam.shared_model import SharedModel

__all__ = ["SegmentCases", "run_segment_cases"]

_AGAIN = "labels that are written stay, and the same command with --resume makes the others."


@dataclass(frozen=True)
class SegmentCases:
    """What the user typed.

    Attributes
    ----------
    cases : Path
        CSV file with the columns ``image,prompts,output``.
    each : SegmentRequest
        What holds for all of them; its paths are replaced by those of the file.
    report : Path or None
    resume : bool
        Leave out cases whose labels are there already.
    """

    cases: Path
    each: SegmentRequest
    report: Path | None = None
    resume: bool = False
    scheduler: str = ""
    workers: int | None = None


@dataclass(frozen=True)
class _Task:
    request: SegmentRequest
    model: SharedModel | None
    names_organs: bool


def run_segment_cases(request: SegmentCases, *, as_json: bool) -> int:
    """Run the command; returns the exit status."""
    named = _requests(request)
    due = [(name, one) for name, one in named if not (request.resume and one.output.is_file())]
    model = _model(request)
    tasks = [_Task(one, model, as_json or request.report is not None) for _, one in due]
    found: dict[int, dict[str, Any]] = {}
    try:
        with (
            workers_of(request.scheduler, request.workers, request.each.device) as cluster,
            progress_bar("Segmenting") as on_progress,
        ):
            for number, report in _reports(tasks, cluster):
                name = due[number][0]
                found[number] = {"case": name, **report}
                if "error" in report:
                    print_error(f"{name}: {report['error']}")
                else:
                    warn(f"{name}: {text}" for text in report["warnings"])
                on_progress(Progress(len(found), len(tasks), "volumes"))
    except KeyboardInterrupt:
        raise KeyboardInterrupt(_AGAIN) from None
    document = {"kept": len(named) - len(due), "cases": [found[number] for number in sorted(found)]}
    if request.report is not None:
        from napari_sam_med.segmentation.report import write_json

        write_json(request.report, document)
    if as_json:
        print_json(document)
    else:
        _show(document)
    return 2 if any("error" in report for report in found.values()) else 0


def _requests(request: SegmentCases) -> list[tuple[str, SegmentRequest]]:
    """What is to be done for each row, checked before any of it is."""
    rows = read_rows(request.cases, ["image", "prompts"], ["output"])
    inputs = (request.cases, *(row.paths[column] for row in rows for column in ("image", "prompts")))
    outputs = Counter(_real(row.paths["output"]) for row in rows)
    twice = next((path for path, count in outputs.items() if count > 1), None)
    if twice is not None:
        raise ExportError(
            f"{request.cases.name} has {twice.name} as the output of {outputs[twice]} rows; name one each."
        )
    for row in rows:
        check_label_output(row.paths["output"], inputs)
    if request.report is not None:
        check_output(request.report, inputs)
        if any(_real(request.report) in (path, path_beside(path)) for path in outputs):
            raise ExportError(f"{request.report} is written for labels; give the report another name.")
    found = []
    for row in rows:
        paths = row.paths
        one = replace(request.each, volume=paths["image"], prompts=paths["prompts"], output=paths["output"])
        check_request(one)
        found.append((row.name, one))
    return found


def _real(path: Path) -> Path:
    """A path by which files can be told apart."""
    return Path(os.path.realpath(path))


def _model(request: SegmentCases) -> SharedModel | None:
    """The model as all machines load it; None where a video model does the work."""
    each = request.each
    if each.engine != SLICEWISE:
        return None
    from napari_sam_med.sam.shared_model import SharedModel

    here = device_here(each.device, request.scheduler)
    return SharedModel.of(each.model, each.device, each.precision, each.preprocessing, here=here)


def _reports(tasks: list[_Task], cluster: Cluster | None) -> Iterator[tuple[int, dict[str, Any]]]:
    if cluster is not None:
        yield from cluster.each(_segmented, tasks)
        return
    for number, task in enumerate(tasks):
        yield number, _segmented(task)


def _segmented(task: _Task) -> dict[str, Any]:
    """Segment one volume; what is wrong with it alone does not end the others."""
    try:
        return segment_file(
            task.request, names_organs=task.names_organs, quietly=True, model=task.model
        ).report
    except (ImageError, PromptError) as error:
        return {"error": str(error)}


def _show(document: dict[str, Any]) -> None:
    columns = {"case": "left", "labels": "left", "objects": "right", "ml": "right", "s": "right"}
    cells = [
        [
            one["case"],
            Path(one["labels"]).name,
            str(len(one["objects"])),
            f"{sum(entry['volume_ml'] for entry in one['objects']):.1f}",
            f"{one['seconds']['total']:.1f}",
        ]
        for one in document["cases"]
        if "error" not in one
    ]
    if cells:
        show_table("Labels", columns, cells)
    if document["kept"]:
        say(f"  {document['kept']} were there already")
