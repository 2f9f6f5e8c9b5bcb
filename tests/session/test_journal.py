"""The journal of a session: what it sees, and what it knows of exports."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from napari_sam_med.progress import Progress
from napari_sam_med.sam.prompts import Prompts
from napari_sam_med.segmentation.propagation import PropagatedSlice
from napari_sam_med.session import journal_writer
from napari_sam_med.session.journal import SessionJournal
from napari_sam_med.session.journal_folder import JournalFolder
from napari_sam_med.session.journal_image import ImageIdentity
from napari_sam_med.session.journal_log import JournalLog
from napari_sam_med.session.journal_recovery import read_work
from napari_sam_med.session.session import Session
from napari_sam_med.volume.labels import LabelVolume
from napari_sam_med.volume.slice_view import SliceView
from napari_sam_med.volume.volume import Volume
from tests.session.journal_checks import (
    AXIAL,
    BOX,
    LIVER,
    SPLEEN,
    assert_kept,
    offers_of,
    opened_again,
    run,
    widen,
)

# statement 1: what a kill leaves


def test_s01_what_was_accepted_is_in_the_file_before_the_next_thing_can_be_done(
    session: Session,
    accept: Callable,
    journal: SessionJournal,
    folder: JournalFolder,
    image: ImageIdentity,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Safety contract, statement 1: nobody calls `flush` or `sync` here."""
    monkeypatch.setattr(journal_writer, "_MOMENT_SECONDS", 30.0)  # a busy machine is not the matter
    accept()
    assert_kept(folder, image, session)
    session.undo()
    assert_kept(folder, image, session)
    session.redo()
    assert_kept(folder, image, session)


@pytest.fixture
def waited(monkeypatch: pytest.MonkeyPatch) -> list[float | None]:
    """How long the main thread was ready to wait for a thread, each time."""
    found: list[float | None] = []
    wait = threading.Event.wait

    def counted(event: threading.Event, timeout: float | None = None) -> bool:
        if threading.current_thread() is threading.main_thread():
            found.append(timeout)
        return wait(event, timeout)

    monkeypatch.setattr(threading.Event, "wait", counted)
    return found


