"""The copy that is written is what the labels are when it is finished, whatever was done meanwhile."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_sam_med.sam.prompts import Prompts
from napari_sam_med.session.journal import SessionJournal
from napari_sam_med.session.labels_copy import LabelsCopy
from napari_sam_med.session.new_labels import compare, put_in_place
from napari_sam_med.session.session import Preview, Session
from napari_sam_med.volume.grid import Grid
from napari_sam_med.volume.labels import LabelVolume
from napari_sam_med.volume.slice_view import PLANES, SliceView
from napari_sam_med.volume.volume import Volume
from tests.session.journal_checks import run
from tests.session.test_session import LIVER, SPLEEN

SHAPE = (5, 8, 9)
A_LARGE_NUMBER = 300
"""For which labels have to grow."""
ACTS = st.lists(
    st.tuples(
        st.sampled_from(("accept", "grow", "paint", "erase", "undo", "redo", "replace")),
        st.sampled_from(PLANES),
        st.integers(0, 4),
    ),
    max_size=6,
)


def do(session: Session, act: str, view: SliceView, number: int) -> None:
    """One thing that a user can do."""
    if act in ("accept", "grow"):
        class_id = A_LARGE_NUMBER if act == "grow" else (LIVER, SPLEEN)[number % 2]
        session.organs = session.organs.covering([class_id])
        session.select_organ(class_id)
        session.prompt(view, Prompts.from_box((1, 1, 4, 4)))
        mask = np.zeros(view.slice_shape(SHAPE), dtype=bool)
        mask[number : number + 2, 1:5] = True
        session.preview = Preview(view, mask, 0.8)
        session.accept()
    elif act in ("paint", "erase"):
        view.window_on(session.labels.data)[1:3, number : number + 3] = LIVER if act == "paint" else 0
        session.record_stroke([view])
    elif act == "replace":
        data = np.zeros(SHAPE, dtype=np.uint8)
        data[:, number] = SPLEEN
        put_in_place(session, run(compare(data, session.labels)), "Bring back", session.annotations)
    else:
        getattr(session, act)()


@given(before=ACTS, early=ACTS, late=ACTS)
@settings(max_examples=80, deadline=None)
def test_it_is_what_the_labels_are_in_the_end(before: list, early: list, late: list) -> None:
    volume = Volume(data=np.zeros(SHAPE, dtype=np.int16), grid=Grid.from_zyx(SHAPE, (2.0, 1.0, 1.0)))
    session = Session()
    session.open(volume, LabelVolume.like(volume), (-160.0, 240.0))

    def work(acts: list) -> None:
        for act, plane, number in acts:
            do(session, act, SliceView(plane, number), number)

    work(before)
    copy = LabelsCopy(session, SessionJournal(session, None))
    job = copy.make()
    next(job)
    work(early)
    assert next(job, None) is None  # copies
    work(late)
    labels, now = copy.finish(session.organs), session.labels.data.copy()
    work(early)  # is no more followed
    assert labels.data.dtype == now.dtype
    np.testing.assert_array_equal(labels.data, now)
    assert labels.grid == volume.grid


def test_of_a_scan_that_was_left_it_is_what_its_labels_were(session: Session, volume: Volume, accept) -> None:
    accept(LIVER)
    copy, labels = LabelsCopy(session, SessionJournal(session, None)), session.labels
    run(copy.make())
    session.open(volume, LabelVolume.like(volume), (-160.0, 240.0))
    accept(SPLEEN)
    made = copy.finish(labels.organs)
    np.testing.assert_array_equal(made.data, labels.data)
    assert made.class_ids() == (LIVER,)


def test_s11_what_somebody_else_writes_meanwhile_is_in_it_or_not_taken_to_be_exported(
    session: Session, journal: SessionJournal, accept
) -> None:
    """Safety contract, statement 11."""
    accept(LIVER)
    copy = LabelsCopy(session, journal)
    run(copy.make())
    session.labels.data[5, 2:4, 2:4] = SPLEEN
    journal.sync()  # by a timer
    assert journal._writer.wait(10)
    session.labels.data[6, 2:4, 2:4] = SPLEEN  # is not found yet
    journal.sync()
    exported = journal.change_number
    made = copy.finish(session.organs)
    journal.mark_exported(exported)
    np.testing.assert_array_equal(made.data[:6], session.labels.data[:6])
    journal.flush()
    assert journal.has_unexported_changes
