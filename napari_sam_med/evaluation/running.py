"""A whole evaluation: cases by models by slices, as a job that yields what it has measured so far."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from napari_sam_med.evaluation.cases import Case, read_case
from napari_sam_med.evaluation.detector_boxes import boxes_of
from napari_sam_med.evaluation.measuring import (
    Embeds,
    LabelledSlice,
    Simulation,
    SliceScore,
    measure_baselines,
    measure_model,
)
from napari_sam_med.progress import Progress
from napari_sam_med.volume.slice_view import SliceView

__all__ = ["Contestant", "Step", "evaluate"]


@dataclass(frozen=True, eq=False)
class Contestant:
    """A model by the name that the results give it, and what is asked of it."""

    name: str
    predictor: Embeds
    simulation: Simulation


@dataclass(frozen=True)
class Step:
    """What an evaluation has just measured.

    Attributes
    ----------
    case : Case
    progress : Progress
        Slices of the present case and model.
    scores : list of SliceScore
        Of a model on one slice.
    baselines : list of SliceScore
        Of the whole case, in its first step.
    warnings : tuple of str
        What is odd about the files of the case, in its first step.
    model : str
        Name of the model; empty in the first step of a case.
    view : SliceView or None
        The slice; None in the first step of a case.
    is_new : bool
        False where the scores were known from an earlier run.
    summary : dict or None
        Of all scores: in the last step of `run_experiment`.
    """

    case: Case
    progress: Progress
    scores: list[SliceScore]
    baselines: list[SliceScore]
    warnings: tuple[str, ...] = ()
    model: str = ""
    view: SliceView | None = None
    is_new: bool = True
    summary: dict[str, Any] | None = None


Known = Callable[[Case, Contestant, LabelledSlice], list[SliceScore] | None]


def evaluate(
    cases: Sequence[Case], contestants: Sequence[Contestant], known: Known | None = None
) -> Iterator[Step]:
    """Measure models, slice by slice.

    Parameters
    ----------
    cases : sequence of Case
        Read one after the other.
    contestants : sequence of Contestant
        With one choice of slices; the baselines are measured on that of the first.
    known : callable, optional
        The scores of a slice that need not be measured again, or None.

    Yields
    ------
    Step

    Raises
    ------
    PromptError
        When the boxes of a detector cannot be those of a case.
    ImageError, LabelError
        When a case cannot be read; what was yielded so far is valid.
    """
    for number, case in enumerate(cases, start=1):
        volume, labels = read_case(case)
        for boxes in boxes_of(contestants[0].simulation.strategies).values():
            boxes.check(case.name, labels)
        choice = contestants[0].simulation.choice
        found = measure_baselines(case.name, labels, choice, volume.pixel_spacing)
        baselines = [_of_case(score, case) for score in found]
        warnings = tuple(f"{case.name}: {text}" for text in (*volume.warnings, *labels.warnings))
        yield Step(case, Progress(0, 0, f"volume {number} of {len(cases)}"), [], baselines, warnings)
        for one in contestants:
            text = f"{one.name}, volume {number} of {len(cases)}"
            for measured in measure_model(
                case.name,
                volume,
                labels,
                one.predictor,
                one.simulation,
                model=one.name,
                known=_of(case, one, known),
            ):
                yield Step(
                    case,
                    replace(measured.progress, text=text),
                    [_of_case(score, case) for score in measured.scores],
                    [],
                    model=one.name,
                    view=measured.view,
                    is_new=measured.is_new,
                )


def _of(
    case: Case, contestant: Contestant, known: Known | None
) -> Callable[[LabelledSlice], list[SliceScore] | None] | None:
    return None if known is None else lambda labelled: known(case, contestant, labelled)


def _of_case(score: SliceScore, case: Case) -> SliceScore:
    return replace(score, image=case.image, patient=case.patient or case.name)
