"""What was found without a hand: the candidates, which one is pointed at, and taking one into an organ."""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Literal
from weakref import WeakValueDictionary

import numpy as np
import numpy.typing as npt
from psygnal import Signal

from napari_sam_med.errors import PromptError
from napari_sam_med.sam.prompts import Prompts
from napari_sam_med.segmentation.automatic.found_objects import FoundMask, FoundObject
from napari_sam_med.session.organ_suggestion import organ_called
from napari_sam_med.volume.organs import Organ, OrganTable, default_color

if TYPE_CHECKING:
    from napari_sam_med.segmentation.automatic.words import RankedObject
    from napari_sam_med.session.changes import Change
    from napari_sam_med.session.objects import AnnotatedObject, Origin
    from napari_sam_med.session.open_change import OpenChange
    from napari_sam_med.session.session import Session
    from napari_sam_med.volume.slice_view import SliceView

__all__ = ["Found", "FoundBox", "Into", "Taken", "example_here", "taking", "use_box"]

Into = Literal["active", "suggested", "new"]
"""The organ that a candidate is taken into: the chosen one, the one that it looks like (the chosen one where
no candidate looks like any), or another one.
"""

_OTHER = "other"
_MOST_NAMED = 3
"""Organs that a candidate overlaps with: more do not fit a line."""


@dataclass(frozen=True)
class FoundBox:
    """A box that was proposed.

    Attributes
    ----------
    number : int
        From 1.
    view : SliceView
    box_xyxy : (x_min, y_min, x_max, y_max)
        In pixels of the slice, both corners inside the box.
    score : float
        How sure it is, 0..1.
    """

    number: int
    view: SliceView
    box_xyxy: tuple[float, float, float, float]
    score: float


@dataclass(frozen=True, eq=False)
class Taken:
    """What came of taking a candidate.

    Attributes
    ----------
    change : Change
        The undo step.
    n_voxels : int
        Of the candidate.
    kept : mapping
        Voxels of it that other organs had and kept, ``{class_id: number of voxels}``.
    """

    change: Change
    n_voxels: int
    kept: Mapping[int, int]

    def told(self, organs: OrganTable) -> str:
        """What other organs keep of it, such as ``spleen (locked) keeps 26 % of it``; empty where they had
        nothing.
        """
        if not self.kept:
            return ""
        named = _named(self.kept, organs)
        shown, others = named[:_MOST_NAMED], sum(n for _, n in named[_MOST_NAMED:])
        (first, n_first), *more = [*shown, *([("other organs", others)] if others else [])]
        shares = [f"{name} {_percent(n, self.n_voxels)}" for name, n in more]
        return ", ".join([f"{first} keeps {_percent(n_first, self.n_voxels)} of it", *shares])


def _named(voxels: Mapping[int, int], organs: OrganTable) -> list[tuple[str, int]]:
    """Organs by name with their voxels, locked ones first, then by falling number of voxels."""
    locked = set(organs.locked_ids)
    order = sorted(voxels.items(), key=lambda entry: (entry[0] not in locked, -entry[1], entry[0]))
    return [(f"{organs.name_of(i)}{' (locked)' if i in locked else ''}", n) for i, n in order]


def _percent(part: int, whole: int) -> str:
    share = 100.0 * part / whole
    if share < 1.0:
        return "under 1 %"
    return "over 99 %" if share > 99.0 else f"{share:.0f} %"


