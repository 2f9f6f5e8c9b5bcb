"""The speed of two dask workers beside one, for `benchmarks.speed`."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.cluster import embed_all, made_up_volume
from benchmarks.ratios import Ratio
from napari_sam_med.cluster.workers import local_workers
from napari_sam_med.sam.shared_model import SharedModel


def rows(device: str, quick: bool) -> Iterator[Ratio]:
    """Volumes embedded from an empty store by two workers and by one, of one thread each."""
    n_volumes, n_slices, side, repeats = (2, 2, 64, 1) if quick else (8, 12, 512, 3)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        volumes = [
            made_up_volume(folder / f"ct{seed}.nii.gz", n_slices, side, seed) for seed in range(n_volumes)
        ]
        model = SharedModel.of("nano", device)
        best = {1: float("inf"), 2: float("inf")}
        with local_workers(1) as one, local_workers(2) as two:
            for repeat in range(repeats + 1):
                for count, cluster in ((1, one), (2, two)):
                    found = embed_all(cluster, volumes, model, folder / f"store {repeat} {count}")
                    if found.slices != n_volumes * n_slices:
                        raise RuntimeError(f"{found.slices} slices were embedded.")
                    if repeat:  # the first loads the model
                        best[count] = min(best[count], found.seconds)
    yield Ratio(
        f"{n_volumes} volumes of {n_slices} slices embedded by two dask workers",
        "one worker",
        best[2],
        best[1],
        1.7,
        "faster",
    )
