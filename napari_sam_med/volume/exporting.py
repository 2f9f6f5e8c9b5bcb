"""Many files at once: names from a pattern, all checked before the first is written."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from napari_sam_med.errors import ExportError
from napari_sam_med.volume.disk_labels import refuse_on_disk
from napari_sam_med.volume.formats.label_description import TABLE_ENDINGS
from napari_sam_med.volume.formats.sidecar import Origin, path_beside, stem_of
from napari_sam_med.volume.labels import LabelVolume
from napari_sam_med.volume.organs import OrganTable
from napari_sam_med.volume.volume import Volume
from napari_sam_med.volume.writing import (
    LABEL_ENDINGS,
    SERIES_ENDINGS,
    refuse_sources,
    write_labels,
    write_table,
)

__all__ = ["EXPORT_ENDINGS", "PlannedFile", "check_pattern", "export_labels", "plan_export", "safe_name"]

#: Endings that an export may have: label files, and tables of names.
EXPORT_ENDINGS: tuple[str, ...] = (*LABEL_ENDINGS, *SERIES_ENDINGS, *TABLE_ENDINGS)

_FIELD = re.compile(r"\{(case|organ|label|ending)\}")
# what Windows, which is the strictest, refuses in names
_UNSAFE = re.compile(r'[<>:"/\\|?*\x00-\x1f\x7f]')
_DEVICES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)", re.IGNORECASE)
_LONGEST_PART = 80  # bytes; file systems take 255 for the whole name


@dataclass(frozen=True)
class PlannedFile:
    """A file that an export is going to write.

    Attributes
    ----------
    path : Path
    class_id : int or None
        The one organ in it, as label 1; None where it holds all.
    """

    path: Path
    class_id: int | None


def export_labels(
    patterns: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    labels: LabelVolume,
    *,
    case: str | None = None,
    endings: Sequence[str] = (),
    source: Volume | None = None,
    model: Mapping[str, Any] | None = None,
    origin: Origin | None = None,
) -> list[Path]:
    """Write labels to one or several files, whose names patterns give.

    Every file is written as `write_labels` does, whole or not at all. Names are checked before the first is
    written; a failure later says which files were written before it.

    Parameters
    ----------
    patterns : path or iterable of paths
        In the last part, ``{case}`` stands for the case, ``{organ}`` and ``{label}`` for name and number of
        an organ, ``{ending}`` for each of `endings`. With ``{organ}`` or ``{label}`` there is one file for
        each organ that has voxels, with 1 in them; without, all organs are in one file with their numbers.
        Endings are those of `write_labels` and `write_table`. Other braces stay as they are.
    labels : LabelVolume
    case : str, optional
        By default the stem of the scan's file name, or ``labels``.
    endings : sequence of str
        Such as ``("nii.gz", "stl")``; only with a pattern that has ``{ending}``.
    source, model, origin
        As for `write_labels`.

    Returns
    -------
    list of Path
        The files, in the order of patterns, organs and endings.

    Raises
    ------
    ExportError
        If two files would have the same name, one is the scan, an ending is unknown, there are `endings` but
        no ``{ending}`` in a pattern, there is nothing to write, or a file cannot be written.
    LabelError
        If `source` lies on another grid, or labels larger than memory are to be written organ by organ.
    """
    scan_path = labels.path if source is None else source.path
    if case is None:
        case = "labels" if scan_path is None else stem_of(scan_path)
    plan = plan_export(patterns, labels, case=case, endings=endings)
    for planned in plan:
        refuse_sources(planned.path, labels, source, origin)
    written: list[Path] = []
    single: LabelVolume | None = None
    single_id: int | None = None
    for planned in plan:
        if planned.class_id is not None and planned.class_id != single_id:
            single, single_id = _only(labels, planned.class_id), planned.class_id
        these = labels if planned.class_id is None or single is None else single
        try:
            if planned.path.name.lower().endswith(TABLE_ENDINGS):
                write_table(planned.path, these.organs.covering(these.class_ids()))
            else:
                write_labels(planned.path, these, source=source, model=model, origin=origin)
        except ExportError as error:
            done = ", ".join(path.name for path in written) or "none"
            raise ExportError(
                f"{error} Written before it: {done}." if len(plan) > 1 else str(error)
            ) from error
        written.append(planned.path)
    return written


def plan_export(
    patterns: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    labels: LabelVolume,
    *,
    case: str,
    endings: Sequence[str] = (),
) -> list[PlannedFile]:
    """The files that `export_labels` is going to write, in its order; nothing is written.

    Raises
    ------
    ExportError
        As `export_labels` does of names.
    """
    given = [patterns] if isinstance(patterns, str | os.PathLike) else list(patterns)
    if endings and not any("{ending}" in Path(pattern).name for pattern in given):
        raise ExportError(
            f"Endings are given ({', '.join(endings)}), but no name has the field {{ending}}, for which they "
            "stand; put it into a name, or give no endings."
        )
    plan: list[PlannedFile] = []
    for pattern in map(Path, given):
        check_pattern(pattern, endings)
        fields = set(_FIELD.findall(pattern.name))
        is_one_each = bool(fields & {"organ", "label"})
        if is_one_each:
            refuse_on_disk(labels.data, "A file for each organ", "write all organs into one file")
        class_ids: Sequence[int | None] = labels.class_ids() if is_one_each else [None]
        if not class_ids:
            raise ExportError(f"No voxel is labelled, so {pattern.name} stands for no file; label one first.")
        for class_id in class_ids:
            values = {"case": safe_name(case), "label": str(class_id)}
            values["organ"] = "" if class_id is None else safe_name(labels.organs.name_of(class_id))
            plan += [
                PlannedFile(_filled(pattern, values, ending), class_id)
                for ending in (endings if "ending" in fields else ("",))
            ]
    _refuse_collisions(plan, labels)
    return plan


def check_pattern(pattern: Path, endings: Sequence[str] = ()) -> None:
    """Refuse a pattern of another format before there are labels for it.

    Raises
    ------
    ExportError
        If its ending is none of an export, or ``{ending}`` stands in it and there are no `endings`.
    """
    if "{ending}" in pattern.name and not endings:
        raise ExportError(f"{pattern.name} has the field {{ending}}; say which endings, such as nii.gz.")
    for ending in endings if "{ending}" in pattern.name else ("",):
        _format_of(pattern, ending)


def safe_name(text: str) -> str:
    """Text as a part of a file name on every system; what cannot stand in one becomes ``_``."""
    writable = text.encode("utf-8", "replace").decode()
    name = _UNSAFE.sub("_", unicodedata.normalize("NFC", writable)).strip()
    name = name.encode()[:_LONGEST_PART].decode("utf-8", "ignore").strip()
    return f"{name}_" if not name or _DEVICES.fullmatch(name) else name


def _filled(pattern: Path, values: Mapping[str, str], ending: str) -> Path:
    """Path of a pattern's file; its format is that of the pattern, whatever organs are called."""
    name = _fill(pattern.name, {**values, "ending": ending.removeprefix(".")})
    known = _format_of(pattern, ending)
    if _ending_of(name) != known:
        raise ExportError(f"{name} would be another format than {known}; change the pattern or the name.")
    return pattern.with_name(name)


