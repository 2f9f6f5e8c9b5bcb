"""At which rank a word puts the right object: ``python -m benchmarks.words --data FOLDER``.

Needs a CT with labels in BTCV's numbers, such as TotalSegmentator's example, as ``image.nii.gz`` and
``label_btcv13.nii.gz``. Three tables: words among the labels themselves, with a point in the organ, and among
objects that were found without a prompt. Nothing is tuned here: the search is that of ``auto``.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from napari_sam_med import load_predictor, read_volume
from napari_sam_med.evaluation.word_ranks import RIGHT_IOU, WordRank, inmost_voxel, iou_with, word_ranks
from napari_sam_med.sam.embedding_store import EmbeddingStore
from napari_sam_med.segmentation.automatic.found_objects import FoundObject
from napari_sam_med.segmentation.automatic.labelled_objects import objects_of
from napari_sam_med.segmentation.automatic.point_refinement import objects_at_point
from napari_sam_med.segmentation.automatic.volume_search import VolumeSearch, search_volume, usual_options
from napari_sam_med.segmentation.automatic.words import clear_winner, organ_chances
from napari_sam_med.segmentation.organ_classifier import load_classifier
from napari_sam_med.volume.labels import LabelVolume
from napari_sam_med.volume.organs import OrganTable
from napari_sam_med.volume.reading import read_labels
from napari_sam_med.volume.volume import Volume


def table(rows: Sequence[WordRank]) -> str:
    """As Markdown."""
    lines = [
        "| word | best IoU | rank of the best | its probability | IoU of the first | its probability |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        rank = "-" if row.rank is None else f"{row.rank} of {row.objects}"
        shown = rank if row.is_there else f"{rank}, not found at {RIGHT_IOU}"
        score = "-" if row.score is None else f"{row.score:.3f}"
        lines.append(
            f"| {row.organ} | {row.best_iou:.2f} | {shown} | {score} | {row.first_iou:.2f} | "
            f"{row.first_score:.3f} |"
        )
    return "\n".join(lines)


def found_objects(volume: Volume, every: int, spacing_mm: float | None) -> list[FoundObject]:
    """What nano finds without a prompt."""
    predictor = load_predictor("nano", device="cpu")
    plan = VolumeSearch(every=every, options=usual_options(predictor), point_spacing_mm=spacing_mm)
    search = search_volume(volume, predictor, plan)
    while True:
        try:
            step = next(search)
        except StopIteration as done:
            objects: list[FoundObject] = done.value
            return objects
        print(f"\r{step.progress.done}/{step.progress.total}", end="", file=sys.stderr)


def measured(name: str, objects: Sequence[FoundObject], volume: Volume, labels: LabelVolume) -> str:
    """A table with its heading, and how often the clear winner is the right object."""
    predictor, classifier = load_predictor("nano", device="cpu"), load_classifier()
    chances = organ_chances(objects, volume, predictor, classifier, store=EmbeddingStore(None))
    rows = word_ranks(chances, labels)
    there = [row for row in rows if row.is_there]
    winners = {row.organ: clear_winner(chances.ranked(row.organ), classifier.facts.threshold) for row in rows}
    named = [row for row in rows if winners[row.organ] is not None]
    right = [row for row in named if row.first_iou >= RIGHT_IOU]
    first = sum(row.rank == 1 for row in there)
    top = sum(row.rank is not None and row.rank <= 5 for row in there)
    return (
        f"### Among {name} ({len(objects)})\n\n{table(rows)}\n\n"
        f"Of {len(rows)} organs {len(there)} are among the objects at an IoU of {RIGHT_IOU}; the word puts "
        f"{first} of these first and {top} among the first five. A clear winner was named for {len(named)}, "
        f"and {len(right)} of these are right at that IoU."
    )


def with_points(volume: Volume, labels: LabelVolume) -> str:
    """A table of words with a point each, the inmost voxel of the organ, and nothing searched."""
    predictor, classifier, store = (
        load_predictor("nano", device="cpu"),
        load_classifier(),
        EmbeddingStore(None),
    )
    lines = [
        "| word | answers | best IoU | by the word | by the model's own score |",
        "|---|---|---|---|---|",
    ]
    totals = []
    for class_id in labels.class_ids():
        point, organ = inmost_voxel(labels, class_id), labels.organs.name_of(class_id)
        objects = objects_at_point(volume, point, predictor, store=store)
        if not objects:
            lines.append(f"| {organ} | 0 | - | - | - |")
            continue
        ranked = organ_chances(objects, volume, predictor, classifier, store=store).ranked(organ)
        ious = [max(iou_with(one, labels, class_id) for one in objects)]
        ious += [iou_with(first, labels, class_id) for first in (ranked[0].object, objects[0])]
        totals.append(ious)
        shown = " | ".join(f"{iou:.2f}" for iou in ious)
        lines.append(f"| {organ} | {len(objects)} | {shown} |")
    means = [sum(column) / len(totals) for column in zip(*totals, strict=True)]
    lines.append(f"| mean | | {' | '.join(f'{mean:.2f}' for mean in means)} |")
    return "### With a point in the organ, and nothing searched\n\n" + "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--spacing-mm", type=float, help="of the points asked; 32 per side when left out")
    arguments = parser.parse_args(argv)
    volume = read_volume(arguments.data / "image.nii.gz")
    labels = read_labels(arguments.data / "label_btcv13.nii.gz", reference=volume)
    labels.organs = OrganTable.btcv()
    print(measured("the labels themselves", objects_of(labels), volume, labels), flush=True)
    print("\n" + with_points(volume, labels), flush=True)
    start = time.perf_counter()
    objects = found_objects(volume, arguments.every, arguments.spacing_mm)
    seconds = time.perf_counter() - start
    print("\n" + measured("objects found by nano", objects, volume, labels))
    print(f"\nThe search took {seconds:.0f} s on this machine.")


if __name__ == "__main__":
    main()
