"""A slice to the network and back, with the bundled model."""

from __future__ import annotations

from importlib.resources import files
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from napari_sam_med import Prompts, SliceView, Volume, load_predictor, read_labels, read_volume
from napari_sam_med.sam.embedding_store import EmbeddingStore
from napari_sam_med.segmentation.slicewise import (
    box_of_mask,
    corrected_prompts,
    embed_slice,
    logits_of_mask,
    predict_slice,
    prompts_for_model,
)
from napari_sam_med.volume.grid import Grid


@pytest.fixture(scope="module")
def nano():
    return load_predictor("nano", device="cpu")


@pytest.fixture(scope="module")
def ball():
    """A bright ball of radius 16 mm in a dark box, 4 mm slices of 1 mm pixels."""
    z, y, x = np.mgrid[:12, :80, :96]
    distance = np.sqrt(((z - 6) * 4.0) ** 2 + (y - 40.0) ** 2 + (x - 50.0) ** 2)
    data = np.where(distance < 16, 150, -50).astype(np.int16)
    return Volume(data, Grid.from_zyx(data.shape, (4.0, 1.0, 1.0)))


@given(st.integers(0, 19), st.integers(0, 19), st.integers(1, 12), st.integers(1, 12))
def test_box_of_mask_is_tangent(top, left, height, width):
    mask = np.zeros((32, 32), dtype=bool)
    mask[top : top + height, left : left + width] = True
    assert box_of_mask(mask) == (left, top, left + width - 1, top + height - 1)


@given(st.integers(0, 31), st.integers(0, 31), st.floats(0, 0.5))
def test_widened_box_holds_the_tight_one_and_stays_inside(row, column, margin):
    mask = np.zeros((32, 32), dtype=bool)
    mask[row, column] = mask[16, 16] = True
    x0, y0, x1, y1 = box_of_mask(mask)
    wide = box_of_mask(mask, margin)
    assert 0 <= wide[0] <= x0 <= x1 <= wide[2] <= 31
    assert 0 <= wide[1] <= y0 <= y1 <= wide[3] <= 31
    assert wide[0] == 0 or x0 - wide[0] == pytest.approx(margin * (x1 - x0 + 1))


def test_predicts_a_slice_in_its_own_pixels(nano, ball):
    view = SliceView("axial", 6)
    prediction = predict_slice(ball, view, Prompts.from_box((34, 24, 66, 56)), nano, window=(-100, 200))
    truth = view.extract(ball.data) > 0
    assert prediction.best_mask.shape == (80, 96)
    overlap = np.count_nonzero(prediction.best_mask & truth) / np.count_nonzero(prediction.best_mask | truth)
    assert overlap > 0.8


def test_store_answers_the_second_time(nano, ball):
    store = EmbeddingStore(None, memory_bytes=2**26)
    calls = []

    class Counting:
        def __getattr__(self, name):
            return getattr(nano, name)

        def embed(self, *args, **kwargs):
            calls.append(args)
            return nano.embed(*args, **kwargs)

    for window in ((-100.0, 200.0), (-100.0, 200.0), (0.0, 100.0)):
        embed_slice(ball, SliceView("axial", 6), Counting(), window=window, store=store)
    assert len(calls) == 2, "the same window is answered from the store, another one is not"


def test_logits_of_a_drawn_mask_follow_its_outline(nano, ball):
    view = SliceView("coronal", 40)
    mask = view.extract(ball.data) > 0
    embedding = embed_slice(ball, view, nano, window=(-100, 200))
    logits = logits_of_mask(mask, embedding, nano)
    side = nano.network.mask_input_size
    assert logits.shape == (side, side)
    height, width = (round(n * side / nano.network.input_size) for n in embedding.input_size)
    share = (logits[:height, :width] > 0).mean()
    assert share == pytest.approx(mask.mean(), rel=0.15)
    assert (logits[height:] < 0).all()
    assert (logits[:, width:] < 0).all()
    assert np.abs(logits).max() <= 8


def test_a_drawn_mask_as_prompt_gives_about_that_mask(nano, ball):
    view = SliceView("axial", 6)
    mask = view.extract(ball.data) > 0
    embedding = embed_slice(ball, view, nano, window=(-100, 200))
    prompts = Prompts(box_xyxy=box_of_mask(mask), mask_input=logits_of_mask(mask, embedding, nano))
    found = nano.predict(embedding, prompts).best_mask
    assert np.count_nonzero(found & mask) / np.count_nonzero(found | mask) > 0.8


def test_the_mask_is_left_out_for_a_model_that_does_not_take_it():
    prompts = Prompts(box_xyxy=(1, 2, 3, 4), mask_input=np.zeros((8, 8)))
    boxes_only = SimpleNamespace(accepts=frozenset({"box"}))
    everything = SimpleNamespace(accepts=frozenset({"box", "point", "mask"}))
    assert prompts_for_model(prompts, boxes_only).kinds == {"box"}
    assert prompts_for_model(prompts, everything) is prompts


