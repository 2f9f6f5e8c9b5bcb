"""Slices vote, each organ is used once, and a kidney's side is where it lies."""

from __future__ import annotations

import numpy as np
import pytest

from napari_sam_med.segmentation.organ_vote import (
    OTHER,
    assign_once,
    effective_votes,
    put_on_own_side,
    vote,
)

ORGANS = ("liver", "right kidney", "left kidney", OTHER)


def _log(*rows: tuple[float, ...]) -> np.ndarray:
    table = np.array(rows, dtype=float)
    return np.log(table / table.sum(axis=1, keepdims=True))


def test_large_and_good_slices_outvote_small_and_poor_ones() -> None:
    table = _log((0.8, 0.2), (0.2, 0.8), (0.2, 0.8))
    assert vote(table, [400, 400, 400], [1, 1, 1], rho=0.2).argmax() == 1
    assert vote(table, [9000, 100, 100], [1, 1, 1], rho=0.2).argmax() == 0
    assert vote(table, [400, 400, 400], [1, 0.1, 0.1], rho=0.2).argmax() == 0


def test_slices_that_fail_together_make_nobody_surer() -> None:
    table = _log(*[(0.7, 0.3)] * 10)
    ones = np.ones(10)
    sure = [np.exp(vote(table, ones, ones, rho=rho)).max() for rho in (0.0, 0.3, 1.0)]
    assert sure[0] == pytest.approx(0.7**10 / (0.7**10 + 0.3**10))
    assert sure[0] > sure[1] > sure[2]
    assert sure[2] == pytest.approx(0.7)
    assert effective_votes(10, 0.3) == pytest.approx(10 / 3.7)
    assert np.exp(vote(table, ones, ones, rho=0.3)).sum() == pytest.approx(1)


def test_no_organ_is_given_twice_but_other_is() -> None:
    table = _log((0.9, 0.05, 0.03, 0.02), (0.6, 0.3, 0.05, 0.05), (0.1, 0.1, 0.1, 0.7), (0.1, 0.1, 0.1, 0.7))
    assert assign_once(table, ORGANS) == [0, 1, 3, 3]
    assert assign_once(table[:1], ORGANS) == [0]


def test_more_objects_than_organs_keep_their_best_guess() -> None:
    table = _log((0.9, 0.1), (0.2, 0.8), (0.7, 0.3))
    assert assign_once(table, ("liver", "spleen")) == [0, 1, 0]


def test_a_kidney_on_the_left_is_the_left_one() -> None:
    row = _log((0.1, 0.6, 0.2, 0.1))[0]
    left = np.exp(put_on_own_side(row, ORGANS, 0.7))
    assert left.argmax() == 2
    assert left[2] == pytest.approx(0.8, abs=1e-6)
    assert left[0] == pytest.approx(0.1, abs=1e-6)
    assert np.exp(put_on_own_side(row, ORGANS, 0.3)).argmax() == 1
    np.testing.assert_allclose(put_on_own_side(row, ORGANS, 0.52), row, atol=1e-9)
