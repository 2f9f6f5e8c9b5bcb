"""Which image a journal belongs to: its voxels and where they lie, whatever the file is called."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import xxhash

from napari_sam_med.progress import Progress
from napari_sam_med.volume.grid import Grid
from napari_sam_med.volume.lazy_array import sampled_blocks

if TYPE_CHECKING:
    from napari_sam_med.volume.volume import Volume

__all__ = ["ImageIdentity", "identify"]

_SLICES_A_STEP = 32


@dataclass(frozen=True, eq=False)
class ImageIdentity:
    """What makes an image this image.

    Attributes
    ----------
    name : str
        File or layer name, for people; may differ for the same image.
    digest : str
        xxh3_128 of voxels, dtype and shape, hexadecimal.
    grid : Grid
        Geometry of the canonical array (z, y, x), as a file of axes left, posterior, superior.
    """

    name: str
    digest: str
    grid: Grid

    def difference_from(self, other: ImageIdentity) -> str | None:
        """Why work on the other image does not fit this one, for people; None where it does."""
        if self.grid.shape_ijk != other.grid.shape_ijk:
            sizes = ("x".join(map(str, image.grid.shape_ijk)) for image in (other, self))
            return f"{other.name} has {next(sizes)} voxels, this image {next(sizes)}"
        if self.digest != other.digest:
            return f"{other.name} has other voxel values than this image"
        if not self.grid.same_as(other.grid):
            apart = self.grid.distance_mm(other.grid)
            return f"{other.name} has these voxels {apart:.3g} mm from where this image has them"
        return None

    def to_json(self) -> dict[str, Any]:
        """Plain values for JSON; inverse of `from_json`."""
        shape, affine = list(self.grid.shape_ijk), self.grid.affine.tolist()
        return {"name": self.name, "digest": self.digest, "shape_ijk": shape, "affine": affine}

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> ImageIdentity:
        """Identity of what `to_json` gave; raises KeyError, TypeError, ValueError or ImageError."""
        i, j, k = fields["shape_ijk"]
        grid = Grid(np.array(fields["affine"], dtype=np.float64), (i, j, k))
        return cls(str(fields["name"]), str(fields["digest"]), grid)


def identify(volume: Volume) -> Generator[Progress, None, ImageIdentity]:
    """Hash an image, some slices at a time; 150 MB take a tenth of a second.

    Of one that is larger than memory a sample, always the same, stands for all of it.
    """
    data = volume.data
    digest = xxhash.xxh3_128(f"{np.dtype(data.dtype).str} {tuple(data.shape)}".encode())
    if volume.is_lazy:
        for block in sampled_blocks(data, volume.levels[-1] if volume.levels else None):
            yield Progress(0, 0, "recognising the image")
            digest.update(np.ascontiguousarray(block).data)
        return ImageIdentity(volume.name, digest.hexdigest(), volume.grid.canonical())
    n_slices = volume.shape[0]
    for index in range(n_slices):
        if index % _SLICES_A_STEP == 0:
            yield Progress(index, n_slices, "recognising the image")
        digest.update(np.ascontiguousarray(data[index]).data)
    return ImageIdentity(volume.name, digest.hexdigest(), volume.grid.canonical())
