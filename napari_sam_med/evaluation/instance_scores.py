"""Detections made into masks, and how well they find the organs: average precision as COCO counts it.

A detection's box is the prompt, its organ the class, and its score times the IoU that the model predicts the
score of the mask. Ground truth are the organs on a slice, or their connected pieces.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from napari_sam_med.evaluation.cases import Case, read_case
from napari_sam_med.evaluation.detections import Detection
from napari_sam_med.evaluation.detector_boxes import DetectorBoxes, boxes_of, is_of
from napari_sam_med.evaluation.measuring import (
    Encoder,
    SliceChoice,
    chosen_organs,
    embed_labelled,
    labelled_slices,
    organ_names,
)
from napari_sam_med.evaluation.prompt_strategies import Strategy
from napari_sam_med.progress import Progress
from napari_sam_med.sam.mask_prediction import MaskPrediction
from napari_sam_med.sam.predictor import ImageEmbedding
from napari_sam_med.sam.prompts import Prompts
from napari_sam_med.segmentation.body import BodyBox
from napari_sam_med.volume.formats.coco import run_lengths
from napari_sam_med.volume.labels import LabelVolume
from napari_sam_med.volume.slice_view import SliceView
from napari_sam_med.volume.volume import Volume

__all__ = [
    "Instance",
    "InstanceSlice",
    "Pieces",
    "instance_summary",
    "instances_document",
    "measure_instances",
    "segment_detections",
    "true_instances",
]

Pieces = Literal["organs", "components"]
"""What one true instance is: all of an organ on a slice, or each of its parts (8 neighbours)."""

#: Pixels of an instance by size; COCO counts both ends in.
_SIZES = {"all": (0, 10**10), "small": (0, 32**2), "medium": (32**2, 96**2), "large": (96**2, 10**10)}
_AP_KEYS = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large")
_NEIGHBOURS = np.ones((3, 3), dtype=bool)


class _Embeds(Encoder, Protocol):
    """The part of `Predictor` that is needed here."""

    def predict_batch(
        self, embedding: ImageEmbedding, prompts: Sequence[Prompts]
    ) -> list[MaskPrediction]: ...


@dataclass(frozen=True)
class Instance:
    """One mask on a slice, found or true.

    Attributes
    ----------
    organ : str
        Its class.
    counts : str
        Compressed run lengths of the mask, as COCO has them.
    area : int
        Pixels.
    box_xywh : tuple of int
        COCO's box: left and upper outer edge, width, height; zeros for an empty mask.
    score : float
        Of the detection times the predicted IoU; 1 for a true one.
    is_ignored : bool
        A true one that is too small to be asked for: finding it is neither right nor wrong.
    """

    organ: str
    counts: str
    area: int
    box_xywh: tuple[int, int, int, int]
    score: float = 1.0
    is_ignored: bool = False


@dataclass(frozen=True)
class InstanceSlice:
    """What was found on a slice with one model and one file of boxes, and what is there.

    Attributes
    ----------
    progress : Progress
        Slices of the present case and model.
    model, strategy, case : str
    view : SliceView
    shape : tuple of int
        Height and width.
    truths, found : tuple of Instance
    left_out : int
        Detections of organs that are not chosen, or that the labels of the case know nothing of: nobody can
        say whether they are right.
    """

    progress: Progress
    model: str
    strategy: str
    case: str
    view: SliceView
    shape: tuple[int, int]
    truths: tuple[Instance, ...]
    found: tuple[Instance, ...]
    left_out: int = 0


def measure_instances(
    cases: Iterable[Case],
    predictors: Mapping[str, _Embeds],
    strategies: Iterable[Strategy],
    choice: SliceChoice,
    pieces: Pieces = "organs",
) -> Iterator[InstanceSlice]:
    """Masks of all detections on the chosen slices, also where they find what is not there.

    Parameters
    ----------
    cases : iterable of Case
        Read one after the other.
    predictors : mapping of str to Predictor
        By the name that results give them; each takes boxes.
    strategies : iterable of Strategy
        Those that are boxes of a detector alone; others are passed over.
    choice : SliceChoice
        True instances of fewer than ``min_area`` pixels are ignored. Detections on slices without a true one
        count unless ``most`` picks the slices.
    pieces : {"organs", "components"}

    Yields
    ------
    InstanceSlice
        For every chosen slice with an organ or a detection, model by model; nothing without such a strategy.

    Raises
    ------
    ImageError, LabelError
        When a case cannot be read.
    PromptError
        When boxes cannot be those of a case.
    """
    boxes = boxes_of(strategies, alone=True)
    for case in cases if boxes else ():
        volume, labels = read_case(case)
        for found in boxes.values():
            found.check(case.name, labels)
        for model, predictor in predictors.items():
            yield from segment_detections(
                case.name, volume, labels, predictor, boxes, choice, pieces, model=model
            )


def segment_detections(
    case: str,
    volume: Volume,
    labels: LabelVolume,
    predictor: _Embeds,
    boxes: Mapping[str, DetectorBoxes],
    choice: SliceChoice,
    pieces: Pieces = "organs",
    *,
    model: str = "",
) -> Iterator[InstanceSlice]:
    """What `measure_instances` yields of one case and model; the boxes by the name of their strategy."""
    names = _known_names(labels, choice)
    views = _views(case, labels, boxes.values(), choice, names)
    crop = BodyBox.of(volume) if choice.crop_to_body else None
    for done, view in enumerate(views, start=1):
        truths = true_instances(labels, view, choice, pieces)
        embedding: ImageEmbedding | None = None
        for strategy, source in boxes.items():
            shape = view.slice_shape(labels.shape)
            given = source.on_slice(case, view)
            judged = [(one, organ) for one in given if (organ := _organ_of(one, names)) is not None]
            if judged and embedding is None:
                embedding = embed_labelled(volume, labels, view, predictor, crop)
            prompts = [source.prompts_of(one, shape) for one, _ in judged]
            answers = predictor.predict_batch(embedding, prompts) if embedding is not None and prompts else []
            yield InstanceSlice(
                Progress(done, len(views), f"instances of {case}"),
                model,
                strategy,
                case,
                view,
                shape,
                truths,
                tuple(_found(*pair, answer) for pair, answer in zip(judged, answers, strict=True)),
                len(given) - len(judged),
            )


def true_instances(
    labels: LabelVolume, view: SliceView, choice: SliceChoice | None = None, pieces: Pieces = "organs"
) -> tuple[Instance, ...]:
    """The instances that a slice of labels shows, in the order of their numbers.

    Parameters
    ----------
    labels : LabelVolume
    view : SliceView
    choice : SliceChoice, optional
        Of its organs; those smaller than its ``min_area`` are marked as ignored.
    pieces : {"organs", "components"}
    """
    choice = choice or SliceChoice()
    image = view.extract(labels.data)
    names = organ_names(labels)
    chosen = chosen_organs(labels, choice.organs)
    found = []
    for label in np.unique(image[image > 0]).tolist():
        if label not in chosen:
            continue
        mask = image == label
        parts = mask.astype(np.int32)
        if pieces == "components":
            parts = np.asarray(ndimage.label(mask, _NEIGHBOURS)[0], dtype=np.int32)
        for part in range(1, int(parts.max()) + 1):
            one = parts == part
            found.append(_instance(names[label], one, is_ignored=int(one.sum()) < choice.min_area))
    return tuple(found)


def _views(
    case: str,
    labels: LabelVolume,
    boxes: Iterable[DetectorBoxes],
    choice: SliceChoice,
    names: Mapping[int, str],
) -> list[SliceView]:
    """The chosen slices with an organ, or a detection of one in any file."""
    views = {labelled.view for labelled in labelled_slices(labels, choice)}
    if not choice.most:
        views |= {
            one.view
            for source in boxes
            for one in source.of_case(case)
            if one.view.plane in choice.planes
            and one.view.index % choice.every == 0
            and _organ_of(one, names) is not None
        }
    return sorted(views, key=lambda view: (choice.planes.index(view.plane), view.index))


def _known_names(labels: LabelVolume, choice: SliceChoice) -> dict[int, str]:
    """Names of the chosen organs that the labels could show: those in their table, and those that occur."""
    names = {number: organ.name for number, organ in labels.organs.items()} | organ_names(labels)
    wanted = {organ.strip().casefold() for organ in choice.organs}
    occurring = chosen_organs(labels, choice.organs)
    return {
        number: name
        for number, name in names.items()
        if not wanted or number in occurring or wanted & {str(number), name.casefold()}
    }


def _organ_of(detection: Detection, names: Mapping[int, str]) -> str | None:
    """The name that the labels have for the organ of a detection; None where they do not know it."""
    return next((name for number, name in names.items() if is_of(detection, number, name)), None)


def _found(detection: Detection, organ: str, answer: MaskPrediction) -> Instance:
    predicted = float(answer.iou_predictions[answer.best_index])
    return _instance(organ, answer.best_mask, score=detection.score * max(predicted, 0.0))


def _instance(
    organ: str, mask: npt.NDArray[np.bool_], *, score: float = 1.0, is_ignored: bool = False
) -> Instance:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    box = (0, 0, 0, 0)
    if len(rows):
        width, height = columns[-1] - columns[0] + 1, rows[-1] - rows[0] + 1
        box = (int(columns[0]), int(rows[0]), int(width), int(height))
    return Instance(organ, run_lengths(mask), int(mask.sum()), box, score, is_ignored)


def instance_summary(slices: Sequence[InstanceSlice]) -> dict[str, Any]:
    """Average precision by model, then strategy, as plain values for JSON.

    Parameters
    ----------
    slices : sequence of InstanceSlice
        Of a whole run.

    Returns
    -------
    dict
        By model, then strategy: ``ap`` (mean over the IoU thresholds 0.5, 0.55 ... 0.95), ``ap50``, ``ap75``,
        ``ap_small`` (up to 32 x 32 pixels), ``ap_medium`` (up to 96 x 96) and ``ap_large``, each the mean
        over organs, and None where there is nothing of the kind to find; ``ar``, the mean recall with at most
        100 detections of an organ on a slice; ``organs``, the APs by name; ``class_agnostic``, the same
        with any organ for right; ``instances``, how many there are to find, by size; ``detections``, and
        ``left_out`` of them.
    """
    document = instances_document(slices)
    found: dict[str, dict[str, Any]] = {}
    for model, strategies in document["results"].items():
        for strategy, results in strategies.items():
            by_class = _evaluated(document, results, use_classes=True)
            own = [one for one in slices if (one.model, one.strategy) == (model, strategy)]
            found.setdefault(model, {})[strategy] = {
                **_overall(by_class),
                "organs": _by_organ(by_class, document["categories"]),
                "class_agnostic": _overall(_evaluated(document, results, use_classes=False)),
                "instances": _counts(own),
                "detections": len(results),
                "left_out": sum(one.left_out for one in own),
            }
    return found


def instances_document(slices: Sequence[InstanceSlice]) -> dict[str, Any]:
    """The ground truth as a COCO data set, with COCO results by model, then strategy, under ``results``.

    Images have ``plane`` and ``slice`` beside COCO's keys; true instances that are ignored are crowds.
    """
    views: dict[tuple[str, SliceView], InstanceSlice] = {}
    for one in slices:
        views.setdefault((one.case, one.view), one)
    images = {key: number for number, key in enumerate(views, start=1)}
    organs = {name: None for one in slices for name in (i.organ for i in (*one.truths, *one.found))}
    categories = {name: number for number, name in enumerate(organs, start=1)}
    annotations = [
        {
            "id": number,
            "image_id": images[key],
            "category_id": categories[truth.organ],
            "segmentation": {"size": list(views[key].shape), "counts": truth.counts},
            "area": truth.area,
            "bbox": list(truth.box_xywh),
            "iscrowd": int(truth.is_ignored),
        }
        for number, (key, truth) in enumerate(
            ((key, truth) for key, one in views.items() for truth in one.truths), start=1
        )
    ]
    results: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for one in slices:
        results.setdefault(one.model, {}).setdefault(one.strategy, []).extend(
            {
                "image_id": images[one.case, one.view],
                "category_id": categories[mask.organ],
                "segmentation": {"size": list(one.shape), "counts": mask.counts},
                "score": mask.score,
            }
            for mask in one.found
        )
    return {
        "info": {"description": "Instance masks by napari-sam-med", "version": "1"},
        "images": [
            {
                "id": number,
                "file_name": case,
                "plane": view.plane,
                "slice": view.index,
                "height": views[case, view].shape[0],
                "width": views[case, view].shape[1],
            }
            for (case, view), number in images.items()
        ],
        "annotations": annotations,
        "categories": [{"id": number, "name": name} for name, number in categories.items()],
        "results": results,
    }


def _evaluated(
    document: Mapping[str, Any], results: Sequence[Mapping[str, Any]], *, use_classes: bool
) -> Any:
    """COCO's own evaluation of the masks, summarised."""
    from pycocotools import mask as coco_mask
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    truth, answers = COCO(), COCO()
    shared = {"images": document["images"], "categories": document["categories"]}
    truth.dataset = shared | {"annotations": [dict(one) for one in document["annotations"]]}
    answers.dataset = shared | {
        "annotations": [
            # ids from 1, as COCO's evaluation takes 0 for no match
            {**one, "id": number, "iscrowd": 0, "area": int(coco_mask.area(one["segmentation"]))}
            for number, one in enumerate(results, start=1)
        ]
    }
    with contextlib.redirect_stdout(io.StringIO()):  # it prints tables
        truth.createIndex()
        answers.createIndex()
        evaluation = COCOeval(truth, answers, "segm")
        evaluation.params.useCats = int(use_classes)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


