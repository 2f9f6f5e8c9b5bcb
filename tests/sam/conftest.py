"""Fixtures of the tests of `napari_sam_med.sam`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from segment_anything import SamPredictor

from napari_sam_med.sam.predictor import Predictor, load_predictor
from tests.sam.micro_sam import build_micro_sam, predictor_over


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Small networks on shared cores lose more by waiting for a second thread than they win."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def micro_pair() -> tuple[Predictor, SamPredictor]:
    """Our predictor and Meta's over the same modules."""
    sam = build_micro_sam()
    return predictor_over(sam), SamPredictor(sam)


@pytest.fixture(scope="session")
def micro(micro_pair: tuple[Predictor, SamPredictor]) -> Predictor:
    return micro_pair[0]


@pytest.fixture(scope="session")
def nano() -> Predictor:
    return load_predictor("nano", device="cpu")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty place for models and caches, instead of the user's own."""
    monkeypatch.setenv("NAPARI_SAM_MED_HOME", str(tmp_path / "home"))
    return tmp_path / "home"
