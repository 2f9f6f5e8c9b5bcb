"""The JSON file beside exported labels: what the label file itself has no place for."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from napari_sam_med.errors import LabelError
from napari_sam_med.volume.grid import Grid
from napari_sam_med.volume.organs import OrganTable

__all__ = [
    "SCHEMA_VERSION",
    "Origin",
    "content",
    "path_beside",
    "program_version",
    "read_organs",
    "read_origin",
    "sha256_of_files",
    "stem_of",
]

SCHEMA_VERSION = 1
_VOLUMES = (".ome.zarr", ".seg.nrrd", ".seg.dcm", ".nii.gz", ".nii", ".nrrd", ".mha", ".dcm")
_ENDINGS = (*_VOLUMES, ".coco.json", ".stl", ".obj", ".ply", ".vtk", ".label", ".lut.txt")
_DAMAGES = (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError)


@dataclass(frozen=True)
class Origin:
    """Where labels came from.

    Attributes
    ----------
    source : mapping or None
        ``path`` (absolute `Path`) and ``sha256`` of the scan; of a DICOM series, of the bytes of its files in
        the order of its slices.
    model : mapping or None
        Name, version and hash of the model.
    """

    source: Mapping[str, Any] | None = None
    model: Mapping[str, Any] | None = None

    @classmethod
    def of(
        cls, scan: Path | None, model: Mapping[str, Any] | None, files: Sequence[Path] | None = None
    ) -> Origin:
        """Of a scan, if its file or all of its `files` are there, and a model."""
        if scan is None or not all(file.is_file() for file in files or [scan]):
            return cls(None, model)
        return cls({"path": scan.resolve(), "sha256": sha256_of_files(files or [scan])}, model)

    def completed_by(self, other: Origin) -> Origin:
        """This, with what it does not know taken from another."""
        return Origin(
            other.source if self.source is None else self.source,
            other.model if self.model is None else self.model,
        )


def stem_of(path: Path) -> str:
    """File name without its ending; ``.nii.gz``, ``.seg.nrrd``, ``.coco.json`` and ``.lut.txt`` are one."""
    name = path.name
    for ending in _ENDINGS:
        if name.lower().endswith(ending) and len(name) > len(ending):
            return name[: -len(ending)]
    return path.stem


def path_beside(path: Path) -> Path:
    """``<stem>.sam-med.json`` beside a label file."""
    return path.with_name(f"{stem_of(path)}.sam-med.json")


def content(
    labels_path: Path,
    grid: Grid,
    organs: OrganTable,
    origin: Origin,
) -> bytes:
    """The sidecar of labels written to `labels_path`, as UTF-8 JSON.

    Keys: ``schema_version``, ``file``, ``also`` (other files of this stem, written before, of which all of it
    is true as well), ``source`` (``path``, ``sha256``; null if unknown), ``affine`` (4, 4) voxel (i, j, k) to
    RAS mm, ``geometry`` (null, or what the scan left open about it: ``doubts``, and what was ``used``),
    ``shape`` (i, j, k), ``labels`` (see `OrganTable.to_json`), ``model`` (null or what the caller gave; the
    widget gives ``objects`` too: ``label``, ``name``, and of how many ``slices`` each model is the maker),
    ``program``, ``version``, ``written`` (UTC).
    """
    source = origin.source
    record: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "file": labels_path.name,
        "also": [],
        "source": None if source is None else {**source, "path": _place(source["path"], labels_path)},
        "affine": grid.affine.tolist(),
        "geometry": None if grid.doubt is None else grid.doubt.to_json(),
        "shape": list(grid.shape_ijk),
        "labels": organs.to_json(),
        "model": None if origin.model is None else dict(origin.model),
        "program": "napari-sam-med",
        "version": program_version(),
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    record["also"] = _others_of_this_stem(labels_path, record)
    text = json.dumps(record, ensure_ascii=False, indent=1, default=str)
    # file names may be no UTF-8: their bytes then stand as \udcXX, an escape that JSON knows
    return text.encode("utf-8", "backslashreplace")


def _others_of_this_stem(labels_path: Path, record: Mapping[str, Any]) -> list[str]:
    """Names in the sidecar that is there already, if the new one says the same of their files."""
    said = json.loads(json.dumps(record, default=str))
    try:
        previous = json.loads(path_beside(labels_path).read_bytes())
        if any(previous[key] != said[key] for key in ("source", "affine", "shape", "labels", "model")):
            return []
        return sorted({previous["file"], *previous.get("also", [])} - {labels_path.name})
    except _DAMAGES:  # there is none, or one that nobody can read
        return []


def _place(path: Path, labels_path: Path) -> str:
    """A file as a sidecar names it: by its name alone where it lies beside the labels."""
    return path.name if path.parent == labels_path.resolve().parent else str(path)


def program_version() -> str:
    """Version of this package."""
    try:
        return version("napari-sam-med")
    except PackageNotFoundError:  # a source tree that was never installed
        return "0+unknown"


def read_organs(labels_path: Path, grid: Grid) -> tuple[OrganTable | None, list[str]]:
    """Organ table of the sidecar beside a label file, and a warning if it is damaged.

    None where there is no sidecar, or it is of another file of the same stem: its ending or shape tells.
    """
    path = path_beside(labels_path)
    try:
        record = _record(labels_path, grid)
        return None if record is None else OrganTable.from_json(record["labels"]), []
    except _UnknownVersionError as error:
        return None, [f"{path.name} is of the unknown version {error}; it is not used."]
    except (*_DAMAGES, LabelError) as error:
        return None, [f"{path.name} cannot be read ({error!r}); the names in it are not used."]


def read_origin(labels_path: Path, grid: Grid) -> Origin:
    """Where the labels of a file came from, by the sidecar beside it; nothing where it says nothing."""
    try:
        record = _record(labels_path, grid) or {}
        source, model = record.get("source"), record.get("model")
        if source is not None:
            path = labels_path.resolve().parent / source["path"]  # an absolute one stays what it is
            source = {"path": path, "sha256": source["sha256"]}
        return Origin(source, None if model is None else dict(model))
    except (*_DAMAGES, _UnknownVersionError):  # `read_organs` warns of it
        return Origin()


class _UnknownVersionError(Exception):
    """A sidecar of a version that is not read here."""


def _record(labels_path: Path, grid: Grid) -> dict[str, Any] | None:
    """Content of the sidecar beside a label file; None where there is none of this very file."""
    path = path_beside(labels_path)
    if not path.is_file():
        return None
    record: dict[str, Any] = json.loads(path.read_bytes())
    if record["schema_version"] != SCHEMA_VERSION:
        raise _UnknownVersionError(record["schema_version"])
    # x.nii.gz and x.nrrd share a sidecar, which is of the one written last, and of those of which it says the
    # same; a pair renamed together stays one
    files = [record["file"], *record.get("also", [])]
    is_of_this_file = _ending_of(labels_path) in [_ending_of(Path(file)) for file in files]
    return record if is_of_this_file and record["shape"] == list(grid.shape_ijk) else None


def _ending_of(path: Path) -> str:
    return path.name[len(stem_of(path)) :].lower()


def sha256_of_files(paths: Sequence[Path]) -> str:
    """SHA-256 of the bytes of files, one after the other, hexadecimal."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()
