"""Automatic masks: those of SAM's own generator, of any model, on a part of a slice, as a job."""

from __future__ import annotations

import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from segment_anything import sam_model_registry
from segment_anything.modeling import Sam

from napari_sam_med import load_predictor, segment_everything
from napari_sam_med.errors import ImageError, ModelError, PromptError
from napari_sam_med.sam.architectures.meta import SamNetwork
from napari_sam_med.sam.architectures.tiny_vit import TinyVitEncoder
from napari_sam_med.sam.model_registry import MODELS
from napari_sam_med.sam.predictor import Predictor
from napari_sam_med.segmentation.automatic.everything import (
    EverythingOptions,
    find_masks,
    finding_masks,
)
from napari_sam_med.segmentation.automatic.mask_encoding import mask_of_rle
from tests.sam.micro_sam import MICRO_RECORD, build_micro_sam, enliven, predictor_over, random_image
from tests.segmentation.automatic.varied_sam import (
    EncodedOnce,
    assert_equal_to_meta,
    assert_same_records,
    connected_components_with_stats,
    vary_clicks,
)

IMAGE = random_image(90, 130)
OPEN = {
    "points_per_side": 4,
    "pred_iou_thresh": 0.51,
    "stability_score_thresh": 0.3,
    "stability_score_offset": 0.2,
    "box_nms_thresh": 0.97,
}


