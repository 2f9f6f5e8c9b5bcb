"""Small labelled volumes of rings and discs on disk: something that `nano` can be taught in seconds."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np

from napari_sam_med.evaluation.cases import Case

RING, DISC = 1, 2


def write_case(folder: Path, seed: int, depth: int = 6, split: str = "") -> Case:
    """A volume whose organ 1 is a bright disc together with the dark ring around it, and 2 a grey disc."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:64, :72]
    image = rng.normal(100, 6, (depth, 64, 72))
    labels = np.zeros(image.shape, np.uint8)
    for z in range(1, depth):  # the first slice shows nothing
        radius = 9 + z
        apart = np.hypot(x - 24 - seed % 3, y - 30)
        image[z][apart < radius] = 40
        image[z][apart < 0.55 * radius] = 220
        labels[z][apart < radius] = RING
        other = np.hypot(x - 54, y - 20 - seed % 4) < 8
        image[z][other] = 160
        labels[z][other] = DISC
    folder.mkdir(parents=True, exist_ok=True)
    name = f"scan{seed}"
    paths = folder / f"{name}.nii.gz", folder / f"{name}_labels.nii.gz"
    for path, array in zip(paths, (image.astype(np.int16), labels), strict=True):
        nib.save(nib.Nifti1Image(array.transpose(2, 1, 0), np.diag((-1.2, -1.2, 4.0, 1.0))), path)
    return Case(name, paths[0].name, *paths, '{"1": "ring", "2": "disc"}', split, name)
