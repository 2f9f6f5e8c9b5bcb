"""``match``: the organs of one labelled example, found in another volume or in the rest of its own."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from napari_sam_med.cli.case_options import listed
from napari_sam_med.cli.console import print_json, progress_bar, say_faintly, show_table, warn
from napari_sam_med.cli.doubts import looks_like_labels
from napari_sam_med.cli.outputs import check_input, check_label_output
from napari_sam_med.errors import LabelError, PromptError

if TYPE_CHECKING:
    from napari_sam_med.sam.predictor import Predictor
    from napari_sam_med.segmentation.automatic.found_objects import FoundObject
    from napari_sam_med.segmentation.matching.example import Example
    from napari_sam_med.segmentation.matching.matcher import Matching
    from napari_sam_med.volume.labels import LabelVolume
    from napari_sam_med.volume.volume import Volume

__all__ = ["MatchRequest", "run_match"]

BEST = "best"
"""The example's slice that shows most of the organ."""


@dataclass(frozen=True)
class MatchRequest:
    """What the user typed; `example_slice` counts along the file's own axis."""

    volume: Path
    example: Path
    example_labels: Path
    output: Path
    matching: Matching
    only: str = ""
    example_slice: str = BEST
    window: str = "auto"
    model: str = "nano"
    device: str = "auto"
    precision: str = "auto"


@dataclass(frozen=True, eq=False)
class _Found:
    """Instances of one organ."""

    label: int
    name: str
    example: Example
    objects: list[FoundObject]


def run_match(request: MatchRequest, *, as_json: bool) -> int:
    """Run the command; returns the exit status."""
    _check(request)
    from napari_sam_med.sam.predictor import load_predictor
    from napari_sam_med.volume.formats.dicom import refuse_foreign
    from napari_sam_med.volume.reading import read_labels, read_volume
    from napari_sam_med.volume.writing import remarks, write_labels

    start = time.perf_counter()
    volume = read_volume(request.volume)
    refuse_foreign(request.output, volume.header)
    shown = volume if request.example.samefile(request.volume) else read_volume(request.example)
    examples = read_labels(request.example_labels, reference=shown)
    warnings = warn([*volume.warnings, *shown.warnings, *examples.warnings])
    if looks_like_labels(volume):
        warnings += warn([f"{request.volume.name} looks like labels, not a scan; check that it is meant"])
    chosen = _examples(request, shown, examples)
    predictor = load_predictor(request.model, device=request.device, precision=request.precision)
    found = _matched(request, volume, predictor, chosen, examples)
    labels = _labels(volume, examples, found)
    model = {
        "name": predictor.record.name,
        "sha256": predictor.model_hash,
        "device": str(predictor.device),
        "precision": predictor.precision,
    }
    write_labels(request.output, labels, source=volume, model=model)
    warnings += warn(remarks(request.output, len(labels.class_ids())))
    document = _document(request, volume, labels, found, predictor) | {
        "seconds": round(time.perf_counter() - start, 3),
        "warnings": warnings,
    }
    if as_json:
        print_json(document)
    else:
        _show(document)
    return 0


def _check(request: MatchRequest) -> None:
    check_input(request.volume, "volume")
    check_input(request.example, "example")
    check_input(request.example_labels, "label file")
    check_label_output(request.output, (request.volume, request.example, request.example_labels))


def _examples(request: MatchRequest, shown: Volume, labels: LabelVolume) -> dict[int, Example]:
    """One example an organ; of a slice that was chosen, the organs that it shows.

    Raises
    ------
    LabelError
        When there is no such organ, or the slice shows none.
    """
    import numpy as np

    from napari_sam_med.evaluation.measuring import chosen_organs
    from napari_sam_med.segmentation.matching.example import Example
    from napari_sam_med.volume.slice_view import SliceView

    chosen = sorted(chosen_organs(labels, listed(request.only)) & set(labels.class_ids()))
    if not chosen:
        there = ", ".join(map(labels.organs.name_of, labels.class_ids())) or "nothing"
        asked = f"no {request.only}" if request.only else "nothing"
        raise LabelError(
            f"{request.example_labels.name} has {asked} to go by; it labels {there}: label an organ on a "
            "slice, or name another."
        )
    index = _canonical(request, shown)
    if index != "best":
        here = np.unique(SliceView(request.matching.plane, index).extract(labels.data))
        chosen = [number for number in chosen if number in here]
        if not chosen:
            raise LabelError(
                f"Slice {request.example_slice} of {request.example_labels.name} shows none of the organs; "
                "take one that is labelled, or best."
            )
    return {
        number: Example.of_labels(
            shown, labels.data, number, plane=request.matching.plane, index=index, window=request.window
        )
        for number in chosen
    }


