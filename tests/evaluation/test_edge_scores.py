"""BSDS500's four figures, by hand and by what must hold; and the detectors beside."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from scipy.optimize import linear_sum_assignment

from napari_sam_med.evaluation.edge_scores import (
    THRESHOLDS,
    EdgeCounts,
    EdgeMeter,
    canny_edges,
    count_edges,
    label_boundaries,
    score_edges,
    sobel_edges,
)

SHAPE = (60, 80)  # a diagonal of 100 pixels: a share of 0.01 is one pixel


def line(row, first=10, last=50):
    mask = np.zeros(SHAPE, dtype=bool)
    mask[row, first:last] = True
    return mask


def scored(edges, truth, reach_px=1.0):
    return score_edges([count_edges(edges.astype(np.float32), truth, reach_px / 100)])


def test_a_perfect_map_scores_one():
    truth = label_boundaries(np.pad(np.ones((20, 30), dtype=int), ((20, 20), (20, 30))))
    scores = scored(truth, truth, 0.75)
    assert (scores.ods, scores.ois, scores.r50) == (1.0, 1.0, 1.0)
    assert scores.ap is None  # two values make no curve
    graded = np.zeros(SHAPE)
    graded[truth] = np.linspace(0.02, 1, np.count_nonzero(truth))
    graded_scores = scored(graded, truth, 0.75)
    assert graded_scores.ods == 1.0
    assert graded_scores.ap == pytest.approx(1.0, abs=0.011)  # the recall of 0.01 needs one pixel in 100


@pytest.mark.parametrize(("shift", "score"), [(0, 1.0), (1, 1.0), (2, 1.0), (3, 0.0)])
def test_a_shift_counts_only_beyond_the_tolerance(shift, score):
    truth = line(20)
    scores = scored(line(20 + shift), truth, 2.0)
    assert (scores.ods, scores.ois) == (score, score)


def test_pixels_match_one_to_one():
    truth = line(20)
    found = line(19) | line(21)  # each within reach, and twice as many as there are
    counts = count_edges(found.astype(np.float32), truth, 0.01)
    assert counts.matched[0] == 40
    assert counts.found[0] == 80
    assert counts.true == 40
    assert score_edges([counts]).ods == pytest.approx(2 * 0.5 * 1 / 1.5)


def test_thick_edges_are_thinned_before_they_count():
    thick = line(19) | line(20) | line(21)
    counts = count_edges(thick.astype(np.float32), line(20), 0.01)
    assert counts.found[0] <= 40


def test_figures_of_a_case_counted_by_hand():
    thresholds = np.array([0.25, 0.5, 0.75])
    one = EdgeCounts(matched=np.array([8, 6, 2]), found=np.array([20, 8, 2]), true=10)
    other = EdgeCounts(matched=np.array([6, 1, 0]), found=np.array([6, 1, 0]), true=10)
    scores = score_edges([one, other], thresholds)
    # together: precision 14/26, 7/9, 1; recall 14/20, 7/20, 2/20
    f = [2 * p * r / (p + r) for p, r in ((14 / 26, 0.7), (7 / 9, 0.35), (1.0, 0.1))]
    assert scores.ods == pytest.approx(max(f))
    assert scores.threshold == 0.25
    # alone: the first is best at 0.5 (6 of 8, of 10), the other at 0.25 (6 of 6, of 10)
    assert scores.ois == pytest.approx(2 * 12 / (14 + 20))
    # precision falls from 1 at recall 0.1 to 7/9 at 0.35 and 14/26 at 0.7; 0 before and after
    levels = np.arange(1, 101) / 100
    first = (levels > 0.095) & (levels < 0.355)
    second = (levels > 0.355) & (levels < 0.705)
    curve = np.where(first, 1 - (levels - 0.1) * (2 / 9) / 0.25, 0)
    curve = np.where(second, 7 / 9 - (levels - 0.35) * (7 / 9 - 14 / 26) / 0.35, curve)
    assert scores.ap == pytest.approx(curve.mean())
    assert scores.r50 == pytest.approx(0.7)  # its precision never falls to one half


def test_recall_at_half_precision_is_interpolated():
    counts = EdgeCounts(matched=np.array([8, 6]), found=np.array([20, 10]), true=10)
    # precision 0.4 at recall 0.8, 0.6 at 0.6: one half lies in the middle
    assert score_edges([counts], np.array([0.3, 0.6])).r50 == pytest.approx(0.7)
    poor = EdgeCounts(matched=np.array([2, 1]), found=np.array([20, 10]), true=10)
    assert score_edges([poor], np.array([0.3, 0.6])).r50 == 0.0


def test_without_borders_there_is_no_score():
    counts = count_edges(np.zeros(SHAPE, dtype=np.float32), np.zeros(SHAPE, dtype=bool))
    assert score_edges([counts]) is None
    assert score_edges([]) is None
    empty = scored(np.zeros(SHAPE), line(5))
    assert (empty.ods, empty.ois, empty.ap, empty.r50) == (0.0, 0.0, None, 0.0)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.5, 4))
def test_the_matching_is_a_largest_one(seed, reach):
    rng = np.random.default_rng(seed)
    found, truth = (rng.random((20, 20)) < 0.06 for _ in range(2))
    counts = count_edges(found.astype(np.float32), truth, reach / float(np.hypot(20, 20)), np.array([0.5]))
    a, b = np.argwhere(found), np.argwhere(truth)  # so sparse that thinning takes little
    if counts.found[0] != len(a):
        return
    near = np.hypot(*(a[:, None] - b[None]).transpose(2, 0, 1)) <= reach
    rows, columns = linear_sum_assignment(near, maximize=True)
    assert counts.matched[0] == np.count_nonzero(near[rows, columns])


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000))
def test_a_wider_reach_never_lowers_a_score(seed):
    rng = np.random.default_rng(seed)
    edges = ndimage.gaussian_filter(rng.random(SHAPE), 1).astype(np.float32)
    edges = (edges - edges.min()) / (edges.max() - edges.min())
    truth = label_boundaries((ndimage.gaussian_filter(rng.normal(size=SHAPE), 6) > 0).astype(int))
    thresholds = THRESHOLDS[9::20]
    near, far = (count_edges(edges, truth, reach, thresholds) for reach in (0.01, 0.03))
    assert (far.matched >= near.matched).all()
    assert (near.matched <= np.minimum(near.found, near.true)).all()
    first, second = (score_edges([one], thresholds) for one in (near, far))
    assert second.ods >= first.ods
    assert first.ois >= first.ods - 1e-12  # of a single image both are its best


def test_borders_lie_where_labels_change():
    labels = np.zeros((8, 10), dtype=int)
    labels[:, 4:] = 2
    labels[:, 7:] = 5
    border = label_boundaries(labels)
    assert np.array_equal(np.unique(np.nonzero(border)[1]), [3, 6])
    assert not label_boundaries(np.full((5, 5), 3)).any()


def test_detectors_find_a_step_and_nothing_in_a_flat_image():
    grey = np.zeros((40, 50))
    grey[:, 25:] = 100
    for detector in (sobel_edges, canny_edges):
        edges = detector(grey)
        assert edges.dtype == np.float32
        assert set(np.nonzero(edges)[1].tolist()) <= {23, 24, 25}
        assert (np.count_nonzero(edges, axis=1) == 1).all()
        assert edges.max() > 0.98
        assert not detector(np.full((20, 20), 7.0)).any()


def test_canny_keeps_weak_edges_that_join_strong_ones():
    grey = np.zeros((60, 40))
    grey[:30, 20:] = 100
    grey[30:, 20:] = 50
    weak = np.zeros((60, 40))
    weak[30:, 20:] = 50
    weak[5:8, 5:8] = 100  # strong, but apart
    joined, apart = canny_edges(grey), canny_edges(weak)
    assert joined[50, 18:22].max() > 0.9
    assert apart[50, 18:22].max() < joined[50, 18:22].max()


def test_the_meter_lays_detectors_and_published_figures_beside():
    labels = np.zeros((40, 50), dtype=np.uint8)
    labels[10:30, 10:40] = 3
    image = np.repeat((labels * 60).astype(np.uint8)[..., None], 3, axis=2)
    meter = EdgeMeter("mine")
    assert not meter.add(np.zeros((40, 50), dtype=np.float32), image, np.zeros_like(labels))
    assert meter.add(label_boundaries(labels).astype(np.float32), image, labels)
    summary = meter.summary()
    assert summary["slices"] == 1
    wide = summary["max_distance"]["0.011"]
    assert wide["pixels"] == [0.7]
    assert set(wide) == {"pixels", "mine", "canny", "sobel"}
    assert wide["mine"]["ods"] == 1.0
    assert summary["published"]["BSDS500"]["SAM (ViT-H)"] == {
        "ods": 0.768,
        "ois": 0.786,
        "ap": 0.794,
        "r50": 0.928,
    }
    assert summary["published"]["BSDS500"]["Sobel filter"]["ois"] is None