def test_an_outline_under_a_correction_says_how_far_the_object_reaches(nano, ball):
    view = SliceView("axial", 6)
    mask = view.extract(ball.data) > 0
    embedding = embed_slice(ball, view, nano, window=(-100, 200))
    outline = [(30, 20), (70, 22), (68, 60), (32, 58)]
    given = Prompts([(50, 40)], outline_xy=outline)
    corrected = corrected_prompts(given, mask, embedding, nano)
    assert corrected.kinds == {"point", "box", "mask"}
    assert corrected.box_xyxy.tolist() == [30, 20, 70, 60]
    beyond = given.replace(outline_xy=[(-40, 20), (70, 22), (68, 160), (-30, 58)])
    assert corrected_prompts(beyond, mask, embedding, nano).box_xyxy.tolist() == [0, 20, 70, 79]
    without = corrected_prompts(Prompts([(50, 40)], None, (30, 20, 70, 60)), mask, embedding, nano)
    assert np.array_equal(corrected.mask_input, without.mask_input), "the mask is the one to correct"


def dice(a, b):
    return 2 * np.count_nonzero(a & b) / (np.count_nonzero(a) + np.count_nonzero(b))


def disc(shape, xy, radius):
    rows, columns = np.indices(shape)
    return np.hypot(columns - xy[0], rows - xy[1]) < radius


@pytest.fixture(scope="module")
def liver():
    """The sample scan, its slice with the most liver, and the liver there."""
    folder = files("napari_sam_med") / "sample_data"
    scan = read_volume(folder / "abdomen_phantom.nii.gz")
    truth = read_labels(folder / "abdomen_phantom_labels.nii.gz", reference=scan).data == 6
    view = SliceView("axial", int(truth.sum(axis=(1, 2)).argmax()))
    return scan, view, view.extract(truth)


def test_one_minus_click_takes_a_leak_away_and_keeps_the_rest(nano, liver):
    scan, view, truth = liver
    rows, columns = np.nonzero(truth)
    row = int(np.median(rows))
    edge = int(columns[rows == row].max())
    leaked = truth | disc(truth.shape, (edge + 10, row), 13)
    click = Prompts.from_points([(edge + 15, row)], [0])
    embedding = embed_slice(scan, view, nano)
    found = nano.predict(embedding, corrected_prompts(click, leaked, embedding, nano)).best_mask
    assert dice(found, truth) > dice(leaked, truth) + 0.01
    assert not found[row, edge + 15]
    assert np.count_nonzero(found & truth) > 0.9 * np.count_nonzero(truth)
    assert dice(nano.predict(embedding, click).best_mask, truth) < 0.5, "the click alone says nothing"


def test_one_plus_click_adds_a_missing_part_and_keeps_the_rest(nano, liver):
    scan, view, truth = liver
    left, _, right, _ = box_of_mask(truth)
    cut = truth & (np.arange(truth.shape[1]) > left + 0.35 * (right - left))
    missing = ndimage.distance_transform_edt(truth & ~cut)
    y, x = np.unravel_index(missing.argmax(), missing.shape)
    click = Prompts.from_points([(x, y)])
    embedding = embed_slice(scan, view, nano)
    found = nano.predict(embedding, corrected_prompts(click, cut, embedding, nano)).best_mask
    assert dice(found, truth) > dice(cut, truth) + 0.02
    assert found[y, x]
    assert np.count_nonzero(found & cut) > 0.9 * np.count_nonzero(cut)


def test_a_correction_holds_mask_and_clicks_or_the_box_of_the_user(nano, ball):
    embedding = embed_slice(ball, SliceView("axial", 6), nano, window=(-100, 200))
    mask = np.zeros((80, 96), dtype=bool)
    mask[20:31, 30:51] = True
    clicks = Prompts.from_points([(60, 25), (90, 70)], [1, 0])
    asked = corrected_prompts(clicks, mask, embedding, nano)
    assert asked.box_xyxy.tolist() == [30, 20, 60, 30]
    assert asked.mask_input is not None
    own = corrected_prompts(clicks.replace(box_xyxy=(1, 2, 3, 4)), mask, embedding, nano)
    assert own.box_xyxy.tolist() == [1, 2, 3, 4]
    maskless = SimpleNamespace(accepts=frozenset({"box", "point"}), network=nano.network)
    assert corrected_prompts(clicks, mask, embedding, maskless).kinds == {"box", "point"}
    assert corrected_prompts(clicks, np.zeros_like(mask), embedding, nano) is clicks
