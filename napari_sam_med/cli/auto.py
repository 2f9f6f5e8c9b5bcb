"""``auto``: everything in a volume, or on one slice of it, without a prompt."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from napari_sam_med.cli.classify import doubts_of_modality
from napari_sam_med.cli.console import print_json, progress_bar, say_faintly, show_table, warn
from napari_sam_med.cli.doubts import looks_like_labels
from napari_sam_med.cli.outputs import check_input, check_label_output, check_output
from napari_sam_med.errors import ExportError, PromptError
from napari_sam_med.volume.formats.sidecar import path_beside
from napari_sam_med.wording import number_of

if TYPE_CHECKING:
    from napari_sam_med.sam.predictor import Predictor
    from napari_sam_med.segmentation.automatic.found_objects import FoundMask, FoundObject
    from napari_sam_med.segmentation.automatic.volume_search import VolumeSearch
    from napari_sam_med.volume.slice_view import Plane, SliceView
    from napari_sam_med.volume.volume import Volume

__all__ = ["AutoRequest", "Format", "range_of", "run_auto"]

Format = Literal["labels", "masks", "coco"]

_ROWS = 30
"""Objects in the printed table; --records and --json have all of them."""
_NOTED_LOSS = 0.1
"""Share of an object under others in a label file from which on it is said."""
_NAMED_LOSSES = 3
"""Objects that are named there; --records and --json have all of them."""


@dataclass(frozen=True)
class AutoRequest:
    """What the user typed; None where an option was left out.

    `values` is the range of values to ask about, `most` the largest number of objects; `slice_index` counts
    along the file's own axis.
    """

    volume: Path
    output: Path
    format: Format = "labels"
    records: Path | None = None
    plane: Plane = "axial"
    slice_index: int | None = None
    every: int = 1
    points_per_side: int = 32
    spacing_mm: float | None = None
    values: tuple[float, float] | None = None
    body_only: bool = True
    min_voxels: int | None = None
    min_slices: int | None = None
    min_iou: float | None = None
    min_stability: float | None = None
    most: int | None = None
    surer_on_top: bool = False
    named: bool = True
    each_once: bool = True
    window: str = "auto"
    model: str = "nano"
    device: str = "auto"
    precision: str = "auto"


def range_of(text: str) -> tuple[float, float] | None:
    """``LOW,HIGH`` as two numbers; None for an empty text.

    Raises
    ------
    PromptError
        When it is something else.
    """
    if not text.strip():
        return None
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError:
        raise PromptError(f'"{text}" is no range of values; give two numbers, such as -100,300.') from None
    return low, high


@dataclass(frozen=True, eq=False)
class _Found:
    """What a search gave: the objects, and what was found on each searched slice."""

    objects: list[FoundObject]
    masks: dict[SliceView, tuple[FoundMask, ...]]


def run_auto(request: AutoRequest, *, as_json: bool) -> int:
    """Run the command; returns the exit status."""
    _check(request)
    from napari_sam_med.sam.predictor import load_predictor
    from napari_sam_med.segmentation.report import write_json
    from napari_sam_med.volume.formats.dicom import refuse_foreign
    from napari_sam_med.volume.reading import read_volume
    from napari_sam_med.volume.writing import refuse_unfit

    start = time.perf_counter()
    volume = read_volume(request.volume)
    warnings = warn(volume.warnings)
    if request.format == "labels":
        refuse_foreign(request.output, volume.header)
        refuse_unfit(request.output, volume)
    if looks_like_labels(volume):
        warnings += warn([f"{request.volume.name} looks like labels, not a scan; check that it is meant"])
    predictor = load_predictor(request.model, device=request.device, precision=request.precision)
    plan = _plan(request, volume, predictor)
    found = _search(request, volume, predictor, plan)
    found, said = _limited(request, found)
    warnings += warn(said)
    if request.named:
        warnings += warn(doubts_of_modality(volume))
        found = _named(request, volume, predictor, found)
    written, said = _write(request, volume, predictor, found)
    warnings += said
    document = _document(request, volume, predictor, found, time.perf_counter() - start, warnings)
    for entry in document["objects"]:
        entry |= written[entry["number"]]
    if request.records is not None:
        write_json(request.records, document)
    if as_json:
        print_json(document)
    else:
        _show(document)
        _say_what_is_written(request, document)
    return 0


def _check(request: AutoRequest) -> None:
    check_input(request.volume, "volume")
    inputs = (request.volume,)
    if request.format == "labels":
        check_label_output(request.output, inputs)
    elif request.format == "masks":
        _check_folder(request.output)
    else:
        if not request.output.name.lower().endswith(".json"):
            raise ExportError(f"{request.output}: run-length masks are written as .json; give such a name.")
        check_output(request.output, inputs)
    if request.records is not None:
        check_output(request.records, inputs)
        taken = (request.output.absolute(), path_beside(request.output.absolute()))
        if request.records.absolute() in taken:
            raise ExportError(f"{request.records} is written for the masks; give the records another name.")


def _check_folder(path: Path) -> None:
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise ExportError(f"{path} exists and is no empty folder; give the name of a new one.")
    check_output(path / "metadata.csv" if path.is_dir() else path, ())


def _plan(request: AutoRequest, volume: Volume, predictor: Predictor) -> VolumeSearch:
    """What is searched, and how."""
    from dataclasses import replace

    from napari_sam_med.segmentation.automatic.linking import LinkRules
    from napari_sam_med.segmentation.automatic.volume_search import VolumeSearch, usual_options

    thresholds = _given(pred_iou_thresh=request.min_iou, stability_score_thresh=request.min_stability)
    rules = _given(min_voxels=request.min_voxels, min_slices=request.min_slices)
    index = None
    if request.slice_index is not None:
        index = volume.grid.view_from_file(volume.grid.file_axis(request.plane), request.slice_index).index
    return VolumeSearch(
        plane=request.plane,
        every=request.every,
        first=index,
        last=index,
        options=replace(usual_options(predictor), points_per_side=request.points_per_side, **thresholds),
        point_spacing_mm=request.spacing_mm,
        body_only=request.body_only,
        values=request.values,
        links=LinkRules(**rules),
        each_once=request.each_once,
    )


def _given(**values: Any) -> dict[str, Any]:
    """The values that are not None."""
    return {name: value for name, value in values.items() if value is not None}


def _search(request: AutoRequest, volume: Volume, predictor: Predictor, plan: VolumeSearch) -> _Found:
    from napari_sam_med.sam.embedding_store import default_store
    from napari_sam_med.segmentation.automatic.volume_search import search_volume

    masks: dict[SliceView, tuple[FoundMask, ...]] = {}
    with progress_bar(f"Finding masks with {predictor.record.name}") as on_progress:
        # of a volume the bar counts slices; a lone slice would be one step
        on_points = None if request.slice_index is None else on_progress
        search = search_volume(
            volume, predictor, plan, window=request.window, store=default_store(), on_points=on_points
        )
        while True:
            try:
                done = next(search)
            except StopIteration as end:
                return _Found(end.value, masks)
            masks[done.view] = done.masks
            on_progress(done.progress)


def _limited(request: AutoRequest, found: _Found) -> tuple[_Found, list[str]]:
    """As many objects as were asked for, or as label files can number; those of the highest scores."""
    from napari_sam_med.volume.organs import MAX_CLASS_ID

    most = min(MAX_CLASS_ID, request.most or MAX_CLASS_ID)
    left_out = len(found.objects) - most
    if left_out <= 0:
        return found, []
    one, more = "is left out, that of the lowest score", "are left out, those of the lowest scores"
    said = [f"{left_out} of {len(found.objects)} objects {one if left_out == 1 else more}"]
    return _Found(found.objects[:most], found.masks), said


def _named(request: AutoRequest, volume: Volume, predictor: Predictor, found: _Found) -> _Found:
    """The objects with their organs, by the model that the bundled classifier was trained on."""
    from napari_sam_med.sam.embedding_store import default_store
    from napari_sam_med.sam.predictor import load_predictor
    from napari_sam_med.segmentation.automatic.naming import name_objects
    from napari_sam_med.segmentation.organ_classifier import load_classifier

    classifier = load_classifier()
    reader = predictor
    if predictor.model_hash != classifier.facts.model_sha256:
        reader = load_predictor(classifier.facts.model, device=request.device, precision="fp32")
    with progress_bar("Naming the objects") as on_progress:
        named = name_objects(
            found.objects,
            volume,
            reader,
            classifier,
            each_once=request.each_once,
            store=default_store(),
            on_progress=on_progress,
        )
    return _Found(named, found.masks)


def _write(
    request: AutoRequest, volume: Volume, predictor: Predictor, found: _Found
) -> tuple[dict[int, dict[str, Any]], list[str]]:
    """Write what was asked for.

    Returns
    -------
    written : dict of int to dict
        What the output has of each object, by its number: ``ml_written`` of a label file, where others may
        lie on top; of one slice ``mask``, its place among the masks that are written.
    said : list of str
        What people must know of it.
    """
    import numpy as np

    from napari_sam_med.cli.auto_files import write_coco, write_object_masks, write_slice_masks
    from napari_sam_med.segmentation.automatic.found_labels import labels_of
    from napari_sam_med.volume.writing import remarks, write_labels

    if request.format == "labels":
        labels = labels_of(volume, found.objects, "surer" if request.surer_on_top else "smaller")
        model = {
            "name": predictor.record.name,
            "sha256": predictor.model_hash,
            "device": str(predictor.device),
            "precision": predictor.precision,
        }
        write_labels(request.output, labels, source=volume, model=model)
        ml = volume.grid.voxel_volume_mm3 / 1000
        counts = np.zeros(len(found.objects) + 1, dtype=np.int64)
        for plane in labels.data:
            counts += np.bincount(plane.ravel(), minlength=len(counts))
        written = {number: {"ml_written": round(float(count * ml), 4)} for number, count in enumerate(counts)}
        return written, warn(remarks(request.output, len(found.objects)))
    masks = None if request.slice_index is None else next(iter(found.masks.values()))
    if request.format == "coco":
        write_coco(request.output, volume, found.objects, masks)
    elif masks is None:
        write_object_masks(request.output, volume, found.objects)
    else:
        write_slice_masks(request.output, masks)
    if masks is None:
        return {one.number: {} for one in found.objects}, []
    (view,) = found.masks
    return {one.number: {"mask": masks.index(one.masks[view])} for one in found.objects}, []


def _document(
    request: AutoRequest,
    volume: Volume,
    predictor: Predictor,
    found: _Found,
    seconds: float,
    warnings: Sequence[str],
) -> dict[str, Any]:
    """The records, as JSON takes them; indices of slices count along the file's own axis."""
    from napari_sam_med.cli.auto_files import records_of

    return {
        "volume": str(request.volume),
        "output": str(request.output),
        "format": request.format,
        "model": predictor.record.name,
        "model_sha256": predictor.model_hash,
        "device": str(predictor.device),
        "precision": predictor.precision,
        "plane": request.plane,
        "slices_searched": [volume.grid.file_index(view) for view in found.masks],
        "masks_found": sum(len(masks) for masks in found.masks.values()),
        "seconds": round(seconds, 3),
        "warnings": list(warnings),
        "objects": records_of(volume, found.objects),
    }


