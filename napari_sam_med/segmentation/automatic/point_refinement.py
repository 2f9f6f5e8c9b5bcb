"""A point beside a word: which objects hold it, and what the model finds there.

Where a word alone fails, a point helps (Segment Anything, appendix D.5), and the other way round: a point
does not tell a part from its whole, which the word does. So all that the model finds at a point is kept, and
ranked by the word.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from napari_sam_med.errors import ModelError, PromptError
from napari_sam_med.sam.prompts import Prompts
from napari_sam_med.segmentation.automatic.found_objects import FoundMask, FoundObject
from napari_sam_med.segmentation.propagation import PropagatedSlice, propagate
from napari_sam_med.segmentation.slicewise import Window, box_of_mask, corrected_prompts, embed_slice
from napari_sam_med.volume.slice_view import PLANES, Plane, SliceView

if TYPE_CHECKING:
    from napari_sam_med.progress import Progress
    from napari_sam_med.sam.embedding_store import EmbeddingStore
    from napari_sam_med.sam.mask_prediction import MaskPrediction
    from napari_sam_med.sam.predictor import Predictor
    from napari_sam_med.segmentation.automatic.words import RankedObject
    from napari_sam_med.volume.volume import Volume

__all__ = ["checked_point", "holds_point", "objects_at_point", "ranked_at_point"]

_NEAR = 3
"""Ranked objects of the slice that are asked for again with the point."""
_SAME = 0.9
"""IoU from which two masks are the same one."""
_CLASS = 1
"""The propagator gives a pixel to one of several classes; alternatives for one place are all of one."""


def checked_point(index_ijk: Sequence[float], volume: Volume) -> tuple[int, int, int]:
    """Canonical voxel (z, y, x) of indices (i, j, k) of the file's own array.

    Raises
    ------
    PromptError
        When it lies outside the volume.
    """
    shape_ijk = [0, 0, 0]
    for plane, size in zip(PLANES, volume.shape, strict=True):
        shape_ijk[volume.grid.file_axis(plane)] = size
    if any(not 0 <= round(index) < size for index, size in zip(index_ijk, shape_ijk, strict=True)):
        raise PromptError(
            f"The point {', '.join(f'{index:g}' for index in index_ijk)} lies outside the volume; give voxel "
            f"indices i, j, k of the file, below {', '.join(map(str, shape_ijk))}."
        )
    z, y, x = (round(index) for index in volume.grid.index_zyx_from_ijk(index_ijk))
    return z, y, x


def holds_point(found: FoundObject, point_zyx: Sequence[int], shape_zyx: Sequence[int]) -> bool:
    """Whether an object has a voxel (z, y, x)."""
    view = SliceView.containing(found.best_view.plane, point_zyx)
    mask = found.masks.get(view)
    if mask is None:
        return False
    x, y = (round(place) for place in view.pixel_xy(point_zyx, shape_zyx))
    row, column = y - mask.corner[0], x - mask.corner[1]
    height, width = mask.pixels.shape
    return 0 <= row < height and 0 <= column < width and bool(mask.pixels[row, column])


def ranked_at_point(
    objects: Sequence[FoundObject],
    point_zyx: Sequence[int],
    rank: Callable[[Sequence[FoundObject]], list[RankedObject]],
    volume: Volume,
    predictor: Predictor,
    *,
    sure: float,
    window: Window = "auto",
    store: EmbeddingStore | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> list[RankedObject]:
    """The objects that a word and a point mean together, the likeliest first; all of them have the voxel.

    Of the objects found before, those that have the voxel stay. When none of them is likely enough, the model
    is asked at the point, too; see `objects_at_point`.

    Parameters
    ----------
    objects : sequence of FoundObject
        Of the volume.
    point_zyx : sequence of int
        Canonical voxel (z, y, x).
    rank : callable
        `rank_by_organ` or `rank_by_text` with a word: objects in, ranking out.
    volume, predictor, window, store, on_progress
        As in `objects_at_point`.
    sure : float
        Probability from which the model need not be asked.

    Raises
    ------
    PromptError
        When neither an object nor an answer of the model has the voxel.
    ModelError
        When the model would have to be asked and takes no points.
    """
    holding = [one for one in objects if holds_point(one, point_zyx, volume.shape)]
    ranked = rank(holding)
    takes_points = "point" in predictor.accepts
    if ranked and (ranked[0].score >= sure or not takes_points):
        return ranked
    plane = objects[0].best_view.plane if objects else "axial"
    view = SliceView.containing(plane, point_zyx)
    beside = [one for one in objects if view in one.masks and one not in holding]
    asked = objects_at_point(
        volume,
        point_zyx,
        predictor,
        near=[one.object for one in rank(beside)] if takes_points else (),
        plane=plane,
        window=window,
        store=store,
        on_progress=on_progress,
    )
    if not asked and not holding:
        raise PromptError(
            f"{predictor.record.name} finds no object at the point; click well inside the object, or choose "
            "another model."
        )
    return rank([*holding, *asked])


def objects_at_point(
    volume: Volume,
    point_zyx: Sequence[int],
    predictor: Predictor,
    *,
    near: Sequence[FoundObject] = (),
    plane: Plane = "axial",
    window: Window = "auto",
    store: EmbeddingStore | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> list[FoundObject]:
    """What the model finds at a voxel, each carried through the volume: to be ranked by the word.

    Asked are the point alone, which gives up to three masks (part, object, whole), and the first three of
    `near` that have a mask on the slice, each with its box and mask and the point.

    Parameters
    ----------
    volume : Volume
    point_zyx : sequence of int
        Canonical voxel (z, y, x).
    predictor : Predictor
        A model that takes points.
    near : sequence of FoundObject
        The likeliest first.
    plane : {"axial", "coronal", "sagittal"}
        Of the slice through the point that is asked, and of the objects.
    window : str or (low, high)
    store : EmbeddingStore, optional
    on_progress : callable, optional
        Called after each slice; raise `CancelledError` in it to cancel.

    Returns
    -------
    list of FoundObject
        By falling score, numbered from 1; all of them have the voxel. Empty when no mask does.

    Raises
    ------
    ModelError
        When the model takes no points.
    """
    if "point" not in predictor.accepts:
        raise ModelError(
            f"{predictor.record.name} takes {' and '.join(sorted(predictor.accepts))} prompts only, and a "
            "point is to be asked; choose another model, such as nano."
        )
    view = SliceView.containing(plane, point_zyx)
    masks = _masks_at(volume, view, point_zyx, predictor, near, window, store)
    if not masks:
        return []
    asked = {number: (_CLASS, {view: Prompts.from_box(box_of_mask(mask))}) for number, mask in masks.items()}
    drawn = {number: {view: mask} for number, mask in masks.items()}
    found: dict[int, list[PropagatedSlice]] = {number: [] for number in masks}
    for one in propagate(volume, asked, predictor, window=window, store=store, masks=drawn):
        if one.mask.any():
            found[one.object_id].append(one)
        if on_progress is not None:
            on_progress(one.progress)
    return FoundObject.renumbered(_object(number, slices) for number, slices in found.items() if slices)


def _masks_at(
    volume: Volume,
    view: SliceView,
    point_zyx: Sequence[int],
    predictor: Predictor,
    near: Sequence[FoundObject],
    window: Window,
    store: EmbeddingStore | None,
) -> dict[int, npt.NDArray[np.bool_]]:
    """Unlike masks (H, W) of the slice that hold the point, numbered from 1."""
    embedding = embed_slice(volume, view, predictor, window=window, store=store)
    xy = view.pixel_xy(point_zyx, volume.shape)
    click = Prompts.from_points([xy], [1])
    answers: list[MaskPrediction] = [predictor.predict(embedding, click)]
    here = [one.masks[view].mask for one in near if view in one.masks][:_NEAR]
    answers += [
        predictor.predict(embedding, corrected_prompts(click, mask, embedding, predictor)) for mask in here
    ]
    column, row = (round(place) for place in xy)
    unlike: list[FoundMask] = []
    for mask in (mask for answer in answers for mask in answer.masks):
        if mask[row, column]:
            one = FoundMask.of(mask, 1.0, 1.0)
            if all(one.iou(other) < _SAME for other in unlike):
                unlike.append(one)
    return {number: one.mask for number, one in enumerate(unlike, start=1)}


def _object(number: int, slices: Sequence[PropagatedSlice]) -> FoundObject:
    ordered = sorted(slices, key=lambda one: one.view)
    masks = {
        one.view: FoundMask.of(one.mask, one.iou_prediction or one.quality, one.quality) for one in ordered
    }
    return FoundObject(number, masks, float(np.mean([one.quality for one in ordered])))
