"""Train `nano` on invented scenes, and on label maps and slices that are given: ``python -m
napari_sam_med.training.train_nano``.

A run can be stopped at any time and goes on from its last checkpoint exactly as if it had not been stopped:
batch number k depends on the seed and on k alone.
"""

from __future__ import annotations

import argparse
import csv
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from napari_sam_med.progress import Progress
from napari_sam_med.sam.architectures.nano import Nano
from napari_sam_med.sam.digests import sha256_of
from napari_sam_med.training.nano_batches import NanoBatch, ScenePool
from napari_sam_med.training.nano_loss import LossTerms, corrected_prompts, forward, nano_loss
from napari_sam_med.training.real_slices import read_picture_slices, read_volume_slices

__all__ = ["NanoRecipe", "NanoTrainer", "validate", "write_weights"]

VALIDATION_SEED = 9001


@dataclass(frozen=True)
class NanoRecipe:
    """Everything that decides the weights.

    Attributes
    ----------
    steps, warm_up, decay : int
        Steps in all; the learning rate rises over the first ``warm_up`` and falls to 0 over the last
        ``decay``.
    images, prompts, replicas : int
        Images and prompts per image in the batch of each replica; all replicas' gradients make one step.
    correction_share : float
        Share of the steps with a second round: a correction click and the first answer as mask prompt.
    """

    steps: int = 6000
    images: int = 3
    replicas: int = 2
    prompts: int = 10
    scenes: int = 1500
    seed: int = 1
    learning_rate: float = 2e-3
    weight_decay: float = 0.02
    warm_up: int = 100
    decay: int = 1500
    correction_share: float = 0.25
    ema: float = 0.998
    bf16: bool = True

    def learning_rate_at(self, step: int) -> float:
        """Learning rate of a step: linear rise, plateau, linear fall."""
        rise = min(1.0, (step + 1) / self.warm_up)
        fall = min(1.0, (self.steps - step) / max(1, self.decay))
        return self.learning_rate * rise * max(0.0, fall)


