"""An outline reaches a model as a box and, where it takes masks, as a filled area."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.testing as npt
import pytest

from napari_sam_med.errors import PromptError
from napari_sam_med.sam.mask_prompts import logits_of_mask, outline_as_box_and_mask
from napari_sam_med.sam.outlines import mask_of_outline
from napari_sam_med.sam.predictor import Predictor
from napari_sam_med.sam.prompts import Prompts
from tests.sam.micro_sam import MICRO_RECORD, build_micro_sam, predictor_over, random_image
from tests.sam.test_outlines import circle
from tests.sam.test_predictor import disc

SHAPE = (40, 60)


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return 2 * np.count_nonzero(a & b) / (np.count_nonzero(a) + np.count_nonzero(b))


def test_an_outline_becomes_its_box_and_its_area(micro: Predictor) -> None:
    embedding = micro.embed(random_image(*SHAPE))
    outline = np.array([(10, 5), (30, 5), (30, 25), (10, 25)], np.float32)
    asked = outline_as_box_and_mask(Prompts.from_outline(outline), embedding, micro)
    assert asked.kinds == {"box", "mask"}
    assert asked.box_xyxy.tolist() == [10, 5, 30, 25]
    npt.assert_array_equal(
        asked.mask_input, logits_of_mask(mask_of_outline(outline, SHAPE), embedding, micro)
    )


def test_a_box_and_a_mask_that_were_given_stay_and_so_do_points(micro: Predictor) -> None:
    embedding = micro.embed(random_image(*SHAPE))
    drawn = Prompts([[15, 15], [2, 2]], [1, 0], (8, 8, 40, 30), outline_xy=circle(20, 15, 9))
    asked = outline_as_box_and_mask(drawn, embedding, micro)
    assert asked.box_xyxy.tolist() == [8, 8, 40, 30]
    assert asked.point_labels.tolist() == [1, 0]
    assert asked.kinds == {"point", "box", "mask"}
    logits = np.full((32, 32), -3.0, np.float32)
    given = outline_as_box_and_mask(drawn.replace(mask_input=logits), embedding, micro)
    npt.assert_array_equal(given.mask_input, logits)
    plain = Prompts.from_box((1, 1, 5, 5))
    assert outline_as_box_and_mask(plain, embedding, micro) is plain


def test_a_model_of_boxes_is_asked_the_box() -> None:
    boxes_only = predictor_over(
        build_micro_sam(), replace(MICRO_RECORD, accepts=frozenset({"box"}), multimask=False)
    )
    embedding = boxes_only.embed(random_image(*SHAPE))
    by_outline = boxes_only.predict(embedding, Prompts.from_outline(circle(30, 20, 10)))
    by_box = boxes_only.predict(embedding, Prompts.from_box((20, 10, 40, 30)))
    assert by_outline.masks.shape == (1, *SHAPE)
    npt.assert_allclose(by_outline.low_res_logits, by_box.low_res_logits, atol=0.02)


def test_the_part_outside_the_slice_is_cut_off(micro: Predictor) -> None:
    embedding = micro.embed(random_image(*SHAPE))
    asked = outline_as_box_and_mask(Prompts.from_outline(circle(58, 1, 10)), embedding, micro)
    npt.assert_allclose(asked.box_xyxy, [48, 0, 59, 11], atol=0.05)
    with pytest.raises(PromptError, match=r"outline .* outside the image of 60 x 40"):
        micro.predict(embedding, Prompts.from_outline(circle(90, 20, 10)))


def test_an_outline_between_pixel_centres_is_asked_as_its_box_alone(micro: Predictor) -> None:
    embedding = micro.embed(random_image(*SHAPE))
    sliver = Prompts.from_outline([(10.2, 5), (10.4, 5), (10.4, 9), (10.2, 9)])
    assert outline_as_box_and_mask(sliver, embedding, micro).kinds == {"box"}


def test_boxes_and_outlines_are_answered_together_in_their_order(micro: Predictor) -> None:
    embedding = micro.embed(random_image(200, 260))
    prompts = [
        Prompts.from_outline(circle(90, 80, 30)),
        Prompts.from_box((40, 50, 120, 140)),
        Prompts([[9, 9]]),
    ]
    together = micro.predict_batch(embedding, prompts)
    for one, prompt in zip(together, prompts, strict=True):
        npt.assert_allclose(one.low_res_logits, micro.predict(embedding, prompt).low_res_logits, atol=1e-4)


@pytest.mark.parametrize("crop", [None, (80, 20, 230, 170)])
def test_nano_finds_a_disc_in_a_lasso(nano: Predictor, crop: tuple[int, ...] | None) -> None:
    truth = disc()[..., 0] > 100
    embedding = nano.embed(disc(), crop_xyxy=crop)
    mask = nano.predict(embedding, Prompts.from_outline(circle(150, 90, 42))).best_mask
    assert dice(mask, truth) > 0.9
