"""Simulated clicks: hand-computed cases, and what holds for any mask."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from napari_sam_med.errors import PromptError
from napari_sam_med.evaluation.point_strategies import (
    background_corner,
    center_bilateral,
    center_box,
    center_distance,
    center_gaussian,
    center_mask,
    random_box,
    random_gaussian,
    random_mask,
    scribble,
)
from napari_sam_med.evaluation.prompt_target import PromptTarget
from napari_sam_med.sam.prompts import Prompts
from tests.evaluation.drawn_masks import MASKS, RING, SEEDS, Mask, drawn, generator, target

ANGLE = ("......", ".#....", ".#....", ".####.", "......")


def _at(prompts: Prompts) -> list[float]:
    ((x, y),) = prompts.points_xy.tolist()
    assert prompts.point_labels.tolist() == [1]
    return [x, y]


def test_the_centres_of_an_angle_by_hand() -> None:
    angle = target(*ANGLE)
    assert _at(center_box(angle, generator())) == [2.5, 2]
    # columns 1 1 1 2 3 4, rows 1 2 3 3 3 3
    assert _at(center_mask(angle, generator())) == [2, 2.5]
    # squared distances to (2.5, 2), in reading order: 3.25 2.25 3.25 1.25 1.25 3.25
    weights = np.exp(-np.array([3.25, 2.25, 3.25, 1.25, 1.25, 3.25]) / 2)
    by_hand = [weights @ [1, 1, 1, 2, 3, 4], weights @ [1, 2, 3, 3, 3, 3]] / weights.sum()
    assert _at(center_gaussian(angle, generator(), spread=1)) == pytest.approx(by_hand, abs=1e-6)


def test_the_default_weight_is_that_of_the_study() -> None:
    mask = np.zeros((1, 301), bool)
    mask[0, [0, 200, 300]] = True
    # distances to the middle: 150, 50, 150
    weights = np.exp(-(np.array([150.0, 50.0, 150.0]) ** 2) / 2e4)
    by_hand = weights @ [0, 200, 300] / weights.sum()
    assert _at(center_gaussian(PromptTarget(mask), generator())) == pytest.approx([by_hand, 0], abs=1e-4)


@given(MASKS)
def test_the_centre_of_mass_is_scipys(mask: Mask) -> None:
    y, x = ndimage.center_of_mass(mask)
    assert _at(center_mask(PromptTarget(mask), generator())) == pytest.approx([x, y], abs=1e-5)
    assert _at(center_gaussian(PromptTarget(mask), generator(), spread=1e6)) == pytest.approx(
        [x, y], abs=1e-5
    )


def test_grey_values_that_are_rare_draw_the_click_less() -> None:
    mask = drawn("####")
    image = np.repeat(np.array([[100, 100, 100, 120]], np.uint8)[..., None], 3, 2)
    weights = np.array([1, 1, 1, np.exp(-0.5)])
    by_hand = weights @ [0, 1, 2, 3] / weights.sum()
    found = center_bilateral(PromptTarget(mask, image), generator(), spread=1e6, contrast=20)
    assert _at(found) == pytest.approx([by_hand, 0], abs=1e-6)
    # what lies outside the mask does not count towards the most frequent value
    outside = np.pad(image, ((0, 3), (0, 0), (0, 0)), constant_values=120)
    padded = PromptTarget(np.pad(mask, ((0, 3), (0, 0))), outside)
    assert center_bilateral(padded, generator(), spread=1e6, contrast=20) == found


@given(MASKS, st.integers(0, 255))
def test_without_contrast_grey_values_do_not_matter(mask: Mask, grey: int) -> None:
    image = np.full((*mask.shape, 3), grey, np.uint8)
    assert center_bilateral(PromptTarget(mask, image), generator()) == center_gaussian(
        PromptTarget(mask), generator()
    )


def test_grey_values_need_an_image() -> None:
    with pytest.raises(PromptError, match="image"):
        center_bilateral(target("##"), generator())


SNAPPABLE = (center_box, center_mask, center_gaussian, random_box)


@pytest.mark.parametrize("strategy", SNAPPABLE)
@given(mask=MASKS, seed=SEEDS)
def test_snapped_clicks_lie_on_the_nearest_pixel_of_the_mask(
    strategy: Callable[..., Prompts], mask: Mask, seed: int
) -> None:
    one = PromptTarget(mask)
    x, y = _at(strategy(one, generator(seed)))
    snapped = np.array(_at(strategy(one, generator(seed), snap=True)))
    if mask[int(np.floor(y + 0.5)), int(np.floor(x + 0.5))]:
        assert snapped.tolist() == [x, y]
        return
    assert mask[tuple(snapped.astype(int)[::-1])]
    distances = np.linalg.norm(np.argwhere(mask)[:, ::-1] - [x, y], axis=1)
    assert np.linalg.norm(snapped - [x, y]) == pytest.approx(distances.min(), abs=1e-4)


def test_the_middle_of_a_ring_snaps_to_the_first_of_the_nearest_pixels() -> None:
    ring = target(*RING)
    for strategy in (center_box, center_mask, center_gaussian):
        assert _at(strategy(ring, generator())) == [2, 2]
        assert _at(strategy(ring, generator(), snap=True)) == [2, 0]


def test_random_clicks_in_the_box_reach_all_of_it_alike() -> None:
    one = target("....", ".#..", "..#.")
    rng = generator()
    found = Counter(tuple(_at(random_box(one, rng))) for _ in range(2000))
    assert set(found) == {(x, y) for x in (1, 2) for y in (1, 2)}
    assert max(found.values()) - min(found.values()) < 120


@given(MASKS, SEEDS)
def test_random_clicks_lie_on_different_pixels_of_the_mask(mask: Mask, seed: int) -> None:
    prompts = random_mask(PromptTarget(mask), generator(seed), 3)
    x, y = prompts.points_xy.astype(int).T
    assert mask[y, x].all()
    assert len(set(zip(x, y, strict=True))) == min(3, mask.sum())
    assert prompts.point_labels.all()


def test_random_clicks_are_drawn_by_their_weight() -> None:
    one, rng = target("#.#.#"), generator()
    found = Counter(_at(random_gaussian(one, rng, spread=2))[0] for _ in range(4000))
    weights = np.exp(-np.array([4, 0, 4]) / 8)
    assert [found[x] / 4000 for x in (0, 2, 4)] == pytest.approx(weights / weights.sum(), abs=0.03)
    # far from the middle every weight is as good as nothing
    assert _at(random_gaussian(target("#" + "." * 300 + "#"), rng, spread=0.1))[0] in (0, 301)


def test_the_click_lies_deepest() -> None:
    found = center_distance(
        target(".........", ".#####.##", ".#####...", ".#####...", "........."), generator()
    )
    assert found == Prompts.from_points([[2, 2]], [1])


def test_the_image_ends_in_background() -> None:
    assert _at(center_distance(PromptTarget(np.ones((5, 9), bool)), generator())) == [2, 2]


@given(MASKS)
def test_the_click_lies_in_the_mask_and_no_pixel_is_deeper(mask: Mask) -> None:
    x, y = (int(value) for value in _at(center_distance(PromptTarget(mask), generator())))
    depth = ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
    assert mask[y, x]
    assert depth[y, x] == depth.max()


def _corners(one: PromptTarget) -> set[tuple[float, ...]]:
    drawn_ = [background_corner(one, generator(seed)) for seed in range(60)]
    assert all(prompts.point_labels.tolist() == [0] for prompts in drawn_)
    return {tuple(prompts.points_xy[0].tolist()) for prompts in drawn_}


def test_the_negative_click_lies_on_a_corner_of_the_background() -> None:
    assert _corners(target(*ANGLE)) == {(4, 1)}
    assert _corners(target(".....", "..#..", ".###.", "..#..")) == {(1, 1), (3, 1), (1, 3), (3, 3)}


def test_where_the_mask_has_all_corners_the_nearest_background_is_clicked() -> None:
    found = _corners(target("......", ".####.", ".####.", "......"))
    assert found == {(1, 0), (4, 0), (0, 2), (5, 2)}
    assert _corners(target("###", "#.#", "###")) == {(1, 1)}
    assert _corners(target("##", "##")) == {(0, 0), (1, 0), (0, 1), (1, 1)}


def test_a_scribble_runs_along_the_middle_at_equal_distances() -> None:
    line = PromptTarget(np.ones((1, 21), bool))
    found = scribble(line, generator())
    assert sorted(found.points_xy.tolist()) == [[x, 0] for x in (2, 6, 10, 14, 18)]
    assert found.point_labels.tolist() == [1] * 5
    assert scribble(line, generator(), 1).points_xy.tolist() == [[10, 0]]
    slope = PromptTarget(np.eye(9, dtype=bool) | np.eye(9, k=1, dtype=bool))
    assert (np.ptp(scribble(slope, generator(), 4).points_xy, axis=0) >= 5).all()


def test_a_scribble_goes_along_the_largest_part_and_round_a_ring() -> None:
    two = target("###########", "...........", "##.........")
    assert set(scribble(two, generator()).points_xy[:, 1]) == {0}
    points = scribble(target(*RING), generator(), 4).points_xy.astype(int)
    assert drawn(*RING)[points[:, 1], points[:, 0]].all()
    assert len({tuple(point) for point in points}) == 4


def test_a_scribble_on_a_few_pixels_has_fewer_points() -> None:
    assert scribble(target("...", ".#."), generator()).points_xy.tolist() == [[1, 1]]
    assert 1 <= len(scribble(target("##", "##"), generator()).points_xy) <= 2


@settings(deadline=None)
@given(MASKS, st.integers(1, 8))
def test_a_scribble_lies_on_different_pixels_of_the_mask(mask: Mask, count: int) -> None:
    x, y = scribble(PromptTarget(mask), generator(), count).points_xy.astype(int).T
    assert mask[y, x].all()
    assert len(set(zip(x, y, strict=True))) == len(x) <= count
