"""Overlap and outlines against MONAI, scikit-image, scikit-learn and SimpleITK, and by hand."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import SimpleITK
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.metrics.hausdorff_distance import compute_hausdorff_distance
from monai.metrics.meandice import compute_dice
from monai.metrics.meaniou import compute_iou
from monai.metrics.surface_dice import compute_surface_dice
from scipy import ndimage
from skimage.metrics import hausdorff_distance
from sklearn.metrics import f1_score, jaccard_score

from napari_sam_med.evaluation.metrics import dice_and_iou
from napari_sam_med.evaluation.surface_metrics import NSD_TOLERANCE_MM, TrueOutline

Mask = npt.NDArray[np.bool_]
EXACT = 1e-6


def _blobs(seed: int, *, share: float = 0.3) -> Mask:
    """A random mask (40, 50) of smooth pieces, some of which touch the border of the image."""
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=(40, 50)), 3)
    mask: Mask = noise > np.quantile(noise, 1 - share)
    return mask


def _batch(mask: Mask) -> torch.Tensor:
    return torch.from_numpy(np.pad(mask, 1)[None, None])


def _monai(function: Any, found: Mask, truth: Mask, **options: Any) -> float:
    with warnings.catch_warnings():
        # MONAI 1.6 calls a function of its own by an argument that it has itself deprecated
        warnings.filterwarnings("ignore", ".*always_return_as_numpy", FutureWarning)
        return float(function(_batch(found), _batch(truth), include_background=True, **options))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.3, 3), st.floats(0.3, 3), st.floats(0.05, 0.6))
def test_outlines_agree_with_monai(seed: int, row: float, column: float, share: float) -> None:
    found, truth = _blobs(seed, share=share), _blobs(seed + 1)
    nsd, hd95 = TrueOutline(truth, (row, column)).score(found)
    # a distance that equals the tolerance but for rounding may fall on either side
    spacing = {"spacing": (row, column)}
    limits = [
        _monai(compute_surface_dice, found, truth, class_thresholds=[NSD_TOLERANCE_MM + d], **spacing)
        for d in (-EXACT, EXACT)
    ]
    assert limits[0] - EXACT <= nsd <= limits[1] + EXACT
    assert hd95 == pytest.approx(
        _monai(compute_hausdorff_distance, found, truth, percentile=95, **spacing), abs=EXACT, rel=EXACT
    )


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.01, 0.9))
def test_overlap_agrees_with_four_libraries(seed: int, share: float) -> None:
    found, truth = _blobs(seed, share=share), _blobs(seed + 1)
    dice, iou = dice_and_iou(found, truth)
    assert dice == pytest.approx(_monai(compute_dice, found, truth), abs=EXACT)
    assert iou == pytest.approx(_monai(compute_iou, found, truth), abs=EXACT)
    assert dice == pytest.approx(f1_score(truth.ravel(), found.ravel()), abs=EXACT)
    assert iou == pytest.approx(jaccard_score(truth.ravel(), found.ravel()), abs=EXACT)
    overlap = SimpleITK.LabelOverlapMeasuresImageFilter()
    overlap.Execute(*(SimpleITK.GetImageFromArray(mask.astype(np.uint8)) for mask in (truth, found)))
    assert dice == pytest.approx(overlap.GetDiceCoefficient(), abs=EXACT)
    assert iou == pytest.approx(overlap.GetJaccardCoefficient(), abs=EXACT)


@pytest.mark.parametrize("seed", range(8))
def test_the_largest_distance_agrees_with_scikit_image_and_simpleitk(seed: int) -> None:
    # both know the Hausdorff distance itself, which is the percentile 100, of whole masks in pixels and mm
    found, truth = _blobs(seed), np.roll(_blobs(seed), 5, axis=1)
    truth[:, :5] = False
    outlines = [mask & ~ndimage.binary_erosion(mask) for mask in (found, truth)]
    expected = hausdorff_distance(*outlines)
    monai = _monai(compute_hausdorff_distance, found, truth)
    assert monai == pytest.approx(expected, abs=EXACT)
    itk = SimpleITK.HausdorffDistanceImageFilter()
    itk.Execute(*(SimpleITK.GetImageFromArray(mask.astype(np.uint8)) for mask in outlines))
    assert itk.GetHausdorffDistance() == pytest.approx(expected, abs=EXACT)
    _, hd95 = TrueOutline(truth, (1.0, 1.0)).score(found)
    assert hd95 is not None
    assert hd95 <= expected + EXACT


def test_a_shifted_square_by_hand() -> None:
    truth = np.zeros((20, 20), bool)
    truth[5:10, 5:10] = True
    found = np.roll(truth, 3, axis=1)
    # rows 5 and 9 overlap in columns 8 and 9; sides lie 3 columns of 1 mm apart
    nsd, hd95 = TrueOutline(truth, (2.0, 1.0)).score(found)
    assert hd95 == pytest.approx(3.0)
    # of 16 pixels each: all but the far side of 5 lie within 2 mm of the other outline
    assert nsd == pytest.approx(22 / 32)
    assert TrueOutline(truth, (2.0, 1.0)).score(truth) == (1.0, 0.0)


def test_empty_masks_have_no_distance() -> None:
    empty, block = np.zeros((9, 9), bool), np.ones((9, 9), bool)
    assert TrueOutline(empty, (1, 1)).score(empty) == (1.0, 0.0)
    assert TrueOutline(block, (1, 1)).score(empty) == (0.0, None)
    assert TrueOutline(empty, (1, 1)).score(block) == (0.0, None)
