"""Filling between slices and clean-up from the panel, each one undo step."""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np
import pytest
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QInputDialog

from napari_sam_med.session import jobs
from napari_sam_med.volume.slice_view import SliceView
from tests.gui.desk import Desk
from tests.gui.fake_model import FakePredictor
from tests.gui.test_prompting import LIVER

BLOCK = (slice(2, 6), slice(6, 12), slice(8, 16))
HOLE, ISLAND = (3, 8, 10), (3, 20, 28)


def axial(index: int) -> SliceView:
    return SliceView("axial", index)


@pytest.fixture
def two_keys(desk: Desk) -> Desk:
    """An object accepted on slices 1 and 6; its organ fills what lies between."""
    desk.session.select_organ(LIVER)
    desk.bridge.set_tool("box")
    for index in (1, 6):
        desk.look_at(axial(index))
        desk.drag((index, 4, 6), (index, 13, 18))
        desk.wait_for_proposal()
        desk.key(Qt.Key.Key_Return)
    return desk


def organ(desk: Desk) -> np.ndarray:
    return np.asarray(desk.session.volume.data) > 100


@pytest.mark.parametrize(
    ("name", "source", "label"),
    [
        ("fill", "interpolated", "Fill liver between slices"),
        ("snap", "propagated", "Snap liver between slices"),
    ],
)
def test_slices_between_two_keys_are_filled_in_one_step(
    two_keys: Desk, name: str, source: str, label: str
) -> None:
    desk = two_keys
    before = desk.labels.copy()
    getattr(desk.widget.propagation_panel, name).click()
    desk.wait(lambda: desk.session.undo_stack.undo_label == label)
    desk.wait_until_carried()
    assert np.array_equal(desk.labels == LIVER, organ(desk))
    masks = desk.session.active_object.masks
    assert [masks[axial(i)].source for i in range(1, 7)] == ["prompt", *[source] * 4, "prompt"]
    desk.undo()
    assert np.array_equal(desk.labels, before)


def test_filling_says_when_there_is_nothing_between(two_keys: Desk) -> None:
    desk = two_keys
    desk.undo()
    desk.undo()
    desk.widget.propagation_panel.fill.click()
    assert desk.said[-1] == (
        "liver: there is nothing between key slices; accept or paint two slices that lie apart."
    )
    assert not desk.actions.is_busy


