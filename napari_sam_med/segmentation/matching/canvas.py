"""Example and query side by side in one image, at one physical pixel size."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from napari_sam_med.segmentation.matching.example import ExampleSlice

__all__ = ["Canvas"]

Mask = npt.NDArray[np.bool_]
Points = npt.NDArray[np.float32]

_LONGEST_SIDE = 2048
"""Pixels: no model sees more of an image."""


@dataclass(frozen=True, eq=False)
class Canvas:
    """The example on the left, the query on the right; black below the lower one.

    Attributes
    ----------
    image : ndarray (H, W, 3) uint8
    pixel_mm : float
        Side of its pixels, millimetres.
    example_mask : ndarray (h, w) bool
        The example's organ, in the left part's own rows and columns.
    query_size : (h, w)
        Of the right part, without the black below it.
    query_shape : (H, W)
        Of the query's own slice.
    """

    image: npt.NDArray[np.uint8]
    pixel_mm: float
    example_mask: Mask
    query_size: tuple[int, int]
    query_shape: tuple[int, int]

    @classmethod
    def of(
        cls,
        example: ExampleSlice,
        query_image: npt.NDArray[np.uint8],
        query_spacing: tuple[float, float],
    ) -> Canvas:
        """Put both together, each scaled to the smallest pixel side of the two.

        Parameters
        ----------
        example : ExampleSlice
        query_image : ndarray (H, W, 3) uint8
        query_spacing : (row, column)
            Millimetres.
        """
        shape = (query_image.shape[0], query_image.shape[1])
        extents = np.array(
            [
                np.multiply(example.mask.shape, example.pixel_spacing),
                np.multiply(shape, query_spacing),
            ]
        )
        finest = min(*example.pixel_spacing, *query_spacing)
        pixel_mm = max(
            finest, float(extents[:, 0].max()) / _LONGEST_SIDE, extents[:, 1].sum() / _LONGEST_SIDE
        )
        left_size, right_size = (
            tuple(max(1, round(float(v) / pixel_mm)) for v in extent) for extent in extents
        )
        image = np.zeros((max(left_size[0], right_size[0]), left_size[1] + right_size[1], 3), dtype=np.uint8)
        image[: left_size[0], : left_size[1]] = _resized(example.image, left_size)
        image[: right_size[0], left_size[1] :] = _resized(query_image, right_size)
        mask = example.mask[np.ix_(*_sampled(left_size, example.mask.shape))]
        if not mask.any():  # smaller than a pixel here
            row, column = np.argwhere(example.mask)[0]
            mask[row * left_size[0] // len(example.mask), column * left_size[1] // example.mask.shape[1]] = (
                True
            )
        return cls(image, pixel_mm, mask, (right_size[0], right_size[1]), shape)

    @property
    def query_left(self) -> int:
        """First column of the query."""
        return int(self.example_mask.shape[1])

    @property
    def query_part(self) -> npt.NDArray[np.uint8]:
        """The query (h, w, 3) as it lies here."""
        return self.image[: self.query_size[0], self.query_left :]

    def example_half(self, answer: Mask) -> Mask:
        """The part of an answer (H, W) that lies in the example."""
        return answer[: self.example_mask.shape[0], : self.query_left]

    def query_half(self, answer: Mask) -> Mask:
        """The part of an answer (H, W) that lies in the query, in the query's own pixels."""
        part = answer[: self.query_size[0], self.query_left :]
        return part[np.ix_(*_sampled(self.query_shape, part.shape))]

    def query_xy(self, xy: tuple[float, float]) -> tuple[float, float]:
        """A point x, y of the canvas in pixels of the query's own slice."""
        (height, width), (rows, columns) = self.query_size, self.query_shape
        return (
            (xy[0] - self.query_left + 0.5) * columns / width - 0.5,
            (xy[1] + 0.5) * rows / height - 0.5,
        )


def _resized(image: npt.NDArray[np.uint8], size: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    if image.shape[:2] == size:
        return image
    return np.asarray(Image.fromarray(image).resize((size[1], size[0]), Image.Resampling.BILINEAR))


def _sampled(size: tuple[int, ...], source: tuple[int, ...]) -> tuple[npt.NDArray[np.int64], ...]:
    """Rows and columns of the source whose pixels hold the middles of pixels of an image of another size."""
    return tuple(
        ((np.arange(new) + 0.5) * old / new).astype(np.int64) for new, old in zip(size, source, strict=True)
    )
