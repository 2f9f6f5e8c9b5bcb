"""Boxes of a detector as a strategy: which box is taken, from which file, and what is refused."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from napari_sam_med.errors import PromptError
from napari_sam_med.evaluation.detections import Detection, write_detections
from napari_sam_med.evaluation.detector_boxes import (
    DetectorBoxes,
    NoBoxError,
    boxes_of,
    check_boxes,
    folder_detections,
    label_detections,
    read_boxes,
)
from napari_sam_med.evaluation.prompt_strategies import parse_strategies
from napari_sam_med.evaluation.prompt_target import PromptTarget, tight_boxes
from napari_sam_med.volume.grid import Grid
from napari_sam_med.volume.labels import LabelVolume
from napari_sam_med.volume.organs import OrganTable
from napari_sam_med.volume.slice_view import PLANES, SliceView
from tests.evaluation.drawn_masks import generator

AXIAL = SliceView("axial", 2)


def _target(
    case: str = "ct", view: SliceView | None = AXIAL, label: int = 6, organ: str = "liver"
) -> PromptTarget:
    return PromptTarget(np.ones((20, 30), bool), None, case, view, label, organ)


def _boxes(*detections: Detection, margin: int = 0) -> DetectorBoxes:
    images = tuple(dict.fromkeys(one.image for one in detections))
    return DetectorBoxes("boxes.csv", detections, images, margin)


def _asked(boxes: DetectorBoxes, target: PromptTarget) -> list[float]:
    box = boxes(target, generator()).box_xyxy
    assert box is not None
    return box.tolist()


def _labels(data: np.ndarray, **names: int) -> LabelVolume:
    table = OrganTable.from_names({number: name for name, number in names.items()})
    return LabelVolume(np.asarray(data, np.uint8), Grid.from_zyx(data.shape), table)


def test_the_box_with_the_highest_score_for_the_organ_is_taken() -> None:
    boxes = _boxes(
        Detection("ct", AXIAL, (1, 1, 2, 2), 0.4, organ="liver"),
        Detection("ct", AXIAL, (3, 3, 4, 4), 0.6, organ="liver"),
        Detection("ct", AXIAL, (5, 5, 6, 6), 0.6, organ="liver"),
        Detection("ct", AXIAL, (7, 7, 8, 8), 0.9, organ="spleen"),
        Detection("ct", SliceView("axial", 3), (9, 9, 9, 9), 0.9, organ="liver"),
        Detection("ct", SliceView("coronal", 2), (9, 9, 9, 9), 0.9, organ="liver"),
        Detection("mr", AXIAL, (9, 9, 9, 9), 0.9, organ="liver"),
    )
    assert _asked(boxes, _target()) == [3, 3, 4, 4]
    assert _asked(boxes, _target(organ="spleen")) == [7, 7, 8, 8]


def test_organs_are_known_by_their_number_or_else_by_their_name_however_it_is_written() -> None:
    boxes = _boxes(
        Detection("ct", AXIAL, (1, 1, 2, 2), label=6, organ="hepar"),
        Detection("ct", AXIAL, (3, 3, 4, 4), organ="Left_Kidney"),
    )
    assert _asked(boxes, _target(label=6, organ="liver")) == [1, 1, 2, 2]
    assert _asked(boxes, _target(label=2, organ="left kidney")) == [3, 3, 4, 4]
    with pytest.raises(NoBoxError):
        boxes(_target(label=7, organ="hepar"), generator())


def test_where_the_detector_has_none_there_is_nothing_to_ask() -> None:
    boxes = _boxes(Detection("ct", AXIAL, (1, 1, 2, 2), organ="liver"))
    says = r"boxes.csv has no box for spleen on axial slice 2 of ct; the answer counts as empty"
    with pytest.raises(NoBoxError, match=says):
        boxes(_target(organ="spleen"), generator())
    with pytest.raises(PromptError, match="not said which slice"):
        boxes(_target(view=None), generator())


@pytest.mark.parametrize(
    ("image", "case", "is_same"),
    [
        ("ct.nii.gz", "ct.nii.gz", True),
        ("ct", "ct.nii.gz", True),
        ("ct.seg.nrrd", "ct", True),
        ("/scans/a/ct.nii.gz", "a/ct.nii.gz", True),
        ("C:\\scans\\a\\ct.mha", "a/ct.nii.gz", True),
        ("ct.nii.gz", "scans/ct.nii.gz", True),
        ("b/ct.nii.gz", "a/ct.nii.gz", False),
        ("act.nii.gz", "ct.nii.gz", False),
        ("ct.1", "ct.2", False),
        ("CT", "ct", False),
    ],
)
def test_scans_are_known_by_name_or_path(image: str, case: str, is_same: bool) -> None:
    boxes = _boxes(Detection(image, AXIAL, (1, 1, 2, 2), organ="liver"))
    if is_same:
        assert _asked(boxes, _target(case)) == [1, 1, 2, 2]
    else:
        with pytest.raises(PromptError, match=r"has only .*write .* as the image of its boxes"):
            boxes.image_of(case)


def test_of_several_scans_of_a_name_none_is_guessed() -> None:
    boxes = _boxes(
        Detection("a/ct.nii", AXIAL, (1, 1, 2, 2), organ="liver"),
        Detection("b/ct.nii", AXIAL, (3, 3, 4, 4), organ="liver"),
    )
    with pytest.raises(PromptError, match=r"several scans of that name \(a/ct.nii, b/ct.nii\)"):
        boxes(_target("ct"), generator())
    assert _asked(boxes, _target("b/ct.nii.gz")) == [3, 3, 4, 4]


def test_boxes_are_moved_out_by_the_margin_and_clipped() -> None:
    one = Detection("ct", AXIAL, (-0.4, 5, 27, 18.5), organ="liver")
    assert _asked(_boxes(one), _target()) == [0, 5, 27, 18.5]
    assert _asked(_boxes(one, margin=4), _target()) == [0, 1, 29, 19]


@pytest.mark.parametrize("box", [(30, 1, 33, 4), (1, 20, 4, 22), (-5, 1, -1, 4), (1, -9, 4, -0.6)])
def test_boxes_outside_the_slice_are_refused(box: tuple[float, float, float, float]) -> None:
    boxes = _boxes(Detection("ct", AXIAL, box, organ="liver"))
    with pytest.raises(PromptError, match="lies outside, as the pixels are 0 to 29 in x and 0 to 19 in y"):
        boxes(_target(), generator())
    with pytest.raises(PromptError, match="lies outside"):
        boxes.check("ct", _labels(np.ones((5, 20, 30)), liver=1))


def test_boxes_of_slices_organs_and_scans_that_do_not_exist_are_refused() -> None:
    labels = _labels(np.ones((2, 20, 30)), liver=1)
    with pytest.raises(PromptError, match="axial slice 2 of ct, which has 2; slices count from 0"):
        _boxes(Detection("ct", AXIAL, (1, 1, 2, 2), organ="liver")).check("ct", labels)
    first = SliceView("axial", 0)
    with pytest.raises(
        PromptError, match="boxes of hepar on ct, and its labels are liver; name organs alike"
    ):
        _boxes(Detection("ct", first, (1, 1, 2, 2), organ="hepar")).check("ct", labels)
    with pytest.raises(PromptError, match=r"alike \(proposals --organ NAME names its boxes\), or"):
        _boxes(Detection("ct", first, (1, 1, 2, 2), organ="object")).check("ct", labels)
    with pytest.raises(PromptError, match="has only mr"):
        _boxes(Detection("mr", first, (1, 1, 2, 2), organ="liver")).check("ct", labels)
    elsewhere = DetectorBoxes("total.nii.gz", (), ("",), grid=Grid.from_zyx((2, 20, 31)))
    with pytest.raises(PromptError, match="does not lie on those of ct"):
        elsewhere.check("ct", labels)
    some = _boxes(
        Detection("ct", first, (1, 1, 2, 2), organ="hepar"), Detection("ct", first, (1, 1, 2, 2), label=1)
    )
    some.check("ct", labels)


@given(npst.arrays(np.uint8, st.tuples(*[st.integers(1, 6)] * 3), elements=st.integers(0, 3)))
@settings(deadline=None)
def test_boxes_of_labels_are_tangent_on_every_slice_of_every_plane(data: np.ndarray) -> None:
    labels = _labels(data, liver=1, spleen=2)
    number = {"liver": 1, "spleen": 2}
    found = {
        (one.view, one.label or number[one.organ]): one.box_xyxy for one in label_detections(labels, "ct")
    }
    expected = {}
    for plane in PLANES:
        for index in range(data.shape[SliceView(plane, 0).axis]):
            image = SliceView(plane, index).extract(data)
            for label in set(image.ravel().tolist()) - {0}:
                box = tight_boxes((image == label)[None])[0]
                expected[SliceView(plane, index), label] = tuple(box.tolist())
    assert found == expected
    assert len(label_detections(labels)) == len(expected)
    assert {one.image for one in label_detections(labels, "ct", ["axial"])} <= {"ct"}


def _nifti(path: Path, data: np.ndarray) -> Path:
    nib.save(nib.Nifti1Image(np.asarray(data, np.uint8), np.diag([-1.0, -1.0, 1.0, 1.0])), path)
    return path


def test_label_volumes_and_folders_of_masks_are_boxes_too(tmp_path: Path) -> None:
    """What TotalSegmentator writes with and without --ml; i, j, k run as x, y, z here."""
    masks = tmp_path / "segmentations"
    masks.mkdir()
    data = np.zeros((30, 20, 4), np.uint8)
    data[3:8, 5:7, 2] = 1
    _nifti(masks / "liver.nii.gz", data)
    _nifti(masks / "kidney_left.nii", data[::-1])
    (masks / "statistics.json").write_text("{}")
    boxes = read_boxes(str(masks))
    assert _asked(boxes, _target("whatever")) == [3, 5, 7, 6]
    assert _asked(boxes, _target(organ="kidney left")) == [22, 5, 26, 6]
    together = _nifti(tmp_path / "total.nii.gz", 6 * data)
    assert _asked(read_boxes(str(together)), _target()) == [3, 5, 7, 6]
    assert _asked(read_boxes(f"{together}:2"), _target()) == [1, 3, 9, 8]
    _nifti(masks / "spleen.nii.gz", data[1:])
    with pytest.raises(PromptError, match="lies on another grid than kidney_left"):
        folder_detections(masks)


def test_files_are_named_with_a_margin_or_a_data_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    one = Detection("ct", AXIAL, (5, 5, 6, 6), organ="liver")
    write_detections(Path("a.csv"), [one])
    write_detections(Path("a.json"), [one])
    assert read_boxes(" a.csv ").margin == 0
    assert _asked(read_boxes("a.csv:3"), _target()) == [2, 2, 9, 9]
    assert _asked(read_boxes("a.json"), _target()) == [5, 5, 6, 6]
    Path("found.json").write_text('[{"image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 0.5}]')
    assert _asked(read_boxes("found.json@a.json:1"), _target()) == [0, 1, 4, 6]
    for text in ("", "none.csv", "a.csv:x", "none.csv:4"):
        with pytest.raises(PromptError, match=r"no file of boxes.*write boxes:FILE"):
            read_boxes(text)
    with pytest.raises(PromptError, match="margin of boxes is 0 to 1000 pixels, got -4"):
        read_boxes("a.csv:-4")
    Path("empty").mkdir()
    with pytest.raises(PromptError, match="The folder empty has no masks"):
        read_boxes("empty")


def test_other_boxes_in_a_file_of_the_same_name_are_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    sums = []
    for score in (0.5, 0.25, 0.5):
        write_detections(path, [Detection("ct", AXIAL, (5, 5, 6, 6), score, organ="liver")])
        sums.append(read_boxes(str(path)).sha256)
    assert sums[0] == sums[2] != sums[1]
    assert read_boxes(f"{path}:1").sha256 != sums[0]


def test_the_strategy_is_found_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_detections(Path("a.csv"), [Detection("ct", AXIAL, (5, 5, 6, 6), organ="liver")])
    strategies = parse_strategies(["bound_box", "boxes:a.csv", "boxes:a.csv:2+center_mask"])
    assert [strategy.name for strategy in strategies] == [
        "bound_box",
        "boxes:a.csv",
        "boxes:a.csv:2+center_mask",
    ]
    assert strategies[1].dialogue.kinds == {"box"}
    assert list(boxes_of(strategies)) == ["boxes:a.csv", "boxes:a.csv:2+center_mask"]
    assert [boxes.margin for boxes in boxes_of(strategies).values()] == [0, 2]
    assert list(boxes_of(strategies, alone=True)) == ["boxes:a.csv"]
    assert list(boxes_of(parse_strategies(["corrective_clicks:2+boxes:a.csv"]))) == [
        "boxes:a.csv+corrective_clicks:2"
    ]
    together = strategies[2].dialogue.opening(_target(), generator())
    assert together.box_xyxy is not None
    assert together.box_xyxy.tolist() == [3, 3, 8, 8]
    assert len(together.points_xy) == 1


def test_scans_without_boxes_are_noticed_before_anything_is_measured(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    write_detections(path, [Detection("ct", AXIAL, (5, 5, 6, 6), organ="liver")])
    strategies = parse_strategies(["bound_box", f"boxes:{path}"])
    check_boxes(strategies, ["ct.nii.gz"])
    with pytest.raises(PromptError, match="No boxes can be told to be those of mr"):
        check_boxes(strategies, ["ct.nii.gz", "mr.nii"])
    labels = _nifti(tmp_path / "total.nii.gz", np.ones((3, 3, 3)))
    check_boxes(parse_strategies([f"boxes:{labels}"]), ["ct"])
    with pytest.raises(PromptError, match="has the boxes of one scan, and there are 2"):
        check_boxes(parse_strategies([f"boxes:{labels}"]), ["ct", "mr"])