def _canonical(request: MatchRequest, shown: Volume) -> int | Literal["best"]:
    """The example's slice as `Example.of_labels` takes it."""
    if request.example_slice == BEST:
        return "best"
    try:
        index = int(request.example_slice)
    except ValueError:
        raise PromptError(
            f'"{request.example_slice}" is no slice of the example; give its number, or best.'
        ) from None
    return shown.grid.view_from_file(shown.grid.file_axis(request.matching.plane), index).index


def _matched(
    request: MatchRequest,
    volume: Volume,
    predictor: Predictor,
    examples: dict[int, Example],
    labels: LabelVolume,
) -> list[_Found]:
    """All organs, one after the other; slices are embedded once for all of them."""
    from napari_sam_med.sam.embedding_store import default_store
    from napari_sam_med.segmentation.matching.volume_matching import match_volume

    store = default_store()
    found = []
    for number, example in examples.items():
        name = labels.organs.name_of(number)
        search = match_volume(
            volume, example, predictor, request.matching, window=request.window, store=store
        )
        with progress_bar(f"Matching {name} with {predictor.record.name}") as on_progress:
            while True:
                try:
                    on_progress(next(search).progress)
                except StopIteration as end:
                    found.append(_Found(number, name, example, end.value))
                    break
    return found


def _labels(volume: Volume, examples: LabelVolume, found: Sequence[_Found]) -> LabelVolume:
    """The instances as labels: what is known first, then the surest; none takes a voxel of another."""
    from napari_sam_med.volume.labels import LabelVolume

    dtype = "uint16" if max(one.label for one in found) > 255 else "uint8"
    labels = LabelVolume.like(volume, examples.organs, dtype=dtype)
    for one in found:
        if one.example.volume is volume:
            for known in one.example.slices:
                if known.view is not None:
                    labels.assign(known.view, known.mask, one.label, keep_others=True)
    instances = [(each, one.label) for one in found for each in one.objects]
    for each, label in sorted(instances, key=lambda pair: -pair[0].score):
        for view, mask in each:
            labels.assign(view, mask.mask, label, keep_others=True)
    return labels


def _document(
    request: MatchRequest,
    volume: Volume,
    labels: LabelVolume,
    found: Sequence[_Found],
    predictor: Predictor,
) -> dict[str, Any]:
    """What was found, as JSON takes it; indices of slices count along the files' own axes."""
    matching = request.matching
    return {
        "volume": str(request.volume),
        "example": str(request.example),
        "output": str(request.output),
        "model": predictor.record.name,
        "model_sha256": predictor.model_hash,
        "device": str(predictor.device),
        "precision": predictor.precision,
        "engine": matching.engine,
        "design": matching.design if matching.engine == "stitching" else None,
        "plane": matching.plane,
        "propagated": matching.propagate,
        "organs": [
            {
                "label": one.label,
                "name": one.name,
                "example_slice": _example_slice(one.example),
                "volume_ml": round(labels.volume_ml(one.label), 4),
                "instances": [_instance(each, volume) for each in one.objects],
            }
            for one in found
        ],
    }


def _example_slice(example: Example) -> int | None:
    view = example.slices[0].view
    return None if view is None or example.volume is None else example.volume.grid.file_index(view)


def _instance(each: FoundObject, volume: Volume) -> dict[str, Any]:
    slices = [volume.grid.file_index(view) for view in each.masks]
    return {
        "number": each.number,
        "score": round(each.score, 4),
        "volume_ml": round(each.voxels * volume.grid.voxel_volume_mm3 / 1000, 4),
        "first_slice": min(slices),
        "last_slice": max(slices),
        "slices": len(slices),
    }


def _show(document: dict[str, Any]) -> None:
    columns = {
        "label": "right",
        "name": "left",
        "example slice": "right",
        "instance": "right",
        "score": "right",
        "ml": "right",
        "slices": "left",
    }
    rows = []
    for organ in document["organs"]:
        head = [str(organ["label"]), organ["name"], str(organ["example_slice"])]
        for each in organ["instances"] or [None]:
            if each is None:
                rows.append([*head, "none", "", "", ""])
                continue
            span = f"{each['first_slice']} to {each['last_slice']}"
            rows.append(
                [*head, str(each["number"]), f"{each['score']:.2f}", f"{each['volume_ml']:.1f}", span]
            )
    show_table(document["output"], columns, rows)
    if any(len(organ["instances"]) > 1 for organ in document["organs"]):
        say_faintly("  where there is one of an organ, --instances 1 keeps the surest alone", indent=4)
    if not all(organ["instances"] for organ in document["organs"]):
        say_faintly(
            "  none: nothing was sure enough; try another slice of the example, or --engine", indent=4
        )
