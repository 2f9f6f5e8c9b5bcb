"""`Example`: an organ that somebody has labelled on a slice or several, to be found elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from napari_sam_med.errors import LabelError
from napari_sam_med.segmentation.slicewise import Window, box_of_mask
from napari_sam_med.volume.intensity import to_rgb
from napari_sam_med.volume.slice_view import Plane, SliceView

if TYPE_CHECKING:
    from napari_sam_med.volume.volume import Volume

__all__ = ["Example", "ExampleSlice"]

Mask = npt.NDArray[np.bool_]
Image = npt.NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class ExampleSlice:
    """One labelled slice.

    Attributes
    ----------
    image : ndarray (H, W, 3) uint8
        As the model sees it.
    mask : ndarray (H, W) bool
        All instances of the organ; not empty.
    pixel_spacing : (row, column)
        Millimetres.
    view : SliceView or None
        Where it lies in its volume.

    Raises
    ------
    LabelError
        When the mask is empty, or has another shape than the image.
    """

    image: Image
    mask: Mask
    pixel_spacing: tuple[float, float] = (1.0, 1.0)
    view: SliceView | None = None

    def __post_init__(self) -> None:
        if self.mask.shape != self.image.shape[:2]:
            raise LabelError(
                f"The example's mask is {self.mask.shape} (H, W), its image {self.image.shape[:2]}; "
                "label the image's own pixels."
            )
        if not self.mask.any():
            where = "slice" if self.view is None else f"{self.view.plane} slice {self.view.index}"
            raise LabelError(f"The example's {where} shows nothing of the organ; label it there.")

    @property
    def area_mm2(self) -> float:
        """Square millimetres of the mask."""
        return float(np.count_nonzero(self.mask)) * self.pixel_spacing[0] * self.pixel_spacing[1]

    def framed(self, shape: tuple[int, int], pixel_spacing: tuple[float, float]) -> ExampleSlice:
        """The same slice cut or padded to the extent in millimetres of another image.

        A network that squeezes both into its square then sees the organ at the same scale in both. The middle
        stays the middle, unless the organ would be cut off; padding is black.

        Parameters
        ----------
        shape : (H, W)
            Of the other image.
        pixel_spacing : (row, column)
            Of the other image, millimetres.
        """
        size = [
            max(1, round(pixels * other / own))
            for pixels, other, own in zip(shape, pixel_spacing, self.pixel_spacing, strict=True)
        ]
        if size == list(self.mask.shape):
            return self
        left, top, right, bottom = (int(v) for v in box_of_mask(self.mask))
        places = [
            _shifted(old, new, first, last)
            for old, new, first, last in zip(self.mask.shape, size, (top, left), (bottom, right), strict=True)
        ]
        image = np.zeros((*size, 3), dtype=np.uint8)
        mask = np.zeros(size, dtype=bool)
        source = tuple(source for source, _ in places)
        target = tuple(target for _, target in places)
        image[target], mask[target] = self.image[source], self.mask[source]
        return ExampleSlice(image, mask, self.pixel_spacing, self.view)


def _shifted(old: int, new: int, first: int, last: int) -> tuple[slice, slice]:
    """Which part of an axis of `old` pixels lies where on one of `new`, with `first` to `last` kept."""
    start = (old - new) // 2
    if new < old:
        start = min(max(start, last + 1 - new), first) if last + 1 - first <= new else first
    begin, end = max(start, 0), min(start + new, old)
    return slice(begin, end), slice(begin - start, end - start)


@dataclass(frozen=True, eq=False)
class Example:
    """One organ, labelled on a slice or several; the first slice is the main one.

    Attributes
    ----------
    slices : tuple of ExampleSlice
        Not empty.
    volume : Volume or None
        Where the slices were cut from; in that volume they need not be looked for.
    """

    slices: tuple[ExampleSlice, ...]
    volume: Volume | None = None

    def __post_init__(self) -> None:
        if not self.slices:
            raise LabelError("There is no labelled slice to go by; label the organ on one.")

    @property
    def area_mm2(self) -> float:
        """Largest area of the organ on a slice of the example."""
        return max(one.area_mm2 for one in self.slices)

    @classmethod
    def of_masks(
        cls, volume: Volume, masks: Sequence[tuple[SliceView, Mask]], *, window: Window = "auto"
    ) -> Example:
        """Of masks (H, W) on slices of a volume, seen through a window."""
        slices = [
            ExampleSlice(
                to_rgb(volume, view, window),
                np.asarray(mask, dtype=bool),
                volume.pixel_spacing(view),
                view,
            )
            for view, mask in masks
        ]
        return cls(tuple(sorted(slices, key=lambda one: -one.area_mm2)), volume)

    @classmethod
    def of_labels(
        cls,
        volume: Volume,
        labels_zyx: npt.NDArray[np.integer],
        class_id: int,
        *,
        plane: Plane = "axial",
        index: int | Literal["best"] = "best",
        window: Window = "auto",
    ) -> Example:
        """One slice of a labelled volume.

        Parameters
        ----------
        volume : Volume
        labels_zyx : ndarray (z, y, x) of int
            On the volume's grid.
        class_id : int
            The organ's number.
        plane : {"axial", "coronal", "sagittal"}
        index : int or "best"
            Canonical index; the best slice is the one that shows most of the organ.
        window : str or (low, high)
            What the model sees.

        Raises
        ------
        LabelError
            When the organ is not there, not on that slice, or the labels lie on another grid.
        """
        if labels_zyx.shape != volume.shape:
            raise LabelError(
                f"The example's labels are {labels_zyx.shape} (z, y, x), its volume {volume.shape}; "
                "give labels on the volume's own grid."
            )
        axis = SliceView(plane, 0).axis
        others = tuple(i for i in range(3) if i != axis)
        counts = np.count_nonzero(labels_zyx == class_id, axis=others)
        if not counts.any():
            raise LabelError(f"Label {class_id} has no voxel in the example; label the organ on a slice.")
        if index == "best":
            index = int(np.argmax(counts))
        elif not 0 <= index < len(counts) or not counts[index]:
            shown = np.flatnonzero(counts)
            raise LabelError(
                f"{plane.capitalize()} slice {index} of the example shows nothing of label {class_id}; "
                f"take one of {shown[0]} to {shown[-1]} that does."
            )
        view = SliceView(plane, index)
        return cls.of_masks(volume, [(view, view.extract(labels_zyx) == class_id)], window=window)
