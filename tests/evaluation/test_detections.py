"""Boxes of detectors, from CSV and COCO JSON and back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from napari_sam_med import LabelVolume, SliceView, read_volume, write_labels
from napari_sam_med.errors import PromptError
from napari_sam_med.evaluation.detections import (
    Detection,
    DetectionFile,
    coco_document,
    read_detections,
    write_detections,
)
from napari_sam_med.evaluation.prompt_target import tight_boxes
from napari_sam_med.volume.organs import OrganTable
from tests.volume.phantoms import affine_of, ct_like, save_nifti

HEADER = "image,plane,slice,organ,label,x0,y0,x1,y1,score\n"


def _csv(folder: Path, text: str) -> DetectionFile:
    path = folder / "boxes.csv"
    path.write_text(text, encoding="utf-8")
    return read_detections(path)


def _coco(folder: Path, **changes: Any) -> DetectionFile:
    document = {
        "images": [{"id": 7, "file_name": "ct.nii.gz", "plane": "coronal", "slice": 3}],
        "annotations": [{"id": 1, "image_id": 7, "category_id": 2, "bbox": [4, 5, 6, 7], "score": 0.5}],
        "categories": [{"id": 2, "name": "spleen"}],
    }
    path = folder / "boxes.json"
    path.write_text(json.dumps(document | changes), encoding="utf-8")
    return read_detections(path)


def test_a_row_is_a_box_in_any_order_of_columns(tmp_path: Path) -> None:
    read = _csv(
        tmp_path,
        "\ufeffScore, y1,x1 ,y0,x0,organ,note,slice,plane,image\n.25,9,8,2,1,Left Kidney,?,57.0,Sagittal,a\n",
    )
    assert read.detections == (
        Detection("a", SliceView("sagittal", 57), (1, 2, 8, 9), 0.25, organ="Left Kidney"),
    )
    assert read.images == ("a",)


def test_plane_and_score_may_be_missing_and_a_number_names_the_organ(tmp_path: Path) -> None:
    (one,) = _csv(tmp_path, "image,slice,label,x0,y0,x1,y1\nct.nii.gz,0,6,-0.5,1,3.25,4\n").detections
    assert one == Detection("ct.nii.gz", SliceView("axial", 0), (-0.5, 1, 3.25, 4), 1.0, 6)


def test_a_row_of_an_image_alone_says_that_nothing_was_found(tmp_path: Path) -> None:
    read = _csv(tmp_path, HEADER + "a,,,,,,,,,\nb,axial,1,liver,,0,0,1,1,1\nb\n")
    assert read.images == ("a", "b")
    assert [one.image for one in read.detections] == ["b"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("image,plane,slice,x0,y0,x1,score\n", r"lacks the columns y1, organ:.*add them"),
        ("", r"lacks the columns image, slice, x0, y0, x1, y1, organ"),
        (
            HEADER + "a,axial,1,liver,,1,1,2,2,1\n,axial,1,liver,,1,1,2,2,1\n",
            "Row 2 of boxes.csv has no image",
        ),
        (HEADER + "a,axial,1,liver,,5,1,2,2,1\n", r"Row 1 of boxes.csv: .*\[5, 1, 2, 2\].*swap its corners"),
        (HEADER + "a,axial,1,liver,,1,5,2,2,1\n", "swap its corners"),
        (HEADER + "a,axial,1,liver,,nan,1,2,2,1\n", "not finite; leave"),
        (HEADER + "a,axial,1,liver,,1,1,2,2,inf\n", "not finite; leave"),
        (HEADER + "a,axial,1,liver,,1,1,2,2,-1\n", "negative; give 0 or more"),
        (HEADER + "a,axial,1,liver,,1,,2,2,1\n", "Row 1 of boxes.csv has \"y0\" '', which is no number"),
        (HEADER + "a,axial,1,liver,,1,1,2\n", "has \"y1\" '', which is no number"),
        (HEADER + "a,axial,one,liver,,1,1,2,2,1\n", "has \"slice\" 'one'"),
        (HEADER + "a,axial,1.5,liver,,1,1,2,2,1\n", '"slice" 1.5, which is no whole number'),
        (HEADER + "a,axial,inf,liver,,1,1,2,2,1\n", '"slice" inf, which is no whole number'),
        (HEADER + "a,axial,-1,liver,,1,1,2,2,1\n", "slices count from 0"),
        (HEADER + "a,oblique,1,liver,,1,1,2,2,1\n", "use axial, coronal or sagittal"),
        (HEADER + "a,axial,1,,,1,1,2,2,1\n", "names no organ; fill in"),
        (HEADER + "a,axial,1,,-2,1,1,2,2,1\n", "names no organ; fill in"),
    ],
)
def test_rows_that_cannot_be_used_are_named(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(PromptError, match=says):
        _csv(tmp_path, text)


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    for name in ("none.csv", "none.json"):
        with pytest.raises(PromptError, match=f"{name} cannot be read.*check the path"):
            read_detections(tmp_path / name)
    (tmp_path / "a.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(PromptError, match="save it as comma-separated UTF-8"):
        read_detections(tmp_path / "a.csv")
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(PromptError, match="no JSON text"):
        read_detections(tmp_path / "a.json")
    (tmp_path / "a.json").write_text("3")
    with pytest.raises(PromptError, match="no COCO file"):
        read_detections(tmp_path / "a.json")


def test_a_coco_box_ends_at_the_centre_of_its_last_pixel(tmp_path: Path) -> None:
    """Columns 4 to 9 are six pixels: COCO's [4, ..., 6, ...] from the outer edge of the first one."""
    (one,) = _coco(tmp_path).detections
    assert one == Detection("ct.nii.gz", SliceView("coronal", 3), (4, 5, 9, 11), 0.5, organ="spleen")


