"""Shared by all tests: user folders of their own, and small volumes."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from napari_sam_med.volume.grid import Grid
from napari_sam_med.volume.volume import Volume


@pytest.fixture(autouse=True)
def user_folders(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Models, cache and settings of a test are its own, never the developer's."""
    home = tmp_path_factory.mktemp("sam_med_home")
    monkeypatch.setenv("NAPARI_SAM_MED_HOME", os.fspath(home))
    return home


@pytest.fixture
def make_volume() -> Callable[..., Volume]:
    """Volumes of bright boxes on noise, in Hounsfield-like values."""

    def make(
        shape: tuple[int, int, int] = (8, 24, 32), spacing: tuple[float, float, float] = (4.0, 1.5, 1.0)
    ) -> Volume:
        rng = np.random.default_rng(0)
        data = rng.normal(-100, 20, shape).astype(np.int16)
        z, y, x = shape
        data[1 : z - 1, y // 4 : y // 2, x // 4 : x // 2] += 250
        data[0, 0, 0] = -1000
        return Volume(data=data, grid=Grid.from_zyx(shape, spacing))

    return make


@pytest.fixture
def volume(make_volume: Callable[..., Volume]) -> Volume:
    """A small volume."""
    return make_volume()
