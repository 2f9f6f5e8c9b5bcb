"""The rank of the right object, and what stands for it where none is right."""

from __future__ import annotations

import numpy as np
import pytest

from napari_sam_med.evaluation.word_ranks import inmost_voxel, word_ranks
from napari_sam_med.segmentation.automatic.labelled_objects import objects_of
from napari_sam_med.segmentation.automatic.words import OrganChances
from napari_sam_med.volume.grid import Grid
from napari_sam_med.volume.labels import LabelVolume
from napari_sam_med.volume.organs import OrganTable

SHAPE = (2, 10, 20)


def labelled(**places):
    data = np.zeros(SHAPE, dtype=np.uint8)
    for name, columns in places.items():
        data[:, 2:6, columns] = int(name.removeprefix("n"))
    table = OrganTable.from_names({1: "spleen", 2: "liver"})
    return LabelVolume(data, Grid.from_zyx(SHAPE), table)


TRUTH = labelled(n1=slice(0, 8), n2=slice(10, 18))


def chances(objects, probabilities):
    return OrganChances(tuple(objects), ("spleen", "liver", "other"), np.array(probabilities))


def test_the_right_object_is_the_one_of_best_overlap():
    objects = objects_of(labelled(n1=slice(0, 6), n2=slice(6, 8), n3=slice(10, 18)))
    spleen, liver = word_ranks(chances(objects, [[0.2, 0.1, 0.7], [0.6, 0.1, 0.3], [0.1, 0.9, 0.0]]), TRUTH)
    assert (spleen.organ, spleen.objects, spleen.rank, spleen.score) == ("spleen", 3, 2, 0.2)
    assert spleen.best_iou == pytest.approx(6 / 8)
    assert spleen.first_iou == pytest.approx(2 / 8)
    assert spleen.first_score == 0.6
    assert (liver.organ, liver.rank, liver.best_iou, liver.first_iou) == ("liver", 1, 1.0, 1.0)
    assert spleen.is_there
    assert liver.is_there


def test_where_no_object_is_right_the_best_one_stands_for_it():
    objects = objects_of(labelled(n1=slice(0, 2)))
    spleen, liver = word_ranks(chances(objects, [[0.5, 0.4, 0.1]]), TRUTH)
    assert not spleen.is_there
    assert (spleen.rank, spleen.best_iou) == (1, pytest.approx(2 / 8))
    assert not liver.is_there
    assert (liver.rank, liver.score, liver.best_iou) == (None, None, 0.0)


def test_a_person_would_click_in_the_middle():
    data = np.zeros((7, 9, 20), dtype=np.uint8)
    data[1:6, 2:7, 3:8] = 1
    data[3, 4, 8:18] = 1  # a thin tail does not draw it away
    truth = LabelVolume(data, Grid.from_zyx(data.shape))
    assert inmost_voxel(truth, 1) == (3, 4, 5)
