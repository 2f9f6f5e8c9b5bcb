"""A whole fine-tuning as a job: labelled cases in, a folder with a model out."""

from __future__ import annotations

import hashlib
import json
import shutil
import statistics
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

from napari_sam_med.cluster.workers import Cluster
from napari_sam_med.errors import ExportError, LabelError
from napari_sam_med.evaluation.cases import Case
from napari_sam_med.evaluation.measuring import (
    AskedSlice,
    Simulation,
    SliceChoice,
    SliceScore,
    measure_slice,
)
from napari_sam_med.evaluation.prompt_strategies import parse_strategies
from napari_sam_med.evaluation.summary import summarised
from napari_sam_med.progress import Progress
from napari_sam_med.sam.architectures.build import build_decoder, build_network
from napari_sam_med.sam.checkpoints import Checkpoint, read_checkpoint
from napari_sam_med.sam.embedding_store import EmbeddingStore
from napari_sam_med.sam.predictor import Predictor
from napari_sam_med.sam.shared_model import SharedModel
from napari_sam_med.training.finetuned_model import is_finished, write_curves, write_finetuned
from napari_sam_med.training.finetuning import Epoch, Example, Tuner, finetune
from napari_sam_med.training.lora import add_lora, embed_with_gradient, is_lora, merged_encoder
from napari_sam_med.training.own_models import RunLock, state_folder
from napari_sam_med.training.recipes import Recipe
from napari_sam_med.training.team import Team
from napari_sam_med.training.training_slices import (
    SliceCounts,
    TrainingSlice,
    augmented_view,
    hold_out,
    read_training_slices,
    without_image,
)
from napari_sam_med.training.tuner_checkpoint import TunerCheckpoint
from napari_sam_med.training.view_embeddings import NO_LIMIT, EmbeddingModel, ViewEmbeddings

__all__ = ["REPORTED", "TuningRequest", "TuningStep", "embed_on_workers", "made_tuner", "tune_model"]

REPORTED = ("bound_box", "larger_box:5", "jittered_box:0.1", "center_distance", "random_mask", "random_3")
"""Prompts of the table before and after."""
_CHOICE = SliceChoice(min_area=20)
_SHARED_AT_ONCE = 8
"""Slices that are sent to a worker together, in some megabytes."""
_SCORED_ON = {
    "reported": "val and test cases",
    "held_out": "slices held out of the training cases",
    "learned": "slices that were learned from, which flatters",
}
_WHEN = {"before": "as it was", "after": "as it is now"}


@dataclass(frozen=True, eq=False)
class TuningRequest:
    """What is to be trained on what.

    Attributes
    ----------
    cases : sequence of Case
        Those with the split ``train``, or none, are learned from; ``val`` and ``test`` are only measured.
    output : Path
        Folder of the new model; one with a run that was stopped is gone on with.
    recipe : Recipe
    model, device, precision : str
        As for `load_predictor`.
    choice : SliceChoice
    hold_out_share : float
        Share of the slices of each case that only tell which epoch was best.
    seed : int
    earlier : EmbeddingStore, optional
        Embeddings that are there already.
    """

    cases: Sequence[Case]
    output: Path
    recipe: Recipe
    model: str = "nano"
    device: str = "auto"
    precision: str = "auto"
    choice: SliceChoice = _CHOICE
    hold_out_share: float = 0.2
    seed: int = 0
    earlier: EmbeddingStore | None = None


@dataclass(frozen=True)
class TuningStep:
    """How far a fine-tuning has come.

    Attributes
    ----------
    progress : Progress
    epoch : Epoch or None
        One that has just ended.
    counts : SliceCounts or None
        Of a case that was just read.
    card : dict or None
        At the end: what the model was made of and what came of it, as in its ``card.json``.
    warning : str
        Something that the user should know; most often empty.
    """

    progress: Progress
    epoch: Epoch | None = None
    counts: SliceCounts | None = None
    card: dict[str, Any] | None = None
    warning: str = ""


@dataclass
class _Slices:
    learned: list[TrainingSlice] = field(default_factory=list)
    held_out: list[TrainingSlice] = field(default_factory=list)
    reported: list[TrainingSlice] = field(default_factory=list)
    counts: list[SliceCounts] = field(default_factory=list)

    def taken(self, name: str) -> list[TrainingSlice]:
        """The slices of a purpose: ``learned``, ``held_out`` or ``reported``."""
        found: list[TrainingSlice] = getattr(self, name)
        return found


