"""Average recall of proposals against COCO's own evaluation, and what must hold for any."""

from __future__ import annotations

import contextlib
import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from scipy import ndimage

from napari_sam_med.evaluation.proposal_recall import (
    COUNTS,
    SIZES,
    RecallMeter,
    average_recall,
    overlaps_of,
    random_boxes,
    segment_proposals,
    true_masks,
)
from napari_sam_med.segmentation.automatic.found_objects import FoundMask
from napari_sam_med.volume.formats.coco import run_lengths

SHAPE = (120, 140)


def blobs(seed, share=0.25):
    """Labels of a few smooth pieces of all sizes."""
    rng = np.random.default_rng(seed)
    noise = ndimage.gaussian_filter(rng.normal(size=SHAPE), rng.uniform(4, 14))
    return (noise > np.quantile(noise, 1 - share)).astype(np.uint8)


def guesses(truths, seed, count=30):
    """The true masks moved and grown at random, among others, in random order."""
    rng = np.random.default_rng(seed)
    found = random_boxes(SHAPE, count // 2, rng)
    for i in range(count // 2):
        mask = truths[i % len(truths)].mask
        mask = np.roll(mask, rng.integers(-3, 4, size=2), axis=(0, 1))
        grown = ndimage.binary_dilation(mask, iterations=int(rng.integers(1, 4))) if i % 3 else mask
        found.append(FoundMask.of(grown, 0.5, 0.5))
    return [found[i] for i in rng.permutation(len(found))]


def annotation(one, number, image):
    x0, y0, x1, y1 = one.box_xyxy
    return {
        "id": number,
        "image_id": image,
        "category_id": 1,
        "segmentation": {"size": list(SHAPE), "counts": run_lengths(one.mask)},
        "bbox": [x0, y0, x1 - x0 + 1, y1 - y0 + 1],
        "area": one.area_px,
        "iscrowd": 0,
    }


def recalls_of_coco(kind, cases):
    """AR by number and by size of COCO's evaluation without classes."""
    truth, answers = COCO(), COCO()
    height, width = SHAPE
    shared = {
        "images": [{"id": i + 1, "height": height, "width": width} for i in range(len(cases))],
        "categories": [{"id": 1, "name": "object"}],
    }
    flat = [(i + 1, one) for i, (_, truths) in enumerate(cases) for one in truths]
    truth.dataset = shared | {"annotations": [annotation(one, n + 1, i) for n, (i, one) in enumerate(flat)]}
    ranked = [(i + 1, rank, one) for i, (found, _) in enumerate(cases) for rank, one in enumerate(found)]
    answers.dataset = shared | {
        "annotations": [
            annotation(one, n + 1, i) | {"score": 1 / (1 + rank)} for n, (i, rank, one) in enumerate(ranked)
        ]
    }
    with contextlib.redirect_stdout(io.StringIO()):  # it prints
        truth.createIndex()
        answers.createIndex()
        evaluation = COCOeval(truth, answers, kind)
        evaluation.params.useCats = 0
        evaluation.params.maxDets = list(COUNTS)
        evaluation.evaluate()
        evaluation.accumulate()
    recall = evaluation.eval["recall"]  # threshold, class, size, number
    return {
        (size, most): float(recall[:, 0, i, j].mean())
        for i, size in enumerate(("all", "small", "medium", "large"))
        for j, most in enumerate(COUNTS)
    }


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 10_000))
def test_recall_is_that_of_coco(seed):
    truths = [true_masks(blobs(seed + i)) for i in range(2)]
    cases = [(guesses(one, seed + i), one) for i, one in enumerate(truths)]
    overlaps = [overlaps_of(found, one) for found, one in cases]
    areas = [one.areas for one in overlaps]
    for kind, ious in (("segm", [o.masks for o in overlaps]), ("bbox", [o.boxes for o in overlaps])):
        for (size, most), expected in recalls_of_coco(kind, cases).items():
            found = average_recall(ious, areas, most, size)
            assert (-1.0 if found is None else found) == pytest.approx(expected), (kind, size, most)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000))
