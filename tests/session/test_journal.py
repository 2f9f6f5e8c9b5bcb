"""The journal of a session: what it sees, what it brings back, what it refuses, and what it survives."""

from __future__ import annotations

import errno
import os
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Generator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from napari_sam_med.errors import JournalError
from napari_sam_med.progress import Progress
from napari_sam_med.sam.prompts import Prompts
from napari_sam_med.segmentation.propagation import PropagatedSlice
from napari_sam_med.session import journal_log, journal_writer
from napari_sam_med.session.journal import SessionJournal
from napari_sam_med.session.journal_folder import JournalFolder, default_folder
from napari_sam_med.session.journal_image import ImageIdentity, identify
from napari_sam_med.session.journal_log import JournalLog
from napari_sam_med.session.journal_recovery import Offer, find_offers, read_work
from napari_sam_med.session.objects import Annotations
from napari_sam_med.session.session import Session
from napari_sam_med.volume.grid import Grid
from napari_sam_med.volume.labels import LabelVolume
from napari_sam_med.volume.organs import Organ
from napari_sam_med.volume.slice_view import SliceView
from napari_sam_med.volume.volume import Volume

AXIAL = SliceView("axial", 3)
BOX = Prompts.from_box((2, 2, 9, 9))
LIVER, SPLEEN = 6, 1


def run(job: Generator[Progress, None, Any]) -> Any:
    """What a job returns."""
    while True:
        try:
            next(job)
        except StopIteration as end:
            return end.value


@pytest.fixture
def folder(tmp_path: Path) -> JournalFolder:
    return JournalFolder(tmp_path / "state")


@pytest.fixture
def image(volume: Volume) -> ImageIdentity:
    return run(identify(volume))


@pytest.fixture
def journal(session: Session, folder: JournalFolder, image: ImageIdentity) -> Generator[SessionJournal]:
    """A journal at work."""
    made = SessionJournal(session, folder)
    made.begin(image)
    yield made
    made.close()


@pytest.fixture
def accept(session: Session, propose: Callable) -> Callable[..., None]:
    def do(class_id: int = LIVER, view: SliceView = AXIAL, rows: slice = slice(2, 6)) -> None:
        session.select_organ(class_id)
        session.prompt(view, BOX)
        propose(view, rows, slice(2, 9))
        session.accept()

    return do


def opened_again(volume: Volume) -> Session:
    """The session of the next start, on the same scan."""
    session = Session()
    session.open(volume, LabelVolume.like(volume), (-160.0, 240.0))
    return session


def offers_of(folder: JournalFolder, image: ImageIdentity, **more: Any) -> tuple[Offer, ...]:
    return run(find_offers(folder, image, **more))


def assert_kept(folder: JournalFolder, image: ImageIdentity, session: Session) -> None:
    """What the newest journal brings back is what the session has."""
    work = run(read_work(offers_of(folder, image)[0], image))
    assert np.array_equal(work.labels, session.labels.data)
    assert_same_annotations(work.annotations, session.annotations)


def assert_same_annotations(found: Annotations, expected: Annotations) -> None:
    assert dict(found.organs) == dict(expected.organs)
    assert found.active_class_id == expected.active_class_id
    assert found.objects.keys() == expected.objects.keys()
    for object_id, item in expected.objects.items():
        other = found.objects[object_id]
        for name in ("class_id", "name", "key_slices", "answered", "stops", "confirmed_ends"):
            assert getattr(other, name) == getattr(item, name), name
        assert {v: vars(m) for v, m in other.masks.items()} == {v: vars(m) for v, m in item.masks.items()}


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


def widen(session: Session, accept: Callable) -> None:
    accept()
    session.set_organ(Organ(4000, "tumour", (1.0, 0.0, 0.0)))
    accept(4000, SliceView("sagittal", 8))
    session.undo()


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


# statement 4: recovery


