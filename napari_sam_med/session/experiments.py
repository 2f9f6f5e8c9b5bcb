"""The prompt laboratory of one viewer: what is to be measured, what was, and which answer is looked at.

The work itself is done by the jobs of `experiment_jobs`. Nothing here loads torch: it is made on the main
thread.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt
from psygnal import Signal, SignalGroupDescriptor

from napari_sam_med.errors import ImageError, LabelError, ModelError, PromptError
from napari_sam_med.evaluation.report import interval_of
from napari_sam_med.volume.labels import LabelVolume
from napari_sam_med.volume.slice_view import Plane, SliceView
from napari_sam_med.volume.volume import Volume

if TYPE_CHECKING:
    from napari_sam_med.evaluation.measuring import LabelledSlice, SliceScore
    from napari_sam_med.evaluation.prompt_strategies import Strategy
    from napari_sam_med.sam.prompts import Prompts

__all__ = [
    "NO_ORGAN",
    "Choice",
    "Laboratory",
    "MeanRow",
    "Means",
    "Shown",
    "Sight",
    "Source",
    "Survey",
    "case_name",
    "mean_dice",
    "mean_rows",
    "named_models",
]


NO_ORGAN = frozenset({-1})
"""In the place of organs where none is chosen: no label has this number."""


@dataclass(frozen=True, eq=False)
class Source:
    """A scan and labels on its grid that are taken for the truth."""

    volume: Volume
    labels: LabelVolume


@dataclass(frozen=True)
class Choice:
    """What is to be measured.

    Attributes
    ----------
    organs : frozenset of int
        Numbers of the labels; empty: all.
    strategies : tuple of str
        As `parse_strategies` takes them.
    models : tuple of str
        Names, or paths of checkpoints or of folders of own models.
    planes : tuple of {"axial", "coronal", "sagittal"}
    slices : int
        How many of each plane, spread evenly over those that show a chosen organ; 0: all.
    min_area : int
        Pixels that an organ must have on a slice.
    seed : int
    protocol : str
        Name of the published comparison that the strategies are of; empty for none.
    """

    organs: frozenset[int] = frozenset()
    strategies: tuple[str, ...] = ("bound_box", "center_distance")
    models: tuple[str, ...] = ("nano",)
    planes: tuple[Plane, ...] = ("axial",)
    slices: int = 10
    min_area: int = 20
    seed: int = 0
    protocol: str = ""

    def check(self) -> None:
        """Refuse what measures nothing.

        Raises
        ------
        LabelError, PromptError, ModelError, ImageError
        """
        if self.organs == NO_ORGAN:
            raise LabelError("No organ is ticked, so there is nothing to find; tick at least one.")
        if not self.strategies:
            raise PromptError("No prompt strategy is ticked, so nothing would be asked; tick at least one.")
        if not self.models:
            raise ModelError("No model is ticked, so nobody would answer; tick at least one.")
        if not self.planes:
            raise ImageError("No plane is chosen, so there are no slices; choose at least one.")

    def facts(self, names: Mapping[int, str]) -> dict[str, Any]:
        """How it is measured, with the names of organs, as ``summary.json`` says it."""
        return {
            "planes": list(self.planes),
            "every": 1,
            "min_area": self.min_area,
            "most_slices": self.slices,
            "organs": [names.get(label, str(label)) for label in sorted(self.organs)],
            "strategies": list(self.strategies),
            "seed": self.seed,
            "protocol": self.protocol,
        }


@dataclass(frozen=True, eq=False)
class Survey:
    """Which organs the labels show on which slices.

    Attributes
    ----------
    names : dict of int to str
        Names of the organs by number, in their order.
    slices : tuple of LabelledSlice
        All slices of some planes on which an organ is large enough.
    """

    names: Mapping[int, str]
    slices: tuple[LabelledSlice, ...]

    def slice_counts(self) -> dict[int, int]:
        """On how many slices each organ is."""
        counts = dict.fromkeys(self.names, 0)
        for labelled in self.slices:
            for label in labelled.label_ids:
                counts[label] += 1
        return counts

    def spread(self, choice: Choice) -> list[LabelledSlice]:
        """The slices that are measured, each with the chosen organs only.

        Of each plane as many as wanted, evenly spread over those that show a chosen organ.
        """
        found: list[LabelledSlice] = []
        for plane in choice.planes:
            fitting = []
            for labelled in self.slices:
                ids = tuple(i for i in labelled.label_ids if not choice.organs or i in choice.organs)
                if labelled.view.plane == plane and ids:
                    fitting.append(replace(labelled, label_ids=ids))
            if 0 < choice.slices < len(fitting):
                # as `labelled_slices` does
                parts = (np.arange(choice.slices) + 0.5) * len(fitting) / choice.slices
                fitting = [fitting[int(part)] for part in parts]
            found += fitting
        return found

    def count(self, choice: Choice, strategies: Sequence[Strategy]) -> tuple[int, int, int]:
        """Slices, answers that are scored, and prompts that are put, all turns of dialogues counted."""
        slices = self.spread(choice)
        objects = sum(len(labelled.label_ids) for labelled in slices)
        turns: dict[str, int] = {}
        for strategy in strategies:
            turns[strategy.dialogue.name] = max(turns.get(strategy.dialogue.name, 0), strategy.turn)
        models = len(choice.models)
        return len(slices), objects * len(strategies) * models, objects * sum(turns.values()) * models


@dataclass(frozen=True)
class MeanRow:
    """Means of one strategy and model, or of a baseline, which has no strategy.

    Attributes
    ----------
    dice, iou, nsd, hd95_mm : float or None
        None where it was not measured.
    low, high : float or None
        95 % interval of the Dice.
    over : str
        What the interval is over: ``patients`` or ``slices``.
    count : int
        Answers.
    """

    strategy: str
    model: str
    dice: float | None
    iou: float | None
    nsd: float | None
    hd95_mm: float | None
    low: float | None
    high: float | None
    over: str
    count: int


@dataclass(frozen=True, eq=False)
class Means:
    """What results come to.

    Attributes
    ----------
    summary : dict
        As `summarised` makes it.
    rows : tuple of MeanRow
    study : dict or None
        What a published comparison says beside them, as `protocol_facts` gives it.
    """

    summary: Mapping[str, Any]
    rows: tuple[MeanRow, ...] = ()
    study: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Shown:
    """Which answers the list and the plots show; empty: all."""

    strategy: str = ""
    model: str = ""
    organ: str = ""

    def takes(self, score: SliceScore) -> bool:
        """Whether an answer is among them."""
        return (
            self.strategy in ("", score.strategy)
            and self.model in ("", score.model)
            and self.organ in ("", score.organ)
        )


@dataclass(frozen=True, eq=False)
class Sight:
    """One answer to be looked at.

    Attributes
    ----------
    score : SliceScore
    volume : Volume
    truth : array (H, W) bool
    prediction : array (H, W) bool or None
        None while the model has not answered, or cannot.
    is_changed : bool
        Whether that is another answer than was measured: the model, the scan or the labels have changed.
    labelled : array (H, W) bool or None
        All labels of the slice, where the models were shown the box of the body: if it holds them.
    """

    score: SliceScore
    volume: Volume
    truth: npt.NDArray[np.bool_]
    prediction: npt.NDArray[np.bool_] | None = None
    is_changed: bool = False
    labelled: npt.NDArray[np.bool_] | None = None

    @property
    def view(self) -> SliceView:
        """The slice."""
        return self.score.view

    @property
    def prompts(self) -> Prompts | None:
        """What was asked."""
        return self.score.prompts


@dataclass(eq=False)
class Laboratory:
    """What is measured in one viewer; every field announces its replacement through ``events``.

    Attributes
    ----------
    source : Source or None
        The scan and labels of the results; the labels are a copy, as painting goes on. None for results that
        were opened from a folder.
    survey : Survey or None
        Of the chosen labels; None while they are being looked through.
    choice : Choice
    means : Means or None
        Of the results so far; None while there are none.
    shown : Shown
    chosen : SliceScore or None
        The answer that is looked at.
    sight : Sight or None
        It, ready to be drawn.
    """

    events: ClassVar[SignalGroupDescriptor] = SignalGroupDescriptor()
    #: answers that were added at the end
    added: ClassVar[Signal] = Signal(list)
    #: the answers were replaced
    replaced: ClassVar[Signal] = Signal()

    source: Source | None = None
    survey: Survey | None = None
    choice: Choice = field(default_factory=Choice)
    means: Means | None = None
    shown: Shown = Shown()
    chosen: SliceScore | None = None
    sight: Sight | None = None

    def __post_init__(self) -> None:
        self.scores: list[SliceScore] = []
        self.baselines: list[SliceScore] = []
        self.run: dict[str, Any] = {}
        """How the results were measured, for people."""
        self.models: dict[str, str] = {}
        """What to load a model by, by the name that the results give it."""
        self.warnings: list[str] = []
        """What is to be known of the results."""

    def start(
        self,
        source: Source | None,
        models: Mapping[str, str],
        run: Mapping[str, Any],
        warnings: Sequence[str] = (),
    ) -> None:
        """Begin with no results."""
        self.run, self.warnings = dict(run), list(warnings)
        self.sight = self.chosen = None
        self.shown = Shown()
        self.scores, self.baselines, self.models = [], [], dict(models)
        self.means = None
        self.source = source
        self.replaced.emit()

    def let_go(self) -> None:
        """Keep nothing, and tell nobody: those who would listen are going."""
        for listened in (self.added, self.replaced, *self.events.signals.values()):
            listened.disconnect()
        self.start(None, {}, {})
        self.survey = None

    def add(self, scores: Sequence[SliceScore], baselines: Sequence[SliceScore] = ()) -> None:
        """Take answers on."""
        self.scores += scores
        self.baselines += baselines
        if scores:
            self.added.emit(list(scores))

    def shown_scores(self, *, of_all_strategies: bool = False) -> list[SliceScore]:
        """The answers that the list and the plots show.

        Parameters
        ----------
        of_all_strategies : bool
            Whichever strategy is chosen; the organ and the model still count.

        Returns
        -------
        list of SliceScore
        """
        shown = replace(self.shown, strategy="") if of_all_strategies else self.shown
        return [score for score in self.scores if shown.takes(score)]

    def choices(self) -> tuple[list[str], list[str], list[str]]:
        """Strategies, models and organs that occur, in the order in which they came."""
        return (
            list(dict.fromkeys(score.strategy for score in self.scores)),
            list(dict.fromkeys(score.model for score in self.scores)),
            list(dict.fromkeys(score.organ for score in self.scores)),
        )

    def look_at(self, score: SliceScore, source: Source) -> Sight:
        """Have an answer drawn, at first without its mask.

        Raises
        ------
        ImageError, LabelError
            When it is on another scan, or on other labels.
        """
        self.check_is_of(score, source)
        labels = score.view.extract(source.labels.data)
        labelled = labels > 0 if self.run.get("crop_to_body") else None
        self.chosen = score
        self.sight = Sight(score, source.volume, labels == score.label, labelled=labelled)
        return self.sight

    @staticmethod
    def check_is_of(score: SliceScore, source: Source) -> None:
        """Refuse to look at an answer on another scan.

        Raises
        ------
        ImageError, LabelError
        """
        known = {source.volume.name, case_name(source.volume)}
        if source.volume.path is not None:
            known |= {source.volume.path.name, str(source.volume.path)}
        if not known & {score.volume, score.image, Path(score.image).name}:
            raise ImageError(
                f'That answer is on the scan "{score.volume}", but the chosen image is '
                f'"{source.volume.name}"; open that scan and choose it, with its labels, under "Set up".'
            )
        if score.view.index >= source.volume.shape[score.view.axis]:
            raise ImageError(
                f'That answer is on {score.view.plane} slice {score.view.index}, but "{source.volume.name}" '
                f"has {source.volume.shape[score.view.axis]}; choose the scan that was measured."
            )
        if not (score.view.extract(source.labels.data) == score.label).any():
            raise LabelError(
                f"The chosen labels show no {score.organ} ({score.label}) on {score.view.plane} slice "
                f"{score.view.index}; choose the labels that were measured."
            )


def case_name(volume: Volume) -> str:
    """What the results call a scan."""
    return volume.name if volume.path is None else volume.path.name


def named_models(models: Sequence[str]) -> dict[str, str]:
    """Models by what the results call them: of a path the last part where that is enough."""
    short = [Path(model).stem if Path(model).is_file() else Path(model).name for model in models]
    return {
        name if short.count(name) == 1 else model: model for model, name in zip(models, short, strict=True)
    }


def mean_dice(scores: Sequence[SliceScore]) -> float:
    """Mean Dice as the table of means has it: over slices, then organs, then scans."""
    scans: dict[str, dict[str, list[float]]] = {}
    for score in scores:
        scans.setdefault(score.volume, {}).setdefault(score.organ, []).append(score.dice)
    return float(np.mean([np.mean([np.mean(own) for own in organs.values()]) for organs in scans.values()]))


def mean_rows(
    summary: Mapping[str, Any], spans: Mapping[tuple[str, str], tuple[float, float] | None]
) -> list[MeanRow]:
    """The means of a summary, baselines last.

    Parameters
    ----------
    summary : dict
        As `summarised` makes it.
    spans : dict of (str, str) to (float, float)
        Intervals over slices by strategy and model, where there is none over patients.
    """
    found = [
        (strategy, model, means)
        for model, strategies in summary["models"].items()
        for strategy, means in strategies.items()
    ]
    found += [("", name, means) for name, means in summary["baselines"].items()]
    return [_mean_row(*one, spans.get(one[:2])) for one in found]


def _mean_row(
    strategy: str, model: str, means: Mapping[str, Any], span: tuple[float, float] | None
) -> MeanRow:
    over_patients = interval_of(means, "mdice_volumes")
    low, high = over_patients or span or (None, None)
    return MeanRow(
        strategy,
        model,
        dice=means["mdice_volumes"],
        iou=means["miou_volumes"],
        nsd=means.get("mnsd_volumes"),
        hd95_mm=means.get("mhd95_mm_volumes"),
        low=low,
        high=high,
        over="slices" if over_patients is None else "patients",
        count=int(means["slices"]),
    )
