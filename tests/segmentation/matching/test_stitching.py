"""The four prompt designs, and which runs are believed: with a model whose answers are known."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scipy import ndimage

from napari_sam_med.errors import ModelError
from napari_sam_med.segmentation.matching.canvas import Canvas
from napari_sam_med.segmentation.matching.matcher import DESIGNS, Design, Matching, QuerySlice
from napari_sam_med.segmentation.matching.stitching import StitchingMatcher, prompts_of_design
from tests.segmentation.matching.scenes import disc, example_of, grey_slice, rgb

ORGAN = (40.0, 40.0, 9.0)
OTHER = (60.0, 75.0, 9.0)


class Flooding:
    """Answers with the pieces of about one brightness that the clicks lie in."""

    accepts = frozenset({"point"})
    record = SimpleNamespace(title="Flooding")

    def __init__(self, follows: bool = True) -> None:
        self.follows = follows
        self.batches: list[int] = []

    def embed(self, image: np.ndarray, pixel_spacing: Any) -> np.ndarray:
        return image[..., 0]

    def predict_batch(self, embedding: np.ndarray, prompts: Any, *_: Any, **__: Any) -> list[Any]:
        self.batches.append(len(prompts))
        return [self._answer(embedding, prompt) for prompt in prompts]

    def _answer(self, grey: np.ndarray, prompt: Any) -> Any:
        mask = np.zeros(grey.shape, dtype=bool)
        clicks = prompt.points_xy[prompt.point_labels == 1].astype(int)
        for x, y in clicks if self.follows else clicks[:1]:
            level = int(ndimage.uniform_filter(grey.astype(float), 3)[y, x])
            pieces, _ = ndimage.label(np.abs(grey.astype(int) - level) < 30)
            mask |= (pieces == pieces[y, x]) & (pieces[y, x] > 0)
        return SimpleNamespace(
            best_mask=mask, best_index=0, iou_predictions=np.array([0.9]), stability_scores=np.array([0.9])
        )


def query_of(predictor: Any, organs: list[tuple[float, float, float]]) -> QuerySlice:
    return QuerySlice(rgb(grey_slice(organs, [OTHER], seed=2)), (1.0, 1.0), predictor)


def find(design: Design, predictor: Any, organs: list[tuple[float, float, float]], runs: int = 64) -> Any:
    matching = Matching(engine="stitching", design=design, runs=runs)
    return StitchingMatcher(example_of(ORGAN, [OTHER]), predictor, matching).find(query_of(predictor, organs))


@pytest.mark.parametrize("design", DESIGNS)
def test_clicks_lie_where_the_design_says(design: Design) -> None:
    example = example_of(ORGAN).slices[0]
    canvas = Canvas.of(example, rgb(grey_slice([ORGAN])), (1.0, 1.0))
    prompts = prompts_of_design(canvas, design, runs=16, seed=3)
    again = prompts_of_design(canvas, design, runs=16, seed=3)
    assert prompts == again
    assert len(prompts) == 1 if design == "example" else 4 <= len(prompts) <= 16
    for prompt in prompts:
        is_query = prompt.points_xy[:, 0] >= canvas.query_left
        is_positive = prompt.point_labels == 1
        known = prompt.points_xy[~is_query].astype(int)
        assert np.array_equal(canvas.example_mask[known[:, 1], known[:, 0]], is_positive[~is_query])
        assert is_query.sum() == (0 if design == "example" else 1)
        assert (~is_positive).sum() == (4 if design == "grid-negatives" else 0)


def test_clicks_in_the_example_alone_find_nothing_in_the_query() -> None:
    assert find("example", Flooding(), [ORGAN]) == []


@pytest.mark.parametrize("design", ["random", "grid", "grid-negatives"])
def test_candidates_in_the_query_find_the_organ(design: Design) -> None:
    moved = (45.0, 60.0, 10.0)
    masks = [one.found.mask for one in find(design, Flooding(), [moved])]
    assert any(np.mean(mask == disc(*moved)) > 0.99 for mask in masks)


def test_a_run_that_does_not_follow_into_the_query_is_not_believed() -> None:
    assert find("grid", Flooding(follows=False), [ORGAN]) == []


def test_a_run_that_does_not_give_the_example_back_is_not_believed() -> None:
    class Forgetful(Flooding):
        def _answer(self, grey: np.ndarray, prompt: Any) -> Any:
            answer = super()._answer(grey, prompt)
            answer.best_mask[:, : grey.shape[1] // 2] = False
            return answer

    assert find("grid", Forgetful(), [ORGAN]) == []


def test_as_many_runs_as_asked_for_are_made_at_once() -> None:
    predictor = Flooding()
    find("random", predictor, [ORGAN], runs=12)
    assert predictor.batches == [12]


def test_a_model_without_points_is_refused() -> None:
    boxes_only: Any = SimpleNamespace(accepts=frozenset({"box"}), record=SimpleNamespace(title="MedSAM"))
    with pytest.raises(ModelError, match=r"MedSAM takes no points.*similarity"):
        StitchingMatcher(example_of(ORGAN), boxes_only, Matching(engine="stitching"))
