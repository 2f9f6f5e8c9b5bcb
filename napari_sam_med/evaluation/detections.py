"""Boxes that some detector found on slices: read from CSV or COCO JSON, and written.

In here a box is that of a prompt: x0, y0, x1, y1 in pixels of the slice image as `SliceView` turns it, x =
column, y = row, pixel centres at integers, both corners inside. COCO counts from the outer corner of the
first pixel instead and gives width and height: its box [x, y, w, h] of whole pixels is [x, y, x + w - 1,
y + h - 1] here.
"""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from napari_sam_med.errors import ImageError, PromptError
from napari_sam_med.volume.slice_view import SliceView

__all__ = [
    "Box",
    "Detection",
    "DetectionFile",
    "coco_document",
    "known_as",
    "read_detections",
    "write_detections",
]

Box = tuple[float, float, float, float]

_COLUMNS = ("image", "plane", "slice", "organ", "label", "x0", "y0", "x1", "y1", "score")
_CORNERS = ("x0", "y0", "x1", "y1")
_NUMBERED_PICTURE = re.compile(
    r"(?P<image>.+?)(?:[/\\_-](?P<plane>axial|coronal|sagittal))?[/\\_-](?P<index>\d+)\.(?:png|jpe?g|tiff?|bmp)",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Detection:
    """A box that a detector found.

    Attributes
    ----------
    image : str
        The scan, by name or path; empty for the only one.
    view : SliceView
    box_xyxy : tuple of float
        x0, y0, x1, y1 in pixels, both corners inside.
    score : float
        How sure the detector is, 0 or more.
    label : int
        The organ's number in the labels that it is compared with; 0 where the name says it.
    organ : str
        Its name.

    Raises
    ------
    PromptError
        On numbers that are not finite, corners that are swapped, a negative score or label, or neither a
        label nor a name.
    """

    image: str
    view: SliceView
    box_xyxy: Box
    score: float = 1.0
    label: int = 0
    organ: str = ""

    def __post_init__(self) -> None:
        x0, y0, x1, y1 = self.box_xyxy
        if not all(map(math.isfinite, (*self.box_xyxy, self.score))):
            raise PromptError(
                f"The box {self.text} with the score {self.score:g} is not finite; leave such a box out."
            )
        if x1 < x0 or y1 < y0:
            raise PromptError(f"The box {self.text} is no x0, y0, x1, y1; swap its corners.")
        if self.score < 0:
            raise PromptError(f"The score {self.score:g} is negative; give 0 or more, such as a probability.")
        if self.label < 0 or not (self.label or self.organ):
            raise PromptError(
                'The box names no organ; fill in "organ" (a name) or "label" (a number from 1).'
            )

    @property
    def text(self) -> str:
        """The corners for people."""
        return "[" + ", ".join(f"{value:g}" for value in self.box_xyxy) + "]"


@dataclass(frozen=True)
class DetectionFile:
    """What a file of boxes says: the detections in its order, and every scan that was looked at."""

    detections: tuple[Detection, ...]
    images: tuple[str, ...]


def read_detections(path: Path, images: Path | None = None) -> DetectionFile:
    """Boxes of a CSV or COCO JSON file.

    Parameters
    ----------
    path : Path
        CSV with the columns ``image,slice,x0,y0,x1,y1`` and ``organ`` or ``label`` in any order, optionally
        ``plane`` (axial when left out) and ``score`` (1); others are left alone. A row with an image alone
        says that nothing was found there. Or COCO JSON: a data set with ``images``, ``annotations`` and
        ``categories``, or a list of results.
    images : Path, optional
        For a list of results the COCO data set whose ``images`` and ``categories`` it counts.

    Raises
    ------
    PromptError
        When the file is missing, of another form, or has a box that cannot be used; rows are named.
    """
    if path.suffix.lower() == ".json":
        return _coco(path, images)
    return _table(path)


# CSV ----------------------------------------------------------------------------------------------


def _table(path: Path) -> DetectionFile:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, restval="", skipinitialspace=True)
            columns = {str(name).strip().lower() for name in reader.fieldnames or ()}
            rows = [
                {str(k).strip().lower(): v for k, v in row.items() if isinstance(v, str)} for row in reader
            ]
    except OSError as error:
        raise _unread(path, error) from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise PromptError(f"{path} is no CSV text ({error}); save it as comma-separated UTF-8.") from None
    missing = [name for name in ("image", "slice", *_CORNERS) if name not in columns]
    if not columns & {"organ", "label"}:
        missing.append("organ")
    if missing:
        raise PromptError(
            f"{path.name} lacks the columns {', '.join(missing)}: boxes need image, slice, organ or label, "
            "x0, y0, "
            "x1 and y1, optionally plane and score; add them."
        )
    found: list[Detection] = []
    looked_at: dict[str, None] = {}
    for number, row in enumerate(rows, start=1):
        with_place = f"Row {number} of {path.name}"
        image = row["image"].strip()
        if not image:
            raise PromptError(f"{with_place} has no image; name the scan that the box is on.")
        looked_at[image] = None
        if any(row.get(name, "").strip() for name in (*_CORNERS, "organ", "label")):
            found.append(_detection_of_row(row, image, with_place))
    return DetectionFile(tuple(found), tuple(looked_at))


