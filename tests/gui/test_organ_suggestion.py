"""The organ that a proposed mask looks like: told after the mask, taken by one key, never by itself."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from qtpy.QtCore import Qt

from napari_sam_med.errors import ModelError
from napari_sam_med.gui import workers
from napari_sam_med.gui.settings import Settings
from napari_sam_med.session import organ_suggestion
from napari_sam_med.session.organ_suggestion import Suggestion
from napari_sam_med.volume.slice_view import SliceView
from tests.gui.desk import Desk

SPLEEN, LIVER = 1, 6
SHIFT = Qt.KeyboardModifier.ShiftModifier
HERE = SliceView("axial", 3)


class Classifier:
    """Says what the test wants; ``gate`` holds every answer until it is set."""

    def __init__(self) -> None:
        self.answer: Suggestion | None = Suggestion("liver", 0.93)
        self.error: Exception | None = None
        self.gate = threading.Event()
        self.gate.set()
        self.asked: list[np.ndarray] = []

    def __call__(self, sight, preview):
        yield "begun"
        self.gate.wait(60)
        self.asked.append(preview.mask)
        if self.error is not None:
            raise self.error
        return self.answer


@pytest.fixture
def classifier(monkeypatch: pytest.MonkeyPatch) -> Classifier:
    made = Classifier()
    monkeypatch.setattr(organ_suggestion, "suggest_organ", made)
    monkeypatch.setattr(workers, "_give_way", lambda: None)
    return made


@pytest.fixture
def ready(classifier: Classifier, desk: Desk) -> Desk:
    desk.session.select_organ(SPLEEN)
    desk.look_at(HERE)
    desk.bridge.set_tool("box")
    return desk


def draw_a_box(desk: Desk) -> np.ndarray:
    desk.drag((3, 4, 6), (3, 13, 17))
    return desk.wait_for_proposal()


def test_shift_enter_takes_the_suggested_organ_and_one_undo_gives_it_back(ready: Desk) -> None:
    mask = draw_a_box(ready)
    ready.wait(lambda: ready.actions.suggesting.found is not None)
    assert ready.widget.organ_panel.suggestion.text() == "Looks like: liver 93 %. Shift-Enter takes it"
    assert ready.said[-1] == "Quality 0.90, looks like liver (93 %). Shift-Enter: liver, Enter: spleen."
    assert ready.session.active_object.class_id == SPLEEN  # nothing was renamed
    ready.key(Qt.Key.Key_Return, SHIFT)
    assert np.array_equal(ready.slice_labels(HERE), mask * LIVER)
    assert "Liver accepted on slice 3" in ready.said[-1]
    assert ready.widget.organ_panel.suggestion.text() == " "
    ready.undo()
    assert not ready.labels.any()
    assert ready.session.active_object.class_id == SPLEEN


def test_enter_takes_the_chosen_organ_whatever_is_suggested(ready: Desk) -> None:
    mask = draw_a_box(ready)
    ready.wait(lambda: ready.actions.suggesting.found is not None)
    ready.key(Qt.Key.Key_Return)
    assert np.array_equal(ready.slice_labels(HERE), mask * SPLEEN)


def test_the_mask_does_not_wait_for_the_suggestion_nor_does_an_old_one_stay(
    ready: Desk, classifier: Classifier
) -> None:
    classifier.gate.clear()
    draw_a_box(ready)
    ready.key(Qt.Key.Key_Return, SHIFT)
    assert not ready.labels.any()
    ready.key(Qt.Key.Key_Return)
    assert "Spleen accepted" in ready.said[-1]
    accepted = ready.labels.copy()
    assert accepted.any()
    classifier.gate.set()
    ready.settle()
    assert ready.actions.suggesting.found is None
    assert np.array_equal(ready.labels, accepted), "what was waited for is over with Enter"


def test_shift_enter_before_the_guess_accepts_when_it_comes(ready: Desk, classifier: Classifier) -> None:
    classifier.gate.clear()
    mask = draw_a_box(ready)
    ready.key(Qt.Key.Key_Return, SHIFT)
    assert ready.widget.status.text.text().startswith("Waiting for the guess which organ this is")
    assert not ready.labels.any()
    classifier.gate.set()
    ready.wait(lambda: ready.labels.any())
    assert np.array_equal(ready.slice_labels(HERE), mask * LIVER)
    assert ready.said[-1] == "Liver accepted on slice 3. G carries it on."
    ready.undo()
    assert not ready.labels.any()


def test_escape_ends_the_wait_and_leaves_the_mask(ready: Desk, classifier: Classifier) -> None:
    classifier.gate.clear()
    draw_a_box(ready)
    ready.key(Qt.Key.Key_Return, SHIFT)
    ready.key(Qt.Key.Key_Escape)
    assert ready.said[-1].startswith("The mask is not accepted, and still proposed.")
    assert ready.session.preview is not None
    classifier.gate.set()
    ready.wait(lambda: ready.actions.suggesting.found is not None)
    assert not ready.labels.any()
    ready.key(Qt.Key.Key_Escape)
    assert ready.session.preview is None, "and the next one clears it, as ever"


@pytest.mark.parametrize("ends", ["no guess", "too long", "another slice"])
def test_the_wait_ends_without_a_guess(ready: Desk, classifier: Classifier, ends: str) -> None:
    classifier.gate.clear()
    classifier.answer = None if ends == "no guess" else classifier.answer
    draw_a_box(ready)
    if ends == "too long":
        ready.actions.suggesting._patience.setInterval(1)
    ready.key(Qt.Key.Key_Return, SHIFT)
    if ends == "no guess":
        classifier.gate.set()
        ready.wait(lambda: "No organ is suggested here. Enter accepts" in ready.said[-1])
    elif ends == "too long":
        ready.wait(lambda: "No guess came in time. Enter accepts" in ready.said[-1])
    else:
        ready.look_at(SliceView("axial", 5))
        assert "Waiting" not in ready.widget.status.text.text()
    classifier.gate.set()
    ready.wait(lambda: classifier.asked)
    ready.settle()
    assert not ready.labels.any()


def test_it_abstains_quietly(ready: Desk, classifier: Classifier) -> None:
    classifier.answer = None
    draw_a_box(ready)
    said = len(ready.said)
    ready.wait(lambda: classifier.asked)
    ready.settle()
    assert ready.widget.organ_panel.suggestion.text() == " "
    assert ready.said[said:] == []


def test_switched_off_it_asks_nothing_and_that_is_remembered(ready: Desk, classifier: Classifier) -> None:
    ready.widget.organ_panel.suggests.click()
    draw_a_box(ready)
    ready.settle()
    ready.qtbot.wait(200)  # longer than the rest before it would ask
    assert classifier.asked == []
    assert not Settings.load().suggests_organs
    ready.widget.organ_panel.suggests.click()
    ready.wait(lambda: ready.actions.suggesting.found is not None)


def test_a_broken_classifier_is_one_line_and_the_mask_stays(ready: Desk, classifier: Classifier) -> None:
    classifier.error = ModelError("There is no classifier; install the package again.")
    draw_a_box(ready)
    ready.wait(lambda: "no classifier" in ready.said[-1])
    ready.key(Qt.Key.Key_Return)
    assert ready.labels.any()


def test_with_nothing_proposed_the_key_says_so(ready: Desk) -> None:
    ready.key(Qt.Key.Key_Return, SHIFT)
    assert "no proposal" in ready.said[-1]
    assert not ready.session.objects
