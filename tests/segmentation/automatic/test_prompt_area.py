"""Where anything is asked: in the body, within a range of values."""

from __future__ import annotations

import numpy as np
import pytest

from napari_sam_med.errors import CancelledError, PromptError
from napari_sam_med.sample_data import sample_labels, sample_volume
from napari_sam_med.segmentation.automatic.prompt_area import BODY, PromptArea, body_mask
from napari_sam_med.volume.grid import Grid
from napari_sam_med.volume.reading import read_labels, read_volume
from napari_sam_med.volume.slice_view import SliceView
from napari_sam_med.volume.volume import Volume


def scan(air=-1000, tissue=40, gas=-900, couch=100, dtype=np.int16):
    """A body with gas inside, above a couch."""
    data = np.full((6, 40, 40), air, dtype=dtype)
    data[:, 8:28, 6:34] = tissue
    data[2:4, 14:20, 14:20] = gas
    data[:, 32, 2:38] = couch
    return Volume(data, Grid.from_zyx(data.shape, (3.0, 2.0, 2.0)))


@pytest.mark.parametrize(
    "volume",
    [scan(), scan(air=0, tissue=300, gas=2, couch=250, dtype=np.uint16)],
    ids=["CT", "MR"],
)
def test_the_body_is_what_is_left_without_air_and_couch(volume):
    body = body_mask(volume)
    assert body[:, 10:26, 8:32].all()  # gas inside belongs to it
    assert not body[:, :7].any()
    assert not body[:, 30:].any()


def test_a_range_of_values_keeps_clicks_out_of_gas():
    view = SliceView("axial", 2)
    asked = PromptArea(scan(), values=(-200, 300)).on(view)
    assert asked[10, 10]
    assert not asked[16, 16]
    assert not asked[32, 10]  # the couch has such values, but is not of the body
    assert PromptArea(scan(), body_only=False, values=(-200, 300)).on(view)[32, 10]


def test_slices_of_every_plane_are_turned_as_they_are_shown():
    data = scan().data.copy()
    data[0] = -1000  # the lowest slice is the last row of a coronal image
    area = PromptArea(Volume(data, Grid.from_zyx(data.shape, (3.0, 2.0, 2.0))))
    asked = area.on(SliceView("coronal", 15))
    assert asked.shape == (6, 40)
    assert not asked[-1].any()
    assert asked[0].any()


def test_where_all_is_air_all_is_asked_about():
    data = np.full((3, 8, 8), -1000, dtype=np.int16)
    assert body_mask(Volume(data, Grid.from_zyx(data.shape))).all()


def two_things():
    """A body of two pieces on some slices, which meet on another, and a table beside it, nearly as large."""
    data = np.full((7, 40, 60), -1000, dtype=np.int16)
    data[1:6, 5:20, 5:15] = 40
    data[1:6, 5:20, 22:32] = 40
    data[3, 5:20, 15:22] = 40
    data[:, 5:32, 40:50] = 100
    return Volume(data, Grid.from_zyx(data.shape, (3.0, 2.0, 2.0)))


def test_pieces_of_a_slice_that_meet_on_another_are_one_thing():
    volume = two_things()
    body = body_mask(volume)
    largest = 7 * 27 * 10, 5 * 2 * 15 * 10 + 15 * 7
    assert largest[0] > largest[1], "here the table is"
    assert body[:, 8:28, 42:48].all()
    data = volume.data.copy()
    data[:3, :, 40:50] = -1000
    body = body_mask(Volume(data, volume.grid))
    assert body[1:6, 7:18, 7:13].all()
    assert body[1:6, 7:18, 24:30].all()
    assert not body[:, :, 40:].any()
    assert not body[[0, 6]].any()


def test_things_that_share_edges_alone_are_two():
    data = np.full((4, 40, 40), -1000, dtype=np.int16)
    data[:2, 5:20, 5:20] = 40
    data[2:, 20:36, 20:36] = 40
    body = body_mask(Volume(data, Grid.from_zyx(data.shape, (3.0, 2.0, 2.0))))
    assert not body[:2].any()
    assert body[2:, 22:34, 22:34].all()


def test_the_search_for_the_body_is_told_and_ends_where_it_is_told_to():
    told = []
    body_mask(scan(), told.append)
    assert {one.text for one in told} == {BODY}
    fractions = [one.fraction for one in told]
    assert fractions == sorted(set(fractions))
    assert fractions[-1] == 1.0
    assert len(told) >= 6, "each slice"

    def leave(progress):
        told.append(progress)
        raise CancelledError("enough")

    told.clear()
    with pytest.raises(CancelledError):
        body_mask(scan(), leave)
    assert len(told) == 1


def test_the_body_of_a_volume_is_looked_for_once():
    told, volume = [], scan()
    first = PromptArea(volume, on_progress=told.append).body
    assert told
    told.clear()
    again = PromptArea(volume, on_progress=told.append)
    assert np.array_equal(again.body, first)
    assert np.array_equal(first, body_mask(volume))
    assert not told
    other = scan(tissue=-2000)
    assert not np.array_equal(PromptArea(other).body, first)


@pytest.mark.parametrize("values", [(5, 5), (10, -10), (0, float("nan"))])
def test_a_range_without_values_is_refused(values):
    with pytest.raises(PromptError, match="holds no value"):
        PromptArea(scan(), values=values)


def test_the_sample_body_holds_its_organs_and_no_air():
    volume = read_volume(sample_volume())
    body = body_mask(volume)
    organs = read_labels(sample_labels(), reference=volume).data > 0
    assert body[organs].mean() > 0.999
    outside = ~body
    assert np.median(np.asarray(volume.data)[outside]) < -900
