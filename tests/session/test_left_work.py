"""Work that is left for another scan: nothing of it is lost, and nothing is offered twice."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from napari_sam_med.session.journal import SessionJournal
from napari_sam_med.session.journal_folder import JournalFolder
from napari_sam_med.session.journal_image import ImageIdentity
from napari_sam_med.session.left_work import LeftWork, fingerprint, go_on, leave
from napari_sam_med.session.session import Session
from napari_sam_med.volume.disk_labels import DiskLabels
from napari_sam_med.volume.labels import LabelVolume
from napari_sam_med.volume.volume import Volume
from tests.session.journal_checks import LIVER, assert_kept, assert_same_annotations, offers_of, run

WINDOW = (-160.0, 240.0)


@pytest.fixture
def elsewhere(session: Session, journal: SessionJournal) -> Callable[[], LeftWork]:
    """Goes to another scan and back to the labels of this one."""
    volume, labels = session.volume, session.labels

    def go() -> LeftWork:
        left = leave(session, journal)
        other = Volume(data=np.zeros((4, 5, 6), np.int16), grid=type(volume.grid).from_zyx((4, 5, 6)))
        session.close()
        session.open(other, LabelVolume.like(other), WINDOW)
        session.close()
        session.open(volume, labels, WINDOW)
        return left

    return go


def test_it_goes_on_with_objects_undo_and_one_journal(
    session: Session,
    accept: Callable,
    journal: SessionJournal,
    folder: JournalFolder,
    image: ImageIdentity,
    elsewhere: Callable[[], LeftWork],
) -> None:
    accept()
    journal.mark_exported()
    accept(class_id=1)
    before, was = session.annotations, session.labels.data.copy()
    for _ in range(2):
        left = elsewhere()
        assert not session.objects
        go_on(session, journal, left, is_as_left=True)
        assert_same_annotations(session.annotations, before)
        assert journal.has_unexported_changes
        assert journal.is_as_left
        journal.begin(image)
        assert run(journal.find_offers()) == ()
        assert journal.flush()
        [offer] = offers_of(folder, image)
        assert not offer.is_exported
        assert_kept(folder, image, session)
    session.undo()
    assert not journal.is_as_left
    session.redo()
    assert np.array_equal(session.labels.data, was)
    while session.undo():
        pass
    assert not session.labels.data.any()
    assert not session.objects


def test_what_was_exported_is_exported_still(
    session: Session,
    accept: Callable,
    journal: SessionJournal,
    folder: JournalFolder,
    image: ImageIdentity,
    elsewhere: Callable[[], LeftWork],
) -> None:
    accept()
    journal.mark_exported()
    go_on(session, journal, elsewhere(), is_as_left=True)
    assert not journal.has_unexported_changes
    journal.begin(image)
    assert journal.flush()
    [offer] = offers_of(folder, image)
    assert offer.is_exported


def test_a_scan_that_is_left_again_before_its_journal_was_begun_leaves_one_journal(
    session: Session,
    accept: Callable,
    journal: SessionJournal,
    folder: JournalFolder,
    image: ImageIdentity,
    elsewhere: Callable[[], LeftWork],
) -> None:
    accept()
    go_on(session, journal, elsewhere(), is_as_left=True)
    go_on(session, journal, elsewhere(), is_as_left=True)
    assert journal.is_as_left
    journal.begin(image)
    assert run(journal.find_offers()) == ()
    assert journal.flush()
    assert len(folder.files()) == 1
    assert_kept(folder, image, session)


def test_the_former_journal_stays_until_the_next_one_is_on_the_disk(
    session: Session,
    accept: Callable,
    journal: SessionJournal,
    folder: JournalFolder,
    image: ImageIdentity,
    elsewhere: Callable[[], LeftWork],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    accept()
    go_on(session, journal, elsewhere(), is_as_left=True)
    with monkeypatch.context() as patch:
        patch.setattr("napari_sam_med.session.journal_writer.JournalLog", full)
        journal.begin(image)
        journal.flush()
        assert_kept(folder, image, session)
    assert len(folder.files()) == 1


def test_labels_that_were_changed_meanwhile_are_work_and_the_former_journal_is_offered(
    session: Session,
    accept: Callable,
    journal: SessionJournal,
    folder: JournalFolder,
    image: ImageIdentity,
    elsewhere: Callable[[], LeftWork],
) -> None:
    accept()
    journal.mark_exported()
    before = session.annotations
    left = elsewhere()
    session.labels.data[0, :3, :3] = LIVER
    go_on(session, journal, left, is_as_left=False)
    assert not session.objects
    assert session.undo() is None
    assert journal.has_unexported_changes
    assert not journal.is_as_left
    journal.begin(image)
    assert journal.flush()
    [offer] = run(journal.find_offers())
    journal.put_back(run(journal.read(offer)))
    assert_same_annotations(session.annotations, before)
    session.undo()
    assert session.labels.data[0, :3, :3].all()


def test_without_a_folder_it_is_known_what_is_not_exported(
    session: Session,
    accept: Callable,
    elsewhere_without_folder: Callable[[], tuple[SessionJournal, LeftWork]],
) -> None:
    journal, left = elsewhere_without_folder()
    go_on(session, journal, left, is_as_left=True)
    assert journal.has_unexported_changes


@pytest.fixture
def elsewhere_without_folder(
    session: Session, accept: Callable
) -> Callable[[], tuple[SessionJournal, LeftWork]]:
    def go() -> tuple[SessionJournal, LeftWork]:
        journal, volume, labels = SessionJournal(session, None), session.volume, session.labels
        accept()
        left = leave(session, journal)
        session.close()
        session.open(volume, labels, WINDOW)
        return journal, left

    return go


def test_a_fingerprint_tells_labels_apart_wherever_they_lie() -> None:
    data = np.zeros((5, 6, 7), np.uint16)
    empty = run(fingerprint(data))
    data[2, 3, 4] = 1
    here = run(fingerprint(data))
    moved = np.roll(data, 1, axis=0)
    on_disk = DiskLabels.zeros(data.shape)
    on_disk[...] = data
    assert len({empty, here, run(fingerprint(moved))}) == 3
    assert run(fingerprint(on_disk)) == here
