"""``edges``: where the masks of a grid of points end, as a volume on the scan's grid; measured on request."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from napari_sam_med.cli.console import print_json, progress_bar, say, say_faintly, show_table
from napari_sam_med.cli.slice_search import OpenedSearch, SliceSearch, open_search
from napari_sam_med.errors import ExportError
from napari_sam_med.volume.image_writing import IMAGE_ENDINGS
from napari_sam_med.wording import number_of

__all__ = ["EdgesRequest", "run_edges"]

_FIGURES = ("ods", "ois", "ap", "r50")


@dataclass(frozen=True)
class EdgesRequest:
    """What the user typed."""

    search: SliceSearch
    output: Path
    points_per_side: int = 16
    box_nms_thresh: float = 0.7
    thin: bool = True
    pred_iou_thresh: float = 0.0
    stability_score_thresh: float = 0.0


def run_edges(request: EdgesRequest, *, as_json: bool) -> int:
    """Run the command; returns the exit status."""
    from napari_sam_med.segmentation.automatic.edges import EdgeOptions
    from napari_sam_med.segmentation.report import write_json

    options = EdgeOptions(
        request.points_per_side,
        request.box_nms_thresh,
        request.thin,
        request.pred_iou_thresh,
        request.stability_score_thresh,
    )
    name = request.output.name.lower()
    if not name.endswith(IMAGE_ENDINGS) or name.endswith(".seg.nrrd"):
        raise ExportError(
            f"{request.output}: edges are written as {', '.join(IMAGE_ENDINGS)}; give a name that ends so."
        )
    opened = open_search(request.search, [request.output])
    start = time.perf_counter()
    scores = _search(request, opened, options)
    report: dict[str, Any] = {
        "volume": str(request.search.volume),
        "edges": str(request.output),
        "model": opened.predictor.record.name,
        "plane": request.search.plane,
        "slices": sorted(opened.volume.grid.file_index(view) for view in opened.views),
        "points_per_side": options.points_per_side,
        "thin": options.thin,
        "seconds": time.perf_counter() - start,
        "warnings": opened.warnings,
        "scores": scores,
    }
    if request.search.scores is not None:
        write_json(request.search.scores, report)
    if as_json:
        print_json(report)
    else:
        _show(report)
    return 0


def _search(request: EdgesRequest, opened: OpenedSearch, options: Any) -> dict[str, Any] | None:
    """Find the edges, write them, and measure them where there are labels."""
    import numpy as np

    from napari_sam_med.evaluation.edge_scores import EdgeMeter
    from napari_sam_med.sam.embedding_store import default_store
    from napari_sam_med.segmentation.automatic.edges import search_edges
    from napari_sam_med.volume.image_writing import write_image
    from napari_sam_med.volume.intensity import to_rgb

    edges = np.zeros(opened.volume.shape, dtype=np.float32)
    meter = EdgeMeter(opened.predictor.record.name)
    with progress_bar(f"Edges with {opened.predictor.record.name}") as on_progress:
        for step in search_edges(
            opened.volume,
            opened.predictor,
            opened.views,
            options,
            window=opened.window,
            store=default_store(),
            body_only=request.search.body_only,
            on_points=on_progress,
        ):
            step.view.insert(edges, step.edges)
            if opened.labels is not None:
                image = to_rgb(opened.volume, step.view, opened.window)
                meter.add(step.edges, image, step.view.extract(opened.labels.data))
    write_image(request.output, edges, opened.volume)
    return None if opened.labels is None else meter.summary()


def _show(report: dict[str, Any]) -> None:
    slices = report["slices"]
    many = (
        f"{len(slices)} {report['plane']} slices"
        if len(slices) > 1
        else f"{report['plane']} slice {slices[0]}"
    )
    say(f"{report['edges']}: edges of {many}, {report['seconds']:.0f} s")
    scores = report["scores"]
    if scores is None:
        return
    say(f"borders of labels on {number_of(scores['slices'], 'slice')}, found within a distance:")
    columns = {"edges": "left", "ODS": "right", "OIS": "right", "AP": "right", "R50": "right"}
    for distance, methods in scores["max_distance"].items():
        pixels = " to ".join(f"{reach:g}" for reach in sorted({methods["pixels"][0], methods["pixels"][-1]}))
        rows = [
            [method, *_cells([figures[key] for key in _FIGURES])]
            for method, figures in methods.items()
            if method != "pixels" and figures is not None
        ]
        show_table(f"{distance} of the diagonal, {pixels} px", columns, rows)
    for data, published in scores["published"].items():
        rows = [
            [method, *_cells([figures[key] for key in _FIGURES])] for method, figures in published.items()
        ]
        show_table(f"published, {data} (photographs)", columns, rows)
    say_faintly(
        "  Labels show some organs and not all edges: right edges of anything else count as wrong here.",
        indent=2,
    )


def _cells(figures: list[float | None]) -> list[str]:
    return ["" if figure is None else f"{figure:.3f}" for figure in figures]
