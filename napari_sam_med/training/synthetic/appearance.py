"""What a scanner makes of a scene: tissues, texture, partial volume, bias field, noise, windowing; and warps.

Scenes are drawn once and coloured anew each time they are used. Everything runs on batches (B, 256, 256) of
torch tensors and takes its randomness from one generator, so that a seed gives the same images.
"""

from __future__ import annotations

import math

import torch

from napari_sam_med.training.synthetic.scenes import CONTRASTING, SIZE

__all__ = ["colour", "degrade", "random_fields", "warp_grid", "warp_images", "warp_parts"]

_CLASSES = torch.tensor([0.02, 0.28, 0.46, 0.5, 0.54, 0.6, 0.72, 0.9])
"""Grey values of windowed CT: gas, fat, fluid, muscle, organs, perfused organs, contrast, bone."""
_CLASS_SHARES = torch.tensor([0.06, 0.16, 0.12, 0.16, 0.18, 0.14, 0.10, 0.08])


class _Dice:
    """Short names for the random draws of one generator."""

    def __init__(self, generator: torch.Generator) -> None:
        self.generator = generator

    def uniform(self, low: float, high: float, *shape: int) -> torch.Tensor:
        return low + (high - low) * torch.rand(shape, generator=self.generator)

    def log_uniform(self, low: float, high: float, *shape: int) -> torch.Tensor:
        return self.uniform(math.log(low), math.log(high), *shape).exp()

    def normal(self, *shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=self.generator)

    def chance(self, share: float, *shape: int) -> torch.Tensor:
        return torch.rand(shape, generator=self.generator) < share


