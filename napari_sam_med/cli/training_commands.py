"""Commands that train models, added to the application of `commands`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from napari_sam_med.cli.case_options import Every, MinArea, Names, Planes
from napari_sam_med.cli.cluster_options import Scheduler, Workers
from napari_sam_med.cli.commands import Device, Json, Model, Precision, _Command, app

__all__ = ["app"]


@app.command(cls=_Command)
def finetune(
    cases: Annotated[
        Path,
        typer.Option(
            "--cases",
            "-c",
            metavar="C.csv",
            help='Labelled volumes: CSV with columns "image,labels" and, if wanted, "split" (train, val, '
            "test), or a folder with imagesTr and labelsTr.",
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Folder of the new model.")],
    recipe: Annotated[
        str,
        typer.Option(
            "--recipe", "-r", metavar="NAME", help="default, btcv, sam, gentle, tumour or tumour-points."
        ),
    ] = "default",
    model: Model = "nano",
    names: Names = "",
    seed: Annotated[int, typer.Option("--seed", min=0, metavar="N", help="Seed of prompts and views.")] = 0,
    epochs: Annotated[
        int | None, typer.Option("--epochs", min=1, metavar="N", help="Instead of the recipe's.")
    ] = None,
    views: Annotated[
        int | None,
        typer.Option("--views", min=0, metavar="N", help="Augmented views a slice, instead of the recipe's."),
    ] = None,
    learning_rate: Annotated[
        float | None, typer.Option("--learning-rate", metavar="RATE", help="Instead of the recipe's.")
    ] = None,
    trains: Annotated[
        str,
        typer.Option("--trains", metavar="PART,...", help="mask_decoder, prompt_encoder, lora."),
    ] = "",
    hold_out: Annotated[
        float,
        typer.Option("--hold-out", metavar="SHARE", help="Share of the slices that tell when to stop."),
    ] = 0.2,
    planes: Planes = "axial",
    every: Every = 1,
    min_area: MinArea = 20,
    device: Device = "auto",
    devices: Annotated[
        int, typer.Option("--devices", min=1, metavar="N", help="GPUs, or processes on the cpu, to train on.")
    ] = 1,
    precision: Annotated[
        Precision, typer.Option("--precision", metavar="P", help="auto, fp32 or bf16.")
    ] = Precision.auto,
    scheduler: Scheduler = "",
    workers: Workers = None,
    as_json: Json = False,
) -> int:
    """Fine-tune a model on your own labelled volumes."""
    from napari_sam_med.cli.finetune import FinetuneRequest, run_finetune

    request = FinetuneRequest(
        cases=cases,
        output=output,
        recipe=recipe,
        seed=seed,
        model=model,
        device=device,
        precision=precision.value,
        names=names,
        planes=planes,
        every=every,
        min_area=min_area,
        hold_out=hold_out,
        epochs=epochs,
        views=views,
        learning_rate=learning_rate,
        trains=trains,
        devices=devices,
        scheduler=scheduler,
        workers=workers,
    )
    return run_finetune(request, as_json=as_json)
