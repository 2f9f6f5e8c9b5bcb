"""Dialogues on the objects of a slice, held all at once: what is asked at one turn is decoded in batches."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from napari_sam_med.evaluation.detector_boxes import NoBoxError
from napari_sam_med.evaluation.prompt_strategies import PromptTarget, Strategy
from napari_sam_med.evaluation.slice_scores import AnswerMeasures, TrueMask
from napari_sam_med.sam.mask_prediction import MaskPrediction
from napari_sam_med.sam.predictor import ImageEmbedding
from napari_sam_med.sam.prompts import Prompts

__all__ = ["Answers", "Talk", "Turn", "hold"]

# answers of so many are in memory at once: three masks of 512 x 512 and their logits are 1.6 MB
_TALKS_AT_ONCE = 64


class Answers(Protocol):
    """The part of `Predictor` that answers."""

    def predict_batch(
        self, embedding: ImageEmbedding, prompts: Sequence[Prompts], *, single_beside: bool = ...
    ) -> list[MaskPrediction]: ...


@dataclass(frozen=True)
class Turn:
    """What was asked at a turn (without its mask prompt; None where nothing could be), how good the answer
    is, and seconds until then.
    """

    prompts: Prompts | None
    measures: AnswerMeasures
    seconds: float


class Talk:
    """One dialogue on one object under way.

    Parameters
    ----------
    target : PromptTarget
    truth : TrueMask
        Of the target's mask.
    strategies : sequence of Strategy
        With one dialogue.
    seed : int
        Of the simulation.
    rng : Generator
    """

    def __init__(
        self,
        target: PromptTarget,
        truth: TrueMask,
        strategies: Sequence[Strategy],
        seed: int,
        rng: np.random.Generator,
    ) -> None:
        self.target = target
        self.truth = truth
        self.strategies = strategies
        self.seed = seed
        self._dialogue = strategies[0].dialogue
        self._turns = max(strategy.turn for strategy in strategies)
        self.done: list[Turn] = []
        self.prompts: Prompts | None = None
        try:
            self.prompts = self._dialogue.opening(target, rng)
        except NoBoxError:  # a detector that overlooked the object: the answer is an empty mask
            self.done.append(Turn(None, truth.measure_mask(np.zeros_like(target.mask)), 0.0))

    def take(self, answer: MaskPrediction, measures: AnswerMeasures, seconds: float) -> None:
        """Note how good an answer is, and think of what is said to it."""
        asked, self.prompts = self.prompts, None
        if asked is None:
            raise RuntimeError("Nothing was asked.")
        before = self.done[-1].seconds if self.done else 0.0
        plain = asked if asked.mask_input is None else asked.replace(mask_input=None)
        self.done.append(Turn(plain, measures, before + seconds))
        if self._dialogue.reply is not None and len(self.done) < self._turns:
            self.prompts = self._dialogue.reply(self.target.mask, asked, answer)

    def scored(self) -> Iterator[tuple[Strategy, Turn, int]]:
        """The turn that each strategy is scored on and its number of replies; the last one where nothing was
        left to say.
        """
        for strategy in self.strategies:
            replies = min(strategy.turn, len(self.done)) - 1
            yield strategy, self.done[replies], replies


def hold(talks: Sequence[Talk], predictor: Answers, embedding: ImageEmbedding) -> None:
    """Hold all dialogues of a slice, turn by turn; prompts that are equal are decoded and measured once."""
    for start in range(0, len(talks), _TALKS_AT_ONCE):
        some = talks[start : start + _TALKS_AT_ONCE]
        while asking := [(talk, talk.prompts) for talk in some if talk.prompts is not None]:
            asked = list(dict.fromkeys(prompts for _, prompts in asking))
            began = time.perf_counter()
            given = predictor.predict_batch(embedding, asked, single_beside=True)
            seconds = (time.perf_counter() - began) / len(asking)
            answers = dict(zip(asked, given, strict=True))
            measured: dict[tuple[int, Prompts], AnswerMeasures] = {}
            for talk, prompts in asking:
                key = id(talk.truth), prompts
                if key not in measured:
                    measured[key] = talk.truth.measure(answers[prompts])
                talk.take(answers[prompts], measured[key], seconds)
