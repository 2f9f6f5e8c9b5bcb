"""Train the bundled organ classifier: ``python -m napari_sam_med.training.train_organ_classifier -o DIR``.

Scans are invented from the bundled phantom and from label maps; real grey values are never seen. Features are
kept in DIR, so that a second run only trains the head. Temperature, threshold and the correlation of errors
come from heads that were trained without one of the bodies and asked about that body.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from napari_sam_med.segmentation.organ_classifier import (
    ClassifierFacts,
    LateFusionClassifier,
    log_softmax,
    with_facts,
    write_classifier,
)
from napari_sam_med.segmentation.organ_vote import OTHER
from napari_sam_med.training.class_head import HeadRecipe, calibrated, logits_of, measure, train_head
from napari_sam_med.training.class_head_bodies import OBJECTS, Body, read_bodies
from napari_sam_med.training.class_head_samples import Samples, samples_of_slices
from napari_sam_med.training.class_head_scans import invent_scan
from napari_sam_med.volume.organs import OrganTable

if TYPE_CHECKING:
    from napari_sam_med.sam.predictor import Predictor

__all__ = ["ORGANS", "invented_samples", "main", "train_bundled"]

ORGANS: tuple[str, ...] = (*(organ.name for organ in OrganTable.btcv().values()), OTHER)
"""Classes of the bundled classifier."""
CLASS_OF = {number: number - 1 for number in range(1, 14)} | dict.fromkeys(OBJECTS.values(), 13)
_OTHERS_A_SCAN = 4
_MIN_PIECE = 8
_REARRANGED = 0.75
"""Share of the rearranged scans in which organs really are moved."""
_NUMBERS = 1000
"""Scans of one body are numbered from a multiple of this on."""
_DRAWN = {13: 0.4}
"""Who labels a scan mostly labels organs: `OTHER` counts less than one of them."""


@dataclass(frozen=True, eq=False)
class BodySamples:
    """Masks on scans of a body as it is, and on scans with its organs moved one by one."""

    name: str
    plain: Samples
    rearranged: Samples

    @property
    def parts(self) -> tuple[Samples, Samples]:
        """Both."""
        return self.plain, self.rearranged


def invented_samples(
    body: Body, n_scans: int, predictor: Predictor, *, seed: int, first: int = 0, rearranged: float = 0.0
) -> Samples:
    """Masks that the model predicts on invented scans of a body; scan k of a seed is always the same."""
    parts = []
    for k in range(n_scans):
        rng = np.random.default_rng([seed, first + k])
        scan = invent_scan(body, rng, rearranged=rearranged)
        truth = _single_pieces(scan.objects, scan.slices, rng)
        found = samples_of_slices(
            scan.volume, truth, scan.slices, CLASS_OF, predictor, rng, patient=first + k
        )
        if found is not None:
            parts.append(found)
        sys.stderr.write(f"\r{body.name}: {k + 1} of {n_scans} scans")
    sys.stderr.write("\n")
    return Samples.joined(parts)


def _single_pieces(
    objects: npt.NDArray[np.uint8], slices: Sequence[int], rng: np.random.Generator
) -> npt.NDArray[np.uint8]:
    """Of what is no organ, a few kinds a scan, and one piece of each on a slice."""
    truth = np.where(objects <= 13, objects, 0).astype(np.uint8)
    for number in rng.choice(list(OBJECTS.values()), _OTHERS_A_SCAN, replace=False):
        for z in slices:
            pieces, count = ndimage.label(objects[z] == number)
            sizes = np.bincount(pieces.ravel(), minlength=count + 1)
            large = np.flatnonzero(sizes[1:] >= _MIN_PIECE) + 1
            if len(large):
                truth[z][pieces == rng.choice(large)] = number
    return truth


def train_bundled(
    samples: Sequence[BodySamples], recipe: HeadRecipe, predictor: Predictor, *, seed: int
) -> tuple[LateFusionClassifier, dict[str, Any]]:
    """The classifier, and a report of the bodies left out in turn.

    Temperature, threshold and rho come from what heads trained without a body say of its scans as it is.
    """
    held_out: list[npt.NDArray[np.float64]] = []
    for left_out in samples:
        rest = Samples.joined([part for one in samples if one is not left_out for part in one.parts])
        network = train_head(rest, len(ORGANS), recipe, seed=seed, drawn=_DRAWN)
        held_out.append(logits_of(network, left_out.plain))
        sys.stderr.write(f"trained without {left_out.name}\n")
    everything = Samples.joined([part for one in samples for part in one.parts])
    network = train_head(everything, len(ORGANS), recipe, seed=seed, drawn=_DRAWN)
    facts = ClassifierFacts("late_fusion", ORGANS, predictor.record.name, predictor.model_hash)
    facts, _, _ = calibrated(facts, np.concatenate(held_out), Samples.joined([one.plain for one in samples]))
    report = {
        f"without {one.name}, on {one.name}": measure(
            log_softmax(logits, facts.temperature), one.plain, ORGANS, rho=facts.rho
        ).summary()
        | {"masks": len(one.plain)}
        for one, logits in zip(samples, held_out, strict=True)
    }
    return LateFusionClassifier(facts, network), report


def read_or_make(
    folder: Path, body: Body, number: int, given: argparse.Namespace, predictor: Predictor
) -> BodySamples:
    """Samples of a body, from the folder where an earlier run left them there."""
    kinds = {"plain": (given.scans, 0.0), "rearranged": (given.rearranged, _REARRANGED)}
    parts = []
    for kind, (n_scans, share) in kinds.items():
        cache = folder / f"samples_{body.name}_{kind}_{n_scans}_{given.seed}.npz"
        if not cache.exists():
            made = invented_samples(
                body, n_scans, predictor, seed=given.seed, first=_NUMBERS * number, rearranged=share
            )
            made.save(cache)
        parts.append(Samples.load(cache))
    return BodySamples(body.name, *parts)


def main(argv: Sequence[str] | None = None) -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder for features and classifier")
    parser.add_argument("--amos", type=Path, help="label map of an AMOS case (15 organs)")
    parser.add_argument("--spl", type=Path, help="the SPL abdominal atlas (.seg.nrrd)")
    parser.add_argument("--scans", type=int, default=120, help="invented scans of each body as it is")
    parser.add_argument("--rearranged", type=int, default=70, help="and with organs moved one by one")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(argv)
    from napari_sam_med.sam.predictor import load_predictor

    predictor = load_predictor("nano", device="cpu")
    given.output.mkdir(parents=True, exist_ok=True)
    maps = {name: path for name in ("amos", "spl") if (path := getattr(given, name)) is not None}
    samples = [
        read_or_make(given.output, body, number, given, predictor)
        for number, body in enumerate(read_bodies(maps))
    ]
    recipe = HeadRecipe()
    classifier, report = train_bundled(samples, recipe, predictor, seed=given.seed)
    training = {
        "data": [one.name for one in samples],
        "scans_of_each": {"plain": given.scans, "rearranged": given.rearranged},
        "masks": sum(len(part) for one in samples for part in one.parts),
        "recipe": asdict(recipe),
        "seed": given.seed,
        "held_out": report,
    }
    path = write_classifier(
        given.output / "organs_nano.safetensors", with_facts(classifier, training=training)
    )
    sys.stdout.write(json.dumps(report, indent=2) + f"\n{path}: {path.stat().st_size} bytes\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
