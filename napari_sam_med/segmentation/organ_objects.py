"""Which organ each label of a volume is: slices chosen, asked, and put together."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_sam_med.errors import LabelError
from napari_sam_med.progress import Progress
from napari_sam_med.segmentation.organ_classifier import OrganClassifier, check_model
from napari_sam_med.segmentation.organ_features import GEOMETRY, ScanFrame, SliceObjects
from napari_sam_med.segmentation.organ_vote import assign_once, put_on_own_side, vote
from napari_sam_med.volume.slice_view import SliceView

if TYPE_CHECKING:
    from napari_sam_med.sam.embedding_store import EmbeddingStore
    from napari_sam_med.sam.predictor import Predictor
    from napari_sam_med.volume.labels import LabelVolume
    from napari_sam_med.volume.volume import Volume

__all__ = ["OrganGuess", "SliceVotes", "classify_labels", "decide", "mask_votes", "slice_votes"]

SLICES_PER_OBJECT = 16
_CENTRE_X = GEOMETRY.index("centre_x")


@dataclass(frozen=True)
class OrganGuess:
    """What an object is taken for.

    Attributes
    ----------
    name : str
        Best guess, spelt as in the organ table, or ``other``.
    probability : float
        Of that guess, 0..1.
    abstained : bool
        Whether that is too little to rely on.
    """

    name: str
    probability: float
    abstained: bool

    def to_json(self) -> dict[str, Any]:
        """``organ`` and ``abstained`` as the commands write them."""
        return {
            "organ": {"name": self.name, "probability": round(self.probability, 4)},
            "abstained": self.abstained,
        }


@dataclass(frozen=True, eq=False)
class SliceVotes:
    """What the slices of one object say: ``log_probabilities`` (n, C), ``areas`` in mm2, ``qualities`` and
    ``centres_x`` (n,), 0 at the body's right border.
    """

    log_probabilities: npt.NDArray[np.float64]
    areas: npt.NDArray[np.float64]
    qualities: npt.NDArray[np.float64]
    centres_x: npt.NDArray[np.float64]

    @property
    def centre_x(self) -> float:
        """Mean over the slices, weighted by area."""
        return float(np.average(self.centres_x, weights=self.areas))


def classify_labels(
    volume: Volume,
    labels: LabelVolume,
    predictor: Predictor,
    classifier: OrganClassifier,
    *,
    each_once: bool = True,
    on_progress: Callable[[Progress], None] | None = None,
) -> dict[int, OrganGuess]:
    """Organ of each label present; its number and name play no part.

    Parameters
    ----------
    volume : Volume
    labels : LabelVolume
        On the same grid.
    predictor : Predictor
        The model that the classifier was trained on.
    classifier : OrganClassifier
    each_once : bool
        No organ is given to two labels.
    on_progress : callable, optional
        Called after each slice.

    Raises
    ------
    LabelError
        When no label is there.
    ModelError
        When the classifier was trained on another model.
    """
    votes = slice_votes(volume, labels, predictor, classifier, on_progress=on_progress)
    return decide(votes, classifier, each_once=each_once)


def slice_votes(
    volume: Volume,
    labels: LabelVolume,
    predictor: Predictor,
    classifier: OrganClassifier,
    *,
    on_progress: Callable[[Progress], None] | None = None,
) -> dict[int, SliceVotes]:
    """What up to 16 axial slices of each label say; parameters and errors as in `classify_labels`."""
    present: dict[int, list[int]] = defaultdict(list)
    for z in range(labels.shape[0]):
        for number in np.unique(labels.data[z]).tolist():
            if number:
                present[number].append(z)

    def masks_on(view: SliceView, numbers: Sequence[int]) -> npt.NDArray[np.bool_]:
        here = view.extract(labels.data)
        return np.stack([here == number for number in numbers])

    if not present:
        raise LabelError("The label volume is empty; give one with at least one label.")
    return mask_votes(volume, present, masks_on, predictor, classifier, on_progress=on_progress)


def mask_votes(
    volume: Volume,
    present: Mapping[int, Sequence[int]],
    masks_on: Callable[[SliceView, Sequence[int]], npt.NDArray[np.bool_]],
    predictor: Predictor,
    classifier: OrganClassifier,
    *,
    store: EmbeddingStore | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> dict[int, SliceVotes]:
    """What up to 16 axial slices of each object say; objects may overlap.

    Parameters
    ----------
    volume, predictor, classifier, on_progress
        As in `classify_labels`.
    present : mapping
        Number of an object to the axial slices that show it, ascending.
    masks_on : callable
        Given an axial slice and numbers of objects on it, their masks (N, H, W), none empty.
    store : EmbeddingStore, optional
        Where embeddings of slices may lie already.

    Raises
    ------
    ModelError
        When the classifier was trained on another model.
    """
    check_model(classifier.facts, predictor.record.name, predictor.model_hash)
    chosen, frame = _chosen_slices(present), ScanFrame.of(volume)
    rows: dict[int, list[tuple[npt.NDArray[np.float64], float, float, float]]] = defaultdict(list)
    for done, (z, numbers) in enumerate(chosen.items(), start=1):
        view = SliceView("axial", z)
        objects = SliceObjects(volume, frame, view, masks_on(view, numbers), predictor, store)
        said = classifier.log_probabilities(objects)
        for row, number in enumerate(numbers):
            facts = (objects.areas_mm2[row], objects.qualities[row], objects.geometry[row, _CENTRE_X])
            rows[number].append((said[row], *(float(fact) for fact in facts)))
        if on_progress is not None:
            on_progress(Progress(done, len(chosen), f"slice {z}"))
    return {
        number: SliceVotes(*(np.array(column) for column in zip(*rows[number], strict=True)))
        for number in sorted(rows)
    }


def decide(
    votes: Mapping[int, SliceVotes], classifier: OrganClassifier, *, each_once: bool = True
) -> dict[int, OrganGuess]:
    """Organs from what the slices say."""
    facts = classifier.facts
    table = np.array(
        [
            put_on_own_side(
                vote(one.log_probabilities, one.areas, one.qualities, rho=facts.rho),
                facts.organs,
                one.centre_x,
            )
            for one in votes.values()
        ]
    )
    classes = assign_once(table, facts.organs) if each_once else table.argmax(axis=1).tolist()
    found = {}
    for number, row, index in zip(votes, table, classes, strict=True):
        probability = float(np.exp(row[index]))
        found[number] = OrganGuess(facts.organs[index], probability, probability < facts.threshold)
    return found


def _chosen_slices(present: Mapping[int, Sequence[int]]) -> dict[int, list[int]]:
    """Objects to ask on each axial slice: of each evenly spaced ones, shared if possible."""
    chosen: dict[int, list[int]] = defaultdict(list)
    for number, slices in sorted(present.items()):
        step = max(1, -(-len(slices) // SLICES_PER_OBJECT))
        shared = [z for z in slices if z % step == 0]
        for z in shared or [slices[len(slices) // 2]]:
            chosen[z].append(number)
    return dict(sorted(chosen.items()))
