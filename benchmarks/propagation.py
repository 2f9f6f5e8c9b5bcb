"""Measure propagation on labelled volumes, beside the ways that need less.

``python -m benchmarks.propagation --cases CSV [--keys 1,3,5] [--robot] [--quick] -o DIR``

Every organ with at least 3 slices and 100 voxels is boxed (tangent boxes of its labels) and carried by every
engine with the same model: our propagator (with ``--options``, and once more for each ``--variant``), the box
copied to all slices, micro-sam's rule at its two published settings, and the interpolation of the same
model's key masks. Protocols:

- ``largest``: one box on the largest slice, the extent unknown to all;
- ``N keys``: N boxes in the middles of N equal parts of the organ's extent;
- ``N keys, ends``: N boxes from the organ's first slice to its last one;
- with ``--robot``, an annotator who boxes the largest slice and then corrects slice after slice by up to 3
  clicks (``--correction mask``: draws it), in the order that is suggested, and in the control's: the middle
  of the widest gap, of the extent found so far (``even-found``) or of the true one (``even-true``).

Slices are embedded before the clock starts, so the seconds are those of decoding and of everything else.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.propagation_tables import report, write_csv
from napari_sam_med.evaluation.baselines import tight_box
from napari_sam_med.evaluation.cases import Case, read_case, read_cases
from napari_sam_med.evaluation.measuring import organ_names
from napari_sam_med.evaluation.propagation_baselines import BoxCopyPropagator, PreviousMaskPropagator
from napari_sam_med.evaluation.robot_annotator import RobotAnnotator, RobotSettings
from napari_sam_med.evaluation.volume_metrics import VolumeScore, score_volume
from napari_sam_med.sam.embedding_store import EmbeddingStore
from napari_sam_med.sam.predictor import Predictor, load_predictor
from napari_sam_med.sam.prompts import Prompts
from napari_sam_med.segmentation.propagation import Propagator, propagate
from napari_sam_med.segmentation.propagation_cache import PropagationCache
from napari_sam_med.segmentation.slicewise import embed_slice
from napari_sam_med.volume.intensity import resolve_window
from napari_sam_med.volume.slice_view import PLANES, Plane, SliceView
from napari_sam_med.volume.volume import Volume

LEAST_SLICES, LEAST_VOXELS = 3, 100
MEMORY_BYTES = 6 * 1024**3
COLUMNS = (
    "case", "organ", "label", "protocol", "engine", "keys", "slices_true", "slices_found",
    "dice", "nsd", "hd95_mm", "over_propagation", "seconds",
)  # fmt: skip
ROBOT_COLUMNS = (
    "case", "organ", "label", "engine", "order", "slices_prompted", "slice", "why", "interactions",
    "dice", "nsd", "hd95_mm", "over_propagation", "seconds",
)  # fmt: skip


@dataclass(frozen=True)
class Engine:
    """Something that carries, under the name it has in the tables."""

    name: str
    propagator: Propagator | None
    options: dict[str, Any] = field(default_factory=dict)
    needs: str = "box"


@dataclass(frozen=True, eq=False)
class Scene:
    """One organ of one volume, with the model that has seen all its slices."""

    case: str
    organ: str
    label: int
    volume: Volume
    truth: np.ndarray
    plane: Plane
    predictor: Predictor
    store: EmbeddingStore

    @property
    def axis(self) -> int:
        return PLANES.index(self.plane)

    @property
    def areas(self) -> np.ndarray:
        """Pixels of the organ on each slice."""
        return self.truth.sum(axis=tuple(i for i in range(3) if i != self.axis))

    def box(self, index: int) -> dict[SliceView, Prompts]:
        view = SliceView(self.plane, int(index))
        return {view: Prompts.from_box(tight_box(view.extract(self.truth)))}


def micro_sam_engines() -> list[Engine]:
    return [
        Engine("micro-sam box .8", PreviousMaskPropagator("box", 0.8, 0.0)),
        Engine("micro-sam point .5", PreviousMaskPropagator("single_point", 0.5, 0.05), needs="point"),
    ]


def interpolation() -> list[Engine]:
    try:
        module = import_module("napari_sam_med.segmentation.interpolation")
    except ModuleNotFoundError:
        return []
    return [Engine("interpolation", module.InterpolatingPropagator())]


def engines_of(arguments: argparse.Namespace, predictor: Predictor) -> list[Engine]:
    """Ours and its variants first, then the baselines that the model can serve."""
    options = json.loads(arguments.options)
    ours = [Engine("ours", None, options)]
    for text in arguments.variant:
        name, _, changes = text.partition("=")
        ours.append(Engine(name, None, options | json.loads(changes)))
    others = [Engine("box copied", BoxCopyPropagator()), *micro_sam_engines(), *interpolation()]
    known = ours + [engine for engine in others if engine.needs in predictor.accepts]
    if not arguments.engines:
        return known
    wanted = [name.strip() for name in arguments.engines.split(",")]
    if unknown := set(wanted) - {engine.name for engine in known}:
        raise SystemExit(f"There is no engine {unknown}; use {[engine.name for engine in known]}.")
    return [engine for engine in known if engine.name in wanted]


def protocols_of(arguments: argparse.Namespace) -> dict[str, Callable[[Scene], list[int]]]:
    """Which slices are boxed, by the name of the protocol."""

    def in_parts(n: int) -> Callable[[Scene], list[int]]:
        def chosen(scene: Scene) -> list[int]:
            present = np.flatnonzero(scene.areas)
            return list(present[np.unique(((np.arange(n) + 0.5) / n * len(present)).astype(int))])

        return chosen

    def from_end_to_end(n: int) -> Callable[[Scene], list[int]]:
        def chosen(scene: Scene) -> list[int]:
            present = np.flatnonzero(scene.areas)
            return list(present[np.unique(np.linspace(0, len(present) - 1, n).round().astype(int))])

        return chosen

    if arguments.keys == "none":
        return {}
    found: dict[str, Callable[[Scene], list[int]]] = {"largest": lambda scene: [int(scene.areas.argmax())]}
    for n in (int(text) for text in arguments.keys.split(",") if text):
        found[f"{n} key{'s' * (n > 1)}"] = in_parts(n)
        if n > 1 and not arguments.quick:
            found[f"{n} keys, ends"] = from_end_to_end(n)
    return found


def run_engine(engine: Engine, scene: Scene, keys: Sequence[int]) -> tuple[np.ndarray, float]:
    """The organ's mask (z, y, x), and seconds."""
    prompts = {view: prompt for index in keys for view, prompt in scene.box(index).items()}
    found = np.zeros(scene.truth.shape, dtype=bool)
    start = time.perf_counter()
    done = list(
        propagate(
            scene.volume, {1: (1, prompts)}, scene.predictor,
            engine=engine.propagator, store=scene.store, **engine.options,
        )
    )  # fmt: skip
    seconds = time.perf_counter() - start
    for one in done:
        one.view.insert(found, one.mask)
    return found, seconds


