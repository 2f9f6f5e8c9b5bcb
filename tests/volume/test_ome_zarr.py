"""OME-Zarr in and labels of it out: where voxels lie, whatever the version and the axes."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from napari_sam_med import LabelVolume, SliceView, read_labels, read_volume, write_labels
from napari_sam_med.errors import ExportError, ImageError, LabelError
from napari_sam_med.volume import lazy_array, replacement
from napari_sam_med.volume.disk_labels import is_on_disk
from napari_sam_med.volume.formats.ome_zarr import DIRECTIONS
from napari_sam_med.volume.grid import Grid
from napari_sam_med.volume.organs import OrganTable
from napari_sam_med.volume.reading import volume_times
from napari_sam_med.volume.volume import Volume
from napari_sam_med.volume.writing import refuse_unfit
from tests.volume.ome_zarr_files import WORDS_LPS, write_image

DATA = np.random.default_rng(0).integers(-1000, 1000, (6, 8, 10)).astype(np.int16)
ALL_WORDS = [
    words
    for words in itertools.permutations(DIRECTIONS, 3)
    if len({DIRECTIONS[word][0] for word in words}) == 3
]


@pytest.fixture
def little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine whose memory is as large as one small scan."""
    monkeypatch.setattr(lazy_array, "physical_memory", lambda: DATA.nbytes)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    version=st.sampled_from(["0.4", "0.5"]),
    words=st.sampled_from(ALL_WORDS),
    scale=st.tuples(*[st.floats(0.01, 50)] * 3),
    translation=st.tuples(*[st.floats(-500, 500)] * 3),
    unit=st.sampled_from([("millimeter", 1.0), ("micrometer", 1e-3), ("centimeter", 10.0)]),
)
def test_every_voxel_lies_where_the_file_says_and_labels_lie_on_it(
    tmp_path: Path, version: str, words: Any, scale: Any, translation: Any, unit: Any
) -> None:
    name, mm = unit
    scale = tuple(value / mm for value in scale)
    path = write_image(
        tmp_path / "ct.ome.zarr",
        [DATA],
        version=version,
        words=words,
        scale=scale,
        translation=translation,
        unit=name,
    )
    volume = read_volume(path)
    assert not volume.warnings
    for place in ((0, 0, 0), (5, 2, 9), (1, 7, 3)):
        world = np.zeros(3)
        for axis, word in enumerate(words):
            row, sign = DIRECTIONS[word]
            world[row] = sign * mm * (scale[axis] * place[axis] + translation[axis])
        index = tuple(round(value) for value in volume.grid.index_zyx_from_world_ras(world))
        assert np.allclose(volume.grid.world_ras_from_index_zyx(index), world, atol=1e-6)
        assert volume.data[index] == DATA[place]
    labels = LabelVolume.like(volume)
    labels.assign(SliceView("coronal", 2), SliceView("coronal", 2).extract(volume.data) > 0, 6)
    written = write_labels(tmp_path / "labels.ome.zarr", labels, source=volume)
    alone = read_labels(written)
    assert alone.grid.same_voxels_as(volume.grid)
    assert np.array_equal(alone.data, labels.data)
    assert alone.organs.name_of(6) == "liver"
    stored = zarr.open_group(written, mode="r")["0"]
    assert np.array_equal(stored[...] == 6, np.asarray(volume.grid.from_canonical(labels.data).T) == 6)


def test_without_an_orientation_lps_is_taken_and_said(tmp_path: Path) -> None:
    volume = read_volume(write_image(tmp_path / "ct.ome.zarr", [DATA], words=None, unit=None))
    assert np.array_equal(volume.data, DATA)
    assert volume.grid.translate_zyx == (-30.0, 20.0, 10.0)
    assert volume.spacing == (2.0, 1.5, 1.0)
    assert volume.grid.doubt is not None
    assert "no anatomical orientation" in volume.warnings[1]
    assert "no unit" in volume.warnings[0]


def test_times_and_channels_are_volumes_and_a_marker_means_its_folder(tmp_path: Path) -> None:
    data = np.stack([np.stack([DATA, DATA + 1]), np.stack([DATA + 2, DATA + 3])])
    path = write_image(tmp_path / "scan.zarr", [data], names="tczyx", more={"name": "x"})
    assert volume_times(path / "zarr.json") == 4
    first = read_volume(path / "zarr.json")
    assert first.path == path
    assert any("holds 4 volumes" in warning for warning in first.warnings)
    assert np.array_equal(read_volume(path, time=3).data, DATA + 3)
    with pytest.raises(ImageError, match="time 4 does not exist"):
        read_volume(path, time=4)


def test_a_transformation_of_all_levels_comes_after_that_of_the_level(tmp_path: Path) -> None:
    more = {
        "coordinateTransformations": [
            {"type": "scale", "scale": [2.0, 2.0, 2.0]},
            {"type": "translation", "translation": [1.0, 0.0, 0.0]},
        ]
    }
    volume = read_volume(write_image(tmp_path / "ct.ome.zarr", [DATA], more=more))
    assert volume.spacing == (4.0, 3.0, 2.0)
    assert volume.grid.translate_zyx == (-59.0, 40.0, 20.0)


