"""Prompts from a JSON file: what to segment, in the file's own voxels or in millimetres.

The format is described in docs/formats.md. Whatever it does not describe is refused, with its
place in the file.
"""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast, get_args

from napari_sam_med.errors import PromptError
from napari_sam_med.sam.prompts import Prompts
from napari_sam_med.volume.organs import MAX_CLASS_ID
from napari_sam_med.volume.slice_view import Plane, SliceView
from napari_sam_med.volume.volume import Grid, Volume

__all__ = ["PromptObject", "read_prompts"]

VERSION = 1
MAX_MEBIBYTES = 64
"""A larger file is not a prompts file; reading it would only take memory."""

Index = tuple[int, int, int]
_NEAREST_VOXEL = 0.5
_PLANES: tuple[str, ...] = get_args(Plane)


@dataclass(frozen=True, eq=False)
class PromptObject:
    """One thing to segment.

    Attributes
    ----------
    label : int
        Number in the label volume; several objects may share it.
    name : str or None
        Free text of the file.
    plane : {"axial", "coronal", "sagittal"}
        Plane of its points, and of boxes that are flat along several axes.
    prompts : dict of SliceView to Prompts
        Key slices, in canonical indices and pixels of the slice image.
    """

    label: int
    name: str | None
    plane: Plane
    prompts: Mapping[SliceView, Prompts]


def read_prompts(path: str | os.PathLike[str], volume: Volume) -> list[PromptObject]:
    """Read a prompts file for a volume.

    Parameters
    ----------
    path : path-like
        JSON, UTF-8.
    volume : Volume
        The volume whose file's own voxels (i, j, k) or RAS millimetres the prompts are given in.

    Returns
    -------
    list of PromptObject
        In the order of the file.

    Raises
    ------
    PromptError
        When the file cannot be read, or anything in it is not as the format says. The message names the
        place, such as ``objects[2].boxes[0]``.
    """
    path = Path(path)
    try:
        return _objects(_load(path), volume.grid)
    except _PlacedError as error:
        place = f"{error.place}: " if error.place else ""
        raise PromptError(f"{path.name}: {place}{error}") from None


class _PlacedError(Exception):
    """A refusal, and where in the file it belongs."""

    def __init__(self, place: str, message: str) -> None:
        super().__init__(message)
        self.place = place


def _load(path: Path) -> Any:
    try:
        mebibytes = path.stat().st_size // 1024**2
        if mebibytes > MAX_MEBIBYTES:
            raise PromptError(f"{path} is {mebibytes} MiB; a prompts file is small JSON, check the path.")
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise PromptError(f"There is no prompts file {path}; check the path.") from None
    except IsADirectoryError:
        raise PromptError(f"{path} is a folder; give the path of a prompts file (JSON).") from None
    except OSError as error:
        raise PromptError(f"The prompts file {path} cannot be read: {error.strerror or error}.") from error
    except UnicodeDecodeError:
        raise PromptError(f"{path} is not text; a prompts file is JSON in UTF-8.") from None
    try:
        return json.loads(text, object_pairs_hook=_JsonObject)
    except json.JSONDecodeError as error:
        where = f"at line {error.lineno}, column {error.colno}: {error.msg}"
        raise PromptError(f"{path.name} is not valid JSON {where}; correct it there.") from None
    except (RecursionError, ValueError) as error:  # nested without end, or a number of thousands of digits
        raise PromptError(f"{path.name} is not valid JSON: {error}; a prompts file is shallow.") from None


