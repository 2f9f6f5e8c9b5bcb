"""Make the bundled sample: an invented abdominal CT with its 13 organs, labels and prompts.

``python -m napari_sam_med.sample_data.phantom [FOLDER]`` writes it again; a test compares it with the
bundled files.
"""

from __future__ import annotations

import gzip
import json
import os
import sys
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
from scipy import ndimage

from napari_sam_med.sample_data import LABELS_NAME, PROMPTS_NAME, VOLUME_NAME
from napari_sam_med.sample_data.anatomy import Tissue, body_and_wall, tissues
from napari_sam_med.sample_data.shapes import Array, near, rotation
from napari_sam_med.volume.formats.label_table import to_xml
from napari_sam_med.volume.organs import OrganTable

__all__ = ["SHAPE_IJK", "make_affine", "make_phantom", "make_prompts", "write_phantom"]

SHAPE_IJK = (192, 160, 48)
SPACING_IJK = (1.6, 1.6, 4.0)
TILT_DEGREES = (4.0, -2.5, 3.0)
SEED = 20240613
NOISE_HU = 11.0
PROMPTED = {6: "liver", 1: "spleen", 2: "right kidney", 3: "left kidney", 8: "aorta"}
TWICE_PROMPTED = (6, 1)
"""Organs whose shape changes so much from slice to slice that their largest slice has a box as well."""
NOT_PART = {6: 2}
"""Organ that lies inside the box of another: a click in its middle says that it is no part of that one."""
_SUB = 2
"""Samples per voxel and axis: the share of each tissue makes the partial volume."""


def make_affine() -> npt.NDArray[np.float64]:
    """Voxel (i, j, k) to RAS mm (4, 4): stored LAS, tilted by a few degrees, exact in float32."""
    turn = rotation(TILT_DEGREES)
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag([-SPACING_IJK[0], SPACING_IJK[1], SPACING_IJK[2]])
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(SHAPE_IJK) - 1) / 2) + (12.5, -30.0, 214.0)
    return affine.astype(np.float32).astype(np.float64)


def make_phantom() -> tuple[npt.NDArray[np.int16], npt.NDArray[np.uint8]]:
    """Hounsfield values and organ labels (192, 160, 48), in the file's own axes."""
    hounsfield = np.zeros(SHAPE_IJK, dtype=np.float32)
    labels = np.zeros(SHAPE_IJK, dtype=np.uint8)
    painted = tissues()
    grain = _coarse_noise()
    for k in range(SHAPE_IJK[2]):
        hounsfield[..., k], labels[..., k] = _sample_slice(k, painted, grain[..., k])
    return _as_scanned(hounsfield), labels


def make_prompts(labels: npt.NDArray[np.uint8]) -> dict[str, Any]:
    """Prompts file: boxes for five organs on the axial slice that shows all of them best, and a few more."""
    areas = np.array([(labels == class_id).sum(axis=(0, 1)) for class_id in PROMPTED], dtype=float)
    best = int(np.argmax((areas / areas.max(axis=1, keepdims=True)).min(axis=0)))
    objects = []
    for class_id, name in PROMPTED.items():
        slices = [best]
        if class_id in TWICE_PROMPTED:
            slices.append(int(np.argmax((labels == class_id).sum(axis=(0, 1)))))
        entry: dict[str, Any] = {"label": class_id, "name": name}
        entry["boxes"] = [_box(labels[..., k] == class_id, k) for k in slices]
        if class_id in NOT_PART:
            at = [round(float(i.mean())) for i in np.nonzero(labels[..., best] == NOT_PART[class_id])]
            entry["points"] = [{"at": [*at, best], "positive": False}]
        objects.append(entry)
    return {"version": 1, "space": "voxel", "objects": objects}


def _box(organ: npt.NDArray[np.bool_], k: int) -> dict[str, list[int]]:
    """Box of an organ's slice k (I, J), a voxel wider on every side."""
    columns, rows = np.nonzero(organ)
    low = [int(columns.min()) - 1, int(rows.min()) - 1, k]
    high = [int(columns.max()) + 1, int(rows.max()) + 1, k]
    return {"from": low, "to": high}


def write_phantom(folder: str | os.PathLike[str]) -> list[Path]:
    """Write volume, labels and prompts into `folder`; the same bytes on every run of one machine."""
    folder = Path(folder)
    hounsfield, labels = make_phantom()
    affine = make_affine()
    volume = nib.Nifti1Image(hounsfield, affine)
    volume.header["descrip"] = b"napari-sam-med abdomen phantom, invented"
    organs = nib.Nifti1Image(labels, affine)
    organs.header.set_intent("label")
    organs.header.extensions.append(nib.nifti1.Nifti1Extension(0, to_xml(OrganTable.btcv())))
    for image in (volume, organs):
        image.set_sform(affine, code=1)
        image.set_qform(affine, code=1)
        image.header.set_xyzt_units("mm")
    paths = [folder / VOLUME_NAME, folder / LABELS_NAME, folder / PROMPTS_NAME]
    for path, image in zip(paths, (volume, organs), strict=False):
        # no time and no name in the gzip header, so that equal voxels are equal bytes
        with open(path, "wb") as raw, gzip.GzipFile("", "wb", 9, raw, mtime=0) as packed:
            packed.write(image.to_bytes())
    paths[2].write_text(json.dumps(make_prompts(labels), indent=1) + "\n", encoding="utf-8")
    return paths


