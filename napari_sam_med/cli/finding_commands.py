"""The commands that find edges and propose objects, added to the application of `commands`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from napari_sam_med.cli.case_options import Every, MinArea
from napari_sam_med.cli.commands import FLAG, Device, Json, Model, Precision, _Command, app

__all__ = ["app"]

_Volume = Annotated[Path, typer.Argument(metavar="VOLUME", help="Volume: NIfTI, NRRD, MetaImage or DICOM.")]
_Plane = Annotated[str, typer.Option("--plane", metavar="PLANE", help="axial, coronal or sagittal.")]
_Slices = Annotated[
    str,
    typer.Option(
        "--slices",
        "--slice",
        metavar="N-N,...",
        help="Slices, from 0 along the file's own axis: 40-60,80; else all.",
    ),
]
_Window = Annotated[
    str,
    typer.Option(
        "--window", "-w", metavar="W", help="auto, soft-tissue, lung, bone, brain, liver, or LOW,HIGH."
    ),
]
_Labels = Annotated[
    Path | None,
    typer.Option("--labels", "-l", metavar="L", help="Labels of the volume: print how well they are found."),
]
_Scores = Annotated[
    Path | None, typer.Option("--scores", metavar="S.json", help="File for the report and the scores.")
]
_Body = Annotated[
    bool, typer.Option("--body-only", metavar=FLAG, help="Ask at points in the body alone, not in air.")
]
_Precision = Annotated[Precision, typer.Option("--precision", metavar="P", help="auto, fp32 or bf16.")]


@app.command(cls=_Command)
def edges(
    volume: _Volume,
    output: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="EDGES", help="Image to write: .nii.gz, .nii, .nrrd, .mha."),
    ],
    plane: _Plane = "axial",
    slices: _Slices = "",
    every: Every = 1,
    grid: Annotated[
        int, typer.Option("--grid", min=1, metavar="N", help="Ask N x N points on a slice.")
    ] = 16,
    nms: Annotated[
        float, typer.Option("--nms", metavar="IOU", help="Boxes that overlap more count as one mask.")
    ] = 0.7,
    thin: Annotated[
        bool, typer.Option("--thin/--no-thin", metavar=FLAG, help="Edges one pixel wide, or as they come.")
    ] = True,
    min_iou: Annotated[
        float, typer.Option("--min-iou", metavar="P", help="Leave out masks of a lower predicted IoU.")
    ] = 0.0,
    min_stability: Annotated[
        float, typer.Option("--min-stability", metavar="P", help="Leave out masks less stable than this.")
    ] = 0.0,
    body_only: _Body = False,
    window: _Window = "auto",
    labels: _Labels = None,
    scores: _Scores = None,
    model: Model = "nano",
    device: Device = "auto",
    precision: _Precision = Precision.auto,
    as_json: Json = False,
) -> int:
    """Find the edges of everything on slices, without a prompt; 0..1, on the scan's own grid."""
    from napari_sam_med.cli.edges import EdgesRequest, run_edges
    from napari_sam_med.cli.slice_search import SliceSearch

    search = SliceSearch(
        volume, plane, slices, every, window, model, device, precision.value, labels, scores, body_only
    )
    request = EdgesRequest(search, output, grid, nms, thin, min_iou, min_stability)
    return run_edges(request, as_json=as_json)


@app.command(cls=_Command)
def proposals(
    volume: _Volume,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="BOXES", help="Boxes to write: .csv, or .json (COCO).")
    ],
    plane: _Plane = "axial",
    slices: _Slices = "",
    every: Every = 1,
    grid: Annotated[
        int, typer.Option("--grid", min=1, metavar="N", help="Ask N x N points on a slice.")
    ] = 32,
    nms: Annotated[
        float, typer.Option("--nms", metavar="IOU", help="Boxes that overlap more count as one.")
    ] = 0.9,
    single: Annotated[
        bool, typer.Option("--single", metavar=FLAG, help="One mask a point instead of three.")
    ] = False,
    most: Annotated[
        int, typer.Option("--most", min=1, metavar="N", help="Boxes that are kept of a slice.")
    ] = 1000,
    organ: Annotated[
        str, typer.Option("--organ", metavar="NAME", help="Name that the boxes are given.")
    ] = "object",
    volume_boxes: Annotated[
        Path | None,
        typer.Option("--volume-boxes", metavar="B.json", help="File for boxes in 3-D, linked over slices."),
    ] = None,
    body_only: _Body = False,
    window: _Window = "auto",
    labels: _Labels = None,
    min_area: MinArea = 1,
    scores: _Scores = None,
    model: Model = "nano",
    device: Device = "auto",
    precision: _Precision = Precision.auto,
    as_json: Json = False,
) -> int:
    """Propose objects without a prompt: boxes on slices and in the volume, the likeliest first."""
    from napari_sam_med.cli.proposals import ProposalsRequest, run_proposals
    from napari_sam_med.cli.slice_search import SliceSearch

    search = SliceSearch(
        volume, plane, slices, every, window, model, device, precision.value, labels, scores, body_only
    )
    request = ProposalsRequest(
        search, output, grid, nms, single, most, organ.strip() or "object", volume_boxes, min_area
    )
    return run_proposals(request, as_json=as_json)
