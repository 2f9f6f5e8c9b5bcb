"""Batches of synthetic images, targets and prompts for `nano`; batch k of a seed is always the same."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import NamedTuple

import numpy as np
import torch

from napari_sam_med.training.prompt_sampling import SampledPrompts, mask_boxes, sample_prompts
from napari_sam_med.training.synthetic.appearance import colour, warp_parts
from napari_sam_med.training.synthetic.scenes import SIZE, Scene, draw_scene

__all__ = ["NanoBatch", "ScenePool"]

_SMALLEST_AREA = 24
_LARGEST_SHARE = 0.45


class NanoBatch(NamedTuple):
    """Images (B, 1, S, S) in 0..1 and their prompts, n for each image, image by image."""

    images: torch.Tensor
    sampled: SampledPrompts


class ScenePool:
    """Scenes drawn once, then warped, coloured and prompted anew for each batch.

    Parameters
    ----------
    n_scenes : int
        How many label maps to draw (about 20 ms and 64 KiB each).
    seed : int
        Seeds scenes and batches.
    workers : int
        Processes that draw; 0 draws in this one.
    """

    def __init__(self, n_scenes: int, seed: int = 0, workers: int = 0) -> None:
        seeds = [seed * 1_000_003 + i for i in range(n_scenes)]
        if workers:
            with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
                scenes = list(pool.map(draw_scene, seeds, chunksize=32))
        else:
            scenes = [draw_scene(s) for s in seeds]
        self.seed = seed
        self._parts = torch.from_numpy(np.stack([s.parts for s in scenes]))
        self._group = torch.tensor([_padded(s.group) for s in scenes])
        self._twin = torch.tensor([_padded(s.twin) for s in scenes])
        self._objects = [_objects(s) for s in scenes]

    def __len__(self) -> int:
        return len(self._parts)

    def batch(self, number: int, n_images: int, n_prompts: int) -> NanoBatch:
        """Batch of this number: ``n_images`` images with ``n_prompts`` prompts each."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + number)
        chosen = torch.randint(len(self), (n_images,), generator=generator)
        parts = warp_parts(self._parts[chosen], generator)
        images = colour(parts, self._group[chosen], self._twin[chosen], generator)
        padded = torch.rand(n_images, generator=generator)
        targets = []
        for i, scene in enumerate(chosen.tolist()):
            if padded[i] < 0.3:
                _pad(images[i], parts[i], float(padded[i]) / 0.3)
            targets.append(self._targets(parts[i], scene, n_prompts, generator))
        return NanoBatch(images[:, None], sample_prompts(torch.cat(targets), generator))

    def _targets(self, parts: torch.Tensor, scene: int, n: int, generator: torch.Generator) -> torch.Tensor:
        """Masks (n, S, S) bool of objects drawn by weight among those well in view."""
        members, weights = self._objects[scene]
        counts = torch.bincount(parts.flatten().long(), minlength=256)
        area = (members * counts).sum(1)
        weights = weights * ((area >= _SMALLEST_AREA) & (area <= _LARGEST_SHARE * SIZE * SIZE))
        if not weights.any():
            # nothing fits: ask for the largest part, whatever it is
            only = parts == counts[1:].argmax() + 1
            only[SIZE // 2 - 8 : SIZE // 2 + 8, SIZE // 2 - 8 : SIZE // 2 + 8] |= not only.any()
            return only.expand(n, -1, -1)
        picked = torch.multinomial(weights, 2 * n, replacement=True, generator=generator)
        masks = members[picked][:, parts.flatten().long()].view(2 * n, SIZE, SIZE)
        return masks[torch.multinomial(_plausibility(masks), n, generator=generator)]


def _plausibility(masks: torch.Tensor) -> torch.Tensor:
    """How much each mask (P, S, S) is like what users ask for: compact, not tiny, not cut off."""
    box = mask_boxes(masks)
    area = masks.sum((1, 2))
    fill = area / ((box[:, 2] - box[:, 0] + 1) * (box[:, 3] - box[:, 1] + 1))
    cut_off = (box[:, :2].amin(1) == 0) | (box[:, 2:].amax(1) == SIZE - 1)
    return fill.clamp(0.08, 0.7) ** 1.2 * area.clamp(max=1500) ** 0.25 * torch.where(cut_off, 0.5, 1.0)


def _padded(numbers: list[int]) -> list[int]:
    return numbers + [0] * (256 - len(numbers))


def _objects(scene: Scene) -> tuple[torch.Tensor, torch.Tensor]:
    members, weights = scene.lookup()
    return torch.from_numpy(members), torch.from_numpy(weights)


def _pad(image: torch.Tensor, parts: torch.Tensor, share: float) -> None:
    """Blank the right or the lower edge, as the padding of a slice that is not square does."""
    keep = int(SIZE * (0.6 + 0.4 * (2 * share % 1)))
    edge = (slice(None), slice(keep, None)) if share < 0.5 else (slice(keep, None), slice(None))
    image[edge] = 0
    parts[edge] = 0
