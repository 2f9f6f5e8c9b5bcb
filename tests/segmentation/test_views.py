"""Pictures of labels: which side is which, and in which order organs are listed."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import ImageDraw

from napari_sam_med import LabelVolume, SliceView
from napari_sam_med.segmentation.views import draw_view
from napari_sam_med.volume.volume import Grid, Volume


@pytest.fixture
def texts(monkeypatch):
    """What is written into pictures: text and its place."""
    written = []
    write = ImageDraw.ImageDraw.text

    def record(pen, place, text, **options):
        written.append((text, place))
        return write(pen, place, text, **options)

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", record)
    return written


@pytest.fixture
def labelled():
    # canonical order: x grows to the left, y to the back, z to the head
    data = np.zeros((8, 20, 20), dtype=np.int16)
    volume = Volume(data, Grid(np.diag([-1.0, -1.0, 1.0, 1.0]), (20, 20, 8)))
    labels = LabelVolume.like(volume)
    labels.data[:, 2:6, 2:6] = 1
    labels.data[:, 12:16, 12:16] = 6
    return volume, labels


@pytest.mark.parametrize(("plane", "sides"), [("axial", "RLAP"), ("coronal", "RLSI"), ("sagittal", "APSI")])
def test_the_patients_sides_stand_at_the_borders(labelled, texts, plane, sides):
    draw_view(*labelled, SliceView(plane, 4))
    places = {text: place for text, place in texts if text in sides}
    left, right, top, bottom = (places[letter] for letter in sides)
    assert left[0] < top[0] < right[0]
    assert top[1] < left[1] < bottom[1]


def test_the_legend_follows_the_order_of_the_notes(labelled, texts):
    draw_view(*labelled, SliceView("axial", 4), notes={6: "first", 1: "second"})
    heights = {text: place[1] for text, place in texts}
    assert heights["first"] < heights["second"]
