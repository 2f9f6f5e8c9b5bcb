"""The list of volumes to learn from and to judge by, as the user puts it together."""

from __future__ import annotations

import hashlib
import json
import weakref
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtCore import QObject, Signal

from napari_sam_med.errors import ExportError, ImageError, LabelError
from napari_sam_med.evaluation.cases import Case, read_cases
from napari_sam_med.session import jobs, learning
from napari_sam_med.training import own_models
from napari_sam_med.volume.formats import dicom
from napari_sam_med.volume.volume import Volume

if TYPE_CHECKING:
    from napari_sam_med.gui.actions import Actions
    from napari_sam_med.gui.workers import Job
    from napari_sam_med.volume.labels import LabelVolume

__all__ = ["TrainingCases", "is_judged"]


class TrainingCases(QObject):
    """Cases and how many labelled slices each has.

    Attributes
    ----------
    listed : list of Case
        Remembered, unless nothing is to be kept on disk.
    counts : dict
        Labelled slices by label file, or in one line why there are none.

    Signals
    -------
    changed
        The list.
    counted
        Slices of a case.
    """

    changed = Signal()
    counted = Signal()

    def __init__(self, actions: Actions, parent: QObject) -> None:
        super().__init__(parent)
        self._actions = actions
        is_kept = not actions.settings.keeps_nothing
        self.listed = own_models.read_case_list(own_models.case_list_path()) if is_kept else []
        self.counts: dict[Path, int | str] = {}
        self._counting: Job | None = None
        self._written: tuple[weakref.ref[LabelVolume], Path] | None = None
        actions.exported.connect(self._on_exported)

    def check(self) -> None:
        """Whether there is something to learn from, in files that are there, of patients on one side.

        Raises
        ------
        ImageError, LabelError
        """
        if not self.listed:
            raise LabelError("There is nothing to learn from yet; add labelled volumes.")
        gone = [case.name for case in self.listed if not _is_file(case)]
        if gone:
            raise ImageError(f"The files of {gone[0]} are not there any more; bring them back or remove it.")
        if all(is_judged(case) for case in self.listed):
            raise LabelError("All volumes are only judged; tick one to learn from it.")
        judged = {_patient(case) for case in self.listed if is_judged(case)}
        both = [case for case in self.listed if not is_judged(case) and _patient(case) in judged]
        if both:
            raise LabelError(
                f"{both[0].name} is learned from, and another volume of its patient only judged, which "
                "flatters; tick both or none."
            )

    # what is in the list

    def add_open_scan(self) -> None:
        """Add the open scan with its labels as they are now; a scan that is in the list is updated."""
        self._actions.attempt(self._add_open_scan)

    def _add_open_scan(self) -> None:
        session = self._actions.session
        volume, labels = session.volume, session.labels
        if volume is None or labels is None:
            self._actions.status.emit("Open a scan and label an organ first.")
            return
        scan = _file_of(volume)
        present = [class_id for class_id in session.organs if session.voxel_count(class_id)]
        if not present:
            raise LabelError(f"{volume.name} has no labelled voxel yet; accept a mask first.")
        names = json.dumps({class_id: session.organs.name_of(class_id) for class_id in present})
        case = Case(volume.name, str(scan), scan, scan, names, "", str(scan))
        here = self._file_of_labels()
        if here is not None:
            self._put([replace(case, labels_path=here)])
            return
        if self._actions.settings.keeps_nothing:
            raise ExportError(
                "The labels as they are were not exported, and nothing is kept on disk; export them first."
            )
        digest = hashlib.sha256(str(scan).encode()).hexdigest()[:8]
        path = own_models.training_labels_folder() / f"{volume.name.split('.')[0]}_{digest}.nii.gz"
        self._actions.status.emit(f"A copy of the labels as they are is written to {path.parent}…")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ExportError(
                f"The folder {path.parent} cannot be made: {error.strerror}; export the labels, then add."
            ) from error
        self._actions.write_labels(
            partial(jobs.export_labels, path),
            "labels to learn from",
            lambda _, written: self._put([replace(case, labels_path=written)]),
            self._actions.show_error,
        )

    def _file_of_labels(self) -> Path | None:
        """The file that the labels were exported to exactly as they are; None where there is none.

        Not where they were opened from: what is open may have been put together from several files.
        """
        labels, written = self._actions.session.labels, self._written
        if written is None or written[0]() is not labels or self._actions.keeping.has_unexported_work:
            return None
        return written[1] if written[1].is_file() else None

    def _on_exported(self, path: Path) -> None:
        self._written = (weakref.ref(self._actions.session.labels), path)

    def add_from(self, path: Path) -> None:
        """Add the cases of a cases file, or of a folder in a layout that `read_cases` knows."""
        found = self._actions.attempt(lambda: read_cases(path))
        if found:
            self._put(found)

    def _put(self, cases: Sequence[Case]) -> None:
        places = {_key(case): position for position, case in enumerate(self.listed)}
        updated = 0
        for case in cases:
            self.counts.pop(case.labels_path, None)
            position = places.get(_key(case))
            if position is None:
                places[_key(case)] = len(self.listed)
                self._name_apart(case)
            else:
                updated += 1
                before = self.listed[position]
                self.listed[position] = replace(case, split=case.split or before.split, name=before.name)
        added = len(cases) - updated
        parts = [f"{added} added"] if added else []
        parts += [f"{updated} updated"] if updated else []
        self._actions.status.emit(f"Cases to learn from: {', '.join(parts)}.")
        self._keep()
        self.count()

    def _name_apart(self, case: Case) -> None:
        """Append a case under a name of its own.

        Files that are all called alike, such as ``image.nii.gz``, go by their folders, the first one too.
        """
        file = case.image_path.name
        alike = [c for c in self.listed if c.image_path.name == file] if case.name == file else []
        for other in alike:
            if other.name == file:
                named = replace(other, name=self._free(other.image_path.parent.name, other))
                self.listed[self.listed.index(other)] = named
        name = case.image_path.parent.name if alike else case.name
        self.listed.append(replace(case, name=self._free(name, case)))

    def _free(self, name: str, case: Case) -> str:
        """The name, or the case's with its folder, and a number if need be, where another one has it."""
        taken = {other.name for other in self.listed}
        full, number = f"{case.image_path.parent.name}/{case.name}", 1
        if name in taken:
            name = full
        while name in taken:
            number += 1
            name = f"{full} ({number})"
        return name

    def remove(self, cases: Sequence[Case]) -> None:
        """Take cases off the list; their files stay."""
        gone = {_key(case) for case in cases}
        self.listed = [case for case in self.listed if _key(case) not in gone]
        self._keep()

    def learn_from(self, case: Case, is_learned: bool) -> None:
        """Learn from a case, or only judge by it; all volumes of one patient go together."""
        split, patient = "train" if is_learned else "val", _patient(case)
        together = [c for c in self.listed if _key(c) == _key(case) or _patient(c) == patient]
        self.listed = [replace(c, split=split) if c in together else c for c in self.listed]
        if len(together) > 1:
            self._actions.status.emit(
                f"{len(together)} volumes of one patient go together, so that nobody both teaches and judges."
            )
        self._keep()

    def _keep(self) -> None:
        if not self._actions.settings.keeps_nothing:
            try:
                own_models.write_case_list(own_models.case_list_path(), self.listed)
            except OSError as error:
                self._actions.status.emit(f"The list of cases could not be kept: {error.strerror}.")
        self.changed.emit()

    # how much there is

    def count(self) -> None:
        """Count labelled slices of the cases where that was not done yet."""
        if self._counting is not None:
            self._counting.discard()  # what it has not told yet may have changed
        wanted = [case for case in self.listed if case.labels_path not in self.counts]
        if wanted:
            self._counting = self._actions.workers.start(
                learning.count_slices(wanted),
                "count labelled slices",
                is_background=True,
                yielded=lambda counted: self.note_count(*counted),
                failed=self._actions.show_error,
            )

    def note_count(self, case: Case, count: int | str) -> None:
        """Remember how many labelled slices a case has, or why none can be read."""
        self.counts[case.labels_path] = count
        self.counted.emit()


def is_judged(case: Case) -> bool:
    """Whether a case is not learned from."""
    return case.split in ("val", "test")


def _key(case: Case) -> Path:
    return case.image_path.resolve()


def _patient(case: Case) -> str:
    return case.patient or case.image


def _is_file(case: Case) -> bool:
    return case.image_path.is_file() and case.labels_path.is_file()


def _file_of(volume: Volume) -> Path:
    """The file from which the scan is read again."""
    path = volume.path
    series = dicom.files_of(volume.header)
    if series:
        path = series[0]
    if path is None or not path.is_file():
        raise ImageError(f"{volume.name} is in no file, so it cannot be read again; save it to one first.")
    if volume.time:
        raise ImageError(
            f"This is volume {volume.time} of {volume.n_times} in {path.name}; learning reads the first one, "
            "so save this one to a file of its own."
        )
    return path.absolute()
