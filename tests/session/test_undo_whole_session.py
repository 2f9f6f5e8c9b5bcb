"""Statement 10: a hundred steps of every kind and more, taken back to the start and done again to the end."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from napari_sam_med.progress import Progress
from napari_sam_med.sam.prompts import Prompts
from napari_sam_med.segmentation.propagation import PropagatedSlice
from napari_sam_med.session.changes import Change
from napari_sam_med.session.clean_up import clean_up, erase, fill_between
from napari_sam_med.session.journal_annotations import NOTHING, encode_annotations
from napari_sam_med.session.journal_records import Blobs
from napari_sam_med.session.new_labels import compare, put_in_place
from napari_sam_med.session.objects import Annotations
from napari_sam_med.session.session import Preview, Session
from napari_sam_med.volume.grid import Grid
from napari_sam_med.volume.labels import LabelVolume
from napari_sam_med.volume.organs import Organ, OrganTable
from napari_sam_med.volume.slice_view import PLANES, SliceView
from napari_sam_med.volume.volume import Volume
from tests.session.journal_checks import run

SHAPE = (8, 24, 32)
CLASS_IDS = (1, 6, 11, 300)
"""The last one needs uint16 labels."""


def opened() -> Session:
    session = Session()
    volume = Volume(data=np.zeros(SHAPE, dtype=np.int16), grid=Grid.from_zyx(SHAPE, (4.0, 1.5, 1.0)))
    session.open(volume, LabelVolume.like(volume), (-160.0, 240.0))
    session.set_organ(Organ(300, "cyst", (1.0, 0.0, 0.0)))
    session.undo_stack.clear()
    return session


def state(session: Session) -> tuple[bytes, str, list[bytes], dict[int, int]]:
    """All that undo brings back, to the byte, and the counts that follow it."""
    blobs = Blobs()
    now = replace(session.annotations, active_class_id=0, active_object_id=None)
    fields = encode_annotations(NOTHING, now, blobs)
    counts = {class_id: session.voxel_count(class_id) for class_id in (*session.organs, 0)}
    return session.labels.data.astype(np.uint16).tobytes(), repr(fields), blobs.parts, counts


class Annotator:
    """Does one thing after the other at random places; each is one step, or nothing at all."""

    def __init__(self, session: Session, rng: random.Random) -> None:
        self.session = session
        self.rng = rng

    def view(self) -> SliceView:
        plane = self.rng.choice(PLANES)
        return SliceView(plane, self.rng.randrange({"axial": 8, "coronal": 24, "sagittal": 32}[plane]))

    def block(self, shape: tuple[int, ...]) -> tuple[slice, ...]:
        ends = [sorted(self.rng.sample(range(n + 1), 2)) for n in shape]
        return tuple(slice(*pair) for pair in ends)

    def mask(self, view: SliceView) -> np.ndarray:
        mask = np.zeros(view.slice_shape(SHAPE), dtype=bool)
        mask[self.block(mask.shape)] = True
        return mask

    def prompt(self) -> None:
        self.session.prompt(self.view(), Prompts.from_points([(self.rng.randrange(8), self.rng.random())]))

    def accept(self) -> None:
        """Two steps: the prompt, and the mask, which may take from any organ that is not locked."""
        session, view = self.session, self.view()
        unlocked = [i for i in CLASS_IDS if i in session.organs and not session.organs[i].locked]
        if not unlocked:
            return
        session.select_organ(self.rng.choice(unlocked))
        session.prompt(view, Prompts.from_box((1, 1, self.rng.randrange(2, 8), 7)))
        session.preview = Preview(view, self.mask(view), self.rng.random())
        session.accept()

    def paint(self) -> None:
        """A stroke of the brush, in one slice of any plane."""
        view = self.view()
        window = view.window_on(self.session.labels.data)
        window[self.block(window.shape)] = self.rng.choice([0, 1, 6, 11])
        self.session.record_stroke([view])

    def fill(self) -> None:
        """The bucket in three dimensions, or another plugin."""
        self.session.labels.data[self.block(SHAPE)] = self.rng.choice([0, 1, 6, 11])
        self.session.record_stroke()

    def carry(self) -> None:
        item = self.session.active_object
        if item is None or self.session.organs[item.class_id].locked:
            return
        first, last = sorted(self.rng.sample(range(8), 2))
        with self.session.begin(f"Carry {item.name}") as change:
            for index in range(first, last + 1):
                view = SliceView("axial", index)
                reason = "the border is unclear" if index == last else None
                change.put(
                    PropagatedSlice(Progress(index, 8), item.object_id, item.class_id, view, self.mask(view),
                                    None, self.rng.random(), "propagated", reason, "forward")
                )  # fmt: skip
            change.drop_outdated(0, 7)

    def open_labels(self) -> None:
        """Labels of a file, with a table of their own."""
        rng = np.random.default_rng(self.rng.randrange(1000))
        data = rng.choice(np.array([0, 0, 0, 1, 6, 40], dtype=np.uint8), SHAPE)
        organs = OrganTable.btcv().with_organ(Organ(40, "label 40", (0.0, 1.0, 0.0)))
        new = run(compare(data, self.session.labels))
        put_in_place(self.session, new, "Open labels", Annotations(organs, {}, 1, None))

    def rename(self) -> None:
        organ = self.session.organs[self.rng.choice(list(self.session.organs))]
        self.session.set_organ(replace(organ, name=f"{organ.name} x", locked=self.rng.random() < 0.2))

    def remove_organ(self) -> None:
        class_id = self.rng.choice(list(self.session.organs))
        if not self.session.organs[class_id].locked and len(self.session.organs) > 8:
            self.session.remove_organ(class_id)

    def remove_object(self) -> None:
        for object_id, item in self.session.objects.items():
            if not self.session.organs[item.class_id].locked:
                self.session.remove_object(object_id)
                return

    def clean_up(self) -> None:
        target = self.target()
        if target is not None:
            operation = self.rng.choice(["largest_component", "fill_holes", "smooth"])
            clean_up(self.session, target, operation, **({"radius_mm": 2.0} if operation == "smooth" else {}))

    def erase(self) -> None:
        target = self.target()
        if target is not None:
            erase(self.session, target, self.rng.choice([None, self.view()]))

    def fill_between(self) -> None:
        """Two masks of one object, and the slices between them."""
        session = self.session
        if (
            session.organs[session.active_class_id].locked
            if session.active_class_id in session.organs
            else True
        ):
            return
        session.new_object()
        for index in (1, 6):
            view = SliceView("axial", index)
            session.prompt(view, Prompts.from_box((1, 1, 5, 7)))
            session.preview = Preview(view, self.mask(view), 0.5)
            session.accept()
        if all(SliceView("axial", index) in session.active_object.masks for index in (1, 6)):
            fill_between(session, [session.active_object_id])

    def target(self) -> int | None:
        """An object that can be worked on."""
        data, organs = self.session.labels.data, self.session.organs
        for object_id, item in self.session.objects.items():
            if not organs[item.class_id].locked and (item.voxels(SHAPE) & (data == item.class_id)).any():
                return object_id
        return None


KINDS: tuple[Callable[[Annotator], None], ...] = (
    *[Annotator.accept] * 4,
    *[Annotator.paint] * 2,
    Annotator.prompt,
    Annotator.fill,
    Annotator.carry,
    Annotator.carry,
    Annotator.open_labels,
    Annotator.rename,
    Annotator.remove_organ,
    Annotator.remove_object,
    Annotator.clean_up,
    Annotator.erase,
    Annotator.fill_between,
)


class Stack:
    """The states between the steps, as they were when each was committed."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.states = [state(session)]
        self.labels: list[str] = []
        session.committed.connect(self._on_committed)

    def _on_committed(self, change: Change) -> None:
        self.states.append(state(self.session))
        self.labels.append(change.label)


