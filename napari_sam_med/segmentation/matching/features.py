"""What a model's encoder says of the cells of a slice, as unit vectors that can be compared."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F

if TYPE_CHECKING:
    from napari_sam_med.sam.image_embedding import ImageEmbedding
    from napari_sam_med.sam.predictor import Predictor

__all__ = ["CellFeatures", "coverage", "on_pixels"]

_INTENSITY_WEIGHT = 2.0
"""Of nano's grey values beside its embedding, which alone tells less than SAM's: see docs/matching.md."""


@dataclass(frozen=True, eq=False)
class CellFeatures:
    """Vectors of the cells that a slice covers in the model's grid.

    Attributes
    ----------
    vectors : tensor (n_rows * n_columns, C)
        Of unit length.
    shape : (n_rows, n_columns)
    centre : tensor (D,)
        What was taken off the encoder's features: two slices are comparable when it is the same.
    """

    vectors: torch.Tensor
    shape: tuple[int, int]
    centre: torch.Tensor

    @classmethod
    def of(
        cls, embedding: ImageEmbedding, predictor: Predictor, centre: torch.Tensor | None = None
    ) -> CellFeatures:
        """Of an embedding of any architecture: its first tensor, and nano's grey values beside it.

        Parameters
        ----------
        embedding : ImageEmbedding
        predictor : Predictor
            Whose embedding it is.
        centre : tensor (D,), optional
            Of the slice to compare with; this slice's own mean when left out.
        """
        features: Any = embedding.features
        image = features[0].float().cpu()[0]
        cells = image.shape[-1]
        side = predictor.network.input_size
        rows, columns = (max(1, round(size / side * cells)) for size in embedding.input_size)
        seen = image[:, :rows, :columns].flatten(1).T
        own_centre = seen.mean(0) if centre is None else centre
        vectors = F.normalize(seen - own_centre, dim=1)
        grey = getattr(features, "intensity", None)
        if grey is not None:
            level = F.adaptive_avg_pool2d(grey.float().cpu(), cells)[0, 0, :rows, :columns].reshape(-1, 1)
            # grey values as directions: half a turn from black to white
            turned = torch.cat([torch.cos(torch.pi * level), torch.sin(torch.pi * level)], 1)
            vectors = F.normalize(torch.cat([vectors, _INTENSITY_WEIGHT * turned], 1), dim=1)
        return cls(vectors, (rows, columns), own_centre)


def coverage(mask: npt.NDArray[np.bool_], shape: tuple[int, int]) -> torch.Tensor:
    """Share (n_rows * n_columns,) of each cell that a mask (H, W) covers."""
    pixels = torch.from_numpy(np.ascontiguousarray(mask)).float()
    return F.adaptive_avg_pool2d(pixels[None, None], shape).flatten()


def on_pixels(cells: torch.Tensor, shape: tuple[int, int], size: tuple[int, int]) -> npt.NDArray[np.float32]:
    """Values (n_rows * n_columns,) of cells as (H, W), linear between the cells' middles."""
    grid = cells.reshape(1, 1, *shape)
    pixels: npt.NDArray[np.float32] = F.interpolate(grid, size=size, mode="bilinear", align_corners=False)[
        0, 0
    ].numpy()
    return pixels