def _show(document: dict[str, Any]) -> None:
    objects = document["objects"]
    columns = {
        "object": "right",
        "organ": "left",
        "probability": "right",
        "score": "right",
        "ml": "right",
        "slices": "left",
    }
    columns |= {"mask": "right"} if any("mask" in entry for entry in objects) else {}
    rows = [
        [
            str(entry["number"]),
            "" if entry["organ"] is None else entry["organ"]["name"] + (" ?" if entry["abstained"] else ""),
            "" if entry["organ"] is None else f"{entry['organ']['probability']:.2f}",
            f"{entry['score']:.2f}",
            f"{entry['volume_ml']:.1f}",
            f"{entry['first_slice']} to {entry['last_slice']}",
            *([str(entry["mask"])] if "mask" in entry else []),
        ]
        for entry in objects[:_ROWS]
    ]
    searched = number_of(len(document["slices_searched"]), f"{document['plane']} slice")
    show_table(f"{document['output']}: {number_of(len(objects), 'object')} on {searched}", columns, rows)
    if len(objects) > _ROWS:
        say_faintly(f"  and {len(objects) - _ROWS} more; --records FILE.json or --json lists them all")
    if any(entry["abstained"] for entry in objects[:_ROWS]):
        say_faintly("  ?: the best guess, but not likely enough to rely on")
    if not objects:
        say_faintly(
            "  nothing was found: search finer (--every, --spacing-mm), lower --min-iou or --min-stability, "
            "or take another --window"
        )