def test_a_writer_that_hangs_is_waited_for_once(
    session: Session,
    accept: Callable,
    journal: SessionJournal,
    waited: list[float | None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    accept()
    assert journal.flush()
    waited.clear()
    gate = threading.Event()
    append = JournalLog.append

    def hanging(log: JournalLog, payload: bytes) -> None:
        gate.wait(60)
        append(log, payload)

    monkeypatch.setattr(JournalLog, "append", hanging)
    for rows in (slice(3, 7), slice(4, 8)):
        accept(rows=rows)
    assert len(waited) == 1
    gate.set()
    assert journal.flush()
    waited.clear()
    accept(rows=slice(5, 9))
    assert waited


@pytest.mark.parametrize(("n_slices", "is_waited_for"), [(3, True), (20, False)])
def test_a_step_that_takes_long_to_write_keeps_nobody_waiting(
    session: Session,
    journal: SessionJournal,
    waited: list[float | None],
    folder: JournalFolder,
    image: ImageIdentity,
    n_slices: int,
    is_waited_for: bool,
) -> None:
    session.labels.data[2:6, :n_slices, 4:9] = SPLEEN
    views = [SliceView("coronal", index) for index in range(n_slices)]
    for step in (lambda: session.record_stroke(views), session.undo, session.redo):
        waited.clear()
        step()
        assert bool(waited) == is_waited_for
        assert journal.flush()
    assert_kept(folder, image, session)


# statement 3: every change is seen


def accept_liver(session: Session, accept: Callable) -> None:
    accept()


def paint(session: Session, accept: Callable) -> None:
    session.labels.data[2, 4:9, 4:9] = SPLEEN
    session.record_stroke()


def write_directly(session: Session, accept: Callable) -> None:
    session.labels.data[:, 5, 6] = 200
    session.labels.data[0, 0, 0] = 7


def erase_directly(session: Session, accept: Callable) -> None:
    accept()
    session.labels.data[...] = 0


def undo(session: Session, accept: Callable) -> None:
    accept()
    accept(SPLEEN, rows=slice(4, 12))
    session.undo()


def redo(session: Session, accept: Callable) -> None:
    undo(session, accept)
    session.redo()


def prompt(session: Session, accept: Callable) -> None:
    session.prompt(AXIAL, Prompts([(3, 4)], [0], (1, 1, 5, 5), np.ones((4, 4)), [(0, 0), (9, 0), (9, 9)]))


def edit_organs(session: Session, accept: Callable) -> None:
    accept()
    session.set_organ(replace(session.organs[LIVER], name="Leber", locked=True, visible=False))
    session.remove_organ(SPLEEN)


def propagate(session: Session, accept: Callable) -> None:
    accept()
    item = session.active_object
    with session.begin("Propagate") as change:
        for index, reason in ((4, None), (5, "the object ends")):
            mask = session.active_object.mask(AXIAL)
            view = SliceView("axial", index)
            change.put(
                PropagatedSlice(Progress(1, 2), item.object_id, item.class_id, view, mask,
                                None, 0.6, "propagated", reason, "forward")
            )  # fmt: skip


def remove_object(session: Session, accept: Callable) -> None:
    accept()
    session.new_object()
    accept(LIVER, SliceView("coronal", 7))
    session.remove_object(min(session.objects))


@pytest.mark.parametrize(
    "change",
    [accept_liver, paint, write_directly, erase_directly, undo, redo, widen, prompt, edit_organs, propagate,
     remove_object],
)  # fmt: skip
def test_s03_every_change_is_seen_and_brought_back(
    change: Callable,
    session: Session,
    accept: Callable,
    journal: SessionJournal,
    folder: JournalFolder,
    image: ImageIdentity,
) -> None:
    """Safety contract, statements 3 and 4: paint, undo, direct writes of other plugins, prompts, locks."""
    change(session, accept)
    assert journal.flush()
    assert_kept(folder, image, session)


def test_s01_a_propagation_is_kept_while_it_streams_in(
    session: Session, accept: Callable, journal: SessionJournal, folder: JournalFolder, image: ImageIdentity
) -> None:
    """Safety contract, statement 1: what was filled before the last step is committed is not lost."""
    accept()
    item = session.active_object
    with session.begin("Propagate") as change:
        change.put_mask(item.object_id, SliceView("axial", 4), item.mask(AXIAL), "propagated", 0.5)
        assert journal.flush()
        assert_kept(folder, image, session)


def test_s03_a_change_taken_back_by_an_error_is_taken_back_in_the_journal(
    session: Session, accept: Callable, journal: SessionJournal, folder: JournalFolder, image: ImageIdentity
) -> None:
    """Safety contract, statement 3."""
    accept()
    change = session.begin("Broken")
    change.put_mask(session.active_object_id, AXIAL, np.ones((24, 32), dtype=bool), "edited", None)
    journal.flush()
    change.roll_back()
    journal.flush()
    assert_kept(folder, image, session)


def test_s03_what_another_plugin_wrote_last_is_kept_when_the_scan_is_closed(
    session: Session, accept: Callable, journal: SessionJournal, folder: JournalFolder, image: ImageIdentity
) -> None:
    """Safety contract, statement 3."""
    accept()
    session.labels.data[6, 6, 6] = 9
    expected = session.labels.data.copy()
    session.close()
    work = run(read_work(offers_of(folder, image)[0], image))
    assert np.array_equal(work.labels, expected)


def test_labels_that_a_scan_is_opened_with_are_kept_with_the_first_change(
    volume: Volume, folder: JournalFolder, image: ImageIdentity
) -> None:
    labels = LabelVolume.like(volume)
    labels.data[1:4, 2:9] = SPLEEN
    session = Session()
    session.open(volume, labels, (0.0, 1.0))
    journal = SessionJournal(session, folder)
    journal.begin(image)
    journal.flush()
    assert not folder.files()
    assert not journal.has_unexported_changes
    session.prompt(AXIAL, BOX)
    journal.close()
    assert_kept(folder, image, session)


def test_what_is_done_before_the_image_is_recognised_is_kept(
    session: Session, accept: Callable, folder: JournalFolder, image: ImageIdentity
) -> None:
    journal = SessionJournal(session, folder)
    session.prompt(AXIAL, BOX)
    journal.begin(image)
    assert not journal.has_unexported_changes  # a prompt is kept, but no export would hold it
    journal.close()
    assert_kept(folder, image, session)
    accept()
    journal.begin(image)
    assert journal.has_unexported_changes
    journal.close()
    assert_kept(folder, image, session)


def test_a_long_journal_is_written_anew_and_stays_small(
    session: Session,
    accept: Callable,
    folder: JournalFolder,
    image: ImageIdentity,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(journal_writer, "_SLICES_BEFORE_COMPACTION", 10)
    journal = SessionJournal(session, folder)
    journal.begin(image)
    sizes = []
    accept()
    for _ in range(30):
        session.undo()
        session.redo()
        journal.flush()
        sizes.append(folder.size_bytes())
    assert sum(after < before for before, after in pairwise(sizes)) >= 3
    assert_kept(folder, image, session)
    journal.close()


# statement 11: exports


def test_s11_work_that_was_not_exported_is_known(
    session: Session, accept: Callable, journal: SessionJournal
) -> None:
    """Safety contract, statement 11."""
    assert not journal.has_unexported_changes
    session.prompt(AXIAL, BOX)
    assert not journal.has_unexported_changes
    accept()
    assert journal.has_unexported_changes
    journal.mark_exported()
    assert not journal.has_unexported_changes
    session.set_organ(replace(session.organs[LIVER], locked=True))
    assert not journal.has_unexported_changes
    session.set_organ(replace(session.organs[LIVER], name="Leber"))
    assert journal.has_unexported_changes
    journal.mark_exported()
    session.undo()
    assert journal.has_unexported_changes
    journal.mark_exported()
    session.labels.data[7, 7, 7] = 5
    journal.flush()
    assert journal.has_unexported_changes


def test_s11_what_others_alone_wrote_is_not_exported(session: Session, journal: SessionJournal) -> None:
    """Safety contract, statement 11: the session, which counts voxels, was told nothing of it."""
    session.labels.data[7, 7, 7] = SPLEEN
    assert journal.flush()
    assert journal.has_unexported_changes
    session.labels.data[7, 7, 7] = 0
    assert journal.flush()
    assert not journal.has_unexported_changes


def test_s11_work_done_while_an_export_runs_is_not_exported(
    session: Session, accept: Callable, journal: SessionJournal
) -> None:
    """Safety contract, statement 11."""
    accept()
    number = journal.change_number
    accept(SPLEEN)
    journal.mark_exported(number)
    assert journal.has_unexported_changes


def test_s11_an_export_is_remembered_and_the_next_scan_starts_anew(
    session: Session,
    accept: Callable,
    journal: SessionJournal,
    folder: JournalFolder,
    image: ImageIdentity,
    volume: Volume,
) -> None:
    """Safety contract, statement 11."""
    accept()
    journal.mark_exported()
    journal.flush()
    assert offers_of(folder, image)[0].is_exported
    accept(SPLEEN)
    journal.flush()
    assert not offers_of(folder, image)[0].is_exported
    session.open(volume, LabelVolume.like(volume), (0.0, 1.0))
    assert not journal.has_unexported_changes
    journal.begin(image)
    [offer] = run(journal.find_offers())
    assert not offer.is_exported


def test_s11_exported_work_brought_back_is_exported(
    session: Session,
    accept: Callable,
    journal: SessionJournal,
    folder: JournalFolder,
    image: ImageIdentity,
    volume: Volume,
) -> None:
    """Safety contract, statement 11."""
    accept()
    journal.mark_exported()
    journal.close()
    again = opened_again(volume)
    next_journal = SessionJournal(again, folder)
    next_journal.begin(image)
    [offer] = run(next_journal.find_offers())
    next_journal.put_back(run(next_journal.read(offer)))
    assert not next_journal.has_unexported_changes
    next_journal.close()


@pytest.mark.parametrize("is_found_late", [False, True])
def test_s11_an_edit_from_outside_is_not_exported_once_nothing_is_kept(
    is_found_late: bool, session: Session, accept: Callable, journal: SessionJournal, image: ImageIdentity
) -> None:
    """Safety contract, statement 11: also where only the writer that ends comes upon the edit."""
    accept()
    session.labels.data[7, 5:9, 5:9] = SPLEEN
    journal.sync()
    assert journal._writer.wait(10)
    session.labels.data[7] = 0  # taken back before it was copied: a step in which nothing changes
    journal.sync()
    journal.mark_exported()
    session.labels.data[7, 5:9, 5:9] = SPLEEN
    if not is_found_late:
        journal.flush()
        assert journal.has_unexported_changes
    journal.folder = None
    journal.begin(image)
    assert journal.has_unexported_changes
    journal.mark_exported()
    assert not journal.has_unexported_changes


def test_s11_a_journal_begun_again_knows_the_export_and_takes_the_place_of_its_own_file(
    session: Session,
    accept: Callable,
    journal: SessionJournal,
    folder: JournalFolder,
    image: ImageIdentity,
) -> None:
    """Safety contract, statement 11: "Keep nothing on disk" on and off."""
    accept()
    journal.flush()
    journal.mark_exported()
    journal.folder = None
    journal.begin(image)
    journal.folder = folder
    journal.begin(image)
    journal.flush()
    assert run(journal.find_offers()) == ()
    assert not journal.has_unexported_changes
    journal.close()
    [offer] = offers_of(folder, image)
    assert offer.is_exported
    assert len(offers_of(folder, image, all_kept=True)) == 2
    folder.prune(0)
    assert not folder.files()


def test_the_file_of_the_scan_before_is_not_put_aside(
    session: Session,
    accept: Callable,
    journal: SessionJournal,
    folder: JournalFolder,
    image: ImageIdentity,
    volume: Volume,
) -> None:
    accept()
    session.open(volume, LabelVolume.like(volume), (0.0, 1.0))
    journal.begin(image)
    accept(SPLEEN)
    journal.flush()
    [offer] = run(journal.find_offers())
    assert offer.file.is_active


@pytest.mark.parametrize("is_made_first", [False, True])
def test_s11_opened_labels_that_were_erased_are_work(
    is_made_first: bool, volume: Volume, folder: JournalFolder, image: ImageIdentity
) -> None:
    """Safety contract, statement 11; labels that began empty and are empty again are none."""
    labels = LabelVolume.like(volume)
    labels.data[3, 2:5, 2:5] = LIVER
    session = Session()
    if is_made_first:
        journal = SessionJournal(session, folder)
        session.open(volume, labels, (0.0, 1.0))
    else:
        session.open(volume, labels, (0.0, 1.0))
        journal = SessionJournal(session, folder)
    journal.begin(image)
    assert not journal.has_unexported_changes
    session.remove_organ(LIVER)
    assert not labels.data.any()
    assert journal.has_unexported_changes
    session.open(volume, LabelVolume.like(volume), (0.0, 1.0))
    session.labels.data[3, 2:5, 2:5] = SPLEEN
    session.record_stroke()
    assert journal.has_unexported_changes
    session.undo()
    assert not journal.has_unexported_changes
