"""A new file that takes the place of another one at once or not at all."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
import shutil
import socket
import time
from pathlib import Path
from types import TracebackType

from napari_sam_med.errors import ExportError

__all__ = ["Replacement", "not_written", "sweep_orphans"]

_ORPHAN = re.compile(r"\.sam-med-([0-9a-f]{8})-(\d+)-[0-9a-f]{8}\.partial(\.[a-z.]+)?")
# Windows: access denied, shared by another process (a virus scanner, an indexer); gone after a moment
_BUSY_ON_WINDOWS = (5, 32, 33)
_RETRIES = 6
_PROBE = 1 << 16  # bytes; more than the last block of a full disk has left


class Replacement:
    """Context with a temporary file in the folder of the target, removed unless it was put in place.

    Parameters
    ----------
    target : Path
        File to make or replace; of a symbolic link, what it leads to.
    ending : str
        File name ending, such as ``.nii.gz``, that the temporary file needs for its writer.
    """

    def __init__(self, target: Path, ending: str) -> None:
        self.target = Path(os.path.realpath(target)) if target.is_symlink() else target
        token = secrets.token_hex(4)
        self.temporary = self.target.with_name(f".sam-med-{_host()}-{os.getpid()}-{token}.partial{ending}")

    def __enter__(self) -> Replacement:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError):
            self.temporary.unlink(missing_ok=True)

    def flush_to_disk(self) -> None:
        """Wait until the temporary file is on the disk, so that a power cut cannot leave an empty one."""
        with self.temporary.open("rb+") as stream:
            os.fsync(stream.fileno())

    def raise_hidden_error(self) -> None:
        """Raise the error of the system that a library which wrote the temporary file has kept to itself.

        Raises
        ------
        OSError
            If not even a little more can be written.
        """
        with self.temporary.open("ab") as stream:
            stream.write(bytes(_PROBE))
            stream.flush()
            os.fsync(stream.fileno())

    def put_in_place(self) -> None:
        """Replace the target; both names are of one folder, so this is atomic."""
        for attempt in range(_RETRIES):
            try:
                os.replace(self.temporary, self.target)
                break
            except OSError as error:
                if getattr(error, "winerror", None) not in _BUSY_ON_WINDOWS or attempt == _RETRIES - 1:
                    raise
                time.sleep(0.05 * 2**attempt)
        _sync_folder(self.target.parent)


def sweep_orphans(folder: Path) -> None:
    """Remove temporary files that a killed export of ours on this machine left in a folder."""
    with contextlib.suppress(OSError):
        for path in folder.glob(".sam-med-*.partial*"):
            match = _ORPHAN.fullmatch(path.name)
            if match and match[1] == _host() and not _is_alive(int(match[2])):
                if path.is_dir():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink(missing_ok=True)


def _host() -> str:
    return hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]


def _is_alive(pid: int) -> bool:
    if os.name == "nt":  # signal 0 would end the process there; a leftover is the smaller harm
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _sync_folder(folder: Path) -> None:
    """Make the new name itself durable; Windows and some network folders cannot, and need not, do it."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def not_written(target: Path, error: OSError) -> ExportError:
    """What a user is told where a file could not be written."""
    # those of os.path answer where pathlib's raise: a share that is gone, a name that is too long
    if not os.path.exists(target.parent):
        return ExportError(f"The folder {target.parent} does not exist; make it, or write elsewhere.")
    if not os.path.isdir(target.parent):
        return ExportError(f"{target.parent} is a file, not a folder; write elsewhere.")
    before = ". The previous file is as it was" if os.path.exists(target) else ""
    return ExportError(
        f"{target} could not be written: {error.strerror or error}{before}; free some space or choose "
        "another place."
    )