def tune_model(request: TuningRequest, team: Team | None = None) -> Iterator[TuningStep]:
    """Fine-tune a model; yields after every case, embedding and step, and the card at the end.

    The image encoder is loaded only for slices whose embedding is not there yet, and not for training. A run
    that is stopped goes on where it was when it is asked for again.

    Parameters
    ----------
    request : TuningRequest
    team : Team, optional
        The processes that train it, all of which call this; left out: this one alone.

    Raises
    ------
    ImageError, LabelError, ModelError, PromptError, DeviceError
        When cases, model, recipe or device cannot be used.
    ExportError
        When the folder holds a finished model or a run that is under way, or cannot be written.
    """
    started = time.monotonic()
    team = team or Team.alone(request.device, request.precision)
    if is_finished(request.output):
        raise ExportError(
            f"{request.output} holds a finished model; choose another folder with -o, or remove that one."
        )
    lock = RunLock(request.output)
    if team.is_first:
        lock.check()  # before minutes of reading
    checkpoint = read_checkpoint(request.model)
    slices = _Slices()
    yield from _read(request, slices)
    tuner = made_tuner(request, checkpoint, team)
    with lock if team.is_first else nullcontext():
        run = _Run(request, checkpoint, tuner, slices, started)
        yield from run.embed()
        yield from run.train()
        card = yield from run.finish()
    if team.is_first:
        shutil.rmtree(state_folder(request.output), ignore_errors=True)
    yield TuningStep(Progress(1, 1, "done"), card=card)


class _Run:
    """A run under way, in one of the processes that train its model."""

    def __init__(
        self, request: TuningRequest, base: Checkpoint, tuner: Tuner, slices: _Slices, started: float
    ) -> None:
        self._request, self._base, self._tuner, self._slices = request, base, tuner, slices
        self._examples: dict[str, list[Example]] = {"learned": [], "held_out": [], "reported": []}
        self._started = started
        self._embedded, self._made = started, 0
        self._epoch_seconds: list[float] = []
        self._before: list[SliceScore] = []

    @property
    def _scored(self) -> str:
        return next(name for name in ("reported", "held_out", "learned") if self._examples[name])

    def embed(self) -> Iterator[TuningStep]:
        """Make examples of the slices, and measure the model as it is."""
        request, team = self._request, self._tuner.team
        embeddings = ViewEmbeddings(
            EmbeddingModel(request.model, str(team.device), request.precision),
            self._tuner.predictor,
            state_folder(request.output) / "embeddings",
            request.earlier,
            team,
        )
        for name, made in self._examples.items():
            own, views = self._slices.taken(name), request.recipe.views if name == "learned" else 0
            total = len(own) * (1 + views)
            found = embeddings.examples(_views(own, views, request.seed), total)
            if not request.recipe.uses_stored_embeddings:
                found = _unembedded(_views(own, views, request.seed), total, self._tuner.predictor)
            for progress, example in found:
                made.append(example)
                yield TuningStep(progress)
        self._made = sum(team.joined([embeddings.n_made]))  # and so wait for the others
        self._embedded = time.monotonic()
        self._before = yield from self._measure("before")

    def train(self) -> Iterator[TuningStep]:
        """Train from the last checkpoint on."""
        request, tuner, examples = self._request, self._tuner, self._examples
        state = state_folder(request.output)
        kept = TunerCheckpoint(state / "checkpoint.pt", _facts(request, self._base))
        if kept.changes:
            warning = (
                f"the run that was stopped in {request.output} was another one ({'; '.join(kept.changes)}), "
                "so training begins anew and takes its place; to keep it, stop now and give another folder "
                "with -o"
            )
            yield TuningStep(Progress(0, 1, "model as it was"), warning=warning)
        since = time.monotonic()
        for progress, epoch in finetune(tuner, examples["learned"], examples["held_out"], kept):
            if epoch is not None:
                if tuner.team.is_first:
                    write_curves(request.output, tuner.history)
                self._epoch_seconds.append(time.monotonic() - since)
                since = time.monotonic()
            yield TuningStep(progress, epoch)

    def finish(self) -> Generator[TuningStep, None, dict[str, Any]]:
        """Measure the best epoch and write the model; gives its card."""
        tuner = self._tuner
        improved = tuner.best_epoch.number > 0
        state_dict = dict(self._base.state_dict)
        after = self._before
        if improved:
            tuner.keep_best()
            after = yield from self._measure("after")
            state_dict |= _changed(tuner)
        card = self._card(improved, after)
        if tuner.team.is_first:
            write_finetuned(self._request.output, state_dict, self._base.record, card, tuner.history)
        return card

    def _card(self, improved: bool, after: Sequence[SliceScore]) -> dict[str, Any]:
        request, tuner = self._request, self._tuner
        return {
            "version": 1,
            "base": {"model": self._base.record.name, "sha256": self._base.sha256},
            "improved": improved,
            "best_epoch": tuner.best_epoch.number,
            "recipe": request.recipe.as_json(),
            "seed": request.seed,
            "data": _data(request, self._slices, self._examples),
            "scores": _table(self._before, after),
            "scored_on": _SCORED_ON[self._scored],
            "seconds": {
                "embedding": round(self._embedded - self._started, 1),
                "embeddings_made": self._made,
                # none where a run was stopped after its last epoch
                "epoch": round(statistics.median(self._epoch_seconds or [0.0]), 2),
                "all": round(time.monotonic() - self._started, 1),
            },
            "device": str(tuner.predictor.device),
            "devices": tuner.team.size,
            "precision": tuner.predictor.precision,
            "not_for_clinical_use": True,
        }

    def _measure(self, name: str) -> Generator[TuningStep, None, list[SliceScore]]:
        predictor, request, team = self._tuner.predictor, self._request, self._tuner.team
        strategies = [s for s in parse_strategies(REPORTED) if s.dialogue.kinds <= predictor.accepts]
        simulation = Simulation(tuple(strategies), request.choice, request.seed)
        own: list[list[SliceScore]] = []
        shared = team.share(self._examples[self._scored])
        for number, example in enumerate(shared, start=1):
            view = example.view
            masks = dict(zip(view.label_ids, view.masks, strict=True))
            asked = AskedSlice(view.case.name, view.view, masks, view.names)
            with torch.no_grad():
                embedding = example.embedding()
            own.append(measure_slice(asked, embedding, predictor, simulation, model=name))
            yield TuningStep(Progress(number, len(shared), f"measuring the model {_WHEN[name]}"))
        return [score for scores in team.joined(own) for score in scores]


