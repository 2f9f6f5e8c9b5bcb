"""Where the patient is: which slices hold nothing but air."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from napari_sam_med.segmentation.organ_features import COUCH_MM, ScanFrame
from napari_sam_med.volume.intensity import resolve_window

if TYPE_CHECKING:
    from napari_sam_med.segmentation.slicewise import Window
    from napari_sam_med.volume.slice_view import SliceView
    from napari_sam_med.volume.volume import Volume

__all__ = ["is_air"]

_DARKEST_TISSUE_HU = -900.0
"""Lung; only a window that reaches below it shows anything darker."""
_MOSTLY = 0.9
"""Share of a square that is brighter than air where something is; noise may leave out the rest."""


def is_air(volume: Volume, view: SliceView, window: Window = "auto") -> bool:
    """Whether a slice shows nothing to segment, so that embedding it ahead of time is wasted.

    It does when nothing on it is brighter than air over a square thicker than a couch top. Air is what lies
    below -300 Hounsfield units, or below the window where that shows darker tissue (down to -900: lungs);
    in a scan without such units what is darker than a tenth of the window.

    Reads this one slice, apart from the range of values and the window, which the volume keeps. It takes
    milliseconds, and may run in any thread. A slice that is prompted is to be embedded whatever this says.

    Parameters
    ----------
    volume : Volume
    view : SliceView
    window : str or (low, high)
        What the model sees, as for `embed_slice`.

    Raises
    ------
    ImageError
        If there is no such slice, or the window does not fit.
    """
    pixels: npt.NDArray[Any] = np.asarray(view.window_on(volume.data))
    bright = pixels > _air_below(volume, window)  # NaN is not
    if not bright.any():
        return True
    sides = [
        min(size, max(1, round(COUCH_MM / mm)))
        for size, mm in zip(pixels.shape, volume.pixel_spacing(view), strict=True)
    ]
    # what the field of view cuts goes on beyond it
    share = ndimage.uniform_filter(bright.astype(np.float32), size=sides, mode="nearest")
    return bool(share.max() < _MOSTLY)


def _air_below(volume: Volume, window: Window) -> float:
    """Values of a volume that are air, and not shown as anything else."""
    frame, (low, high) = ScanFrame.of(volume), resolve_window(volume, window)
    if frame.is_hounsfield:
        return min(frame.air_below, max(low, _DARKEST_TISSUE_HU))
    seen = ScanFrame(False, (low, high), frame.n_slices, frame.spacing)
    return min(frame.air_below, seen.air_below)
