"""From prompts in pixels of the image to tensors in pixels of the network's square."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from napari_sam_med.errors import PromptError
from napari_sam_med.sam.architectures.base import PromptBatch
from napari_sam_med.sam.image_embedding import ImageEmbedding
from napari_sam_med.sam.model_registry import ModelRecord
from napari_sam_med.sam.prompts import Prompts
from napari_sam_med.sam.square import SquareFit

__all__ = ["PromptStructure", "batch_of", "check_prompt", "group_by_structure"]

_PLURALS = {"point": "points", "box": "boxes", "mask": "masks"}


class PromptStructure(NamedTuple):
    """What prompts must share to be decoded in one batch."""

    n_points: int
    has_box: bool
    has_mask: bool
    multimask: bool


def group_by_structure(
    prompts: Sequence[Prompts], multimask: bool | None, record: ModelRecord
) -> dict[PromptStructure, list[int]]:
    """Indices into `prompts` by structure; `multimask` None means three masks for a lone point, else one."""
    groups: dict[PromptStructure, list[int]] = {}
    for i, prompt in enumerate(prompts):
        multi = prompt.is_lone_point if multimask is None else bool(multimask)
        kinds = prompt.kinds
        structure = PromptStructure(
            len(prompt.points_xy), "box" in kinds, "mask" in kinds, multi and record.multimask
        )
        groups.setdefault(structure, []).append(i)
    return groups


def check_prompt(
    prompt: Prompts, record: ModelRecord, image_size: tuple[int, int], mask_input_size: int
) -> None:
    """Refuse what the model was not trained for, and what lies outside an image of (H, W) pixels.

    Raises
    ------
    PromptError
    """
    refused = prompt.kinds - record.accepts
    if refused:
        taken = " and ".join(_PLURALS[kind] for kind in sorted(record.accepts))
        name = record.title.split()[0]
        raise PromptError(
            f"{name} takes {taken} only, and a {sorted(refused)[0]} was given; draw a box around the object, "
            "or choose another model."
        )
    _check_inside(prompt, image_size)
    expected = (mask_input_size, mask_input_size)
    if prompt.mask_input is not None and prompt.mask_input.shape != expected:
        raise PromptError(
            f"mask_input has shape {prompt.mask_input.shape}, but {record.title} takes logits of shape "
            f"{expected}; pass `best_low_res_logits` of its own earlier prediction."
        )


def _check_inside(prompt: Prompts, image_size: tuple[int, int]) -> None:
    height, width = image_size
    limits = np.array((width, height))
    # a click on the outer border may be rounded to -1 or to the size itself
    outside = ((prompt.points_xy < -1) | (prompt.points_xy > limits)).any(axis=1)
    if outside.any():
        raise PromptError(
            f"The point {prompt.points_xy[outside][0].tolist()} lies outside the image of {width} x {height} "
            "pixels; points are x = column, y = row, in pixels of the slice."
        )
    box = prompt.box_xyxy
    if box is not None and ((box[:2] > limits).any() or (box[2:] < -1).any()):
        raise PromptError(
            f"The box {box.tolist()} lies outside the image of {width} x {height} pixels; boxes are x_min, "
            "y_min, x_max, y_max with x = column, y = row."
        )


def batch_of(
    prompts: Sequence[Prompts], embedding: ImageEmbedding, fit: SquareFit, device: torch.device
) -> PromptBatch:
    """Prompts of one structure, scaled into the square, on the device."""
    origin = np.array((0, 0) if embedding.crop_xyxy is None else embedding.crop_xyxy[:2])
    first = prompts[0]
    points = labels = boxes = masks = None
    if len(first.points_xy):
        points = _tensor(fit.to_square(np.stack([p.points_xy for p in prompts]) - origin), device)
        labels = _tensor(np.stack([p.point_labels for p in prompts]), device)
    if first.box_xyxy is not None:
        corners = np.stack([p.box_xyxy for p in prompts if p.box_xyxy is not None]).reshape(-1, 2, 2)
        boxes = _tensor(fit.to_square(corners - origin).reshape(-1, 4), device)
    if first.mask_input is not None:
        grids = np.stack([p.mask_input for p in prompts if p.mask_input is not None])
        masks = _tensor(grids[:, None], device)
    return PromptBatch(points, labels, boxes, masks, fit.scale_xy)


def _tensor(array: npt.NDArray[Any], device: torch.device) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(array)).to(device)
