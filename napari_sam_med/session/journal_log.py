"""The file of a journal: records are appended, and nothing that was written is changed.

A write reaches the system at once, so that a killed process loses none of it; a thread of its own asks the
disk for it every second, so that a power cut loses little more than a second.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path

from napari_sam_med.session.journal_records import encode_frame
from napari_sam_med.volume.replacement import Replacement

__all__ = ["SYNC_SECONDS", "JournalLog"]

SYNC_SECONDS = 1.0
"""How often the disk is asked to keep what was written."""


class JournalLog:
    """One journal file, open for appending.

    Parameters
    ----------
    path : Path
        Made whole with its first records, or not at all; its folder is for the user alone.
    payloads : list of bytes
        The first records.

    Raises
    ------
    OSError
        If it cannot be written.
    """

    def __init__(self, path: Path, payloads: list[bytes]) -> None:
        self.path = path
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._stream = -1
        self._stream_lock = threading.Lock()
        self._is_unsynced = False
        self._closing = threading.Event()
        self._syncer = threading.Thread(target=self._sync_now_and_then, name="sam-med journal", daemon=True)
        self.start_over(payloads)
        self._syncer.start()

    def append(self, payload: bytes) -> None:
        """Write one record.

        Raises
        ------
        OSError
            If it could not be written whole; the file then ends where it ended before.
        """
        frame = encode_frame(self._sequence, payload)
        try:
            _write_whole(self._stream, frame)
        except OSError:
            os.ftruncate(self._stream, self._size)
            raise
        self._sequence += 1
        self._size += len(frame)
        self._is_unsynced = True

    def start_over(self, payloads: list[bytes]) -> None:
        """Put a new file with these records in the place of the one there is, at once or not at all.

        Raises
        ------
        OSError
            If it could not be written; what was there stays as it is.
        """
        frames = b"".join(encode_frame(number, payload) for number, payload in enumerate(payloads))
        with Replacement(self.path, self.path.suffix) as new:
            descriptor = _opened(new.temporary, os.O_CREAT | os.O_EXCL)
            try:
                _write_whole(descriptor, frames)
            finally:
                os.close(descriptor)
            if self.path.exists():
                new.flush_to_disk()  # what it replaces is safe until then; a first file is synced later
            with self._stream_lock:
                self._let_go()  # Windows replaces no open file
                new.put_in_place()
                self._stream = _opened(self.path, 0)
                self._is_unsynced = True
        self._sequence, self._size = len(payloads), len(frames)

    def sync(self) -> None:
        """Wait until everything that was written is on the disk."""
        with self._stream_lock:
            if self._is_unsynced:
                self._is_unsynced = False
                os.fsync(self._stream)

    def close(self) -> None:
        """Ask the disk for the last records, and let go of the file."""
        self._closing.set()
        self._syncer.join()
        try:
            self.sync()
        finally:
            self._let_go()

    def _let_go(self) -> None:
        stream, self._stream = self._stream, -1
        if stream >= 0:
            os.close(stream)

    def _sync_now_and_then(self) -> None:
        while not self._closing.wait(SYNC_SECONDS):
            try:
                self.sync()
            except OSError:
                self._is_unsynced = True  # tried again; a disk that is really gone fails the next write too


def _opened(path: Path, flags: int) -> int:
    binary = getattr(os, "O_BINARY", 0)
    return os.open(path, os.O_WRONLY | os.O_APPEND | flags | binary, 0o600)


def _write_whole(descriptor: int, content: bytes) -> None:
    left = memoryview(content)
    while left:
        left = left[os.write(descriptor, left) :]
