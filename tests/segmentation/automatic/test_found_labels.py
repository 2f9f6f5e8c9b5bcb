"""Objects as labels: who gets a voxel of two, and what the labels are called."""

from __future__ import annotations

import numpy as np
import pytest

from napari_sam_med.segmentation.automatic.found_labels import labels_of, names_of
from napari_sam_med.segmentation.automatic.found_objects import FoundMask, FoundObject
from napari_sam_med.segmentation.organ_objects import OrganGuess
from napari_sam_med.volume.grid import Grid
from napari_sam_med.volume.organs import OrganTable
from napari_sam_med.volume.slice_view import SliceView
from napari_sam_med.volume.volume import Volume

VOLUME = Volume(np.zeros((3, 20, 20), np.int16), Grid.from_zyx((3, 20, 20)))


def square(number, side, score, organ=None):
    mask = np.zeros((20, 20), dtype=bool)
    mask[:side, :side] = True
    found = FoundMask.of(mask, 0.9, 0.9)
    return FoundObject(number, {SliceView("axial", z): found for z in range(3)}, score, organ)


def test_a_part_is_seen_in_its_whole_unless_the_whole_is_surer_and_wanted():
    part, whole = square(2, 4, 0.3), square(1, 10, 0.8)
    labels = labels_of(VOLUME, [whole, part])
    assert [labels.voxel_count(number) for number in (1, 2)] == [3 * (100 - 16), 3 * 16]
    labels = labels_of(VOLUME, [whole, part], "surer")
    assert labels.class_ids() == (1,)
    part, whole = square(1, 4, 0.8), square(2, 10, 0.3)
    assert labels_of(VOLUME, [part, whole], "surer").class_ids() == (1, 2)


def test_many_objects_widen_the_labels():
    few = labels_of(VOLUME, [square(255, 3, 0.5)])
    many = labels_of(VOLUME, [square(256, 3, 0.5)])
    assert (few.data.dtype, many.data.dtype) == (np.uint8, np.uint16)
    assert many.class_ids() == (256,)
    assert labels_of(VOLUME, []).class_ids() == ()


@pytest.mark.parametrize(
    ("organ", "name"),
    [
        (None, "object 1"),
        (OrganGuess("liver", 0.9, abstained=False), "liver"),
        (OrganGuess("liver", 0.3, abstained=True), "object 1"),
        (OrganGuess("other", 0.9, abstained=False), "object 1"),
    ],
)
def test_an_object_is_called_by_its_organ_where_that_is_sure(organ, name):
    assert names_of([square(1, 3, 0.5, organ)]) == {1: name}


def test_an_organ_found_twice_is_told_apart_and_a_single_one_has_its_colour():
    liver, spleen = (OrganGuess(name, 0.9, abstained=False) for name in ("liver", "spleen"))
    objects = [square(1, 9, 0.9, liver), square(2, 3, 0.5, liver), square(3, 3, 0.4, spleen)]
    table = labels_of(VOLUME, objects).organs
    assert [table.name_of(number) for number in (1, 2, 3)] == ["liver 1", "liver 2", "spleen"]
    usual = {organ.name: organ.color for organ in OrganTable.btcv().values()}
    assert table[3].color == usual["spleen"]
    assert table[1].color != table[2].color
