"""``models export-onnx``: prompt encoder and mask decoder for programs without torch."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from napari_sam_med.cli.console import print_json, say
from napari_sam_med.cli.outputs import check_output
from napari_sam_med.errors import ExportError

__all__ = ["ExportRequest", "run_export_onnx"]


@dataclass(frozen=True)
class ExportRequest:
    """What the user typed; None where an option was left out."""

    model: str
    output: Path
    multimask: bool | None = None
    opset: int | None = None
    preprocessing: str | None = None


def run_export_onnx(request: ExportRequest, *, as_json: bool) -> int:
    """Run the command; returns the exit status."""
    if request.output.suffix.lower() != ".onnx":
        raise ExportError(f"{request.output}: ONNX files are written as .onnx; give a name that ends so.")
    check_output(request.output, (Path(request.model),))
    from napari_sam_med.sam.onnx_export import TOLERANCE, export_onnx

    file = export_onnx(
        request.model,
        request.output,
        multimask=request.multimask,
        opset=request.opset,
        preprocessing=request.preprocessing,
    )
    if as_json:
        print_json(asdict(file) | {"path": str(file.path)})
        return 0
    kind = "four masks" if file.masks > 1 else "one mask"
    say(f"{file.path}: the decoder of {file.model} with {kind}, opset {file.opset}.")
    say(f"  inputs   {', '.join(file.inputs)}")
    say(f"  outputs  {', '.join(file.outputs)}")
    say(
        f"  Checked with onnxruntime on {file.checked} prompts: differs from torch by at most "
        f"{file.largest_difference:.1e} ({TOLERANCE:.0e} is allowed)."
    )
    return 0
