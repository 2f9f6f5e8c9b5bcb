"""Volumes for propagation."""

from __future__ import annotations

import numpy as np
import pytest

from tests.segmentation.threshold_model import volume_of


@pytest.fixture
def rod():
    """A bright rod 10 x 12 pixels wide in slices 4 to 15 of 20, drifting one pixel a slice to the right."""
    data = np.zeros((20, 32, 32), dtype=np.uint8)
    for z in range(4, 16):
        data[z, 8:18, 4 + z // 2 : 16 + z // 2] = 200
    return volume_of(data)