def scenes_of(case: Case, predictor: Predictor, arguments: argparse.Namespace) -> Iterator[Scene]:
    """The organs of a case that are large enough. All slices are embedded before the first is yielded."""
    volume, labels = read_case(case)
    plane: Plane = arguments.plane
    store = EmbeddingStore(None, memory_bytes=MEMORY_BYTES)
    window = resolve_window(volume, "auto")
    start = time.perf_counter()
    for index in range(volume.shape[PLANES.index(plane)]):
        embed_slice(volume, SliceView(plane, index), predictor, window=window, store=store)
    seconds = time.perf_counter() - start
    print(f"{case.name}: {index + 1} slices embedded in {seconds:.1f} s", file=sys.stderr, flush=True)
    for label, name in organ_names(labels).items():
        truth = np.asarray(labels.data == label)
        scene = Scene(case.name, name, label, volume, truth, plane, predictor, store)
        if np.count_nonzero(scene.areas) >= LEAST_SLICES and truth.sum() >= LEAST_VOXELS:
            yield scene


def slices_in(mask: np.ndarray, axis: int) -> int:
    return int(mask.any(axis=tuple(i for i in range(3) if i != axis)).sum())


def row_of(scene: Scene, protocol: str, engine: str, keys: Sequence[int], found: np.ndarray,
           seconds: float) -> dict[str, Any]:  # fmt: skip
    score: VolumeScore = score_volume(found, scene.truth, scene.volume.spacing, axis=scene.axis)
    return {
        "case": scene.case,
        "organ": scene.organ,
        "label": scene.label,
        "protocol": protocol,
        "engine": engine,
        "keys": len(keys),
        "slices_true": slices_in(scene.truth, scene.axis),
        "slices_found": slices_in(found, scene.axis),
        "dice": score.dice,
        "nsd": score.nsd,
        "hd95_mm": score.hd95_mm,
        "over_propagation": score.over_propagation,
        "seconds": seconds,
    }