def test_what_is_no_image_is_refused_in_words(tmp_path: Path) -> None:
    plate = zarr.open_group(tmp_path / "plate.zarr", mode="w")
    write_image(tmp_path / "plate.zarr" / "A1", [DATA])
    with pytest.raises(ImageError, match=r"such as plate\.zarr/A1"):
        read_volume(tmp_path / "plate.zarr")
    plate.attrs["multiscales"] = [{"version": "0.1"}]
    with pytest.raises(ImageError, match=r"version 0\.1: 0\.4 and 0\.5 are read"):
        read_volume(tmp_path / "plate.zarr")
    flat = write_image(
        tmp_path / "flat.zarr", [DATA[0]], names="yx", scale=(1, 1), translation=None, words=None
    )
    with pytest.raises(ImageError, match="2 axes of space"):
        read_volume(flat)
    path = write_image(tmp_path / "ct.zarr", [DATA])
    meta = json.loads((path / "zarr.json").read_text())
    meta["attributes"]["ome"]["multiscales"][0]["datasets"][0]["path"] = "nowhere"
    (path / "zarr.json").write_text(json.dumps(meta))
    with pytest.raises(ImageError, match=r"ct\.zarr names the level 'nowhere', which is not in it"):
        read_volume(path)


def _with_metadata(path: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    meta = json.loads((path / "zarr.json").read_text())
    change(meta["attributes"]["ome"]["multiscales"][0])
    (path / "zarr.json").write_text(json.dumps(meta))
    return path


def test_levels_that_are_no_arrays_are_refused_in_words(tmp_path: Path) -> None:
    path = write_image(tmp_path / "ct.zarr", [DATA])
    _with_metadata(path, lambda image: image["datasets"][0].update(path=""))
    with pytest.raises(ImageError, match=r"metadata of ct\.zarr are damaged .* no array"):
        read_volume(path)


@pytest.mark.parametrize("said", [["left-to-right"], {"value": ["left-to-right"]}, "dorsal-to-ventral", 5])
def test_an_orientation_and_a_unit_of_another_kind_are_doubted(tmp_path: Path, said: Any) -> None:
    path = write_image(tmp_path / "ct.zarr", [DATA])
    _with_metadata(path, lambda image: image["axes"][1].update(unit=[said], orientation=said))
    volume = read_volume(path)
    assert "the unit" in volume.warnings[0]
    assert "orientation that is not understood (inferior-to-superior, " in volume.warnings[1]
    assert volume.grid.doubt is not None
    assert "not understood" in volume.grid.doubt.question("ct.zarr")


def test_labels_lie_on_a_scan_of_which_a_scale_is_negative(tmp_path: Path) -> None:
    volume = read_volume(write_image(tmp_path / "ct.ome.zarr", [DATA], scale=(-2.0, 1.5, -1.0)))
    labels = LabelVolume.like(volume)
    labels.data[1, 2, 3] = 6
    found = read_labels(write_labels(tmp_path / "labels.ome.zarr", labels))
    assert found.grid.same_as(volume.grid, tolerance_mm=1e-6)
    assert found.data[1, 2, 3] == 6


@pytest.mark.parametrize("address", ["https://x.org/ct.ome.zarr", "s3://scans/ct.ome.zarr"])
def test_an_address_is_said_to_be_one(address: str) -> None:
    for path in (address, Path(address)):
        with pytest.raises(ImageError, match=r"is an address: .* download it"):
            read_volume(path)


@pytest.mark.usefixtures("little_memory")
def test_chunks_of_which_a_slab_does_not_fit_into_memory_are_not_taken_over(tmp_path: Path) -> None:
    scan = write_image(tmp_path / "ct.ome.zarr", [np.repeat(DATA, 12, axis=0)], chunks=(72, 4, 5))
    labels = LabelVolume.like(read_volume(scan))
    labels.data[3, 5, 7] = 1
    path = write_labels(tmp_path / "labels.ome.zarr", labels)
    assert zarr.open_group(path, mode="r")["0"].chunks == (32, 8, 10)


@pytest.mark.usefixtures("little_memory")
def test_labels_of_a_large_scan_lie_on_the_disk_and_come_back(tmp_path: Path) -> None:
    words = ("superior-to-inferior", "left-to-right", "posterior-to-anterior")
    levels = [DATA, DATA[::2, ::2, ::2]]
    volume = read_volume(write_image(tmp_path / "ct.ome.zarr", levels, words=words, chunks=(2, 4, 4)))
    assert volume.is_lazy
    assert [level.shape for level in volume.levels] == [(3, 5, 4)]
    labels = LabelVolume.like(volume)
    assert is_on_disk(labels.data)
    view = SliceView("sagittal", 3)
    labels.assign(view, view.extract(volume.data) > 0, 700)
    for name in ("labels.ome.zarr", "labels.nii.gz"):
        write_labels(tmp_path / name, labels, source=volume)
    found = read_labels(tmp_path / "labels.ome.zarr", reference=volume)
    assert is_on_disk(found.data)
    assert np.array_equal(found.data, labels.data)
    with pytest.raises(LabelError, match="read from OME-Zarr"):
        read_labels(tmp_path / "labels.nii.gz", reference=volume)
    with pytest.raises(ExportError, match=r"choose \.ome\.zarr or \.nii\.gz"):
        write_labels(tmp_path / "labels.mha", labels, source=volume)
    with pytest.raises(ExportError, match=r"choose \.ome\.zarr or \.nii\.gz"):
        refuse_unfit(tmp_path / "labels.stl", volume)
    refuse_unfit(tmp_path / "labels.nii", volume)


@pytest.mark.usefixtures("little_memory")
def test_a_damaged_chunk_is_said_when_it_is_asked_for(tmp_path: Path) -> None:
    path = write_image(tmp_path / "ct.ome.zarr", [DATA], chunks=(2, 4, 5))
    (path / "0" / "c" / "1" / "0" / "0").write_bytes(b"nothing")
    volume = read_volume(path)
    SliceView("axial", 0).extract(volume.data)
    with pytest.raises(ImageError, match="cannot be read from the disk"):
        SliceView("axial", 2).extract(volume.data)


def test_chunks_without_labels_are_not_written(tmp_path: Path) -> None:
    volume = read_volume(write_image(tmp_path / "ct.ome.zarr", [DATA], chunks=(2, 4, 5)))
    labels = LabelVolume.like(volume)
    labels.data[3, 5, 7] = 1
    path = write_labels(tmp_path / "labels.ome.zarr", labels, source=volume)
    assert sum(file.is_file() for file in (path / "0" / "c").rglob("*")) == 1


def test_a_tilted_scan_and_a_folder_of_something_else_are_refused(tmp_path: Path) -> None:
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(0.2), -np.sin(0.2)], [np.sin(0.2), np.cos(0.2)]]
    tilted = LabelVolume.like(Volume(DATA, Grid(turn @ np.diag([-1.0, -1.0, 2.0, 1.0]), DATA.shape[::-1])))
    with pytest.raises(ExportError, match="degrees off the axes"):
        write_labels(tmp_path / "labels.ome.zarr", tilted)
    assert not any(tmp_path.iterdir())
    scan = write_image(tmp_path / "ct.ome.zarr", [DATA])
    before = sorted(scan.rglob("*"))
    labels = LabelVolume.like(read_volume(scan))
    with pytest.raises(ExportError, match="the scan itself"):
        write_labels(scan, labels)
    labels.path = None
    with pytest.raises(ExportError, match="holds no labels"):
        write_labels(scan, labels)
    assert sorted(scan.rglob("*")) == before


