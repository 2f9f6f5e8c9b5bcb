"""Surface meshes: where they lie, how much they hold, and that they are closed."""

from __future__ import annotations

import io
import re

import numpy as np
import pytest
import trimesh
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from napari_sam_med import LabelVolume, write_labels
from napari_sam_med.errors import ExportError
from napari_sam_med.volume.formats.surfaces import SURFACE_ENDINGS, content, surface_of
from napari_sam_med.volume.grid import Grid
from napari_sam_med.volume.organs import Organ, OrganTable
from tests.volume.phantoms import affine_of, affines, shapes

OBLIQUE = affine_of("PIR", (1.0, 2.5, 0.7), (0.3, -0.2, 0.4), (31.0, -17.5, 112.0))


def _ball(affine, radius_mm: float, class_id: int = 1, margin: int = 2) -> tuple[LabelVolume, np.ndarray]:
    """A ball as voxels whose centres lie in it, on a grid about it, and its centre in LPS mm."""
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    half = np.ceil(radius_mm / spacing).astype(int) + margin
    index = np.indices(2 * half + 1).reshape(3, -1)
    place = affine[:3, :3] @ index + affine[:3, 3:]
    centre = affine[:3, :3] @ half + affine[:3, 3]
    inside = np.linalg.norm(place - centre[:, None], axis=0) <= radius_mm
    grid = Grid(affine, tuple(2 * half + 1))
    array = (inside * class_id).astype(np.uint8).reshape(2 * half + 1)
    return LabelVolume(np.ascontiguousarray(grid.to_canonical(array)), grid), centre * [-1, -1, 1]


def _load(ending: str, content: bytes) -> trimesh.Trimesh:
    if ending == ".vtk":
        return trimesh.Trimesh(*_polydata(content)[:2], process=False)
    loaded = trimesh.load(io.BytesIO(content), file_type=ending[1:], process=False)
    return trimesh.util.concatenate(loaded.dump()) if isinstance(loaded, trimesh.Scene) else loaded


