"""The speed of other plugins' own functions beside ours, for `benchmarks.speed`.

Weights are random, in the layout of SAM ViT-B, and the same for all. What is compared, and where both differ
in more than speed: docs/rivals.md.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.ratios import Ratio
from benchmarks.rival_serving import Answer
from benchmarks.rivals import (
    ENVIRONMENT,
    HOW_TO,
    NO_LIMITS,
    Ours,
    Rival,
    in_turn,
    made_up_scan,
    relative_difference,
)

__all__ = ["Amount", "beside_micro_sam", "beside_napari_sam", "rows"]

_MICRO_SAM_STOP = 0.5
"""Least IoU of neighbouring slices in micro-sam's annotator."""


@dataclass(frozen=True)
class Amount:
    """How much is done.

    Attributes
    ----------
    embedded : int
        Slices that the encoder sees; even, see `carried`.
    carried : int
        Slices of a propagation that finds embeddings at hand. Even, so that none lies midway between two key
        slices: micro-sam asks that one with a point at every maximum of the distance to the masks' borders,
        of which masks of random weights have thousands.
    turns, clicks : int
        Of embedding into a store and of carrying; of clicks. Others with the encoder have one turn: they take
        long, and nearly all of it is the encoder's.
    side : int
        Pixels of a slice.
    """

    embedded: int = 4
    carried: int = 26
    turns: int = 2
    clicks: int = 8
    side: int = 512


def rows(device: str, quick: bool) -> Iterator[Ratio]:
    """Each rival that is installed in the environment that NAPARI_SAM_MED_RIVALS names, beside us."""
    if not os.environ.get(ENVIRONMENT):
        print(HOW_TO)
        return
    import torch  # after the package, which tells its threads how to wait

    from benchmarks.automatic import random_network
    from napari_sam_med import load_predictor

    amount = Amount(embedded=4, carried=6, turns=1, clicks=1, side=128) if quick else Amount()
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        scan, weights = made_up_scan(amount.embedded, amount.side), folder / "vit_b.pth"
        torch.save(random_network("vit_b").state_dict(), weights)
        ours = Ours(load_predictor(weights, device=device, precision="fp32"), scan)
        settings = scan.written(folder) | {
            "weights": weights,
            "device": device,
            "threads": torch.get_num_threads(),
        }
        for name in ("micro_sam", "napari_sam"):
            with Rival.called(name, settings, folder / f"{name}.txt") as rival:
                if rival.version is None:
                    print(f"{name} is not installed there: its rows are left out.")
                elif name == "micro_sam":
                    yield from beside_micro_sam(ours, rival, amount, folder)
                else:
                    yield from beside_napari_sam(ours, rival, amount)


def beside_micro_sam(ours: Ours, rival: Rival, amount: Amount, folder: Path) -> Iterator[Ratio]:
    """Embeddings into a store on disk, an object carried in four ways, a click."""
    title, stores = f"micro-sam {rival.version}", (folder / f"store {number}" for number in count())
    n, middle, far = amount.embedded, amount.carried // 2, amount.carried - 1

    def fresh(job: Any, **arguments: Any) -> Any:
        return lambda: job(store=next(stores), **arguments)

    ours.embed_in_memory(1)  # the first slice of a process is slower
    rival.embed(n_slices=1, store=next(stores))
    mine, its = in_turn(fresh(ours.embed, n_slices=n), fresh(rival.embed, n_slices=n), amount.turns)
    apart = relative_difference(ours.features(0), np.load(its["features"]))
    sizes = f"{mine['bytes'] / n / 1e6:.1f} and {its['bytes'] / n / 1e6:.1f} MB a slice on disk"
    yield _row(
        f"{n} slices embedded into a store on disk",
        f"{title}, `precompute_image_embeddings` to zarr",
        mine,
        its,
        f"{sizes}; embeddings differ by {apart:.2%}",
    )

    between = {"n_slices": n, "keys": [0, n - 1]}
    mine, its = in_turn(
        fresh(ours.embed_and_carry, **between),
        fresh(rival.embed_and_carry, stop=_MICRO_SAM_STOP, **between),
        1,
    )
    carry = f"{title}, `segment_mask_in_volume`"
    yield _row(
        f"an object carried from 2 key slices of {n}, from an empty store",
        f"{carry} after precomputing",
        mine,
        its,
        _filled(mine, its),
    )

    between = {"n_slices": amount.carried, "keys": [0, far]}
    for changes, limits in ((NO_LIMITS, "without limits"), ({}, "every slice doubted and asked again")):
        mine, its = in_turn(
            partial(ours.carry, n_embedded=n, **between, **changes),
            partial(rival.carry, stop=_MICRO_SAM_STOP, **between),
            amount.turns,
        )
        yield _row(
            f"an object carried from 2 key slices of {amount.carried}, {limits}, embeddings at hand",
            carry,
            mine,
            its,
            _filled(mine, its),
        )

    outwards = {"n_slices": amount.carried, "keys": [middle]}
    mine, its = in_turn(
        partial(ours.carry, n_embedded=n, **outwards, **NO_LIMITS),
        partial(rival.carry, stop=0.0, **outwards),
        amount.turns,
    )
    yield _row(
        f"an object carried from 1 key slice over {amount.carried}, without limits, embeddings at hand",
        carry,
        mine,
        its,
        _filled(mine, its),
    )
    yield _clicked(ours, rival, f"{title}, `segment_from_points`", amount, "three masks each")


def beside_napari_sam(ours: Ours, rival: Rival, amount: Amount) -> Iterator[Ratio]:
    """Embeddings kept in memory, and a click; it has nothing that carries a prompted object."""
    title, n = f"napari-sam {rival.version}", amount.embedded
    ours.embed_in_memory(1)
    rival.embed(n_slices=1)
    mine, its = in_turn(partial(ours.embed_in_memory, n), partial(rival.embed, n_slices=n), 1)
    what = f"{n} slices embedded and kept in memory"
    yield _row(what, f"{title}, `SamWidget.set_image`", mine, its)
    yield _clicked(ours, rival, f"{title}, `SamWidget.predict_sam`", amount, "three masks beside one")


def _clicked(ours: Ours, rival: Rival, against: str, amount: Amount, note: str) -> Ratio:
    where = {"index": 1, "x": amount.side / 2 - 0.5, "y": amount.side / 2 - 0.5}
    ours.click(**where)
    rival.click(**where)
    mine, its = in_turn(partial(ours.click, **where), partial(rival.click, **where), amount.clicks)
    return _row("a click on an embedded slice", against, mine, its, note)


def _filled(mine: Answer, its: Answer) -> str:
    interpolated = f", {mine['interpolated']} of them interpolated" if mine["interpolated"] else ""
    return f"{mine['filled']} slices have a mask{interpolated}, {its['filled']} of the other's"


def _row(what: str, against: str, mine: Answer, its: Answer, note: str = "") -> Ratio:
    ratio = its["processor"] / mine["processor"] if mine["processor"] else float("nan")
    words = f"on the processor {mine['processor']:.3g} s, {its['processor']:.3g} s, ratio {ratio:.2f}"
    both = f"{note}; {words}" if note else words
    return Ratio(what, against, mine["seconds"], its["seconds"], 1.0, "faster", both)
