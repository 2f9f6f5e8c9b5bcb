"""The speed of carrying masks through volumes, and of opening a CT in napari, for `benchmarks.speed`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from benchmarks.made_up_organs import MadeUpOrgans
from benchmarks.ratios import Ratio
from napari_sam_med import Prompts, SliceView, load_predictor, propagate
from napari_sam_med.sam.embedding_store import EmbeddingStore
from napari_sam_med.sam.predictor import Predictor
from napari_sam_med.segmentation.propagation_cache import PropagationCache

Masks = dict[tuple[int, int], np.ndarray]
"""By object and slice."""
_N_KEYS = 5


def rows(device: str, quick: bool) -> Iterator[Ratio]:
    """Organs carried together and one by one; carried again after an edit; a CT opened in napari."""
    organs = MadeUpOrgans.of(*((10, 64) if quick else (100, 512)))
    predictor = load_predictor("nano", device=device)
    yield together(organs, predictor, organs.labels[:3] if quick else organs.labels, 1 if quick else 2)
    yield again(organs, predictor, 1 if quick else 4)
    if sys.platform == "linux" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        print("Opening a CT was left out: there is no display; run it with xvfb-run.", file=sys.stderr)
        return
    yield from opening(organs, (12, 64) if quick else (600, 512), 0 if quick else 3)


def together(organs: MadeUpOrgans, predictor: Predictor, labels: range, repeats: int) -> Ratio:
    """All organs in one run and each in one of its own, every run from an empty store of embeddings.

    Raises
    ------
    RuntimeError
        When the two do not give the same masks.
    """
    volume = organs.volume
    middle = volume.shape[0] // 2
    objects = {label: (label, organs.box(label, middle)) for label in labels}
    _carried(organs, dict([*objects.items()][:1]), predictor)  # warms up
    best = [float("inf"), float("inf")]
    for _ in range(repeats):
        start = time.perf_counter()
        at_once = _carried(organs, objects, predictor)
        best[0] = min(best[0], time.perf_counter() - start)
        start = time.perf_counter()
        alone: Masks = {}
        for label, of_one in objects.items():
            alone |= _carried(organs, {label: of_one}, predictor)
        best[1] = min(best[1], time.perf_counter() - start)
        _check_same(at_once, alone, "Organs carried together and one by one")
    n_organs, n_slices = len(objects), len(at_once) / len(objects)
    return Ratio(
        f"{n_organs} organs carried over {n_slices:.0f} slices each, together",
        f"{n_organs} runs, each from an empty store",
        best[0],
        best[1],
        3.0,
        "faster",
        "the same masks",
    )


def again(organs: MadeUpOrgans, predictor: Predictor, repeats: int) -> Ratio:
    """One organ carried from five key slices, and again after one of them was edited.

    The embeddings are there both times. What is compared with is the time of the first run times the share
    of all slices, key slices included, that lie in the two gaps beside the edited one.

    Raises
    ------
    RuntimeError
        When what comes of the second run is not what a run without anything remembered gives.
    """
    n_slices, label = organs.volume.shape[0], 2
    indices = [round((n + 0.5) * n_slices / _N_KEYS) for n in range(_N_KEYS)]
    keys: dict[SliceView, Prompts] = {}
    for index in indices:
        keys |= organs.box(label, index)
    edited = {**keys, **organs.box(label, indices[2], margin=0.1)}
    share = (indices[3] - indices[1] - 2) / n_slices
    store = EmbeddingStore(None)
    expected = _carried(organs, {1: (label, edited)}, predictor, store=store)
    seconds, seconds_again = float("inf"), float("inf")
    for _ in range(repeats):
        cache = PropagationCache()
        start = time.perf_counter()
        _carried(organs, {1: (label, keys)}, predictor, store=store, cache=cache)
        between = time.perf_counter()
        found = _carried(organs, {1: (label, edited)}, predictor, store=store, cache=cache)
        seconds = min(seconds, between - start)
        seconds_again = min(seconds_again, time.perf_counter() - between)
        _check_same(found, expected, "A run with and without what is remembered")
    return Ratio(
        f"an organ carried again after an edit of one of {_N_KEYS} key slices",
        f"the whole run ({seconds:.2f} s, {len(expected)} slices) x {share:.2f}, the share of slices in the "
        "two gaps beside it",
        seconds_again,
        seconds * share,
        1.1,
        "cost",
        "the same masks as without what is remembered",
    )


def opening(organs: MadeUpOrgans, shape: tuple[int, int], repeats: int) -> Iterator[Ratio]:
    """A CT of (slices, side) from its file to the first slice drawn, in a process of its own."""
    n_slices, side = shape
    copies = -(-n_slices // organs.volume.shape[0])
    data = np.tile(organs.volume.data, (copies, 1, 1))[:n_slices]
    image = nib.Nifti1Image(data.transpose(), organs.volume.affine)
    with tempfile.TemporaryDirectory() as name:
        paths = [Path(name) / "ct.nii.gz", Path(name) / "ct.nii"]
        for path in paths:
            nib.save(image, path)
        command = [sys.executable, "-m", "benchmarks.opening_in_napari", *map(str, paths)]
        finished = subprocess.run(
            [*command, "--repeats", str(repeats)],
            check=True,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[1],
        )
        found = json.loads(finished.stdout.splitlines()[-1])
        for path in paths:
            ours, theirs = found[str(path)]["ours"], found[str(path)]["nibabel"]
            yield Ratio(
                f"{side} x {side} x {n_slices} {path.name[2:]} opened in napari, to the first slice drawn",
                "np.asanyarray(nib.load(path).dataobj)"
                + ("" if path.name.endswith("gz") else ", copied: it is but mapped"),
                ours[0],
                theirs[0],
                1.2,
                "cost",
                f"{ours[1]:.2f} and {theirs[1]:.2f} s of the processor",
            )


def _carried(
    organs: MadeUpOrgans,
    objects: Mapping[int, tuple[int, dict[SliceView, Prompts]]],
    predictor: Predictor,
    *,
    store: EmbeddingStore | None = None,
    **options: Any,
) -> Masks:
    done = propagate(
        organs.volume,
        objects,
        predictor,
        store=EmbeddingStore(None) if store is None else store,
        **options,
    )
    return {(one.object_id, one.view.index): one.mask for one in done}


def _check_same(ours: Masks, theirs: Masks, what: str) -> None:
    differing = ours.keys() ^ theirs.keys()
    differing |= {key for key in ours.keys() & theirs.keys() if not np.array_equal(ours[key], theirs[key])}
    if differing:
        raise RuntimeError(f"{what} differ on {len(differing)} slices of {len(ours)}.")
