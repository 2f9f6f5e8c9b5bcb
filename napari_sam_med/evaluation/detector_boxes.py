"""Boxes of a detector as a prompt strategy: ``boxes:FILE``."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from napari_sam_med.errors import PromptError
from napari_sam_med.evaluation.detections import Box, Detection, known_as, read_detections
from napari_sam_med.evaluation.prompt_target import PromptTarget, tight_boxes
from napari_sam_med.sam.prompts import Prompts
from napari_sam_med.volume.grid import Grid
from napari_sam_med.volume.labels import LabelVolume
from napari_sam_med.volume.organs import OrganTable
from napari_sam_med.volume.reading import read_labels
from napari_sam_med.volume.slice_view import PLANES, Plane, SliceView

if TYPE_CHECKING:
    from napari_sam_med.evaluation.prompt_strategies import Strategy
    from napari_sam_med.evaluation.slice_scores import SliceScore

__all__ = [
    "DetectorBoxes",
    "NoBoxError",
    "boxes_of",
    "check_boxes",
    "folder_detections",
    "is_of",
    "label_detections",
    "read_boxes",
    "without_boxes",
]

_LARGEST_MARGIN = 1000
_MASK_FILES = (".nii.gz", ".nii", ".nrrd", ".mha")
_ENDINGS = re.compile(
    r"(\.seg)?\.(nii|nii\.gz|nrrd|nhdr|mha|mhd|hdr|img|dcm|png|jpe?g|tiff?|bmp)$", re.IGNORECASE
)


class NoBoxError(PromptError):
    """The detector has no box for the organ that is asked for: there is nothing to prompt with."""


@dataclass(frozen=True, eq=False)
class DetectorBoxes:
    """What a detector found, as the opening of a dialogue: the box with the highest score for the organ.

    Attributes
    ----------
    source : str
        The file, for people.
    detections : tuple of Detection
    images : tuple of str
        Every scan that was looked at; an empty name stands for the only one.
    margin : int
        Pixels by which every side is moved out; boxes are clipped to the slice after that.
    grid : Grid, optional
        Of the scan that the boxes come from, where it is known.
    """

    source: str
    detections: tuple[Detection, ...]
    images: tuple[str, ...]
    margin: int = 0
    grid: Grid | None = None

    def __call__(self, target: PromptTarget, rng: np.random.Generator) -> Prompts:
        """The box for the organ of a target; of two with one score the first.

        Raises
        ------
        NoBoxError
            Where there is none.
        PromptError
            When the file does not know the scan, or the box lies outside the slice.
        """
        del rng
        if target.view is None:
            raise PromptError(
                f"The boxes of {self.source} lie on slices of scans, and it is not said which slice this is; "
                "use them in evaluate, or choose another strategy here."
            )
        found = [
            one for one in self.on_slice(target.case, target.view) if is_of(one, target.label, target.organ)
        ]
        if not found:
            raise NoBoxError(
                f"{self.source} has no box for {target.organ} on {target.view.plane} slice "
                f"{target.view.index} of {target.case}; the answer counts as empty."
            )
        height, width = target.mask.shape
        return self.prompts_of(max(found, key=lambda one: one.score), (height, width))

    def on_slice(self, case: str, view: SliceView) -> list[Detection]:
        """The detections on a slice of a case, in the order of the file.

        Raises
        ------
        PromptError
            When the file knows no scan of this name, or several.
        """
        return self._by_slice.get((self.image_of(case), view), [])

    def of_case(self, case: str) -> list[Detection]:
        """All detections on a case, in the order of the file; raises as `on_slice` does."""
        image = self.image_of(case)
        return [one for one in self.detections if one.image == image]

    def image_of(self, case: str) -> str:
        """The name that the file has for a case.

        That is its very name, else the one whose path ends as the other's, where the endings of files of
        scans do not matter: ``scans/ct.nii.gz`` is ``ct``.

        Raises
        ------
        PromptError
            When there is none, or several.
        """
        if case in self._names:
            return self._names[case]
        found = [image for image in self.images if _is_same_scan(image, case)]
        if len(found) == 1 or "" in self.images:
            self._names[case] = found[0] if len(found) == 1 else ""
            return self._names[case]
        has = f"several scans of that name ({_listed(found)})" if found else f"only {_listed(self.images)}"
        raise PromptError(
            f'No boxes can be told to be those of {case}: {self.source} has {has}; write "{case}" as the '
            "image of its boxes (a row with nothing else says that nothing was found)."
        )

    def prompts_of(self, detection: Detection, shape: tuple[int, int]) -> Prompts:
        """The box of a detection with its margin, clipped to a slice (H, W).

        Raises
        ------
        PromptError
            When it lies outside.
        """
        height, width = shape
        x0, y0, x1, y1 = detection.box_xyxy
        if x1 < -0.5 or y1 < -0.5 or x0 > width - 0.5 or y0 > height - 0.5:
            raise PromptError(
                f"{self.source}: the box {detection.text} on {detection.view.plane} slice "
                f"{detection.view.index} lies outside, as the pixels are 0 to {width - 1} in x and 0 to "
                f"{height - 1} in y; x is the column of the slice as napari-sam-med turns it: correct it."
            )
        grown = np.array([x0, y0, x1, y1]) + self.margin * np.array([-1, -1, 1, 1])
        return Prompts.from_box(np.clip(grown, 0, np.tile([width - 1, height - 1], 2)))

    def check(self, case: str, labels: LabelVolume) -> None:
        """Refuse boxes that cannot be those of a case with such labels.

        Raises
        ------
        PromptError
            When the file does not know the case; when the boxes come from a scan of another shape, lie on
            slices that do not exist, outside the slice, or are all of organs that the labels do not know.
        """
        found = self.of_case(case)
        if self.grid is not None and not self.grid.same_voxels_as(labels.grid):
            raise PromptError(
                f"{self.source} of {self.grid.shape_zyx} voxels (z, y, x) does not lie on those of {case}, "
                f"{labels.shape}; give what was made from that very scan."
            )
        for one in found:
            depth = labels.shape[one.view.axis]
            if one.view.index >= depth:
                raise PromptError(
                    f"{self.source} has a box on {one.view.plane} slice {one.view.index} of {case}, which "
                    f"has {depth}; slices count from 0 as in results.csv: correct it."
                )
            self.prompts_of(one, one.view.slice_shape(labels.shape))
        known = {i: labels.organs.name_of(i) for i in (*labels.organs, *labels.class_ids())}
        if found and not any(is_of(one, i, name) for one in found for i, name in known.items()):
            said = {one.organ or f"label {one.label}" for one in found}
            named = " (proposals --organ NAME names its boxes)" if said == {"object"} else ""
            raise PromptError(
                f"{self.source} has boxes of {_listed(sorted(said))} on {case}, and its labels are "
                f"{_listed(list(known.values()))}; name organs alike{named}, or fill in the number of the "
                "label."
            )

    @cached_property
    def sha256(self) -> str:
        """Of what the boxes say, hexadecimal: other boxes in a file of the same name have another."""
        facts = repr((self.detections, self.images, self.margin))
        return hashlib.sha256(facts.encode("utf-8", "backslashreplace")).hexdigest()

    @cached_property
    def _names(self) -> dict[str, str]:
        """Names in the file by the name of a case, as they are found."""
        return {image: image for image in self.images}

    @cached_property
    def _by_slice(self) -> dict[tuple[str, SliceView], list[Detection]]:
        found: dict[tuple[str, SliceView], list[Detection]] = {}
        for one in self.detections:
            found.setdefault((one.image, one.view), []).append(one)
        return found


def read_boxes(text: str) -> DetectorBoxes:
    """Boxes by what stands behind ``boxes:``.

    Parameters
    ----------
    text : str
        ``FILE`` or ``FILE:PIXELS``, the margin. FILE is a CSV or COCO JSON as `read_detections` takes it,
        with ``RESULTS.json@DATASET.json`` for a list of COCO results; or a label volume, or a folder with a
        mask for each organ, both of one scan, whose tangent boxes are taken.

    Raises
    ------
    PromptError
        When there is no such file, or it cannot be used.
    ImageError, LabelError
        When a label volume cannot be read.
    """
    file, margin = _split_margin(text.strip())
    path, images = _split_images(file)
    if not file or not path.exists():
        raise PromptError(
            f'There is no file of boxes "{path if file else ""}"; write boxes:FILE with a CSV, a COCO JSON, '
            "a label volume or a folder of masks, and boxes:FILE:5 for a margin of 5 pixels."
        )
    if path.is_dir():
        detections, grid = folder_detections(path)
        return DetectorBoxes(path.name, detections, ("",), margin, grid)
    if path.suffix.lower() in (".csv", ".json"):
        read = read_detections(path, images)
        return DetectorBoxes(path.name, read.detections, read.images, margin)
    labels = read_labels(path)
    return DetectorBoxes(path.name, label_detections(labels), ("",), margin, labels.grid)


def label_detections(
    labels: LabelVolume, image: str = "", planes: Sequence[Plane] = PLANES
) -> tuple[Detection, ...]:
    """The tangent box of every organ on every slice of labels, such as those of TotalSegmentator, score 1.

    Parameters
    ----------
    labels : LabelVolume
        An organ is known by its name; by its number where the table has none.
    image : str
        The scan that they were made from.
    planes : sequence of {"axial", "coronal", "sagittal"}

    Returns
    -------
    tuple of Detection
        In the order of slices, then numbers.
    """
    found: list[Detection] = []
    extents = ndimage.find_objects(labels.data)
    for class_id in labels.class_ids():
        extent = extents[class_id - 1]
        mask = labels.data[extent] == class_id
        start = [part.start for part in extent]
        label, organ = known_as(class_id, labels.organs.name_of(class_id))
        for plane in planes:
            for view, box in _tangent_boxes(mask, plane, start, labels.shape):
                found.append(Detection(image, view, box, 1.0, label, organ))
    return tuple(sorted(found, key=lambda one: (PLANES.index(one.view.plane), one.view.index)))


def _tangent_boxes(
    mask: npt.NDArray[np.bool_], plane: Plane, start_zyx: Sequence[int], shape_zyx: Sequence[int]
) -> Iterator[tuple[SliceView, Box]]:
    """Slices of a part of a volume and the boxes on them; the part begins at `start_zyx`."""
    first = SliceView(plane, start_zyx[PLANES.index(plane)])
    stack = np.moveaxis(mask, first.axis, 0)
    rows = np.flatnonzero(stack.any(axis=(1, 2)))
    for offset, (x0, y0, x1, y1) in zip(rows.tolist(), tight_boxes(stack[rows]).tolist(), strict=True):
        view = SliceView(plane, first.index + offset)
        corners = []
        for x, y in ((x0, y0), (x1, y1)):
            index = list(map(float, start_zyx))
            index[view.column_axis] += x
            index[view.row_axis] += y
            corners.append(view.pixel_xy(index, shape_zyx))
        (ax, ay), (bx, by) = corners
        yield view, (min(ax, bx), min(ay, by), max(ax, bx), max(ay, by))


def folder_detections(folder: Path, planes: Sequence[Plane] = PLANES) -> tuple[tuple[Detection, ...], Grid]:
    """Boxes of a folder with a mask for each organ, as TotalSegmentator writes it; names from the files.

    Returns
    -------
    detections : tuple of Detection
        As `label_detections` gives them.
    grid : Grid
        Of the masks.

    Raises
    ------
    PromptError
        When there are none, or they are not on one grid.
    ImageError, LabelError
        As `read_labels` does.
    """
    paths = [path for path in sorted(folder.iterdir()) if path.name.lower().endswith(_MASK_FILES)]
    if not paths:
        raise PromptError(f"The folder {folder} has no masks ({', '.join(_MASK_FILES)}); give one that has.")
    grid = read_labels(paths[0]).grid
    found: list[Detection] = []
    for path in paths:  # one after the other: a hundred masks of a CT do not fit into memory
        mask = read_labels(path)
        if not mask.grid.same_voxels_as(grid):
            raise PromptError(
                f"{path.name} lies on another grid than {paths[0].name}; give a folder with the masks of one "
                "scan."
            )
        name = path.name[: -len(next(end for end in _MASK_FILES if path.name.lower().endswith(end)))]
        whole = LabelVolume((mask.data > 0).astype(np.uint8), mask.grid, OrganTable.from_names({1: name}))
        found += label_detections(whole, planes=planes)
    return tuple(found), grid


def boxes_of(strategies: Iterable[Strategy], *, alone: bool = False) -> dict[str, DetectorBoxes]:
    """The boxes in strategies that have some, by the name of the strategy.

    Parameters
    ----------
    strategies : iterable of Strategy
    alone : bool
        Leave out those in which other prompts are beside the boxes.
    """
    return {
        strategy.name: part.opening
        for strategy in strategies
        for part in (strategy.dialogue, *(() if alone else strategy.dialogue.parts))
        if isinstance(part.opening, DetectorBoxes)
    }


def check_boxes(strategies: Iterable[Strategy], cases: Sequence[str]) -> None:
    """Refuse strategies whose boxes are not those of the cases, before anything is measured.

    Parameters
    ----------
    strategies : iterable of Strategy
    cases : sequence of str
        Their names.

    Raises
    ------
    PromptError
        When a file does not know a case, or is of one scan and there are several.
    """
    for boxes in boxes_of(strategies).values():
        for case in cases:
            boxes.image_of(case)
        if "" in boxes.images and len(cases) > 1:
            raise PromptError(
                f"{boxes.source} has the boxes of one scan, and there are {len(cases)}; write the boxes of "
                "all into a CSV file, with their names."
            )


def without_boxes(strategies: Iterable[Strategy], scores: Sequence[SliceScore]) -> list[str]:
    """Words on files of boxes that have none where it was measured: zeros alone look like a bad one."""
    asked = {row.strategy for row in scores if row.prompts is not None}
    return [
        f"{name} has no box of these organs on any slice that was measured, so all its answers are empty; "
        "compare its slices, which count from 0, and its organs with those in results.csv"
        for name in boxes_of(strategies)
        if name not in asked and any(row.strategy == name for row in scores)
    ]


def _split_margin(text: str) -> tuple[str, int]:
    file, _, margin = text.rpartition(":")
    if not file or not re.fullmatch(r"-?\d+", margin) or Path(text).exists():
        return text, 0
    if not 0 <= int(margin) <= _LARGEST_MARGIN:
        raise PromptError(
            f"The margin of boxes is 0 to {_LARGEST_MARGIN} pixels, got {margin}; write boxes:FILE:5."
        )
    return file, int(margin)


def _split_images(file: str) -> tuple[Path, Path | None]:
    results, at, images = file.rpartition("@")
    if not at or Path(file).exists():
        return Path(file), None
    return Path(results), Path(images)


def is_of(detection: Detection, label: int, organ: str) -> bool:
    if detection.label:
        return detection.label == label
    return _plain(detection.organ) == _plain(organ)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "") or "nothing"


def _plain(name: str) -> str:
    return " ".join(re.split(r"[\s_-]+", name.casefold().strip()))


def _is_same_scan(one: str, other: str) -> bool:
    a, b = (re.split(r"[/\\]+", _ENDINGS.sub("", name.strip())) for name in (one, other))
    shared = min(len(a), len(b))
    return a[-shared:] == b[-shared:]
