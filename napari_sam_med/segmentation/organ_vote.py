"""From the slices of an object to the object: a weighted vote, each organ once, left and right by place."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment

__all__ = ["OTHER", "assign_once", "effective_votes", "put_on_own_side", "vote"]

Floats = npt.NDArray[np.float64]

OTHER = "other"
"""Name of what is none of a classifier's organs."""
_SIDES = (("right kidney", "left kidney"), ("right adrenal", "left adrenal"))
_CLEARLY = 0.06
"""Share of the body's width from its middle where a side is beyond doubt."""
_LEAST_QUALITY = 0.05


def effective_votes(n: int, rho: float) -> float:
    """How many independent slices n slices are worth whose errors correlate by ``rho``: n / (1 + (n-1) rho).

    Kish's effective sample size for clusters (Survey Sampling, 1965).
    """
    return n / (1 + (n - 1) * rho)


def vote(
    log_probabilities: npt.ArrayLike, areas: npt.ArrayLike, qualities: npt.ArrayLike, *, rho: float
) -> Floats:
    """Log-probabilities of an object from those of its slices.

    Slices weigh sqrt(area) times quality. Were the slices independent, their log-probabilities would add up;
    they fail together, so the sum is divided by the temperature n / n_eff.

    Parameters
    ----------
    log_probabilities : array-like (n, C)
    areas, qualities : array-like (n,)
        Areas in any unit; qualities 0..1.
    rho : float
        Correlation of the errors of two slices of one object, 0..1.

    Returns
    -------
    ndarray (C,) float64
    """
    votes = np.asarray(log_probabilities, dtype=np.float64)
    weights = np.sqrt(np.asarray(areas, dtype=np.float64))
    weights = weights * np.maximum(np.asarray(qualities, dtype=np.float64), _LEAST_QUALITY)
    temperature = len(votes) / effective_votes(len(votes), rho)
    total = (weights / weights.mean()) @ votes / temperature
    return _normalised(total)


def put_on_own_side(log_probabilities: npt.ArrayLike, organs: Sequence[str], centre_x: float) -> Floats:
    """Log-probabilities (C,) with those of a paired organ's wrong side given to its right side.

    Parameters
    ----------
    log_probabilities : array-like (C,)
    organs : sequence of str
        Names of the classes.
    centre_x : float
        Centroid of the object, 0 at the body's right border and 1 at its left one. Near the middle nothing is
        changed.
    """
    probabilities = np.exp(np.asarray(log_probabilities, dtype=np.float64))
    if abs(centre_x - 0.5) > _CLEARLY:
        for right, left in _SIDES:
            if right in organs and left in organs:
                pair = (organs.index(right), organs.index(left))
                own, wrong = pair if centre_x < 0.5 else pair[::-1]
                probabilities[own] += probabilities[wrong]
                probabilities[wrong] = 0.0
    return _normalised(np.log(np.maximum(probabilities, 1e-12)))


def assign_once(log_probabilities: npt.ArrayLike, organs: Sequence[str]) -> list[int]:
    """Class of each of K objects of one scan so that no organ but `OTHER` is used twice.

    The assignment with the largest sum of log-probabilities (K, C); objects beyond the number of organs are
    `OTHER`, or, for a classifier without it, their own best guess.
    """
    table = np.asarray(log_probabilities, dtype=np.float64).reshape(-1, len(organs))
    columns = list(range(len(organs)))
    if OTHER in organs:
        other = list(organs).index(OTHER)
        columns += [other] * (len(table) - 1)
    rows, chosen = linear_sum_assignment(-table[:, columns])
    found = table.argmax(axis=1).tolist()
    for row, column in zip(rows.tolist(), chosen.tolist(), strict=True):
        found[row] = columns[column]
    return [int(index) for index in found]


def _normalised(scores: Floats) -> Floats:
    shifted = scores - scores.max()
    return np.asarray(shifted - np.log(np.exp(shifted).sum()))
