"""Slices without a number in any voxel: a model is shown black there, and would answer with a mask."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_sam_med.errors import PromptError

if TYPE_CHECKING:
    from napari_sam_med.segmentation.propagation import PromptedObjects
    from napari_sam_med.volume.slice_view import SliceView
    from napari_sam_med.volume.volume import Volume

__all__ = ["is_blank", "refuse_blank"]


def is_blank(volume: Volume, view: SliceView) -> bool:
    """Whether no voxel of a slice has a number (all are NaN or infinite)."""
    values = view.extract(volume.data)
    return values.dtype.kind == "f" and not np.isfinite(values).any()


def refuse_blank(volume: Volume, objects: PromptedObjects) -> None:
    """Make sure that masks are carried from slices that show something.

    Raises
    ------
    PromptError
        If no voxel of a prompted slice has a number.
    """
    for _, key_slices in objects.values():
        for view in key_slices:
            if is_blank(volume, view):
                raise PromptError(
                    f"The {view.plane} slice {view.index} of {volume.name} has no number in any voxel: "
                    "masks follow differences of brightness, of which there are none. Clear its prompts "
                    "(Escape there), and prompt a slice that shows something; if none does, check that it is "
                    "the right file."
                )
