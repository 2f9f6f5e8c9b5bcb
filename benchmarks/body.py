"""What leaving out air saves, and what showing a model the body alone brings.

``python -m benchmarks.body [--cases CSV] [--most 13] [--model nano] [--quick]``

The first table has, for each scan, the slices that `is_air` leaves out of embeddings made ahead and what
asking it costs, how much of an axial slice lies outside `BodyBox`, and how much finer the rest is shown. The
second one has the Dice of prompts simulated from labels, on whole slices and on the box, where these differ;
the third one that of boxes on three axial slices an organ, carried through the scan.

The scans are those of a cases file, and the bundled sample as if it had been scanned in fields of view of
several widths: its voxels interpolated to 512 x 512 pixels, with noise, and air around them.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from scipy import ndimage

from napari_sam_med.evaluation.cases import read_case, read_cases
from napari_sam_med.evaluation.measuring import Simulation, SliceChoice, SliceScore, measure_model
from napari_sam_med.evaluation.metrics import dice
from napari_sam_med.evaluation.prompt_strategies import parse_strategies
from napari_sam_med.sam.predictor import Predictor, load_predictor
from napari_sam_med.sam.prompts import Prompts
from napari_sam_med.sample_data import sample_labels, sample_volume
from napari_sam_med.segmentation.body import BodyBox, is_air
from napari_sam_med.segmentation.from_prompts import segment_from_prompts
from napari_sam_med.segmentation.prompts_file import PromptObject
from napari_sam_med.segmentation.slicewise import box_of_mask
from napari_sam_med.volume.grid import Grid
from napari_sam_med.volume.labels import LabelVolume
from napari_sam_med.volume.reading import read_labels, read_volume
from napari_sam_med.volume.slice_view import PLANES, SliceView
from napari_sam_med.volume.volume import Volume

FIELDS_MM = (360, 410, 500)
STRATEGIES = ("bound_box", "center_distance")
NOISE_HU = 12.0

Scan = tuple[str, Volume, LabelVolume]


def in_field(field_mm: float, side: int = 512, thinned: int = 1) -> Scan:
    """The sample in a field of view of ``side`` x ``side`` pixels; of its slices every ``thinned``-th."""
    volume = read_volume(sample_volume())
    labels = read_labels(sample_labels(), reference=volume)
    mm, (z_mm, y_mm, x_mm) = field_mm / side, volume.spacing
    scale = (1, y_mm / mm, x_mm / mm)
    values = ndimage.zoom(np.asarray(volume.data[::thinned], dtype=np.float32), scale, order=1)
    truth = ndimage.zoom(labels.data[::thinned], scale, order=0)
    noise = np.random.default_rng(0).normal(0, NOISE_HU, values.shape)
    data = _placed(values + noise, side, -1000).astype(np.int16)
    wide = Volume(data, Grid.from_zyx(data.shape, (z_mm * thinned, mm, mm)))
    organs = LabelVolume.like(wide, labels.organs)
    organs.data[...] = _placed(truth, side, 0)
    return f"sample in {field_mm:g} mm", wide, organs


def _placed(data: np.ndarray, side: int, around: float) -> np.ndarray:
    """Slices cut or filled up to ``side`` x ``side`` pixels, from the middle."""
    for axis in (1, 2):
        surplus = data.shape[axis] - side
        if surplus > 0:
            data = data.take(range(surplus // 2, surplus // 2 + side), axis)
        else:
            width = [(0, 0)] * 3
            width[axis] = (-surplus // 2, -surplus - -surplus // 2)
            data = np.pad(data, width, constant_values=around)
    return data


def geometry(scan: Scan) -> list[str]:
    """Row of the first table."""
    name, volume, _ = scan
    volume.value_range  # noqa: B018  read once for all, as the window is
    start = time.process_time()
    air = [
        sum(is_air(volume, SliceView(plane, i)) for i in range(volume.shape[axis]))
        for axis, plane in enumerate(PLANES)
    ]
    each_ms = 1e3 * (time.process_time() - start) / sum(volume.shape)
    start = time.process_time()
    box = BodyBox.of(volume)
    box_ms = 1e3 * (time.process_time() - start)
    _, height, width = np.subtract(box.high, box.low)
    sides = np.multiply(volume.shape, volume.spacing)[1:]
    finer = sides.max() / np.multiply((height, width), volume.spacing[1:]).max()
    outside = 1 - height * width / (volume.shape[1] * volume.shape[2])
    shares = [f"{count} of {n}" for count, n in zip(air, volume.shape, strict=True)]
    return [name, *shares, f"{each_ms:.1f}", f"{100 * outside:.0f} %", f"{finer:.2f}", f"{box_ms:.0f}"]


def scores(scan: Scan, predictor: Predictor, most: int, *, crop: bool) -> list[SliceScore]:
    """Of all planes in which the box is worth a crop."""
    name, volume, labels = scan
    box = BodyBox.of(volume)
    planes = tuple(plane for plane in PLANES if box.on(SliceView(plane, 0)) is not None)
    choice = SliceChoice(planes=planes, min_area=30, most=most, crop_to_body=crop)
    asked = Simulation(tuple(parse_strategies(STRATEGIES)), choice)
    return [score for step in measure_model(name, volume, labels, predictor, asked) for score in step.scores]


def comparison(scan: Scan, predictor: Predictor, most: int) -> Iterator[list[str]]:
    """Rows of the second table: a plane and a way to prompt each."""
    whole, cropped = (scores(scan, predictor, most, crop=crop) for crop in (False, True))
    pairs = list(zip(whole, cropped, strict=True))
    for plane in PLANES:
        for strategy in STRATEGIES:
            own = [(a, b) for a, b in pairs if (a.view.plane, a.strategy) == (plane, strategy)]
            if not own:
                continue
            middle = np.median([a.area_px for a, _ in own])
            cells = [scan[0], plane, strategy, str(len(own))]
            for chosen in (own, [pair for pair in own if pair[0].area_px < middle]):
                means = np.mean([(a.dice, b.dice) for a, b in chosen], axis=0) if chosen else (np.nan, np.nan)
                cells += [f"{means[0]:.3f}", f"{means[1]:.3f}"]
            yield cells


def carried(scan: Scan, predictor: Predictor, most: int, n_boxes: int = 3) -> list[str]:
    """Row of the third table: mean Dice of `most` organs, from boxes on a few of their axial slices."""
    name, volume, labels = scan
    objects = []
    for label in labels.class_ids()[:most]:
        shown = np.flatnonzero((labels.data == label).any(axis=(1, 2)))
        keys = shown[np.unique((np.arange(n_boxes) + 0.5) / n_boxes * len(shown)).astype(int)]
        boxes = {SliceView("axial", z): box_of_mask(labels.data[z] == label) for z in keys.tolist()}
        prompts = {view: Prompts.from_box(box) for view, box in boxes.items()}
        objects.append(PromptObject(label, None, "axial", prompts))
    means = []
    for crop in (None, BodyBox.of(volume)):
        found = segment_from_prompts(volume, objects, predictor, crop=crop).labels.data
        means.append(np.mean([dice(found == one.label, labels.data == one.label) for one in objects]))
    return [name, str(len(objects)), *(f"{mean:.3f}" for mean in means)]


def markdown(head: list[str], rows: list[list[str]]) -> str:
    """A table."""
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows))


def run(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--cases", type=Path, help="CSV with the columns image,labels")
    parser.add_argument(
        "--most",
        type=int,
        default=13,
        help="labelled slices of a scan and plane, and organs that are carried",
    )
    parser.add_argument("--model", default="nano")
    parser.add_argument("--quick", action="store_true", help="small slices, few of them")
    given = parser.parse_args(argv)
    size = {"side": 96, "thinned": 8} if given.quick else {}
    scans = [in_field(field, **size) for field in FIELDS_MM[-1 if given.quick else 0 :]]
    if given.cases:
        scans += [(case.name, *read_case(case)) for case in read_cases(given.cases)]
    head = [
        "scan",
        *(f"air, {plane}" for plane in PLANES),
        "ms a slice",
        "outside",
        "finer",
        "ms for the box",
    ]
    print(markdown(head, [geometry(scan) for scan in scans]), end="\n\n", flush=True)
    predictor = load_predictor(given.model)
    most = 1 if given.quick else given.most
    rows = [row for scan in scans for row in comparison(scan, predictor, most)]
    head = [
        "scan",
        "plane",
        "prompt",
        "masks",
        "Dice, whole slice",
        "body",
        "smaller half, whole slice",
        "body",
    ]
    print(markdown(head, rows), end="\n\n", flush=True)
    finer = [scan for scan in scans if BodyBox.of(scan[1]).on(SliceView("axial", 0)) is not None]
    rows = [carried(scan, predictor, most) for scan in finer]
    print(markdown(["scan", "organs", "Dice, carried on whole slices", "on the body"], rows))


if __name__ == "__main__":
    run()