class _JsonObject(dict[str, Any]):
    """A JSON object that remembers a key which stands in it twice; its place is known to who reads it."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        counts = Counter(key for key, _ in pairs)
        self.repeated = next((key for key, count in counts.items() if count > 1), None)


def _objects(document: Any, grid: Grid) -> list[PromptObject]:
    fields = _fields(document, "", {"version", "objects"}, {"space"})
    if fields["version"] != VERSION or isinstance(fields["version"], bool):
        raise _PlacedError(
            "version", f"is {_shown(fields['version'])}; this program reads version {VERSION}."
        )
    space = fields.get("space", "voxel")
    if space not in ("voxel", "world"):
        raise _PlacedError("space", f'is {_shown(space)}; give "voxel" (i, j, k) or "world" (RAS mm).')
    entries = fields["objects"]
    if not isinstance(entries, list) or not entries:
        raise _PlacedError("objects", "must be a list with at least one object.")
    return [_object(entry, f"objects[{n}]", _Space(grid, space)) for n, entry in enumerate(entries)]


def _object(entry: Any, place: str, space: _Space) -> PromptObject:
    fields = _fields(entry, place, {"label"}, {"name", "boxes", "outlines", "points", "plane"})
    label = fields["label"]
    if isinstance(label, bool) or not isinstance(label, int) or not 1 <= label <= MAX_CLASS_ID:
        raise _PlacedError(
            f"{place}.label", f"is {_shown(label)}; give a whole number of 1 to {MAX_CLASS_ID}."
        )
    name = fields.get("name")
    if name is not None and not isinstance(name, str):
        raise _PlacedError(f"{place}.name", f"is {_shown(name)}; give text.")
    plane = fields.get("plane", "axial")
    if plane not in _PLANES:
        raise _PlacedError(f"{place}.plane", f"is {_shown(plane)}; give axial, coronal or sagittal.")
    boxes, outlines, points = (
        _list(fields.get(key, []), f"{place}.{key}") for key in ("boxes", "outlines", "points")
    )
    if not boxes and not outlines and not points:
        raise _PlacedError(place, "has no prompt; give at least one box, outline or point.")
    slices: dict[SliceView, _SlicePrompts] = {}
    for n, box in enumerate(boxes):
        _add_box(slices, box, f"{place}.boxes[{n}]", plane, space)
    for n, outline in enumerate(outlines):
        _add_outline(slices, outline, f"{place}.outlines[{n}]", space)
    for n, point in enumerate(points):
        _add_point(slices, point, f"{place}.points[{n}]", plane, space)
    prompts = {view: found.prompts(space.grid, view) for view, found in slices.items()}
    return PromptObject(label, name or None, cast(Plane, plane), prompts)


@dataclass
class _SlicePrompts:
    """What the file says of one slice, in pixels (x, y)."""

    place: str
    box_xyxy: tuple[float, float, float, float] | None = None
    outline_xy: list[tuple[float, float]] | None = None
    points: list[tuple[float, float]] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)

    def prompts(self, grid: Grid, view: SliceView) -> Prompts:
        if self.box_xyxy is None and self.outline_xy is None and 1 not in self.labels:
            raise _PlacedError(
                self.place,
                f"slice {grid.file_index(view)} has negative points only; add a positive point or a box.",
            )
        return Prompts(self.points or None, self.labels or None, self.box_xyxy, outline_xy=self.outline_xy)


@dataclass(frozen=True)
class _Space:
    """How numbers of the file become voxels of the volume."""

    grid: Grid
    name: str

    def index(self, value: Any, place: str) -> Index:
        """Index (i, j, k) of three numbers, inside the volume."""
        numbers = _numbers(value, place)
        if self.name == "world":
            found = self.grid.ijk_from_index_zyx(self.grid.index_zyx_from_world_ras(numbers))
            index = [math.floor(v + _NEAREST_VOXEL) if abs(v) < 2**31 else -1 for v in found]
        else:
            if any(number != math.floor(number) for number in numbers):
                raise _PlacedError(
                    place,
                    f'{_shown(value)} is no voxel index; give whole numbers, or mm with "space": "world".',
                )
            index = [int(number) for number in numbers]
        shape = self.grid.shape_ijk
        if not all(0 <= i < n for i, n in zip(index, shape, strict=True)):
            nearest = "" if self.name == "voxel" else f" (voxel {index})"
            ranges = ", ".join(f"0..{n - 1}" for n in shape)
            raise _PlacedError(
                place, f"{_shown(value)}{nearest} lies outside the volume, whose voxels are {ranges}."
            )
        return index[0], index[1], index[2]

    def pixel(self, view: SliceView, index: Index) -> tuple[float, float]:
        return view.pixel_xy(self.grid.index_zyx_from_ijk(index), self.grid.shape_zyx)


def _add_box(
    slices: dict[SliceView, _SlicePrompts], entry: Any, place: str, plane: Plane, space: _Space
) -> None:
    fields = _fields(entry, place, {"from", "to"}, set())
    start, end = (space.index(fields[key], f"{place}.{key}") for key in ("from", "to"))
    flat = [axis for axis in range(3) if start[axis] == end[axis]]
    plane_axis = space.grid.file_axis(plane)
    if not flat:
        raise _PlacedError(
            place, 'is flat along no axis; "from" and "to" must agree along the axis of the slice.'
        )
    if len(flat) > 1 and plane_axis not in flat:
        raise _PlacedError(
            place,
            f"is flat along axes {flat}, but not along axis {plane_axis}, which {plane} slices cut; "
            'widen it, or give the "plane" that it lies in.',
        )
    axis = flat[0] if len(flat) == 1 else plane_axis
    view = space.grid.view_from_file(axis, start[axis])
    here = slices.setdefault(view, _SlicePrompts(place))
    if here.box_xyxy is not None:
        raise _PlacedError(
            place,
            f"is the second box on slice {start[axis]} ({view.plane}); an object has one box a slice, "
            "make the other one an object of its own (they may share the label).",
        )
    (x0, y0), (x1, y1) = space.pixel(view, start), space.pixel(view, end)
    here.box_xyxy = (min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1))


def _add_outline(slices: dict[SliceView, _SlicePrompts], entry: Any, place: str, space: _Space) -> None:
    fields = _fields(entry, place, {"corners"}, set())
    listed = _list(fields["corners"], f"{place}.corners")
    corners = [space.index(corner, f"{place}.corners[{n}]") for n, corner in enumerate(listed)]
    if len(corners) < 3:
        raise _PlacedError(f"{place}.corners", f"has {len(corners)} corners; an outline needs three or more.")
    flat = [axis for axis in range(3) if len({corner[axis] for corner in corners}) == 1]
    if not flat:
        raise _PlacedError(
            place, "is flat along no axis; all corners must agree along the axis of the slice."
        )
    view = space.grid.view_from_file(flat[0], corners[0][flat[0]])
    pixels = [space.pixel(view, corner) for corner in corners]
    try:
        Prompts.from_outline(pixels)
    except PromptError as error:
        raise _PlacedError(f"{place}.corners", str(error)) from None
    here = slices.setdefault(view, _SlicePrompts(place))
    if here.outline_xy is not None:
        raise _PlacedError(
            place,
            f"is the second outline on slice {corners[0][flat[0]]} ({view.plane}); an object has one a "
            "slice, make the other one an object of its own (they may share the label).",
        )
    here.outline_xy = pixels


def _add_point(
    slices: dict[SliceView, _SlicePrompts], entry: Any, place: str, plane: Plane, space: _Space
) -> None:
    fields = _fields(entry, place, {"at"}, {"positive"})
    index = space.index(fields["at"], f"{place}.at")
    positive = fields.get("positive", True)
    if not isinstance(positive, bool):
        raise _PlacedError(f"{place}.positive", f"is {_shown(positive)}; give true or false.")
    axis = space.grid.file_axis(plane)
    view = space.grid.view_from_file(axis, index[axis])
    here = slices.setdefault(view, _SlicePrompts(place))
    here.points.append(space.pixel(view, index))
    here.labels.append(int(positive))


def _fields(entry: Any, place: str, required: set[str], optional: set[str]) -> dict[str, Any]:
    if not isinstance(entry, _JsonObject):
        raise _PlacedError(place, f"is {_shown(entry)}; it must be a JSON object with {_listed(required)}.")
    if entry.repeated is not None:
        raise _PlacedError(place, f'the key "{entry.repeated}" stands twice here; keep one of them.')
    for key in entry:
        if key not in required | optional:
            raise _PlacedError(
                place, f'has an unknown key "{key}"; the keys are {_listed(required | optional)}.'
            )
    for key in sorted(required):
        if key not in entry:
            raise _PlacedError(place, f'has no "{key}"; it needs {_listed(required)}.')
    return entry


def _list(value: Any, place: str) -> list[Any]:
    if not isinstance(value, list):
        raise _PlacedError(place, f"is {_shown(value)}; it must be a list.")
    return value


def _numbers(value: Any, place: str) -> list[float]:
    is_triple = isinstance(value, list) and len(value) == 3
    if not is_triple or not all(isinstance(v, int | float) and not isinstance(v, bool) for v in value):
        raise _PlacedError(place, f"is {_shown(value)}; give three numbers.")
    try:
        numbers = [float(v) for v in value]
    except OverflowError:
        numbers = [math.inf]
    if not all(math.isfinite(v) for v in numbers):
        raise _PlacedError(place, f"is {_shown(value)}; give three finite numbers.")
    return numbers


def _listed(keys: set[str]) -> str:
    return ", ".join(f'"{key}"' for key in sorted(keys))


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."
