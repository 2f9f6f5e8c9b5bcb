"""Scenes from label maps: real outlines, the same for a seed, every organ to be asked for."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from napari_sam_med.errors import ImageError
from napari_sam_med.training.nano_batches import ScenePool
from napari_sam_med.training.synthetic.anatomy import LabelMap, draw_anatomy, read_label_maps
from napari_sam_med.training.synthetic.scenes import SIZE
from tests.shared_data import OPEN, needs_open


def ball_map() -> LabelMap:
    """A large ball with a small one inside, and a pair of organs under one label."""
    z, y, x = np.mgrid[:40, :60, :60]
    data = np.zeros((40, 60, 60), np.uint8)
    data[(z - 20) ** 2 * 4 + (y - 30) ** 2 + (x - 30) ** 2 < 28**2] = 1
    data[(z - 20) ** 2 * 4 + (y - 30) ** 2 + (x - 30) ** 2 < 12**2] = 2
    data[(z - 20) ** 2 * 4 + (y - 30) ** 2 + (abs(x - 30) - 19) ** 2 < 6**2] = 3
    return LabelMap(data, (2.0, 1.0, 1.0))


@pytest.mark.parametrize("seed", range(6))
def test_every_object_is_made_of_painted_parts(seed: int) -> None:
    scene = draw_anatomy(np.random.default_rng(seed), ball_map())
    assert scene.parts.shape == (SIZE, SIZE)
    assert scene.objects
    assert scene.parts.max() < len(scene.group) == len(scene.twin)
    for parts, weight in scene.objects:
        assert weight > 0
        assert all(0 < part < len(scene.group) for part in parts)


def test_a_seed_gives_the_same_scene() -> None:
    first, again = (draw_anatomy(np.random.default_rng(4), ball_map()) for _ in range(2))
    assert np.array_equal(first.parts, again.parts)
    assert first.objects == again.objects


def test_pieces_of_an_organ_share_its_colour() -> None:
    data = np.zeros((3, 40, 40), np.uint8)
    data[:, 5:15, 5:15] = data[:, 25:35, 25:35] = 1
    for seed in range(20):
        scene = draw_anatomy(np.random.default_rng(seed), LabelMap(data, (9.0, 1.0, 1.0)))
        both = [parts for parts, weight in scene.objects if weight == 0.5 and len(parts) >= 2]
        for parts in both:
            assert scene.twin[parts[0]] in {scene.twin[part] for part in parts[1:]}
        if both:
            return
    pytest.fail("no scene shows both pieces")


def test_thick_slices_are_cut_along_their_own_plane_alone() -> None:
    assert LabelMap(np.zeros((4, 4, 4), np.uint8), (5.0, 0.8, 0.8)).planes() == [0]
    assert LabelMap(np.zeros((4, 4, 4), np.uint8), (1.5, 0.9, 0.9)).planes() == [0, 1, 2]


def test_label_maps_are_read_with_their_spacing_and_shape_scenes(tmp_path: Path) -> None:
    source = ball_map()
    path = tmp_path / "map.nii.gz"
    nib.Nifti1Image(source.data.transpose(2, 1, 0), np.diag([1, 1, 2, 1])).to_filename(path)
    (read,) = read_label_maps([path])
    assert read.spacing == (2.0, 1.0, 1.0)
    assert np.array_equal(np.bincount(read.data.ravel()), np.bincount(source.data.ravel()))
    with_maps, without = ScenePool(8, 3, label_maps=[path]), ScenePool(8, 3)
    assert not np.array_equal(with_maps.batch(0, 2, 1).images, without.batch(0, 2, 1).images)


def test_a_file_that_is_no_label_map_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "map.nii.gz"
    path.write_bytes(b"nothing")
    with pytest.raises(ImageError):
        read_label_maps([path])


@needs_open
@pytest.mark.parametrize(
    "name", ["amos_0013_15organs.nii.gz", "spl_abdominal_atlas_seg.nrrd", "synthseg_brain_01.nii.gz"]
)
def test_published_label_maps_make_scenes(name: str) -> None:
    (label_map,) = read_label_maps([OPEN / "labelmaps_only" / name])
    n_objects = [len(draw_anatomy(np.random.default_rng(seed), label_map).objects) for seed in range(4)]
    assert max(n_objects) >= 5