@pytest.mark.parametrize("seed", range(4))
def test_everything_is_undone_to_the_start_and_redone_to_the_end(seed: int) -> None:
    """Statement 10: more than a hundred steps, and every state between them comes back to the byte."""
    session = opened()
    stack, annotator = Stack(session), Annotator(session, random.Random(seed))
    while len(stack.labels) < 150:
        annotator.rng.choice(KINDS)(annotator)
    kinds = {label.split()[0] for label in stack.labels}
    assert {"Accept", "Paint", "Carry", "Open", "Prompt", "Rename", "Remove", "Erase", "Fill"} <= kinds
    for expected, label in zip(reversed(stack.states[:-1]), reversed(stack.labels), strict=True):
        assert session.undo() == label
        assert state(session) == expected, label
    assert session.undo() is None
    assert not session.labels.data.any()
    for expected, label in zip(stack.states[1:], stack.labels, strict=True):
        assert session.redo() == label
        assert state(session) == expected, label
    assert session.redo() is None


class UndoneAndRedone(RuleBasedStateMachine):
    """Whatever is done, undone, done again or done anew: the session is where its history says."""

    def __init__(self) -> None:
        super().__init__()
        self.session = opened()
        self.stack = Stack(self.session)
        self.here = 0

    @rule(kind=st.sampled_from(sorted(set(KINDS), key=lambda kind: kind.__name__)), seed=st.integers(0, 999))
    def do(self, kind: Callable[[Annotator], None], seed: int) -> None:
        n_before = len(self.stack.labels)
        states, labels = self.stack.states, self.stack.labels
        self.stack.states, self.stack.labels = states[: self.here + 1], labels[: self.here]
        kept = (states, labels)
        kind(Annotator(self.session, random.Random(seed)))
        if len(self.stack.labels) == self.here:
            self.stack.states, self.stack.labels = kept  # nothing happened, so redo still knows the rest
            assert len(self.stack.labels) == n_before
        else:
            self.here = len(self.stack.labels)

    @precondition(lambda self: self.here)
    @rule()
    def undo(self) -> None:
        self.here -= 1
        assert self.session.undo() == self.stack.labels[self.here]

    @precondition(lambda self: self.here < len(self.stack.labels))
    @rule()
    def redo(self) -> None:
        assert self.session.redo() == self.stack.labels[self.here]
        self.here += 1

    @invariant()
    def is_where_its_history_says(self) -> None:
        assert state(self.session) == self.stack.states[self.here]

    @invariant()
    def the_counts_are_those_of_the_labels(self) -> None:
        present = np.bincount(self.session.labels.data.ravel(), minlength=301)
        for class_id in self.session.organs:
            assert self.session.voxel_count(class_id) == present[class_id]


TestUndoneAndRedone = UndoneAndRedone.TestCase
TestUndoneAndRedone.settings = settings(
    max_examples=40, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)
