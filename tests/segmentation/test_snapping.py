"""Snapping: a threshold stands in for the network, so that the right border is known."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from napari_sam_med import SliceView, Volume, propagate
from napari_sam_med.errors import ModelError
from napari_sam_med.segmentation.snapping import SnappingPropagator
from napari_sam_med.volume.grid import Grid


class ThresholdPredictor:
    """Answers with the bright pixels inside the box, or with what it is told to."""

    accepts = frozenset({"box", "mask"})
    network = SimpleNamespace(input_size=64, mask_input_size=32)

    def __init__(self, answer=None):
        self.prompts = []
        self.answer = answer

    def predict(self, embedding, prompts, multimask=None, *, direct_upsampling=False):
        self.prompts.append(prompts)
        x0, y0, x1, y1 = prompts.box_xyxy.astype(int)
        mask = np.zeros(embedding.image.shape[:2], dtype=bool)
        mask[y0 : y1 + 1, x0 : x1 + 1] = embedding.image[y0 : y1 + 1, x0 : x1 + 1, 0] > 100
        if self.answer is not None:
            mask = self.answer
        return SimpleNamespace(
            best_mask=mask,
            best_index=0,
            iou_predictions=np.array([0.9]),
            stability_scores=np.array([0.8]),
            best_low_res_logits=np.full((32, 32), 2.0, dtype=np.float32),
        )


class ImageStore:
    """Keeps the image itself as the embedding."""

    def get_or_embed(self, predictor, image, pixel_spacing=(1.0, 1.0), crop_xyxy=None):
        return SimpleNamespace(image=image, input_size=(64, 64), crop_xyxy=None)


@pytest.fixture
def bump():
    """A bright block whose right side bulges by three pixels between slices 2 and 8."""
    data = np.zeros((11, 64, 64), dtype=np.uint8)
    for z in range(11):
        data[z, 20:44, 16 : 40 + (3 if 2 < z < 8 else 0)] = 200
    return Volume(data, Grid.from_zyx(data.shape, (3.0, 1.0, 1.0)))


def snap(volume, predictor, **options):
    keys = {SliceView("axial", z): volume.data[z] > 100 for z in (2, 8)}
    options = {"window": (0.0, 255.0), "store": ImageStore(), "box_margin": 0.2} | options
    engine = SnappingPropagator()
    return list(propagate(volume, {1: (6, {})}, predictor, engine=engine, masks={1: keys}, **options))


def test_borders_are_those_of_the_image(bump):
    done = snap(bump, ThresholdPredictor())
    assert sorted(d.view.index for d in done) == list(range(2, 9))
    for d in done:
        assert np.array_equal(d.mask, bump.data[d.view.index] > 100)
    inner = [d for d in done if d.direction != "key"]
    assert {d.source for d in inner} == {"propagated"}
    assert all(d.logits is not None and d.iou_prediction == pytest.approx(0.9) for d in inner)
    assert all(d.quality == pytest.approx(np.cbrt(0.9 * 0.8 * 24 / 27)) for d in inner)


def test_the_model_is_asked_with_box_and_logits_of_the_interpolation(bump):
    predictor = ThresholdPredictor()
    snap(bump, predictor, box_margin=0.0)
    assert len(predictor.prompts) == 5  # key masks are not asked for
    for prompts in predictor.prompts:
        assert prompts.box_xyxy.tolist() == [16, 20, 39, 43]
        assert prompts.mask_input is not None
        assert prompts.mask_input[16, 14] > 0 > prompts.mask_input[2, 2]


def test_where_the_model_disagrees_the_interpolation_stays(bump):
    elsewhere = np.zeros((64, 64), dtype=bool)
    elsewhere[:8, :8] = True
    inner = [d for d in snap(bump, ThresholdPredictor(elsewhere)) if d.direction != "key"]
    assert {d.source for d in inner} == {"interpolated"}
    assert all(np.array_equal(d.mask, bump.data[2] > 100) for d in inner)
    assert all(d.logits is None and 0 < d.quality < 1 for d in inner)


def test_how_much_must_agree_is_an_option(bump):
    kept = [d.source for d in snap(bump, ThresholdPredictor(), min_overlap=0.95) if d.direction != "key"]
    assert set(kept) == {"interpolated"}


def test_it_needs_a_model_that_takes_boxes(bump):
    with pytest.raises(ModelError, match="needs a model"):
        snap(bump, None)
