"""Grids: file index, canonical index and millimetres agree, in every orientation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_sam_med.errors import ImageError
from napari_sam_med.volume.grid import Grid
from napari_sam_med.volume.slice_view import PLANES, SliceView
from tests.volume.phantoms import ORIENTATIONS, affine_of, affines, shapes


@given(affines, shapes, st.data())
@settings(max_examples=100, deadline=None)
def test_indices_and_millimetres_agree(affine, shape, data) -> None:
    grid = Grid(affine, shape)
    array = np.arange(np.prod(shape)).reshape(shape)
    canonical = grid.to_canonical(array)
    assert canonical.shape == grid.shape_zyx
    assert np.shares_memory(canonical, array)
    assert np.array_equal(grid.from_canonical(canonical), array)
    ijk = tuple(data.draw(st.integers(0, n - 1)) for n in shape)
    zyx = grid.index_zyx_from_ijk(ijk)
    assert canonical[tuple(map(int, zyx))] == array[ijk]
    assert grid.ijk_from_index_zyx(zyx) == ijk
    world = affine[:3, :3] @ ijk + affine[:3, 3]
    assert np.allclose(grid.world_ras_from_index_zyx(zyx), world)
    assert np.allclose(grid.index_zyx_from_world_ras(world), zyx, atol=1e-6)
    lps = grid.lps_from_zyx @ [*zyx, 1.0]
    assert np.allclose(lps[:3] * [-1, -1, 1], world)
    assert grid.same_voxels_as(grid.canonical())


@given(affines, shapes, st.data())
@settings(max_examples=60, deadline=None)
def test_slices_count_along_the_files_own_axis(affine, shape, data) -> None:
    grid = Grid(affine, shape)
    plane = data.draw(st.sampled_from(PLANES))
    axis = grid.file_axis(plane)
    index = data.draw(st.integers(0, shape[axis] - 1))
    view = grid.view_from_file(axis, index)
    assert view.plane == plane
    assert grid.file_index(view) == index
    array = np.arange(np.prod(shape)).reshape(shape)
    assert set(view.extract(grid.to_canonical(array)).ravel()) == set(array.take(index, axis).ravel())


@pytest.mark.parametrize("codes", ORIENTATIONS)
def test_canonical_axes_run_to_superior_posterior_and_left(codes: str) -> None:
    """Statement 24: a landmark at a known place comes out at the same anatomical corner."""
    grid = Grid(affine_of(codes, (1.0, 2.0, 3.0), (0.2, -0.1, 0.3)), (5, 6, 7))
    assert grid.axis_codes == codes
    first = grid.world_ras_from_index_zyx((0, 0, 0))
    for axis, (ras_axis, direction) in enumerate([(2, 1), (1, -1), (0, -1)]):
        step = [0, 0, 0]
        step[axis] = 1
        assert direction * (grid.world_ras_from_index_zyx(step) - first)[ras_axis] > 0
    assert sorted(grid.spacing_zyx) == pytest.approx([1.0, 2.0, 3.0])


@given(affines, shapes)
@settings(max_examples=60, deadline=None)
def test_the_display_places_the_centre_where_it_truly_is(affine, shape) -> None:
    grid = Grid(affine, shape)
    centre = (np.array(grid.shape_zyx) - 1) / 2
    shown_zyx = np.array(grid.translate_zyx) + centre * grid.spacing_zyx
    true_lps = grid.world_ras_from_index_zyx(centre) * [-1, -1, 1]
    assert np.allclose(shown_zyx, true_lps[::-1], atol=1e-3)


def test_obliquity_and_shear_are_measured() -> None:
    straight = Grid(affine_of("PIR", (0.5, 3.0, 1.0)), (4, 5, 6))
    assert straight.obliquity_deg == 0
    tilted = Grid(affine_of("LAS", (0.5, 3.0, 1.0), (0.0, 0.0, np.radians(25))), (4, 5, 6))
    assert tilted.obliquity_deg == pytest.approx(25)
    assert tilted.shear < 1e-12
    sheared = affine_of("RAS", (1.0, 1.0, 1.0))
    sheared[0, 1] = 0.1
    assert Grid(sheared, (4, 5, 6)).shear == pytest.approx(0.1, rel=0.01)
    assert Grid(np.diag([-1.0, 2, 3, 1]), (1, 1, 1)).voxel_volume_mm3 == 6


def test_grids_are_the_same_within_a_fifth_of_a_voxel() -> None:
    grid = Grid(affine_of("RAS", (1.0, 1.0, 2.0)), (4, 5, 6))
    moved = Grid(affine_of("RAS", (1.0, 1.0, 2.0), origin=(10.6, -20.25, 30.0)), (4, 5, 6))
    assert grid.same_as(moved)
    assert not grid.same_as(moved, tolerance_mm=0.01)
    assert not grid.same_as(Grid(affine_of("LAS", (1.0, 1.0, 2.0)), (4, 5, 6)))
    assert not grid.same_as(Grid(grid.affine, (4, 5, 7)))


@pytest.mark.parametrize("affine", [np.zeros((4, 4)), np.full((4, 4), np.nan), np.eye(3)])
def test_affines_that_cannot_place_voxels_are_refused(affine) -> None:
    with pytest.raises(ImageError, match="affine"):
        Grid(affine, (2, 2, 2))


def test_places_outside_the_file_are_refused() -> None:
    grid = Grid(np.eye(4), (4, 5, 6))
    for axis, index in ((3, 0), (0, 4), (0, -1)):
        with pytest.raises(ImageError, match="outside"):
            grid.view_from_file(axis, index)
    with pytest.raises(ImageError):
        Grid(np.eye(4), (4, 0, 6))
    assert grid.view_from_file(2, 5) == SliceView("axial", 5)
