"""Carrying together, again and one by one gives the same masks, and a CT is seen in napari."""

from __future__ import annotations

import os
import sys

import numpy as np

from benchmarks.made_up_organs import MadeUpOrgans
from benchmarks.speed_volumes import rows


def test_every_row_comes() -> None:
    """Masks that differ are an error there."""
    found = list(rows("cpu", quick=True))
    has_window = sys.platform != "linux" or "DISPLAY" in os.environ or "WAYLAND_DISPLAY" in os.environ
    assert len(found) == (4 if has_window else 2)
    assert all(row.ours > 0 and row.theirs > 0 for row in found)
    assert "over 10 slices each" in found[0].what


def test_organs_do_not_touch() -> None:
    organs = MadeUpOrgans.of(3, 128)
    truth = organs.truth.astype(int)
    for axis in (1, 2):
        here, beside = np.moveaxis(truth, axis, 0)[:-1], np.moveaxis(truth, axis, 0)[1:]
        assert not ((here > 0) & (beside > 0) & (here != beside)).any()
    assert set(np.unique(truth)) == {0, *organs.labels}
