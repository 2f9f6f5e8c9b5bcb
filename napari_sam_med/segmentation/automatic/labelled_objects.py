"""Labels as objects: what somebody or something else found takes the place of a search."""

from __future__ import annotations

import numpy as np

from napari_sam_med.errors import LabelError
from napari_sam_med.segmentation.automatic.found_objects import FoundMask, FoundObject
from napari_sam_med.volume.labels import LabelVolume
from napari_sam_med.volume.slice_view import SliceView

__all__ = ["objects_of"]


def objects_of(labels: LabelVolume) -> list[FoundObject]:
    """Each label of a label volume as an object on axial slices, with the label as its number and score 1.

    Raises
    ------
    LabelError
        When no label is there.
    """
    masks: dict[int, dict[SliceView, FoundMask]] = {number: {} for number in labels.class_ids()}
    if not masks:
        raise LabelError("The label volume is empty; give one with at least one label.")
    for z in range(labels.shape[0]):
        view = SliceView("axial", z)
        here = view.extract(labels.data)
        for number in np.unique(here).tolist():
            if number:
                masks[number][view] = FoundMask.of(here == number, 1.0, 1.0)
    return [FoundObject(number, shown, 1.0) for number, shown in masks.items()]
