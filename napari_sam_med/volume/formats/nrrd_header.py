"""What ITK neither checks nor tells about NRRD files: packed voxels, detached data, orientation."""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass
from pathlib import Path

from napari_sam_med.errors import ImageError

__all__ = ["NrrdHeader", "read_header"]

_LONGEST_HEADER = 1 << 20
_CHUNK = 1 << 20


@dataclass(frozen=True)
class NrrdHeader:
    """Text header of a NRRD file.

    Attributes
    ----------
    text : bytes
        The header, without the voxels.
    start : int
        Byte at which attached voxels begin.
    """

    text: bytes
    start: int

    @property
    def is_detached(self) -> bool:
        """Whether the voxels lie in another file."""
        return self._has(rb"^data ?file:")

    @property
    def has_largest_ratio(self) -> bool:
        """Whether the size of the file bounds the number of voxels in it."""
        return not self.is_detached and not self._has(rb"^encoding:\s*bz")

    @property
    def has_orientation(self) -> bool:
        """Whether the header says how the axes lie; ITK takes them for left, posterior, superior if not."""
        return self._has(rb"^space:") and self._has(rb"^space directions:")

    def check_packed(self, path: Path, n_bytes: int) -> None:
        """Unpack attached gzipped voxels once for their checksum and length (`n_bytes`), which ITK ignores.

        Raises
        ------
        ImageError
            If the stream is cut short, its checksum is wrong, or it is shorter than the header says.
        """
        if self.is_detached or not self._has(rb"^encoding:\s*gz"):
            return
        unpacker = zlib.decompressobj(wbits=31)
        n_unpacked = 0
        try:
            with path.open("rb") as stream:
                stream.seek(self.start)
                while not unpacker.eof and n_unpacked <= n_bytes + _CHUNK:
                    packed = unpacker.unconsumed_tail or stream.read(_CHUNK)
                    if not packed:
                        break
                    n_unpacked += len(unpacker.decompress(packed, _CHUNK))
        except zlib.error as error:
            raise ImageError(
                f"{path.name} is damaged: its packed voxels do not check out ({error}); "
                "copy or download it again."
            ) from error
        if n_unpacked < n_bytes or not (unpacker.eof or n_unpacked > n_bytes):
            raise ImageError(
                f"{path.name} is truncated: its packed voxels stop in the middle; copy it again."
            )

    def _has(self, pattern: bytes) -> bool:
        return bool(re.search(pattern, self.text, re.MULTILINE | re.IGNORECASE))


def read_header(path: Path) -> NrrdHeader:
    """Text header of a NRRD file.

    Raises
    ------
    ImageError
        If it is cut short.
    """
    with path.open("rb") as stream:
        content = stream.read(_LONGEST_HEADER)
    end = re.search(rb"\n\r?\n", content)
    if end is None and not path.name.lower().endswith(".nhdr"):
        raise ImageError(f"{path.name} is truncated: its NRRD header has no end; copy it again.")
    start = len(content) if end is None else end.end()
    return NrrdHeader(content[:start].replace(b"\r\n", b"\n"), start)
