"""Options of the commands that read labelled volumes, written once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from napari_sam_med.volume.slice_view import Plane

__all__ = ["CropToBody", "Every", "MinArea", "Names", "Planes", "chosen_planes", "listed"]

Names = Annotated[
    str,
    typer.Option("--names", metavar="NAMES", help='Organ names: btcv, or JSON {"1": "spleen"}, or its file.'),
]
Planes = Annotated[str, typer.Option("--planes", metavar="PLANE,...", help="axial, coronal, sagittal.")]
Every = Annotated[int, typer.Option("--every", min=1, metavar="N", help="Take only each N-th slice.")]
CropToBody = Annotated[
    bool,
    typer.Option(
        "--crop-to-body",
        metavar="",
        help="Show the model the box of the body alone: finer where the field of view is wide.",
    ),
]
MinArea = Annotated[
    int, typer.Option("--min-area", min=1, metavar="PX", help="Pixels an organ must have on a slice.")
]


def listed(text: str) -> list[str]:
    """The parts between commas, without empty ones."""
    return [part.strip() for part in text.split(",") if part.strip()]


def chosen_planes(text: str) -> tuple[Plane, ...]:
    """Planes by name, each once; axial when none is named."""
    from napari_sam_med.volume.slice_view import SliceView

    planes = tuple(dict.fromkeys(SliceView(plane, 0).plane for plane in listed(text)))  # type: ignore[arg-type]  # SliceView refuses what is no plane
    return planes or ("axial",)
