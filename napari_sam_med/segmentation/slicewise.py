"""A slice of a volume to the network and back: where the rooms `volume` and `sam` meet."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from napari_sam_med.sam.prompts import Prompts
from napari_sam_med.volume.intensity import to_rgb

if TYPE_CHECKING:
    from napari_sam_med.sam.embedding_store import EmbeddingStore
    from napari_sam_med.sam.predictor import ImageEmbedding, MaskPrediction, Predictor
    from napari_sam_med.volume.slice_view import SliceView
    from napari_sam_med.volume.volume import Volume

__all__ = ["Window", "box_of_mask", "embed_slice", "logits_of_mask", "predict_slice", "prompts_for_model"]

Window = str | tuple[float, float]

_LOGIT_LIMIT = 8.0
"""Logits beyond this say nothing more, and mask prompts were trained within it."""


def embed_slice(
    volume: Volume,
    view: SliceView,
    predictor: Predictor,
    *,
    window: Window = "auto",
    store: EmbeddingStore | None = None,
) -> ImageEmbedding:
    """Embedding of one slice as seen through a window.

    Parameters
    ----------
    volume : Volume
    view : SliceView
    predictor : Predictor
    window : str or (low, high)
        Preset name or limits in the volume's own values.
    store : EmbeddingStore, optional
        Looked up first and filled afterwards.

    Returns
    -------
    ImageEmbedding
    """
    image = to_rgb(volume, view, window)
    spacing = volume.pixel_spacing(view)
    if store is None:
        return predictor.embed(image, spacing)
    return store.get_or_embed(predictor, image, spacing)


def predict_slice(
    volume: Volume,
    view: SliceView,
    prompts: Prompts,
    predictor: Predictor,
    *,
    window: Window = "auto",
    store: EmbeddingStore | None = None,
) -> MaskPrediction:
    """Masks of one prompted slice; parameters as in `embed_slice`, prompts in the slice's pixels."""
    embedding = embed_slice(volume, view, predictor, window=window, store=store)
    return predictor.predict(embedding, prompts)


def box_of_mask(mask: npt.NDArray[np.bool_], margin: float = 0.0) -> tuple[float, float, float, float]:
    """Tangent box (x_min, y_min, x_max, y_max) of a non-empty mask (H, W), widened by a share of its sides.

    The box never leaves the slice. Corners lie inside the box, at pixel centres.
    """
    rows = np.flatnonzero(mask.any(axis=1))
    columns = np.flatnonzero(mask.any(axis=0))
    grow_y = margin * (rows[-1] - rows[0] + 1)
    grow_x = margin * (columns[-1] - columns[0] + 1)
    height, width = mask.shape
    return (
        float(max(columns[0] - grow_x, 0)),
        float(max(rows[0] - grow_y, 0)),
        float(min(columns[-1] + grow_x, width - 1)),
        float(min(rows[-1] + grow_y, height - 1)),
    )


def logits_of_mask(
    mask: npt.NDArray[np.bool_], embedding: ImageEmbedding, predictor: Predictor
) -> npt.NDArray[np.float32]:
    """Mask prompt (h, w) that stands for a drawn mask (H, W): its signed distance on the low-resolution grid.

    Networks expect logits that fade across the border, not a step; the distance in grid pixels, limited to
    +-8, has that shape. The part of the padded square that lies outside the image stays strongly negative.
    """
    side = predictor.network.mask_input_size
    scale = side / predictor.network.input_size
    left, top, right, bottom = embedding.crop_xyxy or (0, 0, mask.shape[1], mask.shape[0])
    crop = mask[int(top) : int(bottom), int(left) : int(right)]
    height = max(1, round(embedding.input_size[0] * scale))
    width = max(1, round(embedding.input_size[1] * scale))
    rows = np.minimum(((np.arange(height) + 0.5) * crop.shape[0] / height).astype(int), crop.shape[0] - 1)
    columns = np.minimum(((np.arange(width) + 0.5) * crop.shape[1] / width).astype(int), crop.shape[1] - 1)
    small = np.zeros((side, side), dtype=bool)
    small[:height, :width] = crop[np.ix_(rows, columns)]
    inside = ndimage.distance_transform_edt(small)
    outside = ndimage.distance_transform_edt(~small) if small.any() else np.full(small.shape, _LOGIT_LIMIT)
    distance = np.where(small, inside - 0.5, 0.5 - outside)
    return np.clip(2.0 * distance, -_LOGIT_LIMIT, _LOGIT_LIMIT).astype(np.float32)


def prompts_for_model(prompts: Prompts, predictor: Predictor) -> Prompts:
    """The part of a box-and-mask prompt that the model takes (MedSAM: the box alone)."""
    unused = prompts.kinds - predictor.accepts
    return prompts.replace(mask_input=None) if "mask" in unused else prompts
