"""Prompts simulated on every labelled slice of a volume, answered by a model, and scored."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from napari_sam_med.evaluation.baselines import filled_box, inscribed_ellipse, tight_box
from napari_sam_med.evaluation.dialogue_runs import Answers, Talk, hold
from napari_sam_med.evaluation.prompt_strategies import Dialogue, PromptTarget, Strategy
from napari_sam_med.evaluation.slice_scores import SliceScore, TrueMask
from napari_sam_med.progress import Progress
from napari_sam_med.sam.image_embedding import ImageEmbedding
from napari_sam_med.segmentation.body import BodyBox
from napari_sam_med.volume.intensity import to_rgb
from napari_sam_med.volume.labels import LabelVolume
from napari_sam_med.volume.slice_view import Plane, SliceView
from napari_sam_med.volume.volume import Volume

__all__ = [
    "BASELINES",
    "AskedSlice",
    "Encoder",
    "LabelledSlice",
    "MeasuredSlice",
    "Simulation",
    "SliceChoice",
    "SliceScore",
    "chosen_organs",
    "embed_labelled",
    "labelled_slices",
    "measure_baselines",
    "measure_model",
    "measure_slice",
    "organ_names",
]

Mask = npt.NDArray[np.bool_]

BASELINES = {"inscribed_ellipse": inscribed_ellipse, "filled_box": filled_box}
"""What the tangent box alone says, by name."""


class Encoder(Protocol):
    """The part of `Predictor` that embeds."""

    def embed(
        self,
        image: npt.ArrayLike,
        pixel_spacing: npt.ArrayLike = ...,
        crop_xyxy: npt.ArrayLike | None = ...,
    ) -> ImageEmbedding: ...


class Embeds(Answers, Encoder, Protocol):
    """The part of `Predictor` that is needed here."""


@dataclass(frozen=True)
class SliceChoice:
    """Which slices and organs are measured, and what of a slice the models see.

    Attributes
    ----------
    planes : tuple of {"axial", "coronal", "sagittal"}
    every : int
        Take only each so many-th slice, from slice 0.
    min_area : int
        Pixels that an organ must have on a slice.
    most : int
        At most so many slices of a volume and plane, spread evenly over those that show an organ; 0 for all.
    organs : tuple of str
        Names (in any case) or numbers of the organs; empty for all.
    crop_to_body : bool
        Show the models the box of the body alone; whole slices where labels lie outside it.
    """

    planes: tuple[Plane, ...] = ("axial",)
    every: int = 1
    min_area: int = 1
    most: int = 0
    organs: tuple[str, ...] = ()
    crop_to_body: bool = False


@dataclass(frozen=True)
class Simulation:
    """What is asked of a model.

    Attributes
    ----------
    strategies : tuple of Strategy
        Those that share a dialogue (so many clicks of one series) are scored on one run of it.
    choice : SliceChoice
    seed : int
    more_seeds : tuple of int
        Of which the same is asked once more each.
    """

    strategies: tuple[Strategy, ...]
    choice: SliceChoice = SliceChoice()
    seed: int = 0
    more_seeds: tuple[int, ...] = ()

    @property
    def seeds(self) -> tuple[int, ...]:
        """All seeds."""
        return (self.seed, *self.more_seeds)


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
    pixels : array (H, W, 3) uint8, optional
        The slice as the model sees it, for strategies that look at its grey values.
    pixel_spacing : (row, column), optional
        Millimetres; without them outlines are not measured.
    """

    volume: str
    view: SliceView
    masks: Mapping[int, Mask]
    names: Mapping[int, str]
    pixels: npt.NDArray[np.uint8] | None = None
    pixel_spacing: tuple[float, float] | None = None


@dataclass(frozen=True)
class MeasuredSlice:
    """The scores of one slice, in the order of organs, then seeds, then strategies."""

    progress: Progress
    scores: list[SliceScore]
    view: SliceView
    is_new: bool = True
    """Whether it was measured now, and not known already."""


Known = Callable[[LabelledSlice], list[SliceScore] | None]


def organ_names(labels: LabelVolume) -> dict[int, str]:
    """Name of each label that occurs; two labels of one name have their number added."""
    ids = labels.class_ids()
    names = [labels.organs.name_of(i) for i in ids]
    return {i: f"{name} ({i})" if names.count(name) > 1 else name for i, name in zip(ids, names, strict=True)}


def chosen_organs(labels: LabelVolume, organs: Collection[str]) -> set[int]:
    """Numbers of the labels of these names (in any case) or numbers; of all labels where none is given."""
    wanted = {organ.strip().casefold() for organ in organs}
    return {
        number
        for number, name in organ_names(labels).items()
        if not wanted or wanted & {str(number), name.casefold(), labels.organs.name_of(number).casefold()}
    }


def labelled_slices(labels: LabelVolume, choice: SliceChoice) -> list[LabelledSlice]:
    """The chosen slices that show at least one organ, in ascending order, plane by plane."""
    organs = chosen_organs(labels, choice.organs) if choice.organs else None
    found: list[LabelledSlice] = []
    for plane in choice.planes:
        in_plane = []
        for index in range(0, labels.shape[SliceView(plane, 0).axis], choice.every):
            view = SliceView(plane, index)
            areas = np.bincount(view.extract(labels.data).ravel())
            large = (int(i) for i in np.flatnonzero(areas >= max(1, choice.min_area)) if i)
            ids = tuple(i for i in large if organs is None or i in organs)
            if ids:
                in_plane.append(LabelledSlice(view, ids))
        if choice.most and len(in_plane) > choice.most:
            # the middle of as many equal parts
            parts = (np.arange(choice.most) + 0.5) * len(in_plane) / choice.most
            in_plane = [in_plane[int(i)] for i in parts]
        found += in_plane
    return found


