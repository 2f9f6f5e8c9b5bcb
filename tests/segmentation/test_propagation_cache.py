"""Gaps that were filled before: what a changed key slice, click or lock does again, and what not."""

from __future__ import annotations

import numpy as np

from napari_sam_med import Prompts, SliceView, propagate
from napari_sam_med.segmentation.propagation_cache import PropagationCache
from tests.segmentation.threshold_model import (
    BOX,
    WINDOW,
    ImageStore,
    ThresholdPredictor,
    carried,
    run,
    volume_of,
)


def test_a_changed_key_slice_redoes_only_the_gaps_beside_it(rod):
    cache = PropagationCache()
    keys = {5: BOX, 8: BOX, 11: BOX, 14: BOX}
    whole, predictor = run(rod, keys, cache=cache)
    n_decodes = len(predictor.prompts)
    again, predictor = run(rod, keys, cache=cache)
    assert not predictor.prompts
    assert {(d.view, d.mask.tobytes(), d.source, d.reason) for d in again} == {
        (d.view, d.mask.tobytes(), d.source, d.reason) for d in whole
    }
    changed, predictor = run(rod, {**keys, 8: (4, 6, 14, 20)}, cache=cache)
    redone = {6, 7, 9, 10}
    assert predictor.prompts
    assert len(predictor.prompts) - 1 <= 1.1 * n_decodes * len(redone) / (16 - 4)  # 1: the key slice
    unchanged = {d.view.index: d.mask.tobytes() for d in whole if d.view.index not in redone | {8}}
    assert unchanged == {d.view.index: d.mask.tobytes() for d in changed if d.view.index not in redone | {8}}


def test_a_run_that_was_cancelled_is_not_remembered(rod):
    cache = PropagationCache()
    predictor = ThresholdPredictor()
    objects = {1: (6, {SliceView("axial", 10): Prompts.from_box(BOX)})}
    job = propagate(rod, objects, predictor, window=WINDOW, store=ImageStore(), cache=cache)
    next(job)
    next(job)
    job.close()
    assert len(cache) == 0


def test_a_new_click_on_background_redoes_the_gaps_within_its_reach(rod):
    cache = PropagationCache()
    views = [SliceView("axial", z) for z in (5, 10, 14)]
    masks = {1: {view: rod.data[view.index] > 100 for view in views}}
    carried(rod, {1: (6, {})}, cache, masks=masks)
    _, n_again = carried(rod, {1: (6, {})}, cache, masks=masks)
    clicked = {1: (6, {views[0]: Prompts.from_points([(30, 30)], [0])})}
    done, n_redone = carried(rod, clicked, cache, masks=masks)
    fresh, n_fresh = carried(rod, clicked, None, masks=masks)
    assert n_again == 0
    assert 0 < n_redone < n_fresh  # not the slices beyond 10
    assert {(d.view, d.mask.tobytes()) for d in done} == {(d.view, d.mask.tobytes()) for d in fresh}


def test_locked_voxels_redo_only_the_gaps_that_they_lie_in(rod):
    cache = PropagationCache()
    masks = {1: {SliceView("axial", z): rod.data[z] > 100 for z in (5, 10, 14)}}
    locked = np.zeros(rod.shape, dtype=bool)
    carried(rod, {1: (6, {})}, cache, masks=masks, locked=locked.copy())
    locked[12, 8:12] = True
    done, n_redone = carried(rod, {1: (6, {})}, cache, masks=masks, locked=locked)
    assert n_redone <= 2 * 3  # slices 11 to 13, each asked at most twice more
    assert not any((d.mask & locked[d.view.index]).any() for d in done if d.direction != "key")


def test_what_one_object_lost_to_another_is_not_remembered():
    data = np.zeros((6, 32, 64), dtype=np.uint8)
    data[:, 8:24, 4:50] = 200
    volume, view = volume_of(data), SliceView("axial", 2)
    left = (6, {view: Prompts.from_box((2, 6, 30, 26))})
    right = (3, {view: Prompts.from_box((25, 6, 52, 26))})
    cache = PropagationCache()
    carried(volume, {1: left, 2: right}, cache)
    for one in (left, right):
        alone, _ = carried(volume, {1: one}, cache)
        fresh, _ = carried(volume, {1: one}, None)
        assert {(d.view, d.mask.tobytes()) for d in alone} == {(d.view, d.mask.tobytes()) for d in fresh}


def test_what_is_done_to_a_key_mask_is_not_remembered(rod):
    cache = PropagationCache()
    drawn = rod.data[10] > 100
    masks = {1: {SliceView("axial", 10): drawn}}
    first, _ = carried(rod, {1: (6, {})}, cache, masks=masks)
    key = next(done for done in first if done.direction == "key")
    truth = drawn.copy()
    key.mask[:] = False
    again, _ = carried(rod, {1: (6, {})}, cache, masks={1: {SliceView("axial", 10): truth}})
    assert (next(done for done in again if done.direction == "key").mask == truth).all()
    other = truth & (np.arange(truth.shape[1]) % 2 == 0)
    changed, n_asked = carried(rod, {1: (6, {})}, cache, masks={1: {SliceView("axial", 10): other}})
    assert (next(done for done in changed if done.direction == "key").mask == other).all()
    assert n_asked
