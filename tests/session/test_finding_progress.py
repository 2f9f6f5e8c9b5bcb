"""What the bar of a search says, from the body to the last slice."""

from __future__ import annotations

from napari_sam_med.progress import Progress
from napari_sam_med.segmentation.automatic.gap_filling import FILLING
from napari_sam_med.segmentation.automatic.prompt_area import BODY
from napari_sam_med.session.finding_progress import SearchProgress, counted
from napari_sam_med.volume.slice_view import SliceView

HERE = SliceView("axial", 7)


def test_the_body_comes_first_with_a_bar_of_its_own() -> None:
    progress = SearchProgress(HERE, 4)
    for shown in (progress.within(Progress(30, 60, BODY)), progress.of_all(Progress(30, 60, BODY))):
        assert (shown.text, shown.done, shown.total) == ("finding the body", 30, 60)


def test_points_and_fillings_move_the_bar_on_within_a_slice() -> None:
    progress = SearchProgress(HERE, 4, fills=True)
    seen = [
        progress.within(Progress(1, 2, "asking points")),
        progress.within(Progress(2, 2, "asking points")),
        progress.within(Progress(1, 2, FILLING)),
        progress.slice_done(),
        progress.within(Progress(1, 2, "asking points")),
        progress.slice_done(),
        progress.slice_done(),
        progress.slice_done(),
    ]
    fractions = [one.fraction for one in seen]
    assert fractions == sorted(set(fractions)), "forwards alone"
    assert fractions[-1] == 1.0
    assert [one.text for one in seen[:5]] == ["slice 1 of 4"] * 3 + ["slice 2 of 4"] * 2
    assert seen[-1].text == "slice 4 of 4"


def test_without_fillings_points_fill_a_slice() -> None:
    progress = SearchProgress(HERE, 4)
    assert progress.within(Progress(1, 2, "asking points")).fraction == 1 / 8
    assert progress.of_all(Progress(3, 4)).fraction == 3 / 4
    assert progress.of_all(Progress(3, 4)).text == "slice 4 of 4"


def test_a_lone_slice_is_called_by_its_number() -> None:
    assert SearchProgress(HERE, 1).within(Progress(1, 2, "asking points")).text == "slice 7"
    assert counted(Progress(3, 29, "any"), "naming").text == "naming 3 of 29"
