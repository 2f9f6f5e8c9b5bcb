"""The command that measures models, added to the application of `commands`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from napari_sam_med.cli.case_options import CropToBody, Every, MinArea, Names, Planes
from napari_sam_med.cli.cluster_options import Scheduler, Workers
from napari_sam_med.cli.commands import FLAG, Device, Json, Precision, _Command, app

__all__ = ["app"]


@app.command(cls=_Command)
def evaluate(
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", help="Folder for what is written.")
    ],
    image: Annotated[Path | None, typer.Option("--image", "-i", metavar="I", help="Labelled volume.")] = None,
    labels: Annotated[Path | None, typer.Option("--labels", "-l", metavar="L", help="Its labels.")] = None,
    cases: Annotated[
        Path | None,
        typer.Option("--cases", "-c", metavar="C.csv", help='Or several: CSV with columns "image,labels".'),
    ] = None,
    strategies: Annotated[
        str,
        typer.Option(
            "--strategies",
            "-s",
            metavar="S,...",
            help="Boxes: bound_box, larger_box[:PIXELS], random_margin_box[:PIXELS], jittered_box[:SHARE], "
            "boxes:FILE. Clicks: center_box, center_mask, center_gaussian, center_bilateral, "
            "center_distance, random_box, random_mask, random_gaussian, random_3, scribble[:POINTS], "
            "background_corner. Dialogue: corrective_clicks[:CLICKS]. Joined: bound_box+center_mask.",
        ),
    ] = "",
    protocol: Annotated[
        str,
        typer.Option(
            "--protocol", metavar="NAME", help="Of a study: tumour-points, box-margins, btcv-prompts."
        ),
    ] = "",
    models: Annotated[
        str, typer.Option("--models", "--model", "-m", metavar="M,...", help="Models: names or paths.")
    ] = "nano",
    names: Names = "",
    only: Annotated[
        str, typer.Option("--only", metavar="ORGAN,...", help="Only these organs: names or numbers.")
    ] = "",
    planes: Planes = "axial",
    every: Every = 1,
    most_slices: Annotated[
        int,
        typer.Option("--most-slices", min=0, metavar="N", help="Slices of a volume and plane; 0: all."),
    ] = 0,
    min_area: MinArea = 1,
    crop_to_body: CropToBody = False,
    seed: Annotated[
        int, typer.Option("--seed", min=0, metavar="N", help="Seed of the simulated prompts.")
    ] = 0,
    seeds: Annotated[
        int, typer.Option("--seeds", min=1, metavar="N", help="So many seeds, from --seed on.")
    ] = 1,
    resume: Annotated[
        bool, typer.Option("--resume", metavar=FLAG, help="Carry on what lies in DIR, if it is the same.")
    ] = False,
    organs: Annotated[
        bool, typer.Option("--organs", metavar=FLAG, help="Print the means of every organ, too.")
    ] = False,
    device: Device = "auto",
    precision: Annotated[
        Precision, typer.Option("--precision", metavar="P", help="auto, fp32 or bf16.")
    ] = Precision.auto,
    scheduler: Scheduler = "",
    workers: Workers = None,
    as_json: Json = False,
) -> int:
    """Measure models on labelled volumes, with prompts simulated from the labels."""
    from napari_sam_med.cli.evaluate import EvaluateRequest, run_evaluate

    request = EvaluateRequest(
        output=output,
        image=image,
        labels=labels,
        cases=cases,
        strategies=strategies,
        protocol=protocol,
        models=models,
        names=names,
        only=only,
        planes=planes,
        every=every,
        most_slices=most_slices,
        min_area=min_area,
        crop_to_body=crop_to_body,
        seed=seed,
        seeds=seeds,
        resume=resume,
        device=device,
        precision=precision.value,
        organs=organs,
        scheduler=scheduler,
        workers=workers,
    )
    return run_evaluate(request, as_json=as_json)
