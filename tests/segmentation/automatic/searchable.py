"""A volume of bright rods, and a search of its slices that needs no network: each bright piece is a mask."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
from scipy import ndimage

from napari_sam_med.segmentation.automatic.everything import EverythingOptions
from napari_sam_med.segmentation.automatic.found_objects import FoundMask
from tests.segmentation.threshold_model import ImageStore, ThresholdPredictor, volume_of

__all__ = ["ImageStore", "RodFinder", "RodModel", "rods"]


def rods(missing=()):
    """Two rods along z in a body, the second one thin; ``missing`` are slices without the first."""
    data = np.full((9, 32, 32), 3)  # air, not all of it as dark as the darkest voxel
    data[0, 0, 0] = 0
    data[:, 2:30, 2:30] = 60
    data[1:8, 6:14, 6:14] = 200
    data[2:8, 20:24, 18:23] = 200
    for z in missing:
        data[z, 6:14, 6:14] = 60
    return volume_of(data)


class RodModel(ThresholdPredictor):
    """Takes all prompts, or those that it is told."""

    def __init__(self, accepts=("point", "box", "mask")):
        super().__init__()
        self.accepts = frozenset(accepts)
        self.record = SimpleNamespace(name="rods", title="rods", architecture="vit_b")


class RodFinder:
    """Takes the place of `find_masks`, and notes how it was called."""

    def __init__(self):
        self.calls = []

    def __call__(self, image, predictor, options, *, pixel_spacing, embedding, where, on_progress):
        self.calls.append(SimpleNamespace(**locals()))
        pieces, count = ndimage.label(image[..., 0] > 150)
        found = [pieces == number for number in range(1, count + 1)]
        return [FoundMask.of(mask, 0.9, 0.95) for mask in found if (mask & where).any()]

    @property
    def options(self) -> EverythingOptions:
        return self.calls[-1].options
