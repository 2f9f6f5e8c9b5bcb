"""The terms of a fine-tuning's loss: against their definitions, and what they favour."""

from __future__ import annotations

from typing import get_args

import pytest
import torch

from napari_sam_med.training.mask_loss import mask_loss
from napari_sam_med.training.recipes import LossTerm


@pytest.fixture
def target() -> torch.Tensor:
    target = torch.zeros(2, 24, 32)
    target[0, 4:12, 6:16] = 1
    target[1, 10:20, 20:25] = 1
    return target


@pytest.mark.parametrize("term", get_args(LossTerm))
def test_every_term_is_least_for_the_truth_and_has_a_gradient(term: LossTerm, target: torch.Tensor) -> None:
    truth = (20 * target - 10)[:, None]
    predicted = torch.full((2, 1), 0.6, requires_grad=True)
    shifted = torch.roll(truth, 3, 3).requires_grad_(True)
    right = mask_loss(truth, torch.ones(2, 1), target, [(term, 1.0)])
    wrong = mask_loss(shifted, predicted, target, [(term, 1.0)])
    assert float(right.loss) < 0.01 < float(wrong.loss.detach())
    assert torch.allclose(right.dice, torch.ones(2))
    wrong.loss.backward()
    gradient = predicted.grad if term == "iou" else shifted.grad
    assert gradient is not None
    assert bool(gradient.isfinite().all())
    assert float(gradient.abs().sum()) > 0


def test_terms_are_those_of_their_definitions(target: torch.Tensor) -> None:
    logits = torch.randn(2, 1, 24, 32, generator=torch.Generator().manual_seed(1))
    p, t = torch.sigmoid(logits[:, 0]), target
    iou = torch.ones(2, 1)
    expected = {
        "dice": (1 - (2 * (p * t).sum((1, 2)) + 1) / (p.sum((1, 2)) + t.sum((1, 2)) + 1)).mean(),
        "mse": ((p - t) ** 2).mean(),
        "cross_entropy": (
            torch.nn.functional.binary_cross_entropy(p, t, reduction="none").sum((1, 2))
            / (2.25 * torch.tensor([80.0, 50.0]))
        ).mean(),
    }
    for term, value in expected.items():
        found = mask_loss(logits, iou, target, [(term, 2.0)])  # type: ignore[list-item]  # a key of the table
        assert float(found.loss) == pytest.approx(2 * float(value), rel=1e-4)


def test_of_three_masks_the_best_one_is_learned(target: torch.Tensor) -> None:
    truth = (20 * target - 10)[:, None]
    three = torch.cat([-truth, 0.2 * truth, -0.1 * truth], 1).requires_grad_(True)
    found = mask_loss(three, torch.ones(2, 3), target, [("dice", 1.0)])
    found.loss.backward()
    assert three.grad is not None
    pull = three.grad.abs().sum((0, 2, 3))
    assert pull[1] > 5 * pull[[0, 2]].max()
    assert torch.allclose(found.dice, torch.ones(2))