def random_fields(batch: int, scale: float, generator: torch.Generator, size: int = SIZE) -> torch.Tensor:
    """Smooth random fields (batch, size, size) with features of about ``scale`` pixels, deviation about 1."""
    n = math.ceil(size / scale) + 2
    coarse = torch.randn((batch, 1, n, n), generator=generator) * 1.5
    fine = torch.nn.functional.interpolate(coarse, scale_factor=scale, mode="bilinear", align_corners=False)
    start = int(scale // 2)
    return fine[:, 0, start : start + size, start : start + size]


def warp_grid(batch: int, generator: torch.Generator) -> torch.Tensor:
    """Sampling grid (batch, S, S, 2) of random flips, turns, zooms and smooth bending."""
    dice = _Dice(generator)
    turn = dice.uniform(-math.pi, math.pi, batch)
    zoom = dice.log_uniform(0.75, 1.6, batch)
    ratio = dice.log_uniform(0.85, 1.18, batch)
    flip = torch.where(dice.chance(0.5, batch), -1.0, 1.0)
    cos, sin = turn.cos(), turn.sin()
    shift = dice.uniform(-0.3, 0.3, batch, 2)
    theta = torch.stack(
        [
            torch.stack([cos * flip / (zoom * ratio), sin / zoom, shift[:, 0]], 1),
            torch.stack([-sin * flip / (zoom * ratio), cos / zoom, shift[:, 1]], 1),
        ],
        1,
    )
    grid = torch.nn.functional.affine_grid(theta, [batch, 1, SIZE, SIZE], align_corners=False)
    for scale, amplitude in ((64, 6.0), (24, 2.0)):
        bend = random_fields(2 * batch, scale, generator).view(batch, 2, SIZE, SIZE).permute(0, 2, 3, 1)
        grid = grid + bend * (dice.uniform(0, amplitude, batch) * 2 / SIZE)[:, None, None, None]
    return grid


def warp_parts(parts: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
    """Label maps (B, S, S) of whole numbers, at most 2**24, seen through a grid; mirrored beyond borders."""
    sampled = torch.nn.functional.grid_sample(
        parts[:, None].float(), grid, mode="nearest", padding_mode="reflection", align_corners=False
    )
    return sampled[:, 0].to(parts.dtype)


def warp_images(images: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
    """Images (B, S, S) seen through a grid; mirrored beyond their borders."""
    sampled = torch.nn.functional.grid_sample(
        images[:, None], grid, mode="bilinear", padding_mode="reflection", align_corners=False
    )
    return sampled[:, 0]


def _part_means(group: torch.Tensor, twin: torch.Tensor, dice: _Dice) -> torch.Tensor:
    """Mean grey value (B, 256) of each part of each scene; ``group`` and ``twin`` (B, 256) from `Scene`."""
    batch = len(group)
    is_ct = dice.chance(0.45, batch)[:, None]
    drawn = torch.multinomial(_CLASS_SHARES, batch * 512, replacement=True, generator=dice.generator)
    ct = _CLASSES[drawn].view(2, batch, 256) + 0.025 * dice.normal(2, batch, 256)
    free = dice.uniform(0.03, 1.0, 2, batch, 256)
    own = torch.where(is_ct, ct, free)
    by_group = own[0].gather(1, group % 256)
    # parts of one composite: alike in a homogeneous organ, unlike in a heart, and each group decides for
    # itself
    composite, inner = group % 1000, group >= 1000
    alike = dice.uniform(0, 1, batch, 256).gather(1, composite % 256) < 0.4
    alike &= group < CONTRASTING
    base = own[0].gather(1, composite % 256)
    nearly = base + torch.where(inner, dice.uniform(0.0, 0.06, batch, 1) * dice.normal(batch, 256), 0.0)
    mean = torch.where(alike, nearly, torch.where(inner, own[1], by_group))
    # neighbours that hardly differ: soft tissue without contrast
    common = dice.uniform(0.15, 0.85, batch, 1) + dice.log_uniform(0.015, 0.07, batch, 1) * dice.normal(
        batch, 256
    )
    pulled = dice.chance(0.45, batch, 1) & dice.chance(0.55, batch, 256)
    mean = torch.where(pulled, common, mean)
    mean = mean.gather(1, twin)
    mean[:, 0] = torch.where(dice.chance(0.8, batch), 0.0, mean[:, 0])
    return mean.clamp(0, 1.1)


def _blur(images: torch.Tensor, sigma: torch.Tensor, reach: int = 5) -> torch.Tensor:
    """Gaussian blur of images (B, S, S) with a sigma (B,) in pixels each."""
    offset = torch.arange(-reach, reach + 1)
    kernel = torch.exp(-(offset**2) / (2 * sigma[:, None] ** 2 + 1e-6))
    kernel = (kernel / kernel.sum(1, keepdim=True))[:, None]
    conv = torch.nn.functional.conv2d
    batch = len(images)
    out = conv(images[None], kernel[:, :, :, None], padding=(reach, 0), groups=batch)
    return conv(out, kernel[:, :, None, :], padding=(0, reach), groups=batch)[0]


def colour(
    parts: torch.Tensor, group: torch.Tensor, twin: torch.Tensor, generator: torch.Generator
) -> torch.Tensor:
    """Images (B, S, S) in 0..1 of label maps (B, S, S), as CT- or MR-like scanners and windows would show
    them.
    """
    dice, batch = _Dice(generator), len(parts)
    flat = parts.flatten(1).long()
    image = _part_means(group, twin, dice).gather(1, flat).view_as(parts)
    image = image + _texture(flat, dice).view_as(parts)
    # borders that fade out: a patch of the image seen through a wide blur
    veil = torch.sigmoid((random_fields(batch, 40, generator) - 1.0) * 4)
    veil = veil * dice.chance(0.5, batch)[:, None, None]
    image = torch.lerp(image, _blur(image, dice.uniform(2, 5, batch), 9), veil)
    image = _blur(image, dice.uniform(0.25, 1.5, batch))
    strength = dice.uniform(0.1, 0.6, batch) * dice.chance(0.4, batch)
    bias = random_fields(batch, 110, generator)
    image = image * torch.exp(0.5 * strength[:, None, None] * bias)
    image = _noise(image, dice)
    return _window(image, dice)


def degrade(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Real images (B, S, S) in 0..1 as another scanner, sequence and window would show them."""
    dice, batch = _Dice(generator), len(images)
    image = _blur(images, dice.uniform(0.05, 1.0, batch))
    strength = dice.uniform(0.1, 0.5, batch) * dice.chance(0.3, batch)
    image = image * torch.exp(0.5 * strength[:, None, None] * random_fields(batch, 110, generator))
    image = torch.where(dice.chance(0.6, batch)[:, None, None], image, _noise(image, dice))
    return _window(image, dice)


def _texture(flat: torch.Tensor, dice: _Dice) -> torch.Tensor:
    """Texture (B, S * S): each part shows one of two random fields with its own strength."""
    batch = len(flat)
    amplitude = (dice.log_uniform(0.003, 0.09, batch, 256) * dice.chance(0.6, batch, 1)).gather(1, flat)
    scales = [float(dice.log_uniform(2, 24, 1)) for _ in range(2)]
    fine, coarse = (random_fields(batch, max(2, round(s)), dice.generator).flatten(1) for s in scales)
    which = dice.chance(0.5, batch, 256).gather(1, flat)
    return amplitude * torch.where(which, fine, coarse)


def _noise(image: torch.Tensor, dice: _Dice) -> torch.Tensor:
    """Gaussian or Rician noise, white or correlated; now and then the image is seen at a lower resolution."""
    batch = len(image)
    sigma = dice.log_uniform(0.004, 0.09, batch)[:, None, None]
    first, second = (dice.normal(*image.shape) for _ in range(2))
    width = dice.uniform(0.3, 1.1, batch) * dice.chance(0.6, batch)
    smooth = _blur(first, width.clamp(min=0.05), 3)
    first = smooth / (smooth.std((1, 2), keepdim=True) + 1e-6)
    rician = torch.sqrt((image + sigma * first) ** 2 + (sigma * second) ** 2)
    noisy = torch.where(dice.chance(0.3, batch)[:, None, None], rician, image + sigma * first)
    factor = float(dice.uniform(0.3, 0.9, 1))
    small = torch.nn.functional.interpolate(
        noisy[:, None], scale_factor=factor, mode="bilinear", align_corners=False, antialias=True
    )
    low = torch.nn.functional.interpolate(small, size=image.shape[1:], mode="bilinear", align_corners=False)[
        :, 0
    ]
    return torch.where(dice.chance(0.4, batch)[:, None, None], low, noisy)


def _window(image: torch.Tensor, dice: _Dice) -> torch.Tensor:
    """Gamma, inversion, and a display window that may clip."""
    batch = len(image)
    image = image.clamp(min=0) ** torch.exp(0.3 * dice.normal(batch))[:, None, None]
    image = torch.where(dice.chance(0.12, batch)[:, None, None], 1 - image, image)
    low = dice.uniform(-0.05, 0.2, batch) * dice.chance(0.6, batch)
    high = dice.uniform(0.75, 1.3, batch)
    image = (image - low[:, None, None]) / (high - low)[:, None, None]
    # eight bits, as the predictor hands the slice
    return (image.clamp(0, 1) * 255).round() / 255
