"""Records of a journal file: frames that prove themselves, and the differences of one slice.

A frame is a header of 20 bytes (``NSMJ``, sequence number, length, xxh3_64 of all that) and a payload: JSON,
then blobs. Cut or damaged anywhere, a file still gives every frame before that place.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import xxhash

from napari_sam_med.volume.labels import LabelChange
from napari_sam_med.volume.slice_view import SliceView

__all__ = [
    "Blobs",
    "FrameReader",
    "apply_slice",
    "encode_frame",
    "encode_slice",
    "pack_payload",
    "unpack_payload",
]

_MAGIC = b"NSMJ"
_HEADER = struct.Struct("<4sIIQ")
_COUNT = struct.Struct("<I")
_FASTEST = 1  # zlib level: masks shrink about 50 times at any level, and a person waits for none of it


def encode_frame(sequence: int, payload: bytes) -> bytes:
    """A frame for the end of a file; ``sequence`` counts from 0."""
    return _HEADER.pack(_MAGIC, sequence, len(payload), _checksum(sequence, payload)) + payload


def _checksum(sequence: int, payload: bytes) -> int:
    digest = xxhash.xxh3_64(struct.pack("<II", sequence, len(payload)))
    digest.update(payload)
    return digest.intdigest()


class FrameReader:
    """Payloads of a file, in order, up to its end or the first place that is not right.

    Parameters
    ----------
    path : Path
        Opened when iterated; an `OSError` passes.

    Attributes
    ----------
    problem : str or None
        After iterating: what is wrong with the rest of the file, for people; None when there is no rest.
    valid_bytes : int
        Bytes of the frames that were given.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.problem: str | None = None
        self.valid_bytes = 0

    def __iter__(self) -> Iterator[bytes]:
        total = self._path.stat().st_size
        if not total:
            self.problem = "the file is empty"
        with self._path.open("rb") as stream:
            sequence = 0
            while head := stream.read(_HEADER.size):
                if len(head) < _HEADER.size:
                    return self._stop("ends inside a record", total)
                magic, number, length, checksum = _HEADER.unpack(head)
                if magic != _MAGIC or number != sequence:
                    return self._stop("holds something that is no record", total)
                if length > total - stream.tell():
                    return self._stop("ends inside a record", total)
                payload = stream.read(length)
                if checksum != _checksum(number, payload):
                    return self._stop("has a damaged record", total)
                self.valid_bytes = stream.tell()
                sequence += 1
                yield payload

    def _stop(self, what: str, total: int) -> None:
        left = total - self.valid_bytes
        self.problem = f"the file {what}; its last {left} bytes cannot be used, what came before can"


class Blobs:
    """Binary parts of one payload; JSON refers to them by number."""

    def __init__(self) -> None:
        self.parts: list[bytes] = []

    def add(self, content: bytes) -> int:
        """Keep compressed content; answers its number."""
        self.parts.append(zlib.compress(content, _FASTEST))
        return len(self.parts) - 1


def pack_payload(fields: dict[str, Any], blobs: Blobs) -> bytes:
    """JSON fields and blobs as one payload; inverse of `unpack_payload`."""
    listed = {**fields, "blobs": [len(part) for part in blobs.parts]}
    text = json.dumps(listed, separators=(",", ":")).encode("ascii")
    return b"".join([_COUNT.pack(len(text)), text, *blobs.parts])


def unpack_payload(payload: bytes) -> tuple[dict[str, Any], list[bytes]]:
    """Fields and blobs (still compressed) of a payload.

    Raises
    ------
    ValueError
        If it is none of ours.
    """
    if len(payload) < _COUNT.size:
        raise ValueError("a payload without fields")
    end = _COUNT.size + _COUNT.unpack_from(payload)[0]
    fields = json.loads(payload[_COUNT.size : end].decode("utf-8"))
    blobs = []
    for length in fields.pop("blobs"):
        blobs.append(payload[end : end + length])
        end += length
    if end != len(payload):
        raise ValueError("a payload of another length")
    return fields, blobs


def encode_slice(change: LabelChange, shape_hw: tuple[int, int], blobs: Blobs) -> list[Any]:
    """What a change writes into its slice (H, W), as a row for JSON and a blob.

    The row is plane, index, the rectangle (row from, to, column from, to) around the changed pixels, the
    one class written (None: many), bytes a class number takes, blob. The blob holds a bit for every pixel of
    the rectangle and, for many classes, their numbers.
    """
    indices = change.indices.astype(np.intp, copy=False)
    changed = np.zeros(shape_hw, dtype=bool)  # to divide every index takes three times as long
    changed.reshape(-1)[indices] = True
    rows, columns = np.flatnonzero(changed.any(axis=1)), np.flatnonzero(changed.any(axis=0))
    top, bottom, left, right = int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1
    bits = changed[top:bottom, left:right]
    after = np.asarray(change.after)
    content = np.packbits(bits).tobytes()
    value: int | None = int(after[0])
    size = 1 if after.max() < 256 else 2
    if (after != after[0]).any():
        value = None
        image = np.zeros(shape_hw, dtype=f"<u{size}")
        image.reshape(-1)[indices] = after
        content += image[changed].tobytes()
    view = change.view
    return [view.plane, view.index, top, bottom, left, right, value, size, blobs.add(content)]


def apply_slice(row: Sequence[Any], blobs: Sequence[bytes], data_zyx: npt.NDArray[Any]) -> None:
    """Write what `encode_slice` kept into labels (z, y, x), in place.

    Raises
    ------
    ValueError, zlib.error, ImageError
        If the row does not fit the labels.
    """
    plane, index, top, bottom, left, right, value, size, blob = row
    window = SliceView(plane, index).window_on(data_zyx)
    if not (0 <= top < bottom <= window.shape[0] and 0 <= left < right <= window.shape[1]):
        raise ValueError("a difference that lies outside its slice")
    shape = (bottom - top, right - left)
    n_pixels = shape[0] * shape[1]
    n_bytes = (n_pixels + 7) // 8
    content = np.frombuffer(zlib.decompress(blobs[blob]), dtype=np.uint8)
    bits = np.unpackbits(content[:n_bytes], count=n_pixels).view(bool).reshape(shape)
    target = window[top:bottom, left:right]
    if value is not None:
        np.copyto(target, value, where=bits)  # three times as fast as writing to an index
    else:
        target[bits] = content[n_bytes:].view(f"<u{size}")
