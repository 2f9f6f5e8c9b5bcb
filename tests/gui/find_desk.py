"""Fake searches for the tests of the chooser: candidates at known places, at the pace of the test."""

from __future__ import annotations

import threading
from collections.abc import Generator
from functools import partial

import numpy as np
import pytest

from napari_sam_med.progress import Progress
from napari_sam_med.segmentation.automatic.found_objects import FoundMask, FoundObject
from napari_sam_med.segmentation.organ_objects import OrganGuess
from napari_sam_med.session import finding_jobs
from napari_sam_med.session.finding_jobs import FindingPlan, FindingStep
from napari_sam_med.volume.slice_view import SliceView
from tests.gui.desk import Desk

SHAPE = (24, 32)


def axial(index: int) -> SliceView:
    return SliceView("axial", index)


def mask(rows: slice, columns: slice, quality: float = 0.8) -> FoundMask:
    whole = np.zeros(SHAPE, dtype=bool)
    whole[rows, columns] = True
    return FoundMask.of(whole, quality, 0.9)


SMALL, LARGE = mask(slice(7, 11), slice(9, 13)), mask(slice(4, 16), slice(6, 20))
ASIDE = mask(slice(17, 22), slice(22, 29))
KIDNEY = FoundObject(
    1, {axial(i): SMALL for i in (2, 3, 4)}, 0.9, OrganGuess("left kidney", 0.91, abstained=False)
)
BODY = FoundObject(2, {axial(i): LARGE for i in range(1, 7)}, 0.8)
STOMACH = FoundObject(3, {axial(5): ASIDE}, 0.7, OrganGuess("stomach", 0.6, abstained=False))
OBJECTS = [KIDNEY, BODY, STOMACH]


class Search:
    """A search that finds `OBJECTS`; before slice ``held_at`` it waits for ``gate``, or fails."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.held_at = 0
        self.asked: list[FindingPlan] = []
        self.error: Exception | None = None

    def __call__(self, sight: object, plan: FindingPlan) -> Generator[FindingStep, None, list[FoundObject]]:
        self.asked.append(plan)
        views = plan.views((8, *SHAPE))
        for done, view in enumerate(views):
            if done == self.held_at:
                self.gate.wait(60)
                if self.error is not None:
                    raise self.error
            masks = tuple(one.masks[view] for one in OBJECTS if view in one.masks)
            seen = views[: done + 1]
            yield FindingStep(
                Progress(done + 1, len(views), f"slice {view.index}"), view, masks, partial(_cut, seen)
            )
        return _cut(views)


def _cut(views: list[SliceView]) -> list[FoundObject]:
    """The objects as far as these slices show them."""
    parts = [(one, {view: m for view, m in one if view in views}) for one in OBJECTS]
    return [FoundObject(one.number, masks, one.score, one.organ) for one, masks in parts if masks]


@pytest.fixture
def search(monkeypatch: pytest.MonkeyPatch) -> Search:
    """What "Everything" runs."""
    made = Search()
    monkeypatch.setattr(finding_jobs, "everything", made)
    return made


def choose(combo: object, key: object) -> None:
    """Pick an entry of a combo box as a user does."""
    index = combo.findData(key)
    combo.setCurrentIndex(index)
    combo.activated.emit(index)


def find(desk: Desk, *, whole: bool = True, every: int = 1) -> None:
    """Run "Everything" to its end, and look at slice 3."""
    start(desk, whole=whole, every=every)
    desk.wait(lambda: not desk.actions.is_busy and not desk.actions.finding.found.is_empty)
    desk.settle()


def start(desk: Desk, *, whole: bool = True, every: int = 1, index: int = 3) -> None:
    desk.look_at(axial(index))
    panel = desk.widget.find_panel
    panel.expand(animate=False)
    choose(panel.where, whole)
    panel.every.setValue(every)
    panel.start.click()
