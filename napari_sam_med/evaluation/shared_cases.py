"""An evaluation whose cases are shared out to workers; what they measure comes back, a case at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

from napari_sam_med.cluster.workers import Cluster
from napari_sam_med.evaluation.cases import Case, is_file_of_names
from napari_sam_med.evaluation.experiment_folder import EarlierRows
from napari_sam_med.evaluation.measuring import Simulation
from napari_sam_med.evaluation.running import Contestant, Step, evaluate
from napari_sam_med.progress import Progress
from napari_sam_med.sam.shared_model import SharedModel

__all__ = ["CaseShare", "evaluate_shared"]


@dataclass(frozen=True, eq=False)
class CaseShare:
    """A case for a worker to measure.

    Attributes
    ----------
    case : Case
    asked : tuple of (str, SharedModel, Simulation)
        Models by the names that results give them, and what is asked of each.
    known : EarlierRows
        Of the case, which are not measured again.
    """

    case: Case
    asked: tuple[tuple[str, SharedModel, Simulation], ...]
    known: EarlierRows


def evaluate_shared(cluster: Cluster, shares: Sequence[CaseShare], devices: set[str]) -> Iterator[Step]:
    """Measure cases on workers; the steps of a case come together, once it is finished.

    Parameters
    ----------
    cluster : Cluster
    shares : sequence of CaseShare
    devices : set of str
        What they were measured on is added.

    Yields
    ------
    Step
        As from `evaluate`, with the progress of the cases.

    Raises
    ------
    ClusterError
        When the scheduler is lost or a case ends its workers.
    PromptError, ImageError, LabelError, ModelError
        As from `evaluate`, and when a worker has another model.
    """
    tasks = (replace(share, case=_for_all_machines(share.case)) for share in shares)
    with closing(cluster.each(_measured, tasks)) as found:  # type: ignore[type-var]  # a generator
        for done, (number, (steps, where)) in enumerate(found, start=1):
            devices |= where
            progress = Progress(done, len(shares), "volumes")
            for step in steps:
                yield replace(step, case=shares[number].case, progress=progress)


def _measured(share: CaseShare) -> tuple[list[Step], set[str]]:
    """What a worker does: one case, to the end, and on which devices."""
    predictors = [model.load() for _, model, _ in share.asked]
    contestants = [
        Contestant(name, predictor, simulation)
        for (name, _, simulation), predictor in zip(share.asked, predictors, strict=True)
    ]
    steps = list(evaluate([share.case], contestants, share.known))
    return steps, {str(predictor.device) for predictor in predictors}


def _for_all_machines(case: Case) -> Case:
    """The case with absolute paths."""
    names = str(Path(case.names).absolute()) if is_file_of_names(case.names) else case.names
    return replace(
        case, image_path=case.image_path.absolute(), labels_path=case.labels_path.absolute(), names=names
    )
