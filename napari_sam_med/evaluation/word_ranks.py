"""At which rank the right object of a word is: for each organ of a labelled volume, by its name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from napari_sam_med.evaluation.object_recall import recall_of_objects

if TYPE_CHECKING:
    from napari_sam_med.segmentation.automatic.found_objects import FoundObject
    from napari_sam_med.segmentation.automatic.words import OrganChances
    from napari_sam_med.volume.labels import LabelVolume

__all__ = ["RIGHT_IOU", "WordRank", "inmost_voxel", "iou_with", "word_ranks"]

RIGHT_IOU = 0.5
"""From which an object is the organ; where none reaches it, the best one there is stands for it."""


@dataclass(frozen=True)
class WordRank:
    """One organ, asked for by its name.

    Attributes
    ----------
    organ : str
    objects : int
        That were ranked.
    best_iou : float
        Of the right object with the organ, in 3-D, 0..1.
    rank : int or None
        Of the right object, from 1; None where no object meets the organ.
    score : float or None
        Its probability.
    first_iou : float
        Of the object that the word puts first.
    first_score : float
        Its probability.
    """

    organ: str
    objects: int
    best_iou: float
    rank: int | None
    score: float | None
    first_iou: float
    first_score: float

    @property
    def is_there(self) -> bool:
        """Whether an object is the organ at all: no ranking can find what was not found before."""
        return self.best_iou >= RIGHT_IOU


def word_ranks(chances: OrganChances, labels: LabelVolume) -> list[WordRank]:
    """The rank of the right object of each organ that is there.

    Parameters
    ----------
    chances : OrganChances
        Of the objects among which the word chooses; at least one.
    labels : LabelVolume
        The truth, on the same grid; its names are the words.

    Returns
    -------
    list of WordRank
        Ascending by the number of the organ.

    Raises
    ------
    PromptError
        When the classifier does not know an organ.
    """
    rows = []
    for best in recall_of_objects(chances.objects, labels):
        ranked = chances.ranked(best.organ)
        places = {one.object.number: (place, one.score) for place, one in enumerate(ranked, start=1)}
        place, score = (None, None) if best.number is None else places[best.number]
        first_iou = iou_with(ranked[0].object, labels, best.class_id)
        rows.append(
            WordRank(best.organ, len(ranked), best.best_iou, place, score, first_iou, ranked[0].score)
        )
    return rows


def inmost_voxel(labels: LabelVolume, class_id: int) -> tuple[int, int, int]:
    """The voxel (z, y, x) of a class that is farthest from its border, in mm; where a person would click."""
    inside = np.pad(labels.data == class_id, 1)
    depth = ndimage.distance_transform_edt(inside, sampling=labels.grid.spacing_zyx)
    z, y, x = (int(index) - 1 for index in np.unravel_index(int(depth.argmax()), depth.shape))
    return z, y, x


def iou_with(found: FoundObject, labels: LabelVolume, class_id: int) -> float:
    """IoU of an object with a class of labels, in voxels."""
    both = sum(
        int(((view.window_on(labels.data)[mask.place] == class_id) & mask.pixels).sum())
        for view, mask in found
    )
    return both / (found.voxels + labels.voxel_count(class_id) - both)
