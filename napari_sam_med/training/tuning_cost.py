"""What a fine-tuning will take, measured on one slice of it: time, embeddings and disk space."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import TypeVar

from napari_sam_med.errors import LabelError, ModelError
from napari_sam_med.evaluation.prompt_strategies import parse_strategies
from napari_sam_med.progress import Progress
from napari_sam_med.sam.checkpoints import Checkpoint, read_checkpoint
from napari_sam_med.sam.embedding_store import EmbeddingStore
from napari_sam_med.sam.image_embedding import ImageEmbedding
from napari_sam_med.sam.predictor import load_predictor
from napari_sam_med.training.finetuning import Example
from napari_sam_med.training.team import Team
from napari_sam_med.training.training_slices import (
    SliceCounts,
    TrainingSlice,
    hold_out,
    read_training_slices,
)
from napari_sam_med.training.tuning_run import REPORTED, TuningRequest, made_tuner

__all__ = ["CostStep", "TuningCost", "estimate"]

_T = TypeVar("_T")
_STEPS = 2


@dataclass(frozen=True)
class TuningCost:
    """What a run will take on this machine, if nothing else is done on it.

    Attributes
    ----------
    learned, held_out, judged : int
        Slices learned from, slices of the same cases that tell which epoch is best, slices of other cases.
    views : int
        Slices learned from with their augmented views.
    embeddings : int
        Still to be made.
    embedding_seconds, epoch_seconds, judging_seconds : float
        For one embedding; for one epoch; for the scores before and after.
    disk_bytes : int
        Of the new model, and of the embeddings, which go when the run ends.
    """

    learned: int
    held_out: int
    judged: int
    views: int
    embeddings: int
    embedding_seconds: float
    epoch_seconds: float
    judging_seconds: float
    disk_bytes: int

    def seconds(self, epochs: int) -> float:
        """Seconds of a run of so many epochs."""
        return self.embeddings * self.embedding_seconds + epochs * self.epoch_seconds + self.judging_seconds


@dataclass(frozen=True)
class CostStep:
    """How far an estimate has come; ``counts`` of a case that was read, ``cost`` at the end."""

    progress: Progress
    counts: SliceCounts | None = None
    cost: TuningCost | None = None


def estimate(request: TuningRequest) -> Iterator[CostStep]:
    """Read the cases, embed one slice, train one step on it; nothing is written.

    Yields after every case and measurement, and the cost at the end.

    Raises
    ------
    ImageError, LabelError, ModelError, DeviceError
        As `tune_model` does; and when the recipe trains the image encoder.
    """
    recipe = request.recipe
    if not recipe.uses_stored_embeddings:
        raise ModelError(
            f"What the recipe {recipe.name} takes is not estimated, as it trains the image encoder; "
            "choose another recipe."
        )
    checkpoint = read_checkpoint(request.model)
    own, judged = yield from _read(request)
    learned, held = hold_out(own, request.hold_out_share)
    yield CostStep(Progress(0, 3, "trying one embedding"))
    sample = max(learned, key=lambda one: len(one.label_ids))
    missing = [*learned, *held, *judged]
    embedding, embedding_seconds = _tried_embedding(request, sample, missing)
    yield CostStep(Progress(1, 3, "trying one step"))
    kept = EmbeddingStore(None).put("sample", embedding)
    example = Example(sample, lambda: kept)
    tuner = made_tuner(request, checkpoint, Team.alone(request.device, request.precision))
    tuner.fit_clicks([example])
    # prompts, and with them the turns of a correction, differ from step to step
    step_seconds = 0.0
    for _ in range(_STEPS):
        step_seconds += _timed(lambda: list(tuner.train_epoch([example])))[0] / _STEPS
        yield CostStep(Progress(1, 3, "trying one step"))
    yield CostStep(Progress(2, 3, "trying the scores"))
    score_seconds, _ = _timed(lambda: tuner.score([example]))
    reported = judged or held or learned
    accepts = tuner.predictor.accepts
    asked = [s for s in parse_strategies(REPORTED) if s.dialogue.kinds <= accepts]
    per_strategy = score_seconds / len(tuner.strategies)
    views = len(learned) * (1 + recipe.views)
    cost = TuningCost(
        learned=len(learned),
        held_out=len(held),
        judged=len(judged),
        views=views,
        embeddings=len(missing) + len(learned) * recipe.views,
        embedding_seconds=embedding_seconds,
        epoch_seconds=views * step_seconds + len(held or learned) * score_seconds,
        judging_seconds=2 * len(reported) * len(asked) * per_strategy,
        disk_bytes=(views + len(held) + len(judged)) * kept.nbytes + _nbytes(checkpoint),
    )
    yield CostStep(Progress(3, 3, "estimated"), cost=cost)


def _read(
    request: TuningRequest,
) -> Generator[CostStep, None, tuple[list[TrainingSlice], list[TrainingSlice]]]:
    """Slices of the cases to learn from, and of those that are only judged."""
    own: list[TrainingSlice] = []
    judged: list[TrainingSlice] = []
    for progress, found, counts in read_training_slices(request.cases, request.choice):
        (judged if counts.case.split in ("val", "test") else own).extend(found)
        yield CostStep(progress, counts=counts)
    if not own:
        raise LabelError("All cases are only judged, so there is nothing to learn from; learn from some.")
    return own, judged


def _tried_embedding(
    request: TuningRequest, sample: TrainingSlice, wanted: list[TrainingSlice]
) -> tuple[ImageEmbedding, float]:
    """An embedding and the seconds it took; slices whose embedding is there are taken out of ``wanted``."""
    predictor = load_predictor(request.model, device=request.device, precision=request.precision)

    def embed() -> ImageEmbedding:
        return predictor.embed(sample.image, sample.pixel_spacing)

    embed()  # the first is slower than those to come
    seconds, embedding = _timed(embed)
    if request.earlier is not None:
        known = request.earlier
        keys = [predictor.embedding_key(one.image, one.pixel_spacing) for one in wanted]
        wanted[:] = [one for one, key in zip(wanted, keys, strict=True) if key not in known]
    return embedding, seconds


def _nbytes(checkpoint: Checkpoint) -> int:
    return sum(tensor.nbytes for tensor in checkpoint.state_dict.values())


def _timed(work: Callable[[], _T]) -> tuple[float, _T]:
    since = time.perf_counter()
    done = work()
    return time.perf_counter() - since, done