def _say_what_is_written(request: AutoRequest, document: dict[str, Any]) -> None:
    """Where the output has other things than the table."""
    objects = document["objects"]
    if request.format != "labels":
        if request.slice_index is not None:
            masks = number_of(document["masks_found"], "mask")
            say_faintly(
                f"  {request.output} has all {masks} of the slice, from 0 on as segment-anything writes "
                "them; the objects above are what is left without small and repeated ones, each with the "
                "number of its mask",
                indent=2,
            )
        return
    less = [one for one in objects if one["ml_written"] < (1 - _NOTED_LOSS) * one["volume_ml"]]
    if not less:
        return
    less.sort(key=lambda one: one["ml_written"] - one["volume_ml"])
    most = ", ".join(
        f"{one['number']} ({one['ml_written']:.1f} of {one['volume_ml']:.1f} ml)"
        for one in less[:_NAMED_LOSSES]
    )
    kind, remedy = (
        ("surer", "") if request.surer_on_top else ("smaller", ", --on-top surer puts surer ones on top")
    )
    say_faintly(
        f"  {number_of(len(less), 'object')} with fewer voxels in the file, as {kind} ones lie on top: {most}"
        f"{', ...' if len(less) > _NAMED_LOSSES else ''}; --format masks keeps overlaps{remedy}",
        indent=2,
    )
