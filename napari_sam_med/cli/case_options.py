"""Options of the commands that read labelled volumes, written once."""

from __future__ import annotations

from typing import Annotated

import typer

__all__ = ["Every", "MinArea", "Names", "Planes"]

Names = Annotated[
    str,
    typer.Option("--names", metavar="NAMES", help='Organ names: btcv, or JSON {"1": "spleen"}, or its file.'),
]
Planes = Annotated[str, typer.Option("--planes", metavar="PLANE,...", help="axial, coronal, sagittal.")]
Every = Annotated[int, typer.Option("--every", min=1, metavar="N", help="Take only each N-th slice.")]
MinArea = Annotated[
    int, typer.Option("--min-area", min=1, metavar="PX", help="Pixels an organ must have on a slice.")
]
