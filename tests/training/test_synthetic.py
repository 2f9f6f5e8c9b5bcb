"""The generator: the same seed gives the same bodies, images and prompts."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_sam_med.training.nano_batches import ScenePool
from napari_sam_med.training.prompt_sampling import correction_clicks, mask_boxes, sample_prompts
from napari_sam_med.training.synthetic.scenes import SIZE, draw_scene


@pytest.fixture(scope="module")
def pool() -> ScenePool:
    return ScenePool(6, seed=5)


def test_a_seed_gives_the_same_scene() -> None:
    first, again, other = draw_scene(7), draw_scene(7), draw_scene(8)
    assert np.array_equal(first.parts, again.parts)
    assert first.objects == again.objects
    assert not np.array_equal(first.parts, other.parts)


@pytest.mark.parametrize("seed", range(12))
def test_objects_are_made_of_parts_of_their_scene(seed: int) -> None:
    scene = draw_scene(seed)
    assert scene.parts.shape == (SIZE, SIZE)
    assert scene.objects
    assert scene.parts.max() < len(scene.group) == len(scene.twin)
    for parts, weight in scene.objects:
        assert weight > 0
        assert all(0 < part < len(scene.group) for part in parts)


def test_scenes_offer_objects_of_several_parts() -> None:
    several = [len(parts) > 1 for seed in range(12) for parts, _ in draw_scene(seed).objects]
    assert 0.1 < np.mean(several) < 0.9


def test_a_batch_number_gives_the_same_batch(pool: ScenePool) -> None:
    first, again, next_one = pool.batch(3, 2, 4), ScenePool(6, seed=5).batch(3, 2, 4), pool.batch(4, 2, 4)
    assert torch.equal(first.images, again.images)
    assert torch.equal(first.sampled.targets, again.sampled.targets)
    for a, b in zip(first.sampled.prompts, again.sampled.prompts, strict=True):
        assert a is not None
        assert b is not None
        assert torch.equal(a, b)
    assert not torch.equal(first.images, next_one.images)


def test_images_are_eight_bit_grey_between_0_and_1(pool: ScenePool) -> None:
    images = pool.batch(0, 3, 2).images
    assert images.shape == (3, 1, SIZE, SIZE)
    assert images.min() >= 0
    assert images.max() <= 1
    torch.testing.assert_close((images * 255).round() / 255, images)


def test_every_prompt_says_something_about_its_target(pool: ScenePool) -> None:
    for number in range(8):
        sampled = pool.batch(number, 2, 8).sampled
        prompts = sampled.prompts
        has_point = (prompts.labels >= 0).any(1)
        assert (prompts.has_box | prompts.has_mask | has_point).all()
        for target, points, labels in zip(sampled.targets, prompts.points, prompts.labels, strict=True):
            for (x, y), label in zip(points.round().long().tolist(), labels.tolist(), strict=True):
                if label >= 0 and 0 <= x < SIZE and 0 <= y < SIZE:
                    assert target[y, x] == label


def test_neighbour_masks_sometimes_find_the_object_gone() -> None:
    generator = torch.Generator().manual_seed(0)
    targets = torch.zeros(200, SIZE, SIZE, dtype=torch.bool)
    targets[:, 100:130, 90:120] = True
    sampled = sample_prompts(targets, generator)
    empty = ~sampled.targets.flatten(1).any(1)
    assert 0 < empty.sum() < 20
    assert sampled.prompts.has_mask[empty].all()


def test_boxes_are_tight() -> None:
    masks = torch.zeros(2, 20, 20, dtype=torch.bool)
    masks[0, 3:8, 5:11] = True
    assert mask_boxes(masks).tolist() == [[5, 3, 10, 7], [0, 0, 0, 0]]


def test_correction_clicks_go_deep_into_the_largest_error() -> None:
    targets = torch.zeros(3, 48, 48)
    targets[:, 10:30, 10:30] = 1
    logits = torch.full((3, 48, 48), -4.0)
    logits[0, 10:30, 10:14] = 4  # misses most of the target
    logits[1] = 4  # spills everywhere
    logits[2] = targets[2] * 8 - 4  # right
    grid = torch.arange(48.0).expand(3, 2, 48) * 2 + 100
    points, labels = correction_clicks(logits, targets, grid)
    assert labels.tolist() == [1, 0, -1]
    x, y = ((points[0] - 100) / 2).tolist()
    assert 16 <= x <= 27
    assert 12 <= y <= 27