def _detection_of_row(row: Mapping[str, str], image: str, place: str) -> Detection:
    view = _view(
        row.get("plane", "").strip().lower() or "axial", _number(row["slice"], "slice", place), place
    )
    x0, y0, x1, y1 = (_number(row[name], name, place) for name in _CORNERS)
    score = _number(row.get("score", "").strip() or "1", "score", place)
    label = _whole(_number(row.get("label", "").strip() or "0", "label", place), "label", place)
    return _checked(place, image, view, (x0, y0, x1, y1), score, label, row.get("organ", "").strip())


def _checked(
    place: str, image: str, view: SliceView, box: Box, score: float, label: int, organ: str
) -> Detection:
    try:
        return Detection(image, view, box, score, label, organ)
    except PromptError as error:
        raise PromptError(f"{place}: {error}") from None


def _view(plane: Any, index: float, place: str) -> SliceView:
    try:
        return SliceView(plane, _whole(index, "slice", place))
    except ImageError as error:
        raise PromptError(f"{place}: {error}") from None


def _whole(value: float, name: str, place: str) -> int:
    if not math.isfinite(value) or value != int(value):
        raise PromptError(f'{place} has "{name}" {value:g}, which is no whole number; count from 0.')
    return int(value)


def _number(value: Any, name: str, place: str) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        raise PromptError(f'{place} has "{name}" {value!r}, which is no number; fill it in.') from None


# COCO ---------------------------------------------------------------------------------------------


def _coco(path: Path, images_path: Path | None) -> DetectionFile:
    document = _json(path)
    frame = document if images_path is None else _json(images_path)
    if not isinstance(frame, dict):
        raise PromptError(
            f"{path.name} is a list of results, whose image numbers say nothing without the data set that "
            "they count; name it too, as RESULTS.json@DATASET.json."
        )
    records = document if isinstance(document, list) else document.get("annotations")
    try:
        places = {image["id"]: _image_place(image, path.name) for image in frame["images"]}
        organs = {row["id"]: _organ_of(row) for row in frame.get("categories", [])}
        found = tuple(_coco_detections(records, places, organs, path.name))
    except (AttributeError, KeyError, TypeError) as error:
        raise PromptError(
            f"{path.name} is no COCO file of boxes ({error!r}); it needs images with an id, and annotations "
            "with image_id, category_id and bbox."
        ) from None
    return DetectionFile(found, tuple(dict.fromkeys(image for image, _ in places.values())))


def _coco_detections(
    records: Any,
    places: Mapping[Any, tuple[str, SliceView]],
    organs: Mapping[Any, tuple[int, str]],
    name: str,
) -> Iterator[Detection]:
    for position, record in enumerate(records, start=1):
        place = f"Annotation {position} of {name}"
        if record.get("iscrowd"):
            continue
        if record["image_id"] not in places:
            raise PromptError(
                f"{place} is on image {record['image_id']!r}, which is not among the images; add it."
            )
        image, view = places[record["image_id"]]
        box = _inside_corners(record["bbox"], place)
        label, organ = organs.get(record["category_id"]) or _organ_of({"id": record["category_id"]})
        score = _number(record.get("score", 1.0), "score", place)
        yield _checked(place, image, view, box, score, label, organ)


def _inside_corners(bbox: Sequence[Any], place: str) -> Box:
    """The box of the centres of the outermost pixels; of one that is narrower than a pixel its middle."""
    if len(bbox) != 4:
        raise PromptError(f'{place} has a "bbox" of {len(bbox)} numbers; give x, y, width and height.')
    x, y, width, height = (_number(value, "bbox", place) for value in bbox)
    if width <= 0 or height <= 0:
        raise PromptError(
            f"{place} has a box of {width:g} x {height:g} pixels; COCO's bbox is x, y, width, height, both "
            "above 0."
        )
    (x0, x1), (y0, y1) = _side(x, width), _side(y, height)
    return x0, y0, x1, y1


