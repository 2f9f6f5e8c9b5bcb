"""A folder of cases that are worked through: what is to be done, where labels go, what opens a case."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import xxhash

from napari_sam_med.errors import ExportError, ImageError, LabelError
from napari_sam_med.progress import Progress
from napari_sam_med.session import jobs
from napari_sam_med.session.work_list_cases import (
    STATUS_FILE_NAME,
    Case,
    default_output,
    find_cases,
)
from napari_sam_med.session.work_list_status import KeptCase, Status, StatusFile
from napari_sam_med.volume.formats import dicom
from napari_sam_med.volume.formats.sidecar import read_origin, sha256_of_files, stem_of
from napari_sam_med.wording import number_of

if TYPE_CHECKING:
    from napari_sam_med.session.jobs import PreparedScan
    from napari_sam_med.session.journal_recovery import Offer
    from napari_sam_med.volume.labels import LabelVolume
    from napari_sam_med.volume.volume import Volume

__all__ = [
    "KnownFile",
    "OpenedCase",
    "WorkList",
    "is_writable",
    "known_file",
    "open_work_list",
    "read_case",
    "save_case",
]


@dataclass(frozen=True)
class KnownFile:
    """A label file as it was read or written here: only such a file may be replaced.

    Attributes
    ----------
    path : Path
    digest : str
        xxh3_128 of its bytes, hexadecimal.
    is_empty : bool
        Whether no voxel is labelled in it.
    modified : float
        When it was written, seconds since 1970.
    """

    path: Path
    digest: str
    is_empty: bool
    modified: float


@dataclass(frozen=True, eq=False)
class OpenedCase:
    """A case that is ready to be worked on.

    Attributes
    ----------
    case : Case
    scan : PreparedScan
    start : Path or None
        The label file that was opened, one of the user's own or one saved here.
    saved : KnownFile or None
        The file that its labels were saved to before, if there is one.
    """

    case: Case
    scan: PreparedScan
    start: Path | None
    saved: KnownFile | None


class WorkList:
    """The cases of a folder and how far each has come.

    Parameters
    ----------
    folder : Path
    output : Path
        Where labels and the file of statuses are saved.
    cases : tuple of Case
    warnings : tuple of str
        What of the folder could not be looked at.
    """

    def __init__(
        self, folder: Path, output: Path, cases: tuple[Case, ...], warnings: tuple[str, ...] = ()
    ) -> None:
        self.folder = folder
        self.output = output
        self.cases = cases
        self.warnings = warnings
        self._file = StatusFile(output / STATUS_FILE_NAME)
        self._kept: Mapping[str, KeptCase] = {}
        self._saved_names: frozenset[str] = frozenset()
        self.refresh()

    def __repr__(self) -> str:
        return f"WorkList({str(self.folder)!r}; {self.summary})"

    def refresh(self) -> None:
        """Look again at what is on disk, where other windows may be at work.

        Raises
        ------
        ExportError
            If the file of statuses cannot be read.
        """
        self._kept = self._file.read()
        if self._file.put_aside is not None:
            self.warnings += (
                f"{self._file.path.name} was damaged, and is {self._file.put_aside.name} now: cases with "
                "saved labels are taken to be in progress.",
            )
            self._file.put_aside = None
        try:
            self._saved_names = frozenset(os.listdir(self.output))
        except OSError:  # nothing was saved yet
            self._saved_names = frozenset()

    # how far each case has come

    def kept(self, case: Case) -> KeptCase:
        """What is known of the work on a case."""
        return self._kept.get(case.key, KeptCase())

    def status(self, case: Case) -> Status:
        """``done`` if the user said so, ``in progress`` with kept work or saved labels, else ``new``."""
        status = self.kept(case).status
        if status == "new" and (self.kept(case).labels or case.labels_name) in self._saved_names:
            return "in progress"
        return status

    @property
    def counts(self) -> dict[Status, int]:
        """Number of cases of each status."""
        counts: dict[Status, int] = {"done": 0, "in progress": 0, "new": 0}
        for case in self.cases:
            counts[self.status(case)] += 1
        return counts

    @property
    def summary(self) -> str:
        """``40 cases: 12 done, 3 in progress, 25 new``."""
        parts = ", ".join(f"{number} {status}" for status, number in self.counts.items())
        return f"{number_of(len(self.cases), 'case')}: {parts}"

    def note(self, case: Case, **changes: Any) -> None:
        """Note what is known of a case now (see `KeptCase`); raises ExportError if it cannot be written."""
        self._kept = self._file.note(case.key, **changes)

    def note_saved(self, case: Case, saved: KnownFile, journal: str | None) -> None:
        """Note which file holds the labels of a case now; raises ExportError."""
        status = self.status(case)
        self._saved_names |= {saved.path.name}
        self.note(
            case,
            status="in progress" if status == "new" else status,
            labels=saved.path.name,
            digest=saved.digest,
            journal=journal,
        )

    # moving

    def next_open(self, position: int, without: frozenset[str] = frozenset()) -> int | None:
        """Position of the first case after one that is not done, from the start again after the last.

        Parameters
        ----------
        without : frozenset of str
            Keys of cases to pass over, such as those that cannot be opened.
        """
        n_cases = len(self.cases)
        for step in range(1, n_cases + 1):
            case = self.cases[(position + step) % n_cases]
            if self.status(case) != "done" and case.key not in without:
                return (position + step) % n_cases
        return None

    # files

    def target(self, case: Case) -> Path:
        """File that the labels of a case are saved to."""
        return self.output / (self.kept(case).labels or case.labels_name)

    def start(self, case: Case) -> Path | None:
        """Label file to open a case with: the one saved here, else the only one that was given."""
        target = self.target(case)
        if target.exists():
            return target
        return case.given[0] if len(case.given) == 1 else None

    def continues(self, offer: Offer, opened: OpenedCase) -> bool:
        """Whether a journal's work is the newest of a case, to be brought back without a question.

        So it is where the label file is still the one saved from that journal, or where the journal went on
        after that file and was never exported, as after a crash.
        """
        if offer.mismatch is not None or offer.problem is not None:
            return False
        saved, kept = opened.saved, self.kept(opened.case)
        if offer.is_exported:
            is_as_saved = saved is not None and saved.digest == kept.digest
            return is_as_saved and offer.file.path.stem == kept.journal
        if saved is None:
            return True
        return offer.last_change > saved.modified and (offer.n_voxels > 0 or saved.is_empty)


def open_work_list(folder: Path, output: Path | None = None) -> Generator[Progress, None, WorkList]:
    """Job: find the cases of a folder and how far they are; reads no scan.

    Raises
    ------
    ImageError
        If the folder cannot be listed, or holds no scan.
    ExportError
        If the file of statuses cannot be read.
    """
    yield Progress(0, 1, f"looking for scans in {folder.name}")
    place = default_output(folder) if output is None else output
    inside = place.resolve() != folder.resolve()
    found = find_cases(folder, without=[place] if inside else [])
    return WorkList(folder, place, found.cases, found.warnings)


def read_case(
    case: Case, kept: KeptCase, start: Path | None, target: Path
) -> Generator[Progress, None, OpenedCase]:
    """Job: read the scan of a case, and its labels.

    Parameters
    ----------
    kept : KeptCase
        Says which volume of several, and which form of the header, is meant.
    start : Path or None
        Label file to begin with; None: with empty labels.
    target : Path
        File that its labels are saved to.

    Raises
    ------
    ImageError
        If the scan cannot be opened.
    LabelError
        If labels that are there cannot be opened, or are those of another scan: they must not be replaced.
    """
    from napari_sam_med.volume.reading import read_labels, read_volume

    yield Progress(0, 3, f"reading {case.name}")
    form: Literal["sform", "qform"] | None = (
        "sform" if kept.form == "sform" else "qform" if kept.form == "qform" else None
    )
    volume = read_volume(case.image, time=kept.time, form=form)
    labels, saved = None, None
    if start is not None:
        yield Progress(1, 3, f"reading {start.name}")
        try:
            before = _digest(start)
            labels = read_labels(start, reference=volume)
        except (ImageError, LabelError, OSError) as error:
            raise LabelError(
                f"{case.name}: its labels cannot be opened ({str(error).rstrip('.')}). They stay as they "
                f"are; mend {start.name}, or move it away to begin anew."
            ) from error
        if start == target:
            _refuse_labels_of_another_scan(case, start, volume)
            saved = KnownFile(target, before, not labels.data.any(), target.stat().st_mtime)
    scan = yield from jobs.prepare_scan(volume, labels)
    return OpenedCase(case, scan, start, saved)


def save_case(
    path: Path,
    known: KnownFile | None,
    labels: LabelVolume,
    volume: Volume,
    model: Mapping[str, Any] | None = None,
) -> Generator[Progress, None, KnownFile]:
    """Job: save labels, whole or not at all, over no file but the one that they were opened from.

    Where another file has the name meanwhile, that one stays, and the labels get the next free name. Pass a
    copy of labels that may change while it runs.

    Parameters
    ----------
    path : Path
    known : KnownFile or None
        What these labels were opened from, or saved to last.

    Returns
    -------
    KnownFile
        The file as written; its ``path`` may be another one.

    Raises
    ------
    ExportError
        If it cannot be written, or the labels are empty and those in the file are not.
    """
    yield Progress(0, 2, f"saving {path.name}")
    is_empty = not labels.data.any()
    is_ours = known is not None and known.path == path
    if path.exists() and not (is_ours and known is not None and _digest(path) == known.digest):
        path = _free(path)
    elif path.exists() and is_empty and known is not None and not known.is_empty:
        raise ExportError(
            f"The labels are empty now, and empty labels never replace others: {path.name} stays as it was. "
            "If nothing is to be labelled, remove that file yourself, or export over it."
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ExportError(
            f"{path.parent} could not be made ({error.strerror or error}); choose another folder for the "
            "labels."
        ) from error
    written = yield from jobs.export_labels(path, labels, volume, model)
    return known_file(written, labels)


def known_file(path: Path, labels: LabelVolume) -> KnownFile:
    """A label file as it is now, which holds `labels`; raises OSError where it cannot be read."""
    return KnownFile(path, _digest(path), not labels.data.any(), path.stat().st_mtime)


def is_writable(folder: Path) -> bool:
    """Whether files can be made in a folder, or, where it is not there yet, in the one it will be in."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    try:
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def _refuse_labels_of_another_scan(case: Case, path: Path, volume: Volume) -> None:
    """Two folders with scans that are called alike may share a place for their labels."""
    source = read_origin(path, volume.grid).source
    if source is None or source["path"] == case.image.resolve():
        return
    files = dicom.files_of(volume.header) or [case.image]
    if source["sha256"] != sha256_of_files(files):  # else the scan was moved, or copied
        raise LabelError(
            f"{case.name}: {path.name} holds the labels of another scan ({source['path']}), which are never "
            "replaced. Open the folder again, and choose another place for its labels."
        )


def _digest(path: Path) -> str:
    digest = xxhash.xxh3_128()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _free(path: Path) -> Path:
    """The name with the first number from 2 on that no file has."""
    stem = stem_of(path)
    ending, number = path.name[len(stem) :], 2
    stem = re.sub(r"(?<=_labels)_\d+$", "", stem)
    while (free := path.with_name(f"{stem}_{number}{ending}")).exists():
        number += 1
    return free
