"""A whole fine-tuning as a job: labelled cases in, a folder with a model out."""

from __future__ import annotations

import hashlib
import json
import shutil
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

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
from napari_sam_med.sam.device import resolve_device, resolve_precision
from napari_sam_med.sam.embedding_store import EmbeddingStore
from napari_sam_med.sam.predictor import Predictor
from napari_sam_med.training.finetuned_model import is_finished, write_curves, write_finetuned
from napari_sam_med.training.finetuning import Epoch, Example, Tuner, finetune
from napari_sam_med.training.lora import add_lora, embed_with_gradient, is_lora, merged_encoder
from napari_sam_med.training.recipes import Recipe
from napari_sam_med.training.training_slices import (
    SliceCounts,
    TrainingSlice,
    augmented_view,
    hold_out,
    read_training_slices,
    without_image,
)
from napari_sam_med.training.view_embeddings import EmbeddingModel, ViewEmbeddings

__all__ = ["REPORTED", "TuningRequest", "TuningStep", "made_tuner", "tune_model"]

REPORTED = ("bound_box", "larger_box:5", "jittered_box:0.1", "center_distance", "random_mask", "random_3")
"""Prompts of the table before and after."""
_CHOICE = SliceChoice(min_area=20)
_SCORED_ON = {
    "reported": "val and test cases",
    "held_out": "slices held out of the training cases",
    "learned": "slices that were learned from, which flatters",
}
_STATE = "training"
"""Folder with the checkpoint and the embeddings, removed at the end."""


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
    """

    progress: Progress
    epoch: Epoch | None = None
    counts: SliceCounts | None = None
    card: dict[str, Any] | None = None


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


def tune_model(request: TuningRequest) -> Iterator[TuningStep]:
    """Fine-tune a model; yields after every case, embedding and step, and the card at the end.

    The image encoder is loaded only for slices whose embedding is not there yet, and not for training. A run
    that is stopped goes on where it was when it is asked for again.

    Raises
    ------
    ImageError, LabelError, ModelError, PromptError, DeviceError
        When cases, model, recipe or device cannot be used.
    ExportError
        When the folder holds a finished model, or cannot be written.
    """
    started = time.monotonic()
    if is_finished(request.output):
        raise ExportError(
            f"{request.output} holds a finished model; choose another folder with -o, or remove that one."
        )
    checkpoint = read_checkpoint(request.model)
    slices = _Slices()
    yield from _read(request, slices)
    tuner = made_tuner(request, checkpoint)
    state = _state_folder(request.output)
    embeddings = ViewEmbeddings(
        EmbeddingModel(request.model, request.device, request.precision),
        tuner.predictor,
        state / "embeddings",
        request.earlier,
    )
    examples: dict[str, list[Example]] = {"learned": [], "held_out": [], "reported": []}
    for name, made in examples.items():
        own, views = slices.taken(name), request.recipe.views if name == "learned" else 0
        total = len(own) * (1 + views)
        found = embeddings.examples(_views(own, views, request.seed), total)
        if not request.recipe.uses_stored_embeddings:
            found = _unembedded(_views(own, views, request.seed), total, tuner.predictor)
        for progress, example in found:
            made.append(example)
            yield TuningStep(progress)
    embedded = time.monotonic() - started
    scored = next(name for name in ("reported", "held_out", "learned") if examples[name])
    reported = examples[scored]
    before = _measured(tuner.predictor, reported, request, "before")
    fingerprint = _fingerprint(request, checkpoint)
    epoch_seconds = []
    since = time.monotonic()
    for progress, epoch in finetune(
        tuner, examples["learned"], examples["held_out"], state / "checkpoint.pt", fingerprint
    ):
        if epoch is not None:
            write_curves(request.output, tuner.history)
            epoch_seconds.append(time.monotonic() - since)
            since = time.monotonic()
        yield TuningStep(progress, epoch)
    improved = tuner.best_epoch.number > 0
    state_dict = dict(checkpoint.state_dict)
    if improved:
        tuner.keep_best()
    after = _measured(tuner.predictor, reported, request, "after") if improved else before
    if improved:
        state_dict |= _changed(tuner)
    card = {
        "version": 1,
        "base": {"model": checkpoint.record.name, "sha256": checkpoint.sha256},
        "improved": improved,
        "best_epoch": tuner.best_epoch.number,
        "recipe": request.recipe.as_json(),
        "seed": request.seed,
        "data": _data(request, slices, examples),
        "scores": _table(before, after),
        "scored_on": _SCORED_ON[scored],
        "seconds": {
            "embedding": round(embedded, 1),
            "embeddings_made": embeddings.n_made,
            # none where a run was stopped after its last epoch
            "epoch": round(statistics.median(epoch_seconds or [0.0]), 2),
            "all": round(time.monotonic() - started, 1),
        },
        "device": str(tuner.predictor.device),
        "precision": tuner.predictor.precision,
        "not_for_clinical_use": True,
    }
    write_finetuned(request.output, state_dict, checkpoint.record, card, tuner.history)
    shutil.rmtree(state, ignore_errors=True)
    yield TuningStep(Progress(1, 1, "done"), card=card)


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


def made_tuner(request: TuningRequest, checkpoint: Checkpoint) -> Tuner:
    """The model of a request, ready to be trained."""
    device = resolve_device(request.device)
    if request.recipe.uses_stored_embeddings:
        network = build_decoder(checkpoint)
    else:
        network = build_network(checkpoint)
        add_lora(network, request.seed)
    return Tuner(
        network,
        checkpoint.record,
        request.recipe,
        seed=request.seed,
        device=device,
        mixed=resolve_precision(request.precision, device) == "bf16",
        model_hash=checkpoint.sha256,
    )


def _changed(tuner: Tuner) -> dict[str, torch.Tensor]:
    """Weights that training changed, by the names of the checkpoint."""
    changed = {name: value for name, value in tuner.best_state().items() if not is_lora(name)}
    return changed if tuner.recipe.uses_stored_embeddings else changed | merged_encoder(tuner.network)


def _state_folder(output: Path) -> Path:
    state = output / _STATE
    try:
        state.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ExportError(
            f"The folder {output} cannot be made: {error.strerror}; choose another one with -o."
        ) from error
    return state


def _views(slices: list[TrainingSlice], count: int, seed: int) -> Iterator[TrainingSlice]:
    """Each slice and its augmented views; a slice is let go when its turn is over."""
    for row in range(len(slices)):
        one, slices[row] = slices[row], without_image(slices[row])
        yield one
        for number in range(1, count + 1):
            view = augmented_view(one, seed + 1000 * row, number)
            if view.label_ids:
                yield view


def _unembedded(
    views: Iterator[TrainingSlice], total: int, predictor: Predictor
) -> Iterator[tuple[Progress, Example]]:
    """Examples whose slice is embedded anew each time, as its encoder changes."""
    for number, view in enumerate(views, start=1):
        example = Example(view, partial(embed_with_gradient, predictor, view))
        yield Progress(number, total, "preparing slices"), example


def _measured(
    predictor: Predictor, examples: Sequence[Example], request: TuningRequest, name: str
) -> list[SliceScore]:
    strategies = tuple(
        strategy for strategy in parse_strategies(REPORTED) if strategy.dialogue.kinds <= predictor.accepts
    )
    simulation = Simulation(strategies, request.choice, request.seed)
    scores: list[SliceScore] = []
    for example in examples:
        view = example.view
        asked = AskedSlice(
            view.case.name, view.view, dict(zip(view.label_ids, view.masks, strict=True)), view.names
        )
        with torch.no_grad():
            embedding = example.embedding()
        scores += measure_slice(asked, embedding, predictor, simulation, model=name)
    return scores


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


def _fingerprint(request: TuningRequest, checkpoint: Checkpoint) -> str:
    files = [
        (str(path), path.stat().st_size, path.stat().st_mtime_ns)
        for case in request.cases
        for path in (case.image_path, case.labels_path)
    ]
    facts = (
        checkpoint.sha256,
        request.recipe.as_json(),
        request.seed,
        repr(request.choice),
        request.hold_out_share,
        files,
        [case.split for case in request.cases],
        request.precision,
    )
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