def _side(start: float, extent: float) -> tuple[float, float]:
    return (start, start + (extent - 1)) if extent >= 1 else (start + (extent - 1) / 2,) * 2


def _organ_of(category: Mapping[str, Any]) -> tuple[int, str]:
    """Label and name: the number of a category is the organ's only where nothing else is said."""
    name = str(category.get("name") or "").strip()
    if "label" in category:
        label = int(category["label"])
        return label, "" if name == f"label {label}" else name
    return known_as(int(category["id"]), name)


def known_as(class_id: int, name: str) -> tuple[int, str]:
    """Label and name by which an organ is found again: its name if it has one, else its number."""
    numbered = re.fullmatch(r"label (\d+)", name)
    if numbered:
        return int(numbered[1]), ""
    return (0, name) if name else (class_id, "")


def _image_place(image: Mapping[str, Any], name: str) -> tuple[str, SliceView]:
    """Scan and slice of an entry of ``images``: from ``slice``, else the number that ends ``file_name``."""
    place = f"Image {image['id']} of {name}"
    file = str(image.get("volume_file") or image.get("file_name") or "")
    if not file:
        raise PromptError(f"{place} has no file_name; name the scan that its boxes are on.")
    plane = str(image.get("plane") or "axial")
    if "slice" in image:
        return file, _view(plane, _number(image["slice"], "slice", place), place)
    if image.get("volume_file"):
        raise PromptError(
            f'{place} counts its slice along the axis of the file alone; add "slice", counted as in '
            "results.csv, "
            "or export the labels again."
        )
    match = _NUMBERED_PICTURE.fullmatch(file)
    if match is None:
        return file, _view(plane, 0, place)
    return match["image"], _view((match["plane"] or plane).lower(), int(match["index"]), place)


def _json(path: Path) -> Any:
    try:
        document = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise _unread(path, error) from None
    except (ValueError, RecursionError) as error:
        raise PromptError(f"{path.name} is no JSON text ({error}); write it again.") from None
    if not isinstance(document, dict | list):
        raise PromptError(f"{path.name} is no COCO file; it is an object with images, or a list of results.")
    return document


def _unread(path: Path, error: OSError) -> PromptError:
    return PromptError(f"{path} cannot be read: {error.strerror or error}; check the path.")


# Writing ------------------------------------------------------------------------------------------


def write_detections(path: Path, detections: Iterable[Detection]) -> None:
    """Write boxes as CSV, or as COCO JSON where the name ends so; `read_detections` gives the same back.

    Raises
    ------
    OSError
        When the file cannot be written.
    """
    rows = list(detections)
    if path.suffix.lower() == ".json":
        path.write_text(json.dumps(coco_document(rows), ensure_ascii=False), encoding="utf-8")
        return
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(_COLUMNS)
        for one in rows:
            numbers = [repr(float(value)) for value in one.box_xyxy]
            place = (one.image, one.view.plane, one.view.index)
            writer.writerow([*place, one.organ, one.label or "", *numbers, repr(float(one.score))])


def coco_document(detections: Iterable[Detection]) -> dict[str, Any]:
    """Boxes as a COCO data set whose annotations have scores.

    Beside COCO's own keys an image has ``plane`` and ``slice``, and a category ``label`` where there is one.
    """
    images: dict[tuple[str, SliceView], int] = {}
    categories: dict[tuple[int, str], int] = {}
    annotations = []
    for number, one in enumerate(detections, start=1):
        x0, y0, x1, y1 = one.box_xyxy
        annotations.append(
            {
                "id": number,
                "image_id": images.setdefault((one.image, one.view), len(images) + 1),
                "category_id": categories.setdefault((one.label, one.organ), len(categories) + 1),
                "bbox": [x0, y0, x1 - x0 + 1, y1 - y0 + 1],
                "area": (x1 - x0 + 1) * (y1 - y0 + 1),
                "iscrowd": 0,
                "score": one.score,
            }
        )
    return {
        "info": {"description": "Boxes by napari-sam-med", "version": "1"},
        "images": [
            {"id": number, "file_name": image, "plane": view.plane, "slice": view.index}
            for (image, view), number in images.items()
        ],
        "annotations": annotations,
        "categories": [
            {"id": number, "name": organ or f"label {label}"} | ({"label": label} if label else {})
            for (label, organ), number in categories.items()
        ],
    }
