"""Organ-like outlines as depth fields: positive inside, 0 on the border, about 1 at the centre.

Every outline is drawn in its own coordinates u, v (-1..1 over its half axes), so that one level of a field
is the outline itself and higher levels are shells nested in it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["OUTLINES", "butterfly", "smooth_noise"]

Field = npt.NDArray[np.floating[Any]]


def smooth_noise(rng: np.random.Generator, size: int, scale: float) -> Field:
    """Smooth random field (size, size) with features of about ``scale`` pixels, mean 0, deviation 1."""
    n = int(np.ceil(size / scale)) + 3
    coarse = rng.standard_normal((n, n)).astype(np.float32)
    position = np.arange(size, dtype=np.float32)[:, None] / scale + 1 + rng.uniform(0, 0.9)
    distance = np.abs(position - np.arange(n, dtype=np.float32))
    # cubic B-spline: two small matrix products instead of an image resize
    near = 2 / 3 - distance**2 * (1 - distance / 2)
    weight = np.where(distance < 1, near, np.maximum(2 - distance, 0) ** 3 / 6)
    field: Field = (weight @ coarse @ weight.T).astype(np.float32)
    field -= field.mean()
    field /= field.std() + 1e-6
    return field


def _blob(rng: np.random.Generator, u: Field, v: Field) -> Field:
    angle = np.arctan2(v, u)
    radius = np.ones_like(u)
    roughness = rng.uniform(0.02, 0.35)
    for k in range(2, 7):
        radius += roughness / k * rng.standard_normal() * np.cos(k * angle + rng.uniform(0, 2 * np.pi))
    return 1 - np.hypot(u, v) / np.maximum(radius, 0.2)


def _superellipse(rng: np.random.Generator, u: Field, v: Field) -> Field:
    p = rng.uniform(1.4, 5.0)
    return 1 - (np.abs(u) ** p + np.abs(v) ** p) ** (1 / p)


def _bean(rng: np.random.Generator, u: Field, v: Field) -> Field:
    bend = rng.uniform(0.3, 1.1)
    return 1 - np.hypot(u, (v + bend * (u**2 - 0.45)) / rng.uniform(0.45, 0.8))


def _crescent(rng: np.random.Generator, u: Field, v: Field) -> Field:
    bite = np.hypot(u + rng.uniform(-0.3, 0.3), v + rng.uniform(0.5, 1.0)) / rng.uniform(0.7, 1.0) - 1
    depth: Field = np.minimum(1 - np.hypot(u, v), bite) * 1.6
    return depth


def _lobes(rng: np.random.Generator, u: Field, v: Field) -> Field:
    depth = np.full_like(u, -9.0)
    for _ in range(rng.integers(2, 4)):
        x, y = rng.uniform(-0.5, 0.5, 2)
        depth = np.maximum(depth, 1 - np.hypot(u - x, v - y) / rng.uniform(0.35, 0.65))
    return depth


def _curve_depth(u: Field, v: Field, points: Field, radii: Field) -> Field:
    depth = np.full_like(u, -9.0)
    for (x, y), r in zip(points, radii, strict=True):
        depth = np.maximum(depth, 1 - np.hypot(u - x, v - y) / r)
    return depth


def _worm(rng: np.random.Generator, u: Field, v: Field) -> Field:
    t = np.linspace(0, 1, 14)[:, None]
    a, b, c, d = np.clip(rng.normal(0, 0.7, (4, 2)), -0.85, 0.85)
    a[0], d[0] = -0.85, 0.85
    curve = (1 - t) ** 3 * a + 3 * t * (1 - t) ** 2 * b + 3 * t**2 * (1 - t) * c + t**3 * d
    r0, r1, r2 = rng.uniform(0.1, 0.32, 3)
    radii = (r0 * (1 - t) ** 2 + 2 * r1 * t * (1 - t) + r2 * t**2)[:, 0]
    return _curve_depth(u, v, curve.astype(np.float32), radii.astype(np.float32))


def butterfly(rng: np.random.Generator, u: Field, v: Field) -> Field:
    """Two mirrored horns joined by a bar, as the grey matter of the spinal cord."""
    t = np.linspace(-1, 1, 9)
    thick = rng.uniform(0.14, 0.26)
    horn_x = rng.uniform(0.25, 0.45) + rng.uniform(0.1, 0.4) * t**2
    horn = np.stack([horn_x, 0.75 * t], 1)
    bar = np.stack([np.linspace(-0.3, 0.3, 5), np.full(5, rng.uniform(-0.1, 0.2))], 1)
    points = np.concatenate([horn, horn * [-1, 1], bar]).astype(np.float32)
    taper = thick * (1 + rng.uniform(-0.35, 0.35) * t)
    radii = np.concatenate([taper, taper, np.full(5, thick * rng.uniform(0.6, 1.0))]).astype(np.float32)
    return _curve_depth(u, v, points, radii)


def _vertebra(rng: np.random.Generator, u: Field, v: Field) -> Field:
    """A body, an arch round a canal, and three processes."""
    body = 1 - np.hypot(u / 0.6, (v + 0.45) / 0.42)
    arch = 1 - np.abs(np.hypot(u / 0.38, (v - 0.15) / 0.32) - 1) / rng.uniform(0.25, 0.45)
    tips = np.array([[-0.9, 0.3], [0.9, 0.3], [0.0, 0.95]]) * rng.uniform(0.7, 1.0)
    depth: Field = np.maximum(body, arch)
    for tip in tips:
        line = np.linspace([0.35 * np.sign(tip[0]), 0.3], tip, 6).astype(np.float32)
        depth = np.maximum(depth, _curve_depth(u, v, line, np.full(6, rng.uniform(0.08, 0.16), np.float32)))
    return depth


OUTLINES: dict[Callable[[np.random.Generator, Field, Field], Field], float] = {
    _blob: 0.36,
    _superellipse: 0.14,
    _bean: 0.12,
    _crescent: 0.08,
    _lobes: 0.10,
    _worm: 0.13,
    butterfly: 0.04,
    _vertebra: 0.03,
}
"""Functions ``(rng, u, v) -> depth`` and how often each is drawn."""