def test_s04_recovery_says_what_there_is_and_brings_it_back_as_one_step(
    session: Session,
    accept: Callable,
    propose: Callable,
    journal: SessionJournal,
    folder: JournalFolder,
    image: ImageIdentity,
    volume: Volume,
) -> None:
    """Safety contract, statement 4: image name, time, volume; identical labels, prompts, names; reopened."""
    accept()
    accept(SPLEEN, SliceView("axial", 5))
    journal.close()
    again = opened_again(volume)
    next_journal = SessionJournal(again, folder)
    next_journal.begin(image)
    [offer] = run(next_journal.find_offers())
    assert (offer.n_voxels, offer.n_organs, offer.n_objects) == (56, 2, 2)
    assert offer.volume_ml == pytest.approx(56 * 4.0 * 1.5 / 1000)
    assert "volume, last changed 20" in offer.text
    assert offer.last_label == "Accept spleen on slice 5"
    assert offer.was_closed
    next_journal.put_back(run(next_journal.read(offer)))
    assert np.array_equal(again.labels.data, session.labels.data)
    assert_same_annotations(again.annotations, session.annotations)
    assert again.voxel_count(LIVER) == 28
    liver = min(again.objects)
    again.select_object(liver)
    assert again.active_object.key_slices == {AXIAL: BOX}
    again.undo()
    assert not again.labels.data.any()
    assert not again.objects
    again.redo()
    next_journal.close()
    assert_kept(folder, image, again)


def test_s04_work_brought_back_is_offered_from_its_new_journal_only(
    session: Session,
    accept: Callable,
    journal: SessionJournal,
    folder: JournalFolder,
    image: ImageIdentity,
    volume: Volume,
) -> None:
    """Safety contract, statement 4: recovery is offered once."""
    accept()
    journal.close()
    again = opened_again(volume)
    next_journal = SessionJournal(again, folder)
    next_journal.begin(image)
    [offer] = run(next_journal.find_offers())
    next_journal.put_back(run(next_journal.read(offer)))
    next_journal.close()
    assert len(offers_of(folder, image)) == 1
    assert len(offers_of(folder, image, all_kept=True)) == 2
    assert_kept(folder, image, again)


def test_s04_work_is_brought_back_over_labels_that_there_are(
    session: Session,
    accept: Callable,
    journal: SessionJournal,
    folder: JournalFolder,
    image: ImageIdentity,
    volume: Volume,
) -> None:
    """Safety contract, statement 4."""
    widen(session, accept)
    session.redo()
    journal.close()
    again = opened_again(volume)
    again.labels.data[1:5, 3:7] = SPLEEN
    again.record_stroke()
    before = again.labels.data.copy()
    next_journal = SessionJournal(again, folder)
    next_journal.begin(image)
    [offer] = run(next_journal.find_offers())
    next_journal.put_back(run(next_journal.read(offer)))
    assert np.array_equal(again.labels.data, session.labels.data)
    assert again.voxel_count(4000) == session.voxel_count(4000)
    again.undo()
    assert np.array_equal(again.labels.data, before)
    next_journal.close()


def test_s04_declining_keeps_the_file_and_asks_no_more(
    session: Session, accept: Callable, journal: SessionJournal, folder: JournalFolder, image: ImageIdentity
) -> None:
    """Safety contract, statement 4."""
    accept()
    journal.close()
    [offer] = offers_of(folder, image)
    offer.file.decline()
    assert offers_of(folder, image) == ()
    [kept] = offers_of(folder, image, all_kept=True)
    assert np.array_equal(run(read_work(kept, image)).labels, session.labels.data)


def test_s04_nothing_is_offered_where_nothing_is_left(
    session: Session, accept: Callable, journal: SessionJournal, folder: JournalFolder, image: ImageIdentity
) -> None:
    """Safety contract, statement 4."""
    accept()
    session.undo()
    session.undo()
    journal.close()
    assert offers_of(folder, image) == ()


# statement 5: the image


