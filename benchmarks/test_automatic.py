"""The benchmark compares like with like: both generators give the same records."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import automatic
from napari_sam_med.sam.architectures.meta import SamNetwork
from tests.segmentation.automatic.varied_sam import EncodedOnce


@pytest.mark.slow
def test_both_generators_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = automatic.random_network

    def encoding_once(model: str) -> SamNetwork:
        network = plain(model)
        network.image_encoder = EncodedOnce(network.image_encoder)
        return network

    monkeypatch.setattr(automatic, "random_network", encoding_once)
    image = np.random.default_rng(0).integers(0, 255, (96, 128, 3), dtype=np.uint8)
    ours, theirs = automatic.compare("tiny_vit", image, points_per_side=2, repeats=1, believed=0.9)
    assert len(ours) == len(theirs) > 0
    for mine, its in zip(ours, theirs, strict=True):
        assert mine["bbox"] == its["bbox"]
        assert (mine["segmentation"] != its["segmentation"]).mean() < 1e-4
