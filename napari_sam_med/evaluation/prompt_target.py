"""What a simulated annotator looks at: one object on one slice."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from napari_sam_med.volume.slice_view import SliceView

__all__ = ["Mask", "PromptTarget", "prompt_targets", "tight_boxes"]

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class PromptTarget:
    """An object on a slice, as prompts are drawn from it.

    Attributes
    ----------
    mask : array (H, W) bool
        The object, not empty.
    image : array (H, W, 3) uint8, optional
        The slice as the model sees it; some strategies look at its grey values.
    case : str
        Name of the volume.
    view : SliceView, optional
        Which slice of it.
    label : int
    organ : str
        Number and name of the object.
    """

    mask: Mask
    image: npt.NDArray[np.uint8] | None = None
    case: str = ""
    view: SliceView | None = None
    label: int = 0
    organ: str = ""

    @cached_property
    def box_xyxy(self) -> npt.NDArray[np.float32]:
        """The tangent box (4,) x_min, y_min, x_max, y_max of the mask, both corners inside."""
        box: npt.NDArray[np.float32] = tight_boxes(self.mask[None])[0]
        return box

    @property
    def crop(self) -> tuple[slice, slice]:
        """Rows and columns of the tangent box."""
        x0, y0, x1, y1 = (int(side) for side in self.box_xyxy)
        return slice(y0, y1 + 1), slice(x0, x1 + 1)


def prompt_targets(
    masks: npt.NDArray[np.bool_], image: npt.NDArray[np.uint8] | None = None
) -> list[PromptTarget]:
    """Targets of many objects of a slice; their tangent boxes are found together.

    Parameters
    ----------
    masks : array (N, H, W) bool
        None empty.
    image : array (H, W, 3) uint8, optional
        The slice they all lie on.
    """
    targets = [PromptTarget(mask, image) for mask in masks]
    for target, box in zip(targets, tight_boxes(masks), strict=True):
        vars(target)["box_xyxy"] = box  # what the cached property would come to
    return targets


def tight_boxes(masks: npt.NDArray[np.bool_]) -> npt.NDArray[np.float32]:
    """Tangent boxes (N, 4) x_min, y_min, x_max, y_max of masks (N, H, W), both corners inside.

    Raises
    ------
    ValueError
        When a mask is empty.
    """
    rows: Mask = np.logical_or.reduce(masks, axis=2)
    columns: Mask = np.logical_or.reduce(masks, axis=1)
    if not np.logical_or.reduce(rows, axis=1).all():
        raise ValueError("An empty mask has no box; leave its slice out.")
    first = [columns.argmax(1), rows.argmax(1)]
    last = [side.shape[1] - 1 - side[:, ::-1].argmax(1) for side in (columns, rows)]
    return np.stack([*first, *last], 1).astype(np.float32)
