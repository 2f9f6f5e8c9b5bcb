"""Bodies to make invented scans of: which tissue fills each voxel, and which object it belongs to.

Three of them: the bundled phantom, and the outlines of two openly licensed label maps with what they lack
filled in (wall, spine, lungs, bowel). No grey value of a scan is used.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from skimage.morphology import convex_hull_image

from napari_sam_med.sample_data.anatomy import body_and_wall, tissues
from napari_sam_med.sample_data.shapes import near
from napari_sam_med.volume.reading import read_labels

__all__ = ["IGNORED", "KINDS", "OBJECTS", "Body", "amos_body", "phantom_body", "read_bodies", "spl_body"]

Codes = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]

STEP_MM = 3.0
"""Grid of a body, all axes."""

KINDS: tuple[str, ...] = (
    *("air", "fat", "skin", "muscle", "bone", "marrow", "lung", "gas", "fluid", "content", "bowel"),
    *("heart", "artery", "vein", "cord", "disc", "bladder", "uterus", "couch"),
    *("spleen", "kidney", "medulla", "gallbladder", "esophagus", "liver", "stomach", "pancreas", "adrenal"),
)
"""Tissues that have a brightness of their own."""

OBJECTS: dict[str, int] = {
    name: number
    for number, name in enumerate(
        ("duodenum", "bladder", "uterus", "vertebra", "muscle", "heart", "bowel", "lung", "vessel", "rib"), 14
    )
}
"""Numbers of objects that are no organ of the table; they teach the class ``other``."""
IGNORED = 255
"""Belongs to an organ that the map does not tell from another one: painted, but never asked about."""

_SPL_SPACING = (2.8, 1.25, 1.25)
"""The header's 1.5 and 0.94 mm make a spleen of 17 ml and lumbar vertebrae 18 mm apart; an adult's are 33."""

_K = {kind: code for code, kind in enumerate(KINDS)}
_ORGAN_KIND = {
    1: "spleen",
    2: "kidney",
    3: "kidney",
    4: "gallbladder",
    5: "esophagus",
    6: "liver",
    7: "stomach",
    8: "artery",
    9: "vein",
    10: "vein",
    11: "pancreas",
    12: "adrenal",
    13: "adrenal",
}


@dataclass(frozen=True, eq=False)
class Body:
    """A body on a grid of `STEP_MM`, LPS+.

    Attributes
    ----------
    name : str
    tissue : ndarray (z, y, x) uint8
        Index into `KINDS`.
    objects : ndarray (z, y, x) uint8
        1 to 13 as in BTCV, those of `OBJECTS`, `IGNORED`, or 0.
    """

    name: str
    tissue: Codes
    objects: Codes

    def middle_of(self, number: int) -> tuple[float, float, float] | None:
        """Mean place (z, y, x) of an object's voxels; None where the body has none."""
        return self._middles.get(number)

    @cached_property
    def _middles(self) -> dict[int, tuple[float, float, float]]:
        numbers = [int(number) for number in np.unique(self.objects) if number]
        found = ndimage.center_of_mass(self.objects > 0, self.objects, numbers)
        return {
            number: (float(z), float(y), float(x)) for number, (z, y, x) in zip(numbers, found, strict=True)
        }


def phantom_body() -> Body:
    """The anatomy of the bundled sample, without the bends and the noise of its scan."""
    z, y, x = np.meshgrid(
        *(
            np.arange(low, high, STEP_MM, dtype=np.float32)
            for low, high in ((-126, 126), (-110, 115), (-160, 160))
        ),
        indexing="ij",
    )
    shape, points = x.shape, (x.ravel(), y.ravel(), z.ravel())
    wall = body_and_wall(*points)
    tissue = np.zeros(x.size, dtype=np.uint8)
    objects = np.zeros(x.size, dtype=np.uint8)
    for kind, filled in (
        ("skin", wall.skin < 0),
        ("fat", wall.skin < -2.2),
        ("muscle", wall.muscle < 0),
        ("fat", wall.cavity < 0),
        ("lung", wall.lung < 0),
    ):
        tissue[filled] = _K[kind]
    objects[wall.lung < 0] = OBJECTS["lung"]
    in_cavity = np.maximum(wall.cavity, -wall.lung) < -1.5
    for one in tissues():
        where = np.flatnonzero(near(one.shape, *points) & (in_cavity | one.in_wall))
        distance = one.shape.distance(*(axis[where] for axis in points))
        where, distance = where[distance < 0], distance[distance < 0]
        tissue[where] = _K[_phantom_kind(one.class_id, one.hounsfield, False)]
        for depth, hounsfield in one.shells:
            deep = where[distance < -depth]
            tissue[deep] = _K[_phantom_kind(one.class_id, hounsfield, True)]
        if one.air_above_y is not None:
            tissue[where[(distance < -one.shells[0][0]) & (points[1][where] < one.air_above_y)]] = _K["gas"]
        objects[where] = one.class_id or _phantom_object(one.hounsfield)
    return Body("phantom", tissue.reshape(shape), objects.reshape(shape))


