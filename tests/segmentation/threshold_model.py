"""A model without a network for propagation: what is bright inside the box is the organ."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np

from napari_sam_med import Prompts, SliceView, Volume, propagate
from napari_sam_med.volume.grid import Grid

WINDOW = (0.0, 255.0)
DRIFT = 0.1  # a threshold finds nothing outside its box, so the box must be wide enough for the rod's drift


class ThresholdPredictor:
    """Answers with the bright pixels inside the box, so that the right mask is known."""

    accepts = frozenset({"point", "box", "mask"})
    model_hash = "threshold"
    network = SimpleNamespace(input_size=64, mask_input_size=32)

    def __init__(self, iou_prediction=0.9):
        self.prompts = []
        self.batches = []
        self.iou_prediction = iou_prediction

    def embedding_key(self, image, pixel_spacing=(1.0, 1.0), crop_xyxy=None):
        return None

    def predict(self, embedding, prompts, multimask=None, *, direct_upsampling=False):
        self.prompts.append(prompts)
        x0, y0, x1, y1 = prompts.box_xyxy.astype(int)
        mask = np.zeros(embedding.image.shape[:2], dtype=bool)
        mask[y0 : y1 + 1, x0 : x1 + 1] = embedding.image[y0 : y1 + 1, x0 : x1 + 1, 0] > 100
        logits = np.where(mask, 4.0, -4.0).astype(np.float32)
        return SimpleNamespace(
            best_mask=mask,
            best_index=0,
            iou_predictions=np.array([self.iou_prediction]),
            stability_scores=np.array([0.8]),
            best_low_res_logits=logits[:32, :32],
        )

    def predict_batch(self, embedding, prompts, multimask=None, *, direct_upsampling=False):
        self.batches.append(len(prompts))
        return [self.predict(embedding, prompt) for prompt in prompts]

    def upsample(self, embedding, low_res_logits):
        height, width = embedding.image.shape[:2]
        whole = np.full((len(low_res_logits), height, width), -4.0, dtype=np.float32)
        whole[:, :32, :32] = low_res_logits[:, :height, :width]
        return whole

    def mask_of_logits(self, embedding, low_res_logits):
        return self.upsample(embedding, low_res_logits[None])[0] > 0


class ImageStore:
    """Keeps the image itself as the embedding, and counts how often each slice was asked for."""

    def get_or_embed(self, predictor, image, pixel_spacing=(1.0, 1.0), crop_xyxy=None):
        return SimpleNamespace(image=image, input_size=(64, 64), crop_xyxy=None)


def volume_of(data):
    data = np.asarray(data, dtype=np.uint8)
    return Volume(data, Grid.from_zyx(data.shape, (2.0, 1.0, 1.0)))


def run(volume, keys, **options):
    predictor = ThresholdPredictor()
    objects = {1: (6, {SliceView("axial", z): Prompts.from_box(box) for z, box in keys.items()})}
    return list(
        propagate(
            volume, objects, predictor, window=WINDOW, store=ImageStore(), **{"box_margin": DRIFT, **options}
        )
    ), predictor


BOX = (4, 6, 24, 20)


def carried(volume, objects, cache, **options):
    """Slices of a run with a cache, and how many prompts it asked."""
    predictor = ThresholdPredictor()
    options = {"window": WINDOW, "store": ImageStore(), "box_margin": DRIFT, "cache": cache, **options}
    return list(propagate(volume, objects, predictor, **options)), len(predictor.prompts)