def _read(request: TuningRequest, slices: _Slices) -> Iterator[TuningStep]:
    learned: list[TrainingSlice] = []
    for progress, found, counts in read_training_slices(request.cases, request.choice):
        (slices.reported if counts.case.split in ("val", "test") else learned).extend(found)
        slices.counts.append(counts)
        yield TuningStep(progress, counts=counts)
    if not learned:
        raise LabelError(
            "All cases have the split val or test, so there is nothing to learn from; give some the split "
            "train."
        )
    slices.learned, slices.held_out = hold_out(learned, request.hold_out_share)


def made_tuner(request: TuningRequest, checkpoint: Checkpoint, team: Team) -> Tuner:
    """The model of a request, ready to be trained."""
    if request.recipe.uses_stored_embeddings:
        network = build_decoder(checkpoint)
    else:
        network = build_network(checkpoint)
        add_lora(network, request.seed)
    return Tuner(
        network, checkpoint.record, request.recipe, seed=request.seed, team=team, model_hash=checkpoint.sha256
    )


def _changed(tuner: Tuner) -> dict[str, torch.Tensor]:
    """Weights that training changed, by the names of the checkpoint."""
    changed = {name: value for name, value in tuner.best_state().items() if not is_lora(name)}
    return changed if tuner.recipe.uses_stored_embeddings else changed | merged_encoder(tuner.network)


@dataclass(frozen=True, eq=False)
class _ViewShare:
    """Slices for a worker to embed with their views, into a folder that all machines see."""

    slices: tuple[TrainingSlice, ...]
    first_row: int
    views: int
    seed: int
    model: SharedModel
    folder: Path


