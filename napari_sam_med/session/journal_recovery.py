"""Reading journals back: what they hold, and the work in them as far as it can be read."""

from __future__ import annotations

import logging
import zlib
from collections.abc import Generator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_sam_med.errors import JournalError, SamMedError
from napari_sam_med.progress import Progress
from napari_sam_med.session.journal_annotations import NOTHING, apply_annotations
from napari_sam_med.session.journal_folder import JournalFile, JournalFolder
from napari_sam_med.session.journal_image import ImageIdentity
from napari_sam_med.session.journal_records import FrameReader, apply_slice, unpack_payload
from napari_sam_med.session.new_labels import NewLabels, compare
from napari_sam_med.session.objects import Annotations
from napari_sam_med.volume.disk_labels import DiskLabels, is_on_disk
from napari_sam_med.volume.labels import LabelVolume
from napari_sam_med.wording import number_of

_LOG = logging.getLogger(__name__)

__all__ = ["FORMAT", "Offer", "RecoveredWork", "find_offers", "is_dispensable", "read_work"]

FORMAT = 1
"""Of the records; a journal of another format is kept and not read."""

_UNREADABLE = (KeyError, TypeError, ValueError, IndexError, zlib.error, SamMedError)
_RECORDS_A_STEP = 64


@dataclass(frozen=True, eq=False)
class Offer:
    """Earlier work on an image that can be brought back.

    Attributes
    ----------
    file : JournalFile
    image : ImageIdentity
        The image that it was done on.
    last_change : float
        Time of the last change, seconds since 1970.
    last_label : str
        What that was, for people.
    n_voxels : int
        Labelled voxels.
    n_organs, n_objects : int
        Organs that have voxels, and annotated objects.
    is_exported : bool
        Whether the labels were exported since they changed last.
    was_closed : bool
        Whether its window was closed; False after a crash.
    problem : str or None
        What of the file cannot be read.
    mismatch : str or None
        Why it does not fit the image that is open; `read_work` refuses it then.
    """

    file: JournalFile
    image: ImageIdentity
    last_change: float
    last_label: str
    n_voxels: int
    n_organs: int
    n_objects: int
    is_exported: bool
    was_closed: bool
    problem: str | None
    mismatch: str | None

    @property
    def volume_ml(self) -> float:
        """Volume of all labelled voxels in millilitres."""
        return self.n_voxels * self.image.grid.voxel_volume_mm3 / 1000.0

    @property
    def text(self) -> str:
        """For people: what there is, from when, and what is odd about it."""
        when = datetime.fromtimestamp(self.last_change).strftime("%Y-%m-%d %H:%M")
        objects = number_of(self.n_objects, "object")
        organs = number_of(self.n_organs, "organ")
        parts = [
            f"{self.image.name}, last changed {when}",
            f"{self.n_voxels} voxels ({self.volume_ml:.1f} ml) of {organs}, {objects}",
            "exported since" if self.is_exported else "not exported",
        ]
        return "; ".join(parts + [odd for odd in (self.problem, self.mismatch) if odd])


@dataclass(frozen=True, eq=False)
class RecoveredWork:
    """What a journal brings back.

    Attributes
    ----------
    offer : Offer
    new : NewLabels
    annotations : Annotations
    problem : str or None
        What of the file could not be read; the rest is here.
    """

    offer: Offer
    new: NewLabels
    annotations: Annotations
    problem: str | None

    @property
    def labels(self) -> npt.NDArray[Any]:
        """Its labels (z, y, x), uint8 or uint16."""
        return self.new.data


def find_offers(
    folder: JournalFolder, image: ImageIdentity, *, without: Path | None = None, all_kept: bool = False
) -> Generator[Progress, None, tuple[Offer, ...]]:
    """What earlier windows left of an image.

    What fits comes before what does not, what has voxels before what has none, what was done under this name
    before the rest, and the newest before the older ones.

    Call it while the image is locked. Files of which nothing can be read are put aside as damaged.

    Parameters
    ----------
    without : Path, optional
        The journal of this window.
    all_kept : bool
        Also what was declined, or brought back before.
    """
    files = [file for file in folder.files(image) if file.path != without and (all_kept or file.is_active)]
    offers = []
    for number, file in enumerate(files):
        yield Progress(number, len(files), "looking for earlier work on this image")
        try:
            offer = _offer(file, image)
        except OSError as error:
            _LOG.warning("The journal %s cannot be read: %s", file.path, error)
        except _UNREADABLE as error:
            _LOG.warning("Nothing in the journal %s can be read: %s", file.path, error)
            if file.is_active:
                _put_aside_damaged(file)
        else:
            if offer is not None and (offer.n_voxels or offer.n_objects):
                offers.append(offer)
    return tuple(
        sorted(
            offers, key=lambda one: (one.mismatch is not None, not one.n_voxels, one.image.name != image.name)
        )
    )


