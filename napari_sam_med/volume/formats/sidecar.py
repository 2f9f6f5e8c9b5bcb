"""The JSON file beside exported labels: what the label file itself has no place for."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from napari_sam_med.errors import LabelError
from napari_sam_med.volume.grid import Grid
from napari_sam_med.volume.organs import OrganTable

__all__ = ["SCHEMA_VERSION", "content", "path_beside", "read_organs", "sha256_of_file", "stem_of"]

SCHEMA_VERSION = 1
_ENDINGS = (".seg.nrrd", ".nii.gz", ".nii", ".nrrd", ".mha", ".dcm")


def stem_of(path: Path) -> str:
    """File name without its ending, ``.nii.gz`` and ``.seg.nrrd`` taken as one."""
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
    source_path: Path | None,
    model: Mapping[str, Any] | None,
) -> bytes:
    """The sidecar of labels written to `labels_path`, as UTF-8 JSON.

    Keys: ``schema_version``, ``file``, ``source`` (``path``, ``sha256``; null if unknown), ``affine`` (4, 4)
    voxel (i, j, k) to RAS mm, ``shape`` (i, j, k), ``labels`` (see `OrganTable.to_json`), ``model`` (null or
    what the caller gave), ``program``, ``version``, ``written`` (UTC).
    """
    source = None
    if source_path is not None and source_path.is_file():
        beside = source_path.resolve().parent == labels_path.resolve().parent
        place = source_path.name if beside else str(source_path.resolve())
        source = {"path": place, "sha256": sha256_of_file(source_path)}
    record = {
        "schema_version": SCHEMA_VERSION,
        "file": labels_path.name,
        "source": source,
        "affine": grid.affine.tolist(),
        "shape": list(grid.shape_ijk),
        "labels": organs.to_json(),
        "model": None if model is None else dict(model),
        "program": "napari-sam-med",
        "version": _version(),
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    text = json.dumps(record, ensure_ascii=False, indent=1, default=str)
    # file names may be no UTF-8: their bytes then stand as \udcXX, an escape that JSON knows
    return text.encode("utf-8", "backslashreplace")


def _version() -> str:
    try:
        return version("napari-sam-med")
    except PackageNotFoundError:  # a source tree that was never installed
        return "0+unknown"


def read_organs(labels_path: Path, grid: Grid) -> tuple[OrganTable | None, list[str]]:
    """Organ table of the sidecar beside a label file, and a warning if it is damaged.

    None where there is no sidecar, or where it is of another file of the same stem: its shape tells.
    """
    path = path_beside(labels_path)
    if not path.is_file():
        return None, []
    try:
        record = json.loads(path.read_bytes())
        if record["schema_version"] != SCHEMA_VERSION:
            return None, [
                f"{path.name} is of the unknown version {record['schema_version']}; it is not used."
            ]
        if record["shape"] != list(grid.shape_ijk):
            return None, []
        return OrganTable.from_json(record["labels"]), []
    except (OSError, ValueError, KeyError, TypeError, AttributeError, LabelError, RecursionError) as error:
        return None, [f"{path.name} cannot be read ({error!r}); the names in it are not used."]


def sha256_of_file(path: Path) -> str:
    """SHA-256 of a file's bytes, hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
