"""Fetching published checkpoints: checked before kept; an old file stays until the new one is good."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from napari_sam_med.errors import CancelledError, ModelError
from napari_sam_med.progress import Progress
from napari_sam_med.sam.digests import digests_of
from napari_sam_med.sam.model_registry import (
    MODELS,
    NANO_WEIGHTS,
    ModelRecord,
    checkpoint_path,
    model_folder,
)

__all__ = ["fetch"]

_TIMEOUT_S = 30
_CHUNK = 1 << 18
_AS_IT_IS = {"Accept-Encoding": "identity"}  # so that the length announced is the file's
_WEB_PAGES = (b"<!doctype", b"<html", b"<?xml", b"<head")


def fetch(
    name: str,
    progress: Callable[[Progress], object] | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> Path:
    """Download a model's checkpoint into the model folder, unless a good copy is there already.

    Parameters
    ----------
    name : str
        Of a model in the registry.
    progress : callable, optional
        Called with a `Progress` in bytes while the file arrives.
    cancelled : callable, optional
        Asked between chunks; once it answers True the download ends.

    Returns
    -------
    Path
        Of the checkpoint.

    Raises
    ------
    ModelError
        When there is no such model, the file cannot be had, or it is not the published one. A file that was
        there before stays as it was.
    CancelledError
        When `cancelled` answered True.
    """
    if name not in MODELS:
        raise ModelError(f'There is no model "{name}" to fetch: give one of {", ".join(MODELS)}.')
    if name == "nano":
        return NANO_WEIGHTS
    record = MODELS[name]
    present = checkpoint_path(name)
    if present is not None and _is_published_file(present, record):
        return present
    return _download(record, _Downloader(record, progress, cancelled))


def _is_published_file(path: Path, record: ModelRecord) -> bool:
    algorithm, expected = _digest(record)
    return digests_of(path, (algorithm,))[algorithm] == expected


def _digest(record: ModelRecord) -> tuple[str, str]:
    if record.url is None or record.digest is None:
        raise ModelError(
            f"{record.title} has no published file with a digest; load a file of your own by its path."
        )
    return record.digest


def _download(record: ModelRecord, downloader: _Downloader) -> Path:
    import filelock
    import pooch
    import requests

    folder = model_folder()
    arriving = folder / f".{record.name}.partial"  # no file in it is ever taken for a model
    algorithm, expected = _digest(record)
    pooch.get_logger().setLevel(logging.WARNING)  # it would write its own progress to standard error
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(folder / f".{record.name}.lock", timeout=0):
            shutil.rmtree(arriving, ignore_errors=True)  # of a process that was killed: the lock is ours
            try:
                pooch.retrieve(
                    record.url,
                    known_hash=f"{algorithm}:{expected}",
                    fname=record.file_name,
                    path=arriving,
                    downloader=downloader,
                )
                os.replace(arriving / record.file_name, folder / record.file_name)
            finally:
                shutil.rmtree(arriving, ignore_errors=True)
    except filelock.Timeout as error:
        raise ModelError(
            f"{record.title} is being fetched by another program; wait until it is done, then try again."
        ) from error
    except requests.RequestException as error:
        raise ModelError(_unreachable(record, error)) from error
    except ValueError as error:  # pooch's own comparison of the digest
        raise ModelError(_not_published(record, str(error).splitlines()[0])) from error
    except OSError as error:
        raise ModelError(
            f"{record.title} cannot be stored in {folder} ({error.strerror or error}); make room there, or "
            "set NAPARI_SAM_MED_HOME to another folder."
        ) from error
    return folder / record.file_name


class _Downloader:
    """What pooch calls to fill a temporary file; pooch then compares the digest and moves the file."""

    def __init__(
        self,
        record: ModelRecord,
        progress: Callable[[Progress], object] | None,
        cancelled: Callable[[], bool] | None,
    ) -> None:
        self._record = record
        self._progress = progress
        self._cancelled = cancelled

    def __call__(self, url: str, output_file: str | os.PathLike[str], _pooch: Any) -> None:
        import requests

        with (
            requests.get(url, stream=True, timeout=_TIMEOUT_S, headers=_AS_IT_IS) as response,
            Path(output_file).open("wb") as file,
        ):
            response.raise_for_status()
            expected = int(response.headers.get("content-length", 0)) or self._record.size_bytes or 0
            done = 0
            self._report(done, expected)
            for chunk in response.iter_content(_CHUNK):
                if done == 0 and chunk.lstrip().lower().startswith(_WEB_PAGES):
                    raise ModelError(_not_published(self._record, "the answer is a web page"))
                done += file.write(chunk)
                self._report(done, expected)
        if expected and done != expected:
            raise ModelError(
                _not_published(
                    self._record, f"{done} of {expected} bytes arrived before the connection ended"
                )
            )

    def _report(self, done: int, expected: int) -> None:
        if self._cancelled is not None and self._cancelled():
            raise CancelledError(f"Fetching {self._record.title} was cancelled; nothing was changed.")
        if self._progress is not None:
            self._progress(Progress(done, expected, f"Fetching {self._record.title}"))


def _unreachable(record: ModelRecord, error: Exception) -> str:
    response = getattr(error, "response", None)
    reason = f"HTTP status {response.status_code}" if response is not None else type(error).__name__
    return (
        f"{record.title} could not be fetched from {record.url} ({reason}): the file must come from there "
        f"once; {_remedy(record)}."
    )


def _not_published(record: ModelRecord, reason: str) -> str:
    return (
        f"What came from {record.url} is not the published checkpoint of {record.title} ({reason}) and was "
        f"not kept; {_remedy(record)}."
    )


def _remedy(record: ModelRecord) -> str:
    return (
        f'try again with "napari-sam-med models fetch {record.name}", or download it on another machine and '
        f"put it into {model_folder()} as {record.file_name}"
    )