def _points_of_slice(k: int) -> tuple[Array, Array, Array]:
    """LPS mm about the scan's centre of the sub-samples of slice k, each (192 s, 160 s, s) flattened."""
    linear = make_affine()[:3, :3]
    steps = (np.arange(_SUB) + 0.5) / _SUB - 0.5
    i = (np.arange(SHAPE_IJK[0])[:, None] + steps).ravel() - (SHAPE_IJK[0] - 1) / 2
    j = (np.arange(SHAPE_IJK[1])[:, None] + steps).ravel() - (SHAPE_IJK[1] - 1) / 2
    index = np.stack(np.meshgrid(i, j, k + steps - (SHAPE_IJK[2] - 1) / 2, indexing="ij"))
    ras = np.tensordot(linear, index, axes=1).reshape(3, -1).astype(np.float32)
    return -ras[0], -ras[1], ras[2]


def _sample_slice(
    k: int, painted: list[Tissue], grain: Array
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.uint8]]:
    x, y, z = _points_of_slice(k)
    fine = np.repeat(np.repeat(grain, _SUB, axis=0), _SUB, axis=1)
    texture = np.repeat(fine[..., None], _SUB, axis=2).ravel()
    values, cavity = _paint_wall(x, y, z, texture)
    classes = np.zeros(len(x), dtype=np.uint8)
    wx, wy, wz = _warped(x, y, z)
    inside_cavity = cavity < -1.5
    for tissue in painted:
        where = np.flatnonzero(near(tissue.shape, wx, wy, wz))
        if not tissue.in_wall:
            where = where[inside_cavity[where]]
        if len(where):
            _paint(tissue, where, (wx[where], wy[where], wz[where]), texture, values, classes)
    nx, ny, _ = SHAPE_IJK
    per_voxel = (nx, _SUB, ny, _SUB, _SUB)
    mean = values.reshape(per_voxel).mean(axis=(1, 3, 4))
    samples = classes.reshape(per_voxel).transpose(0, 2, 1, 3, 4).reshape(nx, ny, -1)
    return mean.astype(np.float32), _majority(samples)


def _paint_wall(x: Array, y: Array, z: Array, texture: Array) -> tuple[Array, Array]:
    """Air, couch, skin, fat, muscle, cavity fat and lungs; also the distance to the cavity's surface."""
    body = body_and_wall(x, y, z)
    values = np.full_like(x, -1000)
    couch = np.abs(y - 103 + (x / 40) ** 2 * 0.6) < 2.5
    values[couch & (np.abs(x) < 128)] = -420
    values[body.skin < 0] = 10
    values[body.skin < -2.2] = -104
    values[body.muscle < 0] = 56
    stripe = np.abs(body.muscle + 6.5) < 1.1  # fat between the flank's muscles
    values[stripe & (np.abs(x) > 45)] = -40
    values[body.cavity < 0] = -98
    values[body.lung < 0] = -850 + 30 * texture[body.lung < 0]
    return values, np.maximum(body.cavity, -body.lung)


def _paint(
    tissue: Tissue,
    where: npt.NDArray[np.intp],
    points: tuple[Array, Array, Array],
    texture: Array,
    values: Array,
    classes: npt.NDArray[np.uint8],
) -> None:
    distance = tissue.shape.distance(*points)
    inside = distance < 0
    where, distance, y = where[inside], distance[inside], points[1][inside]
    brightness = np.full(len(where), tissue.hounsfield, dtype=np.float32)
    deep = np.zeros(len(where), dtype=bool)
    for depth, hounsfield in tissue.shells:
        deep = distance < -depth
        brightness[deep] = hounsfield
    brightness += tissue.grain * texture[where] * (deep if tissue.grain > 20 else 1)
    if tissue.air_above_y is not None:
        brightness[deep & (y < tissue.air_above_y)] = -960
    values[where] = brightness
    classes[where] = tissue.class_id


def _warped(x: Array, y: Array, z: Array) -> tuple[Array, Array, Array]:
    """Coordinates bent by a few mm, so that no organ is a perfect ellipsoid."""
    bent = (
        x + 2.2 * np.sin(y / 17 + z / 31) + 1.2 * np.sin(z / 13 + y / 9),
        y + 2.2 * np.sin(x / 19 - z / 27) + 1.2 * np.sin(x / 10 + z / 15),
        z + 2.5 * np.sin(x / 23 + y / 21),
    )
    return bent[0].astype(np.float32), bent[1].astype(np.float32), bent[2].astype(np.float32)


def _majority(samples: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Class with the most sub-samples (nx, ny, n) -> (nx, ny); on a tie the smaller one."""
    best = np.zeros(samples.shape[:2], dtype=np.uint8)
    most = (samples == 0).sum(axis=-1)
    for class_id in np.unique(samples):
        count = (samples == class_id).sum(axis=-1)
        better = count > most
        best[better], most[better] = class_id, count[better]
    return best


def _coarse_noise() -> npt.NDArray[np.float32]:
    noise = np.random.default_rng(SEED).standard_normal(SHAPE_IJK).astype(np.float32)
    smooth = ndimage.gaussian_filter(noise, (2.2, 2.2, 0.9))
    return np.asarray(smooth / smooth.std(), dtype=np.float32)


def _as_scanned(hounsfield: npt.NDArray[np.float32]) -> npt.NDArray[np.int16]:
    """Blur by the scanner's point spread and add noise, correlated in the slice as a body kernel's is."""
    blurred = ndimage.gaussian_filter(hounsfield, (0.55, 0.55, 0))
    noise = np.random.default_rng(SEED + 1).standard_normal(SHAPE_IJK).astype(np.float32)
    noise = ndimage.gaussian_filter(noise, (0.75, 0.75, 0))
    noise *= NOISE_HU / noise.std()
    noise *= np.where(blurred < -900, 0.6, 1.0)
    return np.asarray(np.clip(np.rint(blurred + noise), -1024, 3071), dtype=np.int16)


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent
    for path in write_phantom(folder):
        sys.stdout.write(f"{path}: {path.stat().st_size} bytes\n")


if __name__ == "__main__":
    main()
