"""Shapes the phantom is built of. Each gives a signed distance in mm: negative inside, about true near 0.

Coordinates are LPS mm (x to the patient's left, y to posterior, z to superior), float32 arrays (N,).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

__all__ = ["Array", "Cut", "Ellipsoid", "Shape", "Tube", "Union", "rotation"]

Array = npt.NDArray[np.float32]
Point = tuple[float, float, float]

_REACH = 6.0
"""Distances beyond this many mm outside a shape's bounding box are not computed: nothing depends on them."""


class Shape(Protocol):
    """Something with an inside."""

    def distance(self, x: Array, y: Array, z: Array) -> Array:
        """Signed distance in mm of the points (N,), negative inside."""
        ...

    def bounds(self) -> tuple[Point, Point]:
        """Corners of a box in LPS mm that holds the shape."""
        ...


def rotation(degrees_xyz: Point) -> npt.NDArray[np.float64]:
    """Rotation matrix (3, 3) by angles in degrees about x, then y, then z."""
    a, b, c = np.deg2rad(degrees_xyz)
    about_x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    about_y = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    about_z = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    return np.asarray(about_z @ about_y @ about_x)


@dataclass(frozen=True)
class Ellipsoid:
    """An ellipsoid; ``degrees`` turns it about x, y, z; ``power`` above 2 makes it boxier."""

    centre: Point
    radii: Point
    degrees: Point = (0.0, 0.0, 0.0)
    power: float = 2.0

    def distance(self, x: Array, y: Array, z: Array) -> Array:
        turn = rotation(self.degrees).T.astype(np.float32)
        offset = (x - self.centre[0], y - self.centre[1], z - self.centre[2])
        level = np.zeros_like(x)
        for row, radius in zip(turn, self.radii, strict=True):
            along = (row[0] * offset[0] + row[1] * offset[1] + row[2] * offset[2]) / np.float32(radius)
            level += along * along if self.power == 2.0 else np.abs(along) ** np.float32(self.power)
        scale = np.float32(min(self.radii))
        return (level ** np.float32(1 / self.power) - 1) * scale

    def bounds(self) -> tuple[Point, Point]:
        reach = max(self.radii) * (1.0 if self.power == 2.0 else 1.5)
        low, high = (tuple(c + sign * reach for c in self.centre) for sign in (-1, 1))
        return (low[0], low[1], low[2]), (high[0], high[1], high[2])


@dataclass(frozen=True)
class Tube:
    """A tube along straight pieces through ``points``, with a radius in mm at each of them."""

    points: Sequence[Point]
    radii: Sequence[float]

    def distance(self, x: Array, y: Array, z: Array) -> Array:
        nearest = np.full_like(x, np.inf)
        for start, end, r0, r1 in zip(
            self.points[:-1], self.points[1:], self.radii[:-1], self.radii[1:], strict=True
        ):
            step = np.subtract(end, start).astype(np.float32)
            offset = (x - start[0], y - start[1], z - start[2])
            along = (offset[0] * step[0] + offset[1] * step[1] + offset[2] * step[2]) / (step @ step)
            along = np.clip(along, 0, 1)
            gap = sum((o - along * s) ** 2 for o, s in zip(offset, step, strict=True))
            nearest = np.minimum(nearest, np.sqrt(gap) - (r0 + along * np.float32(r1 - r0)))
        return nearest.astype(np.float32)

    def bounds(self) -> tuple[Point, Point]:
        reach = max(self.radii)
        low, high = np.min(self.points, axis=0) - reach, np.max(self.points, axis=0) + reach
        return (low[0], low[1], low[2]), (high[0], high[1], high[2])


@dataclass(frozen=True)
class Union:
    """Shapes melted into one; ``melt`` in mm rounds the seams (polynomial smooth minimum, Quilez)."""

    parts: Sequence[Shape]
    melt: float = 4.0

    def distance(self, x: Array, y: Array, z: Array) -> Array:
        whole = self.parts[0].distance(x, y, z)
        for part in self.parts[1:]:
            other = part.distance(x, y, z)
            share = np.clip(0.5 + 0.5 * (other - whole) / self.melt, 0, 1)
            whole = other + share * (whole - other) - self.melt * share * (1 - share)
        return whole

    def bounds(self) -> tuple[Point, Point]:
        lows, highs = zip(*(part.bounds() for part in self.parts), strict=True)
        low, high = np.min(lows, axis=0) - self.melt, np.max(highs, axis=0) + self.melt
        return (low[0], low[1], low[2]), (high[0], high[1], high[2])


@dataclass(frozen=True)
class Cut:
    """A shape less others, with a gap in mm between them."""

    shape: Shape
    away: Sequence[Shape]
    gap: float = 0.0

    def distance(self, x: Array, y: Array, z: Array) -> Array:
        rest = self.shape.distance(x, y, z)
        for other in self.away:
            rest = np.maximum(rest, self.gap - other.distance(x, y, z))
        return rest

    def bounds(self) -> tuple[Point, Point]:
        return self.shape.bounds()


def near(shape: Shape, x: Array, y: Array, z: Array) -> npt.NDArray[np.bool_]:
    """Which points (N,) lie in the shape's bounding box or close to it."""
    low, high = shape.bounds()
    inside = (z >= low[2] - _REACH) & (z <= high[2] + _REACH)
    if inside.any():
        for values, lo, hi in ((x, low[0], high[0]), (y, low[1], high[1])):
            inside &= (values >= lo - _REACH) & (values <= hi + _REACH)
    return inside
