"""Checks of paths before long work starts, so that a mistyped one costs no time."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from napari_sam_med.errors import ExportError, ImageError
from napari_sam_med.volume.formats.ome_zarr_writing import FolderReplacement
from napari_sam_med.volume.formats.sidecar import path_beside
from napari_sam_med.volume.writing import LABEL_ENDINGS, SERIES_ENDINGS

__all__ = ["check_input", "check_label_output", "check_output"]


def check_input(path: Path, what: str) -> None:
    """Refuse an input that is not there.

    Raises
    ------
    ImageError
        When nothing lies at `path`.
    """
    if not path.exists():
        raise ImageError(f"There is no {what} {path}; check the path.")


def check_label_output(path: Path, inputs: tuple[Path | None, ...]) -> None:
    """Refuse a label file of another format, or one that `check_output` refuses, or whose sidecar it refuses.

    Raises
    ------
    ExportError
        With the reason and the way out.
    """
    endings = (*LABEL_ENDINGS, *SERIES_ENDINGS)
    if not path.name.lower().endswith(endings):
        raise ExportError(f"{path}: labels are written as {', '.join(endings)}; give a name that ends so.")
    if path.name.lower().endswith(".ome.zarr"):
        folder = FolderReplacement(path, ".ome.zarr")
        _refuse_input(path, inputs)
        folder.refuse_foreign()
        check_output(folder.temporary, ())  # of which only the place is looked at
    else:
        check_output(path, inputs)
    check_output(path_beside(path), inputs)


def check_output(path: Path, inputs: tuple[Path | None, ...]) -> None:
    """Refuse an output that cannot be written, or that would replace an input.

    Raises
    ------
    ExportError
        With the reason and the way out.
    """
    if path.is_dir():
        raise ExportError(f"{path} is a folder; give the path of a file to write.")
    if path.exists() and not path.is_file():  # the new file would take the place of the device itself
        raise ExportError(f"{path} is a device, not a file; give the path of a file to write.")
    # a link is written through
    folder = (Path(os.path.realpath(path)) if path.is_symlink() else path.absolute()).parent
    if not folder.is_dir():
        raise ExportError(f"The folder {folder} does not exist; make it, or write elsewhere.")
    try:
        with tempfile.TemporaryFile(dir=folder):  # permissions alone do not tell: some folders take no files
            pass
    except OSError as error:
        raise ExportError(
            f"The folder {folder} takes no new file ({error.strerror}); change its permissions, or write "
            "elsewhere."
        ) from error
    _refuse_input(path, inputs)


def _refuse_input(path: Path, inputs: tuple[Path | None, ...]) -> None:
    for source in inputs:
        if source is not None and source.exists() and path.exists() and os.path.samefile(path, source):
            raise ExportError(
                f"{path} is an input of this command and would be overwritten; write elsewhere."
            )