class Found:
    """Candidates of one run; every change announces itself.

    Signals
    -------
    objects_changed : SliceView or None
        More was found on that slice; None: all of it is another.
    pointed_changed
        `pointed` is another one.
    taken_changed
        A candidate was taken, or came back by undo.

    Attributes
    ----------
    objects : mapping
        ``{number: FoundObject}``.
    boxes : mapping
        ``{number: FoundBox}``; a run finds objects or boxes, never both.
    pointed : int or None
        Number of the candidate that the user points at.
    word : str
        What the candidates were compared with last; empty while they were not.
    best_score : float
        Probability that the likeliest candidate is what the word means; 0 without a word.
    awaits_names : bool
        Whether a run is under way that tells at its end what they look like.
    """

    objects_changed: ClassVar[Signal] = Signal(object)
    pointed_changed: ClassVar[Signal] = Signal()
    taken_changed: ClassVar[Signal] = Signal()

    def __init__(self, session: Session) -> None:
        self._session = session
        self.objects: dict[int, FoundObject] = {}
        self.boxes: dict[int, FoundBox] = {}
        self._boxes_on: dict[SliceView, list[FoundBox]] = {}
        self.pointed: int | None = None
        self.word, self.best_score, self.awaits_names = "", 0.0, False
        self._scores: dict[int, float] = {}
        self._takings: WeakValueDictionary[int, Change] = WeakValueDictionary()  # undo keeps what it can undo
        self._taken: frozenset[int] = frozenset()
        self._on_slices: dict[SliceView, list[tuple[int, FoundMask]]] = {}
        session.reverted.connect(self._on_reverted)
        session.reapplied.connect(self._on_reapplied)

    @property
    def is_empty(self) -> bool:
        """Whether there is no candidate, taken ones included."""
        return not self.objects and not self.boxes

    @property
    def taken(self) -> frozenset[int]:
        """Numbers of candidates that stand in the labels."""
        return self._taken

    # what there is

    def clear(self) -> None:
        """Forget all candidates; what was taken stays in the labels."""
        self.replace(())

    def replace(self, objects: Iterable[FoundObject]) -> None:
        """Other candidates instead of those that are there, boxes included."""
        self.objects = {one.number: one for one in objects}
        self.boxes, self._boxes_on = {}, {}
        self.word, self._scores, self.best_score = "", {}, 0.0
        self._taken, self._on_slices = frozenset(), {}
        self._takings, self.awaits_names = WeakValueDictionary(), False
        self.point_at(None)
        self.objects_changed.emit(None)

    def add(self, view: SliceView, masks: Iterable[FoundMask]) -> None:
        """More candidates, as they are found: until they are linked, each mask is one by itself."""
        for mask in masks:
            number = len(self.objects) + 1
            self.objects[number] = FoundObject(number, {view: mask}, _between_0_and_1(mask.predicted_iou))
        self._on_slices.pop(view, None)
        self.objects_changed.emit(view)

    def add_boxes(self, view: SliceView, boxes: Iterable[FoundBox]) -> None:
        """More boxes of a slice; they are numbered anew."""
        for number, box in enumerate(boxes, start=len(self.boxes) + 1):
            self.boxes[number] = replace(box, number=number)
            self._boxes_on.setdefault(view, []).append(self.boxes[number])
        self._boxes_on.setdefault(view, []).sort(key=lambda box: (-box.score, box.number))
        self.objects_changed.emit(view)

    def put_boxes_in_order(self) -> None:
        """Number the boxes slice by slice, whatever slice came first."""
        slices = sorted(self._boxes_on.items(), key=lambda item: item[0].index)
        pointed = None if self.pointed is None else self.boxes[self.pointed]
        ordered = [box for _, boxes in slices for box in sorted(boxes, key=lambda box: box.number)]
        self.boxes, self._boxes_on = {}, {}
        for number, box in enumerate(ordered, start=1):
            self.boxes[number] = replace(box, number=number)
            self._boxes_on.setdefault(box.view, []).append(self.boxes[number])
        for boxes in self._boxes_on.values():
            boxes.sort(key=lambda box: (-box.score, box.number))
        self.objects_changed.emit(None)
        self.point_at(None if pointed is None else 1 + ordered.index(pointed))

    def boxes_on(self, view: SliceView) -> Sequence[FoundBox]:
        """Boxes of a slice, the best first."""
        return self._boxes_on.get(view, ())

    def on_slice(self, view: SliceView) -> list[tuple[int, FoundMask]]:
        """Numbers and masks of the candidates of a slice that were not taken, the smallest first."""
        here = self._on_slices.get(view)
        if here is None:  # put in order for the slices that are looked at alone
            shown = ((one.number, one.masks[view]) for one in self.objects.values() if view in one.masks)
            here = self._on_slices[view] = sorted(shown, key=lambda entry: (entry[1].area_px, entry[0]))
        return [(number, mask) for number, mask in here if number not in self._taken]

    def under(self, view: SliceView, xy: Sequence[float]) -> list[int]:
        """Numbers of the candidates at a pixel (x, y) of a slice, the smallest first."""
        column, row = (round(float(value)) for value in xy)
        found = []
        for number, mask in self.on_slice(view):
            top, left = mask.corner
            height, width = mask.pixels.shape
            is_near = 0 <= row - top < height and 0 <= column - left < width
            if is_near and mask.pixels[row - top, column - left]:
                found.append(number)
        return found

    def mask_on(self, number: int | None, view: SliceView) -> FoundMask | None:
        """A candidate's mask on a slice; None where it has none."""
        one = None if number is None else self.objects.get(number)
        return None if one is None else one.masks.get(view)

    def point_at(self, number: int | None) -> None:
        """The user points at a candidate (None: at none)."""
        if number != self.pointed:
            self.pointed = number
            self.pointed_changed.emit()

    # what it is

    def guess(self, number: int) -> str:
        """Name of the organ that a candidate looks like; empty where nothing is sure enough."""
        organ = self.objects[number].organ
        return "" if organ is None or organ.abstained or organ.name == _OTHER else organ.name

    def volume_ml(self, number: int) -> float:
        """Volume of a candidate in millilitres."""
        labels = self._session.labels
        voxel = 0.0 if labels is None else labels.grid.voxel_volume_mm3
        return self.objects[number].voxels * voxel / 1000.0

    def rank(self, ranked: Iterable[RankedObject], word: str) -> None:
        """Show the candidates in the order of a word; those taken before stay so."""
        ranked = list(ranked)
        now = {id(one.object.masks): one.object.number for one in ranked}
        numbers = {number: now[id(one.masks)] for number, one in self.objects.items() if id(one.masks) in now}
        takings = {numbers[old]: change for old, change in self._takings.items() if old in numbers}
        taken = frozenset(numbers[old] for old in self._taken if old in numbers)
        self.replace(one.object for one in ranked)
        self.word = word
        self._scores = {one.object.number: one.score for one in ranked}
        self.best_score = max(self._scores.values(), default=0.0)
        self._takings.update(takings)
        self._taken = taken
        self.objects_changed.emit(None)

    @property
    def is_nothing_like_it(self) -> bool:
        """Whether there are candidates, and none of them is what the word means."""
        from napari_sam_med.segmentation.automatic.words import RULED_OUT  # torch is loaded with it

        return bool(self._scores) and self.best_score < RULED_OUT

    @property
    def is_ranked(self) -> bool:
        """Whether the order is that of a word; an order of what is ruled out says nothing."""
        return bool(self._scores) and not self.is_nothing_like_it

    def score(self, number: int) -> float:
        """What a candidate is ranked by."""
        return self._scores.get(number, 0.0) if self.is_ranked else self.objects[number].score

    @property
    def ranked(self) -> list[int]:
        """Numbers, the best first: by the word that was asked for, else by how sure the organ is or score."""
        if self.boxes:
            return sorted(self.boxes, key=lambda number: (-self.boxes[number].score, number))

        def order(number: int) -> tuple[bool, float, int]:
            organ = self.objects[number].organ
            if self.is_ranked or organ is None or not self.guess(number):
                return not self.is_ranked, -self.score(number), number
            return False, -organ.probability, number

        return sorted(self.objects, key=order)

    def unknown(self, number: int) -> str:
        """Why the chosen organ is hardly meant: a candidate looks like none, but others do; else empty."""
        if self.awaits_names:
            return "What it looks like is told when all is searched"
        is_odd = not self.guess(number) and any(map(self.guess, self.objects))
        return "It looks like no known organ" if is_odd else ""

    def organ_for(self, number: int, into: Into) -> Organ:
        """The organ that a candidate goes to.

        Raises
        ------
        PromptError
            If the organ that it looks like is asked for, and it looks like none while others do or may.
        """
        organs, active = self._session.organs, self._session.active_class_id
        if into == "suggested" and (why := self.unknown(number)):
            raise PromptError(f"{why}; choose its organ in the list, then click.")
        if into == "suggested" and self.guess(number):
            return organ_called(self.guess(number), organs)
        if into != "new" and active in organs:
            return organs[active]
        class_id = organs.next_free_id()
        return Organ(class_id, f"object {class_id}", default_color(class_id))

    # taking and coming back

    def note_taken(self, number: int, change: Change) -> None:
        """A candidate stands in the labels by an undo step: it is no candidate while that holds."""
        self._takings[number] = change
        self._set_taken(self._taken | {number})
        if self.pointed == number:
            self.point_at(None)

    def _on_reverted(self, change: Change) -> None:
        self._set_taken(self._taken - self._numbers_of(change))

    def _on_reapplied(self, change: Change) -> None:
        self._set_taken(self._taken | self._numbers_of(change))

    def _numbers_of(self, change: Change) -> set[int]:
        return {number for number, made in self._takings.items() if made is change}

    def _set_taken(self, taken: frozenset[int]) -> None:
        if taken != self._taken:
            self._taken = taken
            self.taken_changed.emit()


