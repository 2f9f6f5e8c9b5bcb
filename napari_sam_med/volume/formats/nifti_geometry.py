"""Which affine of a NIfTI header to believe, and what to tell the user about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
from nibabel.spatialimages import HeaderDataError
from nibabel.volumeutils import shape_zoom_affine

from napari_sam_med.volume.geometry_doubt import GeometryDoubt
from napari_sam_med.volume.grid import MOST_SHEAR, Grid, shear_of

__all__ = ["AXES_AS_LAS", "ChosenAffine", "choose_affine", "describe_units", "geometry_warnings", "is_usable"]

AXES_AS_LAS = "alone, with its axes running to left, anterior, superior"

FloatArray = npt.NDArray[np.float64]
# voxels outside 1 micrometre to 1 metre, or a scan 10 km from the scanner, are a damaged header
_SPACING_MM = (1e-3, 1e3)
_FARTHEST_MM = 1e7


@np.errstate(all="ignore")  # damaged numbers are what is looked for
def is_usable(affine: FloatArray | None) -> bool:
    """Whether an affine (4, 4) is finite, regular, and of a size that a scan can have."""
    if affine is None or not np.isfinite(affine).all() or np.abs(affine[:3, 3]).max() > _FARTHEST_MM:
        return False
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    if spacing.min() < _SPACING_MM[0] or spacing.max() > _SPACING_MM[1]:
        return False
    return bool(abs(np.linalg.det(affine[:3, :3] / spacing)) > 1e-3)


@dataclass(frozen=True, eq=False)
class ChosenAffine:
    """What a header says of the place of its voxels.

    Attributes
    ----------
    affine : (4, 4) float64
    is_stored : bool
        Whether the header itself says so; False where it is damaged and something was put in its place.
    warnings : list of str
    doubt : GeometryDoubt or None
    """

    affine: FloatArray
    is_stored: bool
    warnings: list[str]
    doubt: GeometryDoubt | None = None


@np.errstate(all="ignore")  # damaged numbers are what is looked for
def choose_affine(header: Any, shape_ijk: tuple[int, int, int], form: str | None = None) -> ChosenAffine:
    """Affine of a NIfTI header: the sform, else the qform, else the voxel sizes alone (as nibabel does).

    Parameters
    ----------
    header : nibabel.Nifti1Header or Nifti2Header
    shape_ijk : tuple of int
    form : {"sform", "qform"}, optional
        Which to believe where both are sound and disagree; the sform when left out.
    """
    repaired, pixdim_note = _with_sound_pixdim(header)
    sform, qform = _sform(header), _qform(repaired)
    if sform is not None and is_usable(sform):
        if qform is not None and is_usable(qform):
            return _of_two(sform, qform, shape_ijk, form)
        return ChosenAffine(sform, True, [])
    has_sform, has_qform = int(header["sform_code"]) > 0, int(header["qform_code"]) > 0
    warnings, facts = [], []
    if has_sform:
        warnings.append("The sform is damaged (not finite, or no sensible voxel size); it is not used.")
        facts.append("its sform is damaged")
    if pixdim_note:
        warnings.append(pixdim_note)
        facts.append("its voxel sizes are impossible")
    if qform is not None and is_usable(qform):
        if has_sform:
            warnings.append("The qform is used instead; check left and right.")
        doubt = GeometryDoubt(tuple(facts), "qform") if facts else None
        return ChosenAffine(qform, not facts, warnings, doubt)
    if has_qform:
        warnings.append("The qform is damaged (not finite, or no rotation); it is not used.")
        facts.append("its qform is damaged")
    if not (has_sform or has_qform):
        facts.append("it has no orientation")
    codes = (
        "lost its orientation"
        if has_sform or has_qform
        else "has no orientation (qform and sform codes are 0)"
    )
    warnings.append(
        f"The file {codes}: only its voxel sizes are used, and its axes are taken to run to left, anterior, "
        "superior (LAS), as nibabel does; check left and right."
    )
    base = np.array(shape_zoom_affine(shape_ijk, repaired["pixdim"][1:4].astype(float), True))
    doubt = GeometryDoubt(tuple(facts), "voxel sizes", remark=AXES_AS_LAS)
    return ChosenAffine(base, not (has_sform or has_qform or pixdim_note), warnings, doubt)


def _of_two(
    sform: FloatArray, qform: FloatArray, shape_ijk: tuple[int, int, int], form: str | None
) -> ChosenAffine:
    """One of two sound forms; in doubt where they disagree by more than a hundredth of a voxel."""
    apart = Grid(sform, shape_ijk).distance_mm(Grid(qform, shape_ijk))
    if apart <= 0.01 * float(np.linalg.norm(sform[:3, :3], axis=0).min()):
        return ChosenAffine(sform, True, [])
    used, other = ("qform", "sform") if form == "qform" else ("sform", "qform")
    warning = (
        f"sform and qform place voxels up to {apart:.2f} mm apart; the {used} is used, other programs may "
        f"take the {other}."
    )
    doubt = GeometryDoubt((f"its sform and qform place voxels up to {apart:.2f} mm apart",), used, (other,))
    return ChosenAffine(qform if used == "qform" else sform, True, [warning], doubt)


def geometry_warnings(affine: FloatArray) -> list[str]:
    """Lines about a usable affine that is odd: sheared."""
    shear = shear_of(affine)
    if shear <= MOST_SHEAR:
        return []
    return [
        f"The voxel axes are not at right angles (shear {shear:.2g}, "
        f"{np.degrees(np.arcsin(min(shear, 1))):.2g} "
        "degrees; a gantry tilt?): the slices are shown straight, and the exact geometry is kept on export."
    ]


def describe_units(header: Any) -> list[str]:
    """A line where the header declares other lengths than millimetres."""
    try:
        unit = header.get_xyzt_units()[0]
    except (KeyError, HeaderDataError):
        return ["The header's unit code is unknown; millimetres are assumed."]
    if unit in ("meter", "micron"):
        return [f"The header declares its lengths in {unit}s; they are read as millimetres, as nibabel does."]
    return []


def _sform(header: Any) -> FloatArray | None:
    if int(header["sform_code"]) <= 0:
        return None
    return np.array(header.get_sform(), dtype=np.float64)


def _qform(header: Any) -> FloatArray | None:
    if int(header["qform_code"]) <= 0:
        return None
    try:
        return np.array(header.get_qform(), dtype=np.float64)
    except (HeaderDataError, ValueError):
        return None


def _with_sound_pixdim(header: Any) -> tuple[Any, str]:
    """Copy of the header whose voxel sizes are positive and finite, and a line where that changed them."""
    repaired = header.copy()
    stored = [float(value) for value in header["pixdim"][1:4]]
    sound = [
        abs(value) if np.isfinite(value) and _SPACING_MM[0] <= abs(value) <= _SPACING_MM[1] else 1.0
        for value in stored
    ]
    repaired["pixdim"][1:4] = sound
    if float(header["pixdim"][0]) not in (-1.0, 1.0):  # the standard: anything else counts as 1
        repaired["pixdim"][0] = 1.0
    if sound == stored:
        return repaired, ""
    shown = " x ".join(f"{value:g}" for value in stored)
    used = " x ".join(f"{value:g}" for value in sound)
    return repaired, f"The voxel sizes {shown} mm are impossible; {used} mm are used: distances may be wrong."


@np.errstate(all="ignore")  # damaged numbers are what is looked for
def base_affine_of_analyze(header: nib.Spm2AnalyzeHeader) -> FloatArray | None:
    """Affine that nibabel gives to an Analyze header, or None where that is not usable."""
    try:
        affine = np.array(header.get_best_affine(), dtype=np.float64)
    except (HeaderDataError, ValueError):
        return None
    return affine if is_usable(affine) else None
