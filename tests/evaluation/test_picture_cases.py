"""Pictures as scans of one slice."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from napari_sam_med.errors import ImageError, LabelError
from napari_sam_med.evaluation.cases import read_case, read_cases
from napari_sam_med.evaluation.picture_cases import read_picture_case
from napari_sam_med.volume.intensity import to_rgb
from napari_sam_med.volume.slice_view import SliceView

SLICE = SliceView("axial", 0)


def _save(path: Path, array: np.ndarray) -> Path:
    Image.fromarray(array).save(path)
    return path


@pytest.fixture
def grey() -> np.ndarray:
    return np.arange(30 * 40, dtype=np.uint32).reshape(30, 40).astype(np.uint8)


def test_a_picture_is_a_slice_as_it_is_seen(tmp_path: Path, grey: np.ndarray) -> None:
    mask = np.zeros((30, 40), np.uint8)
    mask[3:9, 20:31] = 255
    _save(tmp_path / "a.png", grey)
    _save(tmp_path / "a_mask.png", mask)
    (tmp_path / "cases.csv").write_text('image,labels,names\na.png,a_mask.png,"{""1"": ""cyst""}"\n')
    (case,) = read_cases(tmp_path / "cases.csv")
    volume, labels = read_case(case)
    assert volume.shape == labels.shape == (1, 30, 40)
    assert np.array_equal(SLICE.extract(volume.data), grey)
    assert np.array_equal(SLICE.extract(labels.data), mask // 255)
    assert labels.organs.name_of(1) == "cyst"
    assert to_rgb(volume, SLICE).shape == (30, 40, 3)


def test_numbers_colours_and_deep_pictures(tmp_path: Path, grey: np.ndarray) -> None:
    numbers = np.zeros((30, 40), np.uint16)
    numbers[:5], numbers[5:9] = 3, 300
    colours = np.stack([grey, grey // 2, grey], 2)
    image = _save(tmp_path / "a.png", colours)
    volume, labels = read_picture_case(image, _save(tmp_path / "l.png", numbers))
    assert labels.class_ids() == (3, 300)
    assert labels.data.dtype == np.uint16
    assert "grey" in volume.warnings[0]
    jpeg = tmp_path / "a.jpg"
    Image.fromarray(np.full((30, 40), 90, np.uint8)).save(jpeg)
    volume, _ = read_picture_case(jpeg, tmp_path / "l.png")
    assert volume.warnings == ()
    assert (volume.data == 90).all()
    palette = Image.fromarray((numbers > 0).astype(np.uint8) * 2).convert("P")
    palette.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0])
    palette.save(tmp_path / "p.png")
    assert read_picture_case(image, tmp_path / "p.png")[1].class_ids() == (2,)


def test_bad_pictures_are_refused_in_one_line(tmp_path: Path, grey: np.ndarray) -> None:
    image = _save(tmp_path / "a.png", grey)
    whole = image.read_bytes()
    (tmp_path / "torn.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ImageError, match=r"torn\.png is damaged"):
        read_picture_case(tmp_path / "torn.png", image)
    with pytest.raises(ImageError, match="no file"):
        read_picture_case(tmp_path / "none.png", image)
    with pytest.raises(LabelError, match="same size"):
        read_picture_case(image, _save(tmp_path / "small.png", grey[:10]))
    with pytest.raises(LabelError, match="colours"):
        read_picture_case(image, _save(tmp_path / "c.png", np.stack([grey, grey // 2, grey], 2)))
