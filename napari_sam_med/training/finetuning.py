"""Fine-tuning a model on labelled slices, from embeddings that are made once.

Epoch number k depends on the seed and on k alone, so a run that was killed goes on from its last checkpoint
exactly as if it had not been.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

from napari_sam_med.errors import ModelError
from napari_sam_med.evaluation.metrics import dice
from napari_sam_med.evaluation.prompt_strategies import (
    PromptTarget,
    Strategy,
    corrective_click,
    parse_strategies,
)
from napari_sam_med.progress import Progress
from napari_sam_med.sam.architectures.base import DecodedMasks, PromptBatch
from napari_sam_med.sam.image_embedding import ImageEmbedding
from napari_sam_med.sam.mask_prediction import AnswerForm, masks_in_image
from napari_sam_med.sam.model_registry import ModelRecord
from napari_sam_med.sam.predictor import Predictor
from napari_sam_med.sam.prompt_batch import batch_of, group_by_structure
from napari_sam_med.sam.prompts import Prompts
from napari_sam_med.sam.square import SquareFit, upsample_logits
from napari_sam_med.training.lora import is_lora
from napari_sam_med.training.mask_loss import mask_loss
from napari_sam_med.training.recipes import Recipe
from napari_sam_med.training.team import Team
from napari_sam_med.training.training_slices import TrainingSlice
from napari_sam_med.training.tuner_checkpoint import TunerCheckpoint

__all__ = ["Epoch", "Example", "Tuner", "finetune"]

_MAX_GRADIENT = 1.0
_MOST_CORRECTIONS = 3
_CLICKS_PER_OBJECT = 8
_SCORE_SEED = 20_000
"""Prompts that tell when to stop are the same in every epoch and every run."""


@dataclass(frozen=True, eq=False)
class Example:
    """A view of a slice, and how its embedding is had: `ImageEmbedding` of the model that is tuned."""

    view: TrainingSlice
    embedding: Callable[[], ImageEmbedding]


@dataclass(frozen=True)
class Epoch:
    """What an epoch came to.

    Attributes
    ----------
    number : int
        From 1; 0 is the model as it was.
    loss, train_dice : float
        Mean over the prompts learned from; NaN for epoch 0.
    score : float
        Mean Dice on the slices held out, over the recipe's prompt strategies.
    skipped : int
        Steps without a finite gradient, which were not taken.
    """

    number: int
    loss: float
    train_dice: float
    score: float
    skipped: int = 0


class Tuner:
    """A network under training with its optimiser, the average of its weights, and the best of them so far.

    Parameters
    ----------
    network : nn.Module
        That satisfies `Architecture`; changed in place. Its image encoder is not needed.
    record : ModelRecord
    recipe : Recipe
    seed : int
    team : Team, optional
        The processes that train it, all with a tuner like this one; left out: this one alone, on the cpu.
    model_hash : str
        That the embeddings bear.
    """

    def __init__(
        self,
        network: nn.Module,
        record: ModelRecord,
        recipe: Recipe,
        *,
        seed: int = 0,
        team: Team | None = None,
        model_hash: str = "",
    ) -> None:
        self.team = team or Team.alone()
        self.record, self.recipe, self.seed, self.epoch = record, recipe, seed, 0
        self.strategies = _taken(recipe, record)
        self.network: Any = network.to(self.team.device).eval().requires_grad_(False)
        self.trained = _trained_parameters(self.network, recipe)
        self.predictor = Predictor(
            self.network,
            record,
            device=self.team.device,
            precision="bf16" if self.team.is_mixed else "fp32",
            model_hash=model_hash,
        )
        module, optimiser = _Decoding(self.network), _optimiser(recipe, self.trained)
        self.module, self.optimiser = self.team.fabric.setup(module, optimiser)
        self.most_passes = 1
        self.averaged = {name: p.detach().clone() for name, p in self.trained.items()}
        self.best = {name: p.detach().clone() for name, p in self.trained.items()}
        self.history: list[Epoch] = []

    def fit_clicks(self, examples: Sequence[Example]) -> None:
        """Fit the regions that nano tries for a click to the examples; other models have none."""
        fit = getattr(self.network, "fit_clicks", None)
        if fit is None or not any("point" in strategy.dialogue.kinds for strategy, _ in self.strategies):
            return
        rng = np.random.default_rng(self.seed)
        reaches = []
        for example in examples:
            scale = self.predictor.fit_of(example.embedding()).scale_xy
            for mask in example.view.masks:
                rows, columns = np.nonzero(mask)
                for pick in rng.choice(len(rows), _CLICKS_PER_OBJECT):
                    x, y = np.abs(columns - columns[pick]).max(), np.abs(rows - rows[pick]).max()
                    reaches.append(max(x * scale[0], y * scale[1]) + 1)
        fit(torch.tensor(reaches))
        self.most_passes = int(self.network.click_passes)

    @property
    def best_epoch(self) -> Epoch:
        """The epoch whose weights are kept: the best on the slices held out, the first of equals."""
        return max(self.history, key=lambda epoch: (epoch.score, -epoch.number))

    @property
    def is_done(self) -> bool:
        """Whether the recipe's last epoch is behind, or nothing has become better for its patience."""
        waited = self.epoch - self.best_epoch.number if self.history else 0
        return self.epoch >= self.recipe.epochs or 0 < self.recipe.patience <= waited

    def steps(self, examples: Sequence[Example]) -> list[list[int]]:
        """Indices of the examples of every step of the next epoch."""
        order = np.random.default_rng((self.seed, self.epoch)).permutation(len(examples))
        count = self.recipe.slices_per_step
        return [list(map(int, order[i : i + count])) for i in range(0, len(order), count)]

    def train_epoch(self, examples: Sequence[Example]) -> Iterator[tuple[float, float, bool]]:
        """Train over all examples; yields loss, Dice and whether the step was taken, step by step."""
        steps = self.steps(examples)
        for number, chosen in enumerate(steps):
            for group in self.optimiser.param_groups:
                group["lr"] = self._learning_rate(self.epoch + number / len(steps))
            yield self._step(examples, chosen)
        passes = self._click_settings().get("click_passes")
        if passes is not None:
            passes.fill_(self.most_passes)
        self.epoch += 1

    def _step(self, examples: Sequence[Example], chosen: Sequence[int]) -> tuple[float, float, bool]:
        """Mean loss and Dice of the chosen examples, and whether a step could be taken."""
        self.optimiser.zero_grad(set_to_none=True)
        sums = torch.zeros(4, dtype=torch.float64)  # loss, slices, Dice, prompts
        fabric = self.team.fabric
        with fabric.no_backward_sync(self.module):  # as often as there are kinds of prompts: exchanged once
            for index in self.team.share(chosen):
                sums[1] += 1
                for loss, dice_ in self._losses(examples[index], (self.seed, self.epoch, index)):
                    fabric.backward(loss / len(chosen))
                    sums[0] += float(loss.detach())
                    sums[2] += float(dice_.sum())
                    sums[3] += len(dice_)
        loss, slices, dices, prompts = self._gathered(sums).tolist()
        gradients = [p.grad for p in self.trained.values() if p.grad is not None]
        norm = torch.nn.utils.clip_grad_norm_(self.trained.values(), _MAX_GRADIENT)
        taken = bool(gradients) and bool(norm.isfinite())
        if taken:
            self.optimiser.step()
            self._average()
        return _ratio(loss, slices), _ratio(dices, prompts), taken

    def _gathered(self, sums: torch.Tensor) -> torch.Tensor:
        """Add gradients and sums up over the processes; a gradient that none of them has stays None."""
        if self.team.size == 1:
            return sums
        parameters = list(self.trained.values())
        has = torch.tensor([float(p.grad is not None) for p in parameters])
        own = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        sums, has, *gradients = self.team.summed([sums, has, *own])
        for parameter, gradient, is_there in zip(parameters, gradients, has.tolist(), strict=True):
            parameter.grad = gradient.to(parameter.dtype) if is_there else None
        return sums

    def _losses(self, example: Example, seed: tuple[int, ...]) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Loss and Dice of an example's prompts, and of the corrections that follow, one structure of prompts
        after the other.
        """
        rng = np.random.default_rng(seed)
        masks = example.view.masks
        asked = self._openings(example.view, rng)
        rounds = 1 + (
            int(rng.integers(1, _MOST_CORRECTIONS + 1)) if rng.random() < self.recipe.corrected else 0
        )
        self._draw_passes(rng)
        slice_ = _EmbeddedSlice.of(example, self.predictor, self.team.device)
        for left in range(rounds - 1, -1, -1):
            replies: list[tuple[int, Prompts]] = []
            groups = group_by_structure([prompts for _, prompts in asked], None, self.record)
            for structure, indices in groups.items():
                chosen = [asked[i] for i in indices]
                batch = slice_.batch([prompts for _, prompts in chosen])
                ask = partial(_decoded, slice_.features, batch, structure.multimask)
                decoded = self.module(ask)
                logits = upsample_logits(decoded.low_res_logits.float(), slice_.fit, direct=True)
                terms = mask_loss(
                    logits,
                    decoded.iou_predictions.float(),
                    slice_.targets[[row for row, _ in chosen]],
                    self.recipe.losses,
                )
                yield terms.loss * (len(indices) / len(asked) / rounds), terms.dice
                if left:
                    with torch.no_grad():
                        plain = DecodedMasks(*(tensor.detach() for tensor in decoded))
                        answers = masks_in_image(plain, slice_.embedding, slice_.fit, AnswerForm(direct=True))
                    for (row, prompts), answer in zip(chosen, answers, strict=True):
                        reply = corrective_click(masks[row], prompts, answer)
                        replies += [(row, reply)] if reply is not None else []
            asked = replies
        slice_.backward()

    def _openings(self, view: TrainingSlice, rng: np.random.Generator) -> list[tuple[int, Prompts]]:
        """Prompts by the recipe's strategies, each with the row of its mask.

        None sees the image, which is let go when it is embedded.
        """
        shares = np.array([share for _, share in self.strategies])
        count = self.recipe.prompts_per_object
        return [
            (row, self.strategies[pick][0].dialogue.opening(PromptTarget(mask), rng))
            for row, mask in enumerate(view.masks)
            for pick in rng.choice(len(shares), count, p=shares / shares.sum())
        ]

    def _learning_rate(self, epoch: float) -> float:
        recipe = self.recipe
        done = epoch / recipe.epochs
        rise = min(1.0, (done + 1e-3) / recipe.warm_up) if recipe.warm_up else 1.0
        fall = 0.5 * (1 + math.cos(math.pi * min(1.0, done))) if recipe.falls else 1.0
        return recipe.learning_rate * rise * fall

    @torch.no_grad()
    def _average(self) -> None:
        keep = self.recipe.averaging
        for name, parameter in self.trained.items():
            self.averaged[name].lerp_(parameter.detach(), 1 - keep)

    def score(self, examples: Sequence[Example]) -> float:
        """Mean Dice of the averaged weights on examples, over the recipe's strategies."""
        now = {name: p.detach().clone() for name, p in self.trained.items()}
        self._put(self.averaged)
        try:
            own = [self._dices(*numbered) for numbered in self.team.share(list(enumerate(examples)))]
        finally:
            self._put(now)
        return _mean([value for dices in self.team.joined(own) for value in dices])

    @torch.no_grad()
    def _dices(self, number: int, example: Example) -> list[float]:
        """Dice of an example's masks, each by all strategies; the same number gives the same prompts."""
        targets = [PromptTarget(mask) for mask in example.view.masks]
        asked = [
            (
                target.mask,
                strategy.dialogue.opening(target, np.random.default_rng((_SCORE_SEED, number, row, i))),
            )
            for row, target in enumerate(targets)
            for i, (strategy, _) in enumerate(self.strategies)
        ]
        answers = self.predictor.predict_batch(example.embedding(), [prompts for _, prompts in asked])
        return [dice(a.best_mask, mask) for a, (mask, _) in zip(answers, asked, strict=True)]

    def close_epoch(self, loss: float, train_dice: float, score: float, skipped: int = 0) -> Epoch:
        """Note what an epoch came to; its averaged weights are kept where they are the best so far."""
        epoch = Epoch(self.epoch, loss, train_dice, score, skipped)
        finite = all(bool(p.isfinite().all()) for p in self.averaged.values())
        if not finite or not math.isfinite(score):
            epoch = Epoch(self.epoch, loss, train_dice, float("-inf"), skipped)
        elif not self.history or score > self.best_epoch.score:
            self.best = {name: p.clone() for name, p in self.averaged.items()}
        self.history.append(epoch)
        return epoch

    def keep_best(self) -> None:
        """Give the network the weights of the best epoch."""
        self._put(self.best)

    def best_state(self) -> dict[str, torch.Tensor]:
        """What training changed in the network's state dict, as it was at the best epoch."""
        changed = {name: p.detach().cpu().clone() for name, p in self.best.items()}
        return changed | {
            name: value.detach().cpu().clone() for name, value in self._click_settings().items()
        }

    def _click_settings(self) -> dict[str, torch.Tensor]:
        settings = {name: getattr(self.network, name, None) for name in ("point_sides", "click_passes")}
        return {name: value for name, value in settings.items() if value is not None}

    def _draw_passes(self, rng: np.random.Generator) -> None:
        """Every pass of an answer to a click is learned, as only the last one has a gradient."""
        passes = self._click_settings().get("click_passes")
        if passes is not None:
            passes.fill_(int(rng.integers(1, self.most_passes + 1)))

    @torch.no_grad()
    def _put(self, weights: dict[str, torch.Tensor]) -> None:
        for name, parameter in self.trained.items():
            parameter.copy_(weights[name])

    def state(self) -> dict[str, Any]:
        """All that changes in training, as tensors and plain values."""
        return {
            "epoch": self.epoch,
            "weights": {name: p.detach().cpu() for name, p in self.trained.items()},
            "averaged": self.averaged,
            "best": self.best,
            "optimiser": self.optimiser.state_dict(),
            "history": [[e.number, e.loss, e.train_dice, e.score, e.skipped] for e in self.history],
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take back what `state` gave."""
        device = self.team.device
        self._put(state["weights"])
        self.averaged = {name: value.to(device) for name, value in state["averaged"].items()}
        self.best = {name: value.to(device) for name, value in state["best"].items()}
        self.optimiser.load_state_dict(state["optimiser"])
        self.history = [Epoch(*row) for row in state["history"]]
        self.epoch = int(state["epoch"])


@dataclass(frozen=True, eq=False)
class _EmbeddedSlice:
    """What the prompts of an example are decoded from, on the device."""

    embedding: ImageEmbedding
    features: Any
    sources: tuple[torch.Tensor, ...]
    fit: SquareFit
    targets: torch.Tensor
    device: torch.device

    @classmethod
    def of(cls, example: Example, predictor: Predictor, device: torch.device) -> _EmbeddedSlice:
        embedding = example.embedding()
        sources = tuple(tensor.to(device).float() for tensor in embedding.features)
        # every structure of prompts has a backward pass of its own, the encoder one for all of them
        leaves = [s.detach().requires_grad_(s.requires_grad) for s in sources]
        targets = torch.from_numpy(example.view.masks).to(device, torch.float32)
        features = type(embedding.features)(*leaves)
        return cls(embedding, features, sources, predictor.fit_of(embedding), targets, device)

    def backward(self) -> None:
        """Hand the gradients of the features on to the encoder, where it is trained."""
        pairs = [(s, f.grad) for s, f in zip(self.sources, self.features, strict=True) if f.grad is not None]
        if pairs:
            torch.autograd.backward([s for s, _ in pairs], [gradient for _, gradient in pairs])

    def batch(self, prompts: Sequence[Prompts]) -> PromptBatch:
        return batch_of(prompts, self.embedding, self.fit, self.device)


class _Decoding(nn.Module):
    """The network's decoder as a module to be called, as Fabric wants it."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network

    def forward(self, ask: Callable[[Any], DecodedMasks]) -> DecodedMasks:
        # Fabric casts and moves the arguments of a call, which are prepared already: it is handed none
        return ask(self.network)


def _decoded(features: Any, batch: PromptBatch, multimask: bool, network: Any) -> DecodedMasks:
    decoded: DecodedMasks = network.decode(features, batch, multimask)
    return decoded


def finetune(
    tuner: Tuner,
    learned: Sequence[Example],
    held_out: Sequence[Example],
    checkpoint: TunerCheckpoint | None = None,
) -> Iterator[tuple[Progress, Epoch | None]]:
    """Train to the recipe's end, from the checkpoint where there is one; yields after every step.

    Parameters
    ----------
    tuner : Tuner
    learned, held_out : sequence of Example
        Views to learn from, and slices that tell which epoch was best; where none are held out, the slices
        learned from do.
    checkpoint : TunerCheckpoint, optional
        Written after every epoch.

    Raises
    ------
    ModelError
        When the checkpoint is damaged.
    """
    judged = held_out or learned
    resumed = checkpoint is not None and checkpoint.restore(tuner)
    per_epoch = len(tuner.steps(learned))
    total = tuner.recipe.epochs * per_epoch
    if not resumed:
        tuner.close_epoch(float("nan"), float("nan"), tuner.score(judged))
        yield Progress(0, total, "model as it was"), tuner.history[-1]
    tuner.fit_clicks(learned)
    while not tuner.is_done:
        losses, dices, skipped, done = [], [], 0, tuner.epoch * per_epoch
        for number, (loss, dice_, taken) in enumerate(tuner.train_epoch(learned), start=1):
            losses.append(loss)
            dices.append(dice_)
            skipped += not taken
            yield Progress(done + number, total, f"epoch {done // per_epoch + 1}"), None
        epoch = tuner.close_epoch(_mean(losses), _mean(dices), tuner.score(judged), skipped)
        if checkpoint is not None and tuner.team.is_first:
            checkpoint.save(tuner)
        yield Progress(tuner.epoch * per_epoch, total, f"epoch {tuner.epoch}"), epoch
        if skipped == per_epoch:  # nothing will come of it any more
            break


def _taken(recipe: Recipe, record: ModelRecord) -> list[tuple[Strategy, float]]:
    """The recipe's strategies whose prompts the model takes."""
    taken = [
        (strategy, share)
        for name, share in recipe.prompts
        for strategy in parse_strategies([name])
        if strategy.dialogue.kinds <= record.accepts
    ]
    if not taken:
        raise ModelError(
            f"{record.title} takes none of the prompts of the recipe {recipe.name}; choose another recipe."
        )
    return taken


def _trained_parameters(network: Any, recipe: Recipe) -> dict[str, nn.Parameter]:
    """Parameters to be trained, by their names in the state dict; gradients are switched on for them."""
    trained: dict[str, nn.Parameter] = {}
    for part in recipe.trains:
        prefixes = network.parts.get(part)
        if prefixes is None:
            raise ModelError(f"This model has no {part.replace('_', ' ')}; train its mask decoder.")
        for name, parameter in network.named_parameters():
            if name.startswith(prefixes) and (part != "lora" or is_lora(name)):
                trained[name] = parameter.requires_grad_(True)
    return trained


def _optimiser(recipe: Recipe, trained: dict[str, nn.Parameter]) -> torch.optim.Optimizer:
    matrices = [p for p in trained.values() if p.ndim > 1]
    others = [p for p in trained.values() if p.ndim <= 1]
    groups = [
        {"params": matrices, "weight_decay": recipe.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    if recipe.optimiser == "sgd":
        return torch.optim.SGD(groups, lr=recipe.learning_rate, momentum=recipe.momentum)
    kind = torch.optim.AdamW if recipe.optimiser == "adamw" else torch.optim.Adam
    return kind(groups, lr=recipe.learning_rate)


def _ratio(total: float, count: float) -> float:
    return total / count if count else float("nan")


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else float("nan")
