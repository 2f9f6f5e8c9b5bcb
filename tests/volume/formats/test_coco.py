"""COCO JSON, against COCO's own tools."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from napari_sam_med import LabelVolume, SliceView, read_labels, read_volume, write_labels
from napari_sam_med.errors import LabelError
from napari_sam_med.volume.formats.coco import LOSS, mask_of, run_lengths
from napari_sam_med.volume.organs import Organ
from tests.volume.phantoms import affine_of, ct_like, save_nifti


@given(hnp.arrays(bool, hnp.array_shapes(min_dims=2, max_dims=2, max_side=40)))
@settings(deadline=None)
def test_runs_are_those_of_cocos_own_tools(mask: np.ndarray) -> None:
    expected = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))["counts"].decode("ascii")
    assert run_lengths(mask) == expected
    assert np.array_equal(mask_of({"size": list(mask.shape), "counts": expected}, mask.shape), mask)


@given(st.integers(1, 2000), st.integers(1, 500), st.data())
@settings(deadline=None, max_examples=30)
def test_long_runs_too(height, width, data) -> None:
    mask = np.zeros((height, width), dtype=bool)
    for _ in range(data.draw(st.integers(0, 3))):
        mask[data.draw(st.integers(0, height - 1)) :, data.draw(st.integers(0, width - 1)) :] ^= True
    expected = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))["counts"].decode("ascii")
    assert run_lengths(mask) == expected


@pytest.fixture
def labels(tmp_path) -> LabelVolume:
    scan = read_volume(
        save_nifti(tmp_path / "größe.nii.gz", ct_like((5, 6, 7)), affine_of("PIR", (1.0, 2.0, 3.0)))
    )
    labels = LabelVolume.like(scan)
    labels.data[...] = np.random.default_rng(0).integers(0, 3, labels.shape)
    labels.data[2] = 0
    labels.data[4, 1, 1] = 255
    labels.organs = labels.organs.with_organ(Organ(255, "Läsion 名", (1.0, 0.0, 0.5)))
    return labels


# pycocotools 2.0.11 still speaks to NumPy 1
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_cocos_own_tools_give_every_mask_back(tmp_path, labels) -> None:
    """Statement 18: and names with accents."""
    path = write_labels(tmp_path / "a b é.coco.json", labels)
    coco = COCO(path)
    restored = np.zeros_like(labels.data)
    for image in coco.loadImgs(coco.getImgIds()):
        assert image["volume_axis"] == labels.grid.file_axis("axial")
        view = labels.grid.view_from_file(image["volume_axis"], image["volume_slice"])
        for annotation in coco.loadAnns(coco.getAnnIds(imgIds=image["id"])):
            mask = coco.annToMask(annotation).astype(bool)
            view.window_on(restored)[mask] = annotation["category_id"]
            assert annotation["area"] == mask.sum()
            assert annotation["bbox"] == coco_mask.toBbox(annotation["segmentation"]).tolist()
    assert np.array_equal(restored, labels.data)
    assert coco.loadCats([255])[0]["name"] == "Läsion 名"
    assert coco.loadCats([255])[0]["color"] == [255, 0, 128]
    assert len(coco.getImgIds()) == labels.shape[0]


def test_the_file_says_what_it_lacks_and_where_its_slices_lie(tmp_path, labels) -> None:
    document = json.loads(write_labels(tmp_path / "labels.coco.json", labels).read_bytes())
    assert LOSS in document["info"]["description"]
    assert "Lossy" in document["info"]["description"]
    image = document["images"][3]
    sha256 = hashlib.sha256((tmp_path / "größe.nii.gz").read_bytes()).hexdigest()
    assert image["volume_file"] == "größe.nii.gz"
    assert image["volume_sha256"] == sha256
    assert image["volume_slice"] == labels.grid.file_index(SliceView("axial", 3))
    assert (image["plane"], image["rows_to"], image["columns_to"]) == ("axial", "P", "L")
    assert image["pixel_spacing_mm"] == [1.0, 3.0]


def test_labels_of_no_file_have_no_volume(tmp_path, labels) -> None:
    anonymous = LabelVolume(labels.data, labels.grid)
    document = json.loads(write_labels(tmp_path / "labels.coco.json", anonymous).read_bytes())
    assert document["images"][0]["volume_file"] is None


def test_masks_come_back_on_the_very_scan_alone(tmp_path, labels) -> None:
    """Statements 18 and 26: by slice number, and so for no other file of that shape."""
    path = write_labels(tmp_path / "a b é.coco.json", labels)
    scan = read_volume(labels.path)
    read = read_labels(path, reference=scan)
    assert np.array_equal(read.data, labels.data)
    assert read.data.dtype == np.uint8
    assert {i: organ.name for i, organ in read.organs.items()} == {
        i: organ.name for i, organ in labels.organs.items()
    }
    other = read_volume(save_nifti(tmp_path / "other.nii.gz", ct_like((5, 6, 7), seed=1), scan.affine))
    with pytest.raises(LabelError, match=r"masks of größe\.nii\.gz, which is not the scan given"):
        read_labels(path, reference=other)
    with pytest.raises(LabelError, match="without geometry; give the scan"):
        read_labels(path)
    with pytest.raises(LabelError, match="cannot be read"):
        read_labels(tmp_path / "none.coco.json", reference=scan)


def _with(document, *keys, value):
    *way, last = keys
    for key in way:
        document = document[key]
    document[last] = value


@pytest.mark.parametrize(
    ("keys", "value", "says"),
    [
        (("images", 0, "volume_sha256"), None, "does not say"),
        (("images", 0, "volume_slice"), 99, "damaged"),
        (("annotations", 0, "image_id"), 99, "damaged"),
        (("annotations", 0, "category_id"), 0, "overlap"),
        (("annotations", 0, "category_id"), 70000, "overlap"),
        (("annotations", 0, "segmentation", "counts"), "0", "damaged"),
        (("annotations", 0, "segmentation", "counts"), [1, 2], "damaged"),
        (("annotations", 0, "segmentation", "counts"), "o" * 500, "damaged"),
        (("annotations", 0, "segmentation", "size"), [9, 9], "damaged"),
        (("annotations", 0, "segmentation", "counts"), "o" * 10**7, "impossible length"),
        (("annotations",), 3, "damaged"),
        (("categories", 0, "id"), "x", "damaged"),
    ],
)
def test_damaged_files_are_refused(tmp_path, labels, keys, value, says) -> None:
    path = write_labels(tmp_path / "x.coco.json", labels)
    document = json.loads(path.read_bytes())
    _with(document, *keys, value=value)
    path.write_text(json.dumps(document))
    with pytest.raises(LabelError, match=says):
        read_labels(path, reference=read_volume(labels.path))


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b"\xff", b"[" * 100000])
def test_what_is_no_coco_file_is_refused(tmp_path, labels, content) -> None:
    path = tmp_path / "x.coco.json"
    path.write_bytes(content)
    with pytest.raises(LabelError, match="no COCO file"):
        read_labels(path, reference=read_volume(labels.path))
