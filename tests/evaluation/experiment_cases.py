"""Small labelled scans on disk, and a program that measures them, for tests of experiments."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import SimpleITK

from napari_sam_med.evaluation.cases import Case
from napari_sam_med.evaluation.experiment import Experiment
from napari_sam_med.evaluation.measuring import SliceChoice
from napari_sam_med.evaluation.prompt_strategies import parse_strategies

SHAPE = (10, 40, 48)
STRATEGIES = ("bound_box", "random_mask", "corrective_clicks:2")
PROGRAM = """
import sys
from pathlib import Path
from napari_sam_med.evaluation.experiment import run_experiment
from tests.evaluation.experiment_cases import small_experiment

folder = Path(sys.argv[1])
for step in run_experiment(small_experiment(folder), folder / "out"):
    print(len(step.scores), flush=True)
"""


def write_cases(folder: Path, count: int = 2) -> None:
    """Scans of a bright block and a brighter one, with their labels."""
    for number in range(count):
        labels = np.zeros(SHAPE, np.uint8)
        labels[1:9, 6:20, 8:24] = 1
        labels[4:8, 26:34, 30:40] = 2
        noise = np.random.default_rng(number).normal(0, 20, SHAPE)
        scan = (noise - 300 + 300 * (labels == 1) + 500 * (labels == 2)).astype(np.int16)
        for name, data in (("scan", scan), ("labels", labels)):
            image = SimpleITK.GetImageFromArray(data)
            image.SetSpacing((1.5, 1.5, 3.0))
            SimpleITK.WriteImage(image, str(folder / f"{name}{number}.nii.gz"))


def small_experiment(folder: Path, count: int = 2, *strategies: str) -> Experiment:
    """Cases of `write_cases`, with nano, two seeds."""
    cases = tuple(
        Case(
            name=f"case {number}",
            image=f"scan{number}.nii.gz",
            image_path=folder / f"scan{number}.nii.gz",
            labels_path=folder / f"labels{number}.nii.gz",
            names='{"1": "liver", "2": "left, odd kidney"}',
            patient=f"patient {number}",
        )
        for number in range(count)
    )
    chosen = tuple(parse_strategies(strategies or STRATEGIES))
    return Experiment(cases, chosen, choice=SliceChoice(min_area=5), seeds=(0, 7))