def taking(
    session: Session, found: FoundObject, organ: Organ, *, model: str | None = None, joins: bool = False
) -> Generator[None, None, Taken | None]:
    """Write a candidate into an organ, a slice between two yields; one undo step.

    It becomes an object: its slice with most of it is a key slice, where later clicks put it right and from
    where it can be carried on; the others count as carried. Voxels of other organs stay theirs. Closing the
    generator before its end takes everything back.

    Parameters
    ----------
    session : Session
    found : FoundObject
    organ : Organ
        Added to the table where it is missing.
    model : str, optional
        Name of the model that found it.
    joins : bool
        Put it to the newest object of that organ, where there is one, instead of making another object.

    Returns
    -------
    Taken or None
        None when undo ended it, or the scan was left.

    Raises
    ------
    LockedError
        If the organ is locked.
    PromptError
        If all of it lies in other organs.
    """
    labels = session.labels
    if labels is None:
        return None
    session.check_unlocked(organ.class_id)
    parts: dict[SliceView, npt.NDArray[np.bool_]] = {}
    kept: Counter[int] = Counter()
    with session.begin(f"Take found object into {organ.name}", model) as change:
        for view, mask in found:
            part = _free_part(mask, view.window_on(labels.data)[mask.place], organ.class_id, kept)
            if part.any():
                parts[view] = part
            yield
            if not change.is_open:  # the scan is left
                return None
        if not parts:
            raise PromptError(_all_taken(kept, organ, session.organs))
        key = max(parts, key=lambda view: (np.count_nonzero(parts[view]), -view.index))
        session.organs = session.organs.with_organ(organ)
        labels.organs = session.organs
        session.preview = None
        session.active_class_id = organ.class_id
        target = _target(session, organ, joins)
        session.objects = {**session.objects, target.object_id: target}
        session.active_object_id = target.object_id
        for view in (key, *(view for view in parts if view != key)):
            _put(session, change, target.object_id, view, found.masks[view], parts[view], view == key)
            yield
            if not change.is_open:  # undone meanwhile
                return None
    return None if change.committed is None else Taken(change.committed, found.voxels, dict(kept))


