"""Fine-tuning measured: ``python -m benchmarks.finetuning table MODEL_DIR ...`` and ``... epoch --cases C``.

``table`` prints the Dice before and after of one or several runs of ``napari-sam-med finetune`` (of several
seeds, say) as a table for the docs, ``recipes`` that of runs with several recipes side by side. ``epoch``
compares an epoch on stored embeddings with one that runs the image encoder for every slice.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from napari_sam_med.evaluation.cases import read_cases
from napari_sam_med.evaluation.measuring import SliceChoice
from napari_sam_med.sam.architectures.build import build_decoder
from napari_sam_med.sam.checkpoints import read_checkpoint, write_checkpoint
from napari_sam_med.sam.model_registry import MODELS
from napari_sam_med.sam.predictor import load_predictor
from napari_sam_med.training.finetuned_model import read_card
from napari_sam_med.training.finetuning import Example, Tuner
from napari_sam_med.training.recipes import named_recipe
from napari_sam_med.training.training_slices import TrainingSlice, read_training_slices


def table(folders: Sequence[Path]) -> str:
    """Markdown table of the Dice before and after, mean and range over the runs, by prompt and organ."""
    cards = [read_card(folder) for folder in folders]
    if not all(cards):
        raise SystemExit("Every folder must be one that `napari-sam-med finetune` has written.")
    lines = ["| prompt | organ | before | after | least | most | gain |", "|---|---|---|---|---|---|---|"]
    for strategy, means in cards[0]["scores"]["before"].items():
        for organ in ("mean of organs", *means["organs"]):
            before, after = (
                np.array([_value(card["scores"][when][strategy], organ) for card in cards])
                for when in ("before", "after")
            )
            values = (before.mean(), after.mean(), after.min(), after.max())
            shown = " | ".join(f"{value:.3f}" for value in values)
            gain = f"{(after - before).mean():+.3f}"
            lines.append(f"| `{strategy}` | {organ} | {shown} | {gain} |")
    minutes = [card["seconds"]["all"] / 60 for card in cards]
    epochs = [card["seconds"]["epoch"] for card in cards]
    lines.append("")
    lines.append(
        f"{len(cards)} seeds; {np.mean(minutes):.1f} min a run ({min(minutes):.1f} to {max(minutes):.1f}), "
        f"{np.mean(epochs):.1f} s an epoch; kept epochs "
        f"{', '.join(str(card['best_epoch']) for card in cards)}."
    )
    return "\n".join(lines)


def recipe_table(folders: Sequence[Path]) -> str:
    """Markdown table of the mean Dice after runs with several recipes, by prompt."""
    cards = [read_card(folder) for folder in folders]
    if not all(cards):
        raise SystemExit("Every folder must be one that `napari-sam-med finetune` has written.")
    before = cards[0]["scores"]["before"]
    lines = [
        f"| recipe | {' | '.join(f'`{strategy}`' for strategy in before)} | minutes |",
        f"|---|{'---|' * len(before)}---|",
    ]
    rows = [("as it was", before, "")]
    for card in cards:
        minutes = f"{card['seconds']['all'] / 60:.1f}"
        rows.append((f"`{card['recipe']['name']}`", card["scores"]["after"], minutes))
    for name, scores, minutes in rows:
        shown = " | ".join(f"{scores[strategy]['mdice_organs']:.3f}" for strategy in before)
        lines.append(f"| {name} | {shown} | {minutes} |")
    return "\n".join(lines)


def _value(means: dict[str, Any], organ: str) -> float:
    return float(means["mdice_organs"] if organ == "mean of organs" else means["organs"][organ])


def epoch_ratio(model: str, recipe: str, slices: Sequence[TrainingSlice]) -> dict[str, float]:
    """Seconds of an epoch on stored embeddings, and of embedding its slices."""
    with tempfile.TemporaryDirectory() as folder:
        name = _with_random_weights(model, Path(folder))
        predictor = load_predictor(name, device="cpu")
        predictor.embed(slices[0].image, slices[0].pixel_spacing)  # to warm up
        examples = []
        start = time.perf_counter()
        for one in slices:
            embedding = predictor.embed(one.image, one.pixel_spacing)
            examples.append(Example(one, lambda embedding=embedding: embedding))  # type: ignore[misc]  # bound now
        encoding = time.perf_counter() - start
        checkpoint = read_checkpoint(name)
        del predictor
        tuner = Tuner(
            build_decoder(checkpoint),
            checkpoint.record,
            named_recipe(recipe, epochs=3),
            model_hash=checkpoint.sha256,
        )
        list(tuner.train_epoch(examples[:2]))
        start = time.perf_counter()
        list(tuner.train_epoch(examples))
        training = time.perf_counter() - start
    return {"encoding": encoding, "training": training, "ratio": (encoding + training) / training}


def _with_random_weights(model: str, folder: Path) -> str:
    """The model, or where it is not on this machine a checkpoint of its layout with random weights."""
    from napari_sam_med.sam.model_registry import is_available

    if is_available(model):
        return model
    from napari_sam_med.sam.architectures.meta import build_sam_vit

    network = build_sam_vit(MODELS[model].architecture)
    return str(write_checkpoint(folder / "random.safetensors", network.state_dict(), MODELS[model]))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.finetuning", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    tables = commands.add_parser("table")
    tables.add_argument("folders", nargs="+", type=Path)
    recipes = commands.add_parser("recipes")
    recipes.add_argument("folders", nargs="+", type=Path)
    epoch = commands.add_parser("epoch")
    epoch.add_argument("--cases", type=Path, required=True)
    epoch.add_argument("--models", default="nano,sam_vit_b")
    epoch.add_argument("--recipe", default="btcv")
    epoch.add_argument("--slices", type=int, default=8)
    options = parser.parse_args()
    if options.command in ("table", "recipes"):
        print((table if options.command == "table" else recipe_table)(options.folders))
        return
    steps = read_training_slices(read_cases(options.cases)[:1], SliceChoice(min_area=20))
    slices = [one for _, found, _ in steps for one in found][: options.slices]
    for model in options.models.split(","):
        measured = epoch_ratio(model, options.recipe, slices)
        print(
            f"{model}: embedding {measured['encoding'] / len(slices):.2f} s a slice, training "
            f"{measured['training'] / len(slices):.2f} s; an epoch with the encoder takes "
            f"{measured['ratio']:.1f} times as long"
        )


if __name__ == "__main__":
    main()