class NanoTrainer:
    """Network, averaged network and optimiser of a run.

    Parameters
    ----------
    recipe : NanoRecipe
    pool : ScenePool
    """

    def __init__(self, recipe: NanoRecipe, pool: ScenePool) -> None:
        torch.manual_seed(recipe.seed)
        self.recipe, self.pool, self.step = recipe, pool, 0
        self.network = Nano().to(memory_format=torch.channels_last)
        # replicas share the weights' memory, and have gradients and batch statistics of their own
        self.replicas = [self.network]
        for _ in range(1, recipe.replicas):
            replica = Nano().to(memory_format=torch.channels_last)
            for mine, shared in zip(replica.parameters(), self.network.parameters(), strict=True):
                mine.data = shared.data
            self.replicas.append(replica)
        self._threads = ThreadPoolExecutor(recipe.replicas)
        self.averaged = Nano().eval().requires_grad_(False)
        self.averaged.load_state_dict(self.network.state_dict())
        matrices = [p for p in self.network.parameters() if p.ndim > 1]
        others = [p for p in self.network.parameters() if p.ndim <= 1]
        groups = [
            {"params": matrices, "weight_decay": recipe.weight_decay},
            {"params": others, "weight_decay": 0.0},
        ]
        self.optimiser = torch.optim.AdamW(groups, lr=recipe.learning_rate, betas=(0.9, 0.98))

    def train_step(self, batches: Sequence[NanoBatch] | None = None) -> LossTerms:
        """One optimiser step, on the batches of the current step unless some are given, one for each
        replica.
        """
        for group in self.optimiser.param_groups:
            group["lr"] = self.recipe.learning_rate_at(self.step)
        given: Sequence[NanoBatch | None] = batches or [None] * len(self.replicas)
        # one thread a replica: they meet once a step instead of once an operation, which matters on busy
        # cores
        terms = list(self._threads.map(self._gradients, self.replicas, range(len(self.replicas)), given))
        for parameters in zip(*(replica.parameters() for replica in self.replicas), strict=True):
            gradients = [p.grad for p in parameters if p.grad is not None]
            if gradients:
                parameters[0].grad = torch.stack(gradients).mean(0)
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self.optimiser.step()
        self.step += 1
        self._average()
        return LossTerms(
            torch.stack([t.loss for t in terms]).mean(),
            torch.cat([t.iou for t in terms]),
            torch.cat([t.iou_prediction for t in terms]),
        )

    def _gradients(self, network: Nano, replica: int, batch: NanoBatch | None) -> LossTerms:
        recipe = self.recipe
        if batch is None:
            number = self.step * len(self.replicas) + replica
            batch = self.pool.batch(number, recipe.images, recipe.prompts)
        network.train()
        # the golden ratio spreads the second rounds evenly, and needs no random state
        second_round = (self.step * 0.6180339887) % 1 < recipe.correction_share
        with torch.autocast("cpu", torch.bfloat16, enabled=recipe.bf16):
            features = network.encode(batch.images)
            masks, region = forward(network, features, batch.sampled)
        terms = nano_loss(masks, batch.sampled, region)
        loss = terms.loss
        if second_round:
            corrected = corrected_prompts(batch.sampled, masks, region)
            with torch.autocast("cpu", torch.bfloat16, enabled=recipe.bf16):
                masks, region = forward(network, features, corrected)
            loss = loss + nano_loss(masks, corrected, region).loss
        network.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        return terms._replace(loss=terms.loss.detach())

    @torch.no_grad()
    def _average(self) -> None:
        keep = min(self.recipe.ema, (1 + self.step) / (10 + self.step))
        for mean, new in zip(
            self.averaged.state_dict().values(), self.network.state_dict().values(), strict=True
        ):
            if mean.is_floating_point():
                mean.lerp_(new, 1 - keep)
            else:
                mean.copy_(new)

    def save(self, path: Path) -> None:
        """Write a checkpoint; an interrupted write leaves the previous one."""
        state: dict[str, Any] = {
            "step": self.step,
            "network": self.network.state_dict(),
            "averaged": self.averaged.state_dict(),
            "optimiser": self.optimiser.state_dict(),
        }
        part = path.with_suffix(".part")
        torch.save(state, part)
        os.replace(part, path)

    def load(self, path: Path) -> None:
        """Go on from a checkpoint."""
        state = torch.load(path, weights_only=True)
        self.step = int(state["step"])
        self.network.load_state_dict(state["network"])
        self.averaged.load_state_dict(state["averaged"])
        self.optimiser.load_state_dict(state["optimiser"])


@torch.inference_mode()
def validate(network: Nano, pool: ScenePool, n_batches: int = 4) -> dict[str, float]:
    """Mean IoU on batches of ``pool`` by kind of prompt, and the error of the predicted IoU."""
    network.eval()
    ious, errors, kinds = [], [], []
    for number in range(n_batches):
        batch = pool.batch(number, 6, 8)
        masks, region = forward(network, network.encode(batch.images), batch.sampled)
        terms = nano_loss(masks, batch.sampled, region)
        ious.append(terms.iou)
        errors.append((terms.iou - terms.iou_prediction).abs())
        kinds.append(batch.sampled.kinds)
    iou, error, kind = torch.cat(ious), torch.cat(errors), torch.cat(kinds)
    groups = {"box": kind <= 1, "click": (kind == 2) | (kind == 3), "neighbour": kind >= 4}
    result = {f"iou_{name}": float(iou[rows].mean()) for name, rows in groups.items()}
    return result | {"iou_error": float(error.mean())}


def write_weights(network: Nano, path: Path, note: str = "") -> None:
    """Write the weights in half precision, with what they are in the header, and their digest beside them.

    What batch normalisation has counted stays in single precision: its variances may be beyond 65504, the
    largest number in half precision.
    """
    state = {
        name: (value if not value.is_floating_point() or ".running_" in name else value.half()).contiguous()
        for name, value in network.state_dict().items()
    }
    if not all(bool(value.isfinite().all()) for value in state.values()):
        raise ValueError("Some weights are not finite, or too large for half precision.")
    header = {"architecture": "nano", "preprocessing": "nano", "licence": "Apache-2.0", "note": note}
    part = path.with_suffix(".part")
    save_file(state, part, metadata=header)
    part.chmod(0o644)
    os.replace(part, path)
    path.with_suffix(".sha256").write_text(f"{sha256_of(path)}\n", encoding="ascii")


