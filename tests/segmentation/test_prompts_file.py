"""Prompts files: every way to say where, and every refusal with its place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from napari_sam_med import SliceView, Volume
from napari_sam_med.errors import PromptError
from napari_sam_med.segmentation.prompts_file import PromptObject, read_prompts
from napari_sam_med.volume.volume import Grid

SHAPE = (20, 30, 10)  # i, j, k


def _volume(codes: str = "LAS") -> Volume:
    affine = np.diag([2.0, 2.0, 5.0, 1.0])
    affine[:3, 3] = (10, -20, 30)
    turn = nib.orientations.ornt_transform(
        nib.orientations.axcodes2ornt("RAS"), nib.orientations.axcodes2ornt(codes)
    )
    array = nib.orientations.apply_orientation(np.zeros(SHAPE, np.int16), turn)
    affine = affine @ nib.orientations.inv_ornt_aff(turn, SHAPE)
    grid = Grid(affine, array.shape)
    return Volume(grid.to_canonical(array), grid)


def _read(tmp_path: Path, document: Any, volume: Volume | None = None) -> list[PromptObject]:
    path = tmp_path / "prompts.json"
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return read_prompts(path, volume or _volume())


def _document(**fields: Any) -> dict[str, Any]:
    entry = {"label": 6, "boxes": [{"from": [2, 3, 4], "to": [10, 12, 4]}]}
    return {"version": 1, "objects": [entry | fields]}


def test_box_becomes_pixels_of_its_slice(tmp_path: Path) -> None:
    (found,) = _read(tmp_path, _document(name="liver"))
    ((view, prompts),) = found.prompts.items()
    assert (found.label, found.name, found.plane) == (6, "liver", "axial")
    assert view == SliceView("axial", 4)
    # LAS: i grows to the left as x does, j to anterior while y grows to posterior
    assert prompts.box_xyxy.tolist() == [2, 29 - 12, 10, 29 - 3]


@pytest.mark.parametrize("codes", ["RAS", "LAS", "LPS", "PIR", "SRA", "IPL"])
def test_prompts_mark_the_voxels_named_in_the_file(tmp_path: Path, codes: str) -> None:
    """The voxel values at the pixels that the prompts name are those of the file's own indices."""
    volume = _volume(codes)
    shape = volume.grid.shape_ijk
    ijk = np.arange(np.prod(shape)).reshape(shape)
    canonical = volume.grid.to_canonical(ijk)
    at = [shape[0] // 3, shape[1] // 4, shape[2] // 2]
    for plane in ("axial", "coronal", "sagittal"):
        document = {"version": 1, "objects": [{"label": 1, "points": [{"at": at}], "plane": plane}]}
        (found,) = _read(tmp_path, document, volume)
        ((view, prompts),) = found.prompts.items()
        x, y = prompts.points_xy[0].astype(int)
        assert view.plane == plane
        assert view.extract(canonical)[y, x] == ijk[tuple(at)]


def test_world_is_ras_mm_rounded_to_the_nearest_voxel(tmp_path: Path) -> None:
    volume = _volume()
    world = {
        "version": 1,
        "space": "world",
        "objects": [{"label": 1, "points": [{"at": (volume.affine @ [5.4, 6.4, 3.4, 1])[:3].tolist()}]}],
    }
    voxel = {"version": 1, "objects": [{"label": 1, "points": [{"at": [5, 6, 3]}]}]}
    (in_world,), (in_voxels,) = _read(tmp_path, world), _read(tmp_path, voxel)
    assert in_world.prompts == in_voxels.prompts


def test_points_and_box_of_one_slice_belong_together(tmp_path: Path) -> None:
    points = [{"at": [5, 5, 4], "positive": True}, {"at": [3, 4, 4], "positive": False}, {"at": [5, 5, 7]}]
    (found,) = _read(tmp_path, _document(points=points))
    assert [view.index for view in found.prompts] == [4, 7]
    together = found.prompts[SliceView("axial", 4)]
    assert together.kinds == {"box", "point"}
    assert together.point_labels.tolist() == [1, 0]


def test_flat_axis_names_the_slice_whatever_the_plane(tmp_path: Path) -> None:
    (found,) = _read(tmp_path, _document(boxes=[{"from": [2, 7, 1], "to": [9, 7, 6]}]))
    assert list(found.prompts) == [SliceView("coronal", 29 - 7)]


def test_plane_decides_for_a_box_flat_along_several_axes(tmp_path: Path) -> None:
    line = [{"from": [2, 7, 4], "to": [9, 7, 4]}]
    (axial,) = _read(tmp_path, _document(boxes=line))
    (coronal,) = _read(tmp_path, _document(boxes=line, plane="coronal"))
    assert next(iter(axial.prompts)).plane == "axial"
    assert next(iter(coronal.prompts)).plane == "coronal"


def test_corners_may_come_in_any_order(tmp_path: Path) -> None:
    (one,) = _read(tmp_path, _document(boxes=[{"from": [10, 3, 4], "to": [2, 12, 4]}]))
    (other,) = _read(tmp_path, _document())
    assert one.prompts == other.prompts


def test_objects_may_share_a_label_and_have_no_name(tmp_path: Path) -> None:
    document = _document()
    document["objects"] *= 2
    found = _read(tmp_path, document)
    assert [one.label for one in found] == [6, 6]
    assert found[0].name is None


_SQUARE = [[2, 3, 4], [10, 3, 4], [10, 12, 4], [2, 12, 4]]
_OUTLINE = {"corners": _SQUARE}


def test_the_outline_of_a_box_reaches_as_far_as_the_box(tmp_path: Path) -> None:
    (boxed,) = _read(tmp_path, _document())
    (outlined,) = _read(tmp_path, _document(boxes=[], outlines=[_OUTLINE]))
    ((view, box),) = boxed.prompts.items()
    ((where, outline),) = outlined.prompts.items()
    assert where == view
    assert outline.kinds == {"outline"}
    assert outline.extent_within((999, 999)).tolist() == box.box_xyxy.tolist()
    assert len(outline.outline_xy) == 4


@pytest.mark.parametrize("codes", ["RAS", "LPS", "PIR"])
def test_an_outline_in_mm_is_that_of_its_voxels_in_any_plane(tmp_path: Path, codes: str) -> None:
    volume = _volume(codes)
    corners = {0: [3, 2, 2], 1: [3, 6, 2], 2: [3, 6, 5]}
    in_mm = [(volume.affine @ [*corner, 1])[:3].tolist() for corner in corners.values()]
    voxels = {"version": 1, "objects": [{"label": 1, "outlines": [{"corners": list(corners.values())}]}]}
    world = {
        "version": 1,
        "space": "world",
        "objects": [{"label": 1, "outlines": [{"corners": in_mm}]}],
    }
    (found,), (in_world,) = _read(tmp_path, voxels, volume), _read(tmp_path, world, volume)
    assert found.prompts == in_world.prompts
    ((view, prompts),) = found.prompts.items()
    marked = np.zeros(volume.grid.shape_ijk, int)
    for number, corner in corners.items():
        marked[tuple(corner)] = number + 1
    shown = view.extract(volume.grid.to_canonical(marked))
    assert [shown[int(y), int(x)] for x, y in prompts.outline_xy] == [1, 2, 3]


def test_box_outline_and_points_of_one_slice_belong_together(tmp_path: Path) -> None:
    points = [{"at": [5, 5, 4], "positive": False}]
    (found,) = _read(tmp_path, _document(outlines=[_OUTLINE], points=points))
    assert found.prompts[SliceView("axial", 4)].kinds == {"box", "outline", "point"}


_BOX = {"from": [2, 3, 4], "to": [10, 12, 4]}


@pytest.mark.parametrize(
    ("document", "place", "says"),
    [
        ([], "", "JSON object"),
        ({"objects": []}, "", '"version"'),
        ({"version": 1}, "", '"objects"'),
        ({"version": 2, "objects": [{}]}, "version", "version 1"),
        ({"version": True, "objects": [{}]}, "version", "true"),
        ({"version": 1, "objects": []}, "objects", "at least one"),
        ({"version": 1, "objects": {}}, "objects", "at least one"),
        ({"version": 1, "space": "lps", "objects": [{}]}, "space", "world"),
        ({"version": 1, "extra": 1, "objects": [{}]}, "", '"extra"'),
        (_document(label=0), "objects[0].label", "whole number"),
        (_document(label=1.5), "objects[0].label", "1.5"),
        (_document(label=True), "objects[0].label", "true"),
        (_document(label="6"), "objects[0].label", '"6"'),
        (_document(label=65536), "objects[0].label", "65535"),
        (_document(name=3), "objects[0].name", "text"),
        (_document(plane="oblique"), "objects[0].plane", "coronal"),
        (_document(color="red"), "objects[0]", '"color"'),
        (_document(boxes=[]), "objects[0]", "no prompt"),
        (_document(boxes=_BOX), "objects[0].boxes", "list"),
        (_document(boxes=[_BOX, [1]]), "objects[0].boxes[1]", "JSON object"),
        (_document(boxes=[{"from": [2, 3, 4]}]), "objects[0].boxes[0]", '"to"'),
        (_document(boxes=[_BOX | {"size": 1}]), "objects[0].boxes[0]", '"size"'),
        (_document(boxes=[_BOX | {"to": [10, 12]}]), "objects[0].boxes[0].to", "three"),
        (_document(boxes=[_BOX | {"to": [10, 12, None]}]), "objects[0].boxes[0].to", "three"),
        (_document(boxes=[_BOX | {"to": [10, True, 4]}]), "objects[0].boxes[0].to", "three"),
        (_document(boxes=[_BOX | {"to": [10, 12.5, 4]}]), "objects[0].boxes[0].to", "whole"),
        (_document(boxes=[_BOX | {"to": [20, 12, 4]}]), "objects[0].boxes[0].to", "0..19"),
        (_document(boxes=[_BOX | {"to": [-1, 12, 4]}]), "objects[0].boxes[0].to", "outside"),
        (_document(boxes=[_BOX | {"to": [1e300, 12, 4]}]), "objects[0].boxes[0].to", "outside"),
        (_document(boxes=[_BOX | {"to": [10, 12, 5]}]), "objects[0].boxes[0]", "flat"),
        (_document(boxes=[_BOX, _BOX]), "objects[0].boxes[1]", "second box"),
        (_document(boxes=[{"from": [2, 3, 4], "to": [2, 3, 6]}]), "objects[0].boxes[0]", "axial"),
        (_document(outlines=[_SQUARE]), "objects[0].outlines[0]", "JSON object"),
        (_document(outlines=[{"corners": 4}]), "objects[0].outlines[0].corners", "list"),
        (_document(outlines=[{"corners": _SQUARE[:2]}]), "objects[0].outlines[0].corners", "three"),
        (_document(outlines=[{"corners": [*_SQUARE, [1, 1]]}]), "outlines[0].corners[4]", "three numbers"),
        (_document(outlines=[{"corners": [*_SQUARE, [1, 1, 5]]}]), "objects[0].outlines[0]", "flat"),
        (_document(outlines=[{"corners": [[2, 3, 4]] * 4}]), "objects[0].outlines[0].corners", "one line"),
        (_document(outlines=[{"corners": [*_SQUARE, [1, 30, 4]]}]), "outlines[0].corners[4]", "outside"),
        (_document(outlines=[_OUTLINE, _OUTLINE]), "objects[0].outlines[1]", "second outline"),
        (_document(points=[{"at": [1, 2, 3], "positive": 1}]), "objects[0].points[0].positive", "true"),
        (_document(points=[{"at": [1, 2, 3], "positive": False}]), "objects[0].points[0]", "negative"),
        (_document(points=[{"positive": True}]), "objects[0].points[0]", '"at"'),
        (_document(points=[{"at": [1, 2, 10]}]), "objects[0].points[0].at", "outside"),
        ('{"version": 1, "objects": [', "", "line 1"),
        ('{"version": 1, "version": 1, "objects": []}', "", "twice"),
        ('{"version": 1, "objects": [{"label": 1}, {"label": 1, "label": 2}]}', "objects[0]", "no prompt"),
        (
            '{"version": 1, "objects": [{"label": 1, "points": [{"at": [1, 2, 3], "at": [1, 2, 4]}]}]}',
            "objects[0].points[0]",
            'key "at" stands twice',
        ),
        ('{"version": 1, "objects": [{"label": 1, "points": [{"at": [NaN, 1, 1]}]}]}', "at", "finite"),
        ('{"version": 1, "objects": [{"label": 1, "points": [{"at": [1e999, 1, 1]}]}]}', "at", "finite"),
        ("[" * 100_000, "", "JSON"),
        ("9" * 10_000, "", "JSON"),
        ("", "", "JSON"),
    ],
)
def test_refusals_name_their_place(tmp_path: Path, document: Any, place: str, says: str) -> None:
    with pytest.raises(PromptError) as caught:
        _read(tmp_path, document)
    message = str(caught.value)
    assert "prompts.json" in message
    assert place in message
    assert says in message
    assert "\n" not in message


def test_world_outside_says_which_voxel_it_would_be(tmp_path: Path) -> None:
    document = _document(boxes=[], points=[{"at": [9999, 0, 0]}]) | {"space": "world"}
    with pytest.raises(PromptError, match=r"points\[0\]\.at: \[9999, 0, 0\] \(voxel \["):
        _read(tmp_path, document)


def test_refusals_name_files_that_are_not_prompts(tmp_path: Path) -> None:
    with pytest.raises(PromptError, match="no prompts file"):
        read_prompts(tmp_path / "none.json", _volume())
    with pytest.raises(PromptError, match="folder"):
        read_prompts(tmp_path, _volume())
    binary = tmp_path / "volume.nii.gz"
    binary.write_bytes(b"\x1f\x8b\xff\xfe\x00")
    with pytest.raises(PromptError, match="not text"):
        read_prompts(binary, _volume())


def test_reads_a_file_with_a_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "prompts.json"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(_document(name="Milz – 脾臓"), ensure_ascii=False).encode())
    assert read_prompts(path, _volume())[0].name == "Milz – 脾臓"
