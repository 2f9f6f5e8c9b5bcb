"""What a simulated annotator looks at: one object on one slice."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_sam_med.evaluation.baselines import tight_box
from napari_sam_med.volume.slice_view import SliceView

__all__ = ["PromptTarget"]


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

    mask: npt.NDArray[np.bool_]
    image: npt.NDArray[np.uint8] | None = None
    case: str = ""
    view: SliceView | None = None
    label: int = 0
    organ: str = ""

    @cached_property
    def box_xyxy(self) -> npt.NDArray[np.float32]:
        """The tangent box (4,) x_min, y_min, x_max, y_max of the mask, both corners inside."""
        return tight_box(self.mask)

    @cached_property
    def crop(self) -> npt.NDArray[np.bool_]:
        """The part of the mask in its tangent box."""
        x0, y0, x1, y1 = self.box_xyxy.astype(int)
        part: npt.NDArray[Any] = self.mask[y0 : y1 + 1, x0 : x1 + 1]
        return part
