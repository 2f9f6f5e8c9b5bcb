"""The command that fills the embedding store, added to the application of `commands`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from napari_sam_med.cli.case_options import CropToBody, Planes
from napari_sam_med.cli.cluster_options import Scheduler, Workers
from napari_sam_med.cli.commands import Device, Json, Model, Precision, _Command, app

__all__ = ["app"]


@app.command(cls=_Command)
def embed(
    volumes: Annotated[
        list[Path] | None,
        typer.Argument(metavar="VOLUME...", help="Volumes: NIfTI, NRRD, MetaImage or DICOM."),
    ] = None,
    cases: Annotated[
        Path | None,
        typer.Option("--cases", "-c", metavar="C.csv", help='Or a CSV file with a column "image".'),
    ] = None,
    planes: Planes = "axial",
    window: Annotated[
        str,
        typer.Option(
            "--window", "-w", metavar="W", help="auto, soft-tissue, lung, bone, brain, liver, or LOW,HIGH."
        ),
    ] = "auto",
    crop_to_body: CropToBody = False,
    model: Model = "nano",
    device: Device = "auto",
    precision: Annotated[
        Precision, typer.Option("--precision", metavar="P", help="auto, fp32 or bf16.")
    ] = Precision.auto,
    scheduler: Scheduler = "",
    workers: Workers = None,
    as_json: Json = False,
) -> int:
    """Embed whole volumes ahead of time, so that clicks on any slice are answered at once."""
    from napari_sam_med.cli.embed import EmbedRequest, run_embed

    request = EmbedRequest(
        volumes=tuple(volumes or ()),
        cases=cases,
        planes=planes,
        window=window,
        crop_to_body=crop_to_body,
        model=model,
        device=device,
        precision=precision.value,
        scheduler=scheduler,
        workers=workers,
    )
    return run_embed(request, as_json=as_json)
