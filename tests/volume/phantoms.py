"""Affines of every orientation, and small scans to lay them on."""

from __future__ import annotations

from itertools import permutations, product
from pathlib import Path

import nibabel as nib
import numpy as np
import numpy.typing as npt
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

ORIENTATIONS = ["".join(codes) for order in permutations(("LR", "PA", "IS")) for codes in product(*order)]
CODE_PAIRS = [(0, 1), (1, 0), (1, 1), (2, 1), (4, 2)]  # sform, qform; the last two disagree in their meaning


def affine_of(
    codes: str,
    spacing: tuple[float, float, float],
    tilt: tuple[float, float, float] = (0.0, 0.0, 0.0),
    origin: tuple[float, float, float] = (10.5, -20.25, 30.0),
) -> npt.NDArray[np.float64]:
    """Affine whose axes i, j, k point to `codes`, tilted by small angles in radians."""
    axes = np.zeros((3, 3))
    for column, code in enumerate(codes):
        axes["LRPAIS".index(code) // 2, column] = 1.0 if code in "RAS" else -1.0
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", tilt).as_matrix() @ axes * spacing
    affine[:3, 3] = origin
    return affine


_SPACING = st.sampled_from([0.5, 0.7421875, 1.0, 1.5, 3.0, 5.0])
_TILT = st.floats(-0.5, 0.5)

affines = st.builds(
    affine_of,
    st.sampled_from(ORIENTATIONS),
    st.tuples(_SPACING, _SPACING, _SPACING),
    st.one_of(st.just((0.0, 0.0, 0.0)), st.tuples(_TILT, _TILT, _TILT)),
    st.tuples(*[st.floats(-300, 300, width=32)] * 3),
)
shapes = st.tuples(*[st.integers(1, 6)] * 3)


def save_nifti(
    path: Path,
    array: npt.NDArray[np.generic],
    affine: npt.NDArray[np.float64] | None = None,
    codes: tuple[int, int] = (1, 1),
    kind: type = nib.Nifti1Image,
) -> Path:
    """Write an array with sform and qform codes as given."""
    image = kind(array, np.eye(4) if affine is None else affine)
    image.set_sform(image.affine, codes[0])
    image.set_qform(image.affine, codes[1])
    image.header.set_xyzt_units("mm", "sec")
    nib.save(image, path)
    return path


def ct_like(shape: tuple[int, ...] = (9, 8, 7), seed: int = 0) -> npt.NDArray[np.int16]:
    """Random int16 values from -1000 to 1000, all corners of the range present."""
    array = np.random.default_rng(seed).integers(-1000, 1001, shape, dtype=np.int16)
    array.flat[0], array.flat[-1] = -1000, 1000
    return array
