"""The bundled sample: what it holds, and that its script makes exactly that."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from napari_sam_med import read_labels, read_volume
from napari_sam_med.sample_data import phantom, sample_labels, sample_prompts, sample_volume
from napari_sam_med.segmentation.prompts_file import read_prompts
from napari_sam_med.volume.organs import OrganTable


@pytest.fixture(scope="module")
def truth() -> np.ndarray:
    return np.asarray(nib.load(sample_labels()).dataobj)


def test_script_makes_the_bundled_files(tmp_path: Path, truth: np.ndarray) -> None:
    volume, labels, prompts = phantom.write_phantom(tmp_path)
    made, bundled = nib.load(volume), nib.load(sample_volume())
    assert np.array_equal(made.affine, bundled.affine)
    # another processor's float32 may round a voxel the other way
    assert np.abs(np.asarray(made.dataobj).astype(int) - np.asarray(bundled.dataobj)).max() <= 2
    assert (np.asarray(nib.load(labels).dataobj) != truth).mean() < 1e-5
    assert json.loads(prompts.read_text()) == json.loads(sample_prompts().read_text())


def test_is_small_enough_to_ship() -> None:
    assert sample_volume().stat().st_size + sample_labels().stat().st_size < 3_000_000


def test_is_awkward_as_real_scans_are() -> None:
    image = nib.load(sample_volume())
    assert nib.aff2axcodes(image.affine) == ("L", "A", "S")
    assert np.linalg.det(image.affine) < 0
    assert image.header.get_zooms() == pytest.approx((1.6, 1.6, 4.0))
    direction = image.affine[:3, :3] / np.linalg.norm(image.affine[:3, :3], axis=0)
    assert np.abs(direction).max(axis=0).max() < 0.9995  # tilted about every axis
    volume = read_volume(sample_volume())
    assert volume.is_hounsfield
    assert volume.shape == (48, 160, 192)


def test_has_the_thirteen_organs_at_sensible_sizes(truth: np.ndarray) -> None:
    labels = read_labels(sample_labels())
    assert labels.organs == OrganTable.btcv()
    assert labels.organs.name_of(6) == "liver"
    for class_id, (low, high) in {
        1: (80, 300),
        2: (90, 220),
        3: (90, 220),
        6: (700, 1800),
        12: (2, 8),
    }.items():
        assert low < float((truth == class_id).sum()) * 1.6 * 1.6 * 4 / 1000 < high


def test_left_and_right_are_the_patients_own(truth: np.ndarray) -> None:
    affine = nib.load(sample_labels()).affine

    def ras(class_id: int) -> np.ndarray:
        return affine[:3, :3] @ np.argwhere(truth == class_id).mean(axis=0) + affine[:3, 3]

    assert ras(6)[0] > ras(1)[0]  # RAS: x grows to the right
    assert ras(2)[0] > ras(3)[0]
    assert ras(7)[1] > ras(2)[1]  # the stomach lies in front of the kidneys
    assert ras(6)[2] > ras(2)[2]


def test_prompts_enclose_their_organs(truth: np.ndarray) -> None:
    prompted = json.loads(sample_prompts().read_text())
    assert {entry["name"] for entry in prompted["objects"]} >= {"liver", "spleen", "aorta"}
    for entry in prompted["objects"]:
        for box in entry["boxes"]:
            k = box["from"][2]
            inside = np.zeros(truth.shape[:2], dtype=bool)
            inside[box["from"][0] : box["to"][0] + 1, box["from"][1] : box["to"][1] + 1] = True
            organ = truth[..., k] == entry["label"]
            assert organ.sum() > 50
            assert (organ & ~inside).sum() == 0
        for point in entry.get("points", []):
            assert not point["positive"]
            assert truth[tuple(point["at"])] not in (0, entry["label"])
    assert len(read_prompts(sample_prompts(), read_volume(sample_volume()))) == len(prompted["objects"])
