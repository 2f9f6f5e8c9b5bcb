"""What ITK neither checks nor tells about NRRD and MetaImage files: packed voxels, detached data,
orientation.
"""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass
from pathlib import Path

from napari_sam_med.errors import ImageError

__all__ = ["ItkHeader", "read_header"]

_LONGEST_HEADER = 1 << 20
_CHUNK = 1 << 20


@dataclass(frozen=True)
class ItkHeader:
    """Text header of a NRRD or MetaImage file.

    Attributes
    ----------
    text : bytes
        The header, without the voxels.
    start : int
        Byte at which attached voxels begin.
    is_metaimage : bool
        MetaImage, or else NRRD.
    """

    text: bytes
    start: int
    is_metaimage: bool

    @property
    def is_detached(self) -> bool:
        """Whether the voxels lie in another file."""
        if self.is_metaimage:
            return not re.search(rb"ElementDataFile\s*=\s*LOCAL\s*$", self.text, re.IGNORECASE)
        return bool(re.search(rb"^data ?file:", self.text, re.IGNORECASE | re.MULTILINE))

    @property
    def has_largest_ratio(self) -> bool:
        """Whether the size of the file bounds the number of voxels in it."""
        pattern = rb"^encoding:\s*bz"
        return not self.is_detached and not re.search(pattern, self.text, re.MULTILINE | re.IGNORECASE)

    @property
    def is_deflated(self) -> bool:
        """Whether attached voxels are packed by gzip or zlib."""
        if self.is_detached:
            return False
        pattern = rb"^CompressedData\s*=\s*True" if self.is_metaimage else rb"^encoding:\s*gz"
        return bool(re.search(pattern, self.text, re.MULTILINE | re.IGNORECASE))

    @property
    def has_orientation(self) -> bool:
        """Whether the header says how the axes lie; ITK takes them for left, posterior, superior if not."""
        if self.is_metaimage:
            return bool(re.search(rb"^(TransformMatrix|Orientation|Rotation)\s*=", self.text, re.MULTILINE))
        return all(re.search(key, self.text, re.MULTILINE) for key in (rb"^space:", rb"^space directions:"))

    def check_packed(self, path: Path) -> None:
        """Unpack attached voxels once for their checksum, which ITK ignores.

        Raises
        ------
        ImageError
            If the stream is cut short or its checksum is wrong.
        """
        if not self.is_deflated:
            return
        unpacker = zlib.decompressobj(wbits=47)  # gzip or zlib, whichever the stream says
        try:
            with path.open("rb") as stream:
                stream.seek(self.start)
                while not unpacker.eof and (packed := stream.read(_CHUNK)):
                    unpacker.decompress(packed, _CHUNK)
                    while unpacker.unconsumed_tail:
                        unpacker.decompress(unpacker.unconsumed_tail, _CHUNK)
        except zlib.error as error:
            raise ImageError(
                f"{path.name} is damaged: its packed voxels do not check out ({error}); "
                "copy or download it again."
            ) from error
        if not unpacker.eof:
            raise ImageError(
                f"{path.name} is truncated: its packed voxels stop in the middle; copy it again."
            )


def read_header(path: Path) -> ItkHeader:
    """Text header of a NRRD or MetaImage file.

    Raises
    ------
    ImageError
        If it is cut short.
    """
    with path.open("rb") as stream:
        content = stream.read(_LONGEST_HEADER)
    if content[:4] == b"NRRD":
        end = re.search(rb"\n\r?\n", content)
        if end is None and not path.name.lower().endswith(".nhdr"):
            raise ImageError(f"{path.name} is truncated: its NRRD header has no end; copy it again.")
        at = len(content) if end is None else end.end()
        return ItkHeader(content[:at].replace(b"\r\n", b"\n"), at, is_metaimage=False)
    last = re.search(rb"^ElementDataFile\s*=[^\n]*\n?", content, re.MULTILINE)
    if last is None or b"DimSize" not in content[: last.end()] or b"ElementType" not in content[: last.end()]:
        raise ImageError(f"{path.name} is truncated: its MetaImage header is incomplete; copy it again.")
    return ItkHeader(content[: last.end()].replace(b"\r\n", b"\n"), last.end(), is_metaimage=True)
