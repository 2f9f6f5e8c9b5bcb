"""Reviewing what was carried: where the largest errors are expected, and what the user takes for right."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from napari_sam_med.errors import PromptError
from napari_sam_med.segmentation.review import Proposal, SliceDoubt, worth_a_look
from napari_sam_med.volume.slice_view import PLANES, Plane, SliceView

if TYPE_CHECKING:
    from napari_sam_med.sam.prompts import Prompts
    from napari_sam_med.session.changes import Change
    from napari_sam_med.session.objects import AnnotatedObject, SliceMask, Stop
    from napari_sam_med.session.session import Session

__all__ = [
    "DoubtfulSlice",
    "accept_slice",
    "doubtful_slices",
    "plane_of",
    "use_labels_as_key",
    "with_confirmed_ends",
]

_NEAR_A_STOP = 3
"""An end beside a key slice is proposed up to so many slices further on."""


@dataclass(frozen=True)
class DoubtfulSlice:
    """A slice that is worth a look, and why, for people."""

    view: SliceView
    text: str


def plane_of(item: AnnotatedObject) -> Plane | None:
    """The plane that most slices of an object lie in (the first of axial, coronal, sagittal when equal)."""
    planes = [view.plane for view in item.masks]
    ranked: list[Plane] = sorted(PLANES, key=planes.count, reverse=True)  # stable: ties keep their order
    return ranked[0] if planes else None


def doubtful_slices(session: Session, object_id: int) -> list[DoubtfulSlice]:
    """Slices of an object that are worth a look, the one with the largest expected error first.

    See `napari_sam_med.segmentation.review.worth_a_look`.
    """
    item, volume = session.objects[object_id], session.volume
    plane = plane_of(item)
    if plane is None or volume is None:
        return []
    masks = {view.index: mask for view, mask in item.masks.items() if view.plane == plane}
    doubts = _doubts(item, plane, masks)
    keys = {view.index for view in item.confirmed_ends if view.plane == plane}
    return [
        DoubtfulSlice(SliceView(plane, found.index), _text(found, plane, masks, item))
        for found in worth_a_look(doubts, keys, n_slices=volume.shape[PLANES.index(plane)])
    ]


def _doubts(item: AnnotatedObject, plane: Plane, masks: Mapping[int, SliceMask]) -> list[SliceDoubt]:
    stops = {stop.view.index: stop.reason for stop in item.stops.values() if stop.view.plane == plane}
    doubts = [SliceDoubt(index, 0.0, 1.0, stop_reason=stops[index]) for index in stops.keys() - masks.keys()]
    for index, mask in masks.items():
        quality = 1.0 if mask.quality is None else min(max(mask.quality, 0.0), 1.0)
        doubts.append(
            SliceDoubt(index, float(mask.area_px), quality, is_key=mask.is_key, stop_reason=stops.get(index))
        )
    return sorted(doubts, key=lambda doubt: doubt.index)


def _stop_near(item: AnnotatedObject, view: SliceView) -> Stop | None:
    """Where propagation ended, on a slice or so near it that the slice is proposed for it."""
    near = [
        stop
        for stop in item.stops.values()
        if stop.view.plane == view.plane and abs(stop.view.index - view.index) <= _NEAR_A_STOP
    ]
    return min(near, key=lambda stop: abs(stop.view.index - view.index), default=None)


def _text(found: Proposal, plane: Plane, masks: Mapping[int, SliceMask], item: AnnotatedObject) -> str:
    if found.kind == "end":
        stop = _stop_near(item, SliceView(plane, found.index))
        why = "" if stop is None else f" Why it stopped: {stop.reason}"
        return f"Slice {found.index}: does {item.name} go on? Then prompt it, else Shift-N.{why}"
    run = range(found.first_index, found.last_index + 1)
    quality = {index: masks[index].quality or 0.0 for index in run}  # as the review strip shows it
    lowest = min(run, key=lambda index: (quality[index], abs(index - found.index)))
    here = f"{quality[found.index]:.2f}"
    if len(run) == 1:
        return (
            f"Slice {found.index}: the largest error left is expected here, quality {here}. "
            "Correct it, or Shift-N."
        )
    least = ", the lowest" if lowest == found.index else f", lowest {quality[lowest]:.2f} on slice {lowest}"
    return (
        f"Slice {found.index}: the largest error is expected on slices {run[0]} to {run[-1]}, this is its "
        f"middle. Quality {here} here{least}. Correct it, or Shift-N."
    )


def accept_slice(session: Session, object_id: int, view: SliceView) -> Change | None:
    """Take an object for right on a slice as it stands; one undo step.

    A carried slice becomes a key slice. Where the object is not, and carrying stopped, it is taken to end.

    Returns
    -------
    Change or None
        None when the user had decided on the slice before.

    Raises
    ------
    PromptError
        If prompts on the slice are not accepted, or the object is not there.
    LockedError
        If the organ is locked.
    """
    session.record_stroke()
    item = session.objects[object_id]
    session.check_unlocked(item.class_id)
    here = item.masks.get(view)
    if view in item.key_slices and item.answered.get(view) != item.key_slices[view]:
        raise PromptError(
            f"Slice {view.index} has prompts that are not accepted yet; press Enter or Escape first."
        )
    if here is not None:
        return None if here.is_key else _key_slice(session, item, view, here.unpack())
    stop = _stop_near(item, view)
    if stop is None:
        raise PromptError(f"{item.name} is not on slice {view.index}; go to a slice that shows it.")
    if stop.view in item.confirmed_ends:
        return None
    with session.begin(f"End {item.name} at slice {view.index}") as change:
        ended = replace(item, confirmed_ends=item.confirmed_ends | {stop.view})
        session.objects = {**session.objects, object_id: ended}
    return change.committed


def with_confirmed_ends(
    session: Session,
    objects: Mapping[int, tuple[int, Mapping[SliceView, Prompts]]],
    masks: Mapping[int, Mapping[SliceView, npt.NDArray[np.bool_]]],
    directions: Collection[str] = ("forward", "backward"),
) -> dict[int, dict[SliceView, npt.NDArray[np.bool_]]]:
    """Key masks of `Session.propagation_input`, and an empty one where the user said that an object ends.

    Of the ends, only those in the directions that carrying goes. An end that lies between key slices by now
    is one no more.
    """
    assert session.volume is not None  # there are objects on an open scan alone
    found = {object_id: dict(known) for object_id, known in masks.items()}
    for object_id, (_, prompted) in objects.items():
        keys = {*prompted, *found.get(object_id, {})}
        for view in session.objects[object_id].confirmed_ends:
            along = [key.index for key in keys if key.plane == view.plane]
            is_ahead = view.index > max(along, default=view.index) and "forward" in directions
            is_behind = view.index < min(along, default=view.index) and "backward" in directions
            if is_ahead or is_behind:
                empty = np.zeros(view.slice_shape(session.volume.shape), dtype=bool)
                found.setdefault(object_id, {})[view] = empty
    return found


def use_labels_as_key(session: Session, view: SliceView) -> Change | None:
    """Make what the active organ has on a slice a key slice as it stands; one undo step.

    Painted, imported or carried, it joins the active object, or a new one where none is active. What other
    objects of the organ have there stays theirs.

    Returns
    -------
    Change or None
        None when the slice is such a key slice already.

    Raises
    ------
    PromptError
        If there is no scan, or nothing of the organ on the slice.
    LockedError
        If the organ is locked.
    """
    if session.labels is None:
        raise PromptError("There is no scan: open one first.")
    session.record_stroke()
    session.check_unlocked(session.active_class_id)
    item = session.active_object or session.created_object()
    mask = view.extract(session.labels.data) == item.class_id
    for other in session.objects.values():
        taken = other.mask(view) if other.object_id != item.object_id else None
        if taken is not None and other.class_id == item.class_id:
            mask &= ~taken
    here = item.masks.get(view)
    if here is not None and here.is_key and np.array_equal(here.unpack(), mask):
        return None
    return _key_slice(session, item, view, mask)


def _key_slice(
    session: Session, item: AnnotatedObject, view: SliceView, mask: npt.NDArray[np.bool_]
) -> Change | None:
    """Make an object's voxels (H, W) on a slice a key slice; what other organs took since is theirs."""
    assert session.labels is not None  # masks exist on an open scan alone
    mask = mask & (view.extract(session.labels.data) == item.class_id)
    if not mask.any():
        name = session.organs.name_of(item.class_id)
        raise PromptError(f"There is no voxel of {name} on slice {view.index}; paint or prompt it first.")
    with session.begin(f"Take {item.name} on slice {view.index} for right") as change:
        session.objects = {**session.objects, item.object_id: item}
        session.active_object_id = item.object_id
        change.put_mask(item.object_id, view, mask, "edited", None)
        if session.preview is not None and session.preview.view == view:
            session.preview = None
    return change.committed
