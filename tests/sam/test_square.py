"""The square that the network sees: physically square pixels, and Meta's own resize for equal spacing."""

from __future__ import annotations

import numpy as np
import numpy.testing as npt
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from segment_anything.utils.transforms import ResizeLongestSide

from napari_sam_med.sam.square import SquareFit, normalised_square, upsample_logits
from tests.sam.micro_sam import random_image

CPU = torch.device("cpu")
sides = st.integers(1, 2000)
millimetres = st.floats(0.05, 20, allow_nan=False)


@given(sides, sides, millimetres)
def test_equal_spacing_is_sams_own_size(height: int, width: int, spacing: float) -> None:
    fit = SquareFit.of((height, width), (spacing, spacing), 1024, stretch=False)
    expected = ResizeLongestSide.get_preprocess_shape(height, width, 1024)
    assert fit.resized_size == tuple(max(1, side) for side in expected)


@given(sides, sides, millimetres, millimetres)
def test_square_is_filled_along_the_longer_physical_side(
    height: int, width: int, row: float, column: float
) -> None:
    fit = SquareFit.of((height, width), (row, column), 256, stretch=False)
    assert max(fit.resized_size) == 256
    if min(fit.resized_size) > 1:
        ratio = (height * row) / (width * column)
        assert abs(fit.resized_size[0] - fit.resized_size[1] * ratio) <= 0.5 * (1 + ratio) + 1e-6


@given(sides, sides, millimetres, millimetres)
def test_corners_go_to_corners(height: int, width: int, row: float, column: float) -> None:
    fit = SquareFit.of((height, width), (row, column), 1024, stretch=False)
    corner = fit.to_square(np.array([[0, 0], [width, height]]))
    npt.assert_allclose(corner, [(0, 0), fit.resized_size[::-1]], rtol=1e-6)
    assert corner.dtype == np.float32


@pytest.mark.parametrize("size", [(512, 512), (300, 420), (1024, 700), (2000, 40)], ids=str)
def test_prompts_are_scaled_as_meta_scales_them(size: tuple[int, int]) -> None:
    points = np.random.default_rng(0).uniform(0, 40, (20, 2)).astype(np.float32)
    expected = ResizeLongestSide(1024).apply_coords(points, size).astype(np.float32)
    npt.assert_array_equal(SquareFit.of(size, (1, 1), 1024, stretch=False).to_square(points), expected)


@pytest.mark.parametrize("size", [(512, 512), (300, 420), (1500, 1400), (1024, 1024)], ids=str)
def test_pixels_are_metas(size: tuple[int, int]) -> None:
    image = random_image(*size)
    fit = SquareFit.of(size, (1, 1), 1024, stretch=False)
    square = normalised_square(image, fit, "sam", CPU)
    resized = torch.from_numpy(ResizeLongestSide(1024).apply_image(image)).permute(2, 0, 1)
    mean = torch.tensor([123.675, 116.28, 103.53]).view(3, 1, 1)
    std = torch.tensor([58.395, 57.12, 57.375]).view(3, 1, 1)
    height, width = fit.resized_size
    npt.assert_array_equal(square[:, :height, :width], (resized - mean) / std)
    assert not square[:, height:].any()
    assert not square[:, :, width:].any()


@pytest.mark.parametrize("preprocessing", ["sam", "nano"])
def test_a_disc_looks_the_same_at_any_spacing(preprocessing: str) -> None:
    """Statement 30: a disc at spacing 1 x 1 and at 1 x 4 gives the same input, up to a pixel of the image."""
    extents = []
    for row, column in ((1.0, 1.0), (1.0, 4.0), (4.0, 1.0)):
        rows, columns = np.mgrid[: int(400 / row), : int(400 / column)]
        inside = (rows * row - 200) ** 2 + (columns * column - 160) ** 2 < 80**2
        image = np.where(inside[..., None], 200, 0).astype(np.uint8).repeat(3, axis=2)
        fit = SquareFit.of(image.shape[:2], (row, column), 1024, stretch=False)
        assert fit.resized_size == (1024, 1024)
        square = normalised_square(image, fit, preprocessing, CPU)[0].numpy()
        bright = square > (square.max() + square.min()) / 2
        extents.append([*np.flatnonzero(bright.any(1))[[0, -1]], *np.flatnonzero(bright.any(0))[[0, -1]]])
    pixel = 4 * 1024 / 400  # of the coarsest image
    assert np.ptp(extents, axis=0).max() <= pixel


def test_nano_values_are_0_to_1_padded_with_0() -> None:
    image = np.full((40, 80, 3), 255, np.uint8)
    square = normalised_square(image, SquareFit.of((40, 80), (1, 1), 256, stretch=False), "nano", CPU)
    assert square.shape == (3, 256, 256)
    npt.assert_array_equal(square[:, :128], torch.ones(3, 128, 256))
    npt.assert_array_equal(square[:, 128:], torch.zeros(3, 128, 256))


def test_medsam_stretches_and_scales_to_0_to_1() -> None:
    from skimage.transform import resize

    grey = random_image(300, 420)[..., :1].repeat(3, axis=2) // 2 + 20
    fit = SquareFit.of((300, 420), (3.0, 1.0), 1024, stretch=True)
    assert fit.resized_size == (1024, 1024)
    npt.assert_allclose(fit.to_square(np.array([210, 150])), (512, 512))
    square = normalised_square(grey, fit, "medsam", CPU)
    assert float(square.min()) == 0.0
    assert float(square.max()) == 1.0
    # MedSAM's own inference script
    theirs = resize(grey, (1024, 1024), order=3, preserve_range=True, anti_aliasing=True).astype(np.uint8)
    theirs = (theirs - theirs.min()) / np.clip(theirs.max() - theirs.min(), a_min=1e-8, a_max=None)
    npt.assert_allclose(square.permute(1, 2, 0).numpy(), theirs, atol=1e-6)


@pytest.mark.parametrize("direct", [True, False])
def test_upsampling_puts_a_blob_where_it_was(direct: bool) -> None:
    fit = SquareFit.of((100, 200), (1.0, 1.0), 256, stretch=False)
    logits = torch.full((1, 1, 64, 64), -5.0)
    logits[..., 8:16, 20:40] = 5.0  # rows 32..64 of 256, columns 80..160: in the image 25..50 and 62.5..125
    mask = (upsample_logits(logits, fit, direct=direct)[0, 0] > 0).numpy()
    assert mask.shape == (100, 200)
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    npt.assert_allclose((rows[0], rows[-1] + 1), (25, 50), atol=1)
    npt.assert_allclose((columns[0], columns[-1] + 1), (62.5, 125), atol=1)
