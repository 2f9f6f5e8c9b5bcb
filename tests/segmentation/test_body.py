"""What of a scan is air, and what a model sees that is shown the body alone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_sam_med.errors import ImageError
from napari_sam_med.sam.embedding_store import EmbeddingStore
from napari_sam_med.sam.predictor import Predictor, load_predictor
from napari_sam_med.sam.prompts import Prompts
from napari_sam_med.sample_data import sample_labels, sample_volume
from napari_sam_med.segmentation.body import BodyBox, is_air
from napari_sam_med.segmentation.from_prompts import segment_from_prompts
from napari_sam_med.segmentation.prompts_file import PromptObject
from napari_sam_med.segmentation.propagation import propagate
from napari_sam_med.segmentation.propagation_cache import PropagationCache
from napari_sam_med.segmentation.slicewise import box_of_mask, embed_slice, predict_slice
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
@settings(max_examples=50, deadline=None)
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


def ellipsoid(shape, centre, radii):
    """Voxels (z, y, x) within an ellipsoid, all in voxels."""
    axes = np.ogrid[tuple(slice(n) for n in shape)]
    return sum(((a - c) / r) ** 2 for a, c, r in zip(axes, centre, radii, strict=True)) <= 1


@pytest.fixture(scope="module")
def nano() -> Predictor:
    return load_predictor("nano", device="cpu")


@pytest.fixture(scope="module")
def wide() -> tuple[Volume, np.ndarray]:
    """A body with one organ, above a couch, in a field of view that is twice as wide; and the organ."""
    shape = (9, 128, 128)
    data = np.random.default_rng(1).normal(-1000, 15, shape)
    data[:, 100:102, 20:110] = 100
    data[ellipsoid(shape, (4, 60, 70), (99, 26, 30))] = -80
    organ = ellipsoid(shape, (4, 56, 60), (4, 9, 12))
    data[organ] = 120
    data += np.random.default_rng(2).normal(0, 8, shape)
    return Volume(data.astype(np.int16), Grid.from_zyx(shape, (3.0, 2.5, 2.5))), organ


@settings(max_examples=30, deadline=None)
@given(
    centre=st.tuples(*(st.integers(0, n - 1) for n in (12, 50, 60))),
    radii_mm=st.tuples(st.floats(15, 60), st.floats(30, 60), st.floats(30, 60)),
    spacing=st.tuples(st.floats(1.0, 6.0), st.floats(0.6, 3.0), st.floats(0.6, 3.0)),
    seed=st.integers(0, 9),
)
def test_the_box_holds_the_body_lies_in_the_scan_and_stays_where_it_is(centre, radii_mm, spacing, seed):
    shape = (12, 50, 60)
    inside = ellipsoid(shape, centre, np.divide(radii_mm, spacing))
    data = np.where(inside, 40, -1000).astype(np.int16)
    box = BodyBox.of(Volume(data, Grid.from_zyx(shape, spacing)))
    assert all(0 <= low < high <= n for low, high, n in zip(box.low, box.high, shape, strict=True))
    held = np.zeros(shape, dtype=bool)
    held[tuple(map(slice, box.low, box.high))] = True
    assert held[inside].all()
    noise = np.random.default_rng(seed).normal(0, 20, shape)
    other = BodyBox.of(Volume((data + noise).astype(np.int16), Grid.from_zyx(shape, spacing)))
    assert np.abs(np.subtract(other.low + other.high, box.low + box.high)).max() <= 2


def test_both_legs_are_of_the_body_and_the_couch_is_not():
    data = np.full((4, 100, 160), -1000, dtype=np.int16)
    data[:, 40:60, 30:55] = data[:, 40:60, 90:115] = 40
    data[:, 90:93, :] = 100
    box = BodyBox.of(Volume(data, Grid.from_zyx(data.shape, (5.0, 1.0, 1.0))))
    assert (box.low, box.high) == ((0, 29, 19), (4, 70, 126))


def test_air_alone_and_a_body_that_fills_the_slice_are_shown_whole(wide):
    air = np.full((3, 64, 64), -1000, dtype=np.int16)
    full = np.full((3, 64, 64), 40, dtype=np.int16)
    full[0, 0, 0] = -1000
    for data in (air, full):
        box = BodyBox.of(Volume(data, Grid.from_zyx(data.shape)))
        assert {box.on(SliceView(plane, 1)) for plane in PLANES} == {None}


@pytest.mark.parametrize("plane", PLANES)
def test_the_crop_is_turned_as_the_slice_is(plane):
    shape = (40, 50, 60)
    inside = ellipsoid(shape, (12, 20, 34), (6, 7, 8))  # far from the middle on every axis
    volume = Volume(np.where(inside, 40, -1000).astype(np.int16), Grid.from_zyx(shape, (4.0, 4.0, 4.0)))
    view = SliceView(plane, {"axial": 12, "coronal": 20, "sagittal": 34}[plane])
    x0, y0, x1, y1 = BodyBox.of(volume).on(view)
    mask = view.extract(inside)
    left, top, right, bottom = box_of_mask(mask)
    assert all(0 < margin <= 4 for margin in (left - x0, top - y0, x1 - 1 - right, y1 - 1 - bottom))


def test_masks_of_a_crop_lie_where_the_organ_is(wide, nano):
    volume, organ = wide
    crop, store = BodyBox.of(volume), EmbeddingStore(None)
    for plane, index in (("axial", 4), ("coronal", 56), ("sagittal", 60)):
        view = SliceView(plane, index)
        truth = view.extract(organ)
        prompts = Prompts.from_box(box_of_mask(truth))
        found = predict_slice(volume, view, prompts, nano, store=store, crop=crop).best_mask
        assert found.shape == truth.shape
        assert np.count_nonzero(found & truth) > 0.85 * np.count_nonzero(found | truth)
        assert embed_slice(volume, view, nano, store=store, crop=crop).crop_xyxy == crop.on(view)


def test_a_prompt_outside_the_body_is_answered_from_the_whole_slice(wide, nano):
    volume, _ = wide
    view, crop = SliceView("axial", 4), BodyBox.of(volume)
    for prompts in (
        Prompts.from_points([(60, 101)]),  # the couch
        Prompts.from_box((20, 20, 90, 90)),
        Prompts.from_outline([(60, 50), (70, 99), (75, 50)]),
    ):
        assert not crop.holds(view, prompts)
        asked = predict_slice(volume, view, prompts, nano, crop=crop)
        np.testing.assert_array_equal(asked.best_mask, predict_slice(volume, view, prompts, nano).best_mask)
    assert crop.holds(view, Prompts.from_points([(60, 56)]))
    assert crop.holds(view, mask=np.zeros((128, 128), dtype=bool))


def test_a_run_shows_all_its_slices_alike(wide, nano, monkeypatch):
    volume, organ = wide
    view, crop = SliceView("axial", 4), BodyBox.of(volume)
    seen = []
    embed = Predictor.embed

    def watched(self, image, spacing, crop_xyxy=None):
        seen.append(crop_xyxy)
        return embed(self, image, spacing, crop_xyxy)

    monkeypatch.setattr(Predictor, "embed", watched)
    boxed = Prompts.from_box(box_of_mask(view.extract(organ)))
    liver = PromptObject(label=6, name="liver", plane="axial", prompts={view: boxed})
    couch = PromptObject(
        label=1, name="couch", plane="axial", prompts={view: Prompts.from_points([(60, 101)])}
    )
    cropped = segment_from_prompts(volume, [liver], nano, crop=crop)
    assert set(seen) == {crop.on(view)}
    overlap = np.count_nonzero((cropped.labels.data == 6) & organ)
    assert 2 * overlap > 0.85 * (np.count_nonzero(cropped.labels.data) + np.count_nonzero(organ))
    assert cropped.warnings == []
    seen.clear()
    whole = segment_from_prompts(volume, [liver, couch], nano, crop=crop, propagated=False)
    assert set(seen) == {None}
    assert [text for text in whole.warnings if "outside the body" in text]
    drawn = np.zeros((128, 128), dtype=bool)
    drawn[99:103, 20:40] = True
    assert crop.for_run({1: (1, {})}, {1: {view: drawn}}) is None


def test_what_is_remembered_of_whole_slices_is_not_given_for_a_crop(wide, nano):
    volume, organ = wide
    view, crop, cache = SliceView("axial", 4), BodyBox.of(volume), PropagationCache()
    drawn = view.extract(organ)
    for known, seen in ((1, None), (2, crop), (2, None)):
        list(propagate(volume, {1: (6, {})}, nano, masks={1: {view: drawn}}, cache=cache, crop=seen))
        assert len(cache) == 2 * known  # a gap above, one below
