"""The folder of an experiment: rows written as they come, so that it can be stopped and carried on.

``experiment.json`` says what is measured, ``results.csv`` and ``baselines.csv`` have one row an answer, and
once everything is measured there are ``summary.json``, ``report.md`` and ``report.html``.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

import filelock

from napari_sam_med.errors import ExportError
from napari_sam_med.evaluation.cases import Case
from napari_sam_med.evaluation.html_report import REPORT as PAGE
from napari_sam_med.evaluation.html_report import write_html_report
from napari_sam_med.evaluation.instance_scores import InstanceSlice, instances_document
from napari_sam_med.evaluation.measuring import LabelledSlice, SliceScore
from napari_sam_med.evaluation.report import ResultTable, markdown_report
from napari_sam_med.evaluation.report_gallery import GallerySource, gallery_pictures
from napari_sam_med.evaluation.results_file import read_results, whole_rows, write_header, write_scores
from napari_sam_med.evaluation.running import Contestant, Step
from napari_sam_med.segmentation.report import write_json
from napari_sam_med.volume.replacement import Replacement
from napari_sam_med.volume.slice_view import SliceView

__all__ = ["FILES", "INSTANCES", "EarlierRows", "ExperimentFolder", "locked_folder", "made_folder"]

EXPERIMENT, RESULTS, BASELINES = "experiment.json", "results.csv", "baselines.csv"
SUMMARY, REPORT, INSTANCES = "summary.json", "report.md", "instances.json"
FILES = (EXPERIMENT, RESULTS, BASELINES, SUMMARY, REPORT, PAGE)
"""What an experiment writes into its folder."""
_OF_ALL_ROWS = (SUMMARY, REPORT, PAGE, INSTANCES)
_LOCK = ".lock"

_Slice = tuple[str, str, SliceView]  # case, model, view


@contextmanager
def made_folder(folder: Path) -> Iterator[None]:
    """Context in which a folder is there; when it was made for it and is empty at the end, it goes again.

    Raises
    ------
    ExportError
        When it cannot be made.
    """
    missing = [path for path in (folder, *folder.parents) if not os.path.exists(path)]
    try:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ExportError(
                f"The folder {folder} cannot be made: {error.strerror}; choose another one."
            ) from error
        yield
    finally:
        for path in missing:
            with suppress(OSError):  # something was written into it
                path.rmdir()


@contextmanager
def locked_folder(folder: Path) -> Iterator[None]:
    """Context in which nobody else measures into a folder; the system lets go of it when the process dies.

    Parameters
    ----------
    folder : Path
        As `made_folder` makes it.

    Raises
    ------
    ExportError
        When somebody measures into it, or it cannot be written.
    """
    lock = filelock.FileLock(folder / _LOCK, thread_local=False)
    with made_folder(folder):
        try:
            lock.acquire(blocking=False)
        except (filelock.Timeout, RuntimeError):  # RuntimeError: held by this thread, as filelock sees it
            raise ExportError(
                f"Another run writes its results into {folder} just now; wait for it, stop it, or choose "
                "another folder."
            ) from None
        except OSError as error:
            raise ExportError(
                f"The folder {folder} cannot be written: {error.strerror}; choose another one."
            ) from error
        try:
            yield
        finally:
            with suppress(OSError):  # Windows removes no open file, and filelock does it there
                (folder / _LOCK).unlink()
            lock.release()


class EarlierRows:
    """The rows of slices that were measured in an earlier run; can be sent to other processes.

    Parameters
    ----------
    file : Path
        That they were read from, for messages.
    rows : dict of (case, model, view) to list of SliceScore
    """

    def __init__(self, file: Path, rows: dict[_Slice, list[SliceScore]] | None = None) -> None:
        self._file = file
        self.rows = {} if rows is None else rows

    def of(self, case: Case) -> EarlierRows:
        """Those of one case."""
        return EarlierRows(self._file, {key: rows for key, rows in self.rows.items() if key[0] == case.name})

    def __call__(
        self, case: Case, contestant: Contestant, labelled: LabelledSlice
    ) -> list[SliceScore] | None:
        """The rows of a slice, or None.

        Raises
        ------
        ExportError
            When some are missing: the file was changed, and new rows would stand beside old ones.
        """
        rows = self.rows.get((case.name, contestant.name, labelled.view))
        if rows is None:
            return None
        simulation = contestant.simulation
        there = {(row.label, row.seed, row.strategy) for row in rows}
        due = {
            (label, seed, strategy.name)
            for label in labelled.label_ids
            for seed in simulation.seeds
            for strategy in simulation.strategies
        }
        if there != due or len(rows) != len(due):
            raise ExportError(
                f"{self._file} has {len(rows)} rows of {case.name}, {labelled.view.plane} slice "
                f"{labelled.view.index}, where the experiment has {len(due)}; a file that was changed cannot "
                "be carried on: run without resuming to replace it."
            )
        return rows


class ExperimentFolder:
    """Context in which an experiment is measured into a folder, which stays as it is until the first answers.

    Parameters
    ----------
    folder : Path
    facts : dict
        What is measured, as plain values; only the same is carried on.
    resume : bool
        Keep the rows that are there; else they are replaced.

    Attributes
    ----------
    known : EarlierRows
        Of the rows that are kept.

    Raises
    ------
    ExportError
        When the folder holds another experiment, or cannot be written.
    """

    def __init__(self, folder: Path, facts: Mapping[str, Any], *, resume: bool) -> None:
        self.folder = folder
        self._facts = {"version": 1, **facts}
        self._resume = resume
        self.known = EarlierRows(folder / RESULTS)
        self._waiting: list[SliceScore] = []
        self._files: tuple[TextIO, TextIO] | None = None  # of results and baselines

    def __enter__(self) -> ExperimentFolder:
        with self._explained():
            if self._resume:
                self._take_up()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for file in self._files or ():
            file.close()

    @property
    def replaces(self) -> bool:
        """Whether the first answers will take the place of what an earlier run left in the folder."""
        if self._resume or self._files is not None:
            return False
        return any((self.folder / name).exists() for name in (RESULTS, *_OF_ALL_ROWS))

    def take(self, step: Step) -> None:
        """Write what was measured; baselines wait for the first answers of a model.

        Raises
        ------
        ExportError
            When that is not possible.
        """
        self._waiting += step.baselines
        with self._explained():
            if self._files is None:
                if not step.scores:
                    return
                self._files = self._begun()
            results, baselines = self._files
            write_scores(baselines, self._waiting)
            self._waiting.clear()
            if step.is_new:
                write_scores(results, step.scores)

    def scores(self) -> list[SliceScore]:
        """All rows of models, as they were written."""
        return [] if self._files is None else read_results(self.folder / RESULTS)

    def baselines(self) -> list[SliceScore]:
        """All rows of the answers that need no model."""
        return [] if self._files is None else read_results(self.folder / BASELINES)

    def write_pages(
        self, summary: Mapping[str, Any], scores: Sequence[SliceScore], source: GallerySource
    ) -> None:
        """Write the reports, with pictures of answers that are asked for once more."""
        with self._explained(), Replacement(self.folder / REPORT, ".md") as file:
            file.temporary.write_text(markdown_report(summary), encoding="utf-8")
            file.put_in_place()
        protocol = summary["protocol"]
        tables = [] if protocol is None else [ResultTable(**table) for table in protocol["tables"]]
        with closing(gallery_pictures(scores, source)) as pictures:  # type: ignore[type-var]  # a generator
            write_html_report(self.folder, summary, scores, tables=tables, pictures=pictures)

    def write_instances(self, slices: Sequence[InstanceSlice]) -> None:
        """Write the masks that are there and those that were found with the boxes of detectors."""
        write_json(self.folder / INSTANCES, instances_document(slices))

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Write the summary, at last: it says that everything is there."""
        write_json(self.folder / SUMMARY, summary)

    def _take_up(self) -> None:
        """Read the rows of an earlier run of the same experiment."""
        results = self.folder / RESULTS
        if not results.exists() or not whole_rows(results.read_bytes()):
            return  # it had not begun
        differs = _difference(self.folder / EXPERIMENT, self._facts)
        if differs:
            raise ExportError(
                f"{self.folder} holds the results of another experiment ({differs}), and only the same one "
                "can be carried on; choose another folder, or run without resuming to replace what is there."
            )
        for score in read_results(results):
            self.known.rows.setdefault((score.volume, score.model, score.view), []).append(score)
        if self.known.rows and not (self.folder / SUMMARY).exists():
            self.known.rows.popitem()  # the last slice may have been broken off between two rows

    def _begun(self) -> tuple[TextIO, TextIO]:
        """Put the rows that are kept in place of all that is there; the tables, opened for more."""
        kept = [score for rows in self.known.rows.values() for score in rows]
        with Replacement(self.folder / RESULTS, ".csv") as file:
            with file.temporary.open("w", encoding="utf-8", newline="") as rows:
                write_header(rows)
                write_scores(rows, kept)
            # on a full disk nothing is lost up to here
            for stale in _OF_ALL_ROWS:  # they would stand beside other rows
                (self.folder / stale).unlink(missing_ok=True)
            if not kept:  # or, killed now, rows of another experiment would be carried on as of this
                (self.folder / RESULTS).unlink(missing_ok=True)
            write_json(self.folder / EXPERIMENT, self._facts)
            file.put_in_place()
        results = (self.folder / RESULTS).open("a", encoding="utf-8", newline="")
        baselines = (self.folder / BASELINES).open("w", encoding="utf-8", newline="")
        write_header(baselines)
        return results, baselines

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise ExportError(
                f"{error.filename or self.folder} cannot be written: {error.strerror}; choose another folder "
                "that is writable and has space."
            ) from error


def _difference(experiment: Path, facts: Mapping[str, Any]) -> str:
    """Which facts differ from those in a file; empty where none does."""
    try:
        known = json.loads(experiment.read_text(encoding="utf-8"))
        both = [{**document["run"], "cases": document["cases"]} for document in (known, facts)]
    except (OSError, ValueError, KeyError, TypeError):
        return f"there is no {EXPERIMENT} that says which"
    names = [name for name in both[0] | both[1] if both[0].get(name) != both[1].get(name)]
    return f"other {' and '.join(names)}" if names else ""
