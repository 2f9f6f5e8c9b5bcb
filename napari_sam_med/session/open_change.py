"""A change that is filled bit by bit: a propagation as it streams in, a stroke, an accepted mask."""

from __future__ import annotations

from collections.abc import Collection
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from napari_sam_med.session.changes import Change
from napari_sam_med.session.objects import AnnotatedObject, Annotations, Origin, SliceMask, Stop
from napari_sam_med.volume.disk_labels import labelled_planes
from napari_sam_med.volume.slice_view import Plane, SliceView

if TYPE_CHECKING:
    from napari_sam_med.segmentation.propagation import PropagatedSlice
    from napari_sam_med.session.session import Session
    from napari_sam_med.volume.labels import LabelChange

__all__ = ["OpenChange"]

_Voxels = npt.NDArray[np.bool_]


class OpenChange:
    """Applies voxel changes at once and gathers them into one `Change`, committed by `close`.

    Made by `Session.begin`. As a context manager it commits at the end, and takes everything back when an
    exception passes.
    """

    def __init__(self, session: Session, label: str, model: str | None = None) -> None:
        self.label = label
        self.model = model
        self.committed: Change | None = None
        self._session = session
        self._before: Annotations = session.annotations
        self._voxels: list[LabelChange] = []
        self._visited: dict[int, set[SliceView]] = {}
        self._carried_along: dict[int, Plane] = {}
        self._stopped: set[tuple[int, str]] = set()
        self._is_open = True

    @property
    def is_open(self) -> bool:
        """False once it was committed."""
        return self._is_open

    def put_mask(
        self,
        object_id: int,
        view: SliceView,
        mask: npt.NDArray[np.bool_],
        source: Origin,
        quality: float | None,
    ) -> None:
        """Write an object's mask (H, W) into a slice, in place of what the object had there.

        What was carried there takes no voxel from another organ; what the user asked for does.
        """
        item = self._session.objects[object_id]
        self._assign(item, view, mask, keep_others=source in ("propagated", "interpolated"))
        owned = mask & (view.extract(self._labels_data()) == item.class_id)
        packed = SliceMask.from_mask(owned, source, quality, self.model) if owned.any() else None
        self._set_object(item.with_mask(view, packed))

    def put(self, done: PropagatedSlice) -> bool:
        """Take in one propagated slice; key slices that are accepted already stay as they are.

        Returns
        -------
        bool
            Whether the labels changed.
        """
        item = self._session.objects.get(done.object_id)
        if item is None or not self._is_open:
            return False
        if done.direction != "key":
            self._carried_along[done.object_id] = done.view.plane
        if done.reason is not None and done.direction != "key":
            self._stopped.add((done.object_id, done.direction))
            item = item.with_stop(done.direction, Stop(done.view, done.reason))
            self._set_object(item)
        if not done.mask.any() and done.reason is not None:
            return False
        self._visited.setdefault(done.object_id, set()).add(done.view)
        self._session.record_stroke([done.view])  # a drag that goes on is a step of its own
        item = self._session.objects.get(done.object_id)
        if item is None:
            return False
        here = item.masks.get(done.view)
        if here is not None and here.is_key:
            return False
        mask = self._with_other_planes(item, done.view, done.mask)
        self.put_mask(done.object_id, done.view, mask, done.source, done.quality)
        return True

    def drop_outdated(
        self, first_index: int, last_index: int, directions: Collection[str] = ("forward", "backward")
    ) -> None:
        """Clear slices of the carried objects that an earlier propagation filled and this one did not reach.

        For a propagation that ran to its end; only slices of the range that it was given, and beyond the
        outermost key slices only in the directions that it went.
        """
        for object_id, plane in self._carried_along.items():
            item = self._session.objects.get(object_id)
            visited = self._visited.get(object_id, set())
            if item is not None:
                self._session.record_stroke([v for v in item.masks if v.plane == plane and v not in visited])
                item = self._session.objects.get(object_id)
            if item is None:
                continue
            here = {view: mask for view, mask in item.masks.items() if view.plane == plane}
            keys = [view.index for view, mask in here.items() if mask.is_key]
            if not keys:
                continue
            first = first_index if "backward" in directions else max(first_index, min(keys))
            last = last_index if "forward" in directions else min(last_index, max(keys))
            for view, mask in here.items():
                if view in visited or mask.is_key or not first <= view.index <= last:
                    continue
                left = self._with_other_planes(item, view, np.zeros(mask.shape, dtype=bool))
                self.put_mask(object_id, view, left, mask.source, mask.quality)
            self._forget_passed_stops(object_id, plane, keys)

    def _forget_passed_stops(self, object_id: int, plane: Plane, keys: list[int]) -> None:
        """Forget where earlier propagations ended, if key slices lie there or beyond by now."""
        item = self._session.objects.get(object_id)
        if item is None:
            return
        outermost = {"forward": max(keys), "backward": min(keys)}
        for direction, stop in item.stops.items():
            index = stop.view.index
            is_passed = min(keys) < index < max(keys) or index == outermost[direction]
            if stop.view.plane == plane and is_passed and (object_id, direction) not in self._stopped:
                item = item.with_stop(direction, None)
        if item is not self._session.objects[object_id]:
            self._set_object(item)

    def clear_slice(self, object_id: int, view: SliceView) -> None:
        """Take an object's mask off one slice."""
        item = self._session.objects[object_id]
        packed = item.masks.get(view)
        if packed is None:
            return
        self._assign(item, view, np.zeros(packed.shape, dtype=bool))
        self._set_object(item.with_mask(view, None))

    def reshape(self, class_id: int, object_id: int | None, was: _Voxels, now: _Voxels) -> None:
        """Give an object other voxels, or a whole organ (None), and let the slice masks follow.

        Where its masks come from and their quality stay. Voxels gained must be background on slices that the
        object lies on; those of a whole organ join no object. Voxels lost stay in the labels where another
        object of the organ has them too.

        Parameters
        ----------
        class_id : int
        object_id : int or None
        was, now : ndarray (z, y, x) of bool
        """
        labels, items = self._session.labels, self._session.objects
        assert labels is not None  # only a session with labels opens changes
        own = [i for i, item in items.items() if item.class_id == class_id and object_id in (None, i)]
        lost, gained = was & ~now, now & ~was
        cleared = lost.copy()
        for i, item in items.items():
            if item.class_id == class_id and i not in own:
                cleared &= ~item.voxels(lost.shape)
        for index in np.flatnonzero((cleared | gained).any(axis=(1, 2))).tolist():
            self._record(
                labels.assign(
                    SliceView("axial", index),
                    gained[index],
                    class_id,
                    replaces=cleared[index],
                    keep_others=True,
                )
            )
        if object_id is None:
            gained = np.zeros_like(gained)
        for i in own:
            reshaped = _reshaped(items[i], lost, gained)
            if reshaped is not items[i]:
                self._set_object(reshaped)

    def erase_prompts(self, object_id: int, view: SliceView) -> None:
        """Take an object's prompts off one slice."""
        item = self._session.objects.get(object_id)
        if item is not None and view in item.key_slices:
            self._set_object(item.with_prompts(view, None))

    def erase_class(self, class_id: int) -> None:
        """Clear every voxel of a class."""
        labels = self._session.labels
        if labels is None or not self._session.voxel_count(class_id):
            return
        for index in labelled_planes(labels.data):
            view = SliceView("axial", index)
            here = view.extract(labels.data) == class_id
            if here.any():
                self._record(labels.assign(view, np.zeros_like(here), class_id, replaces=here))

    def take_stroke(self, stroke: LabelChange) -> None:
        """Take in voxels that were painted, and tell the objects on that slice about it."""
        self._record(stroke)
        shape = stroke.view.slice_shape(self._labels_data().shape)
        session = self._session
        for item in list(session.objects.values()):
            gained = stroke.after == item.class_id if item.object_id == session.active_object_id else None
            lost = (stroke.before == item.class_id) & (stroke.after != item.class_id)
            old = item.mask(stroke.view)
            mask = np.zeros(shape, dtype=bool) if old is None else old
            flat = mask.ravel()
            was = flat.copy()
            flat[stroke.indices[lost]] = False
            if gained is not None:
                flat[stroke.indices[gained]] = True
            if not np.array_equal(was, flat):
                edited = SliceMask.from_mask(flat.reshape(shape), "edited") if flat.any() else None
                self._set_object(item.with_mask(stroke.view, edited))

    def close(self) -> Change | None:
        """Commit what was gathered; None when nothing changed. Closing twice does nothing."""
        if not self._is_open:
            return self.committed
        self._is_open = False
        self._session.forget_open(self)
        after = self._session.annotations
        if self._voxels or not after.same_as(self._before):
            self.committed = Change(self.label, tuple(self._voxels), self._before, after)
            self._session.commit(self.committed)
        return self.committed

    def split(self, after: Annotations) -> None:
        """Commit what was gathered so far as a step of its own, because another change comes in between."""
        if self._voxels or not after.same_as(self._before):
            voxels, self._voxels = tuple(self._voxels), []
            self._session.undo_stack.push(Change(self.label, voxels, self._before, after))

    def rebase(self) -> None:
        """Start from the present annotations, after another change came in between."""
        self._before = self._session.annotations

    def roll_back(self) -> None:
        """Take everything back and commit nothing."""
        self._is_open = False
        self._session.forget_open(self)
        for change in reversed(self._voxels):
            self._session.revert_voxels(change)
        self._session.restore(self._before)

    def __enter__(self) -> OpenChange:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.roll_back()

    def _with_other_planes(
        self, item: AnnotatedObject, view: SliceView, mask: npt.NDArray[np.bool_]
    ) -> npt.NDArray[np.bool_]:
        """A carried mask that leaves the labels as they are where key slices of other planes cross it."""
        crossing = [v for v, kept in item.masks.items() if kept.is_key and v.plane != view.plane]
        if not crossing:
            return mask
        data = self._labels_data()
        here = view.extract(data) == item.class_id
        had = item.mask(view)
        mask = mask.copy()
        for key in crossing:
            line = view.line_of(key, data.shape)
            own = item.masks[key].unpack()[key.line_of(view, data.shape)]
            mask[line] = here[line] & (own if had is None else own | had[line])
        return mask

    def _assign(
        self, item: AnnotatedObject, view: SliceView, mask: npt.NDArray[np.bool_], keep_others: bool = False
    ) -> None:
        labels = self._session.labels
        assert labels is not None  # only a session with labels opens changes
        had = item.mask(view)
        if had is not None:
            for sibling in self._session.objects.values():
                if sibling.class_id == item.class_id and sibling.object_id != item.object_id:
                    shared = sibling.mask(view)
                    had = had if shared is None else had & ~shared
        self._record(labels.assign(view, mask, item.class_id, replaces=had, keep_others=keep_others))

    def _record(self, change: LabelChange) -> None:
        if not change.is_empty:
            self._voxels.append(change)
            self._session.count(change)

    def _set_object(self, item: AnnotatedObject) -> None:
        objects = dict(self._session.objects)
        if item.is_empty:
            objects.pop(item.object_id, None)
        else:
            objects[item.object_id] = item
        self._session.objects = objects
        if item.is_empty and self._session.active_object_id == item.object_id:
            self._session.active_object_id = None

    def _labels_data(self) -> npt.NDArray[np.unsignedinteger]:
        labels = self._session.labels
        assert labels is not None
        return labels.data


def _reshaped(item: AnnotatedObject, lost: _Voxels, gained: _Voxels) -> AnnotatedObject:
    """An object whose slice masks lost and gained voxels (z, y, x)."""
    for view, packed in item.masks.items():
        takes, gives = view.window_on(gained), view.window_on(lost)
        if takes.any() or gives.any():
            mask = (packed.unpack() & ~gives) | takes
            left = None
            if mask.any():
                left = SliceMask.from_mask(mask, packed.source, packed.quality, packed.model)
            item = item.with_shape(view, left)
    return item
