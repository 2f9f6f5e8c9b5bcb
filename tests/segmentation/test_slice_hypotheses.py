"""Prompts for a slice: what is asked next when an answer is not believed."""

from __future__ import annotations

import numpy as np
import pytest

from napari_sam_med import Prompts, SliceView, propagate
from napari_sam_med.segmentation.slice_hypotheses import Hypotheses
from tests.segmentation.threshold_model import WINDOW, ImageStore, ThresholdPredictor, volume_of

VIEW = SliceView("axial", 3)


@pytest.fixture
def expected():
    mask = np.zeros((40, 60), dtype=bool)
    mask[10:30, 10:30] = True
    return mask


def hypotheses(predictor=None, **options):
    volume = volume_of(np.zeros((8, 40, 60)))
    return Hypotheses(volume, predictor or ThresholdPredictor(), {}, [], 0.0, "box", **options)


def background_clicks(prompts):
    return [xy.tolist() for p in prompts for xy in p.points_xy[p.point_labels == 0]]


def test_a_leak_is_answered_with_a_background_click_in_its_middle(expected):
    answer = expected.copy()
    answer[15:26, 30:51] = True  # out of the right side
    tried = hypotheses().others(VIEW, expected, None, answer)
    [(x, y)] = background_clicks(tried)
    assert answer[int(y), int(x)]
    assert not expected[int(y), int(x)]
    assert y == 20  # halfway between the walls of the leak
    assert 35 <= x <= 45


def test_a_border_drawn_a_little_wider_is_no_leak(expected):
    answer = np.zeros_like(expected)
    answer[9:31, 9:31] = True
    assert not background_clicks(hypotheses().others(VIEW, expected, None, answer))


def test_no_leak_no_background_click(expected):
    assert not background_clicks(hypotheses().others(VIEW, expected, None, expected))
    assert not background_clicks(hypotheses().others(VIEW, expected, None, np.zeros_like(expected)))


def test_a_model_that_takes_boxes_alone_is_asked_by_box(expected):
    predictor = ThresholdPredictor()
    predictor.accepts = frozenset({"box"})
    answer = np.ones_like(expected)
    [only] = hypotheses(predictor).others(VIEW, expected, None, answer)
    assert only.kinds == {"box"}


def test_background_clicks_can_be_left_out(expected):
    answer = np.ones_like(expected)
    assert not background_clicks(hypotheses(stop_leaks=False).others(VIEW, expected, None, answer))


class LeakingPredictor(ThresholdPredictor):
    """Fills all bright pixels of the slice, whatever the box, unless a click says that it went too far."""

    def predict(self, embedding, prompts, multimask=None, *, direct_upsampling=False):
        told = (prompts.point_labels == 0).any()
        answer = super().predict(embedding, prompts)
        if not told:
            answer.best_mask = embedding.image[..., 0] > 100
        return answer


@pytest.mark.parametrize(("stop_leaks", "reached"), [(True, 9), (False, 5)])
def test_propagation_goes_on_past_a_leak_that_a_click_stops(stop_leaks, reached):
    data = np.zeros((10, 40, 60), dtype=np.uint8)
    data[:, 10:30, 10:30] = 200
    data[6:, 5:35, 30:60] = 200  # a neighbour of the same brightness begins to touch
    predictor = LeakingPredictor()
    objects = {1: (1, {SliceView("axial", 2): Prompts.from_box((10, 10, 29, 29))})}
    done = list(
        propagate(
            volume_of(data),
            objects,
            predictor,
            window=WINDOW,
            store=ImageStore(),
            stop_leaks=stop_leaks,
            most_bridged=0,
        )
    )
    filled = [d for d in done if d.mask.any()]
    assert max(d.view.index for d in filled) == reached
    assert all(np.array_equal(d.mask, data[0] > 100) for d in filled)
