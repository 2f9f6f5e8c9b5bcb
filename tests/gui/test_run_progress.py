"""How long a run still takes is told from what its present part took so far."""

from __future__ import annotations

import pytest

from napari_sam_med.gui import run_progress
from napari_sam_med.gui.run_progress import RunProgress, duration
from napari_sam_med.progress import Progress


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.2, "1 s"), (89, "89 s"), (90, "2 min"), (3000, "50 min"), (9000, "2.5 h")]
)
def test_durations_are_told_in_the_unit_that_fits(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_time_left_is_that_of_the_present_part_and_told_once_some_of_it_is_done(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [0.0]
    monkeypatch.setattr(run_progress.time, "monotonic", lambda: now[0])
    steps = RunProgress()

    def at(seconds: float, done: int, text: str) -> tuple[str, str]:
        now[0] = seconds
        progress = Progress(done, 100, text)
        return steps.text(progress, 5), steps.left(progress)

    assert at(0, 50, "embedding slices") == ("embedding slices", "")
    assert at(20, 60, "embedding slices") == ("embedding slices", " · 80 s left")
    assert at(30, 20, "epoch 2") == ("epoch 2 of 5", "")  # another part, gone on with
    assert at(40, 40, "epoch 2") == ("epoch 2 of 5", " · 30 s left")
    assert at(70, 100, "epoch 5") == ("epoch 5 of 5", "")
