"""What one annotator is doing in one viewer: the evented state, and the one way to change it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt
from psygnal import Signal, SignalGroupDescriptor

from napari_sam_med.errors import LockedError, PromptError
from napari_sam_med.session.changes import Change
from napari_sam_med.session.objects import AnnotatedObject, Annotations
from napari_sam_med.session.open_change import OpenChange
from napari_sam_med.session.strokes import StrokeRecorder
from napari_sam_med.session.undo import UndoStack
from napari_sam_med.session.voxel_counts import VoxelCounts
from napari_sam_med.volume.disk_labels import is_on_disk
from napari_sam_med.volume.organs import Organ, OrganTable
from napari_sam_med.volume.slice_view import SliceView

if TYPE_CHECKING:
    from napari_sam_med.sam.prompts import Prompts
    from napari_sam_med.volume.labels import LabelChange, LabelVolume
    from napari_sam_med.volume.volume import Volume

__all__ = ["Preview", "Session"]


@dataclass(frozen=True, eq=False)
class Preview:
    """A mask that the model proposes and the user has not accepted.

    Attributes
    ----------
    view : SliceView
    mask : ndarray (H, W) of bool
    quality : float
        The model's own estimate of the mask, about 0..1.
    """

    view: SliceView
    mask: npt.NDArray[np.bool_]
    quality: float


@dataclass(eq=False)
class Session:
    """One annotator's work on one scan; every field announces its replacement through ``events``.

    Voxels change only through `commit`, or an `OpenChange` that ends in it, so that one undo stack knows them
    all. Fields are small frozen values that are replaced whole; voxel arrays announce themselves through
    ``LabelVolume.changed``.

    Attributes
    ----------
    volume, labels : Volume, LabelVolume or None
    organs : OrganTable
        Also that of ``labels``.
    objects : mapping
        ``{object_id: AnnotatedObject}``; replaced, never edited.
    active_class_id : int
        Organ that the next new object belongs to.
    active_object_id : int or None
        Object whose prompts are on the canvas; None until the first prompt makes one.
    window : (float, float) or None
        Low and high in the volume's own values: what is displayed is what the model sees.
    model, device : str
    preview : Preview or None
    """

    events: ClassVar[SignalGroupDescriptor] = SignalGroupDescriptor()
    committed: ClassVar[Signal] = Signal(Change)
    reverted: ClassVar[Signal] = Signal(Change)
    reapplied: ClassVar[Signal] = Signal(Change)
    history_changed: ClassVar[Signal] = Signal()
    #: every voxel change, as it is written; True: it was taken back
    voxels_changed: ClassVar[Signal] = Signal(object, bool)
    #: a paint stroke on a locked organ that was put back as it was: no work, but it stood there a moment
    stroke_refused: ClassVar[Signal] = Signal(object)
    counts_changed: ClassVar[Signal] = Signal(frozenset)
    #: the user chose that organ, or an object of it, also when it was the active one before
    organ_chosen: ClassVar[Signal] = Signal(int)

    volume: Volume | None = None
    labels: LabelVolume | None = None
    organs: OrganTable = field(default_factory=OrganTable.btcv)
    objects: Mapping[int, AnnotatedObject] = field(default_factory=dict)
    active_class_id: int = 1
    active_object_id: int | None = None
    window: tuple[float, float] | None = None
    model: str = "nano"
    device: str = "auto"
    preview: Preview | None = None

    def __post_init__(self) -> None:
        self.undo_stack = UndoStack()
        self._open: list[OpenChange] = []
        self._strokes: StrokeRecorder | None = None
        self._counts: VoxelCounts | None = None
        self._next_object_id = 1

    # the scan and its labels

    def open(
        self,
        volume: Volume,
        labels: LabelVolume,
        window: tuple[float, float],
        counts: VoxelCounts | None = None,
        copy: npt.NDArray[Any] | None = None,
    ) -> None:
        """Start anew on a scan; the undo stack and the objects of the last one are dropped.

        Labels that hold voxels already are gone on with. ``counts`` and a ``copy`` of their data, which is
        kept, spare making them here: for 512x512x300 that takes up to 0.2 s.
        """
        self.close_changes()
        self.preview = None
        self.undo_stack.clear()
        self.objects = {}
        self.active_object_id = None
        self._counts = VoxelCounts(labels.data) if counts is None else counts
        self._strokes = StrokeRecorder(labels, copy)
        self.volume = volume
        self.window = window
        self.labels = labels
        self.organs = labels.organs
        if self.active_class_id not in self.organs:
            self.active_class_id = next(iter(self.organs), 1)
        self.history_changed.emit()

    def close(self) -> None:
        """Let go of the scan."""
        self.close_changes()
        self.preview = None
        self.undo_stack.clear()
        self._strokes = None
        self._counts = None
        self.labels = None
        self.volume = None
        self.objects = {}
        self.active_object_id = None
        self.history_changed.emit()

    def voxel_count(self, class_id: int) -> int:
        """Voxels of a class in the labels, without counting them anew."""
        return 0 if self._counts is None else self._counts[class_id]

    @property
    def has_labels(self) -> bool:
        """Whether any voxel is labelled, as far as the session knows: nothing is looked for."""
        return self._counts is not None and bool(self._counts.class_ids)

    def volume_ml(self, class_id: int) -> float:
        """Volume of a class in millilitres."""
        if self.labels is None:
            return 0.0
        return self.voxel_count(class_id) * self.labels.grid.voxel_volume_mm3 / 1000.0

    # one way to change anything

    @property
    def annotations(self) -> Annotations:
        """Snapshot of everything besides the voxels that undo brings back."""
        return Annotations(self.organs, self.objects, self.active_class_id, self.active_object_id)

    def commit(self, change: Change) -> None:
        """Put a change, whose voxels stand in the labels already, on the undo stack.

        A change that is still open is divided there, so that steps lie on the stack in the order in which
        their voxels were written.
        """
        for waiting in self._open:
            waiting.split(change.before)
        self.undo_stack.push(change)
        self.restore(change.after)
        for waiting in self._open:
            waiting.rebase()
        self.committed.emit(change)
        self.history_changed.emit()

    def begin(self, label: str, model: str | None = None) -> OpenChange:
        """Open a change that is filled bit by bit and committed once, when it is closed.

        ``model`` is the name of the model that gives the masks that are put into it, if one does.
        """
        change = OpenChange(self, label, model)
        self._open.append(change)
        return change

    def close_changes(self) -> None:
        """Commit every change that is still open."""
        while self._open:
            self._open[-1].close()

    def forget_open(self, change: OpenChange) -> None:
        """Called by an `OpenChange` when it closes."""
        if change in self._open:
            self._open.remove(change)

    def apply_voxels(self, change: LabelChange) -> None:
        """Apply a voxel change to the labels and the counts; for `OpenChange`."""
        assert self.labels is not None  # only a session with labels has changes
        self.labels.apply(change)
        self.count(change)

    def revert_voxels(self, change: LabelChange) -> None:
        """Inverse of `apply_voxels`."""
        assert self.labels is not None
        self.labels.revert(change)
        self.count(change, reverted=True)

    def count(self, change: LabelChange, *, reverted: bool = False) -> None:
        """Let the counts and the journal follow a voxel change that stands in the labels already."""
        self.voxels_changed.emit(change, reverted)
        if self._counts is not None:
            self.counts_changed.emit(self._counts.record(change, reverted=reverted))

    def undo(self) -> str | None:
        """Take back the newest step; answers what was undone, None when there is nothing."""
        self.close_changes()
        change = self.undo_stack.undo()
        if change is None:
            return None
        for voxels in reversed(change.voxels):
            self.revert_voxels(voxels)
        self.preview = None
        self.restore(change.before)
        self.reverted.emit(change)
        self.history_changed.emit()
        return change.label

    def redo(self) -> str | None:
        """Do again what was undone last; answers what, None when there is nothing."""
        self.close_changes()
        change = self.undo_stack.redo()
        if change is None:
            return None
        for voxels in change.voxels:
            self.apply_voxels(voxels)
        self.preview = None
        self.restore(change.after)
        self.reapplied.emit(change)
        self.history_changed.emit()
        return change.label

    def restore(self, annotations: Annotations) -> None:
        """Put a snapshot of the annotations back; for undo and `OpenChange`."""
        if self.labels is not None:
            self.labels.organs = annotations.organs
        self.organs = annotations.organs
        self.active_class_id = annotations.active_class_id
        self.objects = annotations.objects
        self.active_object_id = annotations.active_object_id

    def _edit(self, label: str, edit: Callable[[Annotations], Annotations]) -> None:
        """Commit a step that changes no voxels."""
        before = self.annotations
        after = edit(before)
        if not after.same_as(before):
            self.commit(Change(label, (), before, after))

    # organs

    def set_organ(self, organ: Organ) -> None:
        """Add an organ, or change the one of its number (name, colour, lock, visible)."""
        old = self.organs.get(organ.class_id)
        if old == organ:
            return
        label = f"Add {organ.name}" if old is None else _organ_edit_label(old, organ)
        self._edit(label, lambda now: replace(now, organs=now.organs.with_organ(organ)))

    def remove_organ(self, class_id: int) -> None:
        """Take an organ off the table, with its objects and its voxels; one undo step.

        Raises
        ------
        LockedError
            If the organ is locked.
        """
        self.check_unlocked(class_id)
        with self.begin(f"Remove {self.organs.name_of(class_id)}") as change:
            change.erase_class(class_id)
            kept = {i: o for i, o in self.objects.items() if o.class_id != class_id}
            if self.active_object_id not in kept:
                self.active_object_id = None
            self.objects = kept
            self.organs = self.organs.without(class_id)
            if self.active_class_id == class_id:
                self.active_class_id = next(iter(self.organs), 1)
        if self.labels is not None:
            self.labels.organs = self.organs

    def select_organ(self, class_id: int) -> None:
        """Make an organ the active one; the next prompt starts a new object of it."""
        if class_id != self.active_class_id or self.active_object_id is not None:
            self.preview = None
            self.active_object_id = None
            self.active_class_id = class_id
        self.organ_chosen.emit(class_id)

    def go_on_with_organ(self, class_id: int) -> None:
        """Make an organ the active one and go on with its newest object; `new_object` starts another one."""
        own = [object_id for object_id, item in self.objects.items() if item.class_id == class_id]
        if own:
            self.select_object(max(own))
        else:
            self.select_organ(class_id)

    # objects and their prompts

    @property
    def active_object(self) -> AnnotatedObject | None:
        """The object whose prompts are on the canvas."""
        return None if self.active_object_id is None else self.objects.get(self.active_object_id)

    def select_object(self, object_id: int) -> None:
        """Go on with an object: its prompts come back to the canvas."""
        if object_id not in self.objects:
            return
        if object_id != self.active_object_id:
            self.preview = None
            self.active_class_id = self.objects[object_id].class_id
            self.active_object_id = object_id
        self.organ_chosen.emit(self.active_class_id)

    def new_object(self) -> None:
        """The next prompt starts another object of the active organ."""
        self.preview = None
        self.active_object_id = None

    def rename_object(self, object_id: int, name: str) -> None:
        """Give an object another name."""
        renamed = replace(self.objects[object_id], name=name)
        self._edit(f"Rename {name}", lambda now: now.with_object(renamed))

    def remove_object(self, object_id: int) -> None:
        """Remove an object with its prompts and its voxels; one undo step.

        Raises
        ------
        LockedError
            If its organ is locked.
        """
        removed = self.objects[object_id]
        self.check_unlocked(removed.class_id)
        with self.begin(f"Remove {removed.name}") as change:
            for view in removed.masks:
                change.clear_slice(object_id, view)
            self.objects = {i: o for i, o in self.objects.items() if i != object_id}
            if self.active_object_id == object_id:
                self.preview = None
                self.active_object_id = None

    def prompt(self, view: SliceView, prompts: Prompts | None) -> None:
        """Set the active object's prompts on a slice (None: take them away); one undo step.

        The first prompt makes the object. An object left with neither prompt nor mask is dropped.
        """
        active = self.active_object
        if active is None:
            if prompts is None:
                return
            active = self.created_object()
        if active.key_slices.get(view) == prompts:
            return
        prompted = active.with_prompts(view, prompts)
        label = f"{'Clear prompts' if prompts is None else 'Prompt'} of {active.name} on slice {view.index}"
        self._edit(label, lambda now: now.with_object(prompted))

    def created_object(self) -> AnnotatedObject:
        """Another object of the active organ with a name and a number of its own; not among `objects` yet."""
        siblings = [o for o in self.objects.values() if o.class_id == self.active_class_id]
        name = self.organs.name_of(self.active_class_id)
        taken = {o.name for o in siblings}
        number = len(siblings) + 1
        while (title := name if number == 1 else f"{name} {number}") in taken:
            number += 1
        object_id = max([self._next_object_id, *(i + 1 for i in self.objects)])
        self._next_object_id = object_id + 1
        return AnnotatedObject(object_id, self.active_class_id, title)

    def accept(self) -> Change | None:
        """Write the preview into the labels under the active object; one undo step.

        Raises
        ------
        LockedError
            If the organ is locked.
        PromptError
            If the preview is empty: accepting it would only erase.
        """
        preview, active = self.preview, self.active_object
        if preview is None or active is None or self.labels is None:
            return None
        self.check_unlocked(active.class_id)
        if not preview.mask.any():
            raise PromptError("The proposed mask is empty; nothing was changed. Add a box or a click.")
        with self.begin(f"Accept {active.name} on slice {preview.view.index}", self.model) as change:
            change.put_mask(active.object_id, preview.view, preview.mask, "prompt", preview.quality)
            self.preview = None
        return change.committed

    def record_stroke(self, views: Collection[SliceView] | None = None) -> Change | None:
        """Take what was painted on the labels into the undo stack.

        Painted voxels of the active object's class join that object; its slice becomes a key slice, which
        propagation leaves as it is. Voxels of locked organs are put back.
        """
        if self._strokes is None or self.labels is None:
            return None
        strokes, put_back = self._strokes.capture(views, self.organs.locked_ids)
        for refused in put_back:
            self.stroke_refused.emit(refused)
        if not strokes:
            return None
        with self.begin("Paint") as change:
            for stroke in strokes:
                change.take_stroke(stroke)
            self.organs = self.organs.covering(
                {int(i) for stroke in strokes for i in np.unique(stroke.after)} - self.organs.keys()
            )
            self.labels.organs = self.organs
        return change.committed

    # what propagation is given

    def propagation_input(
        self, object_ids: Collection[int]
    ) -> tuple[
        dict[int, tuple[int, Mapping[SliceView, Prompts]]],
        dict[int, dict[SliceView, npt.NDArray[np.bool_]]],
    ]:
        """Objects and accepted key masks, as `napari_sam_med.propagate` takes them.

        Clicks that put a carried mask right and were not accepted are left out: alone they would ask for
        something else.

        Raises
        ------
        PromptError
            If an object has no key slice, or one with a click that is newer than its mask.
        LockedError
            If an organ is locked.
        """
        object_ids = [object_id for object_id in object_ids if object_id in self.objects]
        if not object_ids:
            raise PromptError("There is nothing to carry: draw a box or click on an organ first.")
        objects: dict[int, tuple[int, Mapping[SliceView, Prompts]]] = {}
        masks: dict[int, dict[SliceView, npt.NDArray[np.bool_]]] = {}
        for object_id in object_ids:
            item = self.objects[object_id]
            self.check_unlocked(item.class_id)
            for view in item.key_slices:
                if item.has_newer_prompts(view):
                    raise PromptError(
                        f"Slice {view.index} has a new click that is not accepted yet; "
                        "press Enter or Escape first."
                    )
            masks[object_id] = {view: mask.unpack() for view, mask in item.masks.items() if mask.is_key}
            prompted = {
                view: prompts
                for view, prompts in item.key_slices.items()
                if not item.waits_for_acceptance(view)
            }
            if not prompted and not masks[object_id]:
                raise PromptError(f"{item.name} has no key slice: prompt or paint it on one slice first.")
            objects[object_id] = (item.class_id, prompted)
        return objects, masks

    def locked_voxels(self) -> npt.NDArray[np.bool_] | None:
        """Voxels (z, y, x) of locked organs, in a new array; None where there is none, or no room."""
        locked = [class_id for class_id in self.organs.locked_ids if self.voxel_count(class_id)]
        # where they do not fit into memory, locked voxels are kept as masks are written, by the labels
        if self.labels is None or not locked or is_on_disk(self.labels.data):
            return None
        return np.isin(self.labels.data, locked)

    def check_unlocked(self, class_id: int) -> None:
        """Raise `LockedError` if an organ is locked."""
        organ = self.organs.get(class_id)
        if organ is not None and organ.locked:
            raise LockedError(f"{organ.name} is locked, so it is not changed; unlock it in the organ list.")


def _organ_edit_label(old: Organ, new: Organ) -> str:
    if old.name != new.name:
        return f"Rename {old.name} to {new.name}"
    if old.locked != new.locked:
        return f"{'Lock' if new.locked else 'Unlock'} {new.name}"
    if old.visible != new.visible:
        return f"{'Show' if new.visible else 'Hide'} {new.name}"
    return f"Colour {new.name}"
