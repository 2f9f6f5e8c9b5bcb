"""DICOM dropped on the viewer: a folder, a file, all files of a series, a DICOM SEG."""

from __future__ import annotations

from pathlib import Path

import npe2
import numpy as np
import pytest

import napari_sam_med
from napari_sam_med import LabelVolume, read_volume, write_labels
from napari_sam_med.gui.contributions import get_reader
from tests.volume.dicom_files import save_series
from tests.volume.phantoms import affine_of, ct_like


def _layers(path):
    reader = get_reader(path)
    assert reader is not None
    return reader(path)


def test_a_series_is_one_layer_however_it_is_dropped(tmp_path: Path) -> None:
    files = save_series(tmp_path / "ct", ct_like((7, 6, 5)), affine_of("LPS", (1, 1, 3)))
    files = [str(file.rename(file.with_suffix(".dcm"))) for file in files]
    expected = read_volume(files[0]).data
    for dropped in (str(tmp_path / "ct"), files[2], files):
        layers = _layers(dropped)
        assert [kind for _, _, kind in layers] == ["image"]
        assert np.array_equal(layers[0][0], expected)
    assert get_reader(str(tmp_path)) is None


@pytest.mark.parametrize("asked", ["iterdir", "is_dir"])
def test_a_folder_that_cannot_be_listed_is_left_to_others(
    asked: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_series(tmp_path / "ct", ct_like((7, 6, 5)), affine_of("LPS", (1, 1, 3)))
    assert get_reader(str(tmp_path / "ct")) is not None

    def denied(_: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, asked, denied)
    assert get_reader(str(tmp_path / "ct")) is None


def test_a_dicom_seg_is_a_labels_layer(tmp_path: Path) -> None:
    files = save_series(tmp_path / "ct", ct_like((7, 6, 5)), affine_of("LPS", (1, 1, 3)))
    labels = LabelVolume.like(read_volume(files[0]))
    labels.data[2, 2, 2] = 6
    [(data, _, kind)] = _layers(str(write_labels(tmp_path / "x.dcm", labels)))
    assert kind == "labels"
    assert np.array_equal(data, labels.data)


def test_the_manifest_takes_folders() -> None:
    manifest = npe2.PluginManifest.from_file(Path(napari_sam_med.__file__).with_name("napari.yaml"))
    reader = manifest.contributions.readers[0]
    assert reader.accepts_directories
    assert "*.dcm" in reader.filename_patterns