def test_a_coco_box_below_a_pixel_is_its_middle(tmp_path: Path) -> None:
    # from 4 to 4.5 of the outer edges is -0.25 of the centre of pixel 4
    narrow = [{"id": 1, "image_id": 7, "category_id": 2, "bbox": [4, 5, 0.5, 1]}]
    (one,) = _coco(tmp_path, annotations=narrow).detections
    assert one.box_xyxy == (3.75, 5, 3.75, 5)
    assert one.score == 1


@pytest.mark.parametrize(
    ("image", "place"),
    [
        ({"file_name": "a/ct.nii.gz", "slice": 4}, ("a/ct.nii.gz", "axial", 4)),
        ({"file_name": "a/ct_0057.png"}, ("a/ct", "axial", 57)),
        ({"file_name": "a/ct/057.jpg"}, ("a/ct", "axial", 57)),
        ({"file_name": "ct_coronal_003.PNG"}, ("ct", "coronal", 3)),
        ({"file_name": "ct-12.tif", "plane": "sagittal"}, ("ct", "sagittal", 12)),
        ({"file_name": "ct_12.png", "slice": 0}, ("ct_12.png", "axial", 0)),
        ({"file_name": "x-ray.png"}, ("x-ray.png", "axial", 0)),
        ({"file_name": "3.png", "volume_file": "ct.nii.gz", "slice": 2}, ("ct.nii.gz", "axial", 2)),
    ],
)
def test_the_slice_of_a_coco_image(
    tmp_path: Path, image: dict[str, Any], place: tuple[str, str, int]
) -> None:
    (one,) = _coco(tmp_path, images=[{"id": 7, **image}]).detections
    assert (one.image, one.view.plane, one.view.index) == place


def test_categories_are_organs_by_name_or_else_by_number(tmp_path: Path) -> None:
    def organ(**category: Any) -> tuple[int, str]:
        (one,) = _coco(tmp_path, categories=[{"id": 2, **category}]).detections
        return one.label, one.organ

    assert organ(name="spleen") == (0, "spleen")
    assert organ(name="spleen", label=4) == (4, "spleen")
    assert organ(name="label 9") == (9, "")
    assert organ() == (2, "")
    assert _coco(tmp_path, categories=[]).detections[0].label == 2


def test_images_without_annotations_were_looked_at_and_crowds_are_no_detections(tmp_path: Path) -> None:
    crowd = [{"id": 1, "image_id": 7, "category_id": 2, "bbox": [4, 5, 6, 7], "iscrowd": 1}]
    read = _coco(tmp_path, annotations=crowd)
    assert read.detections == ()
    assert read.images == ("ct.nii.gz",)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"images": None}, "no COCO file of boxes"),
        ({"images": [{"id": 7}]}, "Image 7 of boxes.json has no file_name"),
        ({"images": [{"id": 7, "file_name": "a", "slice": "x"}]}, "has \"slice\" 'x'"),
        (
            {"images": [{"id": 7, "file_name": "a", "plane": "odd"}]},
            "Image 7 .* use axial, coronal or sagittal",
        ),
        ({"images": [{"id": 7, "volume_file": "a", "volume_slice": 3}]}, 'add "slice"'),
        (
            {"annotations": [{"image_id": 8, "category_id": 2, "bbox": [1, 2, 3, 4]}]},
            "is on image 8, .*add it",
        ),
        ({"annotations": [{"image_id": 7, "category_id": 2}]}, "no COCO file of boxes .*'bbox'"),
        ({"annotations": [{"image_id": 7, "category_id": 2, "bbox": [1, 2, 3]}]}, '"bbox" of 3 numbers'),
        ({"annotations": [{"image_id": 7, "category_id": 2, "bbox": [1, 2, 0, 4]}]}, "0 x 4 .* both above 0"),
        ({"annotations": [{"image_id": 7, "category_id": 2, "bbox": [1, 2, 3, float("nan")]}]}, "not finite"),
        ({"annotations": None}, "no COCO file of boxes"),
    ],
)
def test_coco_that_cannot_be_used_is_refused(tmp_path: Path, changes: dict[str, Any], says: str) -> None:
    with pytest.raises(PromptError, match=says):
        _coco(tmp_path, **changes)


