"""Where journals lie, who may write them, what a full disk does, and how they go."""

from __future__ import annotations

import errno
import os
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from napari_sam_med.errors import JournalError, LabelError
from napari_sam_med.session import journal_log, journal_writer
from napari_sam_med.session.journal import SessionJournal
from napari_sam_med.session.journal_folder import JournalFolder, default_folder
from napari_sam_med.session.journal_image import ImageIdentity
from napari_sam_med.session.journal_log import JournalLog
from napari_sam_med.session.journal_recovery import read_work
from napari_sam_med.session.session import Session
from napari_sam_med.volume.labels import LabelVolume
from napari_sam_med.volume.volume import Volume
from tests.session.journal_checks import (
    LIVER,
    SPLEEN,
    assert_kept,
    offers_of,
    opened_again,
    run,
)

# statements 2, 8 and 9: the disk and other windows


def test_s02_the_disk_is_asked_every_second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Safety contract, statement 2."""
    assert journal_log.SYNC_SECONDS <= 4
    monkeypatch.setattr(journal_log, "SYNC_SECONDS", 0.01)
    log = JournalLog(tmp_path / "log", [b"header"])
    asked = threading.Event()
    real = os.fsync

    def fsync(descriptor: int) -> None:
        real(descriptor)
        asked.set()

    monkeypatch.setattr(os, "fsync", fsync)
    log.append(b"record")
    assert asked.wait(30)
    log.close()


def test_s08_journals_lie_in_the_state_folder_of_the_user(
    user_folders: Path, monkeypatch: pytest.MonkeyPatch, journal: SessionJournal, accept: Callable
) -> None:
    """Safety contract, statement 8: never beside the image, and for the user's eyes alone."""
    assert default_folder().path == user_folders / "journals"
    monkeypatch.delenv("NAPARI_SAM_MED_HOME")
    assert default_folder().path.name == "journals"
    assert "napari-sam-med" in default_folder().path.parts
    accept()
    journal.flush()
    [file] = journal.folder.files()
    if os.name == "posix":
        assert stat.S_IMODE(file.path.stat().st_mode) == 0o600
        assert stat.S_IMODE(file.path.parent.stat().st_mode) == 0o700


def test_s09_a_second_window_of_this_process_is_told(
    journal: SessionJournal, folder: JournalFolder, image: ImageIdentity, volume: Volume
) -> None:
    """Safety contract, statement 9."""
    second = SessionJournal(opened_again(volume), folder)
    with pytest.raises(JournalError, match="volume is being annotated in another window \\(of this napari"):
        second.begin(image)
    journal.close()
    second.begin(image)
    second.close()


HOLDER = """
import sys, time
from pathlib import Path
from napari_sam_med.session.journal_folder import ImageLock
lock = ImageLock(Path(sys.argv[1]), sys.argv[2])
print("locked", flush=True)
sys.stdin.read()
"""


def test_s09_another_process_is_named_and_a_dead_one_leaves_no_lock(
    session: Session, folder: JournalFolder, image: ImageIdentity
) -> None:
    """Safety contract, statement 9: two processes; the first dies by SIGKILL."""
    command = [sys.executable, "-c", HOLDER, os.fspath(folder.path), image.digest]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "locked\n"
        journal = SessionJournal(session, folder)
        with pytest.raises(JournalError, match=f"process {holder.pid}"):
            journal.begin(image)
        holder.send_signal(signal.SIGKILL)
    journal.begin(image)
    journal.close()