def _overall(evaluation: Any) -> dict[str, float | None]:
    stats = [_known(value) for value in evaluation.stats]
    return dict(zip(_AP_KEYS, stats, strict=False)) | {"ar": stats[8]}


def _by_organ(evaluation: Any, categories: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float | None]]:
    """AP of every organ that there is; a detection of another finds nothing."""
    precision = evaluation.eval["precision"]  # threshold, recall, class, size, number of detections
    found = {}
    for position, category in enumerate(categories):
        own = precision[:, :, position, :, -1]
        if (own[:, :, 0] < 0).all():
            continue
        parts = (own[:, :, 0], own[:1, :, 0], own[5:6, :, 0], *(own[:, :, size] for size in (1, 2, 3)))
        found[category["name"]] = {
            key: _known(float(part[part > -1].mean())) if (part > -1).any() else None
            for key, part in zip(_AP_KEYS, parts, strict=True)
        }
    return found


def _known(value: float) -> float | None:
    """COCO says -1 where there is nothing to find."""
    return None if value < 0 else float(value)


def _counts(slices: Iterable[InstanceSlice]) -> dict[str, int]:
    areas = [truth.area for one in slices for truth in one.truths if not truth.is_ignored]
    return {size: sum(low <= area <= high for area in areas) for size, (low, high) in _SIZES.items()}