def _phantom_kind(class_id: int, hounsfield: float, inner: bool) -> str:
    """Tissue of a part of the phantom, by its organ or its nominal brightness."""
    if hounsfield < -100:
        return "gas"
    if class_id == 4 or (class_id == 7 and inner):
        return "content" if class_id == 7 else "gallbladder"
    if class_id in (2, 3) and hounsfield < 180:
        return "medulla"
    if class_id:
        return _ORGAN_KIND[class_id]
    levels = {-70: "fat", -20: "fat", 12: "fluid", 15: "content", 28: "content", 38: "cord", 85: "disc"}
    levels |= {58: "muscle", 60: "muscle", 62: "muscle", 65: "bowel", 105: "bowel", 150: "vein"}
    if hounsfield in levels:
        return levels[int(hounsfield)]
    return "bone" if hounsfield > 300 else "marrow"


def _phantom_object(hounsfield: float) -> int:
    names = {
        62: "muscle",
        60: "muscle",
        65: "bowel",
        105: "bowel",
        150: "vessel",
        620: "vertebra",
        520: "rib",
    }
    name = names.get(int(hounsfield))
    return OBJECTS[name] if name else 0


def amos_body(path: Path) -> Body:
    """Fifteen organs of a case of AMOS; the portal vein is not among them."""
    data = _on_grid(path, read_labels(path).grid.spacing_zyx)
    objects = np.where(data <= 9, data, 0).astype(np.uint8)
    for number, target in ((10, 11), (11, 12), (12, 13), (13, 14), (14, 15), (15, 16)):
        objects[data == number] = target
    # few organs lie low in the abdomen: one outline for all slices
    return _filled("amos", objects, _invented_spine(objects), reach_mm=1000.0)


def spl_body(path: Path) -> Body:
    """The SPL abdominal atlas; its stomach includes the duodenum and is therefore not asked about."""
    data = _on_grid(path, _SPL_SPACING)
    objects = np.zeros(data.shape, dtype=np.uint8)
    bones = (data >= 409) & (data <= 505) | (data == 600) | (data == 299)
    for target, numbers in (
        (OBJECTS["muscle"], [32, *range(131, 141), 143, 231, 233, *range(235, 242)]),
        (OBJECTS["bowel"], [9]),
        (OBJECTS["rib"], list(range(686, 693))),
        (
            OBJECTS["vessel"],
            [16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 29, *range(71, 77), *range(81, 87), 126, 128, 129],
        ),
        (1, [4]),
        (2, [51, 145]),
        (3, [52, 146]),
        (4, [10]),
        (6, [3, 151, 153]),
        (IGNORED, [13]),
        (8, [7]),
        (9, [8]),
        (10, [12, 117]),
        (11, [6]),
        (12, [111]),
        (13, [112]),
    ):
        objects[np.isin(data, numbers)] = target
    objects[bones] = OBJECTS["vertebra"]
    spine = bones | ((data >= 551) & (data <= 559))
    return _filled("spl", objects, ndimage.binary_closing(spine, iterations=2))


def _on_grid(path: Path, spacing_zyx: Sequence[float]) -> npt.NDArray[Any]:
    """A label map on the grid of a body, nearest neighbour, with room around what is labelled."""
    labels = read_labels(path)
    found = np.argwhere(np.asarray(labels.data) > 0)
    spacing = np.array(spacing_zyx)
    low, high = found.min(0) * spacing, (found.max(0) + 1) * spacing
    axes = [
        (np.arange(a - margin, b + margin, STEP_MM) / mm)
        for a, b, mm, margin in zip(low, high, spacing, (6.0, 60.0, 60.0), strict=True)
    ]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"))
    placed: npt.NDArray[Any] = ndimage.map_coordinates(labels.data, grid, order=0, mode="constant")
    return placed


def _invented_spine(objects: Codes) -> Mask:
    """A column of vertebrae behind aorta and vena cava, where a map shows none."""
    mask = np.zeros(objects.shape, dtype=bool)
    vessels = np.isin(objects, (8, 9))
    rows = [z for z in range(len(objects)) if vessels[z].any()]
    centres = np.array([np.argwhere(vessels[z]).mean(0) for z in rows])
    y, x = np.ogrid[: objects.shape[1], : objects.shape[2]]
    for z in range(len(objects)):
        cy, cx = (np.interp(z, rows, centres[:, axis]) for axis in (0, 1))
        cy += 31 / STEP_MM
        mask[z] = ((y - cy) * STEP_MM / 17) ** 2 + ((x - cx) * STEP_MM / 22) ** 2 < 1
        arch = (abs(x - cx) * STEP_MM < 24) & (y > cy) & ((y - cy) * STEP_MM < 30)
        mask[z] |= arch | ((abs(x - cx) * STEP_MM < 5) & (y > cy) & ((y - cy) * STEP_MM < 46))
    free: Mask = mask & (objects == 0)
    return free


