"""Vectors of cells, of the bundled model and of one that is built like SAM."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_sam_med import load_predictor
from napari_sam_med.segmentation.matching.features import CellFeatures, coverage, on_pixels
from napari_sam_med.segmentation.matching.matcher import Matching
from napari_sam_med.segmentation.matching.volume_matching import match_slice
from tests.sam.micro_sam import MICRO_SIDE, build_micro_sam, predictor_over
from tests.segmentation.matching.scenes import disc, example_of, grey_slice, rgb


def test_vectors_cover_the_slice_and_not_the_padding() -> None:
    nano = load_predictor("nano", device="cpu")
    image = rgb(grey_slice([(20.0, 40.0, 8.0)], shape=(64, 128)))
    cells = CellFeatures.of(nano.embed(image), nano)
    assert cells.shape == (32, 64)
    assert cells.vectors.shape[0] == 32 * 64
    assert torch.allclose(cells.vectors.norm(dim=1), torch.ones(32 * 64), atol=1e-5)


def test_cells_of_the_organ_are_closer_to_each_other_than_to_the_rest() -> None:
    nano = load_predictor("nano", device="cpu")
    organ = disc(45, 40, 10)
    cells = CellFeatures.of(nano.embed(rgb(grey_slice([(45.0, 40.0, 10.0)]))), nano)
    inside = coverage(organ, cells.shape) > 0.9
    alike = cells.vectors @ cells.vectors[inside].mean(0)
    assert alike[inside].mean() > alike[~inside].mean() + 0.1


def test_a_model_built_like_sam_is_compared_by_its_one_tensor() -> None:
    predictor = predictor_over(build_micro_sam())
    image = rgb(grey_slice([(45.0, 40.0, 10.0)]))
    cells = CellFeatures.of(predictor.embed(image), predictor)
    side = MICRO_SIDE // 16
    assert cells.shape[1] == side
    assert cells.vectors.shape == (cells.shape[0] * side, 256)
    # random weights find nothing worth having, but every step fits
    for engine in ("similarity", "stitching"):
        found = match_slice(
            image, example_of((45.0, 40.0, 10.0)), predictor, Matching(engine=engine, min_score=0.0, runs=4)
        )
        assert all(one.found.shape == image.shape[:2] for one in found)


def test_coverage_and_its_way_back() -> None:
    mask = np.zeros((8, 12), dtype=bool)
    mask[:4, :6] = True
    covered = coverage(mask, (2, 2))
    assert covered.tolist() == [1.0, 0.0, 0.0, 0.0]
    pixels = on_pixels(covered, (2, 2), (8, 12))
    assert pixels.shape == (8, 12)
    assert pixels[0, 0] == pytest.approx(1.0)
    assert pixels[-1, -1] == pytest.approx(0.0)