def test_a_full_disk_gives_one_message_and_the_session_goes_on(
    session: Session,
    accept: Callable,
    journal: SessionJournal,
    folder: JournalFolder,
    image: ImageIdentity,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said: list[str | None] = []
    journal.trouble_changed.connect(said.append)
    accept()
    journal.flush()
    kept = session.labels.data.copy()
    write = journal_log._write_whole

    def full(descriptor: int, content: bytes) -> None:
        write(descriptor, content[: len(content) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(journal_writer, "_RETRY_SECONDS", 0.0)
    monkeypatch.setattr(journal_log, "_write_whole", full)
    for class_id in (SPLEEN, 2, 3):
        accept(class_id)
        journal.flush()
    [message] = said
    assert "No space left on device" in message
    assert "export your labels" in message
    work = run(read_work(offers_of(folder, image)[0], image))
    assert np.array_equal(work.labels, kept)
    assert work.problem is None
    monkeypatch.setattr(journal_log, "_write_whole", write)
    accept(4)
    journal.flush()
    journal.sync()
    assert said == [message, None]
    assert_kept(folder, image, session)


def test_no_room_for_the_copy_of_large_labels_is_told(
    session: Session, accept: Callable, journal: SessionJournal, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str | None] = []
    journal.trouble_changed.connect(said.append)

    def full(*_: object) -> None:
        raise LabelError("The disk of the labels has 5 MiB left; free some space.")

    monkeypatch.setattr(journal_writer.JournalWriter, "_moved", full)
    accept()
    journal.flush()
    [message] = said
    assert "has 5 MiB left; free some space, and export your labels" in message


def test_a_disk_that_has_room_again_before_the_window_closes_gets_the_work(
    session: Session,
    accept: Callable,
    journal: SessionJournal,
    folder: JournalFolder,
    image: ImageIdentity,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also where not even the first write came through, and the next try was not due yet."""
    said: list[str | None] = []
    journal.trouble_changed.connect(said.append)

    def full(descriptor: int, content: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as no_room:
        no_room.setattr(journal_log, "_write_whole", full)
        accept()
        journal.flush()
        journal.sync()
    assert not folder.files()
    monkeypatch.setattr(journal_writer, "_RETRY_SECONDS", 3600.0)
    journal.close()
    assert len(said) == 2
    assert said[-1] is None
    assert offers_of(folder, image)[0].was_closed
    assert_kept(folder, image, session)


def test_a_disk_that_stays_full_is_said_to_the_end(
    session: Session,
    accept: Callable,
    journal: SessionJournal,
    folder: JournalFolder,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said: list[str | None] = []
    journal.trouble_changed.connect(said.append)

    def full(descriptor: int, content: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(journal_log, "_write_whole", full)
    accept()
    journal.close()
    [message] = said
    assert "No space left on device" in message
    assert not folder.files()


def test_a_defect_of_the_journal_is_said_and_the_session_goes_on(
    session: Session,
    accept: Callable,
    journal: SessionJournal,
    folder: JournalFolder,
    image: ImageIdentity,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said: list[str | None] = []
    journal.trouble_changed.connect(said.append)
    monkeypatch.setattr(journal_writer, "_RETRY_SECONDS", 0.0)
    with monkeypatch.context() as broken:
        broken.setattr(journal_writer, "encode_slice", lambda *_: 1 / 0)
        accept()
        journal.flush()
    assert session.voxel_count(LIVER) == 28
    [message] = said
    assert "please report it" in message
    journal.flush()
    journal.sync()
    assert said == [message, None]
    assert_kept(folder, image, session)


def test_a_folder_that_cannot_be_made_is_said_at_the_start(
    session: Session, image: ImageIdentity, accept: Callable, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    journal = SessionJournal(session, JournalFolder(tmp_path / "file" / "journals"))
    with pytest.raises(JournalError, match="cannot be written"):
        journal.begin(image)
    accept()
    assert journal.has_unexported_changes


def test_nothing_is_kept_on_disk_when_asked(
    session: Session, accept: Callable, image: ImageIdentity, user_folders: Path
) -> None:
    journal = SessionJournal(session, None)
    journal.begin(image)
    accept()
    session.labels.data[0, 0, 0] = 3
    journal.flush()
    assert journal.has_unexported_changes
    assert run(journal.find_offers()) == ()
    journal.close()
    assert not list(user_folders.rglob("*"))


# sizes


def test_journals_are_counted_pruned_and_cleared(
    session: Session, accept: Callable, folder: JournalFolder, image: ImageIdentity, volume: Volume
) -> None:
    """Only what was exported, or holds nothing, goes by itself."""
    for is_exported in (True, False, True):
        session.open(volume, LabelVolume.like(volume), (0.0, 1.0))
        journal = SessionJournal(session, folder)
        journal.begin(image)
        accept()
        if is_exported:
            journal.mark_exported()
        journal.close()
    sizes = [file.path.stat().st_size for file in folder.files()]
    assert folder.size_bytes() == sum(sizes)
    assert folder.prune(sum(sizes)) == 0
    assert folder.prune(sum(sizes) - 1) > 0
    assert len(folder.files()) == 2
    folder.prune(0)
    [unexported] = offers_of(folder, image)
    assert not unexported.is_exported
    journal.begin(image)
    accept(SPLEEN)
    journal.flush()
    assert folder.clear() == 0  # a window works on the image
    journal.remove(unexported)
    assert run(journal.find_offers()) == ()
    assert len(folder.files()) == 1
    journal.close()
    journal.begin(image)
    journal.flush()
    assert journal.clear_earlier() > 0
    assert len(folder.files()) == 1
    session.undo()
    journal.flush()
    journal.close()
    assert folder.clear() > 0
    assert folder.size_bytes() == 0


def test_work_that_was_brought_back_and_undone_stays(
    session: Session,
    accept: Callable,
    journal: SessionJournal,
    folder: JournalFolder,
    image: ImageIdentity,
    volume: Volume,
) -> None:
    """Its newer journal holds nothing, so the old file is the only one that has it."""
    accept()
    expected = session.labels.data.copy()
    journal.close()
    again = opened_again(volume)
    next_journal = SessionJournal(again, folder)
    next_journal.begin(image)
    [offer] = run(next_journal.find_offers())
    next_journal.put_back(run(next_journal.read(offer)))
    next_journal.flush()
    again.undo()
    next_journal.close()
    assert sorted(file.path.suffix for file in folder.files()) == [".continued", ".journal"]
    assert folder.prune(0) > 0
    [left] = offers_of(folder, image, all_kept=True)
    assert np.array_equal(run(read_work(left, image)).labels, expected)


def test_nothing_of_an_image_without_a_journal_is_left_behind(
    folder: JournalFolder, image: ImageIdentity, accept: Callable, journal: SessionJournal
) -> None:
    """A lock file is named after the image; it goes with the last journal, and not while it is held."""
    lock = folder.path / f"{image.digest}.lock"
    folder.clear()
    assert lock.is_file(), "it is held"
    accept()
    journal.close()
    assert lock.is_file(), "there is a journal"
    old = folder.path / f"{'0' * 32}.lock"
    old.touch()  # of a version that left them
    assert folder.clear() > 0
    assert not list(folder.path.iterdir())


def test_a_lock_that_was_let_go_of_and_removed_is_one_lock_for_those_who_come_next(
    folder: JournalFolder, image: ImageIdentity
) -> None:
    """Statement 9."""
    for _ in range(3):
        with folder.lock(image), pytest.raises(JournalError):
            folder.lock(image)
        assert not list(folder.path.iterdir())
