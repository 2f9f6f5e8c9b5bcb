"""Where the patient is: the box of the body in a scan, and slices that hold nothing but air."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from napari_sam_med.segmentation.organ_features import COUCH_MM, ScanFrame, not_air
from napari_sam_med.segmentation.slicewise import box_of_mask
from napari_sam_med.volume.intensity import resolve_window
from napari_sam_med.volume.slice_view import SliceView

if TYPE_CHECKING:
    from collections.abc import Mapping

    from napari_sam_med.sam.image_embedding import Crop
    from napari_sam_med.sam.prompts import Prompts
    from napari_sam_med.segmentation.propagation import PromptedObjects
    from napari_sam_med.segmentation.slicewise import Window
    from napari_sam_med.volume.volume import Volume

__all__ = ["BodyBox", "is_air"]

Mask = npt.NDArray[np.bool_]

_DARKEST_TISSUE_HU = -900.0
"""Lung; only a window that reaches below it shows anything darker."""
_MOSTLY = 0.9
"""Share of a square that is brighter than air where something is; noise may leave out the rest."""

_MARGIN_MM = 10.0
"""Around the body: room for what lies between the voxels that are looked at, and for what is near."""
_LOOKED_AT_MM = 2.0
_MOST_SLICES = 64
_LEAST_ZOOM = 1.2
"""Less is not worth embedding a slice in a second way."""
_LEAST_PIECE = 0.05
"""Share of the largest piece: legs and arms are of the body, the rest of a couch is not."""


@dataclass(frozen=True)
class BodyBox:
    """The part of a scan that holds the body, the same for all slices of a plane.

    Shown nothing else, a model sees the body larger: a wide field of view leaves it less than half of the
    pixels.

    Attributes
    ----------
    low, high : (z, y, x)
        Voxels of the canonical array; `low` is inside, `high` just outside.
    shape : (z, y, x)
        Of the volume.
    spacing : (z, y, x)
        Of its voxels, mm.
    """

    low: tuple[int, int, int]
    high: tuple[int, int, int]
    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]

    @classmethod
    def of(cls, volume: Volume) -> BodyBox:
        """The box of what is not air and no couch, 1 cm wider on each side; all of a scan that is air alone.

        Looks at 64 slices at most, and on each at a pixel every 2 mm.
        """
        frame = ScanFrame.of(volume)
        z_mm, y_mm, x_mm = frame.spacing
        z_step = -(-volume.shape[0] // _MOST_SLICES)
        y_step, x_step = (max(1, int(_LOOKED_AT_MM / mm)) for mm in (y_mm, x_mm))
        thinned = replace(frame, spacing=(z_mm * z_step, y_mm * y_step, x_mm * x_step))
        looked_at = (
            np.asarray(SliceView("axial", z).window_on(volume.data))[::y_step, ::x_step]
            for z in range(0, volume.shape[0], z_step)
        )
        pieces, count = ndimage.label(np.stack([not_air(pixels, thinned) for pixels in looked_at]))
        if not count:
            return cls((0, 0, 0), volume.shape, volume.shape, frame.spacing)
        sizes = np.bincount(pieces.ravel())
        sizes[0] = 0
        body = (sizes >= max(1.0, _LEAST_PIECE * sizes.max()))[pieces]
        z, y, x = (
            _widened(np.flatnonzero(body.any(axis=others)), step, mm, size)
            for others, step, mm, size in (
                ((1, 2), z_step, z_mm, volume.shape[0]),
                ((0, 2), y_step, y_mm, volume.shape[1]),
                ((0, 1), x_step, x_mm, volume.shape[2]),
            )
        )
        return cls((z[0], y[0], x[0]), (z[1], y[1], x[1]), volume.shape, frame.spacing)

    def on(self, view: SliceView) -> Crop | None:
        """The part of a slice image that a model is to see.

        Returns
        -------
        tuple of int, or None
            x_min, y_min (inside), x_max, y_max (just outside), pixels. None, for the whole slice, where the
            part would show the model less than 1.2 times the resolution.
        """
        rows, columns = view.row_axis, view.column_axis
        long_side, long_side_of_box = (
            max(sides[axis] * self.spacing[axis] for axis in (rows, columns))
            for sides in (self.shape, np.subtract(self.high, self.low).tolist())
        )
        if long_side < _LEAST_ZOOM * long_side_of_box:
            return None
        top, bottom = self.low[rows], self.high[rows]
        if view.plane != "axial":  # the highest slice is the first row
            top, bottom = self.shape[0] - bottom, self.shape[0] - top
        return self.low[columns], top, self.high[columns], bottom

    def holds(self, view: SliceView, prompts: Prompts | None = None, mask: Mask | None = None) -> bool:
        """Whether what is asked on a slice lies in the part that `on` gives.

        Parameters
        ----------
        view : SliceView
        prompts : Prompts, optional
            In pixels of the slice.
        mask : ndarray (H, W) of bool, optional
        """
        crop = self.on(view)
        if crop is None:
            return True
        corners = [np.empty((0, 2))] if prompts is None else _places_xy(prompts)
        if mask is not None and mask.any():
            corners.append(np.reshape(box_of_mask(mask), (2, 2)))
        places = np.concatenate(corners)
        return bool(((places >= np.array(crop[:2]) - 0.5) & (places <= np.array(crop[2:]) - 0.5)).all())

    def for_run(
        self,
        objects: PromptedObjects,
        masks: Mapping[int, Mapping[SliceView, npt.ArrayLike]] | None = None,
    ) -> BodyBox | None:
        """This box, or None where an object's prompts or drawn masks leave it: then whole slices are shown.

        One answer for all slices, so that those beside each other are seen alike.
        """
        asked = ((view, prompts) for _, keys in objects.values() for view, prompts in keys.items())
        drawn = ((view, mask) for keys in (masks or {}).values() for view, mask in keys.items())
        is_held = all(self.holds(view, prompts) for view, prompts in asked) and all(
            self.holds(view, mask=np.asarray(mask, dtype=bool)) for view, mask in drawn
        )
        return self if is_held else None


def _widened(found: npt.NDArray[np.intp], step: int, mm: float, size: int) -> tuple[int, int]:
    """First voxel and the one after the last, of those found at every `step`-th, with the margin."""
    margin = step - 1 + round(_MARGIN_MM / mm)
    return max(0, int(found[0]) * step - margin), min(size, int(found[-1]) * step + 1 + margin)


def _places_xy(prompts: Prompts) -> list[npt.NDArray[Any]]:
    """Points and corners (N, 2) of prompts."""
    box, outline = prompts.box_xyxy, prompts.outline_xy
    corners = [prompts.points_xy] if box is None else [prompts.points_xy, box.reshape(2, 2)]
    return corners if outline is None else [*corners, outline]


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
