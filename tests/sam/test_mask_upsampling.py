"""Enlarging only the part of logits that may lie above a level."""

from __future__ import annotations

import numpy as np
import numpy.testing as npt
import pytest
import torch

from napari_sam_med.sam.mask_upsampling import upsample_above
from napari_sam_med.sam.square import SquareFit, upsample_logits


@pytest.mark.parametrize("size", [(100, 200), (512, 512), (61, 37), (7, 5)])
@pytest.mark.parametrize("level", [0.0, -1.0, 9.0])
def test_upsampling_in_part_leaves_out_nothing_above_the_level(size: tuple[int, int], level: float) -> None:
    fit = SquareFit.of(size, (1.0, 1.3), 256, stretch=False)
    random = np.random.default_rng(0)
    for _ in range(4):
        logits = torch.full((2, 64, 64), -5.0)
        (top, left), (height, width) = random.integers(0, 50, 2), random.integers(1, 64, 2)
        blob = logits[:, top : top + height, left : left + width]
        blob += torch.from_numpy(random.normal(4, 4, blob.shape)).float()
        whole = upsample_logits(logits, fit, direct=True)
        part, rows, columns = upsample_above(logits.numpy(), fit, level)
        npt.assert_allclose(part, whole[:, rows, columns].numpy(), atol=1e-4)
        whole[:, rows, columns] = -9.0
        assert not (whole > level + 1e-4).any()


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (200, 2), (3, 3), (1000, 700)])
@pytest.mark.parametrize("cells", [(64, 64), (1, 1), (2, 5)])
@pytest.mark.parametrize("count", [1, 3])
def test_masks_of_odd_sizes_are_those_of_all_logits(
    size: tuple[int, int], cells: tuple[int, int], count: int
) -> None:
    fit = SquareFit.of(size, (1.0, 1.0), 256, stretch=False)
    random = np.random.default_rng(0)
    for share in (0.02, 0.5, 1.0):
        logits = random.normal(-6, 1, (count, *cells)).astype(np.float32)
        logits[random.random(logits.shape) < share] = 6
        logits[random.random(logits.shape) < 0.01] = np.nan
        whole = upsample_logits(torch.from_numpy(logits), fit, direct=True).numpy()
        part, rows, columns = upsample_above(logits, fit, 0.0)
        masks = np.zeros(whole.shape, dtype=bool)
        masks[:, rows, columns] = part > 0
        near = np.abs(whole) < 1e-3
        npt.assert_array_equal(masks & ~near, (whole > 0) & ~near)
