"""``results.csv``: one row an answer, written as it comes, and read back."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TextIO, TypeVar

import numpy as np
import numpy.typing as npt

from napari_sam_med.errors import ImageError
from napari_sam_med.evaluation.measuring import SliceScore
from napari_sam_med.sam.prompts import Prompts
from napari_sam_med.volume.slice_view import SliceView

__all__ = ["COLUMNS", "read_results", "whole_rows", "write_header", "write_scores"]

_T = TypeVar("_T")

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
    "patient",
    "case",
    "nsd",
    "hd95_mm",
    "iou_oracle",
    "dice_single",
    "iou_single",
    "prompts",
)


def write_header(file: TextIO) -> None:
    """Write the names of the columns."""
    _write(file, [COLUMNS])


def write_scores(file: TextIO, scores: Iterable[SliceScore]) -> None:
    """Write one row a score, all at once, so that an interruption leaves whole rows."""
    _write(file, (_row(score) for score in scores))


def read_results(path: Path) -> list[SliceScore]:
    """The scores of a results file, in order; a last row that was cut off is left out.

    Numbers are as they were written, with six digits.

    Raises
    ------
    ImageError
        When the file is missing, or no table of this form.
    """
    try:
        text = whole_rows(path.read_bytes()).decode("utf-8")
        rows = csv.DictReader(io.StringIO(text, newline=""), restval="")
        return [_score(row) for row in rows]
    except OSError as error:
        raise ImageError(f"{path} cannot be read: {error.strerror}; give a results.csv.") from None
    except (csv.Error, KeyError, ValueError, TypeError) as error:
        said = f"{type(error).__name__}: {error}"
        raise ImageError(
            f"{path} is no table of results ({said}); give a results.csv that evaluate wrote."
        ) from None


def whole_rows(content: bytes) -> bytes:
    """What a CSV file in UTF-8 has without a last row that was cut off, maybe within a letter."""
    end = content.rfind(b"\n") + 1
    # a line break within quotes ends no row
    while content.count(b'"', 0, end) % 2:
        end = content.rfind(b"\n", 0, end - 1) + 1
    return content[:end]


def _row(score: SliceScore) -> tuple[object, ...]:
    return (
        score.image,
        score.organ,
        score.label,
        score.view.plane,
        score.view.index,
        score.strategy,
        score.model,
        _number(score.dice),
        _number(score.iou),
        _number(score.dice_oracle),
        _number(score.iou_prediction),
        score.area_px,
        _number(score.seconds),
        score.seed,
        score.patient,
        score.volume,
        _number(score.nsd),
        _number(score.hd95_mm),
        _number(score.iou_oracle),
        _number(score.dice_single),
        _number(score.iou_single),
        "" if score.prompts is None else _prompts_text(score.prompts, score.replies),
    )


def _score(row: Mapping[str, str]) -> SliceScore:
    plane: Any = row["plane"]  # SliceView refuses what is no plane
    prompts, replies = _prompts_of(row.get("prompts", ""))
    return SliceScore(
        volume=row.get("case") or row["image"],
        organ=row["organ"],
        label=int(row["label"]),
        view=SliceView(plane, int(row["slice"])),
        strategy=row["strategy"],
        model=row["model"],
        dice=float(row["dice"]),
        iou=float(row["iou"]),
        dice_oracle=_given(row, "dice_oracle", float),
        iou_prediction=float(row["iou_prediction"]),
        area_px=int(row["area_px"]),
        seconds=float(row["seconds"]),
        patient=row.get("patient", ""),
        seed=_given(row, "seed", int) or 0,
        nsd=_given(row, "nsd", float),
        hd95_mm=_given(row, "hd95_mm", float),
        iou_oracle=_given(row, "iou_oracle", float),
        dice_single=_given(row, "dice_single", float),
        iou_single=_given(row, "iou_single", float),
        prompts=prompts,
        replies=replies,
        image=row["image"],
    )


def _given(row: Mapping[str, str], column: str, kind: Callable[[str], _T]) -> _T | None:
    text = row.get(column, "")
    return kind(text) if text else None


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.6f}"


def _prompts_text(prompts: Prompts, replies: int) -> str:
    """Compact JSON: ``points`` as [x, y, label], ``box`` as [x0, y0, x1, y1], ``replies`` where there are."""
    document: dict[str, Any] = {}
    if len(prompts.points_xy):
        labels = prompts.point_labels
        document["points"] = [[*_plain(xy), int(n)] for xy, n in zip(prompts.points_xy, labels, strict=True)]
    if prompts.box_xyxy is not None:
        document["box"] = _plain(prompts.box_xyxy)
    if replies:
        document["replies"] = replies
    return json.dumps(document, separators=(",", ":"))


def _plain(values: npt.NDArray[np.float32]) -> list[float]:
    """The shortest numbers that are read back as the same float32."""
    return [int(value) if value == int(value) else float(str(value)) for value in values]


def _prompts_of(text: str) -> tuple[Prompts | None, int]:
    document = json.loads(text) if text else {}
    points, box = document.get("points", []), document.get("box")
    if not points and box is None:
        return None, 0
    prompts = Prompts([point[:2] for point in points], [point[2] for point in points], box)
    return prompts, int(document.get("replies", 0))


def _write(file: TextIO, rows: Iterable[Iterable[object]]) -> None:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(rows)
    file.write(text.getvalue())
    file.flush()
