"""A slice of a volume to the network and back: where the rooms `volume` and `sam` meet."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from napari_sam_med.sam.mask_prompts import grid_per_pixel, logits_of_distance, logits_of_mask
from napari_sam_med.sam.prompts import Prompts
from napari_sam_med.volume.intensity import to_rgb

if TYPE_CHECKING:
    from napari_sam_med.sam.embedding_store import EmbeddingStore
    from napari_sam_med.sam.predictor import ImageEmbedding, MaskPrediction, Predictor
    from napari_sam_med.segmentation.body import BodyBox
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


def embed_slice(
    volume: Volume,
    view: SliceView,
    predictor: Predictor,
    *,
    window: Window = "auto",
    store: EmbeddingStore | None = None,
    crop: BodyBox | None = None,
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
    crop : BodyBox, optional
        Show the model this part alone; prompts and masks stay in pixels of the whole slice.

    Returns
    -------
    ImageEmbedding
    """
    image = to_rgb(volume, view, window)
    spacing = volume.pixel_spacing(view)
    crop_xyxy = None if crop is None else crop.on(view)
    if store is None:
        return predictor.embed(image, spacing, crop_xyxy)
    return store.get_or_embed(predictor, image, spacing, crop_xyxy)


def predict_slice(
    volume: Volume,
    view: SliceView,
    prompts: Prompts,
    predictor: Predictor,
    *,
    window: Window = "auto",
    store: EmbeddingStore | None = None,
    crop: BodyBox | None = None,
) -> MaskPrediction:
    """Masks of one prompted slice; parameters as in `embed_slice`, prompts in the slice's pixels.

    Where the prompts leave the crop, the model sees the whole slice.
    """
    seen = None if crop is None or not crop.holds(view, prompts) else crop
    embedding = embed_slice(volume, view, predictor, window=window, store=store, crop=seen)
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
        The user's own, in the slice's pixels; a box or outline among them is used in place of the mask's box.
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
    box = prompts.extent_within((mask.shape[0], mask.shape[1]))
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
    return prompts_for_model(prompts.replace(box_xyxy=box, mask_input=logits, outline_xy=None), predictor)


def _joined_box(mask: npt.NDArray[np.bool_], prompts: Prompts) -> tuple[float, float, float, float]:
    """Box that holds a mask and the foreground points."""
    left, top, right, bottom = box_of_mask(mask)
    x, y = prompts.points_xy[prompts.point_labels == 1].T.tolist()
    return min([left, *x]), min([top, *y]), max([right, *x]), max([bottom, *y])
