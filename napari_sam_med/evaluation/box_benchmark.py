"""Dice of a model given the true box on each slice, beside what the box alone would give.

``python -m napari_sam_med.evaluation.box_benchmark --cases CASES.csv`` prints a Markdown table. Dice is
averaged over the slices of an organ, then over the organs of a volume, then over the volumes, so that large
organs and long scans do not outweigh the others.
"""

from __future__ import annotations

import argparse
import csv
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from napari_sam_med.errors import ImageError
from napari_sam_med.evaluation.baselines import filled_box, inscribed_ellipse, tight_box
from napari_sam_med.evaluation.metrics import dice
from napari_sam_med.sam.mask_prediction import MaskPrediction
from napari_sam_med.sam.predictor import ImageEmbedding, load_predictor
from napari_sam_med.sam.prompts import Prompts
from napari_sam_med.volume.intensity import to_rgb
from napari_sam_med.volume.labels import LabelVolume
from napari_sam_med.volume.reading import read_labels, read_volume
from napari_sam_med.volume.slice_view import SliceView
from napari_sam_med.volume.volume import Volume

__all__ = ["SliceScore", "macro_dice", "read_cases", "score_volume"]


class _Embeds(Protocol):
    """The part of `Predictor` that is needed here."""

    def embed(self, image: npt.ArrayLike, pixel_spacing: npt.ArrayLike = ...) -> ImageEmbedding: ...

    def predict_batch(
        self, embedding: ImageEmbedding, prompts: Sequence[Prompts]
    ) -> list[MaskPrediction]: ...


@dataclass(frozen=True)
class SliceScore:
    """Dice of one organ on one slice: of the model and of the two answers that need none."""

    volume: str
    class_id: int
    index: int
    area_px: int
    model: float
    ellipse: float
    box: float
    iou_prediction: float


def score_volume(
    name: str,
    volume: Volume,
    labels: LabelVolume,
    predictor: _Embeds,
    min_area: int = 20,
    every: int = 1,
) -> Iterator[SliceScore]:
    """Scores of every organ on every axial slice where it has at least ``min_area`` pixels.

    Parameters
    ----------
    name : str
        Name of the volume in the scores.
    volume, labels
        On one grid.
    predictor : Predictor
    min_area : int
        Pixels.
    every : int
        Take only each so many-th slice.
    """
    for index in range(0, volume.shape[0], every):
        view = SliceView("axial", index)
        slice_labels = view.extract(labels.data)
        areas = np.bincount(slice_labels.ravel())
        ids = [int(i) for i in np.nonzero(areas >= min_area)[0] if i > 0]
        if not ids:
            continue
        boxes = [tight_box(slice_labels == i) for i in ids]
        embedding = predictor.embed(to_rgb(volume, view), volume.pixel_spacing(view))
        predictions = predictor.predict_batch(embedding, [Prompts.from_box(box) for box in boxes])
        for class_id, box, prediction in zip(ids, boxes, predictions, strict=True):
            truth = slice_labels == class_id
            shape = (truth.shape[0], truth.shape[1])
            yield SliceScore(
                volume=name,
                class_id=class_id,
                index=index,
                area_px=int(areas[class_id]),
                model=dice(prediction.best_mask, truth),
                ellipse=dice(inscribed_ellipse(box, shape), truth),
                box=dice(filled_box(box, shape), truth),
                iou_prediction=float(prediction.iou_predictions.max()),
            )


def macro_dice(scores: Sequence[SliceScore]) -> dict[str, float]:
    """Mean over slices, then over organs, of ``model``, ``ellipse`` and ``box``; of one volume's scores."""
    organs: dict[int, list[SliceScore]] = {}
    for score in scores:
        organs.setdefault(score.class_id, []).append(score)
    return {
        what: float(np.mean([np.mean([getattr(s, what) for s in slices]) for slices in organs.values()]))
        for what in ("model", "ellipse", "box")
    }


def read_cases(path: Path) -> list[tuple[str, Path, Path]]:
    """Name, image and labels of each row of a cases file; relative paths start at the file's folder."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    if not rows or not {"image", "labels"} <= rows[0].keys():
        raise ImageError(f'{path.name} needs a header "image,labels" and at least one row; add them.')
    cases = []
    for row in rows:
        image = (path.parent / row["image"]).resolve()
        cases.append((row.get("name") or image.parent.name, image, (path.parent / row["labels"]).resolve()))
    return cases


def _table(volumes: dict[str, list[SliceScore]]) -> Iterator[str]:
    yield "| volume | organs | slices | model | ellipse | filled box |"
    yield "|---|---|---|---|---|---|"
    means: list[dict[str, float]] = []
    for name, scores in volumes.items():
        mean = macro_dice(scores)
        means.append(mean)
        organs = len({s.class_id for s in scores})
        yield (
            f"| {name} | {organs} | {len(scores)} | {mean['model']:.3f} | {mean['ellipse']:.3f} "
            f"| {mean['box']:.3f} |"
        )
    total = {what: np.mean([m[what] for m in means]) for what in ("model", "ellipse", "box")}
    n_slices = sum(len(scores) for scores in volumes.values())
    yield (
        f"| **mean of volumes** | | {n_slices} | **{total['model']:.3f}** | {total['ellipse']:.3f} "
        f"| {total['box']:.3f} |"
    )


def _calibration(volumes: dict[str, list[SliceScore]]) -> str:
    """How the predicted IoU compares with the true one (IoU = Dice / (2 - Dice)), over all slices."""
    scores = [score for slices in volumes.values() for score in slices]
    true = np.array([s.model / (2 - s.model) for s in scores])
    predicted = np.array([s.iou_prediction for s in scores])
    correlation = float(np.corrcoef(true, predicted)[0, 1]) if len(scores) > 1 else float("nan")
    return (
        f"Predicted IoU {predicted.mean():.3f} on average, true {true.mean():.3f}, "
        f"correlation {correlation:.2f}."
    )


def _organ_table(volumes: dict[str, list[SliceScore]]) -> Iterator[str]:
    yield "| volume | class | slices | model | ellipse |"
    yield "|---|---|---|---|---|"
    for name, scores in volumes.items():
        for class_id in sorted({s.class_id for s in scores}):
            rows = [s for s in scores if s.class_id == class_id]
            mean = macro_dice(rows)
            yield f"| {name} | {class_id} | {len(rows)} | {mean['model']:.3f} | {mean['ellipse']:.3f} |"


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        prog="python -m napari_sam_med.evaluation.box_benchmark", description=__doc__
    )
    parser.add_argument("--cases", type=Path, required=True, help='CSV with columns "image,labels"')
    parser.add_argument("--model", default="nano", help="name or checkpoint file")
    parser.add_argument("--min-area", type=int, default=20, help="pixels an organ must have on a slice")
    parser.add_argument("--every", type=int, default=1, help="take only each so many-th slice")
    parser.add_argument("--organs", action="store_true", help="add a table by class")
    options = parser.parse_args(arguments)
    predictor = load_predictor(options.model)
    started = time.monotonic()
    volumes: dict[str, list[SliceScore]] = {}
    for name, image, label_file in read_cases(options.cases):
        volume = read_volume(image)
        labels = read_labels(label_file, reference=volume)
        volumes[name] = list(score_volume(name, volume, labels, predictor, options.min_area, options.every))
    lines = [
        *_table(volumes),
        "",
        _calibration(volumes),
        *(["", *_organ_table(volumes)] if options.organs else []),
    ]
    sys.stdout.write("\n".join(lines) + f"\n\n{time.monotonic() - started:.0f} s\n")


if __name__ == "__main__":
    main()