def test_cancelling_a_fill_keeps_what_is_done(two_keys: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk, interpolate = two_keys, jobs.interpolate
    gate, waits = threading.Event(), threading.Event()

    def slow(*args, **options):
        for number, done in enumerate(interpolate(*args, **options)):
            if number == 4:  # two key slices and two between them are out
                waits.set()
                gate.wait(60)
            yield done

    monkeypatch.setattr(jobs, "interpolate", slow)
    before = desk.labels.copy()
    desk.widget.propagation_panel.fill.click()
    desk.wait(waits.is_set)
    desk.settle()
    desk.widget.status.cancel.click()
    gate.set()
    desk.wait_until_carried()
    assert desk.said[-1] == "Cancelled; what was done is kept."
    assert 3 <= desk.labels.any(axis=(1, 2)).sum() < 6
    desk.undo()
    assert np.array_equal(desk.labels, before)


def test_cancelling_a_snap_keeps_what_is_done(two_keys: Desk, predictor: FakePredictor) -> None:
    desk, embed = two_keys, predictor.embed
    desk.actions.model.model.store.kept.clear()
    asked: list[int] = []

    def slow(image, *args):
        asked.append(1)
        if len(asked) == 3:
            predictor.gate.clear()
        return embed(image, *args)

    predictor.embed = slow
    before = desk.labels.copy()
    desk.widget.propagation_panel.snap.click()
    desk.wait(lambda: not predictor.gate.is_set())
    desk.settle()
    desk.widget.status.cancel.click()
    predictor.gate.set()
    desk.wait_until_carried()
    assert 3 <= desk.labels.any(axis=(1, 2)).sum() < 6
    desk.undo()
    assert np.array_equal(desk.labels, before)


@pytest.fixture
def shape(desk: Desk) -> Desk:
    """A block of liver that belongs to no object, with a hole and a small piece far from it."""
    desk.session.select_organ(LIVER)
    desk.labels[BLOCK] = LIVER
    desk.labels[HOLE] = 0
    desk.labels[ISLAND] = LIVER
    desk.session.record_stroke()
    desk.look_at(axial(3))
    return desk


def choose(desk: Desk, text: str) -> None:
    menu = desk.widget.propagation_panel.clean_up_menu
    menu.refresh()
    next(action for action in menu.actions() if action.text() == text).trigger()
    desk.settle()


def without_island(labels: np.ndarray) -> bool:
    return not labels[ISLAND] and not labels[HOLE] and (labels == LIVER).sum() == 4 * 6 * 8 - 1


def without_hole(labels: np.ndarray) -> bool:
    return bool((labels[BLOCK] == LIVER).all()) and labels[ISLAND] == LIVER


def rounder(labels: np.ndarray) -> bool:
    return bool((labels == LIVER).any()) and labels[2, 6, 8] == 0


def empty_here(labels: np.ndarray) -> bool:
    return not labels[3].any() and bool(labels[2].any() and labels[4].any())


def test_each_clean_up_tool_does_one_thing_and_undo_takes_it_back(
    shape: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = shape
    before = desk.labels.copy()
    given = {"Remove small pieces": 0.02, "Smooth": 4.0}
    monkeypatch.setattr(QInputDialog, "getDouble", lambda parent, title, *_: (given[title], True))
    cases: dict[str, Callable[[np.ndarray], bool]] = {
        "Keep the largest piece": without_island,
        "Remove small pieces…": without_island,
        "Fill holes": without_hole,
        "Fill holes slice by slice": without_hole,
        "Smooth…": rounder,
        "Erase on this slice": empty_here,
        "Erase everywhere": lambda labels: not labels.any(),
    }
    menu = desk.widget.propagation_panel.clean_up_menu
    assert [a.text() for a in menu.actions() if a.text() and not a.isCheckable()] == list(cases)
    depth = desk.session.undo_stack.undo_label
    for text, holds in cases.items():
        choose(desk, text)
        assert holds(desk.labels), text
        desk.undo()
        assert np.array_equal(desk.labels, before), text
        assert desk.session.undo_stack.undo_label == depth, f"{text} is one step"


def test_clean_up_works_on_the_object_unless_the_organ_is_chosen(shape: Desk) -> None:
    desk = shape
    menu = desk.widget.propagation_panel.clean_up_menu
    menu.refresh()
    assert menu.is_for_organ, "no object is active"
    desk.bridge.set_tool("box")
    desk.drag((3, 4, 6), (3, 13, 18))
    desk.wait_for_proposal()
    desk.key(Qt.Key.Key_Return)
    menu.refresh()
    assert menu.on_object.isChecked()
    choose(desk, "Keep the largest piece")
    assert "there was nothing to change" in desk.said[-1]
    assert desk.labels[ISLAND] == LIVER
    menu._wants_organ = True
    choose(desk, "Keep the largest piece")
    assert not desk.labels[ISLAND]


def test_a_question_that_is_dismissed_changes_nothing(shape: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    before = shape.labels.copy()
    monkeypatch.setattr(QInputDialog, "getDouble", lambda *_: (5.0, False))
    for text in ("Remove small pieces…", "Smooth…"):
        choose(shape, text)
    assert np.array_equal(shape.labels, before)


def test_erasing_here_needs_a_slice(shape: Desk) -> None:
    before = shape.labels.copy()
    shape.widget.volume_panel.planes["3d"].click()
    shape.wait(lambda: shape.bridge.current_view() is None)
    choose(shape, "Erase on this slice")
    assert np.array_equal(shape.labels, before)
    assert shape.said[-1] == "Show the slice in two dimensions that is to be erased."
