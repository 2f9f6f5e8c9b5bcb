"""The folder of journals: what lies there, who is writing, how large it is."""

from __future__ import annotations

import json
import os
import re
import secrets
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import filelock
import platformdirs

from napari_sam_med.errors import JournalError

if TYPE_CHECKING:
    from napari_sam_med.session.journal_image import ImageIdentity

__all__ = ["ImageLock", "JournalFile", "JournalFolder", "default_folder"]

_ACTIVE, _DECLINED, _CONTINUED, _DAMAGED = ".journal", ".declined", ".continued", ".damaged"
_NAME = re.compile(r"([0-9a-f]{32})-\d{8}T\d{6}-[0-9a-f]{8}(\.journal|\.declined|\.continued|\.damaged)")


def default_folder() -> JournalFolder:
    """The folder in the user's state directory; NAPARI_SAM_MED_HOME moves it."""
    home = os.environ.get("NAPARI_SAM_MED_HOME")
    if home:
        return JournalFolder(Path(home).expanduser() / "journals")
    return JournalFolder(platformdirs.user_state_path("napari-sam-med", appauthor=False) / "journals")


class JournalFile:
    """One journal in the folder; its ending says what became of it.

    ``.journal`` is offered for recovery. ``.declined`` was offered and not wanted, ``.continued`` lives on in
    a newer journal, ``.damaged`` was brought back as far as it could be read. None is removed unasked.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def is_active(self) -> bool:
        """Whether it is offered for recovery."""
        return self.path.suffix == _ACTIVE

    def decline(self) -> None:
        """Keep it, but offer it no more."""
        self._rename(_DECLINED)

    def put_aside(self, *, is_damaged: bool) -> None:
        """Keep it, but offer it no more: its work lives on in another journal, or it cannot be read."""
        self._rename(_DAMAGED if is_damaged else _CONTINUED)

    def _rename(self, ending: str) -> None:
        new = self.path.with_suffix(ending)
        os.replace(self.path, new)
        self.path = new


class JournalFolder:
    """All journals of a user.

    Parameters
    ----------
    path : Path
        On a local disk; made when something is written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def __repr__(self) -> str:
        return f"JournalFolder({str(self.path)!r})"

    def new_path(self, image: ImageIdentity) -> Path:
        """Where the next journal of an image goes."""
        when = time.strftime("%Y%m%dT%H%M%S", time.gmtime())
        return self.path / f"{image.digest}-{when}-{secrets.token_hex(4)}{_ACTIVE}"

    def files(self, image: ImageIdentity | None = None) -> list[JournalFile]:
        """Journals of an image (None: of all), the one written last first."""
        found = []
        for path, digest in self._paths():
            if image is None or digest == image.digest:
                with suppress(FileNotFoundError):  # another process cleared it
                    found.append((path.stat().st_mtime_ns, path))
        return [JournalFile(path) for _, path in sorted(found, reverse=True)]

    def lock(self, image: ImageIdentity) -> ImageLock:
        """Keep other windows from the journals of an image until the lock is released.

        Raises
        ------
        JournalError
            If another window has it; names its process.
        OSError
            If the folder cannot be written.
        """
        return ImageLock(self.path, image)

    def size_bytes(self, image: ImageIdentity | None = None) -> int:
        """Bytes of the journals of an image (None: of all)."""
        return sum(_size(file.path) for file in self.files(image))

    def clear(self, image: ImageIdentity | None = None) -> int:
        """Remove the journals of an image (None: of all) that no window works on; answers bytes."""
        removed = sum(self._remove(file.path) for file in self.files(image))
        for path in self.path.glob("*.lock"):  # of images that have no journal any more
            if image is None or path.stem == image.digest:
                with suppress(JournalError, OSError), ImageLock(self.path, path.stem):
                    pass  # letting go of it removes it
        return removed

    def clear_locked(self, image: ImageIdentity, keep: Path | None) -> int:
        """Remove the journals of an image that this window has locked, all but one; answers bytes."""
        removed = 0
        for file in self.files(image):
            if file.path != keep:
                removed += _size(file.path)
                file.path.unlink(missing_ok=True)
        return removed

    def prune(self, limit_bytes: int) -> int:
        """Remove the oldest journals whose work was exported, or that hold none, down to a limit.

        Work that exists nowhere else is never removed, whatever it weighs.

        Returns
        -------
        int
            Bytes removed.
        """
        from napari_sam_med.session.journal_recovery import is_dispensable

        over = self.size_bytes() - limit_bytes
        removed = 0
        for file in reversed(self.files()):
            if removed >= over:
                break
            if is_dispensable(file.path):  # an ending alone says too little: a newer journal may hold less
                removed += self._remove(file.path)
        return removed

    def _remove(self, path: Path) -> int:
        """Remove a journal unless a window is at work on its image; answers its bytes, 0 where it stays."""
        digest = path.name.partition("-")[0]
        try:
            with ImageLock(self.path, digest):
                size = _size(path)
                path.unlink(missing_ok=True)
                return size
        except (JournalError, OSError):
            return 0

    def _paths(self) -> Iterator[tuple[Path, str]]:
        if not self.path.is_dir():
            return
        for path in self.path.iterdir():
            match = _NAME.fullmatch(path.name)
            if match:
                yield path, match[1]


class ImageLock:
    """Held while a window works on an image; the system lets go of it when its process dies.

    Parameters
    ----------
    folder : Path
    image : ImageIdentity or str
        The image, or its digest.

    Raises
    ------
    JournalError
        If another window has it.
    OSError
        If the folder cannot be written.
    """

    def __init__(self, folder: Path, image: ImageIdentity | str) -> None:
        digest = image if isinstance(image, str) else image.digest
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._owner = folder / f"{digest}.owner"
        self._lock = filelock.FileLock(folder / f"{digest}.lock", thread_local=False)
        try:
            self._lock.acquire(blocking=False)
        except (filelock.Timeout, RuntimeError):  # RuntimeError: held by this thread, as filelock sees it
            name = "This image" if isinstance(image, str) else image.name
            raise JournalError(
                f"{name} is being annotated in another window ({self._owner_text()}); go on there, or close "
                "it first, so that neither overwrites the other's work."
            ) from None
        with suppress(OSError):  # the lock holds without it; only the message would say less
            since = time.strftime("%H:%M", time.localtime())
            self._owner.write_text(json.dumps({"pid": os.getpid(), "since": since}), encoding="utf-8")

    def __enter__(self) -> ImageLock:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def release(self) -> None:
        """Let other windows work on the image; where it has no journal, nothing of it is left behind.

        Whoever waits for a file that is removed here, filelock sends to look for it again.
        """
        path = Path(self._lock.lock_file)
        with suppress(OSError):
            self._owner.unlink(missing_ok=True)
            if not any(_NAME.fullmatch(other.name) for other in path.parent.glob(f"{path.stem}-*")):
                path.unlink(missing_ok=True)  # Windows refuses, as it is open, and filelock does it there
        self._lock.release()

    def _owner_text(self) -> str:
        try:
            owner = json.loads(self._owner.read_text(encoding="utf-8"))
            pid, since = int(owner["pid"]), str(owner["since"])
        except (OSError, ValueError, KeyError, TypeError):
            return "of a process that does not say its number"
        if pid == os.getpid():
            return f"of this napari, since {since}"
        return f"of process {pid}, since {since}"


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
