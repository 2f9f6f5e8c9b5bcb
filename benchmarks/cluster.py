"""Two workers beside one, of one thread each: ``python -m benchmarks.cluster [--volumes 8] [--model nano]``.

Volumes are made up and embedded by the task of `napari-sam-med embed`, from an empty store, on workers that
have loaded the model. One worker and two take turns, and the best of each is kept: other programs can only
make a run slower. Where others keep the cores busy, elapsed times say little. What they change less are the
processor's seconds and the share of the time that workers were at a task: their medians are printed, and what
two cores would give by them.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import nibabel as nib
import numpy as np

from napari_sam_med.cluster.workers import Cluster, local_workers
from napari_sam_med.sam.shared_model import SharedModel
from napari_sam_med.segmentation.volume_embedding import EmbeddingTask, embed_on_worker

_NO_LIMIT = 1 << 60


def main() -> None:
    """Print the seconds of both, and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--volumes", type=int, default=8)
    parser.add_argument("--slices", type=int, default=24)
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--model", default="nano")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        volumes = [
            made_up_volume(folder / f"ct{number}.nii.gz", options.slices, options.side, seed=number)
            for number in range(options.volumes)
        ]
        model = SharedModel.of(options.model, "cpu")
        with local_workers(1) as one, local_workers(2) as two:
            runs: dict[int, list[Run]] = {1: [], 2: []}
            for repeat in range(options.repeats + 1):
                for count, cluster in ((1, one), (2, two)):
                    found = embed_all(cluster, volumes, model, folder / f"store {repeat} {count}")
                    if found.slices != options.volumes * options.slices:
                        raise RuntimeError(f"{found.slices} slices were embedded.")
                    if repeat:  # the first loads the model
                        runs[count].append(found)
                        print(f"{count} workers: {_described(found, count)}", flush=True)
    best = {count: min(run.seconds for run in found) for count, found in runs.items()}
    cpu = {count: median(run.cpu for run in found) for count, found in runs.items()}
    busy = {count: median(run.busy / run.seconds / count for run in found) for count, found in runs.items()}
    print(f"elapsed: {best[1]:.1f} s with one, {best[2]:.1f} s with two ({best[1] / best[2]:.2f} times)")
    print(
        f"processor: {cpu[1]:.1f} s with one, {cpu[2]:.1f} s with two; "
        f"at tasks {busy[1]:.0%} and {busy[2]:.0%}"
    )
    print(
        f"by these, on two cores without other programs: {2 * cpu[1] / cpu[2] * busy[2] / busy[1]:.2f} times"
    )


@dataclass(frozen=True)
class Run:
    """All volumes once: seconds in all, of the processor, and of workers at tasks; slices embedded."""

    seconds: float
    cpu: float
    busy: float
    slices: int


def embed_all(cluster: Cluster, volumes: list[Path], model: SharedModel, store: Path) -> Run:
    """Embed the volumes into a new store."""
    tasks = [EmbeddingTask(path, ("axial",), "auto", model, store, _NO_LIMIT) for path in volumes]
    started = time.perf_counter()
    found = [one for _, one in cluster.each(_timed, tasks)]
    seconds = time.perf_counter() - started
    return Run(seconds, *(sum(values) for values in zip(*found, strict=True)))


def _timed(task: EmbeddingTask) -> tuple[float, float, int]:
    """Processor's seconds and seconds of a task, and the slices that it embedded."""
    cpu, started = time.process_time(), time.perf_counter()
    made = embed_on_worker(task).made
    return time.process_time() - cpu, time.perf_counter() - started, made


def _described(run: Run, count: int) -> str:
    busy = run.busy / run.seconds / count
    load = os.getloadavg()[0]
    return f"{run.seconds:.1f} s, processor {run.cpu:.1f} s, at tasks {busy:.0%} (load {load:.1f})"


def made_up_volume(path: Path, slices: int, side: int, seed: int) -> Path:
    """A scan (side, side, slices) of noise in Hounsfield units, in a file."""
    data = np.random.default_rng(seed).normal(0, 150, (side, side, slices)).astype(np.int16)
    nib.save(nib.Nifti1Image(data, np.diag([0.8, 0.8, 2.5, 1.0])), path)
    return path


if __name__ == "__main__":
    main()