def measure_baselines(
    name: str,
    labels: LabelVolume,
    choice: SliceChoice,
    spacing_of: Callable[[SliceView], tuple[float, float]] | None = None,
) -> Iterator[SliceScore]:
    """Scores of the answers that need no model, from the tangent box of every organ.

    Parameters
    ----------
    name : str
        Name of the volume in the scores.
    labels : LabelVolume
    choice : SliceChoice
    spacing_of : callable, optional
        (row, column) millimetres of a slice; without it outlines are not measured.
    """
    names = organ_names(labels)
    for labelled in labelled_slices(labels, choice):
        spacing = None if spacing_of is None else spacing_of(labelled.view)
        for label, mask in labelled.masks(labels).items():
            truth = TrueMask(mask, spacing)
            box, shape = tight_box(mask), (mask.shape[0], mask.shape[1])
            for baseline, answer in BASELINES.items():
                yield SliceScore(
                    volume=name,
                    organ=names[label],
                    label=label,
                    view=labelled.view,
                    strategy="",
                    model=baseline,
                    area_px=truth.area_px,
                    seconds=0.0,
                    **asdict(truth.measure_mask(answer(box, shape))),
                )


def measure_model(
    name: str,
    volume: Volume,
    labels: LabelVolume,
    predictor: Embeds,
    simulation: Simulation,
    *,
    model: str = "",
    known: Known | None = None,
) -> Iterator[MeasuredSlice]:
    """Scores of a model on every organ of every chosen slice, slice by slice.

    Each slice is embedded once, and all organs, seeds and strategies are answered together. What is drawn
    depends on the seed, the volume's name, the slice, the label and the dialogue alone: every model gets the
    same prompts, whatever else is measured.

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
    known : callable, optional
        The scores of a slice that need not be measured again, or None.
    """
    names = organ_names(labels)
    slices = labelled_slices(labels, simulation.choice)
    crop = BodyBox.of(volume) if simulation.choice.crop_to_body else None
    for done, labelled in enumerate(slices, start=1):
        view, progress = labelled.view, Progress(done, len(slices), name)
        scores = None if known is None else known(labelled)
        if scores is not None:
            yield MeasuredSlice(progress, scores, view, is_new=False)
            continue
        pixels, spacing = to_rgb(volume, view), volume.pixel_spacing(view)
        embedding = embed_labelled(volume, labels, view, predictor, crop)
        asked = AskedSlice(name, view, labelled.masks(labels), names, pixels, spacing)
        yield MeasuredSlice(
            progress, measure_slice(asked, embedding, predictor, simulation, model=model), view
        )


def embed_labelled(
    volume: Volume, labels: LabelVolume, view: SliceView, predictor: Encoder, crop: BodyBox | None
) -> ImageEmbedding:
    """Embedding of a slice; of the crop alone where there is one that holds all labels on the slice."""
    image, spacing = to_rgb(volume, view), volume.pixel_spacing(view)
    part = None if crop is None else crop.on(view)
    if crop is None or part is None or not crop.holds(view, mask=view.window_on(labels.data) > 0):
        return predictor.embed(image, spacing)
    return predictor.embed(image, spacing, part)


def measure_slice(
    asked: AskedSlice,
    embedding: ImageEmbedding,
    predictor: Answers,
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
    talks = list(_talks(asked, simulation))
    hold(talks, predictor, embedding)
    return [
        SliceScore(
            volume=asked.volume,
            organ=talk.target.organ,
            label=talk.target.label,
            view=asked.view,
            strategy=strategy.name,
            model=model,
            area_px=talk.truth.area_px,
            seconds=turn.seconds,
            seed=talk.seed,
            prompts=turn.prompts,
            replies=replies,
            **asdict(turn.measures),
        )
        for talk in talks
        for strategy, turn, replies in talk.scored()
    ]


def _talks(asked: AskedSlice, simulation: Simulation) -> Iterator[Talk]:
    for label, mask in asked.masks.items():
        target = PromptTarget(mask, asked.pixels, asked.volume, asked.view, label, asked.names[label])
        truth = TrueMask(mask, asked.pixel_spacing)
        for seed in simulation.seeds:
            for scored in _by_dialogue(simulation.strategies):
                rng = _generator(seed, asked.volume, asked.view, label, scored[0].dialogue)
                yield Talk(target, truth, scored, seed, rng)


def _by_dialogue(strategies: Sequence[Strategy]) -> list[list[Strategy]]:
    groups: dict[str, list[Strategy]] = {}
    for strategy in strategies:
        groups.setdefault(strategy.dialogue.name, []).append(strategy)
    return list(groups.values())


def _generator(seed: int, name: str, view: SliceView, label: int, dialogue: Dialogue) -> np.random.Generator:
    facts = repr((seed, name, view.plane, view.index, label, dialogue.name))
    return np.random.default_rng(list(hashlib.sha256(facts.encode()).digest()))
