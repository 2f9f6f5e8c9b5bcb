"""``results.csv``: one row an answer, written as it comes."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from typing import TextIO

from napari_sam_med.evaluation.measuring import SliceScore

__all__ = ["COLUMNS", "write_header", "write_scores"]

COLUMNS = (
    "image",
    "organ",
    "label",
    "plane",
    "slice",
    "strategy",
    "model",
    "dice",
    "iou",
    "dice_oracle",
    "iou_prediction",
    "area_px",
    "seconds",
    "seed",
)


def write_header(file: TextIO) -> None:
    """Write the names of the columns."""
    _write(file, [COLUMNS])


def write_scores(file: TextIO, scores: Iterable[SliceScore], image: str, seed: int) -> None:
    """Write one row a score, all at once, so that an interruption leaves whole rows."""
    _write(
        file,
        (
            (
                image,
                score.organ,
                score.label,
                score.view.plane,
                score.view.index,
                score.strategy,
                score.model,
                f"{score.dice:.6f}",
                f"{score.iou:.6f}",
                "" if score.dice_oracle is None else f"{score.dice_oracle:.6f}",
                f"{score.iou_prediction:.6f}",
                score.area_px,
                f"{score.seconds:.6f}",
                seed,
            )
            for score in scores
        ),
    )


def _write(file: TextIO, rows: Iterable[Iterable[object]]) -> None:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(rows)
    file.write(text.getvalue())
    file.flush()
