"""Objects that were found as labels, one number a voxel, though they may overlap."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from napari_sam_med.segmentation.organ_vote import OTHER
from napari_sam_med.volume.labels import LabelVolume
from napari_sam_med.volume.organs import Organ, OrganTable, default_color

if TYPE_CHECKING:
    from napari_sam_med.segmentation.automatic.found_objects import FoundObject
    from napari_sam_med.volume.volume import Volume

__all__ = ["OnTop", "labels_of", "names_of"]

OnTop = Literal["smaller", "surer"]


def labels_of(volume: Volume, objects: Sequence[FoundObject], on_top: OnTop = "smaller") -> LabelVolume:
    """Labels 1 to n on the grid of a volume, each object under its own number.

    Parameters
    ----------
    volume : Volume
    objects : sequence of FoundObject
        With numbers of 1 to 65535, each once; see `FoundObject.renumbered`.
    on_top : {"smaller", "surer"}
        Which of two objects gets a voxel of both: the smaller one, so that parts stay visible in their
        wholes, or the one with the higher score.

    Returns
    -------
    LabelVolume
        uint8, or uint16 for more than 255 objects; named by the organs that the objects are taken for.
    """
    largest = max((one.number for one in objects), default=0)
    labels = LabelVolume.like(volume, _table(objects), "uint8" if largest < 256 else "uint16")

    def height(one: FoundObject) -> tuple[float, int]:
        return (-one.voxels if on_top == "smaller" else one.score), -one.number

    for one in sorted(objects, key=height):
        one.written_into(labels.data, one.number)
    return labels


def names_of(objects: Sequence[FoundObject]) -> dict[int, str]:
    """What objects are called, by number: their organ where the classifier is sure, else ``object 7``.

    Where several are taken for one organ the number stands behind it, ``liver 7``.
    """
    organs = {one.number: _organ_of(one) for one in objects}
    counts = Counter(organs.values())
    return {
        number: f"object {number}" if organ is None else organ if counts[organ] == 1 else f"{organ} {number}"
        for number, organ in organs.items()
    }


def _organ_of(one: FoundObject) -> str | None:
    if one.organ is None or one.organ.abstained or one.organ.name == OTHER:
        return None
    return one.organ.name


def _table(objects: Sequence[FoundObject]) -> OrganTable:
    """Names and colours; an organ that only one object is taken for has its usual colour."""
    usual = {organ.name: organ.color for organ in OrganTable.btcv().values()}
    return OrganTable(
        Organ(number, name, usual.get(name, default_color(number)))
        for number, name in names_of(objects).items()
    )