def test_more_proposals_never_find_less_and_the_truth_finds_all(seed):
    truths = true_masks(blobs(seed))
    found = guesses(truths, seed, count=12)
    overlaps = overlaps_of(found, truths)
    recalls = [average_recall([overlaps.masks], [overlaps.areas], most) for most in range(1, 13)]
    assert recalls == sorted(recalls)
    assert 0 <= recalls[0] <= recalls[-1] <= 1
    assert recalls[0] <= 1 / len(truths)  # one proposal takes one object
    own = overlaps_of(truths, truths)
    assert average_recall([own.masks], [own.areas], 1000) == 1.0
    assert average_recall([own.boxes], [own.areas], 1000) == 1.0
    none = overlaps_of([], truths)
    assert average_recall([none.masks], [none.areas], 10) == 0.0


def test_recall_counted_by_hand():
    # two objects; the first proposal overlaps the first by 0.72, the second only the same one, by 0.9
    ious = np.array([[0.72, 0.0], [0.9, 0.1], [0.0, 0.61]])
    areas = np.array([50, 2000])
    assert average_recall([ious], [areas], 1) == pytest.approx((5 / 2) / 10)  # at 0.50 to 0.70
    # with both: at 0.75 to 0.90 the second proposal takes it
    assert average_recall([ious], [areas], 2) == pytest.approx((9 / 2) / 10)
    assert average_recall([ious], [areas], 3) == pytest.approx((9 + 3) / 2 / 10)
    assert average_recall([ious], [areas], 3, "small") == pytest.approx(0.9)
    assert average_recall([ious], [areas], 3, "medium") == pytest.approx(0.3)
    assert average_recall([ious], [areas], 3, "large") is None


def test_true_objects_are_connected_pieces():
    labels = np.zeros((20, 20), dtype=np.uint8)
    labels[2:6, 2:6] = 1
    labels[10:12, 10:12] = 1
    labels[6:8, 2:6] = 4
    pieces = true_masks(labels)
    assert sorted(one.area_px for one in pieces) == [4, 8, 16]
    assert len(true_masks(labels, min_area=5)) == 2
    assert true_masks(np.zeros((5, 5), dtype=np.uint8)) == []


def test_baselines_lie_on_the_image():
    boxes = random_boxes(SHAPE, 200, np.random.default_rng(0))
    assert len(boxes) == 200
    assert all(one.mask.sum() == one.area_px > 0 for one in boxes[:20])
    again = random_boxes(SHAPE, 200, np.random.default_rng(0))
    assert [one.box_xyxy for one in boxes] == [one.box_xyxy for one in again]
    image = np.zeros((40, 50, 3), dtype=np.uint8)
    image[10:30, 15:40] = 200
    segments = segment_proposals(image)
    assert [one.area_px for one in segments] == sorted((one.area_px for one in segments), reverse=True)
    assert max(one.iou(true_masks(image[..., 0])[0]) for one in segments) > 0.6  # smoothed


def test_the_meter_lays_baselines_beside():
    labels = np.zeros(SHAPE, dtype=np.uint8)
    labels[20:80, 30:90] = 1
    labels[100:105, 100:110] = 2
    image = np.repeat((labels * 90)[..., None], 3, axis=2)
    meter = RecallMeter(min_area=10)
    assert not meter.add({"mine": []}, image, np.zeros_like(labels))
    assert meter.add({"mine": true_masks(labels)[:1]}, image, labels)
    summary = meter.summary()
    assert summary["slices"] == 1
    assert summary["objects"] == {"all": 2, "small": 1, "medium": 1, "large": 0}
    assert set(summary["methods"]) == {"mine", "segments", "random boxes"}
    mine = summary["methods"]["mine"]
    assert mine["proposals"] == 1
    assert mine["masks"] == mine["boxes"]
    assert mine["masks"]["ar@10"] == 0.5
    assert mine["masks"]["ar@1000_medium"] == 1.0
    assert mine["masks"]["ar@1000_large"] is None
    assert set(SIZES) == set(summary["published"]["LVIS v1, mask AR@1000"]["SAM (ViT-H)"])
