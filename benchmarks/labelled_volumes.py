"""Segment labelled volumes from boxes on a few slices, through the command line, and measure.

``python -m benchmarks.labelled_volumes IMAGE LABELS [IMAGE LABELS ...] [--slices 4] [--model nano]``

For every label of a volume, boxes are drawn tangent to it on a few of its slices (equidistant over its
extent), all objects go through ``napari-sam-med segment`` in one call, and the written file is compared with
the labels. Beside the Dice of the propagated volume stands that of ellipses in boxes interpolated between the
same slices: what the same boxes say without a model.
"""

from __future__ import annotations

import argparse
import io
import json
import tempfile
import time
from contextlib import redirect_stdout
from pathlib import Path

import nibabel as nib
import numpy as np
from rich.console import Console
from rich.table import Table

from napari_sam_med.cli import main as command
from napari_sam_med.evaluation.baselines import inscribed_ellipse, tight_box
from napari_sam_med.evaluation.metrics import dice


def boxed_slices(truth, n_slices):
    """Equidistant indices over the extent of a mask (i, j, k), and the mask's box on each, in voxels."""
    present = np.flatnonzero(truth.any(axis=(0, 1)))
    positions = (np.arange(n_slices) + 0.5) / n_slices
    boxes = {}
    for k in present[np.unique((positions * len(present)).astype(int))]:
        i0, j0, i1, j1 = (int(v) for v in tight_box(truth[:, :, k].T))
        boxes[int(k)] = (i0, j0, i1, j1)
    return boxes


def ellipses_between(boxes, shape):
    """Mask of the boxes' ellipses, boxes interpolated linearly between the slices that have one."""
    known = sorted(boxes)
    mask = np.zeros(shape, dtype=bool)
    for k in range(known[0], known[-1] + 1):
        box = [np.interp(k, known, [boxes[n][side] for n in known]) for side in range(4)]
        mask[:, :, k] = inscribed_ellipse(box, (shape[1], shape[0])).T
    return mask


def prompts_of(labels, n_slices):
    """The prompts file's content, and the boxes by label."""
    boxes = {int(v): boxed_slices(labels == v, n_slices) for v in np.unique(labels) if v}
    objects = [
        {
            "label": label,
            "boxes": [{"from": [i0, j0, k], "to": [i1, j1, k]} for k, (i0, j0, i1, j1) in by_slice.items()],
        }
        for label, by_slice in boxes.items()
    ]
    return {"version": 1, "objects": objects}, boxes


def measure(image_path, labels_path, n_slices, model):
    """Rows of (name, label, key slices, Dice, Dice of the ellipses, slices, seconds a slice)."""
    labels_file = nib.load(labels_path)
    labels = np.round(np.asarray(labels_file.dataobj)).astype(int)
    prompts, boxes = prompts_of(labels, n_slices)
    with tempfile.TemporaryDirectory() as folder:
        prompts_path, output, report_path = (Path(folder, n) for n in ("p.json", "out.nii.gz", "r.json"))
        prompts_path.write_text(json.dumps(prompts))
        start = time.perf_counter()
        with redirect_stdout(io.StringIO()):
            status = command(
            ["segment", str(image_path), "--prompts", str(prompts_path), "-o", str(output),
             "--report", str(report_path), "--model", model]
            )  # fmt: skip
        seconds = time.perf_counter() - start
        if status != 0:
            raise SystemExit(status)
        found_file = nib.load(output)
        found = np.asarray(found_file.dataobj)
        report = json.loads(report_path.read_text())
    image_affine = nib.load(image_path).affine
    geometry = "identical" if np.array_equal(found_file.affine, image_affine) else "DIFFERS"
    n_filled = sum(len(one["slices"]) for one in report["objects"])
    rows = [
        (
            label,
            len(boxes[label]),
            dice(found == label, labels == label),
            dice(ellipses_between(boxes[label], labels.shape), labels == label),
            next(len(one["slices"]) for one in report["objects"] if one["label"] == label),
            int((labels == label).any(axis=(0, 1)).sum()),
        )
        for label in boxes
    ]
    return rows, seconds / max(1, n_filled), geometry, report["seconds"]


def run():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("paths", nargs="+", type=Path, help="pairs of IMAGE LABELS (NIfTI)")
    parser.add_argument("--slices", type=int, default=4, help="boxed slices an organ")
    parser.add_argument("--model", default="nano")
    arguments = parser.parse_args()
    console = Console(width=100)
    for image, labels in zip(arguments.paths[::2], arguments.paths[1::2], strict=True):
        rows, seconds, geometry, stages = measure(image, labels, arguments.slices, arguments.model)
        table = Table(
            title=f"{image.parent.name}, {arguments.model}, {arguments.slices} boxed slices an organ"
        )
        for head in ("label", "boxed", "Dice", "Dice, ellipses", "slices found", "slices true"):
            table.add_column(head, justify="right")
        for label, n_keys, score, ellipse, n_found, n_true in rows:
            table.add_row(
                str(label), str(n_keys), f"{score:.3f}", f"{ellipse:.3f}", str(n_found), str(n_true)
            )
        table.add_section()
        means = np.mean([(row[2], row[3]) for row in rows], axis=0)
        table.add_row("mean", "", f"{means[0]:.3f}", f"{means[1]:.3f}", "", "")
        console.print(table)
        console.print(f"{seconds:.3f} s a slice, all included; stages {stages}; output affine {geometry}\n")


if __name__ == "__main__":
    run()
