"""Slices: which pixel is which voxel."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_sam_med import SliceView
from napari_sam_med.errors import ImageError
from napari_sam_med.volume.slice_view import PLANES
from tests.volume.phantoms import shapes

views = st.builds(SliceView, st.sampled_from(PLANES), st.integers(0, 50))


def _numbered(shape: tuple[int, int, int]) -> np.ndarray:
    return np.arange(np.prod(shape)).reshape(shape)


@given(shapes, st.sampled_from(PLANES), st.data())
@settings(max_examples=80, deadline=None)
def test_each_pixel_is_the_voxel_that_index_zyx_names_and_insert_undoes_extract(shape, plane, data) -> None:
    volume = _numbered(shape)
    axis = PLANES.index(plane)
    view = SliceView(plane, data.draw(st.integers(0, shape[axis] - 1)))
    image = view.extract(volume)
    assert image.shape == view.slice_shape(shape)
    for y, x in np.ndindex(image.shape):
        index = view.index_zyx((x, y), shape)
        assert image[y, x] == volume[tuple(int(i) for i in index)]
        assert view.pixel_xy(index, shape) == (x, y)
        assert SliceView.containing(plane, index) == view
    copy = np.zeros_like(volume)
    view.insert(copy, image)
    assert np.array_equal(view.extract(copy), image)
    assert np.count_nonzero(copy) <= image.size


def test_superior_is_up_and_the_patients_right_is_on_the_left() -> None:
    volume = np.zeros((4, 5, 6))  # z to superior, y to posterior, x to left
    volume[3, 0, 0] = 1  # most superior, anterior, right
    assert SliceView("axial", 3).extract(volume)[0, 0] == 1
    assert SliceView("coronal", 0).extract(volume)[0, 0] == 1
    assert SliceView("sagittal", 0).extract(volume)[0, 0] == 1


def test_extract_copies_so_that_a_slice_can_be_changed() -> None:
    volume = np.zeros((3, 3, 3))
    SliceView("axial", 0).extract(volume)[...] = 1
    assert not volume.any()


@given(views)
def test_views_are_keys(view: SliceView) -> None:
    assert {view: 1}[SliceView(view.plane, np.int32(view.index))] == 1


@pytest.mark.parametrize(("plane", "index"), [("oblique", 0), ("axial", -1), ("axial", 1.5), ("axial", "3")])
def test_views_that_do_not_exist_are_refused(plane, index) -> None:
    with pytest.raises(ImageError):
        SliceView(plane, index)


def test_a_slice_beyond_the_volume_is_refused_with_the_range() -> None:
    with pytest.raises(ImageError, match="0 to 2"):
        SliceView("axial", 3).extract(np.zeros((3, 4, 5)))
    with pytest.raises(ImageError, match="H, W"):
        SliceView("axial", 0).insert(np.zeros((3, 4, 5)), np.zeros((5, 4)))


@pytest.mark.parametrize("plane", PLANES)
@pytest.mark.parametrize("other", PLANES)
def test_crossing_slices_show_the_same_voxels_on_their_line(plane, other):
    data = np.random.default_rng(0).integers(0, 1000, (5, 6, 7))
    a, b = SliceView(plane, 3), SliceView(other, 2)
    if plane == other:
        with pytest.raises(ImageError, match="do not cross"):
            a.line_of(b, data.shape)
        return
    line = a.extract(data)[a.line_of(b, data.shape)]
    assert np.array_equal(line, b.extract(data)[b.line_of(a, data.shape)])
    axis = 3 - a.axis - b.axis
    assert line.shape == (data.shape[axis],)
