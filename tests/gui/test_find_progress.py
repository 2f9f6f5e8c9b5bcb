"""The time that a run of Find takes or still needs, beside how far it is."""

from __future__ import annotations

import pytest

from napari_sam_med.gui.find_progress import FindProgress
from napari_sam_med.progress import Progress


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def shown(clock: Clock) -> FindProgress:
    return FindProgress(clock)


def test_time_moves_though_nothing_new_is_known(clock: Clock, shown: FindProgress) -> None:
    first = Progress(0, 29000, "slice 1 of 29")
    assert shown.told(first).text == "slice 1 of 29"
    clock.now += 3
    assert shown.told(first).text == "slice 1 of 29, 3 s"
    clock.now += 1
    assert shown.told(Progress(1000, 29000, "slice 2 of 29")).text == "slice 2 of 29, 2 min left"
    clock.now += 60
    assert shown.told(Progress(1000, 29000, "slice 2 of 29")).text == "slice 2 of 29, 52 s left"
    clock.now += 600
    assert shown.told(Progress(1000, 29000, "slice 2 of 29")).text == "slice 2 of 29, 1 s left"


def test_each_part_has_a_time_of_its_own(clock: Clock, shown: FindProgress) -> None:
    shown.told(Progress(0, 100, "body"))
    clock.now += 2
    assert shown.told(Progress(50, 100, "body")).text == "body, 2 s left"
    assert shown.told(Progress(0, 10, "naming 0 of 10")).text == "naming 0 of 10"
    clock.now += 4
    assert shown.told(Progress(2, 10, "naming 2 of 10")).text == "naming 2 of 10, 16 s left"


def test_no_guess_is_made_of_the_first_moment(clock: Clock, shown: FindProgress) -> None:
    shown.told(Progress(0, 100, "body"))
    clock.now += 0.2
    assert shown.told(Progress(1, 100, "body")).text == "body"


def test_what_has_no_end_is_an_empty_bar_with_its_text(shown: FindProgress) -> None:
    told = shown.told(Progress(0, 0, "linking"))
    assert (told.fraction, told.total, told.text) == (0.0, 1, "linking")
