"""The command that segments by one labelled example, added to the application of `commands`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from napari_sam_med.cli.commands import FLAG, Device, Json, Model, Precision, _Command, app

__all__ = ["app"]


class Engine(StrEnum):
    """Ways to find the organ."""

    similarity = "similarity"
    stitching = "stitching"


class Design(StrEnum):
    """Prompts of the stitched image."""

    example = "example"
    random = "random"
    grid = "grid"
    grid_negatives = "grid-negatives"


class Planes(StrEnum):
    """Planes that slices are searched in."""

    axial = "axial"
    coronal = "coronal"
    sagittal = "sagittal"


@app.command(cls=_Command)
def match(
    volume: Annotated[
        Path, typer.Argument(metavar="VOLUME", help="Volume to search: NIfTI, NRRD, MetaImage or DICOM.")
    ],
    example: Annotated[
        Path, typer.Option("--example", metavar="IMAGE", help="Labelled volume; may be VOLUME itself.")
    ],
    example_labels: Annotated[
        Path, typer.Option("--example-labels", metavar="LABELS", help="Its labels; one slice is enough.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="LABELS", help="Labels to write.")],
    only: Annotated[
        str, typer.Option("--only", metavar="ORGAN,...", help="Only these organs: names or numbers.")
    ] = "",
    example_slice: Annotated[
        str,
        typer.Option(
            "--example-slice",
            metavar="N",
            help="Slice of the example, along the file's own axis; best shows most of the organ.",
        ),
    ] = "best",
    engine: Annotated[
        Engine,
        typer.Option("--engine", "-e", metavar="E", help="similarity of features, or stitching of images."),
    ] = Engine.similarity,
    design: Annotated[
        Design,
        typer.Option(
            "--design", metavar="D", help="Clicks in stitched images: example, random, grid, grid-negatives."
        ),
    ] = Design.random,
    instances: Annotated[
        int, typer.Option("--instances", min=1, metavar="N", help="At most so many of an organ.")
    ] = 8,
    min_score: Annotated[
        float, typer.Option("--min-score", min=0, max=1, metavar="S", help="Drop what is less sure, 0..1.")
    ] = 0.3,
    near: Annotated[
        float,
        typer.Option(
            "--near",
            min=0,
            metavar="MM",
            help="Prefer the example's place in the image, give or take MM; 0: anywhere.",
        ),
    ] = 0.0,
    plane: Annotated[
        Planes, typer.Option("--plane", metavar="PLANE", help="axial, coronal or sagittal.")
    ] = Planes.axial,
    every: Annotated[
        int,
        typer.Option("--every", min=0, metavar="N", help="Search each N-th slice; 0: one in about 10 mm."),
    ] = 0,
    propagate: Annotated[
        bool,
        typer.Option(
            "--propagate/--no-propagate",
            metavar=FLAG,
            help="Carry the best slice of each instance through the volume, or label searched slices only.",
        ),
    ] = True,
    window: Annotated[
        str,
        typer.Option(
            "--window", "-w", metavar="W", help="auto, soft-tissue, lung, bone, brain, liver, or LOW,HIGH."
        ),
    ] = "auto",
    seed: Annotated[int, typer.Option("--seed", min=0, metavar="N", help="Seed of random clicks.")] = 0,
    model: Model = "nano",
    device: Device = "auto",
    precision: Annotated[
        Precision, typer.Option("--precision", metavar="P", help="auto, fp32 or bf16.")
    ] = Precision.auto,
    as_json: Json = False,
) -> int:
    """Find the organs of one labelled example in a volume, all instances of each."""
    from napari_sam_med.cli.match import MatchRequest, run_match
    from napari_sam_med.segmentation.matching.matcher import Matching

    matching = Matching(
        engine=engine.value,
        design=design.value,
        plane=plane.value,
        every=every,
        propagate=propagate,
        min_score=min_score,
        most_instances=instances,
        near_mm=near,
        seed=seed,
    )
    request = MatchRequest(
        volume=volume,
        example=example,
        example_labels=example_labels,
        output=output,
        matching=matching,
        only=only,
        example_slice=example_slice,
        window=window,
        model=model,
        device=device,
        precision=precision.value,
    )
    return run_match(request, as_json=as_json)
