"""Scans, and layers that other readers put into napari."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from napari_sam_med import LabelVolume, SliceView, Volume, read_labels, read_volume, to_rgb, write_labels
from napari_sam_med.errors import ImageError
from napari_sam_med.volume.grid import Grid
from tests.volume.phantoms import affine_of, ct_like, save_nifti


def _layer(data: Any, **given: Any) -> SimpleNamespace:
    n = len(data.shape)
    fields: dict[str, Any] = {
        "scale": np.ones(n),
        "translate": np.zeros(n),
        "rotate": np.eye(n),
        "shear": np.zeros(n * (n - 1) // 2),
        "affine": np.eye(n + 1),
        "metadata": {},
        "name": "mr",
        "rgb": False,
        "multiscale": False,
    }
    return SimpleNamespace(data=data, **(fields | given))


def test_the_repr_is_readable_for_a_radiologist() -> None:
    data = np.zeros((120, 512, 512), dtype=np.int16)
    grid = Grid(affine_of("RAS", (0.7, 0.7, 2.5)), (512, 512, 120))
    volume = Volume(data, grid, layer_name="ct.nii.gz")
    assert repr(volume) == "Volume(z=120, y=512, x=512; 2.50 x 0.70 x 0.70 mm; RAS; int16; 60 MiB; ct.nii.gz)"
    assert volume.pixel_spacing(SliceView("axial", 0)) == (0.7, 0.7)
    assert volume.pixel_spacing(SliceView("coronal", 0)) == (2.5, 0.7)


def test_a_foreign_layer_is_neither_flipped_nor_moved(tmp_path) -> None:
    data = ct_like((4, 5, 6))
    rotate = Rotation.from_euler("xyz", [0.1, 0.2, 0.3]).as_matrix()
    layer = _layer(
        data,
        scale=(3.0, 0.5, 0.7),
        translate=(1.0, 2.0, 3.0),
        rotate=rotate,
        source=SimpleNamespace(path=None),
    )
    volume = Volume.from_layer(layer)
    assert volume.data is data
    assert volume.spacing == pytest.approx((3.0, 0.5, 0.7))
    index = np.array([1, 2, 3])
    world_zyx = rotate @ (index * layer.scale) + layer.translate
    assert np.allclose(volume.grid.world_ras_from_index_zyx(index), world_zyx[::-1] * [-1, -1, 1])
    assert np.array_equal(volume.display_transform["rotate"], rotate)

    labels = LabelVolume.like(volume)
    labels.data[1, 2, 3] = 6
    read = read_labels(write_labels(tmp_path / "labels.nii.gz", labels))
    found = read.grid.world_ras_from_index_zyx(np.argwhere(read.data == 6)[0])
    assert np.allclose(found, world_zyx[::-1] * [-1, -1, 1], atol=1e-4)


def test_a_flipped_foreign_layer_keeps_its_array() -> None:
    layer = _layer(ct_like((4, 5, 6)), scale=(-3.0, 1.0, 1.0), affine=np.eye(4)[[1, 0, 2, 3]])
    volume = Volume.from_layer(layer)
    assert volume.shape == (4, 5, 6)
    assert np.allclose(volume.grid.world_ras_from_index_zyx((1, 2, 3)), [-3, 3, 2])
    assert to_rgb(volume, SliceView("coronal", 4)).shape == (4, 6, 3)


def test_a_flat_layer_becomes_one_slice() -> None:
    volume = Volume.from_layer(
        _layer(ct_like((5, 6)), scale=(0.5, 0.7), shear=np.array([0.1]), units=("um", "um"))
    )
    assert volume.shape == (1, 5, 6)
    assert volume.display_transform["units"] == ("um", "um", "um")
    assert volume.grid.shear > 0.05


def test_units_of_a_layer_count() -> None:
    layer = _layer(ct_like((4, 5, 6)), units=("micrometer",) * 3, scale=(500.0, 500.0, 500.0))
    assert Volume.from_layer(layer).spacing == pytest.approx((0.5, 0.5, 0.5))


def test_a_layer_of_ours_keeps_the_geometry_of_its_file(tmp_path) -> None:
    path = save_nifti(
        tmp_path / "a.nii", ct_like((5, 6, 7)), affine_of("PIR", (1.0, 2.0, 3.0), (0.1, 0.2, 0.3))
    )
    volume = read_volume(path)
    for kept in (volume, {"volume": volume}):
        assert Volume.from_layer(_layer(volume.data, metadata={"sam_med": kept})) is volume
    smoothed = np.array(volume.data) // 2
    other = Volume.from_layer(_layer(smoothed, metadata={"sam_med": volume}))
    assert other.data is smoothed
    assert other.grid is volume.grid
    assert other.value_range != volume.value_range
    alone = Volume.from_layer(_layer(volume.data, metadata={"sam_med": {"affine": volume.affine.tolist()}}))
    assert alone.grid.same_as(volume.grid, tolerance_mm=0)


def test_layers_that_are_no_scans_are_refused() -> None:
    for layer in (
        _layer(np.zeros((4, 5, 3)), rgb=True),
        _layer(np.zeros((2, 4, 5, 6))),
        _layer(np.zeros((4, 5, 6), dtype=np.complex64)),
    ):
        with pytest.raises(ImageError, match="Layer 'mr'"):
            Volume.from_layer(layer)
    flat = Volume.from_layer(_layer(ct_like((4, 5, 6)), scale=(0.0, 1.0, 1.0)))
    assert flat.warnings


@pytest.mark.filterwarnings("ignore:Non-orthogonal slicing")
def test_the_transform_is_composed_as_napari_composes_it() -> None:
    layers = pytest.importorskip("napari.layers")
    rotate = Rotation.from_euler("xyz", [0.1, 0.2, 0.3]).as_matrix()
    affine = np.array([[0.0, 1, 0, 4], [1, 0, 0, 5], [0, 0, -1.5, 6], [0, 0, 0, 1]])
    given = {"scale": (2, 0.5, 0.7), "translate": (1, 2, 3), "rotate": rotate, "shear": [0.1, 0.2, 0.3]}
    layer = layers.Image(np.zeros((5, 6, 7)), affine=affine, **given)
    volume = Volume.from_layer(layer)
    copy = layers.Labels(np.zeros(volume.shape, dtype=np.uint8), **volume.display_transform)
    index = (1.0, 2.0, 3.0)
    world_zyx = np.array(layer.data_to_world(index))
    assert np.allclose(copy.data_to_world(index), world_zyx)
    assert np.allclose(volume.grid.world_ras_from_index_zyx(index), world_zyx[::-1] * [-1, -1, 1])


@pytest.mark.parametrize(
    "spacing", [(2.5, 1.6, 1.6), (0.7, 0.3, 0.9), (5.0, 0.976562, 0.976562), (1.1, 1.7, 3.3)]
)
@pytest.mark.parametrize("first", [0.0, -117.3, 31.1])
def test_napari_can_show_every_slice(spacing, first) -> None:
    layers = pytest.importorskip("napari.layers")
    components = pytest.importorskip("napari.components")
    shape = (48, 31, 77)
    affine = np.diag([*spacing[::-1], 1.0])
    affine[:3, 3] = first
    volume = Volume(np.zeros(shape, np.uint8), Grid(affine, shape[::-1]))
    viewer = components.ViewerModel()
    viewer.add_layer(layers.Image(volume.data, **volume.display_transform))
    assert tuple(viewer.dims.nsteps) == shape
