"""The report of a run: where a look is worth most, in the file's own counting."""

from __future__ import annotations

import numpy as np
import pytest

from napari_sam_med import LabelVolume, Prompts, SliceView
from napari_sam_med.progress import Progress
from napari_sam_med.segmentation.object_masks import ObjectMasks
from napari_sam_med.segmentation.prompts_file import PromptObject
from napari_sam_med.segmentation.propagation import PropagatedSlice
from napari_sam_med.segmentation.report import RunFacts, report_of
from napari_sam_med.volume.grid import Grid

N_SLICES = 20
KEY = SliceView("axial", 10)


def run_with(qualities: dict[int, float], flipped: bool) -> dict:
    """Report of an object of 10 x 10 pixels on slices with these qualities, slice 10 the key."""
    affine = np.diag([1.0, 1.0, -3.0 if flipped else 3.0, 1.0])
    grid = Grid(affine, (32, 32, N_SLICES))
    labels = LabelVolume(np.zeros((N_SLICES, 32, 32), np.uint8), grid)
    mask = np.zeros((32, 32), dtype=bool)
    mask[5:15, 5:15] = True
    found = ObjectMasks()
    for index, quality in qualities.items():
        source, way = ("prompt", "key") if index == KEY.index else ("propagated", "forward")
        reason = "end of the volume" if index in (min(qualities), max(qualities)) else None
        view = SliceView("axial", index)
        found.add(PropagatedSlice(Progress(1, 1, ""), 1, 6, view, mask, None, quality, source, reason, way))
    found.merge_into(labels)
    asked = {1: PromptObject(6, "liver", "axial", {KEY: Prompts.from_box((5, 5, 14, 14))})}
    return report_of(RunFacts("nano", "cpu", "fp32", {}), asked, found, labels)["objects"][0]


@pytest.mark.parametrize("flipped", [False, True])
def test_doubtful_slices_are_counted_as_the_file_counts(flipped: bool) -> None:
    qualities = {z: 1.0 if z <= 10 else 0.3 for z in range(5, 20)}
    (doubtful,) = run_with(qualities, flipped)["doubtful_slices"]
    assert doubtful["kind"] == "run"
    middle = 15
    assert doubtful["index"] == (N_SLICES - 1 - middle if flipped else middle)
    assert doubtful["expected_error_mm2"] == pytest.approx(9 * 100 * 0.7 / 2)


def test_nothing_is_doubtful_where_all_is_sure() -> None:
    assert run_with(dict.fromkeys(range(5, 20), 0.99), False)["doubtful_slices"] == []
