"""The command that exports models as ONNX, added to those of ``models``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from napari_sam_med.cli.commands import FLAG, Json, Preprocessing, _Command, _wants_json, models

__all__ = ["models"]


@models.command("export-onnx", cls=_Command)
def models_export_onnx(
    context: typer.Context,
    model: Annotated[
        str, typer.Argument(metavar="NAME_OR_PATH", help="Name from the list, or a file or folder.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE.onnx", help="File to write.")],
    multimask: Annotated[
        bool | None,
        typer.Option(
            "--multimask/--single",
            metavar=FLAG,
            help="Four masks, or the best one; four when left out, one for models trained for one.",
        ),
    ] = None,
    opset: Annotated[
        int | None, typer.Option("--opset", metavar="N", help="18 or more; torch's own choice when left out.")
    ] = None,
    preprocessing: Annotated[
        Preprocessing | None,
        typer.Option(
            "--preprocessing", metavar="P", help="sam or medsam, for a checkpoint not in the registry."
        ),
    ] = None,
    as_json: Json = False,
) -> int:
    """Write prompt encoder and mask decoder as ONNX, checked with onnxruntime against torch."""
    from napari_sam_med.cli.onnx_export import ExportRequest, run_export_onnx

    chosen = None if preprocessing is None else preprocessing.value
    return run_export_onnx(
        ExportRequest(model, output, multimask, opset, chosen), as_json=_wants_json(context, as_json)
    )
