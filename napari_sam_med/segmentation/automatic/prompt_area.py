"""Where in a volume anything is asked: in the body, and in a range of values."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from napari_sam_med.errors import PromptError
from napari_sam_med.segmentation.organ_features import ScanFrame, not_air
from napari_sam_med.volume.slice_view import SliceView

if TYPE_CHECKING:
    from napari_sam_med.volume.volume import Volume

__all__ = ["PromptArea", "body_mask"]

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class PromptArea:
    """Which pixels of a slice may be clicked on.

    Attributes
    ----------
    volume : Volume
    body_only : bool
        Only pixels of `body`.
    values : (low, high) or None
        The volume's own values that are asked about, both inside; None for all.

    Raises
    ------
    PromptError
        When the range of values is empty or no number.
    """

    volume: Volume
    body_only: bool = True
    values: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if self.values is not None and not self.values[0] < self.values[1]:
            low, high = self.values
            raise PromptError(f"The range {low:g} to {high:g} holds no value; give the lower one first.")

    @cached_property
    def body(self) -> Mask:
        """See `body_mask`; made when first asked for."""
        return body_mask(self.volume)

    def on(self, view: SliceView) -> Mask:
        """The pixels (H, W) of a slice that may be clicked on."""
        inside = np.ones(view.slice_shape(self.volume.shape), dtype=bool)
        if self.body_only:
            inside &= view.window_on(self.body)
        if self.values is not None:
            pixels: npt.NDArray[Any] = view.extract(self.volume.data)
            inside &= (pixels >= self.values[0]) & (pixels <= self.values[1])
        return inside


def body_mask(volume: Volume) -> Mask:
    """The largest connected thing of a volume that is not air.

    What is air is told by Hounsfield units, or, where a scan has none, by the window: see `ScanFrame`. Things
    thinner than a couch top are left out, and air inside the body belongs to it; so lungs are asked about,
    and a range of values is what keeps clicks out of them.

    Parameters
    ----------
    volume : Volume

    Returns
    -------
    ndarray (z, y, x) of bool
        All of the volume where nothing in it is brighter than air.
    """
    frame = ScanFrame.of(volume)
    body = np.zeros(volume.shape, dtype=bool)
    for z in range(volume.shape[0]):
        body[z] = not_air(SliceView("axial", z).extract(volume.data), frame)
    pieces, count = ndimage.label(body)
    if not count:
        return np.ones(volume.shape, dtype=bool)
    sizes = np.bincount(pieces.ravel(), minlength=count + 1)
    sizes[0] = 0
    np.equal(pieces, int(np.argmax(sizes)), out=body)
    for axial in body:
        axial[...] = ndimage.binary_fill_holes(axial)
    return body
