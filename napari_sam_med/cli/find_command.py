"""The command that finds what a word means, added to the application of `commands`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from napari_sam_med.cli.commands import Device, Json, Model, _Command, app

__all__ = ["app"]


@app.command(cls=_Command)
def find(
    volume: Annotated[
        Path, typer.Argument(metavar="VOLUME", help="Volume: NIfTI, NRRD, MetaImage or DICOM.")
    ],
    word: Annotated[
        str, typer.Argument(metavar="WORD", help="Name of an organ; any words with --text-model.")
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="LABELS", help="Labels to write: of a clear winner, or of --take."
        ),
    ] = None,
    point: Annotated[
        str, typer.Option("--point", metavar="I,J,K", help="A voxel inside it, in indices of the file.")
    ] = "",
    top: Annotated[int, typer.Option("--top", min=1, metavar="N", help="Candidates to show.")] = 5,
    take: Annotated[
        list[int] | None,
        typer.Option("--take", metavar="N", help="Write this candidate, by its rank; may be given again."),
    ] = None,
    objects: Annotated[
        Path | None,
        typer.Option("--objects", metavar="LABELS", help="Choose among these labels instead of searching."),
    ] = None,
    every: Annotated[
        int, typer.Option("--every", min=1, metavar="N", help="Search each n-th slice; fill those between.")
    ] = 1,
    points_per_side: Annotated[
        int, typer.Option("--points-per-side", min=1, metavar="N", help="Grid of points asked on a slice.")
    ] = 32,
    spacing_mm: Annotated[
        float | None, typer.Option("--spacing-mm", metavar="MM", help="Or points so far apart.")
    ] = None,
    window: Annotated[
        str, typer.Option("--window", "-w", metavar="W", help="As in segment: auto, liver, or LOW,HIGH, ...")
    ] = "auto",
    classifier: Annotated[
        Path | None,
        typer.Option(
            "--classifier", "-c", metavar="C", help="Folder of train-classifier; else the bundled one."
        ),
    ] = None,
    text_model: Annotated[
        Path | None,
        typer.Option(
            "--text-model",
            metavar="PATH",
            help="A CLIP model of yours, for free words: folder with open_clip_config.json, or weights.",
        ),
    ] = None,
    text_architecture: Annotated[
        str | None,
        typer.Option("--text-architecture", metavar="NAME", help="open_clip's name of it, for bare weights."),
    ] = None,
    model: Model = "nano",
    device: Device = "auto",
    as_json: Json = False,
) -> int:
    """Find the object that a word means; shows the candidates, and never guesses."""
    from napari_sam_med.cli.find import FindRequest, run_find

    request = FindRequest(
        volume=volume,
        word=word,
        output=output,
        objects=objects,
        point=_indices(point) if point else None,
        top=top,
        take=tuple(take or ()),
        text_model=text_model,
        text_architecture=text_architecture,
        classifier=classifier,
        window=window,
        every=every,
        points_per_side=points_per_side,
        spacing_mm=spacing_mm,
        model=model,
        device=device,
    )
    return run_find(request, as_json=as_json)


def _indices(text: str) -> tuple[int, int, int]:
    try:
        i, j, k = (int(part) for part in text.split(","))
    except ValueError:
        raise typer.BadParameter(f'"{text}" is no voxel; give three whole numbers I,J,K') from None
    return i, j, k
