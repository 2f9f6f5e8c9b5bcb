"""Objects that were found, named by the organ classifier; they may overlap and lie in any plane."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from napari_sam_med.progress import Progress
from napari_sam_med.segmentation.automatic.found_objects import FoundMask, FoundObject
from napari_sam_med.segmentation.organ_objects import SliceVotes, decide, mask_votes
from napari_sam_med.volume.slice_view import SliceView

if TYPE_CHECKING:
    from napari_sam_med.sam.embedding_store import EmbeddingStore
    from napari_sam_med.sam.predictor import Predictor
    from napari_sam_med.segmentation.organ_classifier import OrganClassifier
    from napari_sam_med.volume.volume import Volume

__all__ = ["axial_masks", "name_objects", "object_votes"]


def name_objects(
    objects: Iterable[FoundObject],
    volume: Volume,
    predictor: Predictor,
    classifier: OrganClassifier,
    *,
    each_once: bool = False,
    store: EmbeddingStore | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> list[FoundObject]:
    """The objects with what the classifier takes each of them for; none is dropped.

    Parameters
    ----------
    objects : iterable of FoundObject
    volume : Volume
    predictor : Predictor
        The model that the classifier was trained on; it need not be the one that found the objects.
    classifier : OrganClassifier
    each_once : bool
        No organ is given to two objects; the others are ``other``.
    store : EmbeddingStore, optional
    on_progress : callable, optional
        Called after each slice.

    Raises
    ------
    ModelError
        When the classifier was trained on another model.
    """
    ranked = list(objects)
    votes = object_votes(ranked, volume, predictor, classifier, store=store, on_progress=on_progress)
    if not votes:
        return ranked
    guesses = decide(votes, classifier, each_once=each_once)
    return [one.with_organ(guesses.get(one.number)) for one in ranked]


def object_votes(
    objects: Sequence[FoundObject],
    volume: Volume,
    predictor: Predictor,
    classifier: OrganClassifier,
    *,
    store: EmbeddingStore | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> dict[int, SliceVotes]:
    """What the slices of each object say, by the object's number; parameters as in `name_objects`."""
    masks = {one.number: axial_masks(one, volume.shape) for one in objects}

    def masks_on(view: SliceView, numbers: Sequence[int]) -> npt.NDArray[np.bool_]:
        return np.stack([masks[number][view].mask for number in numbers])

    present = {number: [view.index for view in shown] for number, shown in masks.items()}
    return mask_votes(volume, present, masks_on, predictor, classifier, store=store, on_progress=on_progress)


def axial_masks(one: FoundObject, shape_zyx: Sequence[int]) -> dict[SliceView, FoundMask]:
    """The masks of an object on axial slices, ascending, whatever plane it was found in."""
    if one.best_view.plane == "axial":
        return one.masks
    voxels = np.zeros(tuple(shape_zyx), dtype=bool)
    one.written_into(voxels)
    return {
        SliceView("axial", z): FoundMask.of(voxels[z], one.score, one.score)
        for z in np.flatnonzero(voxels.any(axis=(1, 2))).tolist()
    }
