"""Masks for the tests of simulated prompts: drawn by hand, or by hypothesis."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from napari_sam_med.evaluation.prompt_target import PromptTarget

Mask = npt.NDArray[np.bool_]

MASKS = npst.arrays(np.bool_, st.tuples(st.integers(1, 12), st.integers(1, 14))).filter(lambda m: m.any())
SEEDS = st.integers(0, 2**32)


def generator(seed: int = 0) -> np.random.Generator:
    """What strategies draw from."""
    return np.random.default_rng(seed)


def drawn(*rows: str) -> Mask:
    """A mask drawn with #."""
    return np.array([[letter == "#" for letter in row] for row in rows])


def target(*rows: str) -> PromptTarget:
    """The object of a mask drawn with #."""
    return PromptTarget(drawn(*rows))


RING = ("#####", "#...#", "#...#", "#...#", "#####")
