"""A volume whose right answer is known, and a model that finds bright pixels."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
from scipy import ndimage

from napari_sam_med.sam.mask_prediction import MaskPrediction
from napari_sam_med.volume.grid import Grid
from napari_sam_med.volume.volume import Volume

WINDOW = (0.0, 255.0)


class BrightPixels:
    """Answers with the bright pixels in the box, or with the bright part under the positive points.

    Negative points take the bright part under them away. It stands in for a network, so that the mask that a
    prompt asks for is known.
    """

    network = SimpleNamespace(input_size=64, mask_input_size=32)

    def __init__(self, accepts=("point", "box", "mask")):
        self.accepts = frozenset(accepts)
        self.asked = []

    def predict(self, embedding, prompts, multimask=None, *, direct_upsampling=False):
        self.asked.append(prompts)
        bright = embedding.image[..., 0] > 100
        mask = np.zeros(bright.shape, dtype=bool)
        parts, _ = ndimage.label(bright)
        if prompts.box_xyxy is not None:
            x0, y0, x1, y1 = prompts.box_xyxy.astype(int)
            mask[y0 : y1 + 1, x0 : x1 + 1] = bright[y0 : y1 + 1, x0 : x1 + 1]
        for (x, y), label in zip(prompts.points_xy.astype(int), prompts.point_labels, strict=True):
            if parts[y, x]:
                mask[parts == parts[y, x]] = bool(label)
        logits = np.zeros((1, 32, 32), dtype=np.float32)
        sure = np.array([0.98], dtype=np.float32)
        return MaskPrediction(mask[None], sure, logits, sure, np.zeros((1, 0), dtype=np.float32))


class ImageStore:
    """Keeps the image itself for an embedding."""

    def get_or_embed(self, predictor, image, pixel_spacing=(1.0, 1.0), crop_xyxy=None):
        return SimpleNamespace(image=image, input_size=(64, 64), crop_xyxy=None)


def volume_of(data):
    data = np.asarray(data, dtype=np.uint8)
    return Volume(data, Grid.from_zyx(data.shape, (2.0, 1.0, 1.0)))


def rod(slices=range(4, 16), depth=20, columns=slice(8, 20)):
    """A bright rod, 10 pixels high, in some slices of a dark volume (depth, 32, 32)."""
    data = np.zeros((depth, 32, 32), dtype=np.uint8)
    for z in slices:
        data[z, 8:18, columns] = 200
    return data
