"""What is measured of a mask: place in the body, size in millimetres, brightness, side."""

from __future__ import annotations

import numpy as np
import pytest

from napari_sam_med.sam.predictor import Predictor, load_predictor
from napari_sam_med.segmentation.organ_features import (
    GEOMETRY,
    ScanFrame,
    SliceObjects,
    body_of,
    geometry_of,
    pooled_embedding,
)
from napari_sam_med.volume.grid import Grid
from napari_sam_med.volume.slice_view import SliceView
from napari_sam_med.volume.volume import Volume

BODY = (slice(20, 100), slice(30, 130))


def _scan(step: int = 1, offset: int = 0, scale: float = 1.0) -> tuple[Volume, np.ndarray]:
    """A body 80 x 100 mm with an organ of 120 HU at its upper left in the picture, and a couch below."""
    pixels = np.full((120, 160), -1000.0)
    pixels[BODY] = 20
    pixels[108:110, 20:140] = 0
    organ = np.zeros(pixels.shape, dtype=bool)
    organ[40:60, 40 + offset : 60 + offset] = True
    pixels[organ] = 120
    pixels, organ = (np.repeat(np.repeat(a, step, 0), step, 1) for a in (pixels, organ))
    data = np.broadcast_to(scale * pixels, (3, *pixels.shape)).astype(np.int16)
    return Volume(data, Grid.from_zyx(data.shape, (5.0, 1 / step, 1 / step))), organ[None]


def _named(volume: Volume, masks: np.ndarray) -> dict[str, float]:
    row = geometry_of(volume.data[1], masks, ScanFrame.of(volume), 1)[0]
    return dict(zip(GEOMETRY, row.tolist(), strict=True))


def test_the_body_is_found_without_the_couch() -> None:
    volume, _ = _scan()
    body = body_of(volume.data[1], ScanFrame.of(volume))
    assert body.box == (30, 20, 129, 99)


def test_a_body_that_the_field_of_view_cuts_reaches_the_border() -> None:
    volume, _ = _scan()
    cut = volume.data[1][:, 60:]
    assert body_of(cut, ScanFrame.of(volume)).box == (0, 20, 69, 99)


def test_a_slice_without_a_body_is_taken_whole() -> None:
    volume, _ = _scan()
    assert body_of(np.full((9, 7), -1000), ScanFrame.of(volume)).box == (0, 0, 6, 8)


def test_place_size_and_brightness() -> None:
    found = _named(*_scan())
    assert found["centre_x"] == pytest.approx(0.2, abs=0.01)
    assert found["centre_y"] == pytest.approx(0.375, abs=0.01)
    assert found["log_area"] == pytest.approx(np.log(400) - 6.5, abs=1e-4)
    assert found["z_fraction"] == pytest.approx(0.5)
    assert found["mean"] == pytest.approx(0.8)
    assert found["ring_mean"] == pytest.approx(-0.2)
    assert found["filled_share"] == pytest.approx(1)
    assert found["hounsfield"] == 1


def test_a_finer_grid_gives_the_same_numbers() -> None:
    coarse, fine = _named(*_scan()), _named(*_scan(step=2))
    for name in set(GEOMETRY) - {"pixel_spacing", "compactness", "eccentricity"}:
        assert fine[name] == pytest.approx(coarse[name], abs=0.03), name


def test_left_and_right_are_told_apart() -> None:
    right, left = _named(*_scan()), _named(*_scan(offset=60))
    assert right["centre_x"] == pytest.approx(1 - left["centre_x"], abs=0.01)
    assert right["centre_x"] < 0.5 < left["centre_x"]


def test_one_pixel_and_scattered_pixels_have_finite_features() -> None:
    volume, _ = _scan()
    masks = np.zeros((2, 120, 160), dtype=bool)
    masks[0, 0, 0] = True
    masks[1, ::17, ::13] = True
    assert np.isfinite(geometry_of(volume.data[1], masks, ScanFrame.of(volume), 0)).all()


@pytest.fixture(scope="module")
def nano() -> Predictor:
    return load_predictor("nano", device="cpu")


def test_pooling_looks_where_the_mask_is(nano: Predictor) -> None:
    volume, organ = _scan()
    both = np.concatenate([organ, np.roll(organ, 60, axis=2)])
    objects = SliceObjects(volume, ScanFrame.of(volume), SliceView("axial", 1), both, nano)
    pooled = objects.pooled
    channels = pooled.shape[1] // 3
    assert pooled.shape == (2, 3 * 48)
    assert np.abs(pooled[0, :channels] - pooled[1, :channels]).max() > 0.1
    np.testing.assert_array_equal(pooled[0, 2 * channels :], pooled[1, 2 * channels :])
    alone = pooled_embedding(objects.embedding, both[:1], nano.network.input_size)
    np.testing.assert_allclose(alone[0], pooled[0], atol=1e-6)


def test_tokens_and_qualities_come_from_the_model(nano: Predictor) -> None:
    volume, organ = _scan()
    objects = SliceObjects(volume, ScanFrame.of(volume), SliceView("axial", 1), organ, nano)
    assert objects.tokens.shape == (1, 289)
    assert 0.5 < objects.qualities[0] <= 1
    assert objects.areas_mm2[0] == pytest.approx(400)


def test_voxels_without_a_value_do_no_harm() -> None:
    volume, organ = _scan()
    data = volume.data.astype(np.float32)
    data[1, 45:50], data[1, 100:], data[1, :5] = np.nan, np.inf, -np.inf
    damaged = Volume(data, volume.grid)
    with np.errstate(all="raise"):
        row = geometry_of(data[1], organ, ScanFrame.of(damaged), 1)
    assert np.isfinite(row).all()