def _polydata(content: bytes) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Points, triangles and labels of a legacy VTK file, by its published layout."""
    pattern = rb"(# vtk DataFile Version 3\.0\n.*\nBINARY\nDATASET POLYDATA\nPOINTS (\d+) float\n)"
    head, n_points = re.match(pattern, content).groups()
    start = len(head)
    points = np.frombuffer(content, ">f4", 3 * int(n_points), start).reshape(-1, 3)
    start += points.nbytes
    head, n, size = re.match(rb"(\nPOLYGONS (\d+) (\d+)\n)", content[start:]).groups()
    triangles = np.frombuffer(content, ">i4", int(size), start + len(head)).reshape(int(n), 4)
    assert (triangles[:, 0] == 3).all()
    start += len(head) + triangles.nbytes
    head = re.match(rb"\nCELL_DATA \d+\nSCALARS label int 1\nLOOKUP_TABLE default\n", content[start:])[0]
    labels = np.frombuffer(content, ">i4", int(n), start + len(head))
    return points.astype(float), triangles[:, 1:].astype(np.int64), labels


def _open_edges(faces: np.ndarray) -> int:
    """Directed edges that no neighbour runs along the other way: 0 on a closed, consistent surface."""
    edges = faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2)
    net: dict[tuple[int, int], int] = {}
    for a, b in edges.tolist():
        key = (min(a, b), max(a, b))
        net[key] = net.get(key, 0) + (1 if a < b else -1)
    return sum(count != 0 for count in net.values())


@pytest.mark.parametrize("ending", SURFACE_ENDINGS)
@pytest.mark.parametrize("affine", [np.diag([-1.0, -1.0, 1.0, 1.0]), OBLIQUE])
def test_a_ball_keeps_its_volume_and_place(ending, affine) -> None:
    """Statement 24, for surfaces: within 2 % of the ball, its centre within 0.1 mm, outward faces."""
    labels, centre = _ball(affine, 20.0)
    mesh = _load(ending, content(ending, labels, labels.organs))
    assert mesh.volume == pytest.approx(4 / 3 * np.pi * 20**3, rel=0.02)
    mesh.merge_vertices()
    assert mesh.is_watertight
    assert np.allclose(mesh.center_mass, centre, atol=0.1)
    distances = np.linalg.norm(mesh.vertices - centre, axis=1)
    assert abs(distances - 20.0).max() <= 2.5  # the longest side of a voxel


@given(affine=affines, shape=shapes, data=st.data())
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_a_voxel_is_cut_half_way_to_its_neighbours_wherever_it_lies(affine, shape, data) -> None:
    """Statement 24: vertices against the affine, within 1e-4 mm, also at the border of the volume."""
    grid = Grid(affine, shape)
    ijk = [data.draw(st.integers(0, n - 1)) for n in shape]
    array = np.zeros(shape, dtype=np.uint8)
    array[tuple(ijk)] = 5
    labels = LabelVolume(np.ascontiguousarray(grid.to_canonical(array)), grid)
    expected = np.array([np.array(ijk) + step for step in np.vstack([np.eye(3), -np.eye(3)]) / 2])
    expected = (expected @ affine[:3, :3].T + affine[:3, 3]) * [-1, -1, 1]
    for ending in SURFACE_ENDINGS:
        mesh = _load(ending, content(ending, labels, labels.organs.covering([5])))
        vertices = np.unique(np.round(np.asarray(mesh.vertices), 5), axis=0)
        assert all(np.linalg.norm(vertices - place, axis=1).min() < 1e-4 for place in expected)
        assert mesh.volume == pytest.approx(grid.voxel_volume_mm3 / 6, rel=1e-3)


@given(shape=shapes, seed=st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None)
def test_every_surface_is_closed(shape, seed) -> None:
    grid = Grid(OBLIQUE, shape)
    data = np.random.default_rng(seed).integers(0, 2, grid.shape_zyx, dtype=np.uint8)
    if data.any():
        _, faces = surface_of(LabelVolume(data, grid), 1, tuple(slice(0, n) for n in data.shape))
        assert _open_edges(faces) == 0


def test_a_full_volume_is_closed_at_its_border() -> None:
    labels = LabelVolume(
        np.ones((4, 5, 6), np.uint8), Grid(OBLIQUE, (5, 6, 4)).canonical().from_zyx((4, 5, 6))
    )
    mesh = _load(".ply", content(".ply", labels, labels.organs))
    assert mesh.is_watertight
    assert np.allclose(mesh.bounds, [[-0.5, -0.5, -0.5], [5.5, 4.5, 3.5]])


def _two_organs() -> LabelVolume:
    data = np.zeros((6, 7, 8), np.uint8)
    data[1:3, 1:3, 1:3], data[4, 4, 4] = 6, 9
    table = OrganTable([Organ(6, "liver", (1.0, 0.0, 0.2)), Organ(9, "Läsion 名 2", (0.0, 1.0, 0.0))])
    return LabelVolume(data, Grid.from_zyx(data.shape), table)


def test_organs_stay_apart_where_the_format_can_tell_them_apart(tmp_path) -> None:
    """Statement 18: and keep names with accents and spaces."""
    labels = _two_organs()
    text = write_labels(tmp_path / "a b é.obj", labels).read_text(encoding="utf-8")
    assert re.findall(r"(?m)^o (.*)$", text) == ["6_liver", "9_Läsion_名_2"]
    _, faces, numbers = _polydata(write_labels(tmp_path / "a b é.vtk", labels).read_bytes())
    assert np.unique(numbers).tolist() == [6, 9]
    assert (numbers[:-8] == 6).all()
    assert len(faces) == len(numbers)
    ply = trimesh.load(write_labels(tmp_path / "a b é.ply", labels), process=False)
    assert {tuple(color) for color in ply.visual.vertex_colors.tolist()} == {
        (255, 0, 51, 255),
        (0, 255, 0, 255),
    }


@pytest.mark.parametrize("ending", SURFACE_ENDINGS)
def test_the_file_says_its_coordinates_as_slicer_reads_them(tmp_path, ending) -> None:
    head = write_labels(tmp_path / f"x{ending}", _two_organs()).read_bytes()[:200]
    assert b"SPACE=LPS" in head
    assert not head.startswith(b"solid")  # an STL file that starts so is taken for text


def test_nothing_has_no_surface(tmp_path) -> None:
    labels = LabelVolume(np.zeros((2, 3, 4), np.uint8), Grid.from_zyx((2, 3, 4)))
    with pytest.raises(ExportError, match="No voxel"):
        write_labels(tmp_path / "x.stl", labels)
    assert list(tmp_path.iterdir()) == []
