"""Find organs by one labelled example, and measure: both engines, all prompt designs, and copies of the mask.

``python -m benchmarks.matching EXAMPLE EXAMPLE_LABELS [--query IMAGE LABELS ...] [-o FOLDER]``

The example is one slice of each organ: that which shows most of it, or the middle one with ``--middle``. It
is looked for in each query; without one in the rest of its own volume, where its own slice does not count and
is not known to the search. Beside the matches stand the example's mask copied over, and, in its own volume,
the mask carried without any matching.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.propagation_tables import markdown, write_csv
from napari_sam_med import load_predictor, propagate, read_labels, read_volume
from napari_sam_med.evaluation.matching_scores import (
    MatchingScore,
    copied_by_box,
    copied_in_place,
    score_copies,
    score_matching,
)
from napari_sam_med.evaluation.metrics import dice
from napari_sam_med.sam.embedding_store import EmbeddingStore
from napari_sam_med.segmentation.matching.example import Example
from napari_sam_med.segmentation.matching.matcher import DESIGNS, Matching
from napari_sam_med.segmentation.matching.volume_matching import searched_views
from napari_sam_med.segmentation.organ_features import ScanFrame, body_of
from napari_sam_med.volume.labels import LabelVolume
from napari_sam_med.volume.slice_view import SliceView
from napari_sam_med.volume.volume import Volume

PUBLISHED = {"example": 0.002, "random": 0.693, "grid": 0.393, "grid-negatives": 0.480}
"""IoU of buildings in aerial images: AIL 862, lecture 21, "Numerical result"."""
NEAR_MM = 30.0
COLUMNS = (
    *("query", "organ", "arm", "published_iou", "slices", "dice", "iou", "dice_all"),
    *("false_alarms", "volume_dice", "volume_dice_all", "seconds"),
)


@dataclass(frozen=True, eq=False)
class Task:
    """An organ to find in a volume."""

    query: str
    organ: str
    volume: Volume
    truth: np.ndarray
    example: Example
    example_volume: Volume
    is_own: bool

    @property
    def left_out(self) -> tuple[int, ...]:
        """The example's own slice, where it lies in this volume."""
        view = self.example.slices[0].view
        return (view.index,) if self.is_own and view is not None else ()


