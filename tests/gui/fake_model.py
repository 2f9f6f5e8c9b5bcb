"""A model without a network: what is bright inside the prompt is the organ."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy import ndimage

from napari_sam_med.errors import PromptError
from napari_sam_med.sam.interruption import encoding
from napari_sam_med.sam.mask_prompts import outline_as_box_and_mask
from napari_sam_med.sam.model_registry import MODELS
from napari_sam_med.sam.outlines import mask_of_outline
from napari_sam_med.sam.prompts import Prompts

GRID = 16


class Features(NamedTuple):
    image: np.ndarray


class FakePredictor:
    """Stands in for a `Predictor`; ``gate`` holds every embedding until it is set, or given up."""

    def __init__(self) -> None:
        self.record = MODELS["nano"]
        self.accepts = self.record.accepts
        self.device = "cpu"
        self.model_hash = "0" * 64
        self.network = SimpleNamespace(mask_input_size=GRID, input_size=GRID)
        self.gate = threading.Event()
        self.gate.set()
        self.under_way: list[np.ndarray] = []
        self.embedded: list[np.ndarray] = []
        self.loaded: list[tuple[str, str]] = []
        self.error: Exception | None = None
        self.waiting = threading.Event()

    def embedding_key(self, image: np.ndarray, pixel_spacing=(1.0, 1.0), crop_xyxy: Any = None) -> str:
        return f"{image.shape}{pixel_spacing}{image.tobytes().hex()}"

    def embed(self, image: np.ndarray, pixel_spacing=(1.0, 1.0), crop_xyxy: Any = None) -> Any:
        self.under_way.append(image)
        self.waiting.set()
        try:
            with encoding():
                for _ in range(6000):
                    torch.zeros(1)  # a real encoder is many operations, and can be given up between them
                    if self.gate.wait(0.01):
                        break
        finally:
            self.under_way.pop(next(i for i, other in enumerate(self.under_way) if other is image))
        if self.error is not None:
            raise self.error
        self.embedded.append(image)
        return SimpleNamespace(
            features=Features(image),
            original_size=image.shape[:2],
            input_size=(GRID, GRID),
            crop_xyxy=crop_xyxy,
            model_hash=self.model_hash,
            pixel_spacing=pixel_spacing,
            nbytes=image.nbytes,
        )

    def predict(self, embedding: Any, prompts: Prompts, multimask=None, **how: bool) -> Any:
        bright = embedding.features.image[..., 0] > 127
        if prompts.outline_xy is not None and "mask" in self.accepts:
            bright &= mask_of_outline(prompts.outline_xy, bright.shape)
        prompts = outline_as_box_and_mask(prompts, embedding, self)
        if not prompts.kinds <= self.accepts:
            raise PromptError("This model takes boxes only; draw a box.")
        mask = _answer(bright, prompts)
        logits = np.where(_resized(mask, (GRID, GRID)), 8.0, -8.0).astype(np.float32)
        return SimpleNamespace(
            masks=mask[None],
            iou_predictions=np.array([0.9], dtype=np.float32),
            low_res_logits=logits[None],
            stability_scores=np.array([0.95], dtype=np.float32),
            tokens=np.zeros((1, 4), dtype=np.float32),
            best_index=0,
            best_mask=mask,
            best_low_res_logits=logits,
        )

    def predict_batch(self, embedding: Any, prompts: Any, multimask=None, **how: bool) -> Any:
        return [self.predict(embedding, prompt) for prompt in prompts]

    def upsample(self, embedding: Any, low_res_logits: np.ndarray) -> np.ndarray:
        return np.stack([_resized(logits, embedding.original_size) for logits in low_res_logits])

    def mask_of_logits(self, embedding: Any, low_res_logits: np.ndarray) -> np.ndarray:
        return self.upsample(embedding, low_res_logits[None])[0] > 0


def _resized(image: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Image (H, W) by nearest neighbours."""
    rows, columns = (np.arange(n) * old // n for n, old in zip(shape, image.shape, strict=True))
    return image[np.ix_(rows, columns)]


def _answer(bright: np.ndarray, prompts: Prompts) -> np.ndarray:
    mask = np.zeros_like(bright)
    if prompts.box_xyxy is not None:
        left, top, right, bottom = np.rint(prompts.box_xyxy).astype(int)
        mask[top : bottom + 1, left : right + 1] = True
        mask &= (
            bright if prompts.mask_input is None or not len(prompts.points_xy) else _drawn(prompts, bright)
        )
    pieces, _ = ndimage.label(bright)
    for (x, y), label in zip(np.rint(prompts.points_xy).astype(int), prompts.point_labels, strict=True):
        if label:
            mask = mask | ((pieces == pieces[y, x]) & bright[y, x])
        else:
            mask[max(0, y - 1) : y + 2, max(0, x - 1) : x + 2] = False
    return mask


def _drawn(prompts: Prompts, like: np.ndarray) -> np.ndarray:
    """The mask that clicks put right, in the slice's pixels."""
    rows, columns = (np.arange(n) * GRID // n for n in like.shape)
    return prompts.mask_input[np.ix_(rows, columns)] > 0


class FakeStore:
    """Keeps embeddings by image, in memory."""

    directory = None
    memory_bytes = disk_bytes = 1 << 30

    def __init__(self) -> None:
        self.kept: dict[str, Any] = {}
        self._being_made: dict[str, threading.Lock] = {}

    def __contains__(self, key: str) -> bool:
        return key in self.kept

    def clear(self) -> None:
        self.kept.clear()

    def get(self, key: str) -> Any:
        return self.kept.get(key)

    def keep(self, key: str) -> int:
        return 0

    def get_or_embed(
        self, predictor: FakePredictor, image: np.ndarray, pixel_spacing=(1.0, 1.0), crop_xyxy=None
    ) -> Any:
        key = predictor.embedding_key(image, pixel_spacing, crop_xyxy)
        with self._being_made.setdefault(key, threading.Lock()):
            if key not in self.kept:
                self.kept[key] = predictor.embed(image, pixel_spacing, crop_xyxy)
            return self.kept[key]
