"""Many clicks on one image: as if asked one by one, but only for masks that the model believes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from napari_sam_med.errors import DeviceMemoryError, ModelError, PromptError
from napari_sam_med.sam.architectures.base import PlainClickDecoder
from napari_sam_med.sam.click_answers import answer_clicks, enlarged
from napari_sam_med.sam.model_registry import MODELS
from napari_sam_med.sam.predictor import Predictor
from napari_sam_med.sam.prompts import Prompts
from tests.sam.micro_sam import MICRO_RECORD, random_image

POINTS = np.array([[10.0, 20], [90, 15], [40, 60], [100, 70], [55, 33]])


@pytest.fixture(scope="module")
def embedding(micro: Predictor) -> Any:
    return micro.embed(random_image(80, 120))


def gathered(answers: Any) -> tuple[Any, Any, Any]:
    """Clicks, predicted IoUs and logits of all batches."""
    given = list(answers)
    assert sum(one.n_clicks for one in given) == len(POINTS)
    return (
        np.concatenate([one.clicks for one in given]),
        np.concatenate([one.iou_predictions for one in given]),
        torch.cat([one.low_res_logits for one in given]).numpy(),
    )


def test_answers_are_those_of_single_clicks(micro: Predictor, embedding: Any) -> None:
    clicks, ious, logits = gathered(answer_clicks(micro, embedding, POINTS))
    single = [micro.predict(embedding, Prompts(points_xy=[point])) for point in POINTS]
    np.testing.assert_array_equal(clicks, np.repeat(np.arange(5), 3))
    np.testing.assert_allclose(
        ious, np.concatenate([one.iou_predictions for one in single]), rtol=1e-4, atol=1e-6
    )
    expected = np.concatenate([one.low_res_logits for one in single])
    assert expected.std() > 0.1
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4)
    masks = (enlarged(micro, embedding, torch.from_numpy(logits)) > 0).numpy()
    np.testing.assert_array_equal(masks, np.concatenate([one.masks for one in single]))


@pytest.mark.parametrize("at_once", [1, 2, 3, 64])
def test_masks_that_are_not_believed_are_left_out(micro: Predictor, embedding: Any, at_once: int) -> None:
    clicks, ious, logits = gathered(answer_clicks(micro, embedding, POINTS))
    limit = float(np.median(ious)) + 1e-5
    believed = ious > limit
    assert 3 <= believed.sum() < len(ious)
    some = gathered(answer_clicks(micro, embedding, POINTS, iou_above=limit, at_once=at_once))
    np.testing.assert_array_equal(some[0], clicks[believed])
    np.testing.assert_allclose(some[1], ious[believed], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(some[2], logits[believed], rtol=1e-4, atol=1e-4)
    nothing = gathered(answer_clicks(micro, embedding, POINTS, iou_above=9.0, at_once=at_once))
    assert [len(part) for part in nothing] == [0, 0, 0]


def test_any_network_answers(nano: Predictor) -> None:
    embedding = nano.embed(random_image(80, 120))
    clicks, ious, logits = gathered(answer_clicks(nano, embedding, POINTS, at_once=2))
    single = [nano.predict(embedding, Prompts(points_xy=[point])) for point in POINTS]
    np.testing.assert_array_equal(clicks, np.repeat(np.arange(5), 3))
    np.testing.assert_allclose(ious, np.concatenate([one.iou_predictions for one in single]), atol=1e-3)
    np.testing.assert_allclose(
        logits, np.concatenate([one.low_res_logits for one in single]), rtol=1e-2, atol=1e-2
    )


def test_points_lie_in_the_crop(micro: Predictor) -> None:
    image = random_image(80, 120)
    crop = micro.embed(image, crop_xyxy=(30, 10, 110, 70))
    alone = micro.embed(image[10:70, 30:110])
    points = np.array([[5.0, 6], [70, 50]])
    for ours, theirs in zip(
        answer_clicks(micro, crop, points), answer_clicks(micro, alone, points), strict=True
    ):
        np.testing.assert_array_equal(ours.low_res_logits.numpy(), theirs.low_res_logits.numpy())


def test_a_full_memory_halves_the_batch(
    micro: Predictor, embedding: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = gathered(answer_clicks(micro, embedding, POINTS, at_once=2))
    sizes: list[int] = []

    class Small(PlainClickDecoder):
        def decode(self, clicks: Any, iou_above: float) -> Any:
            sizes.append(len(clicks.points_xy))
            if sizes[-1] > 2:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return super().decode(clicks, iou_above)

    monkeypatch.setattr(
        type(micro.network), "click_decoder", lambda network, features: Small(network, features)
    )
    answers = gathered(answer_clicks(micro, embedding, POINTS, at_once=5))
    assert sizes == [5, 2, 2, 1]
    for mine, its in zip(answers, expected, strict=True):
        np.testing.assert_allclose(mine, its, rtol=1e-4, atol=1e-4)

    def full(decoder: Any, clicks: Any, iou_above: float) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(Small, "decode", full)
    with pytest.raises(DeviceMemoryError):
        list(answer_clicks(micro, embedding, POINTS))


def test_a_model_without_points_is_refused(micro: Predictor, embedding: Any) -> None:
    medsam = Predictor(micro.network, replace(MICRO_RECORD, title="MedSAM", accepts=MODELS["medsam"].accepts))  # type: ignore[arg-type]  # the protocol's module
    with pytest.raises(PromptError, match=r"MedSAM takes no points.* grid .*choose another model"):
        next(answer_clicks(medsam, embedding, POINTS))


def test_another_models_embedding_is_refused(micro: Predictor, embedding: Any) -> None:
    with pytest.raises(ModelError, match="another model"):
        next(answer_clicks(micro, replace(embedding, model_hash="f" * 64), POINTS))
