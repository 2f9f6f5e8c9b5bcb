"""Training a class token in SAM's mask decoder, as a term project on BTCV did (preset ``btcv-class``)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from napari_sam_med.progress import Progress
from napari_sam_med.segmentation.organ_token import ClassTokenHead, class_token_logits, sam_network

if TYPE_CHECKING:
    from napari_sam_med.sam.image_embedding import ImageEmbedding
    from napari_sam_med.sam.predictor import Predictor
    from napari_sam_med.sam.prompts import Prompts

__all__ = ["TokenRecipe", "TokenSlice", "token_logits", "train_class_token"]


@dataclass(frozen=True)
class TokenRecipe:
    """Adam on token, transformer and head; everything else is frozen. The defaults are the term project's."""

    epochs: int = 50
    learning_rate: float = 1e-5


@dataclass(frozen=True, eq=False)
class TokenSlice:
    """Prompts of one slice and the class (P,) of what each points at; the prompts share their structure."""

    embedding: ImageEmbedding
    prompts: Sequence[Prompts]
    classes: npt.NDArray[np.int64]


def train_class_token(
    slices: Sequence[TokenSlice],
    n_classes: int,
    predictor: Predictor,
    recipe: TokenRecipe,
    *,
    seed: int = 0,
    on_progress: Callable[[Progress], None] | None = None,
) -> ClassTokenHead:
    """A head in evaluation mode, on the predictor's device; rare classes weigh more in the loss.

    Raises
    ------
    ModelError
        When the model has no mask decoder of SAM's.
    """
    network = sam_network(predictor)
    counts = np.bincount(np.concatenate([one.classes for one in slices]), minlength=n_classes)
    weights = torch.tensor(np.where(counts, counts.sum() / np.maximum(counts, 1) / n_classes, 0.0)).float()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head = ClassTokenHead.beside(network, n_classes).to(predictor.device).train()
        head.requires_grad_(True)
        optimizer = torch.optim.Adam(head.parameters(), lr=recipe.learning_rate)
        loss_of = torch.nn.CrossEntropyLoss(weights.to(predictor.device), label_smoothing=0.05)
        for epoch in range(recipe.epochs):
            losses = []
            for index in torch.randperm(len(slices)).tolist():
                one = slices[index]
                logits = class_token_logits(head, predictor, one.embedding, one.prompts)
                loss = loss_of(logits, torch.from_numpy(one.classes).to(predictor.device))
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                losses.append(float(loss.detach()))
            if on_progress is not None:
                text = f"loss {np.mean(losses):.2f}"
                on_progress(Progress(epoch + 1, recipe.epochs, text))
    return head.eval()


def token_logits(
    head: ClassTokenHead, predictor: Predictor, slices: Sequence[TokenSlice]
) -> npt.NDArray[np.float64]:
    """Logits (N, C) of the prompts of several slices, one after the other."""
    with torch.inference_mode():
        tables = [class_token_logits(head, predictor, one.embedding, one.prompts) for one in slices]
    return torch.cat(tables).cpu().double().numpy()
