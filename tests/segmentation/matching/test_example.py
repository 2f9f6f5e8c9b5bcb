"""Examples: what is refused, and how a slice is put into another's frame."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_sam_med.errors import LabelError
from napari_sam_med.segmentation.matching.example import Example, ExampleSlice
from napari_sam_med.volume.slice_view import SliceView
from tests.segmentation.matching.scenes import disc, volume_of_rods


def a_slice(mask: np.ndarray, spacing: tuple[float, float] = (1.0, 1.0)) -> ExampleSlice:
    image = np.repeat((mask * 200).astype(np.uint8)[..., None], 3, axis=2)
    return ExampleSlice(image, mask, spacing)


def test_an_empty_mask_is_refused() -> None:
    with pytest.raises(LabelError, match="shows nothing of the organ; label it"):
        a_slice(np.zeros((8, 8), dtype=bool))


def test_a_mask_of_another_shape_is_refused() -> None:
    with pytest.raises(LabelError, match=r"\(4, 4\).*\(8, 8\)"):
        ExampleSlice(np.zeros((8, 8, 3), dtype=np.uint8), np.ones((4, 4), dtype=bool))


def test_an_example_needs_a_slice() -> None:
    with pytest.raises(LabelError, match="no labelled slice"):
        Example(())


@given(
    shape=st.tuples(st.integers(20, 60), st.integers(20, 60)),
    scale=st.sampled_from([0.5, 1.0, 2.0]),
    place=st.tuples(st.integers(3, 36), st.integers(3, 36)),
)
def test_a_framed_example_has_the_extent_asked_for_and_its_whole_organ(
    shape: tuple[int, int], scale: float, place: tuple[int, int]
) -> None:
    one = a_slice(disc(*place, 3, (40, 40)))
    framed = one.framed(shape, (scale, scale))
    assert framed.mask.shape == tuple(round(side * scale) for side in shape)
    if min(framed.mask.shape) >= 7:
        assert framed.area_mm2 == one.area_mm2
        assert np.array_equal(framed.image[..., 0] > 100, framed.mask)


def test_an_example_of_the_same_extent_stays_as_it_is() -> None:
    one = a_slice(disc(20, 20, 5, (40, 40)), (2.0, 1.0))
    assert one.framed((80, 40), (1.0, 1.0)) is one


def test_the_best_slice_shows_most_and_another_may_be_chosen() -> None:
    volume = volume_of_rods([(40, 50, 8)])
    labels = np.zeros(volume.shape, dtype=np.uint8)
    for z, radius in ((2, 5), (4, 9), (6, 3)):
        labels[z][disc(40, 50, radius)] = 7
    best = Example.of_labels(volume, labels, 7)
    assert best.slices[0].view == SliceView("axial", 4)
    assert best.volume is volume
    assert Example.of_labels(volume, labels, 7, index=6).slices[0].view == SliceView("axial", 6)


def test_what_is_not_labelled_is_refused_with_what_is() -> None:
    volume = volume_of_rods([(40, 50, 8)])
    labels = np.zeros(volume.shape, dtype=np.uint8)
    labels[2:5, 40, 50] = 7
    with pytest.raises(LabelError, match="Label 3 has no voxel"):
        Example.of_labels(volume, labels, 3)
    with pytest.raises(LabelError, match=r"slice 6 .* take one of 2 to 4"):
        Example.of_labels(volume, labels, 7, index=6)
    with pytest.raises(LabelError, match="own grid"):
        Example.of_labels(volume, labels[1:], 7)