def embed_on_workers(request: TuningRequest, cluster: Cluster) -> Iterator[TuningStep]:
    """Embed on workers what a fine-tuning needs, into its folder, where `tune_model` then finds it.

    A recipe whose encoder changes needs none. Errors are those of `tune_model`, and `ClusterError`.
    """
    if is_finished(request.output) or not request.recipe.uses_stored_embeddings:
        return
    RunLock(request.output).check()
    model = SharedModel.of(request.model, cluster.device, request.precision, here=request.device)
    folder = (state_folder(request.output) / "embeddings").absolute()
    slices = _Slices()
    yield from _read(request, slices)
    shares = []
    for name in ("learned", "held_out", "reported"):
        own, views = slices.taken(name), request.recipe.views if name == "learned" else 0
        for row in range(0, len(own), _SHARED_AT_ONCE):
            some = tuple(own[row : row + _SHARED_AT_ONCE])
            shares.append(_ViewShare(some, row, views, request.seed, model, folder))
    for done, _ in enumerate(cluster.each(_embed_share, shares), start=1):
        yield TuningStep(Progress(done, len(shares), "embedding slices on workers"))


def _embed_share(share: _ViewShare) -> None:
    store = EmbeddingStore(share.folder, memory_bytes=0, disk_bytes=NO_LIMIT)
    predictor = share.model.load()
    for view in _views(list(share.slices), share.views, share.seed, share.first_row):
        key = predictor.embedding_key(view.image, view.pixel_spacing)
        if key not in store:
            store.put(key, predictor.embed(view.image, view.pixel_spacing))


def _views(slices: list[TrainingSlice], count: int, seed: int, first_row: int = 0) -> Iterator[TrainingSlice]:
    """Each slice and its augmented views; a slice is let go when its turn is over."""
    for row in range(len(slices)):
        one, slices[row] = slices[row], without_image(slices[row])
        yield one
        for number in range(1, count + 1):
            view = augmented_view(one, seed + 1000 * (first_row + row), number)
            if view.label_ids:
                yield view


def _unembedded(
    views: Iterator[TrainingSlice], total: int, predictor: Predictor
) -> Iterator[tuple[Progress, Example]]:
    """Examples whose slice is embedded anew each time, as its encoder changes."""
    for number, view in enumerate(views, start=1):
        example = Example(view, partial(embed_with_gradient, predictor, view))
        yield Progress(number, total, "preparing slices"), example


def _table(before: Sequence[SliceScore], after: Sequence[SliceScore]) -> dict[str, Any]:
    """Means before and after by strategy, as `summarised` makes them."""
    both = [*before, *(score for score in after if score.model == "after")]
    models = summarised(both, [])["models"]
    return {
        name: {
            strategy: {
                "mdice_organs": means["mdice_organs"],
                "mdice_slices": means["mdice_slices"],
                "masks": means["slices"],
                "organs": {organ: values["dice"] for organ, values in means["organs"].items()},
            }
            for strategy, means in strategies.items()
        }
        for name, strategies in (models | ({} if "after" in models else {"after": models["before"]})).items()
    }


def _data(request: TuningRequest, slices: _Slices, examples: dict[str, list[Example]]) -> dict[str, Any]:
    return {
        "cases": [
            {
                "name": counts.case.name,
                "split": counts.case.split or "train",
                "slices": counts.used,
                "background_slices_left_out": counts.background,
            }
            for counts in slices.counts
        ],
        "planes": list(request.choice.planes),
        "every": request.choice.every,
        "min_area": request.choice.min_area,
        "learned_slices": len(slices.learned),
        "learned_views": len(examples["learned"]),
        "held_out_slices": len(slices.held_out),
        "reported_slices": len(examples["reported"]),
    }


def _facts(request: TuningRequest, base: Checkpoint) -> dict[str, Any]:
    """All that decides what a run comes to, for `TunerCheckpoint`."""
    cases = [
        (case.split, str(path), path.stat().st_size, path.stat().st_mtime_ns)
        for case in request.cases
        for path in (case.image_path, case.labels_path)
    ]
    recipe = request.recipe.as_json()
    return {
        "model": base.sha256,
        "cases": hashlib.sha256(json.dumps(cases).encode()).hexdigest(),
        "recipe": recipe.pop("name"),
        **{name: value for name, value in recipe.items() if name != "source"},
        "seed": request.seed,
        "planes": list(request.choice.planes),
        "every": request.choice.every,
        "min_area": request.choice.min_area,
        "hold_out": request.hold_out_share,
        "precision": request.precision,
    }
