"""Shape-based interpolation: distances, shapes between two masks, and the engine that needs no model."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_sam_med import Prompts, SliceView, Volume, propagate
from napari_sam_med.errors import PromptError
from napari_sam_med.segmentation.interpolation import (
    InterpolatingPropagator,
    ShapePrior,
    interpolated_distance_mm,
    main_plane_views,
    signed_distance_mm,
)
from napari_sam_med.volume.grid import Grid

SPACING = (1.0, 1.0)


def disc(row: float, column: float, radius: float, shape=(64, 64)) -> np.ndarray:
    rows, columns = np.indices(shape)
    return np.hypot(rows - row, columns - column) <= radius


def square(rows: slice, columns: slice, shape=(64, 64)) -> np.ndarray:
    mask = np.zeros(shape, dtype=bool)
    mask[rows, columns] = True
    return mask


def centre(mask: np.ndarray) -> np.ndarray:
    return np.argwhere(mask).mean(axis=0)


# distances


def test_the_border_runs_between_the_pixels() -> None:
    line = np.array([[False, False, True, True, True, False]])
    np.testing.assert_allclose(signed_distance_mm(line, (1.0, 2.0)), [[3.0, 1.0, -1.0, -3.0, -1.0, 1.0]])


def test_diagonal_borders_run_between_the_pixels_too() -> None:
    rows, columns = np.indices((21, 21))
    distance = signed_distance_mm(rows + columns <= 20, SPACING)
    for n in (2, 4, 6):
        assert distance[10 + n // 2, 10 + n // 2] == pytest.approx((n - 0.5) / np.sqrt(2))


def test_distance_is_in_millimetres_of_each_axis() -> None:
    mask = square(slice(10, 21), slice(10, 21), (31, 31))
    distance = signed_distance_mm(mask, (3.0, 0.5))
    assert distance[15, 24] == pytest.approx(3.5 * 0.5)
    assert distance[24, 15] == pytest.approx(3.5 * 3.0)
    assert distance[15, 15] == pytest.approx(-5.5 * 0.5)
    assert distance.dtype == np.float32


@pytest.mark.parametrize("value", [True, False])
def test_a_mask_without_border_is_the_diagonal_away(value: bool) -> None:
    distance = signed_distance_mm(np.full((3, 4), value), (1.0, 1.0))
    assert (distance == (-5.0 if value else 5.0)).all()


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=30, deadline=None)
def test_the_sign_says_what_is_inside(seed: int) -> None:
    rng = np.random.default_rng(seed)
    mask = rng.random((9, 12)) < rng.random()
    distance = signed_distance_mm(mask, (0.7, 2.0))
    assert np.array_equal(distance < 0, mask)
    assert (distance != 0).all()
    np.testing.assert_allclose(signed_distance_mm(~mask, (0.7, 2.0)), -distance)


# shapes between two masks


def test_both_ends_are_the_key_masks_themselves() -> None:
    before, after = disc(20, 20, 9), square(slice(30, 50), slice(35, 44))
    prior = ShapePrior(before, after, SPACING)
    assert np.array_equal(prior.mask_at(0.0), before)
    assert np.array_equal(prior.mask_at(1.0), after)


def test_what_moves_without_overlap_is_half_way_in_the_middle() -> None:
    prior = ShapePrior(disc(16, 14, 6), disc(40, 50, 6), SPACING)
    middle = prior.mask_at(0.5)
    assert np.array_equal(middle, disc(28, 32, 6))
    np.testing.assert_allclose(centre(prior.mask_at(0.25)), [22, 23], atol=0.2)


def test_discs_grow_by_their_radius() -> None:
    prior = ShapePrior(disc(32, 32, 6), disc(32, 32, 22), SPACING)
    for fraction in (0.25, 0.5, 0.75):
        radius = 6 + 16 * fraction
        area = np.count_nonzero(prior.mask_at(fraction))
        assert area == pytest.approx(np.pi * radius**2, rel=0.08)


def test_distance_and_mask_say_the_same_and_fill_the_slice() -> None:
    before, after = disc(20, 24, 8), disc(30, 28, 12)
    prior = ShapePrior(before, after, (0.8, 1.3))
    distance = prior.at(0.3)
    assert distance.shape == before.shape
    assert np.array_equal(distance < 0, prior.mask_at(0.3))
    assert np.array_equal(distance, interpolated_distance_mm(before, after, 0.3, (0.8, 1.3)))


@given(st.floats(0, 1), st.integers(5, 10), st.integers(5, 10), st.integers(-8, 8))
@settings(max_examples=30, deadline=None)
def test_swapping_the_keys_mirrors_the_fraction(fraction: float, a: int, b: int, shift: int) -> None:
    before, after = disc(30, 30, a), square(slice(30 - b, 31 + b), slice(30 + shift - b, 31 + shift + b))
    there, back = ShapePrior(before, after, SPACING), ShapePrior(after, before, SPACING)
    np.testing.assert_allclose(there.at(fraction), back.at(1 - fraction), atol=1e-3)
    assert there.agreement == back.agreement


def test_agreement_is_of_the_shapes_and_not_of_their_places() -> None:
    same = ShapePrior(disc(16, 16, 8), disc(40, 44, 8), SPACING)
    other = ShapePrior(disc(16, 16, 8), square(slice(30, 34), slice(10, 60)), SPACING)
    assert same.agreement == 1.0
    assert other.agreement < 0.6
    assert same.radius_mm == pytest.approx(8, rel=0.03)


@pytest.mark.parametrize("other", [np.zeros((64, 64), dtype=bool), np.ones((64, 65), dtype=bool)])
def test_masks_that_cannot_be_interpolated_are_refused(other: np.ndarray) -> None:
    with pytest.raises(PromptError, match=r"[Kk]ey mask"):
        ShapePrior(disc(20, 20, 5), other, SPACING)


# the engine


def axial(index: int) -> SliceView:
    return SliceView("axial", index)


@pytest.fixture
def cone() -> tuple[Volume, np.ndarray]:
    """A cone that drifts, radius 6 mm at slice 4 to 20 mm at slice 18, and its volume of 24 slices."""
    mask = np.zeros((24, 64, 64), dtype=bool)
    for z in range(4, 19):
        mask[z] = disc(30, 20 + z, z + 2)
    return Volume(mask.astype(np.uint8), Grid.from_zyx(mask.shape, (3.0, 1.0, 1.0))), mask


def fill(volume: Volume, masks: dict, objects: dict | None = None, predictor=None, **options) -> list:
    objects = objects or {i: (6, {}) for i in masks}
    engine = InterpolatingPropagator()
    return list(propagate(volume, objects, predictor, engine=engine, masks=masks, **options))


def test_fills_between_the_keys_and_nowhere_else(cone) -> None:
    volume, truth = cone
    done = fill(volume, {1: {axial(z): truth[z] for z in (4, 11, 18)}})
    assert sorted(d.view.index for d in done) == list(range(4, 19))
    for d in done:
        both = np.count_nonzero(d.mask & truth[d.view.index])
        assert 2 * both / (np.count_nonzero(d.mask) + np.count_nonzero(truth[d.view.index])) > 0.95
        assert d.source == ("prompt" if d.view.index in (4, 11, 18) else "interpolated")
        assert d.class_id == 6
    assert done[-1].progress.fraction == 1.0
    assert [d.progress.done for d in done] == list(range(1, 16))
    assert {d.progress.total for d in done} == {15}


def test_slices_near_a_key_come_first_and_are_surer(cone) -> None:
    volume, truth = cone
    done = fill(volume, {1: {axial(z): truth[z] for z in (4, 18)}})
    inner = [d for d in done if d.source == "interpolated"]
    distances = [min(d.view.index - 4, 18 - d.view.index) for d in inner]
    assert distances == sorted(distances)
    qualities = [
        np.mean([d.quality for d, n in zip(inner, distances, strict=True) if n == k]) for k in range(1, 8)
    ]
    assert qualities == sorted(qualities, reverse=True)
    assert all(0 < d.quality < 1 for d in inner)
    assert {d.direction for d in inner if d.view.index < 11} == {"forward"}
    assert {d.direction for d in inner if d.view.index > 11} == {"backward"}


def test_keys_of_another_shape_make_for_less_quality(cone) -> None:
    volume, _ = cone
    alike = fill(volume, {1: {axial(2): disc(30, 30, 10), axial(8): disc(30, 30, 10)}})
    bar = square(slice(28, 32), slice(2, 60))
    unlike = fill(volume, {1: {axial(2): disc(30, 30, 10), axial(8): bar}})
    assert unlike[-1].quality < alike[-1].quality - 0.1


def test_says_why_it_ends_at_the_outermost_keys(cone) -> None:
    volume, truth = cone
    done = fill(volume, {1: {axial(z): truth[z] for z in (4, 11, 18)}, 2: {axial(9): truth[9]}})
    reasons = {(d.object_id, d.view.index): d.reason for d in done if d.reason}
    ends = "interpolation ends at the outermost key slice"
    assert reasons == {(1, 4): ends, (1, 18): ends, (2, 9): "there is no second key slice to interpolate to"}


def test_only_the_range_asked_for_is_filled(cone) -> None:
    volume, truth = cone
    done = fill(volume, {1: {axial(4): truth[4], axial(18): truth[18]}}, first_index=8, last_index=10)
    assert sorted(d.view.index for d in done if d.source == "interpolated") == [8, 9, 10]
    assert done[-1].progress.fraction == 1.0


def test_gaps_beside_an_empty_key_stay_open(cone) -> None:
    volume, truth = cone
    nothing = np.zeros_like(truth[0])
    done = fill(
        volume, {1: {axial(4): truth[4], axial(8): truth[8], axial(14): nothing, axial(18): truth[18]}}
    )
    assert sorted(d.view.index for d in done if d.source == "interpolated") == [5, 6, 7]
    assert {d.view.index: d.reason for d in done}[14] == "the key slice is empty"


def test_shapes_with_nothing_in_common_are_said_so(cone) -> None:
    volume, _ = cone
    ring = disc(30, 30, 20) & ~disc(30, 30, 14)
    done = fill(volume, {1: {axial(2): disc(30, 30, 3), axial(6): ring}})
    middle = next(d for d in done if d.view.index == 4)
    assert not middle.mask.any()
    assert middle.quality == 0.0
    assert middle.reason == "the masks of key slices 2 and 6 have no shape in common"


def test_works_along_the_plane_with_most_keys(cone) -> None:
    volume, truth = cone
    keys = {SliceView("sagittal", x): SliceView("sagittal", x).extract(truth) for x in (24, 30, 36)}
    keys[axial(10)] = truth[10]
    done = fill(volume, {1: keys})
    assert {d.view for d in done if d.source == "prompt"} == set(keys)
    filled = [d.view for d in done if d.source == "interpolated"]
    assert {view.plane for view in filled} == {"sagittal"}
    assert sorted(view.index for view in filled) == [*range(25, 30), *range(31, 36)]


def test_of_planes_with_as_many_keys_axial_is_first() -> None:
    views = [SliceView("sagittal", 1), SliceView("axial", 9), SliceView("axial", 2), SliceView("sagittal", 4)]
    assert main_plane_views(views) == [axial(2), axial(9)]


def test_prompts_alone_need_a_model(cone) -> None:
    volume, truth = cone
    objects = {1: (6, {axial(8): Prompts.from_box((4, 4, 40, 40))})}
    with pytest.raises(PromptError, match="axial slice 8 has prompts but no mask"):
        fill(volume, {1: {axial(4): truth[4]}}, objects)


def test_prompts_are_answered_by_a_model_when_there_is_one(cone) -> None:
    volume, truth = cone

    class Predictor:
        accepts = frozenset({"box"})

        def embed(self, image, spacing, crop):
            return image

        def predict(self, embedding, prompts):
            return SimpleNamespace(
                best_mask=truth[8],
                best_index=0,
                iou_predictions=np.array([0.8]),
                stability_scores=np.array([0.8]),
                best_low_res_logits=np.zeros((4, 4), dtype=np.float32),
            )

    objects = {1: (6, {axial(8): Prompts.from_box((4, 4, 40, 40))})}
    done = fill(volume, {1: {axial(4): truth[4]}}, objects, Predictor(), window=(0.0, 1.0))
    assert {d.view.index: d.iou_prediction for d in done}[8] == pytest.approx(0.8)
    inner = [d for d in done if d.source == "interpolated"]
    assert sorted(d.view.index for d in inner) == [5, 6, 7]
    assert all(d.quality < 0.8 for d in inner)
