"""Scores without images: what models might have answered, for reports and figures."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from napari_sam_med.evaluation.measuring import SliceScore
from napari_sam_med.sam.prompts import Prompts
from napari_sam_med.volume.slice_view import SliceView

STRATEGIES = (
    "bound_box",
    "random_margin_box:-10",
    "random_margin_box:0",
    "random_margin_box:10",
    "center_mask",
    "corrective_clicks:1",
    "corrective_clicks:3",
    "bound_box+corrective_clicks:1",
)


def made_up_scores(
    models: Sequence[str] = ("nano",),
    strategies: Sequence[str] = STRATEGIES,
    organs: Sequence[str] = ("liver", "spleen"),
    *,
    slices: int = 4,
    volumes: Sequence[str] = ("a",),
) -> tuple[list[SliceScore], list[SliceScore]]:
    """Scores of models, worse from strategy to strategy and model to model, and of one baseline."""
    rng = np.random.default_rng(0)
    scores, baselines = [], []
    for volume in volumes:
        for label, organ in enumerate(organs, start=1):
            for index in range(slices):
                place = (volume, organ, label, SliceView("axial", index))
                noise = rng.normal(0, 0.02)
                dice = 0.6 + noise
                baselines.append(
                    SliceScore(*place, "", "filled_box", dice, dice / (2 - dice), None, np.nan, 99, 0.0)
                )
                for i, model in enumerate(models):
                    for j, strategy in enumerate(strategies):
                        dice = 0.9 - 0.05 * j - 0.1 * i + noise
                        iou = dice / (2 - dice)
                        asked = Prompts.from_box([2, 2, 6, 6])
                        row = (*place, strategy, model, dice, iou, None, iou + 0.05, 99, 0.01)
                        scores.append(SliceScore(*row, patient=volume, prompts=asked))
    return scores, baselines
