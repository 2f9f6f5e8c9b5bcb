"""What of a scan is air."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_sam_med.errors import ImageError
from napari_sam_med.sample_data import sample_labels, sample_volume
from napari_sam_med.segmentation.body import is_air
from napari_sam_med.volume.grid import Grid
from napari_sam_med.volume.reading import read_labels, read_volume
from napari_sam_med.volume.slice_view import PLANES, SliceView
from napari_sam_med.volume.volume import Volume

SPACING = (5.0, 1.0, 0.8)


def scan(data: np.ndarray, hounsfield: bool = True) -> Volume:
    """A volume; without Hounsfield units its values count from 0."""
    values = data if hounsfield else (data + 1000).clip(0).astype(np.uint16)
    return Volume(values, Grid.from_zyx(data.shape, SPACING))


def noisy_air(shape: tuple[int, int, int]) -> np.ndarray:
    """Air, and a couch of 3 mm."""
    data = np.random.default_rng(3).normal(-1000, 20, shape).astype(np.int16)
    data[:, -8:-5, :] = 80
    return data


@pytest.mark.parametrize("hounsfield", [True, False])
@given(
    z=st.integers(0, 3),
    top=st.integers(0, 30),
    left=st.integers(0, 30),
    side_mm=st.floats(8.0, 25.0),
)
def test_a_slice_is_air_but_for_what_is_thicker_than_a_couch_top(hounsfield, z, top, left, side_mm):
    data = noisy_air((4, 60, 64))
    body = np.s_[z, top : top + round(side_mm / 1.0), left : left + round(side_mm / 0.8)]
    data[body] = 40
    volume = scan(data, hounsfield)
    assert [is_air(volume, SliceView("axial", i)) for i in range(4)] == [i != z for i in range(4)]


def test_thick_slices_do_not_make_tissue_thin():
    data = noisy_air((6, 60, 64))[:, ::-1].copy()  # the couch is cut by no coronal slice of those below
    data[2, 20:40, 20:40] = 40  # one slice of 5 mm
    volume = scan(data)
    for plane, inside, outside in (("coronal", 30, 50), ("sagittal", 30, None)):
        assert not is_air(volume, SliceView(plane, inside))
        assert outside is None or is_air(volume, SliceView(plane, outside))


def test_a_window_that_shows_lungs_makes_them_something_to_see():
    data = noisy_air((2, 40, 40))
    data[0, 5:30, 5:30] = -820
    volume, view = scan(data), SliceView("axial", 0)
    assert is_air(volume, view)
    assert is_air(volume, view, "bone")
    assert not is_air(volume, view, "lung")
    assert is_air(volume, SliceView("axial", 1), "lung")


def test_what_a_darker_window_shows_of_an_mr_scan_is_not_air():
    data = np.zeros((2, 40, 40), dtype=np.uint16)
    data[0, 5:30, 5:30] = 40
    data[1, 5:30, 5:30] = np.linspace(500, 1500, 625).reshape(25, 25)
    volume, view = Volume(data, Grid.from_zyx(data.shape)), SliceView("axial", 0)
    assert is_air(volume, view, (100, 1500))
    assert not is_air(volume, view, (0, 100))


def test_nothing_but_missing_values_is_air_and_a_missing_slice_is_refused():
    volume = Volume(np.full((2, 9, 9), np.nan, dtype=np.float32), Grid.from_zyx((2, 9, 9)))
    assert is_air(volume, SliceView("axial", 1))
    with pytest.raises(ImageError, match="does not exist"):
        is_air(volume, SliceView("axial", 2))


def test_no_slice_of_the_sample_with_an_organ_is_air():
    volume = read_volume(sample_volume())
    organs = read_labels(sample_labels(), reference=volume).data > 0
    for plane in PLANES:
        views = [SliceView(plane, i) for i in range(volume.shape[PLANES.index(plane)])]
        assert not any(is_air(volume, view) for view in views if view.window_on(organs).any())
