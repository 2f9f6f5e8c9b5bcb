"""Surface meshes out (STL, OBJ, PLY, VTK): closed, in LPS millimetres, as 3D Slicer and ITK take them.

Slicer reads ``SPACE=LPS`` in the header of each of these formats, and assumes it where there is nothing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import trimesh
from scipy import ndimage
from skimage.measure import marching_cubes
from trimesh.exchange.obj import export_obj
from trimesh.exchange.ply import export_ply
from trimesh.exchange.stl import export_stl

from napari_sam_med.errors import ExportError
from napari_sam_med.volume.labels import LabelVolume
from napari_sam_med.volume.organs import Organ, OrganTable

__all__ = ["SURFACE_ENDINGS", "SurfaceEnding", "content", "surface_of"]

SurfaceEnding = Literal[".stl", ".obj", ".ply", ".vtk"]
SURFACE_ENDINGS: tuple[SurfaceEnding, ...] = (".stl", ".obj", ".ply", ".vtk")

_SPACE = "napari-sam-med, millimetres, SPACE=LPS"


@dataclass(frozen=True, eq=False)
class _Surface:
    organ: Organ
    vertices: npt.NDArray[np.float64]
    faces: npt.NDArray[np.int64]

    @property
    def mesh(self) -> Any:
        return trimesh.Trimesh(self.vertices, self.faces, process=False)


def content(ending: SurfaceEnding, labels: LabelVolume, organs: OrganTable) -> bytes:
    """Surfaces of all organs that have voxels, as the bytes of a file.

    OBJ has an object an organ, VTK the cell data ``label``, PLY the colours; STL can tell nothing apart.

    Raises
    ------
    ExportError
        If no organ has a voxel.
    """
    boxes = ndimage.find_objects(labels.data)
    surfaces = [
        _Surface(organs[class_id], *surface_of(labels, class_id, box))
        for class_id, box in enumerate(boxes, start=1)
        if box is not None
    ]
    if not surfaces:
        raise ExportError("No voxel is labelled, and a surface file of nothing cannot be written; label one.")
    return _WRITERS[ending](surfaces)


def surface_of(
    labels: LabelVolume, class_id: int, box_zyx: tuple[slice, ...]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """Closed surface of one class, half way between its voxel centres and those around; not smoothed.

    Parameters
    ----------
    labels : LabelVolume
    class_id : int
    box_zyx : tuple of slice
        Where its voxels are, as `scipy.ndimage.find_objects` finds them.

    Returns
    -------
    vertices : (N, 3) float64
        In LPS mm.
    faces : (M, 3) int64
        Corners run counterclockwise seen from outside.
    """
    # a rim of background closes the surface where the organ touches the border of the volume
    mask = np.pad(labels.data[box_zyx] == class_id, 1).astype(np.uint8)
    places, faces, _, _ = marching_cubes(mask, 0.5)
    index_zyx = places + [side.start - 1.0 for side in box_zyx]
    matrix = labels.grid.lps_from_zyx
    vertices = index_zyx @ matrix[:3, :3].T + matrix[:3, 3]
    # skimage's corners run clockwise in z, y, x; a matrix that mirrors, as z, y, x to L, P, S does, mends it
    is_mirrored = np.linalg.det(matrix[:3, :3]) < 0
    return vertices, (faces if is_mirrored else faces[:, ::-1]).astype(np.int64)


def _joined(surfaces: list[_Surface]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    starts = np.cumsum([0, *(len(surface.vertices) for surface in surfaces)])
    faces = [surface.faces + start for surface, start in zip(surfaces, starts, strict=False)]
    return np.concatenate([surface.vertices for surface in surfaces]), np.concatenate(faces)


def _stl(surfaces: list[_Surface]) -> bytes:
    body: bytes = export_stl(trimesh.Trimesh(*_joined(surfaces), process=False))
    # the first 80 bytes are free text, but must not begin with "solid"
    return _SPACE.encode().ljust(80, b" ") + body[80:]


def _obj(surfaces: list[_Surface]) -> bytes:
    scene = trimesh.Scene()
    for surface in surfaces:
        # with its number, as two organs may share a name; readers end a name at a space
        name = re.sub(r"\s", "_", f"{surface.organ.class_id} {surface.organ.name}")
        scene.add_geometry(surface.mesh, node_name=name, geom_name=name)
    text: str = export_obj(scene, include_normals=False, include_color=False, header=_SPACE)
    return text.encode()


def _ply(surfaces: list[_Surface]) -> bytes:
    colors = [np.tile([*surface.organ.color, 1.0], (len(surface.vertices), 1)) for surface in surfaces]
    rgba = np.rint(np.concatenate(colors) * 255).astype(np.uint8)
    mesh = trimesh.Trimesh(*_joined(surfaces), vertex_colors=rgba, process=False)
    body: bytes = export_ply(mesh, vertex_normal=False)
    return re.sub(rb"(?m)^comment .*$", f"comment {_SPACE}".encode(), body, count=1)


def _vtk(surfaces: list[_Surface]) -> bytes:
    """Legacy VTK polydata, version 3, which every VTK reads; numbers are big-endian."""
    vertices, faces = _joined(surfaces)
    label = np.repeat([s.organ.class_id for s in surfaces], [len(s.faces) for s in surfaces])
    triangles = np.column_stack([np.full(len(faces), 3), faces])
    parts = (
        f"# vtk DataFile Version 3.0\n{_SPACE}\nBINARY\nDATASET POLYDATA\nPOINTS {len(vertices)} float\n",
        vertices.astype(">f4").tobytes(),
        f"\nPOLYGONS {len(faces)} {triangles.size}\n",
        triangles.astype(">i4").tobytes(),
        f"\nCELL_DATA {len(faces)}\nSCALARS label int 1\nLOOKUP_TABLE default\n",
        label.astype(">i4").tobytes(),
        "\n",
    )
    return b"".join(part.encode() if isinstance(part, str) else part for part in parts)


_WRITERS = {".stl": _stl, ".obj": _obj, ".ply": _ply, ".vtk": _vtk}
