"""Batches of synthetic images, targets and prompts for `nano`; batch k of a seed is always the same."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np
import torch

from napari_sam_med.training.prompt_sampling import SampledPrompts, mask_boxes, sample_prompts
from napari_sam_med.training.real_slices import RealSlice
from napari_sam_med.training.synthetic.anatomy import LabelMap, draw_anatomy, read_label_maps
from napari_sam_med.training.synthetic.appearance import colour, degrade, warp_grid, warp_images, warp_parts
from napari_sam_med.training.synthetic.scenes import SIZE, Scene, draw_scene

__all__ = ["NanoBatch", "ScenePool"]

_SMALLEST_AREA = 24
_LARGEST_SHARE = 0.45
_LARGE_AREA = 14000
_ANATOMY_SHARE = 0.4
_REAL_SHARE = 0.12
_EACH = torch.eye(256, dtype=torch.bool)[1:]
"""Membership of regions of which each is an object."""


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
    label_maps : sequence of Path
        Files with label maps of bodies; some of the scenes are their slices.
    real_slices : sequence of RealSlice
        Some of the images of a batch are these.
    """

    def __init__(
        self,
        n_scenes: int,
        seed: int = 0,
        workers: int = 0,
        label_maps: Sequence[Path] = (),
        real_slices: Sequence[RealSlice] = (),
    ) -> None:
        seeds = [seed * 1_000_003 + i for i in range(n_scenes)]
        if workers:
            context = get_context("spawn")
            with ProcessPoolExecutor(workers, context, _Drawer.prepare, (label_maps,)) as pool:
                scenes = list(pool.map(_Drawer.draw, seeds, chunksize=16))
        else:
            _Drawer.prepare(label_maps)
            scenes = [_Drawer.draw(s) for s in seeds]
        self.seed = seed
        self._n_drawn = n_scenes
        self._parts = torch.from_numpy(np.stack([s.parts for s in scenes] + [s.regions for s in real_slices]))
        self._group = torch.tensor([_padded(s.group) for s in scenes])
        self._twin = torch.tensor([_padded(s.twin) for s in scenes])
        self._objects = [_objects(s) for s in scenes]
        self._real = torch.from_numpy(np.stack([s.image for s in real_slices])) if real_slices else None

    def __len__(self) -> int:
        return len(self._parts)

    def batch(self, number: int, n_images: int, n_prompts: int) -> NanoBatch:
        """Batch of this number: ``n_images`` images with ``n_prompts`` prompts each."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + number)
        chosen = torch.randint(self._n_drawn, (n_images,), generator=generator)
        is_real = torch.zeros(n_images, dtype=torch.bool)
        if self._real is not None:
            is_real = torch.rand(n_images, generator=generator) < _REAL_SHARE
            real = torch.randint(len(self._real), (n_images,), generator=generator)
            chosen = torch.where(is_real, self._n_drawn + real, chosen)
        grid = warp_grid(n_images, generator)
        parts = warp_parts(self._parts[chosen], grid)
        images = torch.zeros(n_images, SIZE, SIZE)
        if not is_real.all():
            drawn = chosen[~is_real]
            images[~is_real] = colour(parts[~is_real], self._group[drawn], self._twin[drawn], generator)
        if self._real is not None and is_real.any():
            photographs = self._real[chosen[is_real] - self._n_drawn].float() / 255
            images[is_real] = degrade(warp_images(photographs, grid[is_real]), generator)
        padded = torch.rand(n_images, generator=generator)
        targets = []
        for i, scene in enumerate(chosen.tolist()):
            if padded[i] < 0.3:
                _pad(images[i], parts[i], float(padded[i]) / 0.3)
            targets.append(self._targets(parts[i], scene, n_prompts, generator))
        return NanoBatch(images[:, None], sample_prompts(torch.cat(targets), generator))

    def _targets(self, parts: torch.Tensor, scene: int, n: int, generator: torch.Generator) -> torch.Tensor:
        """Masks (n, S, S) bool of objects drawn by weight among those well in view."""
        members, weights = self._objects[scene] if scene < self._n_drawn else (_EACH, torch.ones(255))
        counts = torch.bincount(parts.flatten().long(), minlength=256)
        area = (members * counts).sum(1)
        weights = weights * ((area >= _SMALLEST_AREA) & (area <= _LARGEST_SHARE * SIZE * SIZE))
        if not weights.any():
            # nothing fits: ask for the largest part, whatever it is
            only = parts == counts[1:].argmax() + 1
            only[SIZE // 2 - 8 : SIZE // 2 + 8, SIZE // 2 - 8 : SIZE // 2 + 8] |= not only.any()
            return only.expand(n, -1, -1)
        picked = torch.multinomial(weights, 4 * n, replacement=True, generator=generator)
        masks = members[picked][:, parts.flatten().long()].view(4 * n, SIZE, SIZE)
        return masks[torch.multinomial(_plausibility(masks), n, generator=generator)]


def _plausibility(masks: torch.Tensor) -> torch.Tensor:
    """How much each mask (P, S, S) is like what users ask for: compact, not tiny, not cut off."""
    box = mask_boxes(masks)
    area = masks.sum((1, 2))
    fill = area / ((box[:, 2] - box[:, 0] + 1) * (box[:, 3] - box[:, 1] + 1))
    cut_off = (box[:, :2].amin(1) == 0) | (box[:, 2:].amax(1) == SIZE - 1)
    return fill.clamp(0.1, 0.6) ** 0.8 * area.clamp(max=_LARGE_AREA) ** 0.4 * torch.where(cut_off, 0.3, 1.0)


class _Drawer:
    """Draws scenes in a process that has read the label maps once."""

    label_maps: ClassVar[list[LabelMap]] = []

    @classmethod
    def prepare(cls, paths: Sequence[Path]) -> None:
        cls.label_maps = read_label_maps(paths)

    @classmethod
    def draw(cls, seed: int) -> Scene:
        rng = np.random.default_rng([seed, 20252])
        if cls.label_maps and rng.random() < _ANATOMY_SHARE:
            return draw_anatomy(rng, cls.label_maps[rng.integers(len(cls.label_maps))])
        return draw_scene(seed)


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
