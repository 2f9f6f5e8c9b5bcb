"""Bringing work back: what is offered, to which image, and from a damaged file."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from napari_sam_med.errors import JournalError
from napari_sam_med.session import new_labels
from napari_sam_med.session.journal import SessionJournal
from napari_sam_med.session.journal_folder import JournalFolder
from napari_sam_med.session.journal_image import ImageIdentity, identify
from napari_sam_med.session.journal_recovery import read_work
from napari_sam_med.session.new_labels import change_between
from napari_sam_med.session.session import Preview, Session
from napari_sam_med.volume.grid import Grid
from napari_sam_med.volume.labels import LabelChange
from napari_sam_med.volume.slice_view import SliceView
from napari_sam_med.volume.volume import Volume
from tests.session.journal_checks import (
    AXIAL,
    BOX,
    LIVER,
    SPLEEN,
    assert_kept,
    assert_same_annotations,
    offers_of,
    opened_again,
    run,
    widen,
)

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


def test_s41_bringing_back_compares_only_what_changed_since_the_work_was_read(
    session: Session,
    accept: Callable,
    journal: SessionJournal,
    folder: JournalFolder,
    image: ImageIdentity,
    volume: Volume,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Safety contract, statements 10 and 41: whoever wrote meanwhile, the undo step knows what was there."""
    accept()
    accept(SPLEEN, SliceView("axial", 5))
    journal.close()
    again = opened_again(volume)
    again.labels.data[2:4, 3:7] = SPLEEN
    again.record_stroke()
    next_journal = SessionJournal(again, folder)
    next_journal.begin(image)
    [offer] = run(next_journal.find_offers())
    job = next_journal.read(offer)
    next(job)
    again.labels.data[4, 1:9, 1:9] = LIVER  # known before the comparison
    again.record_stroke()
    work = run(job)
    again.labels.data[5, 2:4, 2:4] = LIVER  # after it: on a slice of the work
    again.record_stroke()
    again.labels.data[6, 2:4, 2:4] = LIVER  # and by another plugin, on one without
    before = again.labels.data.copy()
    compared: list[int] = []

    def counted(index: int, *slices: np.ndarray) -> LabelChange:
        compared.append(index)
        return change_between(index, *slices)

    monkeypatch.setattr(new_labels, "change_between", counted)
    next_journal.put_back(work)
    assert compared == [5, 6]
    assert np.array_equal(again.labels.data, session.labels.data)
    assert again.voxel_count(LIVER) == session.voxel_count(LIVER)
    again.undo()
    assert np.array_equal(again.labels.data, before)
    again.redo()
    assert np.array_equal(again.labels.data, session.labels.data)
    next_journal.close()
    assert_kept(folder, image, again)


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


def test_s04_what_holds_voxels_comes_before_what_holds_none_and_the_own_name_before_others(
    session: Session, accept: Callable, folder: JournalFolder, volume: Volume
) -> None:
    """Safety contract, statement 4: whoever takes the first offer gets the most."""
    named = {name: run(identify(replace(volume, path=Path(name)))) for name in ("ct.nii.gz", "copy.nii.gz")}
    for number, (name, slices) in enumerate([("ct.nii.gz", 1), ("copy.nii.gz", 2), ("ct.nii.gz", 0)]):
        at_work = opened_again(volume)
        journal = SessionJournal(at_work, folder)
        journal.begin(named[name])
        at_work.prompt(AXIAL, BOX)
        for index in range(slices):
            at_work.preview = Preview(SliceView("axial", index), np.eye(24, 32, dtype=bool), 0.8)
            at_work.accept()
        journal.close()
        os.utime(folder.files()[0].path, (number, number))
    found = {name: offers_of(folder, image) for name, image in named.items()}
    assert [offer.n_voxels for offer in found["ct.nii.gz"]] == [24, 48, 0]
    assert [offer.n_voxels for offer in found["copy.nii.gz"]] == [48, 24, 0]


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


def test_s06_a_damaged_journal_that_cannot_be_put_aside_hides_no_other(
    accept: Callable,
    journal: SessionJournal,
    folder: JournalFolder,
    image: ImageIdentity,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Safety contract, statement 6."""
    accept()
    journal.close()
    [good] = folder.files(image)
    bad = folder.new_path(image)
    bad.write_bytes(b"nothing of the kind")
    os.utime(bad, (2e9, 2e9))  # looked at first

    def refuse(*_: object) -> None:
        raise PermissionError("open in another program")

    with monkeypatch.context() as open_elsewhere:
        open_elsewhere.setattr(os, "replace", refuse)
        [offer] = offers_of(folder, image)
    assert offer.file.path == good.path
    assert bad.is_file()
    offers_of(folder, image)
    assert bad.with_suffix(".damaged").is_file()
