"""Prompts simulated on every labelled slice of a volume, answered by a model, and scored."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from napari_sam_med.evaluation.baselines import filled_box, inscribed_ellipse, tight_box
from napari_sam_med.evaluation.metrics import dice, iou
from napari_sam_med.evaluation.prompt_strategies import Dialogue, PromptTarget, Strategy
from napari_sam_med.progress import Progress
from napari_sam_med.sam.mask_prediction import MaskPrediction
from napari_sam_med.sam.predictor import ImageEmbedding
from napari_sam_med.sam.prompts import Prompts
from napari_sam_med.volume.intensity import to_rgb
from napari_sam_med.volume.labels import LabelVolume
from napari_sam_med.volume.slice_view import Plane, SliceView
from napari_sam_med.volume.volume import Volume

__all__ = [
    "BASELINES",
    "AskedSlice",
    "LabelledSlice",
    "MeasuredSlice",
    "Simulation",
    "SliceChoice",
    "SliceScore",
    "labelled_slices",
    "measure_baselines",
    "measure_model",
    "measure_slice",
    "organ_names",
]

Mask = npt.NDArray[np.bool_]

BASELINES = {"inscribed_ellipse": inscribed_ellipse, "filled_box": filled_box}
"""What the tangent box alone says, by name."""


class _Embeds(Protocol):
    """The part of `Predictor` that is needed here."""

    def embed(self, image: npt.ArrayLike, pixel_spacing: npt.ArrayLike = ...) -> ImageEmbedding: ...

    def predict_batch(
        self, embedding: ImageEmbedding, prompts: Sequence[Prompts]
    ) -> list[MaskPrediction]: ...


@dataclass(frozen=True)
class SliceChoice:
    """Which slices and organs are measured.

    Attributes
    ----------
    planes : tuple of {"axial", "coronal", "sagittal"}
    every : int
        Take only each so many-th slice, from slice 0.
    min_area : int
        Pixels that an organ must have on a slice.
    """

    planes: tuple[Plane, ...] = ("axial",)
    every: int = 1
    min_area: int = 1


@dataclass(frozen=True)
class Simulation:
    """What is asked of a model.

    Attributes
    ----------
    strategies : tuple of Strategy
        Those that share a dialogue (so many clicks of one series) are scored on one run of it.
    choice : SliceChoice
    seed : int
    """

    strategies: tuple[Strategy, ...]
    choice: SliceChoice = SliceChoice()
    seed: int = 0


@dataclass(frozen=True)
class SliceScore:
    """One answer to one organ on one slice.

    Attributes
    ----------
    volume : str
        Name of the case.
    organ, label
        Name and number.
    view : SliceView
    strategy, model : str
        Baselines have their name for a model, and no strategy.
    dice, iou : float
        Of the mask with the highest predicted IoU, against the label.
    dice_oracle : float or None
        Best of several masks; None where one is made.
    iou_prediction : float
        The model's own estimate; NaN for a baseline.
    area_px : int
        Pixels of the organ.
    seconds : float
        Time of decoding, a share of the batch's, of all turns so far; without the embedding.
    patient : str
        Whose scan it is: answers on one patient are not independent of each other.
    seed : int
        Of the simulation.
    nsd : float or None
        Normalised surface distance (surface Dice) at 2 mm, 0 to 1; None where it was not measured.
    hd95_mm : float or None
        95th percentile of the Hausdorff distance; None where the answer is empty, or it was not measured.
    iou_oracle : float or None
        As `dice_oracle`.
    dice_single, iou_single : float or None
        Of the model's single-mask output, where it answered with several masks.
    prompts : Prompts or None
        What was asked at last, without its mask prompt; None for a baseline.
    replies : int
        How many of the last clicks were replies to an answer, each asked with the logits of that answer.
    image : str
        The scan, as it was given.
    """

    volume: str
    organ: str
    label: int
    view: SliceView
    strategy: str
    model: str
    dice: float
    iou: float
    dice_oracle: float | None
    iou_prediction: float
    area_px: int
    seconds: float
    patient: str = ""
    seed: int = 0
    nsd: float | None = None
    hd95_mm: float | None = None
    iou_oracle: float | None = None
    dice_single: float | None = None
    iou_single: float | None = None
    prompts: Prompts | None = None
    replies: int = 0
    image: str = ""


@dataclass(frozen=True)
class LabelledSlice:
    """A slice and the numbers of the organs on it that are large enough."""

    view: SliceView
    label_ids: tuple[int, ...]

    def masks(self, labels: LabelVolume) -> dict[int, Mask]:
        """Masks (H, W) of the organs, by number."""
        image = self.view.extract(labels.data)
        return {label: image == label for label in self.label_ids}


@dataclass(frozen=True, eq=False)
class AskedSlice:
    """A slice whose organs are asked for.

    Attributes
    ----------
    volume : str
        Name of the case in the scores.
    view : SliceView
    masks : dict of int to array (H, W) bool
        By label number.
    names : dict of int to str
        Organ names by label number.
    """

    volume: str
    view: SliceView
    masks: Mapping[int, Mask]
    names: Mapping[int, str]


@dataclass(frozen=True)
class MeasuredSlice:
    """The scores of one slice, in the order of organs, then strategies."""

    progress: Progress
    scores: list[SliceScore]


def organ_names(labels: LabelVolume) -> dict[int, str]:
    """Name of each label that occurs; two labels of one name have their number added."""
    ids = labels.class_ids()
    names = [labels.organs.name_of(i) for i in ids]
    return {i: f"{name} ({i})" if names.count(name) > 1 else name for i, name in zip(ids, names, strict=True)}


def labelled_slices(labels: LabelVolume, choice: SliceChoice) -> list[LabelledSlice]:
    """The chosen slices that show at least one organ, in ascending order, plane by plane."""
    found = []
    for plane in choice.planes:
        for index in range(0, labels.shape[SliceView(plane, 0).axis], choice.every):
            view = SliceView(plane, index)
            areas = np.bincount(view.extract(labels.data).ravel())
            ids = tuple(int(i) for i in np.flatnonzero(areas >= max(1, choice.min_area)) if i)
            if ids:
                found.append(LabelledSlice(view, ids))
    return found


def measure_baselines(name: str, labels: LabelVolume, choice: SliceChoice) -> Iterator[SliceScore]:
    """Scores of the answers that need no model, from the tangent box of every organ.

    Parameters
    ----------
    name : str
        Name of the volume in the scores.
    labels : LabelVolume
    choice : SliceChoice
    """
    names = organ_names(labels)
    for labelled in labelled_slices(labels, choice):
        for label, mask in labelled.masks(labels).items():
            box, shape = tight_box(mask), (mask.shape[0], mask.shape[1])
            for baseline, answer in BASELINES.items():
                drawn = answer(box, shape)
                yield SliceScore(
                    volume=name,
                    organ=names[label],
                    label=label,
                    view=labelled.view,
                    strategy="",
                    model=baseline,
                    dice=dice(drawn, mask),
                    iou=iou(drawn, mask),
                    dice_oracle=None,
                    iou_prediction=float("nan"),
                    area_px=int(mask.sum()),
                    seconds=0.0,
                )


def measure_model(
    name: str,
    volume: Volume,
    labels: LabelVolume,
    predictor: _Embeds,
    simulation: Simulation,
    *,
    model: str = "",
) -> Iterator[MeasuredSlice]:
    """Scores of a model on every organ of every chosen slice, slice by slice.

    Each slice is embedded once, and all organs and strategies are answered together. What is drawn depends
    on the seed, the volume's name, the slice, the label and the dialogue alone: every model gets the same
    prompts, whatever else is measured.

    Parameters
    ----------
    name : str
        Name of the volume in the scores.
    volume, labels
        On one grid.
    predictor : Predictor
        That takes the prompts of all strategies.
    simulation : Simulation
    model : str
        Name of the model in the scores.
    """
    names = organ_names(labels)
    slices = labelled_slices(labels, simulation.choice)
    for done, labelled in enumerate(slices, start=1):
        view = labelled.view
        embedding = predictor.embed(to_rgb(volume, view), volume.pixel_spacing(view))
        asked = AskedSlice(name, view, labelled.masks(labels), names)
        scores = measure_slice(asked, embedding, predictor, simulation, model=model)
        yield MeasuredSlice(Progress(done, len(slices), name), scores)


def measure_slice(
    asked: AskedSlice,
    embedding: ImageEmbedding,
    predictor: _Embeds,
    simulation: Simulation,
    *,
    model: str = "",
) -> list[SliceScore]:
    """Scores of a model on every organ of one slice; the prompts are those of `measure_model`.

    Parameters
    ----------
    asked : AskedSlice
    embedding : ImageEmbedding
        Of the slice.
    predictor : Predictor
    simulation : Simulation
    model : str
        Name of the model in the scores.
    """
    talks = [
        _Talk(
            label,
            mask,
            scored,
            _generator(simulation.seed, asked.volume, asked.view, label, scored[0].dialogue),
        )
        for label, mask in asked.masks.items()
        for scored in _by_dialogue(simulation.strategies)
    ]
    _hold(talks, predictor, embedding)
    return [
        SliceScore(
            volume=asked.volume,
            organ=asked.names[talk.label],
            label=talk.label,
            view=asked.view,
            strategy=strategy.name,
            model=model,
            dice=dice(answer.best_mask, talk.mask),
            iou=iou(answer.best_mask, talk.mask),
            dice_oracle=_oracle(answer, talk.mask),
            iou_prediction=float(answer.iou_predictions.max()),
            area_px=int(talk.mask.sum()),
            seconds=seconds,
            seed=simulation.seed,
            prompts=asked_prompts,
            replies=replies,
        )
        for talk in talks
        for strategy, asked_prompts, answer, seconds, replies in talk.scored()
    ]


class _Talk:
    """One dialogue on one organ under way: what was asked last, and what was answered at each turn."""

    def __init__(
        self, label: int, mask: Mask, strategies: Sequence[Strategy], rng: np.random.Generator
    ) -> None:
        self.label = label
        self.mask = mask
        self.strategies = strategies
        self.dialogue = strategies[0].dialogue
        self.turns = max(strategy.turn for strategy in strategies)
        self.prompts: Prompts | None = self.dialogue.opening(PromptTarget(mask, label=label), rng)
        self.asked: list[Prompts] = []
        self.answers: list[tuple[MaskPrediction, float]] = []

    def take(self, answer: MaskPrediction, seconds: float) -> None:
        """Note an answer and what is said to it."""
        before = self.answers[-1][1] if self.answers else 0.0
        self.answers.append((answer, before + seconds))
        asked, reply = self.prompts, self.dialogue.reply
        self.prompts = None
        if asked is not None:
            self.asked.append(asked.replace(mask_input=None))
            if reply is not None and len(self.answers) < self.turns:
                self.prompts = reply(self.mask, asked, answer)

    def scored(self) -> Iterator[tuple[Strategy, Prompts, MaskPrediction, float, int]]:
        """What each strategy is scored on: its prompts, the answer to them, seconds and number of replies.

        The last answer where nothing was left to say.
        """
        for strategy in self.strategies:
            replies = min(strategy.turn, len(self.answers)) - 1
            yield strategy, self.asked[replies], *self.answers[replies], replies


def _hold(talks: Sequence[_Talk], predictor: _Embeds, embedding: ImageEmbedding) -> None:
    """Hold all dialogues of a slice at once, turn by turn."""
    while asking := [(talk, talk.prompts) for talk in talks if talk.prompts is not None]:
        start = time.perf_counter()
        answers = predictor.predict_batch(embedding, [prompts for _, prompts in asking])
        seconds = (time.perf_counter() - start) / len(asking)
        for (talk, _), answer in zip(asking, answers, strict=True):
            talk.take(answer, seconds)


def _by_dialogue(strategies: Sequence[Strategy]) -> list[list[Strategy]]:
    groups: dict[str, list[Strategy]] = {}
    for strategy in strategies:
        groups.setdefault(strategy.dialogue.name, []).append(strategy)
    return list(groups.values())


def _generator(seed: int, name: str, view: SliceView, label: int, dialogue: Dialogue) -> np.random.Generator:
    facts = repr((seed, name, view.plane, view.index, label, dialogue.name))
    return np.random.default_rng(list(hashlib.sha256(facts.encode()).digest()))


def _oracle(answer: MaskPrediction, mask: Mask) -> float | None:
    return max(dice(one, mask) for one in answer.masks) if len(answer.masks) > 1 else None
