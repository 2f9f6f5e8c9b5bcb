"""The decoder's own forward, beyond what parity with SamPredictor covers."""

from __future__ import annotations

import numpy.testing as npt
import pytest
import torch

from napari_sam_med.sam.architectures.base import PromptBatch
from napari_sam_med.sam.architectures.meta import SamFeatures, SamNetwork, build_sam_vit
from tests.sam.micro_sam import build_micro_sam


def network_of(seed: int = 0) -> SamNetwork:
    sam = build_micro_sam(seed)
    return SamNetwork(sam.image_encoder, sam.prompt_encoder, sam.mask_decoder).eval()


@pytest.mark.parametrize("with_masks", [False, True])
@pytest.mark.parametrize("multimask", [False, True])
def test_a_batch_of_prompts_equals_metas_own_decoder(with_masks: bool, multimask: bool) -> None:
    sam = build_micro_sam()
    network = SamNetwork(sam.image_encoder, sam.prompt_encoder, sam.mask_decoder)
    generator = torch.Generator().manual_seed(2)
    image = torch.randn(1, 256, 8, 8, generator=generator)
    boxes = torch.tensor([[10.0, 10, 50, 60], [20, 30, 100, 90], [0, 0, 127, 127]])
    masks = torch.randn(3, 1, 32, 32, generator=generator) if with_masks else None
    with torch.inference_mode():
        found = network.decode(
            SamFeatures(image), PromptBatch(boxes_xyxy=boxes, mask_inputs=masks), multimask
        )
        sparse, dense = sam.prompt_encoder(points=None, boxes=boxes, masks=masks)
        pe = sam.prompt_encoder.get_dense_pe()
        logits, iou_predictions = sam.mask_decoder(image, pe, sparse, dense, multimask)
    npt.assert_allclose(found.low_res_logits, logits, rtol=1e-4, atol=1e-4)
    npt.assert_allclose(found.iou_predictions, iou_predictions, rtol=1e-4, atol=1e-5)
    assert found.tokens.shape == (3, 3 if multimask else 1, 512)


def test_loading_weights_renews_the_positional_encoding() -> None:
    one, other = network_of(0), network_of(5)
    assert not torch.equal(one.image_pe, other.image_pe)
    one.load_state_dict(other.state_dict(), strict=True)
    npt.assert_array_equal(one.image_pe, other.image_pe)
    assert "image_pe" not in one.state_dict(), "names stay those of Meta's checkpoints"


def test_gradients_flow_to_image_and_prompts() -> None:
    network = network_of()
    squares = torch.randn(1, 3, 128, 128, generator=torch.Generator().manual_seed(0), requires_grad=True)
    batch = PromptBatch(boxes_xyxy=torch.tensor([[10.0, 10, 50, 60]]))
    network.decode(network.encode(squares), batch, False).low_res_logits.sum().backward()
    assert squares.grad is not None
    assert squares.grad.abs().sum() > 0


@pytest.mark.slow
@pytest.mark.parametrize(("name", "millions"), [("vit_b", 93.7), ("vit_l", 312.3), ("vit_h", 641.1)])
def test_sizes_of_the_published_models(name: str, millions: float) -> None:
    with torch.device("meta"):
        network = build_sam_vit(name)
    count = sum(parameter.numel() for parameter in network.parameters()) / 1e6
    assert abs(count - millions) < 0.1
