"""Prompts are what was given, or are refused."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
import torch

from napari_sam_med import Prompts
from napari_sam_med.errors import PromptError


@pytest.mark.parametrize("kind", [list, np.array, torch.tensor])
def test_array_likes_are_copied_and_frozen(kind: Any) -> None:
    given = kind([[3, 4], [5, 6]])
    prompts = Prompts.from_points(given, kind([1, 0]))
    given[0][0] = 99
    assert prompts.points_xy.tolist() == [[3, 4], [5, 6]]
    assert prompts.point_labels.tolist() == [1, 0]
    with pytest.raises(ValueError, match="read-only"):
        prompts.points_xy[0] = 0
    assert Prompts.from_box(kind([1, 2, 3, 4])).box_xyxy.tolist() == [1, 2, 3, 4]  # type: ignore[union-attr]


def test_a_single_point_needs_no_nesting_and_no_label() -> None:
    prompts = Prompts.from_points((3, 4))
    assert prompts.points_xy.tolist() == [[3, 4]]
    assert prompts.point_labels.tolist() == [1]
    assert prompts.is_lone_point
    assert prompts.kinds == {"point"}


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"points_xy": [[1, 2, 3], [4, 5, 6]]},
        {"points_xy": [1, 2, 3, 4]},
        {"points_xy": [[1, 2], [3]]},
        {"points_xy": [[1, np.nan]]},
        {"points_xy": [["left", "top"]]},
        {"points_xy": [[1, 2]], "point_labels": [1, 0]},
        {"points_xy": [[1, 2]], "point_labels": [2]},
        {"point_labels": [1]},
        {"box_xyxy": [1, 2, 3]},
        {"box_xyxy": [5, 2, 3, 4]},
        {"box_xyxy": [1, 2, 3, np.inf]},
        {"mask_input": np.zeros(4)},
        {"mask_input": np.full((4, 4), np.nan)},
    ],
)
def test_what_makes_no_sense_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(PromptError):
        Prompts(**given)


def test_equal_prompts_are_equal_keys() -> None:
    one, other = Prompts([[1, 2]], [1], (0, 0, 5, 5)), Prompts(np.array([[1, 2]]), None, [0, 0, 5, 5])
    assert one == other == pickle.loads(pickle.dumps(one))  # noqa: S301  our own bytes
    assert hash(one) == hash(other)
    assert one != one.replace(box_xyxy=None)
    assert one.replace(box_xyxy=None).is_lone_point