@pytest.fixture(autouse=True)
def _one_thread():
    """Products of matrices are rounded otherwise on two."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def sam():
    return vary_clicks(build_micro_sam())


@pytest.fixture(scope="module")
def predictor(sam):
    return predictor_over(sam)


@pytest.mark.parametrize(
    ("at_least", "options"),
    [
        (8, {}),
        (12, {"pred_iou_thresh": -1.0, "stability_score_thresh": 0.0, "box_nms_thresh": 1.0}),
        (5, {"pred_iou_thresh": 0.54, "stability_score_thresh": 0.4}),
        (3, {"stability_score_offset": 0.1, "stability_score_thresh": 0.6}),
        (8, {"points_per_batch": 3, "output_mode": "uncompressed_rle"}),
        (8, {"points_per_side": None, "point_grids": [np.random.default_rng(0).random((15, 2))]}),
        (8, {"output_mode": "coco_rle"}),
        (12, {"crop_n_layers": 1, "crop_nms_thresh": 0.97}),
        (8, {"crop_n_layers": 2, "points_per_side": 5, "crop_n_points_downscale_factor": 2,
             "crop_nms_thresh": 0.9, "crop_overlap_ratio": 0.5}),
        (5, {"min_mask_region_area": 40}),
        (5, {"min_mask_region_area": 150, "crop_n_layers": 1, "output_mode": "uncompressed_rle"}),
    ],
    ids=lambda value: None if isinstance(value, int) else " ".join(value) or "plain",
)  # fmt: skip
def test_records_are_those_of_sams_generator(sam, predictor, monkeypatch, at_least, options):
    opencv = SimpleNamespace(connectedComponentsWithStats=connected_components_with_stats)
    monkeypatch.setitem(sys.modules, "cv2", opencv)
    assert_equal_to_meta(sam, predictor, IMAGE, at_least, **OPEN | options)


def test_results_do_not_depend_on_the_batch(predictor):
    usual = segment_everything(IMAGE, predictor, **OPEN)
    for size in (1, 3, 64):
        assert_same_records(segment_everything(IMAGE, predictor, points_per_batch=size, **OPEN), usual)


def test_empty_masks_are_kept_in_records_and_nowhere_else(sam, predictor):
    everything = {"points_per_side": 2, "pred_iou_thresh": 0.0, "stability_score_thresh": 0.0}
    with torch.no_grad():
        iou = sam.mask_decoder.iou_prediction_head.layers[-1].bias
        iou.add_(1.0)
        for mlp in sam.mask_decoder.output_hypernetworks_mlps:
            mlp.layers[-1].bias.sub_(1e3)
    try:
        assert_equal_to_meta(sam, predictor, IMAGE, 12, **everything)
        records = segment_everything(IMAGE, predictor, output_mode="uncompressed_rle", **everything)
        assert {record["area"] for record in records} == {0}
        assert find_masks(IMAGE, predictor, EverythingOptions(**everything)) == []
    finally:
        with torch.no_grad():
            iou.sub_(1.0)
            for mlp in sam.mask_decoder.output_hypernetworks_mlps:
                mlp.layers[-1].bias.add_(1e3)


def test_run_lengths_are_of_the_same_masks(predictor):
    masks = segment_everything(IMAGE, predictor, **OPEN)
    lengths = segment_everything(IMAGE, predictor, output_mode="uncompressed_rle", **OPEN)
    assert len(masks) >= 8
    for mask, rle in zip(masks, lengths, strict=True):
        np.testing.assert_array_equal(mask_of_rle(rle["segmentation"]), mask["segmentation"])


def test_found_masks_are_those_of_the_records(predictor):
    options = OPEN | {"crop_n_layers": 1}
    records = segment_everything(IMAGE, predictor, **options)
    found = find_masks(IMAGE, predictor, EverythingOptions(**options))
    assert len(found) == len(records) >= 5
    for one, record in zip(found, records, strict=True):
        np.testing.assert_array_equal(one.mask, record["segmentation"])
        assert one.predicted_iou == record["predicted_iou"]
        assert one.stability_score == record["stability_score"]
        assert one.point_xy == tuple(record["point_coords"][0])
        x, y, width, height = record["crop_box"]
        whole = (x, y, width, height) == (0, 0, 130, 90)
        assert one.crop_xyxy == (None if whole else (x, y, x + width, y + height))
    assert any(one.crop_xyxy for one in found)


def test_points_elsewhere_are_not_asked(predictor):
    where = np.zeros(IMAGE.shape[:2], dtype=bool)
    where[:45, 65:] = True
    options = EverythingOptions(**OPEN | {"box_nms_thresh": 1.0, "crop_n_layers": 1, "crop_nms_thresh": 1.0})
    whole = find_masks(IMAGE, predictor, options)
    part = find_masks(IMAGE, predictor, options, where=where)
    assert {one.point_xy for one in part} == {
        one.point_xy for one in whole if where[round(one.point_xy[1]), round(one.point_xy[0])]
    }
    assert 0 < len(part) < len(whole)
    assert find_masks(IMAGE, predictor, options, where=np.zeros_like(where)) == []


def test_an_embedding_is_used_and_crops_are_made_beside_it(predictor, monkeypatch):
    embedding = predictor.embed(IMAGE)
    made = []
    embed = Predictor.embed
    monkeypatch.setattr(Predictor, "embed", lambda *args: made.append(args[3]) or embed(*args))
    options = EverythingOptions(**OPEN)
    found = find_masks(IMAGE, predictor, options, embedding=embedding)
    assert made == []
    again = find_masks(IMAGE, predictor, options)
    assert made == [None]
    assert [one.box_xyxy for one in found] == [one.box_xyxy for one in again]
    find_masks(IMAGE, predictor, replace(options, crop_n_layers=1), embedding=embedding)
    assert len(made) == 1 + 4
    assert None not in made[1:]


def test_spacing_reaches_the_model(predictor):
    options = EverythingOptions(**OPEN)
    square = find_masks(IMAGE, predictor, options)
    long = find_masks(IMAGE, predictor, options, pixel_spacing=(2.0, 1.0))
    given = find_masks(IMAGE, predictor, options, embedding=predictor.embed(IMAGE, (2.0, 1.0)))
    assert [one.predicted_iou for one in long] == [one.predicted_iou for one in given]
    assert [one.predicted_iou for one in long] != [one.predicted_iou for one in square]


def test_a_search_tells_how_far_it_is_and_can_be_ended(predictor):
    told = []
    options = EverythingOptions(**OPEN)
    find_masks(IMAGE, predictor, options, on_progress=told.append)
    assert [progress.done for progress in told] == [4, 8, 12, 16]
    assert {progress.total for progress in told} == {16}
    search = finding_masks(IMAGE, predictor, options)
    assert next(search).done == 4
    search.close()

    class StopError(Exception):
        pass

    def stop(progress):
        raise StopError

    with pytest.raises(StopError):
        find_masks(IMAGE, predictor, options, on_progress=stop)


def test_nano_finds_what_stands_out():
    image = np.full((96, 96, 3), 60, dtype=np.uint8)
    image[20:50, 30:70] = 190
    found = find_masks(
        image,
        load_predictor("nano", device="cpu"),
        EverythingOptions(points_per_side=4, pred_iou_thresh=0.5, stability_score_thresh=0.5),
    )
    truth = image[..., 0] > 100
    assert max((one.mask & truth).sum() / (one.mask | truth).sum() for one in found) > 0.8


def test_a_model_without_points_is_refused(predictor):
    boxes_only = Predictor(
        predictor.network, replace(MICRO_RECORD, title="MedSAM", accepts=frozenset({"box"}))
    )
    with pytest.raises(PromptError, match=r"MedSAM takes no points.*choose another model"):
        segment_everything(IMAGE, boxes_only)
    with pytest.raises(PromptError, match="MedSAM takes no points"):
        find_masks(IMAGE, boxes_only)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"points_per_side": None}, "neither was given"),
        ({"point_grids": [np.zeros((1, 2))]}, "both was given"),
        ({"points_per_side": 0}, "points_per_side is 0.*at least 1"),
        ({"points_per_batch": 0}, "points_per_batch is 0"),
        ({"crop_n_layers": -1}, "crop_n_layers is -1"),
        ({"crop_overlap_ratio": 1.0}, "crop_overlap_ratio is 1.0"),
        ({"stability_score_offset": float("nan")}, "stability_score_offset is nan"),
        ({"points_per_side": None, "point_grids": [np.zeros((1, 2))], "crop_n_layers": 1}, "2 arrays"),
        ({"points_per_side": None, "point_grids": [np.zeros((2, 3))]}, "shapes"),
        ({"output_mode": "png"}, "no output_mode"),
    ],
    ids=str,
)
def test_options_that_make_no_sense_are_refused(predictor, options, message):
    with pytest.raises(PromptError, match=message):
        segment_everything(IMAGE, predictor, **options)


def test_an_option_that_does_not_exist_is_named(predictor):
    with pytest.raises(TypeError, match="points_per_sid'; it has points_per_side"):
        segment_everything(IMAGE, predictor, points_per_sid=3)


def test_what_does_not_fit_the_image_is_refused(predictor):
    with pytest.raises(ImageError, match="90 x 130"):
        find_masks(IMAGE, predictor, embedding=predictor.embed(IMAGE[:50]))
    with pytest.raises(ImageError, match="cropped"):
        find_masks(IMAGE, predictor, embedding=predictor.embed(IMAGE, crop_xyxy=(0, 0, 50, 50)))
    with pytest.raises(ImageError, match="`where` has shape"):
        find_masks(IMAGE, predictor, where=np.ones((5, 5), dtype=bool))
    with pytest.raises(ImageError, match="uint8"):
        segment_everything(IMAGE.astype(float), predictor)
    other = replace(predictor.embed(IMAGE), model_hash="f" * 64)
    with pytest.raises(ModelError, match="another model"):
        find_masks(IMAGE, predictor, embedding=other)


FEW = {
    "points_per_side": 3,
    "pred_iou_thresh": 0.35,
    "stability_score_thresh": 0.1,
    "stability_score_offset": 0.2,
    "box_nms_thresh": 1.0,
}


@pytest.mark.slow
@pytest.mark.parametrize("model", ["sam_vit_b", "mobile_sam"])
def test_a_models_layout_gives_the_records_of_sams_generator(model):
    torch.manual_seed(0)
    sam = sam_model_registry["vit_b"](checkpoint=None)
    if model == "mobile_sam":
        sam = Sam(TinyVitEncoder(), sam.prompt_encoder, sam.mask_decoder).eval()
    else:  # both share the encoder: three of its blocks, one of them global, are enough to answer differently
        sam.image_encoder.blocks = sam.image_encoder.blocks[:3]
    enliven(sam)
    vary_clicks(sam)
    sam.image_encoder = EncodedOnce(sam.image_encoder)
    network = SamNetwork(sam.image_encoder, sam.prompt_encoder, sam.mask_decoder)
    assert_equal_to_meta(sam, Predictor(network, MODELS[model]), random_image(200, 300), 4, **FEW)
