"""What can be said of video models before torch is loaded: whether they run here, and where a model lies."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

__all__ = ["is_available", "model_path"]

_FOLDER_FILES = ("model.safetensors", "config.json")


def is_available() -> bool:
    """Whether the package that runs video models is installed; imports nothing."""
    return importlib.util.find_spec("transformers") is not None


def model_path(path: str | os.PathLike[str]) -> Path:
    """The folder of a model of transformers, for whoever points at one of the two files in it.

    Parameters
    ----------
    path : path
        A file or a folder, which need not exist.

    Returns
    -------
    Path
        The folder when both files are there, else the path itself with ``~`` replaced.
    """
    path = Path(path).expanduser()
    if path.name in _FOLDER_FILES and all((path.parent / name).is_file() for name in _FOLDER_FILES):
        return path.absolute().parent
    return path
