"""MobileSAM: its checkpoint loads strictly, its encoder computes what it should, it predicts as SAM does."""

from __future__ import annotations

from pathlib import Path

import numpy.testing as npt
import pytest
import torch
from segment_anything import SamPredictor
from segment_anything.modeling import Sam

from napari_sam_med.sam.architectures.meta import build_mask_decoder, build_prompt_encoder
from napari_sam_med.sam.architectures.tiny_vit import build_mobile_sam, from_mobile_sam_keys, fuse_batch_norm
from napari_sam_med.sam.checkpoints import write_checkpoint
from napari_sam_med.sam.model_registry import MODELS
from napari_sam_med.sam.predictor import load_predictor
from napari_sam_med.sam.prompts import Prompts
from tests.sam.architectures.mobile_sam_reference import encode, random_encoder_weights
from tests.sam.micro_sam import enliven, random_image

StateDict = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def weights() -> StateDict:
    """A whole MobileSAM in its own layout."""
    torch.manual_seed(0)
    parts = torch.nn.ModuleDict(
        {"prompt_encoder": build_prompt_encoder(), "mask_decoder": build_mask_decoder()}
    )
    enliven(parts)
    return random_encoder_weights() | dict(parts.state_dict())


def test_layout_has_the_published_number_of_tensors(weights: StateDict) -> None:
    assert sum(key.startswith("image_encoder.") for key in weights) == 302
    decoder_and_prompts = sum(not key.startswith("image_encoder.") for key in weights)
    assert decoder_and_prompts > 100


def test_every_key_is_mapped_and_loads_strictly(weights: StateDict) -> None:
    renamed = from_mobile_sam_keys(weights)
    assert len(renamed) == len(weights) - 4, "all but the unused head and its normalisation"
    network = build_mobile_sam()
    network.load_state_dict(renamed, strict=True)
    assert from_mobile_sam_keys(network.state_dict()).keys() == network.state_dict().keys(), (
        "ours are left alone"
    )


@pytest.fixture(scope="module", params=[256, 320])
def encoded(request: pytest.FixtureRequest, weights: StateDict) -> tuple[torch.Tensor, torch.Tensor]:
    """Squares of a side, and what MobileSAM's encoder makes of them."""
    side = request.param
    squares = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        return squares, encode(weights, squares)


@pytest.mark.parametrize("fused", [False, True])
def test_encoder_computes_what_mobile_sams_does(
    weights: StateDict, encoded: tuple[torch.Tensor, torch.Tensor], fused: bool
) -> None:
    network = build_mobile_sam()
    network.load_state_dict(from_mobile_sam_keys(weights), strict=True)
    if fused:
        fuse_batch_norm(network.image_encoder)
    squares, wanted = encoded
    side = squares.shape[-1]
    with torch.inference_mode():
        found = network.encode(squares).image
    assert found.shape == (2, 256, side // 16, side // 16)
    assert wanted.std() > 0.1
    npt.assert_allclose(found.numpy(), wanted.numpy(), rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_file_predicts_as_sam_predictor_over_its_parts(weights: StateDict, tmp_path: Path) -> None:
    torch.save(weights, tmp_path / "some file.pt")
    ours = load_predictor(tmp_path / "some file.pt", device="cpu")
    assert ours.record.architecture == "tiny_vit"
    network = build_mobile_sam()
    network.load_state_dict(from_mobile_sam_keys(weights), strict=True)
    parts = (network.image_encoder, network.prompt_encoder, network.mask_decoder)
    meta = SamPredictor(Sam(*parts).eval())
    image = random_image(300, 420)
    meta.set_image(image)
    embedding = ours.embed(image)
    scale = float(meta.features.abs().max())
    npt.assert_allclose(embedding.features.image.numpy(), meta.features.numpy(), rtol=1e-4, atol=1e-4 * scale)
    for prompts, multimask in ((Prompts.from_box((50, 60, 200, 220)), False), (Prompts([[100, 120]]), True)):
        points = prompts.points_xy.copy() if len(prompts.points_xy) else None
        labels = prompts.point_labels.copy() if len(prompts.points_xy) else None
        masks, iou_predictions, logits = meta.predict(points, labels, prompts.box_xyxy, None, multimask)
        answer = ours.predict(embedding, prompts)
        assert 0.01 < masks.mean() < 0.99
        npt.assert_allclose(answer.low_res_logits, logits, rtol=1e-4, atol=1e-4 * float(abs(logits).max()))
        npt.assert_allclose(answer.iou_predictions, iou_predictions, rtol=1e-3, atol=1e-4)
        assert (answer.masks != masks).mean() < 1e-5


def test_a_fine_tuned_one_is_loaded_again(weights: StateDict, tmp_path: Path) -> None:
    network = build_mobile_sam()
    network.load_state_dict(from_mobile_sam_keys(weights), strict=True)
    write_checkpoint(tmp_path / "tuned", network.state_dict(), MODELS["mobile_sam"])
    assert load_predictor(tmp_path / "tuned", device="cpu").record.architecture == "tiny_vit"