def run(trainer: NanoTrainer, output: Path, save_every: int = 100, log_every: int = 20) -> Iterator[Progress]:
    """Train to the recipe's end; yields once a step, writes ``log.csv`` and ``checkpoint.pt`` into
    ``output``.
    """
    validation = ScenePool(24, seed=VALIDATION_SEED)
    log = output / "log.csv"
    started, losses, ious = time.monotonic(), [], []
    while trainer.step < trainer.recipe.steps:
        terms = trainer.train_step()
        losses.append(float(terms.loss))
        ious.append(float(terms.iou.mean()))
        if trainer.step % log_every == 0:
            row: dict[str, float] = {
                "step": trainer.step,
                "seconds": round(time.monotonic() - started, 1),
                "loss": sum(losses) / len(losses),
                "iou": sum(ious) / len(ious),
            }
            if trainer.step % (10 * log_every) == 0:
                row |= validate(trainer.averaged, validation)
            _append(log, row)
            losses, ious = [], []
        if trainer.step % save_every == 0 or trainer.step == trainer.recipe.steps:
            trainer.save(output / "checkpoint.pt")
        yield Progress(trainer.step, trainer.recipe.steps, "training nano")
    write_weights(trainer.averaged, output / "nano.safetensors", f"{trainer.step} steps")


_COLUMNS = ("step", "seconds", "loss", "iou", "iou_box", "iou_click", "iou_neighbour", "iou_error")


def _append(log: Path, row: dict[str, float]) -> None:
    new = not log.exists()
    with log.open("a", newline="") as file:
        writer = csv.DictWriter(file, _COLUMNS)
        if new:
            writer.writeheader()
        writer.writerow({name: f"{value:.5g}" for name, value in row.items()})


def main(arguments: list[str] | None = None) -> None:
    """Command line: train, or go on from ``OUTPUT/checkpoint.pt`` when it is there."""
    parser = argparse.ArgumentParser(prog="python -m napari_sam_med.training.train_nano", description=__doc__)
    parser.add_argument(
        "-o", "--output", type=Path, required=True, help="folder for checkpoint, log and weights"
    )
    for name in ("steps", "images", "prompts", "replicas", "scenes", "seed", "decay"):
        parser.add_argument(f"--{name}", type=int, default=getattr(NanoRecipe, name))
    parser.add_argument("--learning-rate", type=float, default=NanoRecipe.learning_rate)
    parser.add_argument("--start-from", type=Path, help="checkpoint whose averaged weights to start from")
    parser.add_argument("--threads", type=int, default=1, help="of each replica")
    parser.add_argument(
        "--label-maps", type=Path, nargs="*", default=[], help="files whose slices become scenes"
    )
    parser.add_argument(
        "--real-cases", type=Path, help="CSV of scans whose slices are trained on as they are"
    )
    parser.add_argument("--real-pictures", type=Path, help="folder with images/*.png and masks/*.png")
    options = vars(parser.parse_args(arguments))
    output, start_from = options.pop("output"), options.pop("start_from")
    label_maps, cases, pictures = (options.pop(k) for k in ("label_maps", "real_cases", "real_pictures"))
    real = [] if cases is None else read_volume_slices(cases)
    real += [] if pictures is None else read_picture_slices(pictures)
    torch.set_num_threads(options.pop("threads"))
    recipe = NanoRecipe(**options)
    output.mkdir(parents=True, exist_ok=True)
    workers = 2 if recipe.scenes > 100 else 0
    trainer = NanoTrainer(recipe, ScenePool(recipe.scenes, recipe.seed, workers, label_maps, real))
    if (output / "checkpoint.pt").exists():
        trainer.load(output / "checkpoint.pt")
    elif start_from is not None:
        averaged = torch.load(start_from, weights_only=True)["averaged"]
        trainer.network.load_state_dict(averaged)
        trainer.averaged.load_state_dict(averaged)
    for _ in run(trainer, output):
        pass


if __name__ == "__main__":
    main()
