"""How a model is fine-tuned: presets by name, each with its source."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal, get_args

from napari_sam_med.errors import ModelError
from napari_sam_med.evaluation.prompt_strategies import parse_strategies

__all__ = ["RECIPES", "LossTerm", "Part", "Recipe", "named_recipe"]

Part = Literal["mask_decoder", "prompt_encoder", "lora"]
LossTerm = Literal["dice", "focal", "cross_entropy", "mse", "iou"]
Optimiser = Literal["adamw", "adam", "sgd"]


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a fine-tuning, next to the data and the seed.

    Attributes
    ----------
    name, source : str
        What it is called, and where it comes from.
    prompts : tuple of (str, float)
        Prompt strategies (see `parse_strategies`) with the share of the prompts drawn by each.
    losses : tuple of (LossTerm, float)
        Terms with their weights.
    trains : tuple of {"mask_decoder", "prompt_encoder", "lora"}
        Parts whose weights change; ``lora`` adds low-rank matrices to the attention of the image encoder,
        and then nothing can be taken from stored embeddings.
    optimiser : {"adamw", "adam", "sgd"}
    learning_rate, weight_decay, momentum : float
        Momentum is SGD's.
    epochs : int
    slices_per_step : int
        Slices of whose prompts the gradients are averaged for one step.
    prompts_per_object : int
        Prompts drawn for each object of a slice.
    corrected : float
        Share of the slices on which one to three corrective clicks follow, each with the answer before as
        mask prompt.
    views : int
        Augmented views of each slice, beside the slice itself; embedded once.
    warm_up : float
        Share of the steps over which the learning rate rises.
    falls : bool
        Whether the learning rate then falls to 0 along a cosine.
    averaging : float
        Share of the old average that each step leaves in the averaged weights, which are what is kept; 0
        keeps the last weights.
    patience : int
        Epochs without a better score on the slices held out, after which training stops; 0 never stops.
    """

    name: str
    source: str
    prompts: tuple[tuple[str, float], ...]
    losses: tuple[tuple[LossTerm, float], ...]
    trains: tuple[Part, ...] = ("mask_decoder",)
    optimiser: Optimiser = "adamw"
    learning_rate: float = 1e-4
    weight_decay: float = 0.0
    momentum: float = 0.9
    epochs: int = 50
    slices_per_step: int = 4
    prompts_per_object: int = 1
    corrected: float = 0.0
    views: int = 4
    warm_up: float = 0.0
    falls: bool = False
    averaging: float = 0.0
    patience: int = 0

    @property
    def uses_stored_embeddings(self) -> bool:
        """Whether the image encoder stays as it is, so that slices are embedded once."""
        return "lora" not in self.trains

    def as_json(self) -> dict[str, Any]:
        """The recipe as plain values, for the card of the model."""
        plain: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return plain

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Recipe:
        """The recipe that `as_json` wrote."""
        values = {field.name: document[field.name] for field in fields(cls)}
        for name in ("prompts", "losses"):
            values[name] = tuple((str(what), float(share)) for what, share in values[name])
        values["trains"] = tuple(values["trains"])
        return cls(**values)


_BTCV = (
    "A term project on SAM with the BTCV abdomen set: the mask decoder of ViT-H, SGD with momentum, Dice "
    "loss, a large batch, 50 epochs"
)

RECIPES: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            name="default",
            source="Chosen here, on the three cardiac volumes that the documents report it on: boxes and "
            "clicks together, cross-entropy and Dice, averaged weights",
            prompts=(
                ("bound_box", 0.2),
                ("jittered_box:0.1", 0.2),
                ("center_distance", 0.25),
                ("random_mask", 0.35),
            ),
            losses=(("cross_entropy", 1.0), ("dice", 1.0), ("iou", 1.0)),
            learning_rate=1e-3,
            weight_decay=0.02,
            epochs=20,
            slices_per_step=2,
            prompts_per_object=2,
            corrected=0.3,
            views=3,
            warm_up=0.1,
            falls=True,
            averaging=0.98,
        ),
        Recipe(
            name="btcv",
            source=_BTCV,
            prompts=(
                ("bound_box", 0.2),
                ("larger_box", 0.2),
                ("center_distance", 0.2),
                ("random_mask", 0.2),
                ("random_3", 0.2),
            ),
            losses=(("dice", 1.0),),
            optimiser="sgd",
            learning_rate=0.1,
            weight_decay=1e-4,
            slices_per_step=16,
        ),
        Recipe(
            name="sam",
            source="Kirillov et al., Segment Anything, ICCV 2023, appendix A: focal and Dice loss 20 : 1, "
            "mean squared error of the predicted IoU, AdamW, warm-up; learning rate 8e-5 for fine-tuning",
            prompts=(("bound_box", 0.25), ("jittered_box:0.1", 0.25), ("random_mask", 0.5)),
            losses=(("focal", 20.0), ("dice", 1.0), ("iou", 1.0)),
            learning_rate=8e-5,
            weight_decay=0.1,
            warm_up=0.05,
        ),
        Recipe(
            name="gentle",
            source="A study that fine-tuned SAM's mask decoder on MVTec AD: Adam with learning rate 1e-6, "
            "mean squared error",
            prompts=(("bound_box", 1.0),),
            losses=(("mse", 1.0),),
            optimiser="adam",
            learning_rate=1e-6,
            slices_per_step=1,
        ),
        Recipe(
            name="tumour",
            source="A study of prompts for SAM on brain tumours in MR: boxes, each side moved out by 0 to 19 "
            "pixels; its loss and optimiser are not stated, these are ours",
            prompts=(("random_margin_box:19", 1.0),),
            losses=(("dice", 1.0), ("cross_entropy", 1.0)),
            optimiser="adam",
            learning_rate=1e-5,
        ),
        Recipe(
            name="tumour-points",
            source="The same study with a random click instead of the box, tuned by itself",
            prompts=(("random_mask", 1.0),),
            losses=(("dice", 1.0), ("cross_entropy", 1.0)),
            optimiser="adam",
            learning_rate=1e-5,
        ),
    )
}
"""Presets by name. `btcv-class` trains a class head, see `class_head`."""


def named_recipe(name: str, **changes: Any) -> Recipe:
    """A preset, with some of its fields changed; those that are None stay.

    Raises
    ------
    ModelError
        On an unknown name, or a value that makes no sense.
    PromptError
        On a prompt strategy that there is not.
    """
    if name not in RECIPES:
        raise ModelError(f'There is no recipe "{name}"; use one of {", ".join(RECIPES)}.')
    given = {field: value for field, value in changes.items() if value is not None}
    recipe = replace(RECIPES[name], **given)
    for field, least in (("epochs", 1), ("slices_per_step", 1), ("prompts_per_object", 1), ("views", 0)):
        if getattr(recipe, field) < least:
            raise ModelError(
                f"{field} is at least {least}, got {getattr(recipe, field)}; give another number."
            )
    if not 0 < recipe.learning_rate < 10:
        raise ModelError(f"A learning rate lies between 0 and 10, got {recipe.learning_rate}; try 1e-4.")
    unknown = set(recipe.trains) - set(get_args(Part))
    if unknown:
        raise ModelError(f'There is no part "{min(unknown)}"; choose from {", ".join(get_args(Part))}.')
    parse_strategies([strategy for strategy, _ in recipe.prompts])
    return recipe