def _put_aside_damaged(file: JournalFile) -> None:
    """Where it cannot be renamed (open elsewhere, no right to) it stays, and is looked at again next time."""
    try:
        file.put_aside(is_damaged=True)
    except OSError as error:
        _LOG.warning("The journal %s could not be put aside: %s", file.path, error)


def _offer(file: JournalFile, here: ImageIdentity) -> Offer | None:
    """What a file holds; None for a format that a newer version writes."""
    contents = _contents(file.path)
    if contents is None:
        return None
    image = ImageIdentity.from_json(contents.header["image"])
    last = contents.last
    return Offer(
        file=file,
        image=image,
        last_change=float(last["time"]),
        last_label=str(last["label"]),
        n_voxels=int(last["summary"]["voxels"]),
        n_organs=int(last["summary"]["organs"]),
        n_objects=int(last["summary"]["objects"]),
        is_exported=contents.exported >= last["work"],
        was_closed=contents.was_closed,
        problem=contents.problem,
        mismatch=here.difference_from(image),
    )


@dataclass(frozen=True, eq=False)
class _Contents:
    """What the records of a file say, short of voxels and objects."""

    header: dict[str, Any]
    last: dict[str, Any]
    exported: int
    was_closed: bool
    problem: str | None


def _contents(path: Path) -> _Contents | None:
    """None for another format; raises one of `_UNREADABLE` where there is no first step."""
    reader = FrameReader(path)
    header: dict[str, Any] = {}
    last: dict[str, Any] = {}
    exported, was_closed = -1, False
    for payload in reader:
        fields, _ = unpack_payload(payload)
        kind = fields["kind"]
        was_closed = kind == "closed"
        if kind == "header":
            header = fields
            if header["format"] != FORMAT:
                return None
        elif kind == "step":
            last = fields
        elif kind == "exported":
            exported = max(exported, fields["number"])
    if not header or not last:
        raise ValueError(reader.problem or "there is no first step")
    return _Contents(header, last, exported, was_closed, reader.problem)


def is_dispensable(path: Path) -> bool:
    """Whether nothing is lost with a journal: its labels were exported since, or it holds nothing any more.

    False where in doubt.
    """
    try:
        contents = _contents(path)
    except (OSError, *_UNREADABLE):
        return False
    if contents is None or contents.problem is not None:
        return False
    summary = contents.last["summary"]
    is_empty = not summary["voxels"] and not summary["objects"]
    return is_empty or bool(contents.exported >= contents.last["work"])


def read_work(
    offer: Offer, image: ImageIdentity, over: LabelVolume | None = None
) -> Generator[Progress, None, RecoveredWork]:
    """Bring labels and annotations of a journal back, up to the first place that is not right.

    Parameters
    ----------
    over : LabelVolume, optional
        The labels that they are to replace, which may change meanwhile; empty ones when left out.

    Raises
    ------
    JournalError
        If it belongs to another image, or nothing of it can be read. The file stays.
    """
    mismatch = image.difference_from(offer.image)
    if mismatch is not None:
        raise JournalError(
            f"The earlier work does not fit: {mismatch}. Open the image it was done on; nothing was removed."
        )
    reader = FrameReader(offer.file.path)
    shape = image.grid.shape_zyx
    is_large = over is not None and is_on_disk(over.data)
    labels: npt.NDArray[Any] = DiskLabels.zeros(shape) if is_large else np.zeros(shape, dtype=np.uint8)
    annotations, problem, n_records = NOTHING, None, 0
    try:
        for payload in reader:
            if n_records % _RECORDS_A_STEP == 0:
                yield Progress(n_records, n_records + _RECORDS_A_STEP, "bringing back earlier work")
            fields, blobs = unpack_payload(payload)
            if fields["kind"] == "step":
                after = apply_annotations(fields["annotations"], blobs, annotations)
                labels = _replayed(fields, blobs, labels)
                annotations = after
            n_records += 1
        problem = reader.problem
    except OSError as error:
        raise JournalError(f"{offer.file.path} cannot be read ({error}); it was left as it is.") from error
    except _UNREADABLE as error:
        problem = f"record {n_records} of the file cannot be understood ({error!r})"
    if not n_records:
        raise JournalError(f"Nothing in {offer.file.path} can be read: {problem}. It was left as it is.")
    new = yield from compare(labels, over)
    return RecoveredWork(offer, new, annotations, problem)


def _replayed(fields: dict[str, Any], blobs: list[bytes], labels: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Labels after a record."""
    if fields["dtype"] == "uint16" and labels.dtype != np.uint16:
        labels = labels.astype(np.uint16)
    for row in fields["slices"]:
        apply_slice(row, blobs, labels)
    return labels
