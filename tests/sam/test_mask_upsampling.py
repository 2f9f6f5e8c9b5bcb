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
