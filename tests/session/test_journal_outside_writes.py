"""What others write into the labels, at the worst moments for the journal."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace

import pytest

from napari_sam_med.session import journal_writer
from napari_sam_med.session.journal import SessionJournal
from napari_sam_med.session.journal_folder import JournalFolder
from napari_sam_med.session.journal_image import ImageIdentity
from napari_sam_med.session.journal_writer import JournalWriter
from napari_sam_med.session.session import Session
from napari_sam_med.volume.slice_view import SliceView
from tests.session.journal_checks import LIVER, SPLEEN, assert_kept


def test_s03_writing_behind_a_comparison_under_way_is_found_by_flush(
    session: Session,
    accept: Callable,
    journal: SessionJournal,
    folder: JournalFolder,
    image: ImageIdentity,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Safety contract, statement 3: the comparison has passed the slice, and is not over."""
    accept()
    assert journal.flush()
    compared, may_go_on = threading.Event(), threading.Event()
    compare = JournalWriter._differs

    def differs(writer: JournalWriter, index: int) -> bool:
        found = compare(writer, index)
        if not compared.is_set():
            compared.set()
            may_go_on.wait(10)
        return found

    monkeypatch.setattr(JournalWriter, "_differs", differs)
    wait = JournalWriter.wait

    def wait_for_it(writer: JournalWriter, timeout: float) -> bool:
        may_go_on.set()
        return wait(writer, timeout)

    monkeypatch.setattr(JournalWriter, "wait", wait_for_it)
    journal.sync()
    assert compared.wait(10)
    session.labels.data[0, 5:9, 5:9] = SPLEEN
    assert journal.flush()
    assert_kept(folder, image, session)


def test_s03_a_stroke_on_a_locked_organ_that_was_seen_before_it_was_put_back(
    session: Session, accept: Callable, journal: SessionJournal, folder: JournalFolder, image: ImageIdentity
) -> None:
    """Safety contract, statement 3: what is put back is put back in the journal with the next look."""
    accept()
    session.set_organ(replace(session.organs[LIVER], locked=True))
    journal.mark_exported()
    session.labels.data[0, 5:9, 5:9] = LIVER
    assert journal.flush()
    assert session.record_stroke([SliceView("axial", 0)]) is None
    assert not session.labels.data[0].any()
    journal.sync()
    assert_kept(folder, image, session)


def test_a_refused_stroke_alone_is_no_unexported_work(
    session: Session, accept: Callable, journal: SessionJournal
) -> None:
    accept()
    session.set_organ(replace(session.organs[LIVER], locked=True))
    journal.mark_exported()
    session.labels.data[0, 5:9, 5:9] = LIVER
    session.record_stroke()
    journal.sync()
    assert journal.flush()
    assert not journal.has_unexported_changes


def test_s01_steps_do_not_wait_for_a_comparison(
    session: Session,
    accept: Callable,
    journal: SessionJournal,
    folder: JournalFolder,
    image: ImageIdentity,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Safety contract, statement 1: a step is written between two slices of a comparison."""
    monkeypatch.setattr(journal_writer, "_MOMENT_SECONDS", 30.0)  # a busy machine is not the matter
    at_slice = threading.Event()
    accepted = threading.Event()
    compare = JournalWriter._differs
    n_compared = []

    def differs(writer: JournalWriter, index: int) -> bool:
        n_compared.append(index)
        if len(n_compared) == 1:
            at_slice.set()
            while writer._queue.empty() and not accepted.is_set():  # until the step is handed over
                pass
        return compare(writer, index)

    monkeypatch.setattr(JournalWriter, "_differs", differs)
    journal.sync()
    assert at_slice.wait(10)
    written_after = []
    take = JournalWriter._take_step
    monkeypatch.setattr(
        JournalWriter,
        "_take_step",
        lambda writer, step: (written_after.append(len(n_compared)), take(writer, step))[1],
    )
    accept()
    accepted.set()
    assert_kept(folder, image, session)
    assert written_after[0] < len(session.labels.data)
