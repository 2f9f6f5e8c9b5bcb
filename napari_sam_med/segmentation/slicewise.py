"""A slice of a volume to the network and back: where the rooms `volume` and `sam` meet."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

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

__all__ = [
    "Window",
    "box_of_mask",
    "corrected_prompts",
    "embed_slice",
    "grid_per_pixel",
    "logits_of_distance",
    "logits_of_mask",
    "predict_slice",
    "prompts_for_model",
]

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
    on_grid = _on_grid(mask, embedding, predictor)
    side = predictor.network.mask_input_size
    small = np.zeros((side, side), dtype=bool)
    small[: on_grid.shape[0], : on_grid.shape[1]] = on_grid
    inside = ndimage.distance_transform_edt(small)
    outside = ndimage.distance_transform_edt(~small) if small.any() else np.full(small.shape, _LOGIT_LIMIT)
    distance = np.where(small, inside - 0.5, 0.5 - outside)
    return np.clip(2.0 * distance, -_LOGIT_LIMIT, _LOGIT_LIMIT).astype(np.float32)


def logits_of_distance(
    distance_px: npt.NDArray[np.float32], embedding: ImageEmbedding, predictor: Predictor
) -> npt.NDArray[np.float32]:
    """Mask prompt (h, w) that stands for a signed distance (H, W) in pixels, negative inside; sampled at the
    centres of the low-resolution grid.
    """
    on_grid = _on_grid(distance_px, embedding, predictor)
    side = predictor.network.mask_input_size
    logits = np.full((side, side), -_LOGIT_LIMIT, dtype=np.float32)
    _, rows_per_pixel = grid_per_pixel(distance_px.shape, embedding, predictor)
    steepness = np.float32(-2.0 * rows_per_pixel)
    logits[: on_grid.shape[0], : on_grid.shape[1]] = np.clip(on_grid * steepness, -_LOGIT_LIMIT, _LOGIT_LIMIT)
    return logits


def _on_grid(image: npt.NDArray[Any], embedding: ImageEmbedding, predictor: Predictor) -> npt.NDArray[Any]:
    """The part of an image (H, W) that was embedded, at the cell centres of the low-resolution grid."""
    scale = predictor.network.mask_input_size / predictor.network.input_size
    left, top, right, bottom = embedding.crop_xyxy or (0, 0, image.shape[1], image.shape[0])
    crop = image[int(top) : int(bottom), int(left) : int(right)]
    cells = [max(1, round(size * scale)) for size in embedding.input_size]
    rows, columns = (
        np.minimum(((np.arange(n) + 0.5) * pixels / n).astype(int), pixels - 1)
        for n, pixels in zip(cells, crop.shape, strict=True)
    )
    return crop[np.ix_(rows, columns)]


def grid_per_pixel(
    shape: tuple[int, ...], embedding: ImageEmbedding, predictor: Predictor
) -> npt.NDArray[np.float64]:
    """Pixels (x, y) of the mask prompt's grid for one of the slice."""
    scale = predictor.network.mask_input_size / predictor.network.input_size
    left, top, right, bottom = embedding.crop_xyxy or (0, 0, shape[1], shape[0])
    height, width = embedding.input_size
    return np.array([width * scale / (right - left), height * scale / (bottom - top)])


def prompts_for_model(prompts: Prompts, predictor: Predictor) -> Prompts:
    """The part of a box-and-mask prompt that the model takes (MedSAM: the box alone)."""
    unused = prompts.kinds - predictor.accepts
    return prompts.replace(mask_input=None) if "mask" in unused else prompts


def corrected_prompts(
    prompts: Prompts, mask: npt.NDArray[np.bool_], embedding: ImageEmbedding, predictor: Predictor
) -> Prompts:
    """Prompts that ask for a mask (H, W) with the user's clicks put right, not for what the clicks alone say.

    Parameters
    ----------
    prompts : Prompts
        The user's own, in the slice's pixels; a box among them is used in place of the mask's.
    mask : ndarray (H, W) of bool
        What the object has on the slice; an empty one corrects nothing.
    embedding : ImageEmbedding
    predictor : Predictor

    Returns
    -------
    Prompts
        With the box that holds the mask and every foreground click, and the mask as logits; without the
        logits for a model that takes no mask.
    """
    if not mask.any() or prompts.mask_input is not None:
        return prompts
    box = prompts.box_xyxy
    if box is None:
        box = np.asarray(_joined_box(mask, prompts), dtype=np.float32)
    logits = logits_of_mask(mask, embedding, predictor)
    # A mask that is sure of itself at a click outweighs the click. Its say fades towards the clicks, over the
    # size of the object: on the sample scan that honoured every click and lost none of the rest.
    left, top, _, _ = embedding.crop_xyxy or (0, 0, mask.shape[1], mask.shape[0])
    per_pixel = grid_per_pixel(mask.shape, embedding, predictor)
    reach = max(1.0, float(np.sqrt(np.prod((box[2:] - box[:2] + 1) * per_pixel))))
    rows, columns = np.indices(logits.shape)
    for x, y in (prompts.points_xy - (left, top)) * per_pixel:
        logits *= np.minimum(np.hypot(columns - x, rows - y) / reach, 1.0)
    return prompts_for_model(prompts.replace(box_xyxy=box, mask_input=logits), predictor)


def _joined_box(mask: npt.NDArray[np.bool_], prompts: Prompts) -> tuple[float, float, float, float]:
    """Box that holds a mask and the foreground points."""
    left, top, right, bottom = box_of_mask(mask)
    x, y = prompts.points_xy[prompts.point_labels == 1].T.tolist()
    return min([left, *x]), min([top, *y]), max([right, *x]), max([bottom, *y])