def tasks_of(
    example: tuple[Path, Path], queries: Sequence[tuple[Path, Path]], *, middle: bool
) -> Iterator[Task]:
    """Every organ of the example in every query; in the example's own volume without any."""
    shown, labels = opened(example)
    for number in labels.class_ids():
        present = np.flatnonzero((labels.data == number).any(axis=(1, 2)))
        index = int(present[len(present) // 2]) if middle else "best"
        # without its volume: the search is not told that it knows a slice
        one = replace(Example.of_labels(shown, labels.data, number, index=index), volume=None)
        for query in queries or [example]:
            volume, truth = (shown, labels) if query == example else opened(query)
            yield Task(
                query[0].parent.name,
                labels.organs.name_of(number),
                volume,
                truth.data == number,
                one,
                shown,
                query == example,
            )


def opened(paths: tuple[Path, Path]) -> tuple[Volume, LabelVolume]:
    """A volume and its labels."""
    volume = read_volume(paths[0])
    return volume, read_labels(paths[1], reference=volume)


def arms_of(matching: Matching) -> dict[str, Matching]:
    """The engines and designs that are compared."""
    stitched = {f"stitching, {d}": replace(matching, engine="stitching", design=d) for d in DESIGNS}
    similar = replace(matching, engine="similarity")
    near = {f"similarity, near {NEAR_MM:g} mm": replace(similar, near_mm=NEAR_MM)}
    return {"similarity": similar, **near, **stitched}


def baselines(task: Task, matching: Matching) -> Iterator[tuple[str, MatchingScore]]:
    """The example's mask copied over, at the same place, and by the body's box."""
    views = searched_views(task.volume, matching)
    example, spacing = task.example.slices[0], task.volume.pixel_spacing(views[0])
    frame, example_frame = ScanFrame.of(task.volume), ScanFrame.of(task.example_volume)
    assert example.view is not None
    example_box = body_of(example.view.extract(task.example_volume.data), example_frame).box

    def in_place(view: SliceView) -> np.ndarray:
        return copied_in_place(example, view.slice_shape(task.volume.shape), spacing)

    def by_body(view: SliceView) -> np.ndarray:
        pixels = view.extract(task.volume.data)
        return copied_by_box(example, example_box, pixels.shape, body_of(pixels, frame).box)

    for name, copy in (("copied, same place", in_place), ("copied, by body box", by_body)):
        yield name, score_copies(task.volume, task.truth, views, copy, left_out=task.left_out)


def carried(task: Task, predictor: Any, store: EmbeddingStore) -> float:
    """Dice of the example's mask carried through its own volume, without any matching."""
    example = task.example.slices[0]
    found = np.zeros(task.volume.shape, dtype=bool)
    keys = {1: {example.view: example.mask}}
    for done in propagate(task.volume, {1: (1, {})}, predictor, masks=keys, store=store):
        done.view.insert(found, done.mask)
    counted = np.setdiff1d(np.arange(len(found)), task.left_out)
    return dice(found[counted], task.truth[counted])


def measured(task: Task, predictor: Any, matching: Matching, only: str = "") -> Iterator[dict[str, Any]]:
    """One row an arm."""
    store = EmbeddingStore(None)
    facts = {"query": task.query, "organ": task.organ}
    for name, score in baselines(task, matching):
        yield facts | {"arm": name, "published_iou": ""} | asdict(score)
    if task.is_own:
        yield facts | {"arm": "carried, no matching", "volume_dice": carried(task, predictor, store)}
    for name, arm in arms_of(matching).items():
        if not name.startswith(only):
            continue
        score = score_matching(
            task.volume, task.truth, task.example, predictor, arm, left_out=task.left_out, store=store
        )
        published = PUBLISHED[arm.design] if arm.engine == "stitching" else ""
        yield facts | {"arm": name, "published_iou": published} | asdict(score)


def tables(rows: Sequence[dict[str, Any]]) -> str:
    """Arms by organs: the surest mask of each slice, all masks of each slice, and volumes; in Markdown."""
    return "\n".join(
        f"{title}\n\n{table(rows, *columns)}"
        for title, columns in (
            ("Slices, the surest mask: Dice / IoU", ("dice", "iou")),
            ("Slices, all masks: Dice / false alarms", ("dice_all", "false_alarms")),
            ("Volumes: Dice of the surest instance / of all", ("volume_dice", "volume_dice_all")),
        )
    )


def table(rows: Sequence[dict[str, Any]], first: str, second: str) -> str:
    """Two measures of every arm and organ, with their means over the organs."""
    organs = list(dict.fromkeys((row["query"], row["organ"]) for row in rows))
    by_key = {(row["arm"], row["query"], row["organ"]): row for row in rows}
    published = {row["arm"]: cell(row.get("published_iou")) for row in rows}
    lines = []
    for arm in published:
        own = [by_key.get((arm, *organ), {}) for organ in organs]
        pairs = [(row.get(first, np.nan), row.get(second, np.nan)) for row in own]
        means = [
            np.mean([v for v in values if np.isfinite(v)] or [np.nan]) for values in zip(*pairs, strict=True)
        ]
        cells = [pair_of(*pair) for pair in [*pairs, (float(means[0]), float(means[1]))]]
        lines.append([arm, *cells, published[arm]])
    heads = [f"{query.removesuffix('_frame01')} {organ}" for query, organ in organs]
    return markdown(["", *heads, "mean", "published IoU"], lines)


def pair_of(one: float, other: float) -> str:
    """Two shares beside each other; nothing where there is neither."""
    cells = [cell(one) or "-", cell(other) or "-"]
    return "" if cells == ["-", "-"] else " / ".join(cells)


def cell(value: Any) -> str:
    """A share with three digits; nothing where there is none."""
    return f"{value:.3f}" if isinstance(value, float) and np.isfinite(value) else ""


def main(given: Sequence[str] | None = None) -> None:
    """Measure, print the table and write it."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.matching",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    parser.add_argument("example", nargs=2, type=Path, metavar=("EXAMPLE", "EXAMPLE_LABELS"))
    parser.add_argument("--query", nargs=2, type=Path, action="append", default=[], metavar="FILE")
    parser.add_argument("--middle", action="store_true", help="the example is the organ's middle slice")
    parser.add_argument("--every", type=int, default=0, help="search each so-manieth slice")
    parser.add_argument("--only", default="", help="arms whose names begin so; copies are always made")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--model", default="nano")
    parser.add_argument("--device", default="auto")
    parser.add_argument("-o", "--output", type=Path, help="folder for the table and its CSV file")
    arguments = parser.parse_args(given)
    predictor = load_predictor(arguments.model, device=arguments.device)
    matching = Matching(every=arguments.every, seed=arguments.seed)
    queries = [(image, labels) for image, labels in arguments.query]
    rows: list[dict[str, Any]] = []
    for task in tasks_of((arguments.example[0], arguments.example[1]), queries, middle=arguments.middle):
        for row in measured(task, predictor, matching, arguments.only):
            print(
                row["query"],
                row["organ"],
                row["arm"],
                cell(row.get("volume_dice")),
                file=sys.stderr,
                flush=True,
            )
            rows.append(row)
        if arguments.output is not None:
            arguments.output.mkdir(parents=True, exist_ok=True)
            write_csv(arguments.output / "matching.csv", rows, COLUMNS)
            (arguments.output / "matching.md").write_text(tables(rows), encoding="utf-8")
    print(tables(rows))


if __name__ == "__main__":
    main()
