"""Which cases are done: a small JSON file beside the labels, shared by all who work on the folder."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import filelock

from napari_sam_med.errors import ExportError
from napari_sam_med.volume.replacement import Replacement

__all__ = ["KeptCase", "Status", "StatusFile"]

Status = Literal["new", "in progress", "done"]

_FORMAT = 1
_PATIENCE_SECONDS = 2.0


@dataclass(frozen=True)
class KeptCase:
    """What is known of a case that was worked on.

    Attributes
    ----------
    status : Status
    labels : str or None
        Name of the file that its labels were saved to.
    digest : str or None
        Of that file, as it was saved.
    journal : str or None
        Name, without ending, of the journal whose labels are in that file.
    time : int or None
        Which volume of a scan that holds several.
    form : str or None
        What places its voxels where that was asked: ``sform``, ``qform``, or ``as read``.
    """

    status: Status = "new"
    labels: str | None = None
    digest: str | None = None
    journal: str | None = None
    time: int | None = None
    form: str | None = None

    @classmethod
    def from_json(cls, fields: Any) -> KeptCase:
        """Of what `asdict` gave; raises TypeError or ValueError where it is something else."""
        kept = cls(**fields)
        texts = (kept.labels, kept.digest, kept.journal, kept.form)
        if kept.status not in ("new", "in progress", "done"):
            raise ValueError(kept.status)
        if not all(text is None or isinstance(text, str) for text in texts):
            raise TypeError(texts)
        if not (kept.time is None or isinstance(kept.time, int)):
            raise TypeError(kept.time)
        if kept.labels is not None and Path(kept.labels).name != kept.labels:
            raise ValueError(kept.labels)  # nothing may be written outside the folder of labels
        return kept


class StatusFile:
    """The status of every case, on disk. Names in it are relative: it travels with the labels.

    Each change reads the file, changes one case and replaces the file at once, so that windows that work on
    other cases of the folder keep theirs.

    Parameters
    ----------
    path : Path
        It and its folder are made when something is noted.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        #: Where a damaged file was put, if there was one.
        self.put_aside: Path | None = None

    def read(self) -> dict[str, KeptCase]:
        """Cases by key; none where there is no file. A damaged file is put aside, never removed.

        Raises
        ------
        ExportError
            If it cannot be read, or a newer version wrote it.
        """
        try:
            content = self.path.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return {}
        except OSError as error:
            raise ExportError(
                f"{self.path} cannot be read: {error.strerror or error}; check its rights, or choose another "
                "folder for the labels."
            ) from error
        try:
            record = json.loads(content)
            version, cases = record["format"], record["cases"].items()
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            self._put_aside()
            return {}
        if version != _FORMAT:
            raise ExportError(
                f"{self.path} is of another version of napari-sam-med (format {version!r}, here {_FORMAT}); "
                "update napari-sam-med, or choose another folder for the labels."
            )
        kept = {}
        for key, fields in cases:
            with suppress(TypeError, ValueError):  # one odd entry is no reason to lose the others
                kept[key] = KeptCase.from_json(fields)
        return kept

    def note(self, key: str, **changes: Any) -> dict[str, KeptCase]:
        """Change what is known of a case; answers all cases as they stand then.

        Raises
        ------
        ExportError
            If the file cannot be written; what it held is intact.
        """
        with self._alone():
            kept = self.read()
            kept[key] = replace(kept.get(key, KeptCase()), **changes)
            known = {
                key: {n: v for n, v in asdict(case).items() if v is not None} for key, case in kept.items()
            }
            text = json.dumps({"format": _FORMAT, "cases": known}, ensure_ascii=False, indent=1)
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                with Replacement(self.path, ".json") as file:
                    file.temporary.write_bytes(text.encode("utf-8", "backslashreplace"))
                    file.flush_to_disk()
                    file.put_in_place()
            except OSError as error:
                raise ExportError(
                    f"{self.path} could not be written: {error.strerror or error}; free some space, or "
                    "choose another folder for the labels."
                ) from error
            return kept

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep other windows from writing meanwhile; the lock is no part of the folder, nor of kept work."""
        name = hashlib.sha256(os.fsencode(self.path.resolve())).hexdigest()[:32]
        try:
            lock = filelock.FileLock(Path(tempfile.gettempdir()) / f"napari-sam-med-{name}.lock")
            lock.acquire(timeout=_PATIENCE_SECONDS)
        except OSError:  # filelock.Timeout as well: the file is replaced whole even so
            yield
            return
        try:
            yield
        finally:
            lock.release()

    def _put_aside(self) -> None:
        number = 1
        while (aside := self.path.with_name(f"{self.path.stem}.damaged-{number}.json")).exists():
            number += 1
        with suppress(OSError):  # another window was quicker, or the folder is read-only
            os.replace(self.path, aside)
            self.put_aside = aside
