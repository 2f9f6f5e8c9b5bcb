"""Window and level."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_sam_med import SliceView, Volume, to_rgb
from napari_sam_med.errors import ImageError
from napari_sam_med.volume import intensity
from napari_sam_med.volume.grid import Grid
from napari_sam_med.volume.intensity import WINDOW_PRESETS, contrast_warning, parse_window, resolve_window

AXIAL = SliceView("axial", 0)


def _volume(data: np.ndarray) -> Volume:
    return Volume(data, Grid.from_zyx(data.shape))


def _mr(dtype: type = np.int16, shape: tuple[int, int, int] = (6, 20, 30)) -> np.ndarray:
    data = np.random.default_rng(0).normal(300, 100, shape).clip(0, 4000)
    data[:, :5] = 0
    return data.astype(dtype)


def test_auto_is_soft_tissue_for_hounsfield_units() -> None:
    volume = _volume(np.array([[[-1000, 0, 500]]], dtype=np.int16))
    assert volume.is_hounsfield
    assert resolve_window(volume) == (-160.0, 240.0) == WINDOW_PRESETS["soft-tissue"]
    assert resolve_window(volume, "lung") == WINDOW_PRESETS["lung"]
    assert to_rgb(volume, AXIAL)[0, :, 0].tolist() == [0, 102, 255]


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32, np.int64, np.float32, np.float64])
def test_auto_is_the_percentiles_above_the_background_otherwise(dtype) -> None:
    data = _mr(dtype) if dtype is not np.uint8 else _mr().clip(0, 255).astype(np.uint8)
    expected = np.percentile(data[data > data.min()].astype(float), (0.5, 99.5))
    assert resolve_window(_volume(data)) == pytest.approx(tuple(expected), rel=1e-6)


@given(st.lists(st.integers(-50, 50), min_size=1, max_size=60))
@settings(max_examples=100, deadline=None)
def test_counted_percentiles_equal_numpys(values: list[int]) -> None:
    data = np.array(values, dtype=np.int16).reshape(1, 1, -1)
    low, high = resolve_window(_volume(data))
    above = data[data > data.min()]
    if above.size and np.ptp(np.percentile(above, (0.5, 99.5))):
        assert (low, high) == pytest.approx(tuple(np.percentile(above, (0.5, 99.5))))
    else:
        assert low < high


def test_large_volumes_are_thinned_and_always_alike(monkeypatch) -> None:
    data = _mr(np.float32, (4, 60, 70))
    exact = resolve_window(_volume(data))
    monkeypatch.setattr(intensity, "_MOST_SORTED_VALUES", 2000)
    thinned = resolve_window(_volume(data))
    assert thinned == resolve_window(_volume(data.copy()))
    assert thinned == pytest.approx(exact, rel=0.2)


@pytest.mark.parametrize("fill", [np.nan, 7.0, np.inf])
def test_volumes_without_contrast_are_shown_without_a_division_by_zero(fill: float) -> None:
    """Statement 33."""
    image = to_rgb(_volume(np.full((2, 3, 4), fill, dtype=np.float32)), AXIAL)
    assert image.shape == (3, 4, 3)
    assert image.dtype == np.uint8


@pytest.mark.parametrize(
    ("fill", "says"),
    [
        (np.nan, "has no number in any voxel"),
        (np.inf, "has no number in any voxel"),
        (7.0, "has the value 7 in every voxel"),
        (-1024.0, "has the value -1024 in every voxel"),
    ],
)
def test_a_volume_without_contrast_is_told_of(fill: float, says: str) -> None:
    array = np.full((2, 3, 4), fill, dtype=np.float32)
    assert says in contrast_warning(_volume(array))
    array[1, 2, 3] = 3.0
    assert bool(contrast_warning(_volume(array))) == (not np.isfinite(fill)), "one number is one value"
    array[1, 2, 2] = 4.0
    assert contrast_warning(_volume(array)) == ""


def test_nan_is_low_and_infinity_is_ignored_by_the_statistics() -> None:
    data = _mr(np.float32)
    clean = resolve_window(_volume(data))
    data[0, 10, :4] = [np.nan, np.inf, -np.inf, 1e6]
    image = to_rgb(_volume(data), AXIAL)
    assert image[10, :4, 0].tolist() == [0, 255, 0, 255]
    assert resolve_window(_volume(data))[1] == pytest.approx(clean[1], rel=0.1)


def test_the_window_is_of_the_volume_not_of_the_slice() -> None:
    data = np.zeros((2, 4, 4), dtype=np.uint8)
    data[0], data[1] = 10, 200
    data[0, 0, 0] = 0
    volume = _volume(data)
    assert to_rgb(volume, SliceView("axial", 0)).max() < 5
    assert to_rgb(volume, SliceView("axial", 1)).min() == 255


def test_presets_are_refused_where_values_cannot_be_hounsfield_units() -> None:
    volume = _volume(_mr(np.uint16))
    with pytest.raises(ImageError, match="Hounsfield"):
        resolve_window(volume, "liver")
    assert resolve_window(volume, (10, 20)) == (10.0, 20.0)


def test_presets_fit_scans_that_were_clipped_above_air() -> None:
    clipped = np.clip(np.random.default_rng(0).normal(0, 200, (4, 5, 6)), -175, 250)
    assert resolve_window(_volume(clipped.astype(np.int16)), "liver") == WINDOW_PRESETS["liver"]


def test_windows_as_typed() -> None:
    assert parse_window("Lung") == "lung"
    assert parse_window("-160,240") == (-160.0, 240.0)
    assert parse_window(" auto ") == "auto"
    for text in ("", "1", "1,2,3", "240,-160", "nan,3", "spleen", "5,5"):
        with pytest.raises(ImageError):
            parse_window(text)
    with pytest.raises(ImageError):
        resolve_window(_volume(_mr()), (3, 2))
    with pytest.raises(ImageError):
        resolve_window(_volume(_mr()), (1, 2, 3))  # type: ignore[arg-type]


def test_slices_come_out_of_array_likes() -> None:
    array = pytest.importorskip("dask.array").from_array(_mr(), chunks=5)
    lazy, plain = _volume(array), _volume(_mr())
    view = SliceView("coronal", 9)
    assert np.array_equal(to_rgb(lazy, view), to_rgb(plain, view))
