"""A model for experiments that answers at once, and a volume's labels for it to be measured on."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

from napari_sam_med.sam.mask_prediction import MaskPrediction
from napari_sam_med.session.jobs import LoadedModel
from napari_sam_med.volume.labels import LabelVolume
from napari_sam_med.volume.organs import OrganTable
from napari_sam_med.volume.volume import Volume
from tests.gui.fake_model import FakePredictor, FakeStore


class MeasuredPredictor(FakePredictor):
    """Answers as the fake does, in the form that is measured.

    ``batch_gate`` holds each batch but the first ``free``.
    """

    def __init__(self) -> None:
        super().__init__()
        self.batch_gate = threading.Event()
        self.batch_gate.set()
        self.batches = self.free = 0

    def predict(self, embedding: Any, prompts: Any, multimask=None, **how: bool) -> Any:
        found = super().predict(embedding, prompts)
        return MaskPrediction(
            found.masks, found.iou_predictions, found.low_res_logits, found.stability_scores, found.tokens
        )

    def predict_batch(self, embedding: Any, prompts: Sequence[Any], *, single_beside: bool = False) -> Any:
        self.batches += 1
        if self.batches > self.free:
            self.batch_gate.wait(60)
        return [self.predict(embedding, one) for one in prompts]


def labels_of(volume: Volume) -> LabelVolume:
    """The bright box of the volume, a column too wide, as liver; a spleen where nothing is bright."""
    labels = LabelVolume.like(volume)
    z, y, x = volume.shape
    labels.data[1 : z - 1, y // 4 : y // 2, x // 4 - 1 : x // 2] = 6
    labels.data[2 : z - 2, y - 7 : y - 1, x - 9 : x - 2] = 1
    labels.organs = OrganTable.btcv()
    return labels


def loads(predictor: MeasuredPredictor) -> Callable[..., LoadedModel]:
    """In the place of the function that loads models."""
    store = FakeStore()

    def load(model: str, device: str) -> LoadedModel:
        predictor.loaded.append((model, device))
        return LoadedModel(predictor, store)

    return load
