"""Statement 30: the network sees the same disc, to a pixel of its own, however its pixels are spaced."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from napari_sam_med.sam.square import SquareFit, normalised_square


@pytest.mark.parametrize("preprocessing", ["sam", "nano"])
@pytest.mark.parametrize("side", [256, 1024])
@pytest.mark.parametrize("spacing", [(1.0, 4.0), (4.0, 1.0), (0.5, 2.0)])
def test_a_disc_is_the_same_to_a_pixel_of_the_input(
    preprocessing: str, side: int, spacing: tuple[float, float]
) -> None:
    """What a scanner measures is the mean over a pixel; so is what is compared here."""
    rows, columns = np.mgrid[:side, :side]
    disc = np.where((rows - 0.45 * side) ** 2 + (columns - 0.52 * side) ** 2 < (0.3 * side) ** 2, 200.0, 0.0)
    by = [round(mm / min(spacing)) for mm in spacing]
    coarse = disc.reshape(side // by[0], by[0], side // by[1], by[1]).mean(axis=(1, 3))
    seen = []
    for values, mm in ((disc, (1.0, 1.0)), (coarse, spacing)):
        image = np.rint(values)[..., None].astype(np.uint8).repeat(3, axis=2)
        fit = SquareFit.of((image.shape[0], image.shape[1]), mm, side, stretch=False)
        assert fit.resized_size == (side, side)
        square = normalised_square(image, fit, preprocessing, torch.device("cpu"))[0].numpy()
        seen.append(square > (square.max() + square.min()) / 2)
    fine, resampled = seen
    touching = ndimage.generate_binary_structure(2, 2)
    assert not (resampled & ~ndimage.binary_dilation(fine, touching)).any()
    assert not (fine & ~ndimage.binary_dilation(resampled, touching)).any()
    centres = [np.argwhere(mask).mean(axis=0) for mask in seen]
    assert np.abs(centres[0] - centres[1]).max() < 0.1
