"""The table of the benchmark, and its arms, on a scan that needs no model."""

from __future__ import annotations

import numpy as np

from benchmarks.object_recall import arms_of, table
from napari_sam_med.segmentation.automatic.found_objects import FoundMask, FoundObject
from napari_sam_med.volume.grid import Grid
from napari_sam_med.volume.labels import LabelVolume
from napari_sam_med.volume.slice_view import SliceView
from napari_sam_med.volume.volume import Volume


def test_objects_stand_beside_regions_of_their_number() -> None:
    data = np.full((12, 40, 40), -1000, dtype=np.int16)
    data[:, 4:36, 4:36] = -60
    data[2:10, 8:20, 8:20] = 60
    grid = Grid.from_zyx(data.shape, (3.0, 2.0, 2.0))
    volume, organ = Volume(data, grid), data == 60
    labels = LabelVolume(np.where(organ, 6, 0).astype(np.uint8), grid)
    masks = {SliceView("axial", z): FoundMask.of(organ[z], 0.9, 0.9) for z in range(2, 10)}
    objects = [FoundObject(number, masks, 0.5) for number in range(1, 17)]
    arms = arms_of(volume, labels, objects)
    assert arms["objects"][0] == 16
    assert arms["objects"][1][0].best_iou == 1.0
    for name, (n_candidates, rows) in arms.items():
        assert 1 <= n_candidates <= 24, name
        assert [row.organ for row in rows] == ["liver"]
    assert arms["supervoxels of 4 sizes"][1][0].best_iou > 0

    text = table(arms, {1: "liver 0.98"})
    assert "| liver | 1152 | 1.00 |" in text
    assert "liver 0.98 |" in text
    assert "| **found at IoU 0.5** |  | **1 of 1** |" in text
    assert "| candidates |  | 16 |" in text
