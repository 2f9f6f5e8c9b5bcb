"""``proposals``: ranked boxes of what may be an object, on slices and in the volume; measured on request."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_sam_med.cli.console import print_json, progress_bar, say, say_faintly, show_table
from napari_sam_med.cli.slice_search import OpenedSearch, SliceSearch, open_search
from napari_sam_med.errors import ExportError
from napari_sam_med.wording import number_of

if TYPE_CHECKING:
    import numpy.typing as npt

    from napari_sam_med.evaluation.detections import Detection
    from napari_sam_med.evaluation.proposal_recall import RecallMeter
    from napari_sam_med.segmentation.automatic.proposals import (
        ProposalOptions,
        ProposedSlice,
        VolumeBox,
    )
    from napari_sam_med.volume.volume import Volume

__all__ = ["ProposalsRequest", "run_proposals"]

_ENDINGS = (".csv", ".json")
_SINGLE = "single output"


@dataclass(frozen=True)
class ProposalsRequest:
    """What the user typed."""

    search: SliceSearch
    output: Path
    points_per_side: int = 32
    box_nms_thresh: float = 0.9
    single: bool = False
    most: int = 1000
    organ: str = "object"
    volume_boxes: Path | None = None
    min_area: int = 1


@dataclass(frozen=True, eq=False)
class _Found:
    """What a run found."""

    detections: list[Detection]
    boxes: list[VolumeBox]
    scores: dict[str, Any] | None


def run_proposals(request: ProposalsRequest, *, as_json: bool) -> int:
    """Run the command; returns the exit status."""
    from napari_sam_med.segmentation.automatic.proposals import ProposalOptions
    from napari_sam_med.segmentation.report import write_json

    options = ProposalOptions(
        request.points_per_side, request.box_nms_thresh, not request.single, request.most
    )
    if not request.output.name.lower().endswith(_ENDINGS):
        raise ExportError(
            f"{request.output}: boxes are written as {' or '.join(_ENDINGS)}; give a name that ends so."
        )
    outputs = [request.output, *(() if request.volume_boxes is None else (request.volume_boxes,))]
    opened = open_search(request.search, outputs)
    start = time.perf_counter()
    found = _search(request, opened, options)
    _write_boxes(request.output, found.detections)
    if request.volume_boxes is not None:
        write_json(request.volume_boxes, _volume_document(found.boxes, opened.volume))
    report: dict[str, Any] = {
        "volume": str(request.search.volume),
        "boxes": str(request.output),
        "model": opened.predictor.record.name,
        "plane": request.search.plane,
        "slices": sorted(opened.volume.grid.file_index(view) for view in opened.views),
        "points_per_side": options.points_per_side,
        "multimask": options.multimask,
        "proposals": len(found.detections),
        "volume_boxes": len(found.boxes),
        "seconds": time.perf_counter() - start,
        "warnings": opened.warnings,
        "scores": found.scores,
    }
    if request.search.scores is not None:
        write_json(request.search.scores, report)
    if as_json:
        print_json(report)
    else:
        _show(report, request.volume_boxes)
    return 0


def _search(request: ProposalsRequest, opened: OpenedSearch, options: ProposalOptions) -> _Found:
    """Propose, and measure where there are labels."""
    from napari_sam_med.evaluation.proposal_recall import RecallMeter
    from napari_sam_med.sam.embedding_store import default_store
    from napari_sam_med.segmentation.automatic.proposals import boxes_of_objects, search_proposals

    detections: list[Detection] = []
    boxes: list[VolumeBox] = []
    meter = RecallMeter(request.min_area)
    with progress_bar(f"Proposals with {opened.predictor.record.name}") as on_progress:
        for step in search_proposals(
            opened.volume,
            opened.predictor,
            opened.views,
            options,
            window=opened.window,
            store=default_store(),
            body_only=request.search.body_only,
            on_points=on_progress,
        ):
            detections += _detections(request, step)
            if opened.labels is not None:
                labels_hw = step.view.extract(opened.labels.data)
                if labels_hw.any():
                    _measure(meter, opened, step, options, labels_hw)
            if step.progress.done == step.progress.total:
                boxes = boxes_of_objects(step.linker.objects(), opened.volume.shape)
    return _Found(detections, boxes, None if opened.labels is None else meter.summary())


def _measure(
    meter: RecallMeter,
    opened: OpenedSearch,
    step: ProposedSlice,
    options: ProposalOptions,
    labels_hw: npt.NDArray[Any],
) -> None:
    """Measure a slice; where three masks a point were asked, one mask a point is measured beside."""
    from napari_sam_med.sam.embedding_store import default_store
    from napari_sam_med.segmentation.automatic.proposals import propose
    from napari_sam_med.segmentation.slicewise import embed_slice
    from napari_sam_med.volume.intensity import to_rgb

    image = to_rgb(opened.volume, step.view, opened.window)
    name = opened.predictor.record.name
    answers = {name if options.multimask else f"{name}, {_SINGLE}": step.proposals}
    if options.multimask:
        embedding = embed_slice(
            opened.volume, step.view, opened.predictor, window=opened.window, store=default_store()
        )
        answers[f"{name}, {_SINGLE}"] = propose(
            image, opened.predictor, replace(options, multimask=False), embedding=embedding
        )
    masks = {method: [one.found for one in proposals] for method, proposals in answers.items()}
    meter.add(masks, image, labels_hw)


def _detections(request: ProposalsRequest, step: ProposedSlice) -> list[Detection]:
    from napari_sam_med.evaluation.detections import Detection

    return [
        Detection(
            request.search.volume.name,
            step.view,
            tuple(float(side) for side in one.box_xyxy),  # type: ignore[arg-type]  # four of four
            max(one.score, 0.0),
            organ=request.organ,
        )
        for one in step.proposals
    ]


def _write_boxes(path: Path, detections: Sequence[Detection]) -> None:
    """Whole or not at all."""
    from napari_sam_med.evaluation.detections import write_detections
    from napari_sam_med.volume.replacement import Replacement

    with Replacement(path, path.suffix.lower()) as file:
        write_detections(file.temporary, detections)
        file.put_in_place()


def _volume_document(boxes: Sequence[VolumeBox], volume: Volume) -> dict[str, Any]:
    """Boxes in the file's own voxels, as prompts files count them: both corners inside."""
    entries = []
    for box in boxes:
        ends = (volume.grid.ijk_from_index_zyx(corner) for corner in (box.first_zyx, box.last_zyx))
        low, high = zip(
            *(sorted(round(side) for side in pair) for pair in zip(*ends, strict=True)), strict=True
        )
        entries.append({"from": list(low), "to": list(high), "score": box.score})
    return {"version": 1, "space": "voxel", "volume": volume.name, "boxes": entries}