def _free_part(
    mask: FoundMask, labels_here: npt.NDArray[np.unsignedinteger], class_id: int, kept: Counter[int]
) -> npt.NDArray[np.bool_]:
    """What of a mask lies in no other organ, within its tangent box; the others' voxels are counted."""
    others = mask.pixels & (labels_here != 0) & (labels_here != class_id)
    if not others.any():
        return mask.pixels
    numbers, counts = np.unique(labels_here[others], return_counts=True)
    kept.update(dict(zip(numbers.tolist(), counts.tolist(), strict=True)))
    free: npt.NDArray[np.bool_] = mask.pixels & ~others
    return free


def _all_taken(kept: Mapping[int, int], organ: Organ, organs: OrganTable) -> str:
    owners = " and ".join(name for name, _ in _named(kept, organs))
    locked = " and ".join(organs.name_of(i) for i in sorted(kept) if i in organs.locked_ids)
    remedy = f"unlock {locked} and erase there first" if locked else "erase there first"
    return f"All of this object is {owners} already, so nothing was taken into {organ.name}; {remedy}."


def _put(
    session: Session,
    change: OpenChange,
    object_id: int,
    view: SliceView,
    mask: FoundMask,
    part: npt.NDArray[np.bool_],
    is_key: bool,
) -> None:
    had = session.objects[object_id].masks.get(view)
    whole = np.zeros(mask.shape, dtype=bool) if had is None else had.unpack()
    whole[mask.place] |= part
    source: Origin = "prompt" if is_key else "propagated"
    quality: float | None = _between_0_and_1(mask.predicted_iou)
    if had is not None and had.is_key:
        source, quality = had.source, had.quality
    change.put_mask(object_id, view, whole, source, quality)


def _target(session: Session, organ: Organ, joins: bool) -> AnnotatedObject:
    own = [one for one in session.objects.values() if one.class_id == organ.class_id]
    if joins and own:
        return max(own, key=lambda one: one.object_id)
    return session.created_object()


def use_box(session: Session, found: FoundBox) -> None:
    """Prompt the active object with a proposed box, in place of the box that it has there; one undo step.

    Raises
    ------
    LockedError
        If the organ is locked.
    """
    session.check_unlocked(session.active_class_id)
    active = session.active_object
    known = None if active is None else active.key_slices.get(found.view)
    if known is None:
        prompts = Prompts.from_box(found.box_xyxy)
    else:
        prompts = Prompts(
            known.points_xy, known.point_labels, found.box_xyxy, known.mask_input, known.outline_xy
        )
    session.prompt(found.view, prompts)


def example_here(session: Session, view: SliceView) -> npt.NDArray[np.bool_]:
    """What the chosen organ has on a slice (H, W), to go by.

    Raises
    ------
    PromptError
        If it has nothing there.
    """
    class_id, labels = session.active_class_id, session.labels
    if labels is None or not (mask := view.extract(labels.data) == class_id).any():
        raise PromptError(
            f"{session.organs.name_of(class_id)} has no mask on this slice to go by; accept one here, or go "
            "to a slice that has one."
        )
    return np.asarray(mask)


def _between_0_and_1(value: float) -> float:
    return min(1.0, max(0.0, float(value)))
