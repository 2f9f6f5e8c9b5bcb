"""In fp32 the predictor equals `segment_anything.SamPredictor` over the same modules."""

from __future__ import annotations

from typing import Any

import numpy.testing as npt
import pytest
import torch
from segment_anything import SamPredictor, sam_model_registry
from segment_anything.utils.amg import calculate_stability_score

from napari_sam_med.sam.architectures.meta import build_sam_vit
from napari_sam_med.sam.architectures.vit_attention import use_fast_attention
from napari_sam_med.sam.model_registry import MODELS
from napari_sam_med.sam.predictor import Predictor
from napari_sam_med.sam.prompts import Prompts
from tests.sam.micro_sam import enliven, random_image

POINT = {"points_xy": [[100, 120]]}
POINTS = {"points_xy": [[100, 120], [30, 40], [210, 220]], "point_labels": [1, 0, 1]}
BOX = {"box_xyxy": [50, 60, 200, 220]}
PROMPTS: dict[str, dict[str, Any]] = {
    "point": POINT,
    "points": POINTS,
    "box": BOX,
    "box and points": POINTS | BOX,
}
SIZES = [(512, 512), (300, 420), (420, 300)]


def meta_arguments(prompts: Prompts) -> dict[str, Any]:
    """The same prompts as SamPredictor takes them."""
    some_points = len(prompts.points_xy) > 0
    return {
        "point_coords": prompts.points_xy.copy() if some_points else None,
        "point_labels": prompts.point_labels.copy() if some_points else None,
        "box": prompts.box_xyxy,
        "mask_input": None if prompts.mask_input is None else prompts.mask_input[None].copy(),
    }


def assert_equal_to_meta(
    ours: Predictor, meta: SamPredictor, prompts: Prompts, image: Any, multi: bool
) -> None:
    embedding = ours.embed(image)
    npt.assert_allclose(embedding.features.image.numpy(), meta.features.numpy(), rtol=1e-4, atol=1e-5)
    answer = ours.predict(embedding, prompts, multi)
    masks, iou_predictions, logits = meta.predict(**meta_arguments(prompts), multimask_output=multi)
    assert 0.01 < masks.mean() < 0.99, "the test is blind when masks are empty or full"
    assert logits.std() > 0.1
    npt.assert_allclose(answer.low_res_logits, logits, rtol=1e-4, atol=1e-4)
    npt.assert_allclose(answer.iou_predictions, iou_predictions, rtol=1e-4, atol=1e-5)
    npt.assert_array_equal(answer.masks, masks)


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("multimask", [True, False], ids=["three masks", "one mask"])
@pytest.mark.parametrize("kind", PROMPTS)
def test_equals_sam_predictor(
    micro_pair: tuple[Predictor, SamPredictor], kind: str, multimask: bool, size: tuple[int, int]
) -> None:
    ours, meta = micro_pair
    image = random_image(*size)
    meta.set_image(image)
    assert_equal_to_meta(ours, meta, Prompts(**PROMPTS[kind]), image, multimask)


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("kind", [None, *PROMPTS])
def test_equals_sam_predictor_with_mask_prompt(
    micro_pair: tuple[Predictor, SamPredictor], kind: str | None, size: tuple[int, int]
) -> None:
    ours, meta = micro_pair
    image = random_image(*size, seed=1)
    meta.set_image(image)
    first = ours.predict(ours.embed(image), Prompts(**BOX))
    others = {} if kind is None else PROMPTS[kind]
    prompts = Prompts(**others, mask_input=first.best_low_res_logits)
    assert_equal_to_meta(ours, meta, prompts, image, False)


def test_mask_prompt_matters(micro: Predictor) -> None:
    embedding = micro.embed(random_image(200, 200))
    first = micro.predict(embedding, Prompts(**BOX))
    again = micro.predict(embedding, Prompts(**BOX, mask_input=first.best_low_res_logits))
    assert (again.masks != first.masks).any()


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_stability_score_is_sams(micro_pair: tuple[Predictor, SamPredictor], size: tuple[int, int]) -> None:
    ours, meta = micro_pair
    image = random_image(*size)
    meta.set_image(image)
    prompts = Prompts(**POINT)
    logits, _, _ = meta.predict(**meta_arguments(prompts), return_logits=True)
    expected = calculate_stability_score(torch.from_numpy(logits), 0.0, 1.0)
    npt.assert_allclose(ours.predict(ours.embed(image), prompts).stability_scores, expected, rtol=1e-6)


def test_tokens_are_those_that_made_the_masks(micro_pair: tuple[Predictor, SamPredictor]) -> None:
    """The second half of token i gives mask i through its hypernetwork; the first half, the predicted IoU."""
    ours, meta = micro_pair
    image = random_image(160, 160)
    answer = ours.predict(ours.embed(image), Prompts(**POINT))
    decoder = meta.model.mask_decoder
    upscaled: list[torch.Tensor] = []
    hook = decoder.output_upscaling.register_forward_hook(lambda *args: upscaled.append(args[2]))
    again = ours.predict(ours.embed(image), Prompts(**POINT))
    hook.remove()
    assert answer.tokens.shape == (3, 512)
    npt.assert_array_equal(answer.tokens, again.tokens)
    tokens = torch.from_numpy(answer.tokens)
    with torch.no_grad():
        for i in range(3):
            weights = decoder.output_hypernetworks_mlps[i + 1](tokens[i, 256:])
            logits = torch.einsum("c,chw->hw", weights, upscaled[0][0])
            npt.assert_allclose(logits.numpy(), answer.low_res_logits[i], rtol=1e-3, atol=1e-3)
            iou = decoder.iou_prediction_head(tokens[i, :256])[i + 1]
            npt.assert_allclose(float(iou), answer.iou_predictions[i], rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_vit_b_equals_sam_predictor() -> None:
    torch.manual_seed(0)
    sam = sam_model_registry["vit_b"](checkpoint=None)
    enliven(sam)
    network = build_sam_vit("vit_b")
    network.load_state_dict(sam.state_dict(), strict=True)
    use_fast_attention(network.image_encoder)  # as in every loaded model
    ours = Predictor(network, MODELS["sam_vit_b"])
    image = random_image(300, 420)
    meta = SamPredictor(sam)
    meta.set_image(image)
    embedding = ours.embed(image)
    npt.assert_allclose(embedding.features.image.numpy(), meta.features.numpy(), rtol=1e-4, atol=1e-5)
    for kind, multimask in (("box", False), ("point", True)):
        prompts = Prompts(**PROMPTS[kind])
        masks, iou_predictions, logits = meta.predict(**meta_arguments(prompts), multimask_output=multimask)
        answer = ours.predict(embedding, prompts)
        assert 0.01 < masks.mean() < 0.99
        npt.assert_allclose(answer.low_res_logits, logits, rtol=1e-4, atol=1e-4)
        npt.assert_allclose(answer.iou_predictions, iou_predictions, rtol=1e-4, atol=1e-5)
        npt.assert_array_equal(answer.masks, masks)
