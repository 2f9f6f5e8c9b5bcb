"""What the prompt laboratory takes: batches against loops, and 500 slices by 8 strategies from end to end.

``python -m benchmarks.laboratory ways [--model nano] [--slices 6] [--repeats 3] [--threads 2]`` (and
``--strategies``) measures one experiment in three ways, in one run and slice by slice in turn: as
`measure_slice` does it; with one prompt per decode on the same embeddings; and with the slice embedded anew
for each prompt, as a script with ``set_image`` in its loop does. Of each slice the fastest of the repeats
counts; scores must agree to 1e-4.
``--model random_vit_b`` stands for SAM's ViT-B with random weights, which takes as long as the real ones;
``--reckon`` adds up the last way from the time of an embedding instead of running it for minutes. Beside wall
time stands the time on the processor, which other programs disturb less; with one thread it can be compared.

``python -m benchmarks.laboratory volume [--slices 500] [--kill]`` runs ``napari-sam-med evaluate`` on that
many slices with a liver, in a process of its own, and prints its wall time and peak memory; with ``--kill`` a
second run is killed (SIGKILL) on its way and resumed, and its rows are compared with those of the first.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np

from benchmarks.ct import make_ct
from napari_sam_med import load_predictor, read_labels, read_volume, to_rgb
from napari_sam_med.evaluation.measuring import (
    AskedSlice,
    Simulation,
    SliceChoice,
    SliceScore,
    labelled_slices,
    measure_slice,
    organ_names,
)
from napari_sam_med.evaluation.prompt_strategies import parse_strategies
from napari_sam_med.evaluation.results_file import read_results
from napari_sam_med.sam.architectures.meta import build_sam_vit
from napari_sam_med.sam.mask_prediction import MaskPrediction
from napari_sam_med.sam.model_registry import MODELS
from napari_sam_med.sam.predictor import ImageEmbedding, Predictor
from napari_sam_med.sam.prompts import Prompts
from napari_sam_med.sample_data import sample_labels, sample_volume

STRATEGIES = (
    "bound_box",
    "larger_box",
    "random_margin_box:10",
    "random_margin_box:20",
    "jittered_box:0.1",
    "random_mask",
    "center_mask:snap",
    "random_3",
)
AGREEMENT = 1e-4
BATCHED, SINGLY, NAIVE = "batched", "one prompt per decode", "set_image per prompt"
T = TypeVar("T")


class OneByOne:
    """A predictor that is asked one prompt at a time; with `image` it looks at the slice anew for each."""

    def __init__(self, predictor: Predictor, look: Callable[[], ImageEmbedding] | None = None) -> None:
        self.predictor = predictor
        self.look = look

    def predict_batch(
        self, embedding: ImageEmbedding, prompts: Sequence[Prompts], *, single_beside: bool = False
    ) -> list[MaskPrediction]:
        """Answers, one after the other."""
        return [
            self.predictor.predict_batch(
                self.look() if self.look else embedding, [one], single_beside=single_beside
            )[0]
            for one in prompts
        ]


def model_of(name: str) -> Predictor:
    """A predictor by name; ``random_vit_b`` is one that needs no file."""
    if name != "random_vit_b":
        return load_predictor(name)
    import torch  # after the package, which tells its threads how to wait

    torch.manual_seed(0)
    return Predictor(build_sam_vit("vit_b"), MODELS["sam_vit_b"], model_hash="random")


def compare_ways(
    model: str,
    n_slices: int,
    repeats: int,
    *,
    reckon: bool = False,
    strategies: Sequence[str] = STRATEGIES,
) -> float:
    """Measure the sample in three ways, print times and ratios, and return the largest difference."""
    import torch

    predictor = model_of(model)
    volume = read_volume(sample_volume())
    labels = read_labels(sample_labels(), reference=volume)
    names = organ_names(labels)
    simulation = Simulation(tuple(parse_strategies(strategies)))
    ways = (BATCHED, SINGLY) if reckon else (BATCHED, SINGLY, NAIVE)
    seconds = {way: np.zeros(2) for way in ways}
    embedding_seconds = np.zeros(2)
    apart, answers, slices = 0.0, 0, 0
    for labelled in labelled_slices(labels, SliceChoice(min_area=20, most=n_slices)):
        view = labelled.view
        pixels, spacing = to_rgb(volume, view), volume.pixel_spacing(view)
        asked = AskedSlice("sample", view, labelled.masks(labels), names, pixels, spacing)
        look = partial(predictor.embed, pixels, spacing)
        embedding, _ = timed(look)
        embedding_seconds += np.min([timed(look)[1] for _ in range(repeats)], axis=0)
        answering = {BATCHED: predictor, SINGLY: OneByOne(predictor), NAIVE: OneByOne(predictor, look)}
        best = {way: np.full(2, np.inf) for way in ways}
        scores: dict[str, list[SliceScore]] = {}
        for _ in range(repeats):
            for way in ways:
                ask = partial(measure_slice, asked, embedding, answering[way], simulation)
                scores[way], took = timed(ask)
                best[way] = np.minimum(best[way], took)
        for way in ways:
            seconds[way] += best[way]
            apart = max(apart, largest_difference(scores[BATCHED], scores[way]))
        answers, slices = answers + len(scores[BATCHED]), slices + 1
    if reckon:
        seconds[NAIVE] = seconds[SINGLY] + answers / slices * embedding_seconds
    print(
        f"{model}, {answers} answers on {slices} slices, {torch.get_num_threads()} threads, best of {repeats}"
    )
    print(f"  to embed a slice: {_two(1e3 * embedding_seconds / slices)} ms (wall, processor)")
    for way, took in seconds.items():
        ratio = took / seconds[BATCHED]
        print(f"  {way}: {_two(1e3 * took / answers)} ms an answer, {_two(ratio)} times batched")
    verdict = "within" if apart <= AGREEMENT else "ABOVE"
    print(f"  largest difference of a score: {apart:.1e}, {verdict} {AGREEMENT}")
    return apart


def timed(call: Callable[[], T]) -> tuple[T, np.ndarray]:
    """What a call returns, and its seconds by the clock and on the processor."""
    began = np.array([time.perf_counter(), time.process_time()])
    found = call()
    return found, np.array([time.perf_counter(), time.process_time()]) - began


def _two(values: np.ndarray) -> str:
    return ", ".join(f"{value:.2f}" for value in values)


def largest_difference(a: Sequence[SliceScore], b: Sequence[SliceScore]) -> float:
    """Of Dice, IoU and predicted IoU, over all rows."""
    return max(
        abs(getattr(one, measure) - getattr(other, measure))
        for one, other in zip(a, b, strict=True)
        for measure in ("dice", "iou", "iou_prediction")
    )


def measure_volume(n_slices: int, kill: bool) -> None:
    """Run the command on a long scan and print wall time and peak memory."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ct = make_ct(folder, (256, 256, 6 * n_slices // 5))
        import nibabel as nib

        nib.save(nib.Nifti1Image(ct.labels, nib.load(ct.path).affine), folder / "labels.nii.gz")
        command = [sys.executable, "-m", "napari_sam_med.cli", "evaluate", "--image", str(ct.path)]
        command += ["--labels", str(folder / "labels.nii.gz"), "--names", '{"6": "liver"}', "--only", "liver"]
        command += ["--most-slices", str(n_slices), "--strategies", ",".join(STRATEGIES), "--output"]
        began = time.perf_counter()
        subprocess.run([*command, str(folder / "whole")], check=True, stdout=subprocess.DEVNULL)
        took = time.perf_counter() - began
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
        whole = rows_of(folder / "whole")
        slices = len({row.view for row in whole})
        print(f"{slices} slices x {len(STRATEGIES)} strategies, {len(whole)} rows of nano, 256 x 256 pixels")
        print(f"  wall time {took:.0f} s, {1e3 * took / len(whole):.1f} ms a row; peak memory {peak:.0f} MiB")
        if not kill:
            return
        with subprocess.Popen([*command, str(folder / "killed")]) as process:
            while len(rows_of(folder / "killed")) < len(whole) // 3 and process.poll() is None:
                time.sleep(0.2)
            process.kill()
        left = len(rows_of(folder / "killed"))
        subprocess.run([*command, str(folder / "killed"), "--resume"], check=True, stdout=subprocess.DEVNULL)
        same = rows_of(folder / "killed") == whole
        verdict = "equal" if same else "DIFFER FROM"
        print(f"  killed after {left} rows and resumed: its rows {verdict} those of the first run")


def rows_of(folder: Path) -> list[SliceScore]:
    """What was written so far, without the times."""
    path = folder / "results.csv"
    return [replace(row, seconds=0.0) for row in read_results(path)] if path.exists() else []


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.laboratory", description=__doc__)
    parser.add_argument("what", choices=("ways", "volume"))
    parser.add_argument("--model", default="nano")
    parser.add_argument("--slices", type=int)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--strategies", default=",".join(STRATEGIES))
    parser.add_argument("--threads", type=int)
    parser.add_argument("--reckon", action="store_true")
    parser.add_argument("--kill", action="store_true")
    options = parser.parse_args()
    if options.threads:
        import torch

        torch.set_num_threads(options.threads)
    if options.what == "ways":
        compare_ways(
            options.model,
            options.slices or 6,
            options.repeats,
            reckon=options.reckon,
            strategies=options.strategies.split(","),
        )
    else:
        measure_volume(options.slices or 500, options.kill)


if __name__ == "__main__":
    main()
