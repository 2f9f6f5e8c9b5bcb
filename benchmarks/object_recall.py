"""Which organs are among the objects that a search without a prompt finds: the table of docs/automatic.md.

``python -m benchmarks.object_recall IMAGE LABELS [--names btcv] [--every 2] [--spacing-mm 15]``

An organ counts as found when one object covers it with an IoU of 0.5 in 3-D. Beside the objects stand regions
of the same number that need no model: pieces of bands of intensity, supervoxels of one size, and supervoxels
of several sizes together, which overlap as objects do.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from benchmarks.propagation_tables import markdown
from napari_sam_med.evaluation.cases import Case, read_case
from napari_sam_med.evaluation.object_recall import (
    OrganRecall,
    intensity_regions,
    recall,
    recall_of_objects,
    recall_of_regions,
    supervoxels,
)
from napari_sam_med.sam.predictor import load_predictor
from napari_sam_med.segmentation.automatic.found_objects import FoundObject
from napari_sam_med.segmentation.automatic.naming import name_objects
from napari_sam_med.segmentation.automatic.volume_search import VolumeSearch, search_volume
from napari_sam_med.segmentation.organ_classifier import load_classifier
from napari_sam_med.volume.intensity import resolve_window
from napari_sam_med.volume.labels import LabelVolume
from napari_sam_med.volume.volume import Volume

SIZES = (2, 4, 8, 16)
"""Supervoxels of several sizes: a half, a quarter, ... of the number of objects, almost as many together."""


def searched(volume: Volume, model: str, device: str, search: VolumeSearch) -> list[FoundObject]:
    """The objects of a volume; says on standard error how far it is."""
    steps = search_volume(volume, load_predictor(model, device=device), search)
    while True:
        try:
            done = next(steps)
        except StopIteration as end:
            return list(end.value)
        print(f"{done.progress.done} of {done.progress.total} slices", file=sys.stderr, flush=True)


def arms_of(
    volume: Volume, labels: LabelVolume, objects: Sequence[FoundObject]
) -> dict[str, tuple[int, list[OrganRecall]]]:
    """Number of candidates and best one of each organ: of the objects, and of regions without a model."""
    window, n = resolve_window(volume), max(1, len(objects))
    bands, voxels = intensity_regions(volume, window, n), supervoxels(volume, window, n)
    sizes = [supervoxels(volume, window, max(2, n // share)) for share in SIZES]
    return {
        "objects": (len(objects), recall_of_objects(objects, labels)),
        "bands of intensity": (int(bands.max()), recall_of_regions(bands, labels)),
        "supervoxels": (len(np.unique(voxels)) - 1, recall_of_regions(voxels, labels)),
        "supervoxels of 4 sizes": (
            sum(len(np.unique(one)) - 1 for one in sizes),
            [
                max(rows, key=lambda row: row.best_iou)
                for rows in zip(*(recall_of_regions(one, labels) for one in sizes), strict=True)
            ],
        ),
    }


def table(arms: Mapping[str, tuple[int, list[OrganRecall]]], names: Mapping[int, str] | None = None) -> str:
    """Best IoU of each organ by arm, in Markdown; `names` is what the best object is taken for."""
    first = next(iter(arms.values()))[1]
    lines = []
    for i, row in enumerate(first):
        called = "" if names is None else names.get(row.number or 0, "")
        cells = [f"{rows[i].best_iou:.2f}" for _, rows in arms.values()]
        lines.append([row.organ, f"{row.voxels}", *cells, *([] if names is None else [called])])
    blank = [] if names is None else [""]
    for text, figure in (
        ("**found at IoU 0.5**", lambda rows: f"**{sum(r.best_iou >= 0.5 for r in rows)} of {len(rows)}**"),
        ("recall at IoU 0.25", lambda rows: f"{recall(rows, 0.25):.2f}"),
        ("mean best IoU", lambda rows: f"{np.mean([r.best_iou for r in rows]):.2f}"),
    ):
        lines.append([text, "", *(figure(rows) for _, rows in arms.values()), *blank])
    lines.append(["candidates", "", *(str(n) for n, _ in arms.values()), *blank])
    named = [] if names is None else ["its best object is taken for"]
    return markdown(["organ", "voxels", *arms, *named], lines)


def named(volume: Volume, objects: Sequence[FoundObject], device: str) -> dict[int, str]:
    """What the bundled classifier takes each object for, by itself."""
    classifier = load_classifier()
    reader = load_predictor(classifier.facts.model, device=device, precision="fp32")
    guesses = name_objects(objects, volume, reader, classifier)
    return {
        one.number: f"{one.organ.name} {one.organ.probability:.2f}"
        for one in guesses
        if one.organ is not None
    }


def parse(given: Sequence[str] | None) -> argparse.Namespace:
    """The arguments."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("image", type=Path)
    parser.add_argument("labels", type=Path)
    parser.add_argument("--names", default="", help="names of the labels: btcv, or JSON")
    parser.add_argument("--model", default="nano")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--plane", default="axial", choices=("axial", "coronal", "sagittal"))
    parser.add_argument("--every", type=int, default=2)
    parser.add_argument("--spacing-mm", type=float, default=15.0)
    return parser.parse_args(given)


def main(given: Sequence[str] | None = None) -> None:
    """Search, name and print the table."""
    arguments = parse(given)
    image = arguments.image
    case = Case(image.name, str(image), image, arguments.labels, arguments.names)
    volume, labels = read_case(case)
    search = VolumeSearch(arguments.plane, arguments.every, point_spacing_mm=arguments.spacing_mm)
    wall, own = time.perf_counter(), time.process_time()
    objects = searched(volume, arguments.model, arguments.device, search)
    wall, own = time.perf_counter() - wall, time.process_time() - own
    print(table(arms_of(volume, labels, objects), named(volume, objects, arguments.device)))
    print(f"\n{len(objects)} objects in {wall:.0f} s ({own:.0f} s of one core)")


if __name__ == "__main__":
    main()
