"""Invented scans of a body: another shape, another scanner, another field of view each time.

Mean Hounsfield values of organs follow published ones, unenhanced and in the arterial, portal venous and
late phase (Lamba et al., AJR 203:1013, 2014; Johnson et al., Radiology 2009 for the phases), with wide
scatter: what is to be learnt is which organ is brighter than which, not a number.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage

from napari_sam_med.training.class_head_bodies import IGNORED, KINDS, OBJECTS, STEP_MM, Body
from napari_sam_med.volume.grid import Grid
from napari_sam_med.volume.volume import Volume

__all__ = ["InventedScan", "invent_scan"]

Floats = npt.NDArray[np.float32]

_K = {kind: code for code, kind in enumerate(KINDS)}
_PLAIN: dict[str, tuple[float, float]] = {
    "air": (-1000, 5),
    "fat": (-100, 12),
    "skin": (5, 25),
    "muscle": (55, 8),
    "bone": (560, 160),
    "marrow": (200, 70),
    "lung": (-830, 60),
    "gas": (-950, 30),
    "fluid": (8, 8),
    "content": (25, 25),
    "bowel": (40, 12),
    "heart": (45, 6),
    "artery": (41, 6),
    "vein": (40, 6),
    "cord": (36, 6),
    "disc": (80, 15),
    "bladder": (6, 6),
    "uterus": (45, 10),
    "couch": (-350, 200),
    "spleen": (46, 6),
    "kidney": (32, 5),
    "medulla": (31, 5),
    "gallbladder": (12, 9),
    "esophagus": (38, 10),
    "liver": (55, 10),
    "stomach": (40, 12),
    "pancreas": (40, 8),
    "adrenal": (22, 14),
}
"""Mean and scatter between scans, HU, without contrast."""
_GAIN: dict[str, tuple[float, float, float]] = {
    "artery": (260, 115, 70),
    "vein": (50, 110, 70),
    "heart": (180, 110, 65),
    "kidney": (130, 145, 115),
    "medulla": (30, 110, 125),
    "spleen": (75, 75, 45),
    "liver": (12, 55, 35),
    "pancreas": (60, 55, 30),
    "adrenal": (50, 50, 30),
    "stomach": (30, 45, 25),
    "bowel": (35, 50, 30),
    "muscle": (5, 10, 8),
    "uterus": (40, 55, 45),
    "esophagus": (15, 25, 18),
    "fluid": (0, 0, 250),
    "marrow": (5, 15, 10),
}
"""What contrast adds in the arterial, portal venous and late phase, HU."""
_REMOVABLE = {4: 0.15, 1: 0.06, 2: 0.05, 3: 0.05, 12: 0.08, 13: 0.08}
"""Organs that a patient may lack, and how often."""
_FRAME_MM = (6.0, 90.0)
_MOVED_MM = (13.0, 7.0, 7.0)
"""How far, along z, y, x (standard deviation)."""
_LARGE = (1, 2, 3, 4, 6, 7, IGNORED)
_SMALL = (5, 8, 9, 10, 11, 12, 13)
"""Painted after the large ones, which would hide them."""


Codes = npt.NDArray[np.uint8]
Places = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True, eq=False)
class InventedScan:
    """A scan with its objects; only a few of its slices are filled, which is all that is looked at.

    Attributes
    ----------
    volume : Volume
    objects : ndarray (z, y, x) uint8
        As `Body.objects`.
    slices : tuple of int
        The axial slices that are filled.
    """

    volume: Volume
    objects: Codes
    slices: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class _Rows:
    """Which slices of a scan are made: ``at`` of ``total``, and the voxel size in mm (z, y, x)."""

    at: npt.NDArray[np.intp]
    total: int
    spacing: npt.NDArray[np.float64]

    def fields(self, n: int, size: tuple[int, int], period_mm: float, rng: np.random.Generator) -> Floats:
        """Smooth random fields (n, K, H, W) of deviation about 1 with features of `period_mm`."""
        shape = (self.total, *size)
        coarse = [
            max(3, int(np.ceil(m * mm / period_mm)) + 1) for m, mm in zip(shape, self.spacing, strict=True)
        ]
        noise = rng.standard_normal((n, *coarse)).astype(np.float32) * 1.4
        place = (self.at + 0.5) / self.total * (coarse[0] - 1)
        lower = place.astype(int)
        share = (place - lower).astype(np.float32)[None, :, None, None]
        upper = np.minimum(lower + 1, coarse[0] - 1)
        planes = torch.from_numpy(noise[:, lower] * (1 - share) + noise[:, upper] * share)
        smooth: Floats = torch.nn.functional.interpolate(planes, size=size, mode="bicubic").numpy()
        return smooth


def invent_scan(
    body: Body, rng: np.random.Generator, n_slices: int = 6, *, rearranged: float = 0.0
) -> InventedScan:
    """A scan of a body after random changes of shape, field of view, contrast and noise.

    Left and right are never exchanged.

    Parameters
    ----------
    body : Body
    rng : Generator
    n_slices : int
        How many slices are filled.
    rearranged : float
        How often every organ is moved and scaled by itself.
    """
    spacing = np.array([rng.choice((2.0, 3.0, 5.0, 7.0)), *([rng.uniform(1.6, 3.2)] * 2)])
    scale = rng.uniform(0.88, 1.14) * rng.uniform(0.93, 1.07, 3)
    whole = int(np.ceil(body.tissue.shape[0] * STEP_MM * scale[0] / spacing[0]))
    # any part of the body along z: what share of the scan lies below a slice says little
    length = whole if rng.random() < 0.25 else max(n_slices, round(rng.uniform(0.25, 1.0) * whole))
    start = int(rng.integers(0, max(whole - length, 0) + 1))
    chosen = np.sort(rng.choice(length, min(n_slices, length), replace=False))
    rows = _Rows(start + chosen, whole, spacing)
    tissue, objects = _sampled(body, rng, rows, scale, rearranged)
    _change(tissue, objects, rng, rows)
    tissue, objects = _fattened(tissue, objects, rng, spacing)
    tissue, objects = _seen(tissue, objects, rng, spacing)
    pixels = _scanned(tissue, objects, rng, rows)
    full = (length, *pixels.shape[1:])
    data = np.full(full, min(0, int(pixels.min())), dtype=pixels.dtype)
    truth = np.zeros(full, dtype=np.uint8)
    data[chosen], truth[chosen] = pixels, objects
    volume = Volume(data, Grid.from_zyx(full, spacing.tolist()))
    return InventedScan(volume, truth, tuple(chosen.tolist()))


def _sampled(
    body: Body, rng: np.random.Generator, rows: _Rows, scale: npt.NDArray[np.float64], rearranged: float
) -> tuple[Codes, Codes]:
    """The body scaled, turned and bent, on the slices asked for."""
    extent = np.array(body.tissue.shape) * STEP_MM
    size = np.ceil(extent * scale / rows.spacing)[1:].astype(int).tolist()
    axes = [
        (at + 0.5) * mm / s - e / 2
        for at, mm, s, e in zip(
            (rows.at, np.arange(size[0]), np.arange(size[1])), rows.spacing, scale, extent, strict=True
        )
    ]
    points = np.stack(np.meshgrid(*axes, indexing="ij")).astype(np.float32)
    turn = _rotation(rng.normal(0, np.deg2rad((5.0, 3.0, 3.0)))).astype(np.float32)
    points = np.tensordot(turn, points, axes=1)
    for period, reach in ((90.0, 8.0), (35.0, 2.5)):
        points += rng.uniform(0.3, 1.0) * reach * rows.fields(3, (size[0], size[1]), period, rng)
    index = (points + (extent / 2)[:, None, None, None]) / STEP_MM - 0.5
    tissue, objects = _at(body, index)
    if rearranged and rng.random() < rearranged:
        _rearrange(body, index, tissue, objects, rng)
    return tissue, objects


def _at(body: Body, index: Places) -> tuple[Codes, Codes]:
    """Tissue and objects at places (3, ...) of a body, in voxels."""
    z, y, x = (
        np.clip(np.rint(axis).astype(int), 0, n - 1) for axis, n in zip(index, body.tissue.shape, strict=True)
    )
    return body.tissue[z, y, x], body.objects[z, y, x]


def _rearrange(body: Body, index: Places, tissue: Codes, objects: Codes, rng: np.random.Generator) -> None:
    """Move and scale every organ by itself, in place: three bodies alone would teach three sets of places."""
    organs = np.isin(objects, _LARGE + _SMALL)
    tissue[organs] = _K["fat"]
    objects[organs] = 0
    closed = np.isin(tissue, [_K[kind] for kind in ("air", "skin", "muscle", "bone", "marrow")])
    for number in (*rng.permutation(_LARGE).tolist(), *rng.permutation(_SMALL).tolist()):
        middle = body.middle_of(number)
        shift = rng.normal(0, _MOVED_MM) / STEP_MM
        scale = np.exp(rng.normal(0, 0.12, 3))
        if middle is None:
            continue
        centre, moved, sizes = (
            np.asarray(v, np.float32)[:, None, None, None] for v in (middle, shift, scale)
        )
        own_tissue, own_objects = _at(body, centre + (index - centre - moved) / sizes)
        painted = (own_objects == number) & ~closed
        tissue[painted] = own_tissue[painted]
        objects[painted] = number


def _rotation(angles: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """About z, y, x in turn, for vectors (z, y, x)."""
    total = np.eye(3)
    for axis, angle in enumerate(angles):
        a, b = [i for i in range(3) if i != axis]
        one = np.eye(3)
        one[a, a] = one[b, b] = np.cos(angle)
        one[a, b], one[b, a] = -np.sin(angle), np.sin(angle)
        total = total @ one
    return total


def _change(tissue: Codes, objects: Codes, rng: np.random.Generator, rows: _Rows) -> None:
    """Take organs out, put bowel loops in, and gas into what is hollow, in place."""
    for number, share in _REMOVABLE.items():
        if rng.random() < share:
            tissue[objects == number] = _K["fat"]
            objects[objects == number] = 0
    size = (tissue.shape[1], tissue.shape[2])
    noise = rows.fields(1, size, 26.0, rng)[0]
    reach = round(32 / rows.spacing[1])
    inner = np.stack(
        [ndimage.distance_transform_edt(np.pad(p, 1))[1:-1, 1:-1] > reach for p in tissue != _K["air"]]
    )
    # more of it in the lower abdomen
    needed = 0.2 + 1.0 * (rows.at / rows.total)[:, None, None]
    loops = (noise > needed) & inner & (tissue == _K["fat"]) & (objects == 0)
    tissue[loops] = _K["bowel"]
    objects[loops] = OBJECTS["bowel"]
    tissue[loops & (noise > needed + 0.35)] = rng.choice((_K["content"], _K["content"], _K["bowel"]))
    gas = rows.fields(1, size, 20.0, rng)[0]
    tissue[(tissue == _K["content"]) & (gas > rng.uniform(0.2, 2.0))] = _K["gas"]


def _fattened(
    tissue: Codes, objects: Codes, rng: np.random.Generator, spacing: npt.NDArray[np.float64]
) -> tuple[Codes, Codes]:
    """Fat added under the skin, more on some sides than on others."""
    thickness = 0.0 if rng.random() < 0.35 else rng.gamma(2.0, 8.0)
    around = round((thickness * 1.5 + 12) / spacing[1])
    pad = ((0, 0), (around, around), (around, around))
    tissue, objects = np.pad(tissue, pad), np.pad(objects, pad)
    y, x = np.mgrid[-1 : 1 : tissue.shape[1] * 1j, -1 : 1 : tissue.shape[2] * 1j]
    amount = thickness * (1 + 0.35 * np.cos(np.arctan2(y, x) - rng.uniform(0, 2 * np.pi)))
    for plane in tissue:
        outside = ndimage.distance_transform_edt(plane == _K["air"]) * spacing[1]
        plane[(outside > 0) & (outside <= amount)] = _K["fat"]
    return tissue, objects


def _seen(
    tissue: Codes, objects: Codes, rng: np.random.Generator, spacing: npt.NDArray[np.float64]
) -> tuple[Codes, Codes]:
    """The field of view: air around the body, and a couch; or sides of the body cut off."""
    lines, columns = (np.flatnonzero((tissue > 0).any(axis)) for axis in ((0, 2), (0, 1)))
    margins = rng.uniform(*_FRAME_MM, 4) if rng.random() < 0.8 else rng.uniform(-60.0, 20.0, 4)
    top, left, bottom, right = np.round(margins / spacing[1]).astype(int)
    frame = max(0, top, left, bottom, right)
    y0, y1 = lines[0] + frame - top, lines[-1] + 1 + frame + bottom
    x0, x1 = columns[0] + frame - left, columns[-1] + 1 + frame + right
    pad = ((0, 0), (frame, frame), (frame, frame))
    tissue, objects = (np.pad(codes, pad)[:, y0:y1, x0:x1].copy() for codes in (tissue, objects))
    if rng.random() < 0.6 and bottom > 5:
        edge = tissue.shape[2] // 6
        tissue[:, -bottom + 2 : -bottom + 4, edge:-edge] = _K["couch"]
    return tissue, objects


def _scanned(
    tissue: Codes, objects: Codes, rng: np.random.Generator, rows: _Rows
) -> npt.NDArray[np.int16] | npt.NDArray[np.uint8]:
    """Values of the voxels: CT mostly, sometimes windowed to 8 bits, sometimes as of an MR scanner."""
    style = rng.choice(("ct", "picture", "mr"), p=(0.8, 0.08, 0.12))
    means, scatter = _mr_levels(rng) if style == "mr" else _ct_levels(rng)
    values = means[tissue]
    # no two organs of a tissue are alike: aorta and iliac arteries, right and left kidney
    values += (rng.normal(0, 1, 256).astype(np.float32) * 4)[objects] * (tissue != _K["air"])
    size = (tissue.shape[1], tissue.shape[2])
    values += scatter[tissue] * rows.fields(1, size, 9.0, rng)[0]
    sharpness = rng.uniform(0.4, 0.9)
    values = ndimage.gaussian_filter(values, (0, sharpness, sharpness))
    grain = ndimage.gaussian_filter(rng.standard_normal(values.shape).astype(np.float32), (0, 0.6, 0.6))
    sigma = rng.uniform(4, 22) if style != "mr" else rng.uniform(5, 40)
    values += sigma * grain / max(float(grain.std()), 1e-6)
    if style == "mr":
        bias = np.exp(rng.uniform(0, 0.35) * rows.fields(1, size, 160.0, rng)[0])
        return np.asarray(np.clip(np.rint(np.abs(values * bias)), 0, 4000), dtype=np.int16)
    if style == "picture":
        low, high = -160 + rng.normal(0, 25), 240 + rng.normal(0, 40)
        return np.asarray(np.clip((values - low) / (high - low) * 255, 0, 255), dtype=np.uint8)
    return np.asarray(np.clip(np.rint(values), -1024, 3071), dtype=np.int16)


def _ct_levels(rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Mean and inner scatter of each tissue, HU."""
    phase = rng.choice(4, p=(0.35, 0.15, 0.35, 0.15))  # none, arterial, portal venous, late
    strength = rng.uniform(0.5, 1.3)
    means = np.zeros(len(KINDS), dtype=np.float32)
    for kind, (mean, scatter) in _PLAIN.items():
        gain = 0.0 if phase == 0 else _GAIN.get(kind, (0.0, 0.0, 0.0))[phase - 1] * strength
        means[_K[kind]] = mean + rng.normal(0, scatter) + gain * rng.uniform(0.8, 1.2)
    if rng.random() < 0.25:
        means[_K["content"]] = rng.uniform(80, 350)  # drunk contrast medium
    if rng.random() < 0.2:
        means[_K["liver"]] -= rng.uniform(10, 45)  # fat in the liver
    inner_scatter: Floats = np.full(len(KINDS), 5.0, dtype=np.float32)
    for kind, inner in (("air", 2), ("lung", 40), ("bone", 120), ("marrow", 50), ("content", 25), ("fat", 8)):
        inner_scatter[_K[kind]] = inner
    return means, inner_scatter


def _mr_levels(rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Any brightness for each tissue; air, lung and cortical bone dark."""
    means: Floats = rng.uniform(120, 900, len(KINDS)).astype(np.float32)
    fluid = float(rng.uniform(80, 1000))
    dark: dict[str, float] = {"air": 4, "lung": 40, "gas": 10, "bone": 60, "couch": 4}
    bright = dict.fromkeys(("fluid", "gallbladder", "bladder"), fluid)
    for kind, level in (dark | bright).items():
        means[_K[kind]] = level
    return means, np.where(means < 70, 2.0, 15.0).astype(np.float32)
