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
        {"outline_xy": [[1, 1], [5, 1]]},
        {"outline_xy": [1, 1, 5, 1, 5, 5]},
        {"outline_xy": [[1, 1, 0], [5, 1, 0], [5, 5, 0]]},
        {"outline_xy": [[1, 1], [5, 1], [5, np.nan]]},
        {"outline_xy": [[1, 1], [3, 3], [5, 5], [2, 2]]},
        {"outline_xy": [[1, 1]] * 5},
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


def test_an_outline_is_a_prompt_of_its_own() -> None:
    corners = [[1, 2], [8, 2], [4, 9]]
    outline = Prompts.from_outline(corners)
    assert outline.outline_xy.tolist() == corners  # type: ignore[union-attr]
    assert outline.kinds == {"outline"}
    assert not Prompts([[3, 3]], outline_xy=corners).is_lone_point
    assert outline == Prompts(outline_xy=np.array(corners)) == pickle.loads(pickle.dumps(outline))  # noqa: S301  our own bytes
    assert hash(outline) == hash(Prompts(outline_xy=np.array(corners)))
    assert outline != Prompts.from_outline(corners[::-1])
    assert outline != outline.replace(box_xyxy=(1, 2, 8, 9))
    assert outline.replace(points_xy=[[3, 3]], point_labels=[1]).kinds == {"outline", "point"}
    with pytest.raises(ValueError, match="read-only"):
        outline.outline_xy[0] = 0  # type: ignore[index]


def test_the_box_comes_before_the_outline_in_saying_how_far_the_object_reaches() -> None:
    outline = Prompts.from_outline([[1, 2], [8, 2], [4, 9]])
    assert outline.extent_within((20, 20)).tolist() == [1, 2, 8, 9]  # type: ignore[union-attr]
    assert outline.replace(box_xyxy=(0, 0, 5, 5)).extent_within((20, 20)).tolist() == [0, 0, 5, 5]  # type: ignore[union-attr]
    assert Prompts([[3, 3]]).extent_within((20, 20)) is None
