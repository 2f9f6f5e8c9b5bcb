"""The folder of a fine-tuned model: weights, card and learning curves."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from napari_sam_med.sam.checkpoints import FOLDER_CHECKPOINT, StateDict, write_checkpoint
from napari_sam_med.sam.model_registry import ModelRecord
from napari_sam_med.training.finetuning import Epoch
from napari_sam_med.training.own_models import read_card
from napari_sam_med.volume.replacement import Replacement

__all__ = ["is_finished", "read_card", "write_curves", "write_finetuned"]

_CARD = "card.json"
_CURVES = "curves.csv"
_PLOT = "curves.png"


def is_finished(folder: Path) -> bool:
    """Whether a folder holds a model."""
    return (folder / FOLDER_CHECKPOINT).exists()


def write_finetuned(
    folder: Path, state_dict: StateDict, record: ModelRecord, card: dict[str, Any], history: Sequence[Epoch]
) -> None:
    """Write card and curves, and the weights last: a folder with weights is complete.

    Parameters
    ----------
    folder : Path
    state_dict : dict of str to tensor
        All weights, with the names of the base's checkpoint.
    record : ModelRecord
        Of the base.
    card : dict
        What it was made of, and what came of it.
    history : sequence of Epoch
    """
    write_curves(folder, history)
    _plot(folder / _PLOT, history)
    _write_text(folder / _CARD, json.dumps(card, indent=1, ensure_ascii=False) + "\n")
    write_checkpoint(folder, state_dict, record, finetuned=True, recipe=card["recipe"]["name"])


def write_curves(folder: Path, history: Sequence[Epoch]) -> None:
    """Write ``curves.csv``: one row an epoch."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("epoch", "loss", "train_dice", "held_out_dice", "skipped_steps"))
    for epoch in history:
        values = [epoch.loss, epoch.train_dice, epoch.score]
        shown = ["" if not math.isfinite(value) else f"{value:.5f}" for value in values]
        writer.writerow((epoch.number, *shown, epoch.skipped))
    _write_text(folder / _CURVES, text.getvalue())


def _plot(path: Path, history: Sequence[Epoch]) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    numbers = [epoch.number for epoch in history]
    left.plot(numbers, [epoch.loss for epoch in history], color="#1565c0")
    left.set(xlabel="epoch", ylabel="loss", title="Loss")
    right.plot(numbers, [epoch.train_dice for epoch in history], color="#1565c0", label="learned from")
    right.plot(numbers, [epoch.score for epoch in history], color="#e65100", label="held out")
    best = max(history, key=lambda epoch: (epoch.score, -epoch.number))
    right.axvline(best.number, color="grey", linestyle=":", label=f"kept: epoch {best.number}")
    right.set(xlabel="epoch", ylabel="Dice", title="Dice")
    right.legend(fontsize=8)
    for axes in (left, right):
        axes.grid(alpha=0.3)
    with Replacement(path, path.suffix) as file:
        figure.savefig(file.temporary, dpi=120, format="png")
        file.put_in_place()


def _write_text(path: Path, text: str) -> None:
    with Replacement(path, path.suffix) as file:
        file.temporary.write_text(text, encoding="utf-8")
        file.put_in_place()
