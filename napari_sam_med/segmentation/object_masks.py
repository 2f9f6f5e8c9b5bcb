"""Masks of several objects, kept apart until all are known, then merged by one rule."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_sam_med.segmentation.propagation import Direction, PropagatedSlice, Source
from napari_sam_med.volume.disk_labels import refuse_on_disk
from napari_sam_med.volume.labels import LabelVolume
from napari_sam_med.volume.slice_view import SliceView

__all__ = ["FoundSlice", "ObjectMasks", "planes_of"]


@dataclass(frozen=True, eq=False)
class FoundSlice:
    """A propagated slice with its mask packed to a bit a pixel."""

    view: SliceView
    shape: tuple[int, int]
    bits: npt.NDArray[np.uint8]
    quality: float
    iou_prediction: float | None
    source: Source
    direction: Direction
    reason: str | None

    @classmethod
    def of(cls, done: PropagatedSlice) -> FoundSlice:
        """Pack one slice."""
        return cls.pack(
            done.mask,
            view=done.view,
            quality=done.quality,
            iou_prediction=done.iou_prediction,
            source=done.source,
            direction=done.direction,
            reason=done.reason,
        )

    @classmethod
    def pack(cls, mask: npt.NDArray[np.bool_], **facts: Any) -> FoundSlice:
        """Pack a mask (H, W) with the other attributes."""
        height, width = mask.shape
        return cls(shape=(height, width), bits=np.packbits(mask), **facts)

    @property
    def mask(self) -> npt.NDArray[np.bool_]:
        """The mask (H, W)."""
        height, width = self.shape
        return np.unpackbits(self.bits, count=height * width).reshape(self.shape).astype(bool)

    @property
    def is_empty(self) -> bool:
        """Whether the mask has no pixel."""
        return not self.bits.any()


class ObjectMasks:
    """What was found of each object, slice by slice."""

    def __init__(self) -> None:
        self._slices: dict[int, list[FoundSlice]] = {}
        self._class_ids: dict[int, int] = {}

    def add(self, done: PropagatedSlice) -> None:
        """Take one slice of a propagation."""
        self._class_ids[done.object_id] = done.class_id
        self._slices.setdefault(done.object_id, []).append(FoundSlice.of(done))

    def slices(self, object_id: int) -> list[FoundSlice]:
        """All slices of an object, in the order found; none for an unknown object."""
        return self._slices.get(object_id, [])

    def merge_into(self, labels: LabelVolume) -> int:
        """Write all objects into a label volume.

        Where objects overlap, a prompted slice wins over a propagated one, else the slice of higher quality,
        else the later object.

        Returns
        -------
        int
            Voxels that two objects of different classes both claimed.
        """
        claims = [
            (found, object_id)
            for object_id, slices in self._slices.items()
            for found in slices
            if not found.is_empty
        ]
        claims.sort(key=lambda claim: (claim[0].source == "prompt", claim[0].quality, claim[1]))
        return sum(self._write(labels, found, self._class_ids[object_id]) for found, object_id in claims)

    def kept(self, object_id: int, labels: LabelVolume) -> Iterator[tuple[FoundSlice, int]]:
        """Each slice of an object and how many of its pixels bear its class in `labels`."""
        class_id = self._class_ids.get(object_id)
        for found in self.slices(object_id):
            here = found.view.window_on(labels.data) == class_id
            yield found, int(np.count_nonzero(here & found.mask))

    def voxels(self, object_id: int, labels: LabelVolume) -> int:
        """Voxels of an object that bear its class in `labels`; slices of several planes may cross."""
        slices = self.slices(object_id)
        if len({found.view.plane for found in slices}) < 2:
            return sum(count for _, count in self.kept(object_id, labels))
        refuse_on_disk(labels.data, "Counting an object of several planes", "prompt it in one plane")
        union = np.zeros(labels.data.shape, dtype=bool)
        for found in slices:
            found.view.window_on(union)[...] |= found.mask
        return int(np.count_nonzero(union & (labels.data == self._class_ids[object_id])))

    @staticmethod
    def _write(labels: LabelVolume, found: FoundSlice, class_id: int) -> int:
        before = found.view.extract(labels.data)
        labels.assign(found.view, found.mask, class_id)
        return int(np.count_nonzero(found.mask & (before != 0) & (before != class_id)))


def planes_of(slices: Iterable[FoundSlice]) -> list[str]:
    """The planes that slices lie in, the one with most slices first."""
    planes: list[str] = [found.view.plane for found in slices]
    return sorted(set(planes), key=lambda plane: (-planes.count(plane), plane))