def _fill(text: str, values: Mapping[str, str]) -> str:
    return _FIELD.sub(lambda match: values[match[1]], text)


def _format_of(pattern: Path, ending: str) -> str:
    fields = {"case": "x", "organ": "x", "label": "x", "ending": ending.removeprefix(".")}
    example = _fill(pattern.name, fields)
    known = _ending_of(example)
    if known is None:
        raise ExportError(
            f"{pattern}: labels are written as {', '.join(EXPORT_ENDINGS)}, and {example} ends otherwise; "
            "give a name that ends so."
        )
    return known


def _ending_of(name: str) -> str | None:
    fitting = [e for e in EXPORT_ENDINGS if name.lower().endswith(e) and len(name) > len(e)]
    return max(fitting, key=len, default=None)


def _refuse_collisions(plan: Sequence[PlannedFile], labels: LabelVolume) -> None:
    """Refuse files of one name, also where a system tells neither case nor accents apart, or one sidecar."""
    owners: dict[str, PlannedFile] = {}
    for planned in plan:
        first = owners.setdefault(_folded(planned.path), planned)
        if first is planned:
            first = owners.setdefault(_folded(path_beside(planned.path)), planned)
            if first.class_id == planned.class_id:
                continue
        raise ExportError(
            f"{_described(first, labels)} and {_described(planned, labels)} would both be written to "
            f"{planned.path.name} or its sidecar; rename an organ, or put {{label}} into the pattern."
        )


def _folded(path: Path) -> str:
    return unicodedata.normalize("NFC", os.path.abspath(path)).casefold()


def _described(planned: PlannedFile, labels: LabelVolume) -> str:
    if planned.class_id is None:
        return "all organs"
    return f"{labels.organs.name_of(planned.class_id)} (label {planned.class_id})"


def _only(labels: LabelVolume, class_id: int) -> LabelVolume:
    """One organ alone, as label 1."""
    organ = labels.organs.covering([class_id])[class_id]
    return LabelVolume(
        (labels.data == class_id).astype(np.uint8),
        labels.grid,
        OrganTable([replace(organ, class_id=1)]),
        header=labels.header,
        path=labels.path,
    )