def test_a_new_export_takes_the_place_of_the_previous_one_or_leaves_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = LabelVolume(np.ones(DATA.shape, np.uint8), Grid.from_zyx(DATA.shape), OrganTable.btcv())
    path = write_labels(tmp_path / "labels.ome.zarr", labels)
    labels.data[0] = 2
    replace = os.replace

    def fail(source: Any, target: Any) -> None:
        if str(source).endswith(".partial.ome.zarr"):
            raise OSError(28, "No space left on device")
        replace(source, target)

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", fail)
        with pytest.raises(ExportError, match="No space left"):
            write_labels(path, labels)
    assert read_labels(path).voxel_count(2) == 0
    write_labels(path, labels)
    assert read_labels(path).voxel_count(2) == DATA[0].size
    assert {file.name for file in tmp_path.iterdir()} == {path.name, "labels.sam-med.json"}


def test_previous_labels_survive_a_program_that_ends_between_two_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = LabelVolume(np.ones(DATA.shape, np.uint8), Grid.from_zyx(DATA.shape), OrganTable.btcv())
    path = write_labels(tmp_path / "labels.ome.zarr", labels)
    replace = os.replace

    def fail(source: Any, target: Any) -> None:
        if Path(target) == path:
            raise OSError(5, "gone")
        replace(source, target)

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", fail)
        with pytest.raises(ExportError):
            write_labels(path, labels)
    assert not path.exists()
    monkeypatch.setattr(replacement, "_is_alive", lambda _: False)
    write_labels(tmp_path / "other.ome.zarr", labels)  # sweeps up what ended programs left
    (previous,) = tmp_path.glob("labels.ome.zarr.previous-*")
    assert read_labels(previous).voxel_count(1) == DATA.size


def test_orientation_words_of_the_test_are_those_of_lps() -> None:
    assert [DIRECTIONS[word] for word in WORDS_LPS] == [(2, 1), (1, -1), (0, -1)]
