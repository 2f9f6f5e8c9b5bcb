"""Slices embedded ahead in napari: what the bar shows, and that nothing else waits for it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from pytestqt.qtbot import QtBot
from qtpy.QtCore import QPoint
from qtpy.QtTest import QTest

from napari_sam_med.gui.embedding_ahead import AheadState
from napari_sam_med.gui.embedding_bar import EmbeddingStrip, runs_of, text_of
from napari_sam_med.gui.settings import Settings
from napari_sam_med.session.embedding_ahead import EmbeddedStack
from napari_sam_med.volume.intensity import to_rgb
from napari_sam_med.volume.slice_view import SliceView
from tests.gui.desk import LEFT, NO_KEY, Desk
from tests.gui.fake_model import FakePredictor

HERE, THERE = SliceView("axial", 4), SliceView("axial", 2)


def is_image_of(desk: Desk, view: SliceView, image: np.ndarray) -> bool:
    return np.array_equal(image, to_rgb(desk.session.volume, view, desk.session.window))


@pytest.fixture
def stuck(desk: Desk, predictor: FakePredictor) -> Desk:
    """Nothing is embedded yet, and the model is in the middle of the slice at hand, ahead of any prompt."""
    desk.look_at(HERE)
    desk.wait(lambda: len(predictor.embedded) == 8 and not predictor.under_way)
    predictor.gate.clear()
    desk.actions.model.model.store.clear()
    predictor.embedded.clear()
    desk.actions.model.ahead.renew()
    desk.wait(lambda: len(predictor.under_way) == 1 and is_image_of(desk, HERE, predictor.under_way[0]))
    return desk


def test_the_bar_tells_what_is_ready_and_can_be_turned_off(
    make_desk: Callable[[], Desk], predictor: FakePredictor, volume
) -> None:
    desk = make_desk()
    bar = desk.widget.embedding_bar
    assert bar.isHidden()
    desk.open(volume)
    desk.wait(lambda: bar.isVisible() and bar.text.text() == "All 8 slices ready")
    assert bar.strip.accessibleDescription() == "All 8 slices ready"
    assert ": ready" in bar.strip.text_at(50)
    desk.bridge.show_plane("coronal")
    desk.wait(lambda: bar.text.text() == "All 24 slices ready")

    QTest.mouseClick(bar.switch, LEFT, NO_KEY, QPoint(8, bar.switch.height() // 2))
    desk.wait(lambda: bar.text.text() == "Embedded when prompted")
    assert bar.strip.text_at(50) == "", "nothing is said of slices that may be in the store all the same"
    assert not Settings.load().embeds_ahead
    n_made = len(predictor.embedded)
    desk.bridge.show_plane("sagittal")
    desk.wait(lambda: not desk.actions.model.ahead._rest.isActive())
    desk.settle()
    assert len(predictor.embedded) == n_made
    QTest.mouseClick(bar.switch, LEFT, NO_KEY, QPoint(8, bar.switch.height() // 2))
    desk.wait(lambda: bar.text.text() == "All 32 slices ready")
    assert Settings.load().embeds_ahead
    desk.viewer.layers.remove(desk.bridge.image_layer)
    desk.wait(bar.isHidden)


def test_a_click_elsewhere_is_answered_before_anything_goes_on(stuck: Desk, predictor: FakePredictor) -> None:
    stuck.look_at(THERE)
    stuck.bridge.set_tool("point")
    stuck.click((2, 8, 11))
    stuck.wait(lambda: [is_image_of(stuck, THERE, image) for image in predictor.under_way] == [True])
    stuck.wait(lambda: stuck.widget.embedding_bar.text.text() == "0 of 8 slices ready; waiting")
    predictor.gate.set()
    stuck.wait_for_proposal()
    assert is_image_of(stuck, THERE, predictor.embedded[0])
    stuck.wait(lambda: stuck.widget.embedding_bar.text.text() == "All 8 slices ready")
    assert len(predictor.embedded) == 8


def test_a_click_on_the_slice_under_way_waits_for_it_instead_of_beginning_anew(
    stuck: Desk, predictor: FakePredictor
) -> None:
    stuck.bridge.set_tool("point")
    stuck.click((4, 8, 11))
    assert stuck.actions.model.is_answering
    predictor.gate.set()
    stuck.wait_for_proposal()
    stuck.wait(lambda: len(predictor.embedded) == 8)
    for image, index in zip(predictor.embedded, (4, 5, 3, 6, 2, 7, 1, 0), strict=True):
        assert is_image_of(stuck, SliceView("axial", index), image), "the nearest first"


def test_a_click_does_not_wait_for_the_answer_to_one_on_another_slice(
    stuck: Desk, predictor: FakePredictor
) -> None:
    stuck.bridge.set_tool("point")
    stuck.click((4, 8, 11))
    stuck.look_at(THERE)
    stuck.click((2, 8, 11))
    stuck.wait(lambda: [is_image_of(stuck, THERE, image) for image in predictor.under_way] == [True])
    predictor.gate.set()
    stuck.wait_for_proposal()
    assert stuck.session.preview.view == THERE
    assert is_image_of(stuck, THERE, predictor.embedded[0])


def test_who_comes_back_at_once_to_a_slice_that_is_given_up_is_answered(
    stuck: Desk, predictor: FakePredictor
) -> None:
    stuck.bridge.set_tool("point")
    for view in (HERE, THERE):
        stuck.look_at(view)
        stuck.click((view.index, 8, 11))
    given_up = predictor.under_way[0]
    for view in (HERE, THERE):  # faster than the encoder can be given up
        stuck.actions.model.look_at(view)
    stuck.wait(lambda: all(image is not given_up for image in predictor.under_way))
    predictor.gate.set()
    stuck.wait_for_proposal()
    assert stuck.session.preview.view == THERE


def test_another_window_and_another_scan_end_it_at_once_and_a_failure_is_told(
    stuck: Desk, predictor: FakePredictor, make_volume: Callable
) -> None:
    first = predictor.under_way[0]
    stuck.session.window = (-100.0, 300.0)
    stuck.wait(lambda: predictor.under_way and predictor.under_way[0] is not first)
    assert is_image_of(stuck, HERE, predictor.under_way[0])
    other = make_volume((12, 20, 28))
    layer = stuck.viewer.add_image(other.data, metadata={"sam_med": other}, **other.display_transform)
    stuck.actions.open_scan(layer)
    stuck.wait(lambda: predictor.under_way and predictor.under_way[0].shape == (20, 28, 3))
    assert len(predictor.under_way) == 1
    assert predictor.embedded == []

    predictor.error = MemoryError("no room left")
    predictor.gate.set()
    text = stuck.widget.embedding_bar.text
    stuck.wait(lambda: text.text() == "0 of 12 slices ready; stopped")
    assert text.toolTip().endswith("no room left")


def test_carrying_is_given_way_and_closing_does_not_wait(stuck: Desk, predictor: FakePredictor) -> None:
    stuck.actions.model.hold(True)
    stuck.wait(lambda: not predictor.under_way)
    stuck.actions.model.hold(False)
    stuck.wait(lambda: predictor.under_way)
    stuck.widget.stop()
    assert predictor.under_way == []
    assert predictor.embedded == []


# the strip by itself


def test_runs_of_indices() -> None:
    assert list(runs_of(frozenset())) == []
    assert list(runs_of(frozenset({7}))) == [(7, 7)]
    assert list(runs_of(frozenset({5, 0, 1, 2, 9, 8}))) == [(0, 2), (5, 5), (8, 9)]


def test_the_words() -> None:
    some, air = frozenset(range(5)), frozenset({19})
    for stack, is_waiting, error, text in (
        (EmbeddedStack("axial", 20, some, air, 20), False, "", "5 of 19 slices ready"),
        (EmbeddedStack("axial", 20, some, air, 20), True, "", "5 of 19 slices ready; waiting"),
        (EmbeddedStack("axial", 20, some, air, 20), True, "why", "5 of 19 slices ready; stopped"),
        (EmbeddedStack("axial", 20, some, air, 5), False, "", "5 of 19 slices ready: the nearest"),
        (EmbeddedStack("axial", 6, some, frozenset({5}), 6), True, "", "All 5 slices ready"),
        (EmbeddedStack("axial", 1, frozenset({0}), frozenset(), 1), False, "", "1 slice ready"),
        (EmbeddedStack("axial", 1, frozenset(), frozenset(), 1), True, "", "0 of 1 slice ready; waiting"),
        (
            *(EmbeddedStack("axial", 3, frozenset(), frozenset(range(3)), 3), False, ""),
            "Nothing to prepare: all air",
        ),
    ):
        assert text_of(AheadState(stack, 2, is_waiting, error), True) == text
        assert text_of(AheadState(stack, 2, is_waiting, error), False) == "Embedded when prompted"


def test_what_is_drawn_is_what_is_said(qtbot: QtBot) -> None:
    strip = EmbeddingStrip()
    qtbot.addWidget(strip)
    strip.resize(210, strip.sizeHint().height())
    assert strip.text_at(50) == ""
    stack = EmbeddedStack("axial", 20, frozenset({10, 11, 12}), frozenset({0, 1}), 20)
    strip.show_state(AheadState(stack, 17, False, ""), "3 of 18 slices ready")
    picture = strip.grab().toImage()
    y = strip.height() // 2
    lightness = [
        picture.pixelColor(round(strip.left_of(index) + 5), y).lightness() for index in (0, 5, 11, 17)
    ]
    assert lightness[1] < lightness[0] < lightness[2] < lightness[3]
    words = [strip.text_at(strip.left_of(index) + 5) for index in (0, 5, 11)]
    assert [text.partition(":")[0] for text in words] == ["Slice 0", "Slice 5", "Slice 11"]
    assert "air" in words[0]
    assert "not ready" in words[1]
    assert ": ready" in words[2]
    assert strip.text_at(-50).startswith("Slice 0")
    assert strip.text_at(5000).startswith("Slice 19")
