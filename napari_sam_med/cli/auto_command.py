"""The command that finds masks without a prompt, added to the application of `commands`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from napari_sam_med.cli.case_options import Every
from napari_sam_med.cli.commands import FLAG, Device, Json, Model, Precision, _Command, app

__all__ = ["app"]


class Format(StrEnum):
    """What the output holds."""

    labels = "labels"
    masks = "masks"
    coco = "coco"


class Planes(StrEnum):
    """Planes that slices are searched in."""

    axial = "axial"
    coronal = "coronal"
    sagittal = "sagittal"


class OnTop(StrEnum):
    """Which of two objects gets a voxel of both."""

    smaller = "smaller"
    surer = "surer"


@app.command(cls=_Command)
def auto(
    volume: Annotated[
        Path, typer.Argument(metavar="VOLUME", help="Volume: NIfTI, NRRD, MetaImage or DICOM.")
    ],
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", metavar="LABELS", help="Labels to write; a folder for masks, .json for coco."
        ),
    ],
    as_format: Annotated[
        Format,
        typer.Option(
            "--format",
            metavar="F",
            help="labels; masks (binary, each in a file of its own, and metadata.csv); coco (run lengths, "
            "JSON).",
        ),
    ] = Format.labels,
    records: Annotated[
        Path | None,
        typer.Option("--records", "-r", metavar="R.json", help="What is known of every object (JSON)."),
    ] = None,
    plane: Annotated[
        Planes, typer.Option("--plane", metavar="PLANE", help="axial, coronal or sagittal.")
    ] = Planes.axial,
    slice_index: Annotated[
        int | None,
        typer.Option(
            "--slice", metavar="N", help="This slice alone, counted from 0 along the file's own axis."
        ),
    ] = None,
    every: Every = 1,
    points_per_side: Annotated[
        int, typer.Option("--points-per-side", min=1, metavar="N", help="Ask N x N points on a slice.")
    ] = 32,
    spacing_mm: Annotated[
        float | None,
        typer.Option("--spacing-mm", metavar="MM", help="Or points so far apart, the same on every scan."),
    ] = None,
    values: Annotated[
        str,
        typer.Option("--range", metavar="LOW,HIGH", help="Ask only where the scan has such values."),
    ] = "",
    body_only: Annotated[
        bool, typer.Option("--body/--everywhere", metavar=FLAG, help="Ask in the body only, or in air, too.")
    ] = True,
    min_voxels: Annotated[
        int | None, typer.Option("--min-voxels", min=1, metavar="N", help="Leave smaller objects out.")
    ] = None,
    min_slices: Annotated[
        int | None,
        typer.Option("--min-slices", min=1, metavar="N", help="Searched slices that must show an object."),
    ] = None,
    min_iou: Annotated[
        float | None, typer.Option("--min-iou", metavar="P", help="Least predicted IoU of a mask; SAM: 0.88.")
    ] = None,
    min_stability: Annotated[
        float | None,
        typer.Option("--min-stability", metavar="P", help="Least stability of a mask; SAM: 0.95."),
    ] = None,
    most: Annotated[
        int | None, typer.Option("--most", min=1, metavar="N", help="Keep the N objects of best score.")
    ] = None,
    on_top: Annotated[
        OnTop,
        typer.Option("--on-top", metavar="WHICH", help="Where objects overlap: the smaller, or the surer."),
    ] = OnTop.smaller,
    named: Annotated[
        bool, typer.Option("--named/--not-named", metavar=FLAG, help="Name the organs, or only number them.")
    ] = True,
    each_once: Annotated[
        bool,
        typer.Option(
            "--each-once/--repeats", metavar=FLAG, help="No organ twice, or as often as it is found."
        ),
    ] = True,
    window: Annotated[
        str,
        typer.Option(
            "--window", "-w", metavar="W", help="auto, soft-tissue, lung, bone, brain, liver, or LOW,HIGH."
        ),
    ] = "auto",
    model: Model = "nano",
    device: Device = "auto",
    precision: Annotated[
        Precision, typer.Option("--precision", metavar="P", help="auto, fp32 or bf16.")
    ] = Precision.auto,
    as_json: Json = False,
) -> int:
    """Find the objects of a volume without a prompt."""
    from napari_sam_med.cli.auto import AutoRequest, range_of, run_auto

    request = AutoRequest(
        volume=volume,
        output=output,
        format=as_format.value,
        records=records,
        plane=plane.value,
        slice_index=slice_index,
        every=every,
        points_per_side=points_per_side,
        spacing_mm=spacing_mm,
        values=range_of(values),
        body_only=body_only,
        min_voxels=min_voxels,
        min_slices=min_slices,
        min_iou=min_iou,
        min_stability=min_stability,
        most=most,
        surer_on_top=on_top is OnTop.surer,
        named=named,
        each_once=each_once,
        window=window,
        model=model,
        device=device,
        precision=precision.value,
    )
    return run_auto(request, as_json=as_json)
