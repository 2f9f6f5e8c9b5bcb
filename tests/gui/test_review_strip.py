"""The review strip by itself: where slices lie, what colours say, what the mouse is told."""

from __future__ import annotations

import pytest
from pytestqt.qtbot import QtBot
from qtpy.QtCore import QPoint
from qtpy.QtTest import QTest

from napari_sam_med.gui.review_strip import ReviewStrip, StripContent, StripSlice, quality_color
from tests.gui.desk import LEFT, NO_KEY


def content(first: int, last: int, n_slices: int = 200, **more: object) -> StripContent:
    slices = {i: StripSlice(0.8, False, "quality 0.80, carried") for i in range(first, last + 1)}
    return StripContent(n_slices=n_slices, slices=slices, **more)


@pytest.fixture
def strip(qtbot: QtBot) -> ReviewStrip:
    made = ReviewStrip()
    qtbot.addWidget(made)
    made.resize(330, made.sizeHint().height())
    made.show()
    return made


def test_it_reaches_a_little_beyond_the_object_and_never_beyond_the_volume() -> None:
    assert content(50, 60).shown == range(48, 64)
    assert content(49, 61).shown == range(40, 64), "in blocks, so that it does not stretch slice by slice"
    assert content(0, 198).shown == range(200)
    assert StripContent(n_slices=200).shown == range(0)
    stopped = StripContent(200, {50: StripSlice(None, True, "key slice")}, {90: ("forward", True, "")})
    assert stopped.shown == range(48, 96)


def test_every_place_of_the_strip_is_the_slice_drawn_there(strip: ReviewStrip) -> None:
    strip.show_content(content(50, 60))
    for index in strip.content.shown:
        assert strip.slice_at(strip.left_of(index) + 1) == index
    assert strip.slice_at(-100) == 48
    assert strip.slice_at(10_000) == 63


def test_a_press_and_a_drag_choose_slices(strip: ReviewStrip) -> None:
    strip.show_content(content(50, 60))
    chosen: list[int] = []
    strip.chosen.connect(chosen.append)
    places = [QPoint(round(strip.left_of(i) + 5), 12) for i in (52, 57)]
    QTest.mouseMove(strip, places[0])
    assert chosen == [], "moving without a button chooses nothing"
    QTest.mousePress(strip, LEFT, NO_KEY, places[0])
    QTest.mouseMove(strip, places[1])
    QTest.mouseRelease(strip, LEFT, NO_KEY, places[1])
    assert chosen == [52, 57]


def test_an_empty_strip_chooses_nothing(strip: ReviewStrip) -> None:
    chosen: list[int] = []
    strip.chosen.connect(chosen.append)
    QTest.mouseClick(strip, LEFT, NO_KEY, QPoint(20, 12))
    assert chosen == []


def test_colours_go_from_red_over_yellow_to_blue() -> None:
    bad, fair, good = (quality_color(quality) for quality in (0.0, 0.75, 1.0))
    assert bad.red() > 2 * bad.blue()
    assert min(fair.red(), fair.green()) > fair.blue()
    assert good.blue() > 2 * good.red()
    assert quality_color(0.3) == quality_color(-1.0)


def test_what_is_drawn_is_what_is_said(strip: ReviewStrip) -> None:
    slices = {
        50: StripSlice(0.2, False, "quality 0.20, carried"),
        51: StripSlice(1.0, False, "quality 1.00, carried"),
        52: StripSlice(None, True, "key slice, accepted"),
    }
    strip.show_content(StripContent(200, slices, {49: ("backward", False, "Carrying ended here: why")}))
    picture = strip.grab().toImage()

    def color_at(index: int) -> object:
        x = (strip.left_of(index) + strip.left_of(index + 1)) / 2
        return picture.pixelColor(round(x), 13)

    assert color_at(50) == quality_color(0.2)
    assert color_at(51) == quality_color(1.0)
    assert color_at(52).lightness() > 240
    assert color_at(55).lightness() < 100, "nothing there"
    assert strip.text_of(50) == "Slice 50: quality 0.20, carried"
    assert strip.text_of(49) == "Slice 49\nCarrying ended here: why"
    assert strip.text_of(55) == "Slice 55: no mask"
