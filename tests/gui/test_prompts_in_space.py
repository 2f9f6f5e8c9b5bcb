"""Statement 25: a prompt hits the voxel that napari shows there, in every plane, orientation and layer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from napari.components import ViewerModel
from napari.layers import Image, Points, Shapes

from napari_sam_med import read_volume
from napari_sam_med.gui.planes import Frame, current_view, go_to
from napari_sam_med.gui.prompt_layers import read_prompts
from napari_sam_med.volume.slice_view import PLANES, SliceView
from napari_sam_med.volume.volume import Volume
from tests.volume.phantoms import ORIENTATIONS, affine_of, save_nifti

SHAPE = (5, 7, 9)
OBLIQUE = (0.3, -0.2, 0.1)


def _volume(path: Path, codes: str, tilt: tuple[float, ...]) -> Volume:
    array = np.arange(np.prod(SHAPE), dtype=np.int16).reshape(SHAPE)  # each voxel is known by its value
    return read_volume(save_nifti(path, array, affine_of(codes, (0.7, 1.5, 3.1), tilt)))


def _worlds(image: Image, rng: np.random.Generator, n: int) -> np.ndarray:
    """Places anywhere in an image, as layer-to-world says, not near the border of a voxel."""
    index = rng.integers(0, image.data.shape, (n, 3)) + rng.uniform(-0.4, 0.4, (n, 3))
    return np.array([image.data_to_world(position) for position in index])


def _check(volume: Volume, image: Image, transform: dict) -> None:
    frame = Frame(transform, volume.shape)
    for world in _worlds(image, np.random.default_rng(0), 6):
        shown = image.data[tuple(np.rint(image.world_to_data(world)).astype(int))]
        points = Points([image.world_to_data(world)], **transform)
        unscaled = Points([world])  # a layer of the user's own, without the scan's transform
        for plane in PLANES:
            for layer in (points, unscaled):
                [(view, prompts)] = read_prompts(layer, None, frame, plane).prompts.items()
                assert view.plane == plane
                x, y = np.rint(prompts.points_xy[0]).astype(int)
                assert view.extract(volume.data)[y, x] == shown


@pytest.mark.parametrize("tilt", [(0.0, 0.0, 0.0), OBLIQUE], ids=["straight", "oblique"])
@pytest.mark.parametrize("codes", ORIENTATIONS)
def test_a_point_hits_the_voxel_that_is_shown_there(
    tmp_path: Path, codes: str, tilt: tuple[float, ...]
) -> None:
    volume = _volume(tmp_path / "scan.nii", codes, tilt)
    transform = volume.display_transform
    _check(volume, Image(volume.data, **transform), transform)


@pytest.mark.parametrize(
    "transform",
    [
        {"scale": (3.0, 1.5, 0.7), "translate": (5, -8, 100)},
        {"scale": (-3.0, 1.5, 0.7)},
        {"rotate": 20.0, "scale": (2.0, 1.0, 1.0)},
        {"affine": np.array([[2.0, 0, 0, 4], [0, 0.8, -0.6, 1], [0, 0.6, 0.8, 0], [0, 0, 0, 1]])},
        {},
    ],
)
def test_a_point_on_a_layer_of_another_reader_hits_the_voxel_that_is_shown_there(transform: dict) -> None:
    data = np.arange(np.prod(SHAPE), dtype=np.int16).reshape(SHAPE)
    image = Image(data, **transform)
    volume = Volume.from_layer(image)
    _check(volume, image, volume.display_transform)


@pytest.mark.parametrize("tilt", [(0.0, 0.0, 0.0), OBLIQUE], ids=["straight", "oblique"])
@pytest.mark.parametrize("codes", ORIENTATIONS[::5])
def test_points_and_boxes_outside_are_counted_and_ignored(
    tmp_path: Path, codes: str, tilt: tuple[float, ...]
) -> None:
    """The widget then says how many were ignored."""
    volume = _volume(tmp_path / "scan.nii", codes, tilt)
    frame = Frame(volume.display_transform, volume.shape)
    low, high = np.full(3, -0.6), np.array(volume.shape) - 0.4
    outside = [np.where(np.arange(3) == axis, end, 2.0) for axis in range(3) for end in (low, high)]
    points = Points(frame.world(np.array([*outside, [2.0, 2.0, 2.0]])))
    box = np.array([[2.0, -9, -9], [2, -9, -4], [2, -4, -4], [2, -4, -9]])
    boxes = Shapes([frame.world(box)], shape_type="rectangle")
    reading = read_prompts(points, boxes, frame, "axial")
    assert reading.n_outside == 7
    [(view, prompts)] = reading.prompts.items()
    assert view == SliceView("axial", 2)
    assert prompts.box_xyxy is None
    assert prompts.points_xy.tolist() == [[2, 2]]


@pytest.mark.parametrize("tilt", [(0.0, 0.0, 0.0), OBLIQUE], ids=["straight", "oblique"])
@pytest.mark.parametrize("codes", ORIENTATIONS[::5])
def test_the_slice_that_is_shown_is_the_slice_that_is_prompted(
    tmp_path: Path, codes: str, tilt: tuple[float, ...]
) -> None:
    volume = _volume(tmp_path / "scan.nii", codes, tilt)
    viewer = ViewerModel()
    image = viewer.add_image(volume.data, **volume.display_transform)
    frame = Frame(volume.display_transform, volume.shape)
    for plane in PLANES:
        for index in range(volume.shape[PLANES.index(plane)]):
            view = SliceView(plane, index)
            go_to(viewer, frame, view)
            assert current_view(viewer, frame) == view
            shown = np.asarray(image._slice.image.raw)
            assert set(shown.ravel()) == set(view.extract(volume.data).ravel())
