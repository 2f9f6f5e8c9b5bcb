"""Nano: every kind of prompt, the untrained answer, embedding and batches."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from napari_sam_med.evaluation.baselines import inscribed_ellipse
from napari_sam_med.evaluation.metrics import dice
from napari_sam_med.sam.architectures.base import PromptBatch
from napari_sam_med.sam.architectures.nano import Nano, NanoFeatures
from napari_sam_med.sam.architectures.nano_region import (
    INPUT_SIZE,
    Region,
    RegionPrompts,
    paste,
    resample,
)

BOXES = torch.tensor([[40.0, 60.0, 99.0, 111.0], [150.0, 20.0, 161.0, 27.0], [10.0, 100.0, 200.0, 240.0]])
POINTS = torch.tensor(
    [[[70.0, 80.0], [90.0, 85.0]], [[155.0, 23.0], [150.0, 30.0]], [[99.0, 99.0], [20.0, 9.0]]]
)
LABELS = torch.tensor([[1, 0], [1, 1], [0, 0]])


def _masks() -> torch.Tensor:
    y, x = torch.meshgrid(torch.arange(INPUT_SIZE), torch.arange(INPUT_SIZE), indexing="ij")
    radius = torch.stack([torch.hypot(x - 70.0 - 30 * k, y - 90.0) for k in range(3)])
    return (25 - radius).clamp(-5, 5)[:, None]


@pytest.fixture(scope="module")
def untrained() -> Nano:
    torch.manual_seed(0)
    return Nano().eval()


@pytest.fixture(scope="module")
def trained_like() -> Nano:
    """Random everywhere, the last layer too, so that nothing cancels."""
    torch.manual_seed(1)
    network = Nano().eval()
    torch.nn.init.normal_(network.region_net.head.weight, std=0.3)
    return network


@pytest.fixture(scope="module")
def image() -> torch.Tensor:
    return torch.rand(1, 3, INPUT_SIZE, INPUT_SIZE, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize(
    ("has_points", "has_box", "has_mask"),
    [kinds for kinds in itertools.product((False, True), repeat=3) if any(kinds)],
)
@pytest.mark.parametrize("multimask", [False, True])
def test_every_combination_of_prompts_gives_masks(
    trained_like: Nano, image: torch.Tensor, has_points: bool, has_box: bool, has_mask: bool, multimask: bool
) -> None:
    prompts = PromptBatch(
        points_xy=POINTS if has_points else None,
        point_labels=LABELS if has_points else None,
        boxes_xyxy=BOXES if has_box else None,
        mask_inputs=_masks() if has_mask else None,
    )
    with torch.inference_mode():
        decoded = trained_like.decode(trained_like.encode(image), prompts, multimask)
    count = 3 if multimask else 1
    assert decoded.low_res_logits.shape == (
        3,
        count,
        trained_like.mask_input_size,
        trained_like.mask_input_size,
    )
    assert decoded.iou_predictions.shape == (3, count)
    assert decoded.tokens.shape[:2] == (3, count)
    assert all(torch.isfinite(tensor).all() for tensor in decoded)
    assert ((decoded.iou_predictions >= 0) & (decoded.iou_predictions <= 1)).all()


def test_untrained_box_answer_is_the_inscribed_ellipse(untrained: Nano, image: torch.Tensor) -> None:
    with torch.inference_mode():
        decoded = untrained.decode(untrained.encode(image), PromptBatch(boxes_xyxy=BOXES), False)
    for logits, box in zip(decoded.low_res_logits[:, 0].numpy(), BOXES.numpy(), strict=True):
        assert dice(logits > 0, inscribed_ellipse(box, logits.shape)) > 0.97


def test_untrained_mask_answer_is_the_mask(untrained: Nano, image: torch.Tensor) -> None:
    with torch.inference_mode():
        decoded = untrained.decode(untrained.encode(image), PromptBatch(mask_inputs=_masks()), False)
    for logits, mask in zip(decoded.low_res_logits[:, 0], _masks()[:, 0], strict=True):
        assert dice(logits > 0, mask > 0) > 0.97


def test_untrained_click_answers_are_three_growing_discs_round_it(
    untrained: Nano, image: torch.Tensor
) -> None:
    prompts = PromptBatch(points_xy=torch.tensor([[[120.0, 90.0]]]), point_labels=torch.ones(1, 1))
    with torch.inference_mode():
        logits = untrained.decode(untrained.encode(image), prompts, True).low_res_logits[0]
    areas = [int((mask > 0).sum()) for mask in logits]
    assert 0 < areas[0] < areas[1] < areas[2]
    for mask in logits:
        rows, columns = np.nonzero((mask > 0).numpy())
        assert abs(columns.mean() - 120) < 0.5
        assert abs(rows.mean() - 90) < 0.5


def test_boxes_keep_the_edges_of_their_pixels_when_a_small_slice_is_enlarged(
    untrained: Nano, image: torch.Tensor
) -> None:
    # a slice of 64 px is shown at 256: the box of the pixels 10..19 covers 40..79 there
    prompts = PromptBatch(boxes_xyxy=torch.tensor([[40.0, 40.0, 76.0, 76.0]]), scale_xy=(4.0, 4.0))
    with torch.inference_mode():
        decoded = untrained.decode(untrained.encode(image), prompts, False)
    expected = inscribed_ellipse((40, 40, 79, 79), (INPUT_SIZE, INPUT_SIZE))
    assert dice(decoded.low_res_logits[0, 0] > 0, expected) > 0.98


def test_embedding_does_not_know_the_prompts(trained_like: Nano, image: torch.Tensor) -> None:
    with torch.inference_mode():
        first = trained_like.encode(image)
        copies = NanoFeatures(*(tensor.clone() for tensor in first))
        trained_like.decode(first, PromptBatch(boxes_xyxy=BOXES), False)
        again = trained_like.encode(image)
    for a, b, c in zip(first, copies, again, strict=True):
        assert a.shape[0] == 1
        assert torch.equal(a, b)
        assert torch.equal(a, c)


def test_many_prompts_at_once_equal_one_by_one(trained_like: Nano, image: torch.Tensor) -> None:
    with torch.inference_mode():
        features = trained_like.encode(image)
        together = trained_like.decode(features, PromptBatch(POINTS, LABELS, BOXES, _masks()), False)
        for i in range(3):
            one = PromptBatch(POINTS[i : i + 1], LABELS[i : i + 1], BOXES[i : i + 1], _masks()[i : i + 1])
            alone = trained_like.decode(features, one, False)
            for a, b in zip(together, alone, strict=True):
                torch.testing.assert_close(a[i : i + 1], b, rtol=1e-3, atol=1e-3)


def test_several_images_at_once_equal_one_by_one(trained_like: Nano) -> None:
    squares = torch.rand(2, 1, INPUT_SIZE, INPUT_SIZE, generator=torch.Generator().manual_seed(4))
    boxes = torch.cat([BOXES[:2], BOXES[1:]])  # two prompts on each image
    with torch.inference_mode():
        prompts = RegionPrompts.from_batch(PromptBatch(boxes_xyxy=boxes))
        together = trained_like.decode_regions(trained_like.encode(squares), prompts, prompts.region())
        for i in range(2):
            mine = RegionPrompts.from_batch(PromptBatch(boxes_xyxy=boxes[2 * i : 2 * i + 2]))
            alone = trained_like.decode_regions(trained_like.encode(squares[i : i + 1]), mine, mine.region())
            torch.testing.assert_close(together.logits[2 * i : 2 * i + 2], alone.logits, rtol=1e-3, atol=1e-3)


def test_weights_survive_a_round_trip_in_half_precision(trained_like: Nano, image: torch.Tensor) -> None:
    halves = {k: v.half() if v.is_floating_point() else v for k, v in trained_like.state_dict().items()}
    restored = Nano.from_state_dict(halves)
    assert not restored.training
    with torch.inference_mode():
        a = trained_like.decode(trained_like.encode(image), PromptBatch(boxes_xyxy=BOXES), False)
        b = restored.decode(restored.encode(image), PromptBatch(boxes_xyxy=BOXES), False)
    assert dice(a.low_res_logits > 0, b.low_res_logits > 0) > 0.99


def test_fused_network_is_the_same_function(trained_like: Nano, image: torch.Tensor) -> None:
    fused = Nano.from_state_dict(trained_like.state_dict()).fuse()
    with torch.inference_mode():
        a = trained_like.decode(trained_like.encode(image), PromptBatch(boxes_xyxy=BOXES), False)
        b = fused.decode(fused.encode(image), PromptBatch(boxes_xyxy=BOXES), False)
    torch.testing.assert_close(a.low_res_logits, b.low_res_logits, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("side", [12.0, 37.0, 48.0, 90.0, 200.0])
def test_resampling_keeps_constants_and_pasting_puts_them_back(side: float) -> None:
    region = Region(torch.tensor([[128.0, 120.0]]), torch.tensor([side]))
    sampled = resample(torch.full((1, 2, INPUT_SIZE, INPUT_SIZE), 0.7), region, 48)
    torch.testing.assert_close(sampled, torch.full((1, 2, 48, 48), 0.7))
    pasted = paste(torch.full((1, 48, 48), 3.0), region)[0]
    assert pasted[120, 128] == pytest.approx(3.0, abs=1e-4)
    assert pasted[0, 0] < -15
    assert float((pasted > 0).sum()) == pytest.approx(side**2, rel=0.25)


def test_prompt_without_any_part_is_refused() -> None:
    with pytest.raises(ValueError, match="needs points, boxes or mask"):
        RegionPrompts.from_batch(PromptBatch())
