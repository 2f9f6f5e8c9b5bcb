"""Bytes of a file, plain or gzipped, checked while they are read: length, CRC, no more than was announced."""

from __future__ import annotations

import gzip
import os
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np
import numpy.typing as npt
from isal import igzip, isal_zlib

from napari_sam_med.errors import ImageError

__all__ = ["GZIP_EXPANSION", "ByteSource", "refuse_beyond_memory"]

_CHUNK = 1 << 20
_AT_ONCE = 4 * _CHUNK
"""Unpacked in one call, for which isal keeps Python's lock: 10 ms, in which no window is drawn."""
# deflate cannot expand a byte to more than 1032 (zlib's own documentation, "maximum expansion factor")
GZIP_EXPANSION = 1032
# some writers pad the end of a file; more than this beyond the announced size is taken for a gzip bomb
_PADDING = 16 << 20
_IsalError: type[Exception] = isal_zlib.IsalError  # type: ignore[assignment]  # its stub calls it an instance


class ByteSource:
    """A file read from front to back; gzip is recognised by its first bytes, not by the name.

    Parameters
    ----------
    path : Path
        An existing file.

    Raises
    ------
    ImageError
        Here and in every method: unreadable, truncated or damaged file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._raw: IO[bytes] = path.open("rb")
            self._size = os.fstat(self._raw.fileno()).st_size
            self.is_gzip = self._raw.read(2) == b"\x1f\x8b"
            self._raw.seek(0)
        except OSError as error:
            raise ImageError(
                f"{path} cannot be read: {error.strerror}; check the path and its permissions."
            ) from error
        self._stream: IO[bytes] | gzip.GzipFile = self._raw
        if self.is_gzip:
            # unpacks 1.7 times as fast as the gzip of the standard library, with the same checks
            self._stream = igzip.IGzipFile(fileobj=self._raw, mode="rb")  # type: ignore[no-untyped-call]  # theirs
        self.position = 0

    def __enter__(self) -> ByteSource:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stream.close()
        self._raw.close()

    @property
    def capacity(self) -> int:
        """Bytes that the file can hold at the very most, known before anything is decompressed."""
        return self._size * GZIP_EXPANSION if self.is_gzip else self._size

    def require(self, n_bytes: int, what: str) -> None:
        """Refuse a file that is too short for `n_bytes`, or too large for memory, before allocating."""
        if n_bytes > self.capacity:
            raise ImageError(
                f"{self.path.name} is truncated: its header announces {what} ({n_bytes} bytes), but the file "
                f"holds {self._size} bytes; copy or download it again."
            )
        refuse_beyond_memory(self.path, n_bytes, what)

    def read(self, n_bytes: int) -> bytes:
        """Exactly `n_bytes` bytes."""
        buffer = np.empty(n_bytes, dtype=np.uint8)
        self.fill(buffer)
        return buffer.tobytes()

    def fill(self, array: npt.NDArray[Any]) -> None:
        """Read into a C-contiguous array without an intermediate copy."""
        view = memoryview(array.reshape(-1).view(np.uint8).data)
        done = 0
        while done < len(view):
            n = self._readinto(view[done : done + _AT_ONCE])
            if not n:
                raise self._truncated(
                    f"{self.position + len(view) - done} bytes expected, {self.position} found"
                )
            done += n

    def skip(self, n_bytes: int) -> None:
        """Read past `n_bytes` bytes."""
        scratch = np.empty(min(n_bytes, _CHUNK), dtype=np.uint8)
        while n_bytes > 0:
            self.fill(scratch[: min(n_bytes, _CHUNK)])
            n_bytes -= min(n_bytes, _CHUNK)

    def finish(self) -> None:
        """Read to the end, so that a gzip stream proves its CRC and length."""
        if not self.is_gzip:
            return
        scratch = memoryview(bytearray(_CHUNK))
        beyond = 0
        while n := self._readinto(scratch):
            beyond += n
            if beyond > _PADDING:
                raise ImageError(
                    f"{self.path.name} unpacks to far more than its header announces "
                    f"({self.position - beyond} "
                    "bytes); it is damaged or malicious and was not read further."
                )

    def _readinto(self, view: memoryview) -> int:
        try:
            n = self._stream.readinto(view)  # type: ignore[union-attr]  # typeshed's IO[bytes] lacks it
        except EOFError:
            raise self._truncated("the gzip stream stops in the middle") from None
        except (gzip.BadGzipFile, _IsalError) as error:
            raise ImageError(
                f"{self.path.name} is damaged: its gzip stream does not check out ({error}); "
                "copy or download it again."
            ) from error
        except OSError as error:
            raise ImageError(
                f"{self.path} cannot be read: {error.strerror or error}; check the disk."
            ) from error
        self.position += n
        return int(n)

    def _truncated(self, fact: str) -> ImageError:
        return ImageError(f"{self.path.name} is truncated: {fact}; copy or download it again.")


def refuse_beyond_memory(path: Path, n_bytes: int, what: str) -> None:
    """Refuse more than the machine's memory, before allocating.

    Raises
    ------
    ImageError
        If `n_bytes` is more than that.
    """
    memory = _physical_memory()
    if memory is not None and n_bytes > memory:
        raise ImageError(
            f"{path.name} announces {what} ({n_bytes / 2**30:.1f} GiB), more than this machine's memory "
            f"({memory / 2**30:.1f} GiB); crop or downsample it, or use a larger machine."
        )


def _physical_memory() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # Windows has no sysconf
        return None
