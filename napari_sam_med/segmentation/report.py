"""What a segmentation run found, as plain values for JSON: sizes, slices, qualities, reasons to stop."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from napari_sam_med.errors import ExportError
from napari_sam_med.segmentation.object_masks import FoundSlice, ObjectMasks, planes_of
from napari_sam_med.segmentation.prompts_file import PromptObject
from napari_sam_med.segmentation.review import slice_doubts, worth_a_look
from napari_sam_med.volume.labels import LabelVolume
from napari_sam_med.volume.replacement import Replacement
from napari_sam_med.volume.slice_view import SliceView

__all__ = ["RunFacts", "report_of", "write_json"]

NOT_PROPAGATED = "carrying was switched off"
_BORDERS = {
    "start of the volume": "end of the volume",
    "start of the chosen range": "end of the chosen range",
}
_MIRRORED = _BORDERS | {end: start for start, end in _BORDERS.items()}


@dataclass(frozen=True)
class RunFacts:
    """How a run was made.

    Attributes
    ----------
    model, device, precision : str
        As used, not as asked for.
    seconds : mapping of str to float
        Time of each stage.
    warnings : sequence of str
        One line each.
    propagated : bool
        Whether masks were carried beyond the prompted slices.
    extra : mapping
        Anything else for the top level of the report.
    """

    model: str
    device: str
    precision: str
    seconds: Mapping[str, float]
    warnings: Sequence[str] = ()
    propagated: bool = True
    extra: Mapping[str, Any] = field(default_factory=dict)


def report_of(
    facts: RunFacts, objects: Mapping[int, PromptObject], found: ObjectMasks, labels: LabelVolume
) -> dict[str, Any]:
    """The report of a run.

    Parameters
    ----------
    facts : RunFacts
    objects : mapping of object_id to PromptObject
        What was asked for.
    found : ObjectMasks
        What the propagation yielded.
    labels : LabelVolume
        The merged result; pixels that another object won are not counted.

    Returns
    -------
    dict
        As docs/formats.md describes it. Slice indices count along the file's own axis, and ``forward`` is the
        direction in which they grow.
    """
    return {
        "model": facts.model,
        "device": facts.device,
        "precision": facts.precision,
        "seconds": {stage: round(seconds, 3) for stage, seconds in facts.seconds.items()},
        "warnings": list(facts.warnings),
        **facts.extra,
        "objects": [
            _object_report(object_id, asked, found, labels, facts.propagated)
            for object_id, asked in objects.items()
        ],
    }


def _object_report(
    object_id: int, asked: PromptObject, found: ObjectMasks, labels: LabelVolume, propagated: bool
) -> dict[str, Any]:
    grid = labels.grid
    slices = found.slices(object_id)
    plane = planes_of(slices)[0] if slices else asked.plane
    kept = sorted(
        ((grid.file_index(one.view), one, count) for one, count in found.kept(object_id, labels)),
        key=lambda row: (row[1].view.plane != plane, row[1].view.plane, row[0]),
    )
    rows = [
        _slice_report(index, one, count, labels, plane)
        for index, one, count in kept
        if count or one.source == "prompt"
    ]
    filled = [index for index, one, count in kept if count and one.view.plane == plane]
    voxels = found.voxels(object_id, labels)
    return {
        "label": asked.label,
        "name": asked.name if asked.name is not None else labels.organs.name_of(asked.label),
        "plane": plane,
        "voxels": voxels,
        "volume_ml": round(voxels * grid.voxel_volume_mm3 / 1000, 4),
        "key_slices": sorted(grid.file_index(view) for view in asked.prompts if view.plane == plane),
        "first_slice": min(filled, default=None),
        "last_slice": max(filled, default=None),
        "stop_reasons": _stop_reasons(slices, plane, labels) if propagated else _switched_off(),
        "doubtful_slices": _doubtful(slices, plane, labels) if propagated else [],
        "slices": rows,
    }


def _doubtful(slices: list[FoundSlice], plane: str, labels: LabelVolume) -> list[dict[str, Any]]:
    """Where a look is worth most, the largest expected error first; see `review.worth_a_look`."""
    here = [found for found in slices if found.view.plane == plane]
    if not here:
        return []
    view, grid = here[0].view, labels.grid
    pixel_mm2 = grid.spacing_zyx[view.row_axis] * grid.spacing_zyx[view.column_axis]
    doubts = slice_doubts(here, pixel_mm2)
    return [
        {
            "index": grid.file_index(SliceView(view.plane, found.index)),
            "kind": found.kind,
            "expected_error_mm2": round(found.expected_error, 3),
        }
        for found in worth_a_look(doubts, n_slices=grid.shape_zyx[view.axis])
    ]


def _slice_report(
    index: int, found: FoundSlice, count: int, labels: LabelVolume, plane: str
) -> dict[str, Any]:
    row_mm, column_mm = (
        labels.grid.spacing_zyx[axis] for axis in (found.view.row_axis, found.view.column_axis)
    )
    row: dict[str, Any] = {
        "index": index,
        "quality": round(found.quality, 4),
        "iou_prediction": None if found.iou_prediction is None else round(found.iou_prediction, 4),
        "source": found.source,
        "area_mm2": round(count * row_mm * column_mm, 3),
    }
    return row if found.view.plane == plane else row | {"plane": found.view.plane}


def _switched_off() -> dict[str, str]:
    return {"forward": NOT_PROPAGATED, "backward": NOT_PROPAGATED}


def _stop_reasons(slices: list[FoundSlice], plane: str, labels: LabelVolume) -> dict[str, str]:
    """Why the outermost slices are the outermost, by direction along the file's own axis."""
    here = [found for found in slices if found.view.plane == plane]
    keys = [found for found in here if found.direction == "key"]
    if not keys:
        return {"forward": "nothing was found", "backward": "nothing was found"}
    flipped = _counts_backwards(keys[0].view, labels)
    reasons = {}
    for direction, outermost in (("forward", max), ("backward", min)):
        key = outermost(keys, key=lambda found: found.view.index)
        beyond = [
            found
            for found in here
            if found.reason is not None
            and found.direction == direction
            and outermost(found.view.index, key.view.index) == found.view.index
        ]
        reason = beyond[-1].reason if beyond else key.reason
        if reason is None:  # the key slice is the last one there is
            reason = "end of the volume" if direction == "forward" else "start of the volume"
        reasons[direction] = reason
    if not flipped:
        return reasons
    return {
        "forward": _MIRRORED.get(reasons["backward"], reasons["backward"]),
        "backward": _MIRRORED.get(reasons["forward"], reasons["forward"]),
    }


def _counts_backwards(view: SliceView, labels: LabelVolume) -> bool:
    """Whether the file's own index falls where the canonical one grows."""
    grid = labels.grid
    n_slices = grid.shape_zyx[view.axis]
    return n_slices > 1 and grid.file_index(SliceView(view.plane, 0)) == n_slices - 1


def write_json(path: str | os.PathLike[str], document: Mapping[str, Any] | Sequence[Any]) -> Path:
    """Write JSON so that the file is either the old one or the whole new one.

    Raises
    ------
    ExportError
        When the folder is missing, not writable or full; what was there before is intact.
    """
    path = Path(path)
    text = json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    try:
        with Replacement(path, ".json") as file:
            # file names may be no UTF-8: their bytes then stand as \udcXX, an escape that JSON knows
            file.temporary.write_bytes(text.encode("utf-8", "backslashreplace"))
            file.flush_to_disk()
            file.put_in_place()
    except OSError as error:
        raise ExportError(
            f"{path} could not be written: {error.strerror or error}; what was there before is intact. "
            "Choose a folder that exists, is writable and has space."
        ) from error
    return path