def test_a_list_of_results_needs_the_data_set_that_it_counts(tmp_path: Path) -> None:
    dataset, results = tmp_path / "dataset.json", tmp_path / "results.json"
    frame = {
        "images": [{"id": 7, "file_name": "a", "slice": 1}, {"id": 8, "file_name": "b", "slice": 2}],
        "categories": [{"id": 2, "name": "spleen"}],
    }
    dataset.write_text(json.dumps(frame))
    results.write_text(json.dumps([{"image_id": 8, "category_id": 2, "bbox": [0, 0, 2, 2], "score": 0.5}]))
    with pytest.raises(PromptError, match="name it too, as RESULTS"):
        read_detections(results)
    read = read_detections(results, dataset)
    assert read.images == ("a", "b")
    assert read.detections == (Detection("b", SliceView("axial", 2), (0, 0, 1, 1), 0.5, organ="spleen"),)


def test_labels_exported_to_coco_are_boxes_on_the_slices_that_they_come_from(tmp_path: Path) -> None:
    """Whatever way the axes of the file run."""
    scan = read_volume(
        save_nifti(tmp_path / "ct.nii.gz", ct_like((5, 6, 7)), affine_of("PIR", (1.0, 2.0, 3.0)))
    )
    labels = LabelVolume.like(scan, OrganTable.from_names({2: "spleen", 5: "label 5"}))
    labels.data[1:3, 1:4, 2:5] = 2
    labels.data[4, 0, 0] = 5
    path = write_labels(tmp_path / "labels.coco.json", labels)
    read = read_detections(Path(path))
    assert read.images == ("ct.nii.gz",)
    assert {one.view for one in read.detections} == {SliceView("axial", z) for z in (1, 2, 4)}
    for one in read.detections:
        mask = one.view.extract(labels.data) == (one.label or 2)
        assert one.box_xyxy == tuple(tight_boxes(mask[None])[0])
    assert {(one.label, one.organ) for one in read.detections} == {(0, "spleen"), (5, "")}


_NUMBERS = st.floats(-50, 600, width=32).map(float)
_NAMES = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")), min_size=1, max_size=8)


@st.composite
def _detections(draw: st.DrawFn) -> Detection:
    x0, y0 = draw(_NUMBERS), draw(_NUMBERS)
    width, height = draw(st.floats(0, 300)), draw(st.floats(0, 300))
    organ = draw(st.one_of(st.just(""), _NAMES))
    return Detection(
        draw(_NAMES),
        SliceView(draw(st.sampled_from(("axial", "coronal", "sagittal"))), draw(st.integers(0, 999))),
        (x0, y0, x0 + width, y0 + height),
        draw(st.floats(0, 1)),
        draw(st.integers(0 if organ else 1, 99)),
        organ,
    )


@given(st.lists(_detections(), max_size=6))
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_csv_and_coco_give_back_what_was_written(tmp_path: Path, detections: list[Detection]) -> None:
    for name in ("boxes.csv", "boxes.json"):
        write_detections(tmp_path / name, detections)
        read = read_detections(tmp_path / name).detections
        assert [_place(one) for one in read] == [_place(one) for one in detections]
        expected = np.array([one.box_xyxy for one in detections])
        assert np.allclose(np.array([one.box_xyxy for one in read]), expected, atol=1e-9)
    write_detections(tmp_path / "again.csv", read_detections(tmp_path / "boxes.csv").detections)
    assert (tmp_path / "again.csv").read_bytes() == (tmp_path / "boxes.csv").read_bytes()


def _place(one: Detection) -> tuple[Any, ...]:
    return one.image, one.view, one.score, one.label, one.organ


@given(st.integers(0, 30), st.integers(0, 30), st.integers(0, 30), st.integers(0, 30))
def test_the_coco_area_of_whole_pixels_is_their_number(x: int, y: int, width: int, height: int) -> None:
    one = Detection("a", SliceView("axial", 0), (x, y, x + width, y + height), organ="liver")
    (annotation,) = coco_document([one])["annotations"]
    assert annotation["area"] == (width + 1) * (height + 1)
    assert annotation["bbox"] == [x, y, width + 1, height + 1]
