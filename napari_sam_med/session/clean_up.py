"""Clean-up, filling between slices and erasing, on what the annotator has; each call is one undo step.

What is asked of an object (or, with None, of the whole active organ, imported voxels included) never changes
a locked organ and takes no voxel from another one.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from napari_sam_med.errors import PromptError
from napari_sam_med.segmentation import clean_up as of_masks
from napari_sam_med.segmentation.interpolation import InterpolatingPropagator, main_plane_views
from napari_sam_med.volume.disk_labels import refuse_on_disk

if TYPE_CHECKING:
    from napari_sam_med.segmentation.propagation import PromptedObjects
    from napari_sam_med.session.changes import Change
    from napari_sam_med.session.objects import AnnotatedObject
    from napari_sam_med.session.session import Session
    from napari_sam_med.volume.labels import LabelVolume
    from napari_sam_med.volume.slice_view import Plane, SliceView

__all__ = ["Operation", "clean_up", "erase", "fill_between", "interpolation_input"]

Operation = Literal["largest_component", "remove_islands", "fill_holes", "smooth"]
_TITLES: Mapping[Operation, str] = {
    "largest_component": "Keep the largest component of",
    "remove_islands": "Remove islands of",
    "fill_holes": "Fill holes of",
    "smooth": "Smooth",
}

KeyMasks = Mapping[int, Mapping["SliceView", npt.NDArray[np.bool_]]]


def clean_up(session: Session, object_id: int | None, operation: Operation, **options: Any) -> Change | None:
    """Put the shape of an object in order.

    An object stays on the slices that it is on, and its slices keep their quality and where they come from.

    Parameters
    ----------
    session : Session
    object_id : int or None
        None for the whole active organ.
    operation : {"largest_component", "remove_islands", "fill_holes", "smooth"}
    **options
        ``largest_component``: ``keep_key_slices`` (True), whether components on key slices stay too.
        ``remove_islands``: ``min_volume_mm3``. ``fill_holes``: ``plane`` (None), None for holes in 3-D.
        ``smooth``: ``radius_mm``, ``plane`` (None); an object with slices left out between its own is
        smoothed within them.

    Returns
    -------
    Change or None
        The undo step; None when there was nothing to change.

    Raises
    ------
    PromptError
        If there is no voxel to clean up.
    LockedError
        If the organ is locked.
    LabelError
        If an option is out of its range.
    """
    target = _Target(session, object_id)
    was = target.voxels()
    if not was.any():
        raise PromptError(f"{target.name} has no voxels yet; accept a mask or paint first.")
    now = _operated(target, was, operation, options)
    now &= was | target.free()
    with session.begin(f"{_TITLES[operation]} {target.name}") as change:
        change.reshape(target.class_id, object_id, was, now)
    return change.committed


def erase(session: Session, object_id: int | None, view: SliceView | None = None) -> Change | None:
    """Erase an object on one slice, or everywhere.

    On a slice its voxels and its prompts go; everywhere, the object goes as a whole. Of an organ (None), its
    voxels and objects go and the organ stays in the table.

    Parameters
    ----------
    session : Session
    object_id : int or None
        None for the whole active organ.
    view : SliceView, optional
        Everywhere when left out.

    Returns
    -------
    Change or None
        The undo step; None when there was nothing to erase.

    Raises
    ------
    LockedError
        If the organ is locked.
    """
    target = _Target(session, object_id)
    where = "everywhere" if view is None else f"on {view.plane} slice {view.index}"
    was = target.claimed()
    now = was.copy()
    (now if view is None else view.window_on(now))[...] = False
    with session.begin(f"Erase {target.name} {where}") as change:
        change.reshape(target.class_id, object_id, was, now)
        for item in target.items:
            for prompted in item.key_slices:
                if view in (None, prompted):
                    change.erase_prompts(item.object_id, prompted)
        if session.preview is not None and view in (None, session.preview.view):
            session.preview = None
    return change.committed


def interpolation_input(
    session: Session, object_ids: Collection[int], *, with_model: bool = False
) -> tuple[PromptedObjects, KeyMasks]:
    """Objects and key masks to fill between, as `napari_sam_med.propagate` takes them.

    Parameters
    ----------
    session : Session
    object_ids : collection of int
        Those without slices between key slices of one plane are left out.
    with_model : bool
        Whether a model will answer key slices that were prompted and not accepted.

    Raises
    ------
    PromptError
        If no object has slices to fill, or a key slice is not accepted and there is no model.
    LockedError
        If an organ is locked.
    """
    objects, masks = session.propagation_input(object_ids)
    views = {i: {*prompted, *masks[i]} for i, (_, prompted) in objects.items()}
    left = [i for i, held in views.items() if _has_gap(main_plane_views(held))]
    if not left:
        names = ", ".join(session.objects[i].name for i in objects)
        raise PromptError(
            f"{names}: there is nothing between key slices; accept or paint two slices that lie apart."
        )
    for i in left:
        open_views = sorted(views[i] - masks[i].keys())
        if open_views and not with_model:
            raise PromptError(
                f"{session.objects[i].name} is prompted on {open_views[0].plane} slice {open_views[0].index} "
                "and not accepted there; accept it first."
            )
    return {i: objects[i] for i in left}, {i: masks[i] for i in left}


def fill_between(
    session: Session,
    object_ids: Collection[int],
    *,
    first_index: int | None = None,
    last_index: int | None = None,
) -> Change | None:
    """Fill the slices between the objects' key slices by shape, at once; see `InterpolatingPropagator`.

    `napari_sam_med.session.jobs` has the same as a job, and with a model. Carried masks between the key
    slices are replaced, key slices stay.

    Returns
    -------
    Change or None
        The undo step; None when nothing changed.

    Raises
    ------
    PromptError, LockedError
        As `interpolation_input`.
    """
    objects, masks = interpolation_input(session, object_ids)
    volume = session.volume
    assert volume is not None  # objects exist on an open scan alone
    names = ", ".join(session.objects[i].name for i in objects)
    engine = InterpolatingPropagator()
    with session.begin(f"Fill {names} between slices") as change:
        for done in engine.propagate(
            volume, objects, masks=masks, first_index=first_index, last_index=last_index
        ):
            change.put(done)
    return change.committed


def _has_gap(views: list[SliceView]) -> bool:
    return views[-1].index - views[0].index >= len(views)


class _Target:
    """An object or a whole organ, ready to be changed; strokes under way are recorded first."""

    def __init__(self, session: Session, object_id: int | None) -> None:
        if session.labels is None:
            raise PromptError("There is no scan: open one first.")
        refuse_on_disk(session.labels.data, "Cleaning up", "paint, erase or carry slice by slice")
        session.record_stroke()
        self._labels: LabelVolume = session.labels
        self._is_organ = object_id is None
        self.items: list[AnnotatedObject]
        if object_id is None:
            self.class_id = session.active_class_id
            self.items = [item for item in session.objects.values() if item.class_id == self.class_id]
            self.name = session.organs.name_of(self.class_id)
        elif object_id in session.objects:
            self.items = [session.objects[object_id]]
            self.class_id, self.name = self.items[0].class_id, self.items[0].name
        else:
            raise PromptError("That object is gone; choose one from the list.")
        session.check_unlocked(self.class_id)

    def claimed(self) -> npt.NDArray[np.bool_]:
        """Voxels (z, y, x) of its slice masks, and of the class for an organ."""
        together: npt.NDArray[np.bool_] = np.zeros(self._labels.shape, dtype=np.bool_)
        if self._is_organ:
            np.equal(self._labels.data, self.class_id, out=together)
        for item in self.items:
            together |= item.voxels(self._labels.shape)
        return together

    def voxels(self) -> npt.NDArray[np.bool_]:
        """Its voxels (z, y, x) in the labels."""
        return np.asarray(self.claimed() & (self._labels.data == self.class_id))

    def free(self) -> npt.NDArray[np.bool_]:
        """Where it may grow (z, y, x): background, for an object on the slices that it lies on."""
        background: npt.NDArray[np.bool_] = np.equal(self._labels.data, 0)
        if self._is_organ:
            return background
        reached = np.zeros_like(background)
        for view in self.items[0].masks:
            view.window_on(reached)[...] = True
        reached &= background
        return reached

    def key_voxels(self) -> npt.NDArray[np.bool_]:
        """Voxels (z, y, x) of its key slices."""
        together = np.zeros(self._labels.shape, dtype=bool)
        for item in self.items:
            together |= item.voxels(self._labels.shape, keys_only=True)
        return together

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        return self._labels.grid.spacing_zyx

    def plane_to_smooth_in(self) -> Plane | None:
        """The plane of an object that has slices with none of it in between; None for 3-D."""
        if self._is_organ:
            return None
        views = main_plane_views(self.items[0].masks)
        return views[0].plane if _has_gap(views) else None


def _operated(
    target: _Target,
    mask_zyx: npt.NDArray[np.bool_],
    operation: Operation,
    options: Mapping[str, Any],
) -> npt.NDArray[np.bool_]:
    options = dict(options)
    match operation:
        case "largest_component":
            keep = target.key_voxels() if options.pop("keep_key_slices", True) else None
            return of_masks.largest_component(mask_zyx, keep, **options)
        case "remove_islands":
            return of_masks.remove_islands(mask_zyx, spacing_mm=target.spacing_mm, **options)
        case "fill_holes":
            return of_masks.fill_holes(mask_zyx, **options)
        case "smooth":
            if options.get("plane") is None:
                options["plane"] = target.plane_to_smooth_in()
            return of_masks.smooth(mask_zyx, spacing_mm=target.spacing_mm, **options)