def robot_rows(engine: Engine, scene: Scene, settings: RobotSettings) -> list[dict[str, Any]]:
    """One row a prompted slice; surfaces are measured on the last one alone."""
    # as in the application: only the gaps beside a new key slice are carried again
    options = engine.options | ({"cache": PropagationCache()} if engine.propagator is None else {})
    robot = RobotAnnotator(settings, engine.propagator, options)
    turns = list(
        robot.annotate(scene.volume, scene.truth, scene.predictor, plane=scene.plane, store=scene.store)
    )
    last = score_volume(turns[-1].mask, scene.truth, scene.volume.spacing, axis=scene.axis)
    return [
        {
            "case": scene.case,
            "organ": scene.organ,
            "label": scene.label,
            "engine": engine.name,
            "order": settings.order,
            "slices_prompted": turn.progress.done,
            "slice": turn.view.index,
            "why": turn.why,
            "interactions": turn.n_interactions,
            "dice": turn.dice,
            "nsd": last.nsd if turn is turns[-1] else float("nan"),
            "hd95_mm": last.hd95_mm if turn is turns[-1] else float("nan"),
            "over_propagation": turn.over_propagation,
            "seconds": turn.seconds,
        }
        for turn in turns
    ]


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.propagation",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    parser.add_argument("--cases", type=Path, required=True, help="CSV with the columns image,labels")
    parser.add_argument(
        "-o", "--output", type=Path, required=True, help="folder for the CSV files and tables"
    )
    parser.add_argument("--only", default="", help="names of cases, with commas between")
    parser.add_argument(
        "--keys",
        default="1,3,5",
        help="numbers of key slices; empty for the largest slice alone, none for the robot alone",
    )
    parser.add_argument("--engines", default="", help="names of engines; all when left out")
    parser.add_argument("--options", default="{}", help="options of our propagator, JSON")
    parser.add_argument("--variant", action="append", default=[], metavar="NAME=JSON")
    parser.add_argument("--quick", action="store_true", help="leave out the protocols with keys at the ends")
    parser.add_argument("--robot", action="store_true", help="let the robot annotator work, too")
    parser.add_argument("--robot-engines", default="ours", help="whom it works with, commas between")
    parser.add_argument("--orders", default="suggested,even-found,even-true")
    parser.add_argument("--correction", default="clicks", choices=("clicks", "mask"))
    parser.add_argument("--max-slices", type=int, default=20, help="that the robot may prompt")
    parser.add_argument(
        "--jitter", type=float, default=0.0, help="noise of the robot's boxes, share of sides"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--plane", default="axial", choices=PLANES)
    parser.add_argument("--model", default="nano")
    parser.add_argument("--device", default="auto")
    return parser.parse_args(arguments)


def main(given: Sequence[str] | None = None) -> None:
    """Measure, print the tables and write them."""
    arguments = parse(given)
    predictor = load_predictor(arguments.model, device=arguments.device)
    engines, protocols = engines_of(arguments, predictor), protocols_of(arguments)
    robots = robots_of(arguments)
    arguments.output.mkdir(parents=True, exist_ok=True)
    only = {name for name in arguments.only.split(",") if name}
    rows: list[dict[str, Any]] = []
    robot: list[dict[str, Any]] = []
    for case in read_cases(arguments.cases):
        if only and case.name not in only:
            continue
        for scene in scenes_of(case, predictor, arguments):
            start = time.perf_counter()
            for protocol, choose in protocols.items():
                keys = choose(scene)
                for engine in engines:
                    found, seconds = run_engine(engine, scene, keys)
                    rows.append(row_of(scene, protocol, engine.name, keys, found, seconds))
            for engine in engines if robots else ():
                if engine.name in arguments.robot_engines.split(","):
                    for settings in robots:
                        robot += robot_rows(engine, scene, settings)
            seconds = time.perf_counter() - start
            print(f"{scene.case}: {scene.organ} in {seconds:.0f} s", file=sys.stderr, flush=True)
        write_csv(arguments.output / "propagation.csv", rows, COLUMNS)
        write_csv(arguments.output / "robot.csv", robot, ROBOT_COLUMNS)
    text = report(rows, robot, arguments.max_slices)
    (arguments.output / "propagation.md").write_text(text, encoding="utf-8")
    print(text)


def robots_of(arguments: argparse.Namespace) -> list[RobotSettings]:
    """The annotator in each order; none without ``--robot``."""
    if not arguments.robot:
        return []
    return [
        RobotSettings(
            order=order,
            correction=arguments.correction,
            max_slices=arguments.max_slices,
            jitter=arguments.jitter,
            seed=arguments.seed,
        )
        for order in arguments.orders.split(",")
    ]


if __name__ == "__main__":
    main()