def test_s05_the_work_on_another_image_is_refused_and_kept(
    session: Session,
    accept: Callable,
    journal: SessionJournal,
    folder: JournalFolder,
    image: ImageIdentity,
    volume: Volume,
    make_volume: Callable[..., Volume],
) -> None:
    """Safety contract, statement 5: other voxels, another geometry, another size."""
    accept()
    journal.close()
    [offer] = offers_of(folder, image)
    other_values = volume.data.copy()
    other_values[7, 7, 7] += 1
    moved = Grid(volume.affine + np.array([[0, 0, 0, 5.0]] + [[0.0] * 4] * 3), volume.grid.shape_ijk)
    others = {
        "other voxel values": Volume(data=other_values, grid=volume.grid),
        "5 mm from where": Volume(data=volume.data, grid=moved),
        "32x24x8 voxels, this image 32x24x9": make_volume(shape=(9, 24, 32)),
    }
    for why, other in others.items():
        identity = run(identify(other))
        with pytest.raises(JournalError, match=why):
            run(read_work(offer, identity))
    assert offer.file.path.is_file()
    [shifted] = offers_of(folder, run(identify(others["5 mm from where"])))
    assert "5 mm" in shifted.mismatch


def test_s05_a_renamed_image_is_the_same_image(
    session: Session, accept: Callable, journal: SessionJournal, folder: JournalFolder, volume: Volume
) -> None:
    """Safety contract, statement 5."""
    accept()
    journal.close()
    renamed = run(identify(replace(volume, path=Path("renamed.nii.gz"))))
    assert_kept(folder, renamed, session)


def test_a_journal_begins_on_the_scan_that_is_open_only(
    session: Session, folder: JournalFolder, make_volume: Callable[..., Volume]
) -> None:
    other = run(identify(make_volume(shape=(9, 24, 32))))
    with pytest.raises(JournalError, match="not the scan that is open"):
        SessionJournal(session, folder).begin(other)


# statement 6: damage


def test_s06_a_journal_cut_anywhere_gives_its_longest_valid_prefix(
    session: Session, accept: Callable, journal: SessionJournal, folder: JournalFolder, image: ImageIdentity
) -> None:
    """Safety contract, statement 6: the states that come back are those there were, in order."""
    [states, n_steps] = [[], 5]
    for step in range(n_steps):
        accept(1 + step, SliceView("axial", step), slice(step, 8))
        journal.flush()
        states.append(session.labels.data.copy())
    journal.close()
    [file] = folder.files(image)
    content = file.path.read_bytes()
    reached = 0
    for cut in [*range(0, len(content), 13), len(content)]:
        file.path.write_bytes(content[:cut])
        found = offers_of(folder, image)
        if not found:
            assert reached == 0
            [aside] = folder.files(image)
            assert aside.path.suffix in (".damaged", ".journal")
            assert aside.path.read_bytes() == content[:cut]
            aside.path.rename(file.path)
            continue
        work = run(read_work(found[0], image))
        here = [n for n, state in enumerate(states, 1) if np.array_equal(work.labels, state)]
        assert work.annotations.objects
        now = here[0] if here else 0
        assert now >= reached
        reached = now
    assert reached == n_steps


def test_s06_a_damaged_journal_is_kept_aside_once_its_work_is_safe(
    session: Session,
    accept: Callable,
    journal: SessionJournal,
    folder: JournalFolder,
    image: ImageIdentity,
    volume: Volume,
) -> None:
    """Safety contract, statement 6."""
    accept()
    journal.flush()
    first = session.labels.data.copy()
    accept(SPLEEN)
    journal.close()
    [file] = folder.files(image)
    content = bytearray(file.path.read_bytes())
    content[-60] ^= 1
    file.path.write_bytes(content)
    again = opened_again(volume)
    next_journal = SessionJournal(again, folder)
    next_journal.begin(image)
    [offer] = run(next_journal.find_offers())
    assert "damaged record" in offer.problem
    work = run(next_journal.read(offer))
    assert "damaged record" in work.problem
    next_journal.put_back(work)
    next_journal.close()
    [aside] = folder.path.glob("*.damaged")
    assert aside.read_bytes() == bytes(content)
    assert np.array_equal(again.labels.data[3] == LIVER, first[3] == LIVER)
    assert offers_of(folder, image)[0].problem is None


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


# sizes


def test_journals_are_counted_pruned_and_cleared(
    session: Session, accept: Callable, folder: JournalFolder, image: ImageIdentity, volume: Volume
) -> None:
    """Only what was exported, or lives on elsewhere, goes by itself."""
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
    assert journal.clear_earlier() > 0
    assert not folder.files()
    session.undo()
    journal.flush()
    journal.close()
    assert folder.clear() > 0
    assert folder.size_bytes() == 0