def _show(report: dict[str, Any], volume_boxes: Path | None) -> None:
    slices = report["slices"]
    many = (
        f"{len(slices)} {report['plane']} slices"
        if len(slices) > 1
        else f"{report['plane']} slice {slices[0]}"
    )
    say(f"{report['boxes']}: {number_of(report['proposals'], 'box')} on {many}; {report['seconds']:.0f} s")
    if volume_boxes is not None:
        say(f"{volume_boxes}: {number_of(report['volume_boxes'], 'box')} in the volume, linked from these")
    scores = report["scores"]
    if scores is None:
        return
    objects = scores["objects"]
    sizes = ", ".join(f"{objects[size]} {size}" for size in ("small", "medium", "large"))
    keys = ("ar@10", "ar@100", "ar@1000", "ar@1000_small", "ar@1000_medium", "ar@1000_large")
    columns = {"proposals": "left", "a slice": "right"}
    columns |= {
        key.upper().replace("AR@1000_", "").lower() if "_" in key else key.upper(): "right" for key in keys
    }
    for kind in ("masks", "boxes"):
        rows = [
            [method, f"{figures['proposals']:.0f}", *_cells([figures[kind][key] for key in keys])]
            for method, figures in scores["methods"].items()
        ]
        what = f"{number_of(objects['all'], 'object')} on {number_of(scores['slices'], 'slice')}"
        title = f"average recall of {kind}: {what} ({sizes})"
        show_table(title, columns, rows)
    for data, published in scores["published"].items():
        rows = [
            [method, "", "", "", *_cells([figures[size] for size in ("all", "small", "medium", "large")])]
            for method, figures in published.items()
        ]
        show_table(f"published: {data} (photographs; SAM paper, table 4)", columns, rows)
    say_faintly(
        "  small: up to 32 x 32 pixels, medium: up to 96 x 96; an object is a connected piece of a label"
    )


def _cells(figures: Sequence[float | None]) -> list[str]:
    return ["" if figure is None else f"{figure:.3f}" for figure in figures]