def _filled(name: str, objects: Codes, spine: Mask, reach_mm: float = 60.0) -> Body:
    """Wall, lungs, bowel and fat around the objects of a label map."""
    organs = (objects > 0) | spine
    cavity = _cavity(organs, reach_mm)
    wall = _grown(cavity, 12.0)
    body = _grown(cavity, 26.0)
    tissue = np.zeros(objects.shape, dtype=np.uint8)
    tissue[body] = _K["fat"]
    tissue[_grown(cavity, 24.0) ^ body] = _K["skin"]
    tissue[wall] = _K["muscle"]
    tissue[cavity] = _K["fat"]
    lung = _lungs(objects, cavity, spine)
    tissue[lung] = _K["lung"]
    objects = objects.copy()
    objects[lung] = OBJECTS["lung"]
    for number, kind in _ORGAN_KIND.items():
        tissue[objects == number] = _K[kind]
    others = {"duodenum": "bowel", "bladder": "bladder", "uterus": "uterus", "muscle": "muscle"}
    others |= {"bowel": "bowel", "vessel": "artery", "rib": "bone"}
    for other, kind in others.items():
        tissue[objects == OBJECTS[other]] = _K[kind]
    tissue[objects == IGNORED] = _K["stomach"]
    _hollow(tissue, np.isin(objects, (7, IGNORED)), "content", 4.0)
    _hollow(tissue, np.isin(objects, (OBJECTS["bowel"], OBJECTS["duodenum"])), "content", 3.5)
    bone = spine & np.isin(objects, (0, OBJECTS["vertebra"]))
    tissue[bone] = _K["bone"]
    _hollow(tissue, bone, "marrow", 4.0)
    objects[bone] = OBJECTS["vertebra"]
    for number in (2, 3):
        _hollow(tissue, objects == number, "medulla", 8.0)
    return Body(name, tissue, objects)


def _cavity(organs: Mask, reach_mm: float) -> Mask:
    """Convex outline of what lies that near above or below each slice, smooth from slice to slice."""
    reach = round(reach_mm / STEP_MM)
    hulls = np.zeros(organs.shape, dtype=np.float32)
    for z in range(len(organs)):
        hulls[z] = convex_hull_image(organs[max(0, z - reach) : z + reach + 1].any(0))
    smooth = np.asarray(ndimage.gaussian_filter(hulls, (6, 2, 2)) > 0.5, dtype=bool)
    return smooth | organs


def _grown(mask: Mask, mm: float) -> Mask:
    """The mask (z, y, x) widened by `mm` within each slice."""
    return np.stack([ndimage.distance_transform_edt(~plane) * STEP_MM <= mm for plane in mask])


def _lungs(objects: Codes, cavity: Mask, spine: Mask) -> Mask:
    """What lies above the dome over liver, spleen and stomach, but for a core round the great vessels."""
    solid = np.isin(objects, (1, 2, 3, 6, 7, IGNORED))
    top = np.where(solid.any(0), len(objects) - 1 - solid[::-1].argmax(0), -1)
    near_top = ndimage.distance_transform_edt(top < 0, return_indices=True)[1]
    dome = ndimage.gaussian_filter(top[tuple(near_top)].astype(np.float32), 4)
    liver = np.flatnonzero((objects == 6).any((1, 2)))
    level = np.arange(len(objects))[:, None, None]
    above = (level > dome + 2) & (level > np.quantile(liver, 0.45))
    core = np.stack(
        [
            ndimage.distance_transform_edt(~plane) * STEP_MM < 14 if plane.any() else plane
            for plane in np.isin(objects, (5, 8, 9)) | spine
        ]
    )
    lungs: Mask = above & cavity & ~core & (objects == 0)
    return lungs


def _hollow(tissue: Codes, mask: Mask, kind: str, wall_mm: float) -> None:
    """Give what lies deeper than the wall of a mask another tissue, in place."""
    depth = ndimage.distance_transform_edt(mask) * STEP_MM
    tissue[depth > wall_mm] = _K[kind]


def read_bodies(label_maps: Mapping[str, Path] | None = None) -> Sequence[Body]:
    """The phantom, and the bodies of the label maps given by name (``amos``, ``spl``)."""
    makers = {"amos": amos_body, "spl": spl_body}
    return [phantom_body(), *(makers[name](path) for name, path in (label_maps or {}).items())]
