"""A model without a network for grids of points: a point means the bright patch under it, or nothing."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
from scipy import ndimage

from napari_sam_med.errors import PromptError
from napari_sam_med.sam.mask_prediction import MaskPrediction

SURE = 8.0


class PointModel:
    """Answers a point with the connected patch of one grey value under it, three times alike, or once."""

    record = SimpleNamespace(name="points", title="Points of a test")
    model_hash = "points"

    def __init__(self, accepts=("point", "box"), iou_of=lambda mask: 0.9):
        self.accepts = frozenset(accepts)
        self.iou_of = iou_of
        self.asked = []

    def embed(self, image, pixel_spacing=(1.0, 1.0), crop_xyxy=None):
        return SimpleNamespace(image=np.asarray(image)[..., 0], original_size=image.shape[:2])

    def embedding_key(self, image, pixel_spacing=(1.0, 1.0), crop_xyxy=None):
        return None

    def predict_batch(self, embedding, prompts, multimask=None, *, direct_upsampling=False):
        if "point" not in self.accepts:
            raise PromptError("no points")
        return [self._answer(embedding.image, prompt, 3 if multimask else 1) for prompt in prompts]

    def upsample(self, embedding, low_res_logits):
        return low_res_logits

    def _answer(self, image, prompt, count):
        x, y = prompt.points_xy[0]
        self.asked.append((float(x), float(y)))
        value = image[int(y), int(x)]
        patches, _ = ndimage.label(image == value)
        mask = (patches == patches[int(y), int(x)]) & (value > 0)
        logits = np.where(mask, SURE, -SURE).astype(np.float32)
        return MaskPrediction(
            masks=np.stack([mask] * count),
            iou_predictions=np.full(count, self.iou_of(mask), dtype=np.float32),
            low_res_logits=np.stack([logits] * count),
            stability_scores=np.full(count, 0.7, dtype=np.float32),
            tokens=np.zeros((count, 4), dtype=np.float32),
        )


def picture(shape=(40, 48), **patches):
    """An RGB image (H, W, 3) of rectangles: a grey value and (y0, y1, x0, x1), ends outside."""
    grey = np.zeros(shape, dtype=np.uint8)
    for name, (y0, y1, x0, x1) in patches.items():
        grey[y0:y1, x0:x1] = int(name.removeprefix("grey"))
    return np.repeat(grey[..., None], 3, axis=2)


class NoStore:
    """Embeds without keeping."""

    def get_or_embed(self, predictor, image, pixel_spacing=(1.0, 1.0), crop_xyxy=None):
        return predictor.embed(image, pixel_spacing)
